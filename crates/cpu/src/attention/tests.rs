//! Attention against plain sums, on every instruction set of the machine.

use super::blocks::Plan;
use super::kernel::{BLOCK, KEYS, Kernel, Mask, STRIDE};
use super::{HasLoops, backward, forward};
use crate::gemm::HasKernel;
use crate::real::{Real, Scalar};
use crate::simd::Isa;
use crate::sync::Pool;
use duel_backend::{Float, Heads, Scores, Segment};
use half::bf16;

/// Softmax attention and its gradient, one pair of rows after the other.
fn plain(
    qkv: &[f64],
    dout: &[f64],
    segments: &[Segment],
    d: Heads,
    Scores { scale, cap, window }: Scores,
) -> (Vec<f64>, Vec<f64>) {
    let (hd, width) = (d.head_dim, d.qkv_width());
    let rows = Plan::new(segments, None).rows;
    let (mut o, mut dqkv) = (vec![0.0; rows * d.q_width()], vec![0.0; rows * width]);
    for s in segments {
        for (row, h) in (s.start..s.start + s.len).flat_map(|row| (0..d.heads).map(move |h| (row, h))) {
            let prefix = s.prefix_start..s.prefix_start + s.prefix_len;
            let keys: Vec<usize> = prefix.chain(s.start..=row).collect();
            // Their positions are 0, 1, 2 and so on.
            let passed = window.map_or(0, |n| keys.len().saturating_sub(n));
            let keys = &keys[passed..];
            let kv = d.heads + h / d.ratio();
            let at = |row: usize, head: usize| row * width + head * hd;
            let product = |a: usize, b: usize| (0..hd).map(|c| qkv[a + c] * qkv[b + c]).sum::<f64>();
            let scores = keys.iter().map(|&k| scale * product(at(row, h), at(k, kv)));
            let (scores, slopes): (Vec<f64>, Vec<f64>) = scores
                .map(|s| match cap {
                    None => (s, scale),
                    Some(c) => (c * (s / c).tanh(), scale * (s / c).cosh().powi(-2)),
                })
                .unzip();
            let total: f64 = scores.iter().map(|s| s.exp()).sum();
            let p: Vec<f64> = scores.iter().map(|s| s.exp() / total).collect();
            let own = (row * d.heads + h) * hd;
            let grad = &dout[own..][..hd];
            let dp: Vec<f64> = keys
                .iter()
                .map(|&k| (0..hd).map(|c| grad[c] * qkv[at(k, kv + d.kv_heads) + c]).sum())
                .collect();
            let delta: f64 = p.iter().zip(&dp).map(|(p, dp)| p * dp).sum();
            for (((&k, &p), &dp), slope) in keys.iter().zip(&p).zip(&dp).zip(slopes) {
                let ds = p * (dp - delta) * slope;
                for c in 0..hd {
                    o[own + c] += p * qkv[at(k, kv + d.kv_heads) + c];
                    dqkv[at(row, h) + c] += ds * qkv[at(k, kv) + c];
                    dqkv[at(k, kv) + c] += ds * qkv[at(row, h) + c];
                    dqkv[at(k, kv + d.kv_heads) + c] += p * grad[c];
                }
            }
        }
    }
    (o, dqkv)
}

/// A prompt of `prefix` rows and its responses, behind `start` rows.
fn group(start: usize, prefix: usize, responses: &[usize]) -> Vec<Segment> {
    let mut segments = vec![Segment { start, len: prefix, prefix_start: 0, prefix_len: 0 }];
    let mut at = start + prefix;
    for &len in responses {
        let prefix_start = if prefix > 0 { start } else { 0 };
        segments.push(Segment { start: at, len, prefix_start, prefix_len: prefix });
        at += len;
    }
    segments
}

fn waves<R: Real>(segments: &[Segment], d: Heads) -> (Vec<R>, Vec<R>) {
    let rows = Plan::new(segments, None).rows;
    let wave = |n: usize, step: f64| (0..n).map(|i| R::from_f64((i as f64 * step).sin())).collect();
    (wave(rows * d.qkv_width(), 0.7), wave(rows * d.q_width(), 1.3))
}

/// Output, log-sum-exp and gradient, on scratch full of NaN: what the masks hide is never read.
fn run<R: Real>(
    threads: usize,
    isa: Isa,
    (qkv, dout): (&[R], &[R]),
    segments: &[Segment],
    (d, scores): (Heads, Scores),
) -> (Vec<R>, Vec<R::Acc>, Vec<R>)
where
    R::Acc: HasKernel,
{
    let poison = |buffer: &mut Vec<R::Acc>| {
        buffer.clear();
        buffer.resize(1 << 20, R::Acc::of(f64::NAN));
    };
    R::Acc::with_scratch(poison);
    R::Acc::with_shared(poison);
    let (pool, kernel) = (Pool::new(threads), R::Acc::loops_of(isa));
    let rows = Plan::new(segments, None).rows;
    let nan = R::from_f64(f64::NAN);
    let (mut o, mut lse) = (vec![nan; rows * d.q_width()], vec![R::Acc::of(f64::NAN); rows * d.heads]);
    let mut dqkv = vec![nan; rows * d.qkv_width()];
    forward::attention(&pool, kernel, &mut o, &mut lse, qkv, segments, d, scores);
    backward::attention_bw(&pool, kernel, &mut dqkv, dout, &o, &lse, qkv, segments, d, scores);
    (o, lse, dqkv)
}

