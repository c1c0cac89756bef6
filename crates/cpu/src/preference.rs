//! Losses of pairs, by the function of the host that the objective brings.

use crate::Cpu;
use crate::real::Real;
use duel_backend::{
    Float, PairObjective, Preference, PreferenceOut, ResponseGroups, ResponseSums, RowStats, Side,
};
use std::ops::Range;

/// What the rows of a response sum up to, but for the loss.
fn sums_of<R: Real>(stats: &RowStats<'_, Cpu<R>>, weights: &[f64], rows: Range<usize>) -> ResponseSums {
    let mut s = ResponseSums::default();
    for row in rows {
        let logp = stats.logp[row].to_f64();
        s.logp += weights[row] * logp;
        s.entropy += stats.entropy[row].to_f64();
        s.mean_logit += stats.mean_logit[row].to_f64();
        s.hits += stats.hit[row].to_f64();
        s.certainty += logp - stats.collision[row].to_f64();
    }
    s
}

/// Adds the losses of all pairs of a group to the sums of their chosen responses; the derivative by the sum of each.
fn pairs_of(
    sides: &[Side],
    sums: &mut [ResponseSums],
    margin: f64,
    objective: &PairObjective<'_>,
) -> Vec<f64> {
    let share = objective.share;
    let mut slopes = vec![0.0; sides.len()];
    for chosen in 0..sides.len() {
        for rejected in chosen + 1..sides.len() {
            let (value, [by_chosen, by_rejected]) =
                (objective.host)([sides[chosen], sides[rejected]], margin);
            sums[chosen].loss += share * value;
            slopes[chosen] += share * by_chosen;
            slopes[rejected] += share * by_rejected;
        }
    }
    slopes
}

impl<R: Real> Preference for Cpu<R> {
    fn preference(
        &self,
        out: PreferenceOut<'_, Self>,
        stats: &RowStats<'_, Self>,
        groups: &ResponseGroups<Self>,
        objective: &PairObjective<'_>,
    ) {
        let between = |firsts: &[u32], i: usize| firsts[i] as usize..firsts[i + 1] as usize;
        let (columns, _) = out.sums.as_chunks_mut::<{ ResponseSums::COLUMNS }>();
        for group in 0..groups.groups {
            let responses = between(&groups.first_responses, group);
            let rows = |response| between(&groups.first_rows, response);
            let mut sums: Vec<ResponseSums> =
                responses.clone().map(|r| sums_of(stats, &groups.weights, rows(r))).collect();
            let side = |(r, s): (usize, &ResponseSums)| Side {
                logp: s.logp,
                reference: groups.reference[r],
                rows: rows(r).len(),
            };
            let sides: Vec<Side> = responses.clone().zip(&sums).map(side).collect();
            let slopes = pairs_of(&sides, &mut sums, groups.margins[group], objective);
            for ((response, sums), slope) in responses.zip(sums).zip(slopes) {
                columns[out.first + response] = sums.into();
                for row in rows(response) {
                    out.coef[row] = R::Acc::from_f64(slope * groups.weights[row]);
                }
            }
        }
    }
}
