//! Losses that compare how responses to different prompts are distributed.

use super::margin::smoothed;
use super::score::PairLoss;
use super::word::{Kind, Pair, Settings, Word};

pub(super) const AOT: Word = Word {
    name: "aot",
    formula: "as sigmoid, of sort(logp_w - logp_l) - sort(ref_w - ref_l) over the batch",
    source: "AOT: Melnyk et al., 2024",
    uses: &["beta", "label_smoothing"],
    reference: true,
    per_token: false,
    kind: Kind::Batch(paired),
};

pub(super) const AOT_UNPAIRED: Word = Word {
    name: "aot_unpaired",
    formula: "as sigmoid, of sort(u_w) - sort(u_l) over the batch",
    source: "AOT: Melnyk et al., 2024",
    uses: &["beta", "label_smoothing"],
    reference: true,
    per_token: false,
    kind: Kind::Batch(unpaired),
};

fn paired(s: &Settings, pairs: &[Pair]) -> Vec<PairLoss> {
    let policy: Vec<f64> = pairs.iter().map(|(w, l)| w.logp - l.logp).collect();
    let reference: Vec<f64> = pairs.iter().map(|(w, l)| w.reference - l.reference).collect();
    let mut losses = vec![PairLoss { value: 0.0, d_chosen: 0.0, d_rejected: 0.0 }; pairs.len()];
    for (i, j) in sorted(&policy).into_iter().zip(sorted(&reference)) {
        let (value, slope) = smoothed(s, s.beta * (policy[i] - reference[j]));
        losses[i] = PairLoss { value, d_chosen: slope, d_rejected: -slope };
    }
    losses
}

fn unpaired(s: &Settings, pairs: &[Pair]) -> Vec<PairLoss> {
    let chosen: Vec<f64> = pairs.iter().map(|(w, _)| w.log_ratio()).collect();
    let rejected: Vec<f64> = pairs.iter().map(|(_, l)| l.log_ratio()).collect();
    let mut losses = vec![PairLoss { value: 0.0, d_chosen: 0.0, d_rejected: 0.0 }; pairs.len()];
    for (i, j) in sorted(&chosen).into_iter().zip(sorted(&rejected)) {
        let (value, slope) = smoothed(s, s.beta * (chosen[i] - rejected[j]));
        losses[i].value = value;
        losses[i].d_chosen = slope;
        losses[j].d_rejected = -slope;
    }
    losses
}

/// Places in ascending order; equal ones in the order of the data.
fn sorted(values: &[f64]) -> Vec<usize> {
    let mut places: Vec<usize> = (0..values.len()).collect();
    places.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    places
}