/// Heads of one register and of several, whole and not, with keys of their own and shared.
const HEADS: [Heads; 4] = [
    Heads { heads: 4, kv_heads: 2, head_dim: 8 },
    Heads { heads: 3, kv_heads: 1, head_dim: 7 },
    Heads { heads: 2, kv_heads: 2, head_dim: 33 },
    Heads { heads: 4, kv_heads: 1, head_dim: 64 },
];

/// All that comes before, some scores under a cap and what a window leaves.
fn all_scores(d: Heads, windows: &[usize]) -> Vec<Scores> {
    let plain = d.scores();
    let of_window = |&n| [None, Some(0.7)].map(|cap| Scores { scale: 0.9, cap, window: Some(n) });
    let capped = Scores { cap: Some(0.3), ..plain };
    [plain, capped].into_iter().chain(windows.iter().flat_map(of_window)).collect()
}

/// Around the edges of blocks and tiles, with and without a prefix.
#[test]
fn every_kernel_matches_the_plain_sums() {
    fn check<R: Real>(prefix: usize, len: usize, d: Heads, scores: Scores)
    where
        R::Acc: HasKernel,
    {
        let segments = group(0, prefix, &[len, 3, 0]);
        let (qkv, dout) = waves::<R>(&segments, d);
        let exact = |x: &[R]| -> Vec<f64> { x.iter().map(|x| x.to_f64()).collect() };
        let (want_o, want_dqkv) = plain(&exact(&qkv), &exact(&dout), &segments, d, scores);
        // Sums of at most `rows` products, of scores that are sums of `head_dim` numbers below 1, some ten roundings
        // each.
        let bound = 10.0 * (prefix + len + d.head_dim) as f64 * R::Acc::EPSILON;
        for isa in Isa::available() {
            for threads in [1, 2] {
                let (o, _, dqkv) = run::<R>(threads, isa, (&qkv, &dout), &segments, (d, scores));
                for (what, got, want) in [("o", &o, &want_o), ("dqkv", &dqkv, &want_dqkv)] {
                    for (i, (g, w)) in got.iter().zip(want).enumerate() {
                        let far = (g.to_f64() - w).abs();
                        assert!(
                            far <= bound * w.abs().max(1.0),
                            "{isa}, {prefix}+{len}, {d:?}, {scores:?}, {what}[{i}]: {g:?} not {w}"
                        );
                    }
                }
            }
        }
    }
    for prefix in [0, 1, BLOCK + 4, KEYS, KEYS + 1] {
        for len in [1, BLOCK - 1, BLOCK, BLOCK + 1, KEYS, 2 * KEYS + 8] {
            check::<f64>(prefix, len, HEADS[0], HEADS[0].scores());
            check::<f32>(prefix, len, HEADS[0], HEADS[0].scores());
        }
    }
    for d in HEADS {
        for scores in all_scores(d, &[1, 30, KEYS + 5]) {
            check::<f64>(KEYS + 5, BLOCK + 13, d, scores);
            check::<f32>(KEYS + 5, BLOCK + 13, d, scores);
        }
    }
    // Windows that begin and end everywhere in blocks and tiles, in the prefix and in the segment's own rows.
    let windows = [1, 2, 15, 16, 17, BLOCK - 1, BLOCK, KEYS, KEYS + 1, 2 * KEYS + 3, 4 * KEYS];
    for scores in all_scores(HEADS[0], &windows) {
        check::<f64>(2 * KEYS + 20, 2 * KEYS + 8, HEADS[0], scores);
        check::<f32>(0, 3 * KEYS + 8, HEADS[0], scores);
    }
}

/// A window that no sequence leaves is none, to the bit.
#[test]
fn a_window_of_everything_changes_no_bit() {
    for (d, isa) in HEADS.into_iter().flat_map(|d| Isa::available().into_iter().map(move |isa| (d, isa))) {
        let segments = group(0, KEYS + 11, &[BLOCK + 5, 1]);
        let (qkv, dout) = waves::<f32>(&segments, d);
        let of = |window| run::<f32>(2, isa, (&qkv, &dout), &segments, (d, Scores { window, ..d.scores() }));
        assert!(of(None) == of(Some(KEYS + 11 + BLOCK + 5)), "{isa}, {d:?}");
        assert!(of(None) != of(Some(KEYS + 11 + BLOCK + 4)), "{isa}, {d:?}: a window that hides one key");
    }
}

