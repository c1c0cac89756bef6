//! Tokens drawn from rows of logits.
//!
//! Filters are thresholds on weights `e^(logit - largest)`, found by bisection: no row is sorted, and the work is linear
//! in the vocabulary.

use crate::Cpu;
use crate::real::{Real, Scalar, max, sum, take};
use crate::simd::simd;
use crate::sync::SyncPtr;
use duel_backend::{Draw, Logits, Sample};

/// Tokens whose weights are summed before they join the sum over the row.
const CHUNK: usize = 1024;

simd! {
    /// The weights `exp((x - largest) · factor)`, their sum, and the largest.
    pub fn weigh<R: Real>(weights: &mut [R::Acc], x: &[R], factor: R::Acc) -> (R::Acc, R::Acc) {
        for (w, x) in weights.iter_mut().zip(x) {
            *w = x.up();
        }
        let top = max(weights);
        for w in weights.iter_mut() {
            *w = ((*w - top) * factor).exp();
        }
        (sum([weights], |[w]| w), top)
    }

    /// Sum of the weights of at least `least`.
    pub fn kept<S: Scalar>(weights: &[S], least: S) -> S {
        sum([weights], |[w]| if w >= least { w } else { S::ZERO })
    }

    /// Number of weights of at least `least`.
    pub fn counted<S: Scalar>(weights: &[S], least: S) -> S {
        sum([weights], |[w]| if w >= least { S::ONE } else { S::ZERO })
    }

    /// The smallest weight of at least `least`, or 1, and the largest below it, or 0.
    pub fn around<S: Scalar>(weights: &[S], least: S) -> (S, S) {
        let mut above = [S::ONE; 16];
        let mut below = [S::ZERO; 16];
        for chunk in weights.chunks(16) {
            for ((above, below), &w) in above.iter_mut().zip(&mut below).zip(chunk) {
                *above = if w >= least && w < *above { w } else { *above };
                *below = if w < least && w > *below { w } else { *below };
            }
        }
        let least_of = |a: [S; 16]| a.into_iter().fold(S::ONE, |a, w| if w < a { w } else { a });
        (least_of(above), max(&below))
    }
}

/// The largest weight such that `measure` of those that are at least as large reaches `goal`. The candidates are the
/// weights of at least `least`, which is one of them or below all; what is left of them is undefined.
fn threshold<S: Scalar>(mut candidates: &mut [S], least: S, goal: S, measure: fn(&[S], S) -> S) -> S {
    let (mut low, mut high) = (around(candidates, least).0, S::ONE);
    let mut above = S::ZERO; // measure of those over `high`
    while low < high {
        // The middle of the logits.
        let middle = low.sqrt() * high.sqrt();
        let middle = if middle > low && middle <= high { middle } else { high };
        let upper = measure(candidates, middle);
        let (next, before) = around(candidates, middle);
        if above + upper >= goal {
            low = next;
        } else {
            above += upper;
            high = before;
        }
        let mut left = 0;
        for i in 0..candidates.len() {
            let w = candidates[i];
            candidates[left] = w;
            left += usize::from(w >= low && w <= high);
        }
        candidates = &mut candidates[..left];
    }
    low
}

/// The smallest weight that the filters leave. `spare` is as long as the weights.
fn least_kept<S: Scalar>(weights: &[S], spare: &mut [S], total: S, rules: Draw) -> S {
    let mut least = S::of(Draw::LEAST);
    let mut total = total;
    if let Some(k) = rules.kept_by_rank(weights.len()) {
        spare.copy_from_slice(weights);
        least = threshold(spare, least, S::of(k as f64), counted);
        total = kept(weights, least);
    }
    if rules.top_p < 1.0 {
        spare.copy_from_slice(weights);
        least = threshold(spare, least, S::of(rules.top_p) * total, kept);
    }
    let by_share = S::of(rules.min_p);
    if by_share > least { by_share } else { least }
}

/// The first token of those kept at which the sum of their weights exceeds `draw` times the sum of all; the last of
/// them where rounding lets none.
fn drawn<S: Scalar>(weights: &[S], sums: &mut [S], least: S, draw: S) -> usize {
    let mut total = S::ZERO;
    for (sum, chunk) in sums.iter_mut().zip(weights.chunks(CHUNK)) {
        *sum = kept(chunk, least);
        total += *sum;
    }
    let goal = draw * total;
    let (mut before, mut last) = (S::ZERO, 0);
    for (i, &sum) in sums.iter().enumerate() {
        if sum > S::ZERO {
            last = i;
            if before + sum > goal {
                break;
            }
            before += sum;
        }
    }
    let first = last * CHUNK;
    let mut token = first;
    for (i, &w) in weights[first..].iter().take(CHUNK).enumerate() {
        if w >= least {
            token = first + i;
            before += w;
            if before > goal {
                break;
            }
        }
    }
    token
}

impl<R: Real> Sample for Cpu<R> {
    fn penalise(
        &self,
        logits: &mut Vec<R>,
        seen: &Vec<u32>,
        pairs: usize,
        penalty: f64,
        Logits { rows, vocab, stride }: Logits,
    ) {
        let penalty = R::Acc::of(penalty);
        for pair in seen[..2 * pairs].chunks_exact(2) {
            let (row, token) = (pair[0] as usize, pair[1] as usize);
            assert!(row < rows && token < vocab, "token {token} of row {row}, of {rows} rows of {vocab}");
            let logit = &mut logits[row * stride + token];
            let x = logit.up();
            *logit = R::down(if x > R::Acc::ZERO { x / penalty } else { x * penalty });
        }
    }

    fn sample(
        &self,
        tokens: &mut Vec<u32>,
        logp: &mut Vec<R::Acc>,
        logits: &Vec<R>,
        draws: &Vec<R::Acc>,
        rules: Draw,
        Logits { rows, vocab, stride }: Logits,
    ) {
        assert!(tokens.len() >= rows && logp.len() >= rows, "output shorter than the rows");
        let factor = R::Acc::of(rules.factor());
        let (tokens, logp) = (SyncPtr::new(tokens), SyncPtr::new(logp));
        self.pool.ranges(rows, 1, usize::MAX, |range| {
            for r in range {
                let x = &logits[r * stride..][..vocab];
                let (token, value) = R::Acc::with_scratch(|scratch| {
                    let sizes = [vocab, vocab, vocab.div_ceil(CHUNK)];
                    let [weights, spare, sums] =
                        take(scratch, &sizes).try_into().unwrap_or_else(|_| unreachable!());
                    let (total, top) = weigh(weights, x, factor);
                    // A sum of finite numbers, none above 1: no such sum where a logit is none.
                    if !(total >= R::Acc::ONE) {
                        return (Draw::NONE, total);
                    }
                    let token = if rules.temperature == 0.0 {
                        x.iter().position(|x| x.up() >= top).unwrap_or(0)
                    } else {
                        let least = least_kept(weights, spare, total, rules);
                        drawn(weights, sums, least, draws[r])
                    };
                    (token as u32, (x[token].up() - top) * factor - total.ln())
                });
                // SAFETY: r < rows <= the buffers' lengths (asserted), and only this task has row r.
                unsafe {
                    *tokens.at(r) = token;
                    *logp.at(r) = value;
                }
            }
        });
    }
}
