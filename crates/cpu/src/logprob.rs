//! Log-softmax over the vocabulary at a target, its backward in place, and the KL of two.

use crate::Cpu;
use crate::real::{Real, Scalar, joined, max, sum};
use crate::simd::simd;
use crate::sync::SyncPtr;
use duel_backend::{Float, LogProbs, Logits, Prediction, RowStats};

/// Logits that are looked at together: half of a first-level cache.
const BLOCK: usize = 1 << 12;

/// Partial maxima and sums of a block.
const LANES: usize = 16;

/// Logits whose exponentials are computed together.
const WIDE: usize = 64;

/// What one row of logits gives.
pub struct Row<S> {
    lse: S,
    entropy: S,
    mean: S,
    collision: S,
    top: S,
}

/// The largest of a block (a NaN may be passed over: the sums that follow it carry it on) and the sum.
#[inline(always)]
fn top_and_sum<R: Real>(x: &[R]) -> (R::Acc, R::Acc) {
    let (mut top, mut sum_of) = ([R::Acc::LOWEST; LANES], [R::Acc::ZERO; LANES]);
    let chunks = x.chunks_exact(LANES);
    for ((top, sum_of), v) in top.iter_mut().zip(&mut sum_of).zip(chunks.remainder()) {
        (*top, *sum_of) = (v.up(), v.up());
    }
    for c in chunks {
        for ((top, sum_of), v) in top.iter_mut().zip(&mut sum_of).zip(c) {
            let v = v.up();
            *top = if v > *top { v } else { *top };
            *sum_of += v;
        }
    }
    (max(&top), sum([&sum_of], |[v]| v))
}

/// The sums of `e`, `e · d` and `e²` over a block, `e = exp(d)`, `d = x - top`.
#[inline(always)]
fn moments<R: Real>(x: &[R], top: R::Acc) -> [R::Acc; 3] {
    let [mut total, mut weighted, mut squares] = [[R::Acc::ZERO; LANES]; 3];
    let (wide, rest) = x.as_chunks::<WIDE>();
    for x in wide {
        let mut d = [R::Acc::ZERO; WIDE];
        d.iter_mut().zip(x).for_each(|(d, x)| *d = x.up() - top);
        let e = R::Acc::exps(d);
        for (e, d) in e.as_chunks::<LANES>().0.iter().zip(d.as_chunks::<LANES>().0) {
            total.iter_mut().zip(e).for_each(|(sum, e)| *sum += *e);
            weighted.iter_mut().zip(e.iter().zip(d)).for_each(|(sum, (e, d))| *sum += *e * *d);
            squares.iter_mut().zip(e).for_each(|(sum, e)| *sum += *e * *e);
        }
    }
    for (i, x) in rest.iter().enumerate() {
        let d = x.up() - top;
        let e = d.exp();
        total[i % LANES] += e;
        weighted[i % LANES] += e * d;
        squares[i % LANES] += e * e;
    }
    [&total, &weighted, &squares].map(|lanes| sum([lanes.as_slice()], |[v]| v))
}

/// The log of probabilities that count as 0, below which `exps` has another limit for each type.
const LEAST: f64 = -80.0;

/// Up to this `|d|` the power series gives `e^d - 1 - d`: `d²/2 (1 + d/3 (1 + d/4 (..)))`, to a term that `f64` does
/// not see. Beyond it the subtractions lose five bits at most.
const NEAR: f64 = 0.5;
const SERIES: usize = 14;

/// `p (e^d - 1 - d)` of each pair of logits, `p` the softmax of `x`, `q` that of `y`, `d = ln q - ln p`; `lse` are the
/// logs of their denominators. `p e^d` is `q`, which does not overflow.
#[inline(always)]
fn kl_terms<S: Scalar, const N: usize>(x: [S; N], y: [S; N], lse: [S; 2]) -> [S; N] {
    let (mut ln_p, mut ln_q, mut d) = (x, y, x);
    for (((p, q), d), (x, y)) in ln_p.iter_mut().zip(&mut ln_q).zip(&mut d).zip(x.iter().zip(&y)) {
        // Not ln q - ln p, which were rounded before: logits of like models are close to each other.
        (*p, *q, *d) = (*x - lse[0], *y - lse[1], (*y - *x) - (lse[1] - lse[0]));
    }
    let (mut series, mut terms) = ([S::ONE; N], [S::ZERO; N]);
    for power in (3..=SERIES).rev() {
        let share = S::of(1.0 / power as f64);
        series.iter_mut().zip(&d).for_each(|(sum, d)| *sum = S::ONE + *sum * *d * share);
    }
    let (p, q) = (S::exps(ln_p), S::exps(ln_q));
    let (least, near) = (S::of(LEAST), S::of(NEAR));
    for i in 0..N {
        let p = if ln_p[i] < least { S::ZERO } else { p[i] };
        let q = if ln_q[i] < least { S::ZERO } else { q[i] };
        let d = d[i];
        terms[i] = if d <= near && d >= -near {
            p * (d * d * S::of(0.5) * series[i])
        } else if p == S::ZERO {
            q
        } else {
            q - p - p * d
        };
    }
    terms
}

