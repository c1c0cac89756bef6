//! Losses of pairs on a device, against the objective of `duel_loss` on the host.

use crate::{Bench, Devices};
use duel_backend::{
    Acc, Backend, Float, Grouped, Logits, PairObjective, PreferenceOut, ResponseGroups, ResponseSums,
    RowStats,
};
use duel_cpu::Cpu;
use duel_cuda::{Cuda, CudaReal};
use duel_loss::{Group, Objective, Score, Settings, Totals, word};
use duel_tests::{Random, host};
use half::bf16;

/// Whole groups: rows of each response, responses of each group, and what is known of them.
struct Chunk {
    responses: Vec<usize>,
    groups: Vec<usize>,
    weights: Vec<f64>,
    reference: Vec<f64>,
    margins: Vec<f64>,
}

/// Where each of consecutive parts begins, and the end of the last.
fn firsts(sizes: &[usize]) -> Vec<u32> {
    let ends = sizes.iter().scan(0, |at, &n| {
        *at += n as u32;
        Some(*at)
    });
    std::iter::once(0).chain(ends).collect()
}

impl Chunk {
    /// `groups[g][k]` rows of response k of group g, random log-probabilities of the reference, and every third row
    /// of less weight.
    fn new(groups: &[&[usize]], random: &mut Random) -> Self {
        let responses = groups.concat();
        let rows: usize = responses.iter().sum();
        Chunk {
            weights: (0..rows).map(|row| if row % 3 == 2 { 0.3 } else { 1.0 }).collect(),
            reference: responses.iter().map(|&n| n as f64 * (random.unit() - 2.0)).collect(),
            margins: (0..groups.len()).map(|g| 0.5 * (g % 3) as f64).collect(),
            groups: groups.iter().map(|g| g.len()).collect(),
            responses,
        }
    }

    fn rows(&self) -> usize {
        self.responses.iter().sum()
    }

    fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        self.groups.iter().for_each(|&n| totals.add(n, 0, 0));
        totals
    }

    fn upload<B: Backend>(&self, b: &B) -> ResponseGroups<B> {
        let mut groups = ResponseGroups::new(b, 1).expect("room for a test");
        let content = Grouped {
            first_rows: &firsts(&self.responses),
            first_responses: &firsts(&self.groups),
            weights: &self.weights,
            reference: &self.reference,
            margins: &self.margins,
        };
        groups.set(b, content).expect("room for a test");
        groups
    }
}

/// The objectives that kernels know.
fn objectives() -> Vec<(String, Objective)> {
    let mut all = Vec::new();
    for beta in [0.1, 2.0] {
        let mut add = |name: &str, settings: Settings| {
            let named = word(name).expect("it is in the table");
            all.push((format!("{name} {settings:?}"), Objective::new(vec![(1.5, named)], settings)));
        };
        let plain = Settings { beta, ..Settings::default() };
        add("sigmoid", plain);
        add("sigmoid", Settings { label_smoothing: 0.2, ..plain });
        add("ipo", plain);
        add("ipo", Settings { ipo_per_token: false, ..plain });
        add("hinge", plain);
    }
    all
}

/// What the objective gives for a chunk.
struct Outcome {
    sums: Vec<ResponseSums>,
    /// Of every group.
    loss: Vec<f64>,
    /// Of every row.
    coef: Vec<f64>,
}

/// The objective on the host, from the log-probability, entropy, mean logit, hit and collision of every row.
fn on_host(chunk: &Chunk, rows: &[Vec<f64>; 5], objective: &Objective) -> Outcome {
    let mut out = Outcome { sums: Vec::new(), loss: Vec::new(), coef: Vec::new() };
    let firsts = firsts(&chunk.responses);
    for ends in firsts.windows(2) {
        let mut sums = ResponseSums::default();
        for row in ends[0] as usize..ends[1] as usize {
            let [logp, entropy, mean_logit, hit, collision] = rows.each_ref().map(|values| values[row]);
            sums.logp += chunk.weights[row] * logp;
            sums.entropy += entropy;
            sums.mean_logit += mean_logit;
            sums.hits += hit;
            sums.certainty += logp - collision;
        }
        out.sums.push(sums);
    }
    let mut first = 0;
    for (&n, &margin) in chunk.groups.iter().zip(&chunk.margins) {
        let score = |i: usize| Score {
            logp: out.sums[i].logp,
            reference: chunk.reference[i],
            tokens: chunk.responses[i],
            certainty: out.sums[i].certainty,
        };
        let scores: Vec<Score> = (first..first + n).map(score).collect();
        let mut slopes = vec![0.0; n];
        let group = Group { margin, ..Group::ranked(&scores) };
        out.loss.push(objective.slopes(&[group], chunk.totals(), &mut slopes));
        for (response, slope) in (first..).zip(slopes) {
            let rows = firsts[response] as usize..firsts[response + 1] as usize;
            out.coef.extend(chunk.weights[rows].iter().map(|weight| slope * weight));
        }
        first += n;
    }
    out
}

