//! Losses of the margin `h` of a pair: the chosen response's score less the rejected one's.

use super::score::{PairLoss, Score, logistic, softplus};
use super::word::{Kind, Settings, Word};

const DIVERGENCE: &str = "f_divergence_type";
const SMOOTHING: &str = "label_smoothing";
const MARGIN: &str = "margin";

pub(super) const SIGMOID: Word = Word {
    name: "sigmoid",
    formula: "-(1-label_smoothing) ls(beta h - m) - label_smoothing ls(m - beta h)",
    source: "DPO: Rafailov et al., 2023, equation 7; smoothed: Mitchell, 2023, equation 3; with a margin: ODPO, Amini et \
             al., 2024",
    uses: &["beta", SMOOTHING, DIVERGENCE, MARGIN],
    reference: true,
    per_token: false,
    kind: Kind::Pair(|s, w, l, m| margin(s, w, l, false, |h| smoothed(s, s.beta * h - m))),
};

pub(super) const HINGE: Word = Word {
    name: "hinge",
    formula: "max(0, 1 - (beta h - m))",
    source: "SLiC: Zhao et al., 2023; on the margin of DPO: Liu et al., 2023",
    uses: &["beta", DIVERGENCE, MARGIN],
    reference: true,
    per_token: false,
    kind: Kind::Pair(|s, w, l, m| {
        margin(s, w, l, false, |h| {
            let value = 1.0 - (s.beta * h - m);
            (value.max(0.0), if value > 0.0 { -s.beta } else { 0.0 })
        })
    }),
};

pub(super) const IPO: Word = Word {
    name: "ipo",
    formula: "(h - 1/(2 beta))^2, with the scores per token or summed",
    source: "IPO: Azar et al., 2023, equation 17",
    uses: &["beta", "ipo_reduction", DIVERGENCE],
    reference: true,
    per_token: true,
    kind: Kind::Pair(|s, w, l, _| {
        margin(s, w, l, s.ipo_per_token, |h| {
            let miss = h - 1.0 / (2.0 * s.beta);
            (miss * miss, 2.0 * miss)
        })
    }),
};

pub(super) const EXO_PAIR: Word = Word {
    name: "exo_pair",
    formula: "q ln(q / (1-label_smoothing)) + (1-q) ln((1-q) / label_smoothing), q = sigmoid(beta h)",
    source: "EXO: Ji et al., 2024",
    uses: &["beta", SMOOTHING, DIVERGENCE],
    reference: true,
    per_token: false,
    kind: Kind::Pair(|s, w, l, _| {
        margin(s, w, l, false, |h| {
            let (z, right, wrong) = (s.beta * h, (1.0 - s.label_smoothing).ln(), s.label_smoothing.ln());
            let (q, p) = (logistic(z), logistic(-z));
            let value = q * (-softplus(-z) - right) + p * (-softplus(z) - wrong);
            (value, s.beta * q * p * (z - right + wrong))
        })
    }),
};

pub(super) const ROBUST: Word = Word {
    name: "robust",
    formula: "(-(1-label_smoothing) ls(beta h) + label_smoothing ls(-beta h)) / (1 - 2 label_smoothing)",
    source: "robust DPO: Ray Chowdhury et al., 2024",
    uses: &["beta", SMOOTHING, DIVERGENCE],
    reference: true,
    per_token: false,
    kind: Kind::Pair(|s, w, l, _| {
        margin(s, w, l, false, |h| {
            let (z, e) = (s.beta * h, s.label_smoothing);
            let value = (1.0 - e) * softplus(-z) - e * softplus(z);
            let slope = -(1.0 - e) * logistic(-z) - e * logistic(z);
            (value / (1.0 - 2.0 * e), s.beta * slope / (1.0 - 2.0 * e))
        })
    }),
};

pub(super) const DISCOPOP: Word = Word {
    name: "discopop",
    formula: "-(1-m) ls(beta h) + m exp(-beta h), m = sigmoid(beta h / discopop_tau)",
    source: "DiscoPOP: Lu et al., 2024",
    uses: &["beta", "discopop_tau", DIVERGENCE],
    reference: true,
    per_token: false,
    kind: Kind::Pair(|s, w, l, _| {
        margin(s, w, l, false, |h| {
            let (x, tau) = (s.beta * h, s.discopop_tau);
            let (m, rest) = (logistic(x / tau), logistic(-x / tau));
            // m falls faster than exp(-x) grows where tau is below 1: together they stay finite.
            let grown = (-softplus(-x / tau) - x).exp();
            let value = rest * softplus(-x) + grown;
            let slope = -m * rest / tau * softplus(-x) - rest * logistic(-x) + grown * (rest / tau - 1.0);
            (value, s.beta * slope)
        })
    }),
};

pub(super) const SIGMOID_NORM: Word = Word {
    name: "sigmoid_norm",
    formula: "as sigmoid, with the scores per token",
    source: "length-normalised DPO: Lambert et al., 2024 (Tulu 3)",
    uses: &["beta", SMOOTHING, DIVERGENCE],
    reference: true,
    per_token: true,
    kind: Kind::Pair(|s, w, l, _| margin(s, w, l, true, |h| smoothed(s, s.beta * h))),
};

/// A loss of the margin between two scores, `loss(h)` and its derivative.
fn margin(
    s: &Settings,
    chosen: Score,
    rejected: Score,
    per_token: bool,
    loss: impl FnOnce(f64) -> (f64, f64),
) -> PairLoss {
    let share = |score: Score| if per_token { score.per_token() } else { 1.0 };
    let ((w, dw), (l, dl)) =
        (s.divergence.score(chosen.log_ratio()), s.divergence.score(rejected.log_ratio()));
    let (nw, nl) = (share(chosen), share(rejected));
    let (value, slope) = loss(w * nw - l * nl);
    PairLoss { value, d_chosen: slope * dw * nw, d_rejected: -slope * dl * nl }
}

/// The conservative logistic loss of a margin `z` between rewards, and its derivative by the log-ratios.
pub(super) fn smoothed(s: &Settings, z: f64) -> (f64, f64) {
    let e = s.label_smoothing;
    ((1.0 - e) * softplus(-z) + e * softplus(z), s.beta * (logistic(z) - (1.0 - e)))
}

/// DPO's loss, for callers without a table: `-(1-ε) ls(βh) - ε ls(-βh)`.
pub fn sigmoid(beta: f64, label_smoothing: f64, chosen: Score, rejected: Score) -> PairLoss {
    SIGMOID.pair(&Settings { beta, label_smoothing, ..Settings::default() }, chosen, rejected)
}