/// Scores that grow along the keys, beyond what an exponential holds: the largest of a row is always the last.
#[test]
fn growing_scores_stay_finite() {
    let d = Heads { heads: 1, kv_heads: 1, head_dim: 8 };
    let segments = group(0, 0, &[3 * KEYS + 7]);
    let rows = Plan::new(&segments, None).rows;
    let row =
        |r: usize| (0..24).map(move |c| if c == 8 { 10.0 * r as f32 } else { f32::from(c == 0 || c == 17) });
    let qkv: Vec<f32> = (0..rows).flat_map(row).collect();
    let dout: Vec<f32> = waves::<f32>(&segments, d).1;
    for isa in Isa::available() {
        let (o, lse, dqkv) = run::<f32>(1, isa, (&qkv, &dout), &segments, (d, d.scores()));
        for r in 0..rows {
            // Neighbours are 10 / sqrt(8) apart: the log-sum-exp is the last score and -ln(1 - exp(-3.54)) at most.
            let last = 10.0 * r as f32 / 8f32.sqrt();
            assert!((last - 0.01..last + 0.04).contains(&lse[r]), "{isa}, row {r}: {} at {last}", lse[r]);
            assert!((o[r * 8 + 1] - 1.0).abs() < 1e-6, "{isa}, row {r}: the weights do not add up to 1");
        }
        assert!(dqkv.iter().all(|x| x.is_finite()), "{isa}");
    }
}

/// A checkpoint may move from one machine to another.
#[test]
fn avx2_and_avx512_give_the_same_bits() {
    fn check<R: Real>()
    where
        R::Acc: HasKernel,
    {
        for d in HEADS {
            let segments = group(0, KEYS + 11, &[2 * BLOCK + 5, 1, KEYS + 40]);
            let (qkv, dout) = waves::<R>(&segments, d);
            for scores in all_scores(d, &[1, 50, KEYS + 20]) {
                let of = |isa| run::<R>(2, isa, (&qkv, &dout), &segments, (d, scores));
                assert!(of(Isa::Avx2) == of(Isa::Avx512), "{d:?} {scores:?} {:?}", R::DTYPE);
            }
        }
    }
    if !Isa::available().contains(&Isa::Avx512) {
        eprintln!("skipped: this machine has no AVX-512");
        return;
    }
    check::<f32>();
    check::<f64>();
    check::<bf16>();
}

#[test]
fn threads_and_other_groups_do_not_change_a_bit() {
    for (d, isa) in HEADS.into_iter().flat_map(|d| Isa::available().into_iter().map(move |isa| (d, isa))) {
        let first = group(0, KEYS + 11, &[2 * BLOCK + 5, 1, KEYS + 40]);
        let rows = Plan::new(&first, None).rows;
        let mut all = first.clone();
        all.extend(group(rows, 0, &[BLOCK + 1]));
        all.extend(group(rows + BLOCK + 1, 2 * KEYS, &[7, 70]));
        let (qkv, dout) = waves::<f32>(&all, d);
        for scores in [d.scores(), Scores { cap: Some(0.5), window: Some(BLOCK + 7), ..d.scores() }] {
            let of = |threads, segments| run::<f32>(threads, isa, (&qkv, &dout), segments, (d, scores));
            let one = of(1, &all);
            for threads in [2, 3, 8] {
                assert!(of(threads, &all) == one, "{isa}, {d:?}, {scores:?}, {threads} threads");
            }
            let alone = of(1, &first);
            assert!(one.0.starts_with(&alone.0) && one.1.starts_with(&alone.1), "{isa}, {d:?}, {scores:?}");
            assert!(one.2.starts_with(&alone.2), "{isa}, {d:?}, {scores:?}: gradient");
        }
    }
}

#[test]
fn exponentials_are_within_two_ulp() {
    fn check<S: Scalar>(isa: Isa, kernel: &Kernel<S>) {
        let mut worst = 0.0f64;
        let mask = Mask { len: KEYS, skew: KEYS as isize, lag: -(BLOCK as isize) };
        let (mut p, mut dp) = (vec![S::ZERO; BLOCK * STRIDE], vec![S::ZERO; BLOCK * STRIDE]);
        for from in 0..900 {
            let x: Vec<S> = (0..KEYS).map(|i| S::of(-86.9 + 0.001 * (from * KEYS + i) as f64)).collect();
            p[..KEYS].copy_from_slice(&x);
            kernel.gradient(&mut p, &mut dp, &[S::ZERO], &[S::ZERO], S::ONE, 1, mask);
            for (p, x) in p.iter().zip(&x) {
                let exact = x.to_f64().exp();
                worst = worst.max((p.to_f64() - exact).abs() / exact);
            }
        }
        assert!(worst < 2.0 * S::EPSILON, "{isa}: relative error {worst:e}");
        p[..3].copy_from_slice(&[S::ZERO, S::LOWEST, S::of(f64::NAN)]);
        kernel.gradient(&mut p, &mut dp, &[S::ZERO], &[S::ZERO], S::ONE, 1, mask);
        assert!(p[0] == S::ONE && p[1] == S::ZERO && p[2].to_f64().is_nan(), "{isa}: {:?}", &p[..3]);
    }
    for isa in Isa::available() {
        check(isa, f32::loops_of(isa));
        check(isa, f64::loops_of(isa));
    }
}
