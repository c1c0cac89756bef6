//! Measurements joined with what they mean: rates, ceilings, shares and ratios.

use crate::criterion::Measured;
use crate::machine::Machine;
use duel_benches::step::{self, Case, Series};
use duel_benches::verb::{self, Call, Precision, Work};
use duel_cpu::Cpu;
use serde_json::{Value, json};
use std::collections::HashMap;

/// What holds a verb back, by the kind of its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Multiply-adds in registers.
    Fma,
    /// Copies between buffers larger than every cache, with streaming stores.
    Copy,
    /// Copies between buffers that stay in the last-level cache.
    CachedCopy,
}

impl Bound {
    /// The benchmark that measures it, and its name in the table.
    pub fn name(self) -> &'static str {
        match self {
            Bound::Fma => "fma",
            Bound::Copy => "copy",
            Bound::CachedCopy => "copy in cache",
        }
    }
}

/// The measured ceilings, each in operations or bytes a second.
pub struct Ceilings {
    /// For each number of threads that was measured.
    pub fma: Vec<(usize, f64)>,
    /// Beyond the caches, all threads.
    pub copy: f64,
    /// Within the last-level cache, all threads.
    pub cached_copy: f64,
}

/// A verb's line.
pub struct VerbRow {
    /// Which verb.
    pub call: Call,
    /// Median time of a call.
    pub seconds: f64,
    /// Its confidence interval.
    pub interval: [f64; 2],
    /// Operations or bytes a second.
    pub rate: f64,
    /// What it is held against.
    pub bound: Bound,
    /// The rate as a share of that.
    pub share: f64,
    /// Share of the model's step, where both were measured and the step calls it.
    pub of_step: Option<f64>,
}

/// A step's line.
pub struct StepRow {
    /// Which step.
    pub case: Case,
    /// Median time.
    pub seconds: f64,
    /// Its confidence interval.
    pub interval: [f64; 2],
    /// Tokens of the pair, the prompt once, a second.
    pub tokens: f64,
    /// Operations of [`Case::flops`] a second.
    pub rate: f64,
    /// The rate as a share of the peak of as many threads, where that was measured.
    pub share: Option<f64>,
    /// How many times as fast as another case, and the other's name.
    pub against: Option<(f64, String)>,
}

/// Everything that was measured in a run.
pub struct Rows {
    /// The ceilings.
    pub ceilings: Ceilings,
    /// In the order of [`verb::calls`].
    pub verbs: Vec<VerbRow>,
    /// In the order of [`step::cases`].
    pub steps: Vec<StepRow>,
    /// Benchmarks without a measurement.
    pub missing: Vec<String>,
}

/// Measurements by their name.
struct Index<'a>(HashMap<[&'a str; 3], &'a Measured>);

impl<'a> Index<'a> {
    fn new(measured: &'a [Measured]) -> Self {
        Index(measured.iter().map(|m| (m.id.each_ref().map(String::as_str), m)).collect())
    }

    fn get(&self, group: &str, function: &str, value: &str) -> Option<&'a Measured> {
        self.0.get(&[group, function, value]).copied()
    }

    fn call(&self, call: &Call) -> Option<&'a Measured> {
        self.get(call.model, call.verb.name(), &call.shape())
    }

    fn case(&self, case: &Case) -> Option<&'a Measured> {
        self.get(case.series.name(), &case.variant(), &case.pair.to_string())
    }
}

impl Rows {
    /// Joins the measurements of this machine.
    ///
    /// # Errors
    /// When a ceiling was not measured.
    pub fn new(measured: &[Measured], machine: &Machine) -> Result<Self, String> {
        let index = Index::new(measured);
        let ceilings = ceilings(&index, machine.cores)?;
        let (cases, calls) = (step::cases(machine.cores), verb::calls());
        let (mut steps, mut verbs, mut missing) = (Vec::new(), Vec::new(), Vec::new());
        for case in cases {
            match index.case(&case) {
                Some(m) => steps.push(step_row(&index, &ceilings, case, m)),
                None => missing.push(format!("{} {} {}", case.series.name(), case.variant(), case.pair)),
            }
        }
        for call in calls {
            match index.call(&call) {
                Some(m) => verbs.push(verb_row(&steps, &ceilings, machine, call, m)),
                None => missing.push(format!("{} {} {}", call.model, call.verb.name(), call.shape())),
            }
        }
        Ok(Rows { ceilings, verbs, steps, missing })
    }

