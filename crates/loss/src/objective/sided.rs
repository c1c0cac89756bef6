//! Losses that look at each response's own log-ratio, not only at the margin between two.

use super::score::{PairLoss, Score, logistic, softplus};
use super::word::{Kind, Settings, Word};

pub(super) const NCA_PAIR: Word = Word {
    name: "nca_pair",
    formula: "-ls(beta u_w) - ls(-beta u_w)/2 - ls(-beta u_l)/2",
    source: "NCA: Chen et al., 2024",
    uses: &["beta"],
    reference: true,
    per_token: false,
    kind: Kind::Pair(|s, w, l, _| {
        let chosen = |w: f64| (softplus(-w) + softplus(w) / 2.0, logistic(w) / 2.0 - logistic(-w));
        sided(s, w, l, chosen, |l| (softplus(l) / 2.0, logistic(l) / 2.0))
    }),
};

pub(super) const BCO_PAIR: Word = Word {
    name: "bco_pair",
    formula: "-ls(beta u_w) - ls(-beta u_l)",
    source: "BCO: Jung et al., 2024",
    uses: &["beta"],
    reference: true,
    per_token: false,
    kind: Kind::Pair(|s, w, l, _| {
        sided(s, w, l, |w| (softplus(-w), -logistic(-w)), |l| (softplus(l), logistic(l)))
    }),
};

pub(super) const SPPO_HARD: Word = Word {
    name: "sppo_hard",
    formula: "(u_w - 1/(2 beta))^2 + (u_l + 1/(2 beta))^2",
    source: "SPPO: Wu et al., 2024",
    uses: &["beta"],
    reference: true,
    per_token: false,
    kind: Kind::Pair(|s, w, l, _| {
        let half = 1.0 / (2.0 * s.beta);
        let (w, l) = (w.log_ratio() - half, l.log_ratio() + half);
        PairLoss { value: w * w + l * l, d_chosen: 2.0 * w, d_rejected: 2.0 * l }
    }),
};

pub(super) const APO_ZERO: Word = Word {
    name: "apo_zero",
    formula: "1 - sigmoid(beta u_w) + sigmoid(beta u_l)",
    source: "APO: D'Oosterlinck et al., 2024",
    uses: &["beta"],
    reference: true,
    per_token: false,
    kind: Kind::Pair(|s, w, l, _| sided(s, w, l, |w| (logistic(-w), -bell(w)), |l| (logistic(l), bell(l)))),
};

pub(super) const APO_DOWN: Word = Word {
    name: "apo_down",
    formula: "sigmoid(beta u_w) + 1 - sigmoid(beta h)",
    source: "APO: D'Oosterlinck et al., 2024",
    uses: &["beta"],
    reference: true,
    per_token: false,
    kind: Kind::Pair(|s, w, l, _| {
        let (w, h) = (s.beta * w.log_ratio(), s.beta * (w.log_ratio() - l.log_ratio()));
        PairLoss {
            value: logistic(w) + logistic(-h),
            d_chosen: s.beta * (bell(w) - bell(h)),
            d_rejected: s.beta * bell(h),
        }
    }),
};

/// The sum of a loss of `beta u_w` and one of `beta u_l`, each with its derivative.
fn sided(
    s: &Settings,
    chosen: Score,
    rejected: Score,
    of_chosen: impl FnOnce(f64) -> (f64, f64),
    of_rejected: impl FnOnce(f64) -> (f64, f64),
) -> PairLoss {
    let ((w, dw), (l, dl)) =
        (of_chosen(s.beta * chosen.log_ratio()), of_rejected(s.beta * rejected.log_ratio()));
    PairLoss { value: w + l, d_chosen: s.beta * dw, d_rejected: s.beta * dl }
}

/// The logistic function's derivative.
fn bell(x: f64) -> f64 {
    logistic(x) * logistic(-x)
}
