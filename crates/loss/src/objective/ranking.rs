//! Losses of a whole ranking.

use super::score::{Score, softplus};
use super::word::{Kind, Settings, Word};

pub(super) const PLACKETT_LUCE: Word = Word {
    name: "plackett_luce",
    formula: "-sum over places k of (beta u_k - ln sum over j >= k of exp(beta u_j))",
    source: "DPO for rankings: Rafailov et al., 2023, appendix A.3",
    uses: &["beta"],
    reference: true,
    per_token: false,
    kind: Kind::Ranking(plackett_luce),
};

fn plackett_luce(s: &Settings, ranking: &[Score]) -> (f64, Vec<f64>) {
    let z: Vec<f64> = ranking.iter().map(|r| s.beta * r.log_ratio()).collect();
    let mut loss = 0.0;
    let mut slopes = vec![0.0; z.len()];
    // ln of the sum of exp from each place to the end, built from the end.
    let mut sums = z.clone();
    for k in (0..z.len().saturating_sub(1)).rev() {
        let (low, high) = (z[k].min(sums[k + 1]), z[k].max(sums[k + 1]));
        sums[k] = high + softplus(low - high);
    }
    for k in 0..z.len().saturating_sub(1) {
        loss += sums[k] - z[k];
        slopes[k] -= s.beta;
        for (slope, z) in slopes[k..].iter_mut().zip(&z[k..]) {
            *slope += s.beta * (z - sums[k]).exp();
        }
    }
    (loss, slopes)
}