    /// For the results file: seconds, operations and bytes, without prefixes.
    pub fn json(&self) -> Value {
        let fma: Vec<_> = self
            .ceilings
            .fma
            .iter()
            .map(|(n, rate)| json!({ "threads": n, "flop_per_second": rate }))
            .collect();
        json!({
            "ceilings": {
                "fma": fma, "copy_bytes_per_second": self.ceilings.copy,
                "copy_in_cache_bytes_per_second": self.ceilings.cached_copy,
            },
            "verbs": self.verbs.iter().map(VerbRow::json).collect::<Vec<_>>(),
            "steps": self.steps.iter().map(StepRow::json).collect::<Vec<_>>(),
        })
    }
}

fn ceilings(index: &Index, cores: usize) -> Result<Ceilings, String> {
    let rate = |name: &str, threads: usize| {
        let measured = index.get("ceiling", name, &threads.to_string());
        let measured = measured.ok_or_else(|| format!("the ceiling `{name}` was not measured"))?;
        Ok::<_, String>(per_second(measured))
    };
    let mut counts = vec![1, cores];
    counts.dedup();
    let fma = counts.into_iter().map(|n| Ok((n, rate(Bound::Fma.name(), n)?)));
    Ok(Ceilings {
        fma: fma.collect::<Result<_, String>>()?,
        copy: rate(Bound::Copy.name(), cores)?,
        cached_copy: rate(Bound::CachedCopy.name(), cores)?,
    })
}

/// That of the CPU backend, which all of this is about.
fn precision() -> Precision {
    Precision::of::<Cpu>()
}

fn per_second(m: &Measured) -> f64 {
    let (Work::Flops(work) | Work::Bytes(work)) = m.work;
    work as f64 / m.seconds
}

fn step_row(index: &Index, ceilings: &Ceilings, case: Case, m: &Measured) -> StepRow {
    let against =
        case.against().and_then(|(other, name)| Some((index.case(&other)?.seconds / m.seconds, name)));
    let rate = case.flops() / m.seconds;
    let peak = ceilings.fma.iter().find(|(threads, _)| *threads == case.threads);
    StepRow {
        seconds: m.seconds,
        interval: m.interval,
        tokens: case.pair.rows() as f64 / m.seconds,
        rate,
        share: peak.map(|(_, peak)| rate / peak),
        against,
        case,
    }
}

fn verb_row(steps: &[StepRow], ceilings: &Ceilings, machine: &Machine, call: Call, m: &Measured) -> VerbRow {
    let bound = if call.verb.has_few_rows() { Bound::Copy } else { bound(m.work, machine.cache) };
    let ceiling = match bound {
        Bound::Fma => ceilings.fma.last().map_or(f64::NAN, |(_, rate)| *rate),
        Bound::Copy => ceilings.copy,
        Bound::CachedCopy => ceilings.cached_copy,
    };
    let whole = steps.iter().find(|s| s.case.series == Series::Whole && s.case.model == call.model);
    let of_step = whole.filter(|_| call.in_step > 0.0).map(|s| call.in_step * m.seconds / s.seconds);
    let rate = per_second(m);
    VerbRow { call, seconds: m.seconds, interval: m.interval, rate, bound, share: rate / ceiling, of_step }
}

/// A verb that moves less than the last-level cache holds finds its operands there; in a step too, as far as the verbs
/// before it have just written them.
fn bound(work: Work, cache: Option<usize>) -> Bound {
    match (work, cache) {
        (Work::Flops(_), _) => Bound::Fma,
        (Work::Bytes(n), Some(cache)) if n < cache as u64 => Bound::CachedCopy,
        (Work::Bytes(_), _) => Bound::Copy,
    }
}

impl VerbRow {
    fn json(&self) -> Value {
        let (unit, work) = match self.call.verb.work(precision()) {
            Work::Flops(n) => ("flop", n),
            Work::Bytes(n) => ("bytes", n),
        };
        json!({
            "model": self.call.model, "verb": self.call.verb.name(), "shape": self.call.shape(),
            "seconds": self.seconds, "interval": self.interval, unit: work, "per_second": self.rate,
            "bound": self.bound.name(), "share_of_bound": self.share, "calls_in_step": self.call.in_step,
            "share_of_step": self.of_step,
        })
    }
}