/// The statistics of rows on a backend.
struct Stats<B: Backend>([Acc<B>; 6]);

impl<B: Backend> Stats<B> {
    fn new(b: &B, rows: usize) -> Self {
        Stats(std::array::from_fn(|_| b.alloc(rows).expect("room for a test")))
    }

    fn out(&mut self) -> RowStats<'_, B> {
        let [logp, lse, entropy, mean_logit, hit, collision] = &mut self.0;
        RowStats { logp, lse, entropy, mean_logit, hit, collision }
    }
}

/// Responses that are in the sums before those of a chunk.
const BEFORE: usize = 2;

/// The objective as a backend makes it, from statistics that are there; the coefficients stay there too.
fn on_device<B: Backend>(
    b: &B,
    chunk: &Chunk,
    stats: &mut Stats<B>,
    objective: &PairObjective<'_>,
) -> (Outcome, Acc<B>) {
    let (rows, responses) = (chunk.rows(), chunk.responses.len());
    let mut bench = Bench::new::<f32>();
    let mut coef = bench.output::<B, B::Acc>(b, rows);
    let mut sums = bench.output::<B, f64>(b, ResponseSums::COLUMNS * (BEFORE + responses));
    let out = PreferenceOut { coef: &mut coef, sums: &mut sums, first: BEFORE };
    b.preference(out, &stats.out(), &chunk.upload(b), objective);
    b.finish().unwrap_or_else(|e| panic!("preference: {e}"));
    let columns = written(b, &sums, ResponseSums::COLUMNS * (BEFORE + responses));
    let (columns, _) = columns.as_chunks();
    assert!(columns[..BEFORE].as_flattened().iter().all(|x| x.is_nan()), "written before the first response");
    let sums: Vec<ResponseSums> = columns[BEFORE..].iter().map(|&columns| columns.into()).collect();
    let loss = firsts(&chunk.groups);
    let loss =
        loss.windows(2).map(|ends| sums[ends[0] as usize..ends[1] as usize].iter().map(|s| s.loss).sum());
    (Outcome { loss: loss.collect(), sums, coef: written(b, &coef, rows) }, coef)
}

/// The first `n` elements of a buffer of NaNs, after which nothing may have been written.
fn written<B: Backend, T: Float>(b: &B, buf: &B::Buf<T>, n: usize) -> Vec<f64> {
    let mut all = host::<B, T>(b, buf);
    assert!(all.split_off(n).iter().all(|x| x.is_nan()), "written past the end");
    all
}

/// Checks an outcome in double precision: sums in the same order are the same bits; the rest is off by the few
/// roundings of the functions in it, relative to the terms of a sum, and none where the functions are the host's.
fn check_outcome(context: &str, got: &Outcome, want: &Outcome, roundings: f64) {
    for (i, (got, want)) in got.sums.iter().zip(&want.sums).enumerate() {
        assert_eq!(ResponseSums { loss: 0.0, ..*got }, *want, "{context}: sums of response {i}");
    }
    assert_eq!(got.sums.len(), want.sums.len(), "{context}: responses");
    let close = |name: &str, got: &[f64], want: &[f64], epsilon: f64| {
        let scale = want.iter().fold(f64::MIN_POSITIVE, |a, b| a.max(b.abs()));
        for (i, (x, y)) in got.iter().zip(want).enumerate() {
            assert!(
                x.is_finite() && (x - y).abs() <= 8.0 * epsilon * scale,
                "{context}: {name}[{i}] is {x:e}, right is {y:e}"
            );
        }
        assert_eq!(got.len(), want.len(), "{context}: {name}");
    };
    close("loss", &got.loss, &want.loss, f64::EPSILON);
    close("coef", &got.coef, &want.coef, roundings);
}

/// What [`check_outcome`] is told of a chunk on a backend.
fn check_on<B: Backend>(b: &B, chunk: &Chunk, rows: &[Vec<f32>; 5], roundings: f64) {
    let mut stats = Stats::new(b, chunk.rows());
    for (i, values) in [0, 2, 3, 4, 5].into_iter().zip(rows) {
        let values: Vec<B::Acc> = values.iter().map(|&x| B::Acc::from_f32(x)).collect();
        b.upload(&mut stats.0[i], 0, &values);
    }
    let on_rows = rows.each_ref().map(|values| values.iter().map(|&x| f64::from(x)).collect());
    for (name, objective) in objectives() {
        let pairs = objective.on_device(chunk.totals()).expect("kernels know it");
        let (got, _) = on_device(b, chunk, &mut stats, &pairs);
        let want = on_host(chunk, &on_rows, &objective);
        check_outcome(&format!("{name} on {}", b.describe()), &got, &want, roundings);
    }
}