/// The sum of [`kl_terms`] over a block.
#[inline(always)]
fn kl_of_block<R: Real>(x: &[R], y: &[R], lse: [R::Acc; 2]) -> R::Acc {
    let mut sums = [R::Acc::ZERO; LANES];
    let ((x, last_x), (y, last_y)) = (x.as_chunks::<WIDE>(), y.as_chunks::<WIDE>());
    for (x, y) in x.iter().zip(y) {
        let [mut up_x, mut up_y] = [[R::Acc::ZERO; WIDE]; 2];
        up_x.iter_mut().zip(x).for_each(|(up, x)| *up = x.up());
        up_y.iter_mut().zip(y).for_each(|(up, y)| *up = y.up());
        for terms in kl_terms(up_x, up_y, lse).as_chunks::<LANES>().0 {
            sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += *term);
        }
    }
    for (i, (x, y)) in last_x.iter().zip(last_y).enumerate() {
        sums[i % LANES] += kl_terms([x.up()], [y.up()], lse)[0];
    }
    joined(sums)
}

simd! {
    /// The divergence of two rows of logits, given the logs of their softmaxes' denominators.
    pub fn kl_of_row<R: Real>(x: &[R], y: &[R], lse: [R::Acc; 2]) -> R::Acc {
        let mut total = R::Acc::ZERO;
        for (x, y) in x.chunks(BLOCK).zip(y.chunks(BLOCK)) {
            total += kl_of_block(x, y, lse);
        }
        total
    }

    /// Statistics of a row, block by block: the sums are of exponentials relative to the largest number so far, and
    /// memory brings the next block while this one is computed.
    pub fn softmax_stats<R: Real>(x: &[R]) -> Row<R::Acc> {
        let (mut top, mut plain) = (R::Acc::LOWEST, R::Acc::ZERO);
        let (mut total, mut weighted, mut squares) = (R::Acc::ZERO, R::Acc::ZERO, R::Acc::ZERO);
        for block in x.chunks(BLOCK) {
            let (block_top, block_sum) = top_and_sum(block);
            plain += block_sum;
            if block_top > top {
                // exp(x - new) = exp(x - old) · exp(old - new), and (x - new) = (x - old) + (old - new).
                let shift = if top > R::Acc::LOWEST { top - block_top } else { R::Acc::ZERO };
                let scale = shift.exp();
                weighted = (weighted + total * shift) * scale;
                total = total * scale;
                squares = squares * scale * scale;
                top = block_top;
            }
            // Before the first finite number there is nothing to add.
            if top == R::Acc::LOWEST && !block_sum.to_f64().is_nan() {
                continue;
            }
            for (sum, part) in [&mut total, &mut weighted, &mut squares].into_iter().zip(moments(block, top)) {
                *sum += part;
            }
        }
        // H = lse - sum p·x, with x taken relative to the maximum so that nothing large cancels.
        // sum p^2 = squares / total^2: both sums lie between 1, the maximum's own term, and n.
        let ln_total = total.ln();
        Row {
            lse: top + ln_total,
            entropy: ln_total - weighted / total,
            mean: plain / R::Acc::of(x.len() as f64),
            collision: (squares / (total * total)).ln(),
            top,
        }
    }

    /// `x = -coef · exp(x - lse)`.
    pub fn softmax_grad<R: Real>(x: &mut [R], lse: R::Acc, coef: R::Acc) {
        gradients(x, lse, coef, |_, gradient| gradient);
    }

    /// `x = -coef · exp(x - lse) · (1 - (x / cap)²)`, given `1 / cap`.
    pub fn capped_grad<R: Real>(x: &mut [R], lse: R::Acc, coef: R::Acc, inverse: R::Acc) {
        gradients(x, lse, coef, |x, gradient| gradient * slope(x, inverse));
    }

    /// `x = cap · tanh(x / cap)`, given `1 / cap` too.
    pub fn cap_row<R: Real>(x: &mut [R], cap: R::Acc, inverse: R::Acc) {
        for x in x {
            *x = R::down(cap * (x.up() * inverse).tanh());
        }
    }
}

