//! The printed report, in Markdown.

use crate::machine::Machine;
use crate::rows::{Bound, Rows, StepRow, VerbRow};
use duel_benches::markdown::{percent, table, time};
use duel_benches::step::Series;
use duel_cpu::Isa;

/// The whole report of an instruction set.
pub fn markdown(rows: &Rows, machine: &Machine, isa: Isa) -> String {
    let mut text = format!(
        "{}, {} core(s), {}, {}, {}\n\n",
        machine.cpu, machine.cores, isa, machine.rustc, machine.date
    );
    text += &ceilings(rows);
    if !rows.verbs.is_empty() {
        text += &format!("\n{}", verbs(&rows.verbs));
    }
    if !rows.steps.is_empty() {
        text += &format!("\n{}", steps(&rows.steps));
    }
    for step in rows.steps.iter().filter(|s| s.case.series == Series::Whole) {
        text += &format!("\n{}", summary(rows, step));
    }
    text
}

fn ceilings(rows: &Rows) -> String {
    let c = &rows.ceilings;
    let mut lines = vec![["ceiling".into(), "threads".into(), "rate".into()]];
    lines.extend(
        c.fma.iter().map(|(threads, rate)| [Bound::Fma.name().into(), threads.to_string(), flops(*rate)]),
    );
    let threads = c.fma.last().map_or_else(String::new, |(n, _)| n.to_string());
    for (bound, rate) in [(Bound::Copy, c.copy), (Bound::CachedCopy, c.cached_copy)] {
        lines.push([bound.name().into(), threads.clone(), bytes(rate)]);
    }
    table(&lines, 1)
}

fn verbs(verbs: &[VerbRow]) -> String {
    let head = ["model", "verb", "shape", "time", "rate", "share", "bound", "of the step"];
    let mut lines = vec![head.map(String::from)];
    lines.extend(verbs.iter().map(|v| {
        [
            v.call.model.into(),
            v.call.verb.name().into(),
            v.call.shape(),
            time(v.seconds),
            if v.bound == Bound::Fma { flops(v.rate) } else { bytes(v.rate) },
            percent(v.share, 0),
            v.bound.name().into(),
            v.of_step.map_or_else(String::new, |share| percent(share, 1)),
        ]
    }));
    table(&lines, 3)
}

fn steps(steps: &[StepRow]) -> String {
    let head = ["series", "model", "pair", "time", "pairs/s", "tokens/s", "rate", "of fma", "ratio"];
    let mut lines = vec![head.map(String::from)];
    lines.extend(steps.iter().map(|s| {
        [
            s.case.series.name().into(),
            s.case.variant(),
            s.case.pair.to_string(),
            time(s.seconds),
            format!("{:.2}", 1.0 / s.seconds),
            format!("{:.0}", s.tokens),
            flops(s.rate),
            s.share.map_or_else(String::new, |share| percent(share, 0)),
            s.against.as_ref().map_or_else(String::new, |(ratio, name)| format!("{ratio:.2} x {name}")),
        ]
    }));
    table(&lines, 3)
}

/// Where the time of a whole step goes, as far as its verbs were measured.
fn summary(rows: &Rows, step: &StepRow) -> String {
    let mut text = format!("{}: a step at {}", step.case.model, flops(step.rate));
    if let Some(share) = step.share {
        text += &format!(", {} of the multiply-add peak", percent(share, 0));
    }
    let of_step = |keep: &dyn Fn(&VerbRow) -> bool| -> f64 {
        let chosen = rows.verbs.iter().filter(|v| v.call.model == step.case.model && keep(v));
        chosen.filter_map(|v| v.of_step).sum()
    };
    let all = of_step(&|_| true);
    if all > 0.0 {
        let (products, compute) =
            (of_step(&|v| v.call.verb.is_product()), of_step(&|v| v.bound == Bound::Fma));
        text += &format!(
            "; matrix products take {} of its time, attention {}, the verbs bound by memory {}: together {}",
            percent(products, 0),
            percent(compute - products, 0),
            percent(all - compute, 0),
            percent(all, 0)
        );
    }
    text + ".\n"
}

fn flops(rate: f64) -> String {
    format!("{:.1} GFLOP/s", rate * 1e-9)
}

fn bytes(rate: f64) -> String {
    format!("{:.1} GB/s", rate * 1e-9)
}
