//! Tokens drawn from rows of logits.

use super::check_both;
use crate::{Bench, Devices, Operation};
use duel_backend::{Acc, Backend, Draw, Element, Float, Index, Logits, Real};
use duel_tests::host;

fn upload<B: Backend, T: Element>(b: &B, values: &[T]) -> B::Buf<T> {
    let mut buf = b.alloc(values.len()).expect("room for a test");
    b.upload(&mut buf, 0, values);
    buf
}

/// Logits of a row by the token.
type Row = fn(token: usize, random: f64) -> f64;

struct Sampled {
    rows: usize,
    vocab: usize,
    /// Elements after the vocabulary in each row.
    between: usize,
    row: Row,
    rules: Draw,
}

/// The tokens that the filters leave, in the order of ids, and what each has of the whole; by sorting, as transformers
/// does it.
fn kept(logits: &[f64], rules: Draw) -> Vec<(usize, f64)> {
    let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut sorted: Vec<(usize, f64)> =
        logits.iter().map(|x| ((x - top) * rules.factor()).exp()).enumerate().collect();
    sorted.sort_by(|a, b| b.1.total_cmp(&a.1));
    if rules.top_k > 0 && rules.top_k < sorted.len() {
        let least = sorted[rules.top_k - 1].1;
        sorted.retain(|w| w.1 >= least);
    }
    let goal = rules.top_p * sorted.iter().map(|w| w.1).sum::<f64>();
    let mut before = 0.0;
    let by_mass = sorted.iter().find(|w| {
        before += w.1;
        before >= goal
    });
    let least = by_mass.map_or(0.0, |w| w.1).max(Draw::LEAST);
    sorted.retain(|w| w.1 >= least && w.1 >= rules.min_p);
    sorted.sort_by_key(|w| w.0);
    let total: f64 = sorted.iter().map(|w| w.1).sum();
    sorted.iter().map(|&(token, w)| (token, w / total)).collect()
}

/// The token of a row that holds `at`, and the middle of what it holds: no rounding leads to another.
fn expected(logits: &[f64], rules: Draw, at: f64) -> (u32, f64) {
    let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if logits.iter().any(|x| x.is_nan()) || top.is_infinite() {
        return (Draw::NONE, at);
    }
    if rules.temperature == 0.0 {
        return (logits.iter().position(|&x| x == top).expect("it is there") as u32, at);
    }
    let kept = kept(logits, rules);
    let mut before = 0.0;
    for &(token, p) in &kept {
        // Too narrow a share has no middle in f32.
        if before + p > at && p > 1e-5 {
            return (token as u32, before + p / 2.0);
        }
        before += p;
    }
    let (token, p) = kept[kept.len() - 1];
    (token as u32, 1.0 - p / 2.0)
}

impl Operation for Sampled {
    fn name(&self) -> String {
        let Sampled { rows, vocab, between, rules, .. } = self;
        format!("sample {rows} x {vocab} and {between} between rows, {rules:?}")
    }

    fn run<B: Backend>(&self, b: &B, bench: &mut Bench) {
        let Sampled { rows, vocab, between, row, rules } = *self;
        let dims = Logits { rows, vocab, stride: vocab + between };
        // What lies between the rows is nobody's: no sum may see it.
        let values = bench.random().vec(rows * dims.stride).into_iter().enumerate();
        let value = |(i, x)| if i % dims.stride >= vocab { f64::NAN } else { row(i % dims.stride, x) };
        let logits: Real<B> = bench.real_of(b, values.map(value).collect());
        let places = bench.random().vec(rows);
        let (tokens, draws): (Vec<u32>, Vec<f64>) = host(b, &logits)
            .chunks(dims.stride)
            .zip(places)
            .map(|(logits, at)| expected(&logits[..vocab], rules, at.abs()))
            .unzip();
        let draws: Acc<B> = upload(b, &draws.into_iter().map(Float::from_f64).collect::<Vec<_>>());
        let mut drawn: Index<B> = b.alloc(rows).expect("room for a test");
        let mut logp = bench.output(b, rows);
        b.sample(&mut drawn, &mut logp, &logits, &draws, rules, dims);
        let mut got = vec![0; rows];
        b.download(&mut got, &drawn, 0).unwrap_or_else(|e| panic!("{}: {e}", self.name()));
        assert_eq!(got, tokens, "{} on {}", self.name(), b.describe());
        bench.done(b, "logp", &logp, rows);
    }
}

