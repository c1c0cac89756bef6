//! The preference objective on the device, against that of `duel_loss` on the host.

use crate::{Bench, Devices};
use duel_backend::{Acc, Backend, Float, Index, LogProbs, Real, RowStats, Storage};
use duel_cpu::Cpu;
use duel_cuda::{Cuda, CudaReal, Driver, PairLoss, PreferenceObjective, PreferenceOut};
use duel_loss::{Score, hinge, ipo, sigmoid};
use duel_tests::{Random, host};
use half::bf16;

/// Sums of logp, entropy, mean logit and hits of a response.
type Sums = [f64; 4];

/// A chunk of groups: rows of each response, responses of each group.
struct Chunk {
    responses: Vec<usize>,
    groups: Vec<usize>,
    reference: Vec<f64>,
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
    /// `groups[g][k]` rows of response k of group g, and random log-probabilities of the reference.
    fn new(groups: &[&[usize]], random: &mut Random) -> Self {
        let responses = groups.concat();
        let reference = responses.iter().map(|&n| n as f64 * (random.unit() - 2.0)).collect();
        Chunk { responses, groups: groups.iter().map(|g| g.len()).collect(), reference }
    }

    fn rows(&self) -> usize {
        self.responses.iter().sum()
    }
}

/// What the objective gives for a chunk.
struct Outcome {
    sums: Vec<Sums>,
    /// Of every response as the preferred one.
    loss: Vec<f64>,
    rewards: Vec<f64>,
    /// Of every row.
    coef: Vec<f64>,
}

/// A loss of `duel_loss`: of `beta` and two scores.
type HostLoss = fn(f64, Score, Score) -> duel_loss::PairLoss;

/// The objectives under test, and the same of `duel_loss`.
fn objectives() -> [(PairLoss, HostLoss); 5] {
    [
        (PairLoss::Sigmoid { label_smoothing: 0.0 }, |beta, w, l| sigmoid(beta, 0.0, w, l)),
        (PairLoss::Sigmoid { label_smoothing: 0.2 }, |beta, w, l| sigmoid(beta, 0.2, w, l)),
        (PairLoss::Ipo { per_token: true }, |beta, w, l| ipo(beta, true, w, l)),
        (PairLoss::Ipo { per_token: false }, |beta, w, l| ipo(beta, false, w, l)),
        (PairLoss::Hinge, hinge),
    ]
}

/// The objective on the host, from the statistics of every row.
fn on_host(chunk: &Chunk, rows: [&[f64]; 4], loss: HostLoss, beta: f64, weight: f64) -> Outcome {
    let mut out = Outcome { sums: Vec::new(), loss: Vec::new(), rewards: Vec::new(), coef: Vec::new() };
    let mut row = 0;
    for &n in &chunk.responses {
        out.sums.push(rows.map(|values| values[row..row + n].iter().sum()));
        row += n;
    }
    let score = |i: usize| Score {
        logp: out.sums[i][0],
        reference: chunk.reference[i],
        tokens: chunk.responses[i],
        ..Score::default()
    };
    let mut slopes = vec![0.0; chunk.responses.len()];
    out.loss = slopes.clone();
    out.rewards = (0..slopes.len()).map(|i| beta * score(i).log_ratio()).collect();
    let mut first = 0;
    for &n in &chunk.groups {
        for chosen in first..first + n {
            for rejected in chosen + 1..first + n {
                let pair = loss(beta, score(chosen), score(rejected));
                out.loss[chosen] += pair.value / weight;
                slopes[chosen] += pair.d_chosen / weight;
                slopes[rejected] += pair.d_rejected / weight;
            }
        }
        first += n;
    }
    let of_rows = chunk.responses.iter().zip(&slopes).flat_map(|(&n, &slope)| vec![slope; n]);
    out.coef = of_rows.collect();
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

    /// Those that the objective sums.
    fn host(&self, b: &B) -> [Vec<f64>; 4] {
        [0, 2, 3, 4].map(|i| host::<B, B::Acc>(b, &self.0[i]))
    }
}

