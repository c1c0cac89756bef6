//! Tokens drawn from rows of logits.
//!
//! Filters are thresholds on weights `e^(logit - largest)`, found by bisection: no row is sorted, and the work is
//! linear in the vocabulary.

use crate::Cpu;
use crate::real::{Real, Scalar, max, sum, take};
use crate::simd::simd;
use crate::sync::SyncPtr;
use duel_backend::{Draw, Logits, Sample};
use std::cmp::Ordering;

/// Tokens whose weights are summed before they join the sum over the row.
const CHUNK: usize = 1024;
/// Weights so few that they are sorted.
const SORTED: usize = 64;

simd! {
    /// `x = (1 - m) x + m y`.
    pub fn blend_row<R: Real>(x: &mut [R], y: &[R], m: R::Acc) {
        let rest = R::Acc::ONE - m;
        x.iter_mut().zip(y).for_each(|(x, y)| *x = R::down(rest * x.up() + m * y.up()));
    }

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
}

/// The largest weight such that `measure` of those that are at least as large reaches `goal`, of the weights of at
/// least `least`; the smallest of those where it does not. `spare` is as long as the weights.
///
/// Bisection on the logits narrows them down to a few, which are sorted.
fn threshold<S: Scalar>(weights: &[S], spare: &mut [S], least: S, goal: S, measure: fn(&[S], S) -> S) -> S {
    spare.copy_from_slice(weights);
    let mut left = retain(spare, |w| w >= least);
    let (mut low, mut high) = (least, S::ONE);
    let mut above = S::ZERO; // measure of those over `high`
    while left > SORTED && low < high {
        let middle = low.sqrt() * high.sqrt();
        let middle = if middle > low && middle <= high { middle } else { high };
        let upper = measure(&spare[..left], middle);
        let before = left;
        if above + upper >= goal {
            low = middle;
            left = retain(&mut spare[..before], |w| w >= middle);
        } else {
            above += upper;
            high = middle;
            left = retain(&mut spare[..before], |w| w < middle);
        }
        if left == before {
            // Many are equal: to their own bounds.
            let seen = &spare[..left];
            low = seen.iter().fold(high, |a, &w| if w < a { w } else { a });
            high = max(seen);
        }
    }
    let few = &mut spare[..left];
    few.sort_unstable_by(|a, b| b.partial_cmp(a).unwrap_or(Ordering::Equal));
    let reached = few.iter().find(|&&w| {
        above += measure(&[w], w);
        above >= goal
    });
    reached.or(few.last()).copied().unwrap_or(S::ONE)
}

/// Moves the values that are kept to the beginning, in order; returns how many.
fn retain<S: Scalar>(values: &mut [S], keep: impl Fn(S) -> bool) -> usize {
    let mut left = 0;
    for i in 0..values.len() {
        let w = values[i];
        // Without a branch: which ones stay is as good as random.
        values[left] = w;
        left += usize::from(keep(w));
    }
    left
}