/// `sample`.
pub fn sample(devices: &impl Devices) {
    let plain: Row = |_, x| 5.0 * x;
    let ties: Row = |_, x| (4.0 * x).round();
    let flat: Row = |_, _| 1.0;
    let masked: Row = |token, x| if token % 3 == 1 { 3.0 * x } else { f64::NEG_INFINITY };
    let large: Row = |_, x| 1e4 * x;
    let largest: Row = |_, x| 3e38 * x;
    let nan: Row = |token, x| if token == 2 { f64::NAN } else { x };
    let infinite: Row = |token, x| if token == 1 { f64::INFINITY } else { x };
    let nothing: Row = |_, _| f64::NEG_INFINITY;
    let all = Draw::plain(1.0);
    let (top_k, top_p, min_p) =
        (Draw { top_k: 20, ..all }, Draw { top_p: 0.8, ..all }, Draw { min_p: 0.3, ..all });
    let every = Draw { temperature: 0.7, top_k: 50, top_p: 0.9, min_p: 0.05 };
    let cases = [
        (3, 1, plain, every),
        (2, 2, plain, all),
        (5, 7, plain, top_p),
        (4, 33, ties, Draw { top_k: 33, ..top_p }),
        (4, 33, ties, Draw { top_k: 1000, ..min_p }),
        (4, 33, ties, Draw { top_k: 1, ..all }),
        (4, 33, ties, Draw { temperature: 0.0, ..every }),
        (3, 600, ties, top_k),
        (3, 600, ties, top_p),
        (3, 600, ties, every),
        (2, 600, plain, Draw { temperature: 0.01, ..all }),
        (2, 600, plain, Draw { temperature: 1e-33, ..top_p }),
        (2, 600, plain, Draw { temperature: 100.0, ..min_p }),
        (2, 600, flat, every),
        (2, 600, flat, Draw { temperature: 0.0, ..all }),
        (2, 600, masked, every),
        (2, 600, masked, all),
        (2, 1009, large, every),
        (2, 96, largest, all),
        (2, 96, largest, top_p),
        (2, 40, nan, every),
        (2, 40, nan, Draw { temperature: 0.0, ..all }),
        (2, 40, infinite, all),
        (2, 40, nothing, top_k),
        (2, 4099, plain, every),
        (2, 16384, plain, min_p),
        (1, 50257, plain, top_p),
        (1, 50257, plain, top_k),
        (1, 50257, plain, all),
    ];
    for (rows, vocab, row, rules) in cases {
        check_both(devices, &Sampled { rows, vocab, between: 0, row, rules });
    }
    for (vocab, between) in [(1, 7), (13, 3), (67, 61), (1009, 15)] {
        check_both(devices, &Sampled { rows: 3, vocab, between, row: plain, rules: every });
    }
}

struct Penalised {
    rows: usize,
    vocab: usize,
    between: usize,
    /// Of each row, every so many tokens.
    step: usize,
}

impl Operation for Penalised {
    fn name(&self) -> String {
        let Penalised { rows, vocab, between, step } = self;
        format!("penalise every {step} of {rows} x {vocab} and {between} between rows")
    }

    fn run<B: Backend>(&self, b: &B, bench: &mut Bench) {
        let Penalised { rows, vocab, between, step } = *self;
        let dims = Logits { rows, vocab, stride: vocab + between };
        let mut logits: Real<B> = bench.real(b, rows * dims.stride, 10.0);
        let tokens =
            (0..rows).flat_map(|row| (row % step..vocab).step_by(step).map(move |token| [row, token]));
        let seen: Vec<u32> = tokens.flatten().map(|n| n as u32).collect();
        b.penalise(&mut logits, &upload(b, &seen), seen.len() / 2, 1.3, dims);
        bench.changed(b, "logits", &logits, dims.stride);
    }
}

struct Blended {
    rows: usize,
    vocab: usize,
    /// Elements after the vocabulary in each row.
    between: usize,
    m: f64,
}

impl Operation for Blended {
    fn name(&self) -> String {
        let Blended { rows, vocab, between, m } = self;
        format!("blend {rows} x {vocab} and {between} between rows, {m} of the other")
    }

    fn run<B: Backend>(&self, b: &B, bench: &mut Bench) {
        let Blended { rows, vocab, between, m } = *self;
        let dims = Logits { rows, vocab, stride: vocab + between };
        let mut logits: Real<B> = bench.real(b, rows * dims.stride, 10.0);
        let other: Real<B> = bench.real(b, rows * dims.stride, 10.0);
        let before = host(b, &logits);
        b.blend(&mut logits, &other, m, dims);
        let [after, other] = [&logits, &other].map(|of| host(b, of));
        for i in 0..after.len() {
            let exact = match m {
                _ if i % dims.stride >= vocab => Some(before[i]),
                0.0 => Some(before[i]),
                1.0 => Some(other[i]),
                _ => None,
            };
            assert!(exact.is_none_or(|x| x == after[i]), "{}: {i} is {}", self.name(), after[i]);
        }
        bench.changed(b, "logits", &logits, dims.stride);
    }
}

/// `blend`: at its ends, the bits of one of both.
pub fn blend(devices: &impl Devices) {
    for (rows, vocab, between) in [(1, 1, 0), (3, 40, 8), (2, 1009, 0), (5, 7, 1), (2, 16384, 0)] {
        for m in [0.0, 0.3, 0.5, 1.0] {
            check_both(devices, &Blended { rows, vocab, between, m });
        }
    }
}

/// `penalise`.
pub fn penalise(devices: &impl Devices) {
    for (rows, vocab, between, step) in [(1, 1, 0, 1), (3, 40, 7, 3), (2, 1009, 0, 1), (5, 7, 1, 9)] {
        check_both(devices, &Penalised { rows, vocab, between, step });
    }
}