/// The objective on a device, from statistics that are there; the coefficients stay there too.
fn on_device<D: Driver, R: CudaReal>(
    b: &Cuda<D, R>,
    chunk: &Chunk,
    stats: &mut Stats<Cuda<D, R>>,
    objective: PreferenceObjective,
) -> (Outcome, Acc<Cuda<D, R>>) {
    let (rows, responses) = (chunk.rows(), chunk.responses.len());
    let mut groups = b.response_groups(responses, chunk.groups.len()).expect("room for a test");
    b.set_response_groups(&mut groups, &firsts(&chunk.responses), &firsts(&chunk.groups));
    let mut bench = Bench::new::<f32>();
    let mut coef = bench.output::<Cuda<D, R>, f32>(b, rows);
    let mut sums = bench.output::<Cuda<D, R>, f64>(b, 4 * responses);
    let mut loss = bench.output::<Cuda<D, R>, f64>(b, responses);
    let mut rewards = bench.output::<Cuda<D, R>, f64>(b, responses);
    let mut reference = b.alloc(responses).expect("room for a test");
    b.upload(&mut reference, 0, &chunk.reference);
    let out = PreferenceOut { coef: &mut coef, sums: &mut sums, loss: &mut loss, rewards: &mut rewards };
    b.preference(out, &stats.out(), &reference, &groups, objective);
    b.finish().unwrap_or_else(|e| panic!("preference: {e}"));
    let outcome = Outcome {
        sums: written(b, &sums, 4 * responses).chunks(4).map(|s| [s[0], s[1], s[2], s[3]]).collect(),
        loss: written(b, &loss, responses),
        rewards: written(b, &rewards, responses),
        coef: written(b, &coef, rows),
    };
    (outcome, coef)
}

/// The first `n` elements of a buffer of NaNs, after which nothing may have been written.
fn written<B: Backend, T: Float>(b: &B, buf: &B::Buf<T>, n: usize) -> Vec<f64> {
    let mut all = host::<B, T>(b, buf);
    assert!(all.split_off(n).iter().all(|x| x.is_nan()), "written past the end");
    all
}

/// Checks an outcome in double precision: sums in the same order are the same bits; the rest is off by the few
/// roundings of the functions in it, relative to the terms of a sum.
fn check_outcome(context: &str, got: &Outcome, want: &Outcome) {
    assert_eq!(got.sums, want.sums, "{context}: sums of rows");
    assert_eq!(got.rewards, want.rewards, "{context}: rewards");
    let close = |name: &str, got: &[f64], want: &[f64], epsilon: f64| {
        let scale = want.iter().fold(f64::MIN_POSITIVE, |a, b| a.max(b.abs()));
        for (i, (x, y)) in got.iter().zip(want).enumerate() {
            assert!(
                (x - y).abs() <= 8.0 * epsilon * scale,
                "{context}: {name}[{i}] is {x:e}, right is {y:e}"
            );
        }
        assert_eq!(got.len(), want.len(), "{context}: {name}");
    };
    close("loss", &got.loss, &want.loss, f64::EPSILON);
    close("coef", &got.coef, &want.coef, f64::from(f32::EPSILON) / 8.0);
}

/// The objective alone: every loss, groups of 0 to 40 responses, responses without rows and of many.
pub fn preference(devices: &impl Devices) {
    let mut random = Random(5);
    let many: Vec<usize> = (0..40).map(|_| random.pick(0..9)).collect();
    let groups: [&[usize]; 7] = [&[3, 5], &[], &[1], &[0, 4], &[300, 7, 33], &[2, 0, 1, 1, 6], &many];
    let chunk = Chunk::new(&groups, &mut random);
    let rows = chunk.rows();
    let mut row = |low: f64, high: f64| -> Vec<f32> {
        (0..rows).map(|_| (low + (high - low) * (random.unit() + 1.0) / 2.0) as f32).collect()
    };
    let values = [row(-9.0, 0.0), row(0.0, 9.0), row(0.0, 6.0), row(-1.0, 1.0), row(0.0, 1.0)];
    for driver in devices.devices() {
        let b = Cuda::<_, f32>::new(driver);
        let mut stats = Stats::new(&b, rows);
        for (buf, values) in stats.0.iter_mut().zip(&values) {
            b.upload(buf, 0, values);
        }
        let on_rows = stats.host(&b);
        for (loss, of_host) in objectives() {
            for beta in [0.1, 2.0] {
                let (got, _) =
                    on_device(&b, &chunk, &mut stats, PreferenceObjective { loss, beta, weight: 7.0 });
                let want = on_host(&chunk, on_rows.each_ref().map(Vec::as_slice), of_host, beta, 7.0);
                check_outcome(&format!("{loss:?}, beta {beta} on {}", b.describe()), &got, &want);
            }
        }
    }
}

