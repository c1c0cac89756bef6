//! Log-softmax over the vocabulary at a target, and its backward in place.

use crate::Cpu;
use crate::real::{Real, Scalar, max, sums};
use crate::simd::simd;
use crate::sync::SyncPtr;
use duel_backend::{LogProbs, Logits, RowStats};

/// What one row of logits gives.
pub struct Row<S> {
    lse: S,
    entropy: S,
    mean: S,
    collision: S,
    top: S,
}

simd! {
    /// Statistics of a row, in two sweeps of a row that stays in the cache.
    pub fn softmax_stats<R: Real>(x: &[R]) -> Row<R::Acc> {
        let n = x.len();
        let mut top = [R::Acc::LOWEST; 16];
        let chunks = x.chunks_exact(16);
        for (t, v) in top.iter_mut().zip(chunks.remainder()) {
            *t = v.up();
        }
        for c in chunks {
            for (t, v) in top.iter_mut().zip(c) {
                let v = v.up();
                *t = if v > *t { v } else { *t };
            }
        }
        let top = max(&top);
        // H = lse - sum p·x, with x taken relative to the maximum so that nothing large cancels.
        // sum p^2 = squares / total^2: both sums lie between 1, the maximum's own term, and n.
        let [total, weighted, plain, squares] = sums([x], |[x]| {
            let d = x.up() - top;
            let e = d.exp();
            [e, e * d, x.up(), e * e]
        });
        let ln_total = total.ln();
        Row {
            lse: top + ln_total,
            entropy: ln_total - weighted / total,
            mean: plain / R::Acc::of(n as f64),
            collision: (squares / (total * total)).ln(),
            top,
        }
    }

    /// `x = -coef · exp(x - lse)`.
    pub fn softmax_grad<R: Real>(x: &mut [R], lse: R::Acc, coef: R::Acc) {
        for x in x.iter_mut() {
            *x = R::down(-coef * (x.up() - lse).exp());
        }
    }
}

/// `row = coef (onehot(target) - exp(row - lse))`.
fn gradient_of_row<R: Real>(row: &mut [R], lse: R::Acc, coef: R::Acc, target: usize) {
    // The target's gradient is coef · (1 - p), formed from 1 - p: p near 1 must not cancel twice.
    let p = (row[target].up() - lse).exp();
    softmax_grad(row, lse, coef);
    row[target] = R::down(coef * (R::Acc::ONE - p));
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
        self.pool.ranges(rows, 1, usize::MAX, |range| {
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

    fn logprob_bw(
        &self,
        logits: &mut Vec<R>,
        lse: &Vec<R::Acc>,
        coef: &Vec<R::Acc>,
        targets: &Vec<u32>,
        dims @ Logits { rows, vocab, stride }: Logits,
    ) {
        assert!(logits.len() >= dims.len(), "logits shorter than the rows");
        let logits = SyncPtr::new(logits);
        self.pool.ranges(rows, 1, usize::MAX, |range| {
            range.for_each(|r| {
                // SAFETY: row r lies within the logits (asserted), and only this task has it.
                let row = unsafe { std::slice::from_raw_parts_mut(logits.at(r * stride), vocab) };
                gradient_of_row(row, lse[r], coef[r], targets[r] as usize);
            });
        });
    }
}