/// `x = f(x, -coef · exp(x - lse))`.
#[inline(always)]
fn gradients<R: Real>(x: &mut [R], lse: R::Acc, coef: R::Acc, f: impl Fn(R::Acc, R::Acc) -> R::Acc) {
    let (wide, rest) = x.as_chunks_mut::<WIDE>();
    for x in wide {
        let mut d = [R::Acc::ZERO; WIDE];
        d.iter_mut().zip(&*x).for_each(|(d, x)| *d = x.up() - lse);
        x.iter_mut().zip(R::Acc::exps(d)).for_each(|(x, e)| *x = R::down(f(x.up(), -coef * e)));
    }
    for x in rest {
        *x = R::down(f(x.up(), -coef * (x.up() - lse).exp()));
    }
}

/// Derivative of a soft cap where its value is `y`.
#[inline(always)]
fn slope<S: Scalar>(y: S, inverse: S) -> S {
    let t = y * inverse;
    S::ONE - t * t
}

/// `row = coef (onehot(target) - exp(row - lse))`; under a cap times its derivative, given its inverse.
fn gradient_of_row<R: Real>(
    row: &mut [R],
    lse: R::Acc,
    coef: R::Acc,
    target: usize,
    inverse: Option<R::Acc>,
) {
    // The target's gradient is coef · (1 - p), formed from 1 - p: p near 1 must not cancel twice.
    let at_target = row[target].up();
    let gradient = coef * (R::Acc::ONE - (at_target - lse).exp());
    row[target] = match inverse {
        None => {
            softmax_grad(row, lse, coef);
            R::down(gradient)
        }
        Some(inverse) => {
            capped_grad(row, lse, coef, inverse);
            R::down(gradient * slope(at_target, inverse))
        }
    };
}

impl<R: Real> LogProbs for Cpu<R> {
    fn logprob(
        &self,
        out: RowStats<'_, Self>,
        logits: &Vec<R>,
        targets: &Vec<u32>,
        Logits { rows, vocab, stride }: Logits,
    ) {
        let RowStats { logp, lse, entropy, mean_logit, hit, collision } = out;
        let outs = [logp, lse, entropy, mean_logit, hit, collision].map(|b| {
            assert!(b.len() >= rows, "statistics buffer shorter than the rows");
            SyncPtr::new(b)
        });
        self.pool.split(rows, 1, self.pool.parts_of(rows * vocab), |range| {
            for r in range {
                let row = &logits[r * stride..][..vocab];
                let target = row[targets[r] as usize].up();
                let s = softmax_stats(row);
                let hit = if target >= s.top { R::Acc::ONE } else { R::Acc::ZERO };
                let values = [target - s.lse, s.lse, s.entropy, s.mean, hit, s.collision];
                for (out, value) in outs.iter().zip(values) {
                    // SAFETY: r < rows <= the buffer's length (asserted), and only this task has row r.
                    unsafe { *out.at(r) = value };
                }
            }
        });
    }

    fn soft_cap(&self, logits: &mut Vec<R>, cap: f64, dims @ Logits { rows, vocab, stride }: Logits) {
        assert!(logits.len() >= dims.len(), "logits shorter than the rows");
        let logits = SyncPtr::new(logits);
        self.pool.split(rows, 1, self.pool.parts_of(rows * vocab), |range| {
            range.for_each(|r| {
                // SAFETY: row r lies within the logits (asserted), and only this task has it.
                let row = unsafe { std::slice::from_raw_parts_mut(logits.at(r * stride), vocab) };
                cap_row(row, R::Acc::of(cap), R::Acc::of(1.0 / cap));
            });
        });
    }

    fn logprob_bw(
        &self,
        logits: &mut Vec<R>,
        lse: &Vec<R::Acc>,
        coef: &Vec<R::Acc>,
        targets: &Vec<u32>,
        cap: Option<f64>,
        dims @ Logits { rows, vocab, stride }: Logits,
    ) {
        assert!(logits.len() >= dims.len(), "logits shorter than the rows");
        let logits = SyncPtr::new(logits);
        let inverse = cap.map(|cap| R::Acc::of(1.0 / cap));
        self.pool.split(rows, 1, self.pool.parts_of(rows * vocab), |range| {
            range.for_each(|r| {
                // SAFETY: row r lies within the logits (asserted), and only this task has it.
                let row = unsafe { std::slice::from_raw_parts_mut(logits.at(r * stride), vocab) };
                gradient_of_row(row, lse[r], coef[r], targets[r] as usize, inverse);
            });
        });
    }