/// The smallest weight that the filters leave. `spare` is as long as the weights.
fn least_kept<S: Scalar>(weights: &[S], spare: &mut [S], total: S, rules: Draw) -> S {
    let mut least = S::of(Draw::LEAST);
    let mut total = total;
    if let Some(k) = rules.kept_by_rank(weights.len()) {
        least = threshold(weights, spare, least, S::of(k as f64), counted);
        total = kept(weights, least);
    }
    if rules.top_p < 1.0 {
        least = threshold(weights, spare, least, S::of(rules.top_p) * total, kept);
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
    fn blend(
        &self,
        logits: &mut Vec<R>,
        other: &Vec<R>,
        m: f64,
        dims @ Logits { rows, vocab, stride }: Logits,
    ) {
        assert!(logits.len() >= dims.len(), "logits shorter than the rows");
        let (logits, m) = (SyncPtr::new(logits), R::Acc::of(m));
        self.pool.split(rows, 1, self.pool.parts_of(rows * vocab), |range| {
            range.for_each(|r| {
                // SAFETY: row r lies within the logits (asserted), and only this task has it.
                let row = unsafe { std::slice::from_raw_parts_mut(logits.at(r * stride), vocab) };
                blend_row(row, &other[r * stride..][..vocab], m);
            });
        });
    }

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
        assert!(rows == 0 || vocab > 0, "a draw from nothing");
        let factor = R::Acc::of(rules.factor());
        let (tokens, logp) = (SyncPtr::new(tokens), SyncPtr::new(logp));
        self.pool.tasks(rows, |r| {
            let x = &logits[r * stride..][..vocab];
            let (token, value) = R::Acc::with_scratch(|scratch| {
                let sizes = [vocab, vocab, vocab.div_ceil(CHUNK)];
                let [weights, spare, sums] =
                    take(scratch, &sizes).try_into().unwrap_or_else(|_| unreachable!());
                let (total, top) = weigh(weights, x, factor);
                // The likeliest weighs 1; a logit that is no number makes the sum none.
                if total.partial_cmp(&R::Acc::ONE).is_none_or(Ordering::is_lt) {
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
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tokens of `rows` rows of these logits, by draws spread over `[0, 1)`.
    fn tokens(logits: &[f32], rows: usize, rules: Draw, threads: usize) -> (Vec<u32>, Vec<f32>) {
        let draws = (0..rows).map(|i| (i as f32 + 0.5) / rows as f32).collect();
        let (mut tokens, mut logp) = (vec![0; rows], vec![0.0; rows]);
        let dims = Logits::dense(rows, logits.len());
        Cpu::<f32>::new(threads).sample(&mut tokens, &mut logp, &logits.repeat(rows), &draws, rules, dims);
        (tokens, logp)
    }

    #[test]
    fn sampling_follows_its_filters() {
        let logits = [1.0, 3.0, 2.0, 0.0];
        let shares = |rules| {
            let (tokens, _) = tokens(&logits, 1000, rules, 1);
            [0, 1, 2, 3].map(|t| tokens.iter().filter(|&&token| token == t).count())
        };
        let all = Draw::plain(1.0);
        // Softmax of the logits: 0.0871, 0.6439, 0.2369, 0.0321; an edge between two of 1000 draws is one off at most.
        let near = |got: [usize; 4], want: [usize; 4]| got.iter().zip(want).all(|(g, w)| g.abs_diff(w) <= 1);
        assert!(near(shares(all), [87, 644, 237, 32]), "{:?}", shares(all));
        for rules in [Draw { temperature: 0.0, ..all }, Draw { top_k: 1, ..all }, Draw { top_p: 0.5, ..all }]
        {
            assert_eq!(shares(rules), [0, 1000, 0, 0]);
        }
        // Two are left: 0.7311 and 0.2689 of them.
        for rules in [Draw { top_k: 2, ..all }, Draw { top_p: 0.8, ..all }, Draw { min_p: 0.2, ..all }] {
            assert!(near(shares(rules), [0, 731, 269, 0]), "{rules:?} {:?}", shares(rules));
        }
        // Of three that are left the likeliest has 0.6652 of the sum: top_p is of what top_k leaves.
        assert_eq!(shares(Draw { top_k: 3, top_p: 0.66, ..all }), [0, 1000, 0, 0]);
        let (drawn, logp) = tokens(&logits, 1, Draw { top_k: 1, ..Draw::plain(0.5) }, 1);
        let total: f64 = logits.iter().map(|x| (2.0 * f64::from(x - 3.0)).exp()).sum();
        assert_eq!(drawn, [1]);
        assert!(
            (f64::from(logp[0]) + total.ln()).abs() < 1e-6,
            "of the whole vocabulary, at the temperature"
        );
    }

    /// In rows of many chunks, on threads.
    #[test]
    fn every_draw_of_a_long_row_has_its_token() {
        let logits: Vec<f32> = (0..5000).map(|i| (i as f32 * 0.37).sin() * 4.0).collect();
        let rules = Draw { temperature: 0.9, top_k: 900, top_p: 0.9, min_p: 0.01 };
        let (one, logp) = tokens(&logits, 300, rules, 1);
        assert_eq!(tokens(&logits, 300, rules, 3), (one.clone(), logp));
        assert!(one.is_sorted(), "larger draws have later tokens");
        let least = one.iter().map(|&t| logits[t as usize]).fold(f32::MAX, f32::min);
        let kept = logits.iter().filter(|&&x| x >= least).count();
        assert!((100..900).contains(&kept), "{kept}");
    }

    #[test]
    fn a_row_without_numbers_has_no_token() {
        for bad in [[0.0, f32::NAN], [0.0, f32::INFINITY], [f32::NEG_INFINITY; 2]] {
            for rules in
                [Draw::plain(1.0), Draw::plain(0.0), Draw { top_p: 0.5, top_k: 1, ..Draw::plain(2.0) }]
            {
                let (tokens, logp) = tokens(&bad, 1, rules, 1);
                assert!(tokens == [Draw::NONE] && logp[0].is_nan(), "{bad:?} {rules:?}");
            }
        }
        assert_eq!(tokens(&[f32::NEG_INFINITY, 0.0], 2, Draw::plain(1.0), 1), (vec![1, 1], vec![0.0, 0.0]));
    }
}