/// Inputs of a chunk's way from logits to their gradients.
struct Logits {
    vocab: usize,
    values: Vec<f64>,
    targets: Vec<u32>,
}

impl Logits {
    /// On a backend, rounded to what it stores.
    fn upload<B: Backend>(&self, b: &B) -> (Real<B>, Index<B>) {
        let values: Vec<B::Real> = self.values.iter().map(|&x| B::Real::from_f64(x)).collect();
        let mut logits = b.alloc(values.len()).expect("room for a test");
        b.upload(&mut logits, 0, &values);
        let mut targets = b.alloc(self.targets.len()).expect("room for a test");
        b.upload(&mut targets, 0, &self.targets);
        (logits, targets)
    }

    /// Gradients of the logits with the objective on the host.
    fn on_host<B: Backend>(&self, b: &B, chunk: &Chunk, loss: HostLoss, beta: f64) -> Vec<f64> {
        let rows = chunk.rows();
        let (mut logits, targets) = self.upload(b);
        let mut stats = Stats::<B>::new(b, rows);
        b.logprob(stats.out(), &logits, &targets, duel_backend::Logits::dense(rows, self.vocab));
        let on_rows = stats.host(b);
        let outcome = on_host(chunk, on_rows.each_ref().map(Vec::as_slice), loss, beta, 1.0);
        let coef: Vec<B::Acc> = outcome.coef.into_iter().map(B::Acc::from_f64).collect();
        let mut of_rows = b.alloc(rows).expect("room for a test");
        b.upload(&mut of_rows, 0, &coef);
        b.logprob_bw(
            &mut logits,
            &stats.0[1],
            &of_rows,
            &targets,
            duel_backend::Logits::dense(rows, self.vocab),
        );
        host(b, &logits)
    }

    /// The same without the host in between.
    fn on_device<D: Driver, R: CudaReal>(
        &self,
        b: &Cuda<D, R>,
        chunk: &Chunk,
        objective: PreferenceObjective,
    ) -> Vec<f64> {
        let rows = chunk.rows();
        let (mut logits, targets) = self.upload(b);
        let mut stats = Stats::new(b, rows);
        b.logprob(stats.out(), &logits, &targets, duel_backend::Logits::dense(rows, self.vocab));
        let (_, coef) = on_device(b, chunk, &mut stats, objective);
        b.logprob_bw(
            &mut logits,
            &stats.0[1],
            &coef,
            &targets,
            duel_backend::Logits::dense(rows, self.vocab),
        );
        b.finish().unwrap_or_else(|e| panic!("head: {e}"));
        host(b, &logits)
    }
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
    let values = random.vec(rows * vocab).into_iter().map(|x| R::from_f64(5.0 * x).to_f64()).collect();
    let logits = Logits { vocab, values, targets: random.tokens(rows, vocab) };
    for (loss, of_host) in objectives() {
        let right = logits.on_host(&Cpu::<f64>::new(1), &chunk, of_host, 0.3);
        let naive = logits.on_host(&Cpu::<R>::new(1), &chunk, of_host, 0.3);
        let bound = 2.0 * duel_tests::distance(&naive, &right) + 3.0 * f64::from(f32::EPSILON);
        for driver in devices.devices().into_iter().take(1) {
            let b = Cuda::<_, R>::new(driver);
            let got = logits.on_device(&b, &chunk, PreferenceObjective { loss, beta: 0.3, weight: 1.0 });
            let error = duel_tests::distance(&got, &right);
            assert!(error <= bound, "{loss:?} on {}: error {error:e}, bound {bound:e}", b.describe());
        }
    }
}

/// A chunk of whole groups from logits to gradients without the host, against the verbs with the host's objective.
pub fn head_chunk(devices: &impl Devices) {
    check_head_chunk::<f32>(devices);
    check_head_chunk::<bf16>(devices);
}