    fn kl(
        &self,
        kl: &mut Vec<R::Acc>,
        p: Prediction<'_, Self>,
        q: Prediction<'_, Self>,
        Logits { rows, vocab, stride }: Logits,
    ) {
        assert!(kl.len() >= rows, "divergences shorter than the rows");
        let kl = SyncPtr::new(kl);
        self.pool.split(rows, 1, self.pool.parts_of(rows * vocab), |range| {
            for r in range {
                let [x, y] = [&p, &q].map(|of| &of.logits[r * stride..][..vocab]);
                let value = kl_of_row(x, y, [p.lse[r], q.lse[r]]);
                // SAFETY: r < rows <= the buffer's length (asserted), and only this task has row r.
                unsafe { *kl.at(r) = value };
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of several blocks whose maximum rises, falls or stays, against the sums as they are written.
    #[test]
    fn blocks_are_one_row() {
        for n in [1, WIDE - 1, WIDE + 1, BLOCK, BLOCK + 1, 3 * BLOCK + WIDE + 5] {
            for slope in [-9.0, 0.0, 9.0, 400.0] {
                let x: Vec<f64> =
                    (0..n).map(|i| slope * i as f64 / BLOCK as f64 + (i as f64 * 0.7).sin()).collect();
                let top = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let total: f64 = x.iter().map(|x| (x - top).exp()).sum();
                let p = |x: f64| (x - top).exp() / total;
                let entropy: f64 = x.iter().map(|&x| -p(x) * (x - top - total.ln())).sum();
                let collision = x.iter().map(|&x| p(x) * p(x)).sum::<f64>().ln();
                let mean = x.iter().sum::<f64>() / n as f64;
                let row = softmax_stats(&x);
                let want = [top + total.ln(), entropy, mean, collision, top];
                let got = [row.lse, row.entropy, row.mean, row.collision, row.top];
                for (got, want) in got.iter().zip(want) {
                    // Sums of n terms, of a size that the largest logit bounds.
                    let bound = n as f64 * f64::EPSILON * (1.0 + top.abs());
                    assert!((got - want).abs() <= bound, "{n} of slope {slope}: {got} not {want}");
                }
            }
        }
    }

    /// Against the sum as it is written; of predictions that differ by next to nothing against the half of the
    /// variance of `d`, which it is then; and 0 of equal ones.
    #[test]
    fn divergences_keep_what_is_small() {
        let wave = |n: usize, k: f64| (0..n).map(|i| 3.0 * (i as f64 * k).sin()).collect::<Vec<f64>>();
        let lse = |x: &[f64]| softmax_stats(x).lse;
        for n in [1, 2, WIDE - 1, WIDE + 1, BLOCK + WIDE + 5] {
            let (x, change) = (wave(n, 0.7), wave(n, 1.9));
            for size in [0.0, 1e-6, 0.01, 1.0, 40.0] {
                let y: Vec<f64> = x.iter().zip(&change).map(|(x, c)| x + size * c).collect();
                let of = [lse(&x), lse(&y)];
                let mean = |f: &dyn Fn(f64, f64) -> f64| -> f64 {
                    x.iter().zip(&y).map(|(x, y)| (x - of[0]).exp() * f(x - of[0], y - of[1])).sum()
                };
                let got = kl_of_row(&x, &y, of);
                let want = mean(&|p, q| p - q);
                // Roundings of logarithms of a size that the largest logit bounds, a term each.
                let bound = 8.0 * f64::EPSILON * (n as f64).ln().max(1.0) * (1.0 + 3.0 * (1.0 + size));
                assert!(got >= 0.0 && (got - want).abs() <= bound, "{n}, {size}: {got} not {want}");
                assert!(size > 0.0 || got == 0.0, "{n}: {got} of equal predictions");
                if size == 1e-6 {
                    let (first, second) = (mean(&|p, q| q - p), mean(&|p, q| (q - p) * (q - p)));
                    let want = (second - first * first) / 2.0;
                    // What follows is third order: a share of |d| <= 2 · 3e-6; d itself is known to 1e-15.
                    assert!((got - want).abs() <= 1e-5 * want, "{n}: {got} not {want}");
                }
            }
        }
        // What cannot be, and what only one of them holds possible.
        let (never, even) = ([0.0f32, f32::NEG_INFINITY], [0.0f32, 0.0]);
        let ln_2 = std::f32::consts::LN_2;
        assert_eq!(kl_of_row(&never, &never, [0.0, 0.0]), 0.0);
        assert!((kl_of_row(&never, &even, [0.0, ln_2]) - ln_2).abs() <= 2.0 * f32::EPSILON);
        assert_eq!(kl_of_row(&even, &never, [ln_2, 0.0]), f32::INFINITY);
        assert!(kl_of_row(&[0.0, f32::NAN], &even, [f32::NAN, ln_2]).is_nan());
    }
}