impl StepRow {
    fn json(&self) -> Value {
        let against = self.against.as_ref();
        json!({
            "series": self.case.series.name(), "model": self.case.variant(), "pair": self.case.pair.to_string(),
            "prompt": self.case.pair.prompt, "response": self.case.pair.chosen, "layers": self.case.config.layers,
            "vocab": self.case.config.vocab, "shared_prompt": self.case.shared, "threads": self.case.threads,
            "seconds": self.seconds, "interval": self.interval, "pairs_per_second": 1.0 / self.seconds,
            "tokens_per_second": self.tokens, "flop": self.case.flops(), "flop_per_second": self.rate,
            "share_of_fma": self.share, "speedup": against.map(|a| a.0), "speedup_over": against.map(|a| &a.1),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(id: [&str; 3], work: Work, seconds: f64) -> Measured {
        Measured { id: id.map(str::to_owned), work, seconds, interval: [seconds; 2] }
    }

    fn machine() -> Machine {
        let (cpu, date, rustc) = ("a cpu".to_owned(), "2000-01-01".to_owned(), "rustc".to_owned());
        Machine { cpu, cores: 2, cache: Some(32 << 20), date, rustc }
    }

    /// 100 and 200 operations a second at most, 10 bytes from memory and 40 in the cache.
    fn ceilings() -> Vec<Measured> {
        vec![
            measured(["ceiling", "fma", "1"], Work::Flops(100), 1.0),
            measured(["ceiling", "fma", "2"], Work::Flops(400), 2.0),
            measured(["ceiling", "copy", "2"], Work::Bytes(10), 1.0),
            measured(["ceiling", "copy in cache", "2"], Work::Bytes(40), 1.0),
        ]
    }

    fn step(case: &Case, seconds: f64) -> Measured {
        let (variant, pair) = (case.variant(), case.pair.to_string());
        measured([case.series.name(), &variant, &pair], Work::Flops(case.flops() as u64), seconds)
    }

    #[test]
    fn steps_are_held_against_as_many_threads_and_against_each_other() {
        let cases = step::cases(2);
        let threads: Vec<_> = cases.iter().filter(|c| c.series == Series::Threads).collect();
        let mut all = ceilings();
        all.extend([step(threads[0], 3.0), step(threads[1], 2.0)]);
        let rows = Rows::new(&all, &machine()).unwrap();
        let [one, two] = rows.steps.as_slice() else { panic!("two steps were measured") };
        assert_eq!(one.share, Some(one.case.flops() / 3.0 / 100.0));
        assert_eq!(two.share, Some(two.case.flops() / 2.0 / 200.0));
        assert!(one.against.is_none());
        assert_eq!(two.against, Some((1.5, "one thread".to_owned())));
        assert_eq!(rows.missing.len(), cases.len() - 2 + verb::calls().len());
    }

    #[test]
    fn verbs_are_held_against_what_bounds_them() {
        let (calls, cases) = (verb::calls(), step::cases(2));
        let find = |name| calls.iter().find(|c| c.verb.name() == name).unwrap();
        let mut all = ceilings();
        all.push(step(&cases[0], 1000.0));
        for call in ["gemm", "rmsnorm", "logprob"].map(find) {
            all.push(measured(
                [call.model, call.verb.name(), &call.shape()],
                call.verb.work(precision()),
                2.0,
            ));
        }
        let rows = Rows::new(&all, &machine()).unwrap();
        for (row, (bound, ceiling)) in
            rows.verbs.iter().zip([(Bound::Fma, 200.0), (Bound::CachedCopy, 40.0), (Bound::Copy, 10.0)])
        {
            let (Work::Flops(work) | Work::Bytes(work)) = row.call.verb.work(precision());
            assert_eq!((row.bound, row.share), (bound, work as f64 / 2.0 / ceiling));
            assert_eq!(row.of_step, Some(row.call.in_step * 2.0 / 1000.0));
        }
    }

    #[test]
    fn nothing_is_reported_without_ceilings() {
        assert!(Rows::new(&[], &machine()).is_err_and(|what| what.contains("fma")));
    }
}