/// The objective alone: every loss, groups of 0 to 40 responses, responses without rows and of many; log-ratios of 1e4
/// either way, and responses that are alike.
pub fn preference(devices: &impl Devices) {
    let mut random = Random(5);
    let many: Vec<usize> = (0..40).map(|_| random.pick(0..9)).collect();
    let groups: [&[usize]; 7] = [&[3, 5], &[], &[1], &[0, 4], &[300, 7, 33], &[2, 0, 1, 1, 6], &many];
    let usual = Chunk::new(&groups, &mut random);
    let mut extreme = Chunk::new(&[&[1, 1], &[1, 1], &[1, 1], &[2, 2], &[1, 1, 1]], &mut random);
    extreme.reference = [1e4, -1e4, -1e4, 1e4, 0.0, 0.0, -1.0, -1.0, 1e4, 0.0, -1e4].to_vec();
    for chunk in [usual, extreme] {
        let mut row = |low: f64, high: f64| -> Vec<f32> {
            let scaled = |unit: f64| (low + (high - low) * (unit + 1.0) / 2.0) as f32;
            (0..chunk.rows()).map(|_| scaled(random.unit())).collect()
        };
        let rows = [row(-9.0, 0.0), row(0.0, 6.0), row(-1.0, 1.0), row(0.0, 1.0), row(-9.0, 0.0)];
        check_on(&Cpu::<f64>::new(1), &chunk, &rows, 0.0);
        check_on(&Cpu::<f32>::new(1), &chunk, &rows, f64::from(f32::EPSILON) / 8.0);
        for driver in devices.devices() {
            check_on(&Cuda::<_, f32>::new(driver), &chunk, &rows, f64::from(f32::EPSILON) / 8.0);
        }
    }
}

/// From logits of a chunk's rows to their gradients, with the objective in between.
fn gradients<B: Backend>(
    b: &B,
    chunk: &Chunk,
    vocab: usize,
    values: &[f64],
    targets: &[u32],
    objective: &PairObjective<'_>,
) -> Vec<f64> {
    let rows = chunk.rows();
    let values: Vec<B::Real> = values.iter().map(|&x| B::Real::from_f64(x)).collect();
    let mut logits = b.alloc(values.len()).expect("room for a test");
    b.upload(&mut logits, 0, &values);
    let mut of_rows = b.alloc(rows).expect("room for a test");
    b.upload(&mut of_rows, 0, targets);
    let mut stats = Stats::new(b, rows);
    b.logprob(stats.out(), &logits, &of_rows, Logits::dense(rows, vocab));
    let (_, coef) = on_device(b, chunk, &mut stats, objective);
    b.logprob_bw(&mut logits, &stats.0[1], &coef, &of_rows, None, Logits::dense(rows, vocab));
    host(b, &logits)
}

fn check_head_chunk<R>(devices: &impl Devices)
where
    R: CudaReal + duel_cpu::Real,
    Cpu<R>: Backend,
{
    let mut random = Random(9);
    let vocab = 101;
    let chunk = Chunk::new(&[&[4, 6], &[3, 0, 5]], &mut random);
    let rows = chunk.rows();
    let values: Vec<f64> =
        random.vec(rows * vocab).into_iter().map(|x| R::from_f64(5.0 * x).to_f64()).collect();
    let targets = random.tokens(rows, vocab);
    for (name, objective) in objectives() {
        let pairs = objective.on_device(chunk.totals()).expect("kernels know it");
        let right = gradients(&Cpu::<f64>::new(1), &chunk, vocab, &values, &targets, &pairs);
        let naive = gradients(&Cpu::<R>::new(1), &chunk, vocab, &values, &targets, &pairs);
        let bound = 2.0 * duel_tests::distance(&naive, &right) + 3.0 * f64::from(f32::EPSILON);
        for driver in devices.devices().into_iter().take(1) {
            let b = Cuda::<_, R>::new(driver);
            let got = gradients(&b, &chunk, vocab, &values, &targets, &pairs);
            let error = duel_tests::distance(&got, &right);
            assert!(error <= bound, "{name} on {}: error {error:e}, bound {bound:e}", b.describe());
        }
    }
}

/// A chunk of whole groups from logits to gradients without the host.
pub fn head_chunk(devices: &impl Devices) {
    check_head_chunk::<f32>(devices);
    check_head_chunk::<bf16>(devices);
}
