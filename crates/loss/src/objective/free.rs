//! Losses without a reference.

use super::margin::smoothed;
use super::score::{PairLoss, Score, log_odds, logistic, softplus};
use super::word::{Kind, Settings, Word};

pub(super) const ORPO: Word = Word {
    name: "orpo",
    formula: "-beta ls(o_w - o_l), o = a - ln(1 - exp(a)) the log-odds, a = logp per token",
    source: "ORPO: Hong et al., 2024, equation 7; with the cross entropy of `lm` beside it, which method orpo adds",
    uses: &["beta"],
    reference: false,
    per_token: true,
    kind: Kind::Pair(|s, w, l, _| {
        let (nw, nl) = (w.per_token(), l.per_token());
        let ((ow, dw), (ol, dl)) = (log_odds(w.logp * nw), log_odds(l.logp * nl));
        let slope = -s.beta * logistic(ol - ow);
        PairLoss {
            value: s.beta * softplus(ol - ow),
            d_chosen: slope * dw * nw,
            d_rejected: -slope * dl * nl,
        }
    }),
};

pub(super) const SIMPO: Word = Word {
    name: "simpo",
    formula: "as sigmoid, of beta (a_w - a_l) - simpo_gamma, a = logp per token",
    source: "SimPO: Meng et al., 2024",
    uses: &["beta", "simpo_gamma", "label_smoothing"],
    reference: false,
    per_token: true,
    kind: Kind::Pair(|s, w, l, _| rewarded(s, w, l, |a| (a, 1.0))),
};

pub(super) const ALPHAPO: Word = Word {
    name: "alphapo",
    formula: "as sigmoid, of beta (r_w - r_l) - simpo_gamma, r = (1 - exp(-alpha a)) / alpha, a = logp per token",
    source: "AlphaPO: Gupta et al., 2025",
    uses: &["beta", "simpo_gamma", "alpha", "label_smoothing"],
    reference: false,
    per_token: true,
    kind: Kind::Pair(|s, w, l, _| {
        rewarded(s, w, l, |a| match s.alpha {
            0.0 => (a, 1.0),
            alpha => (-(-alpha * a).exp_m1() / alpha, (-alpha * a).exp()),
        })
    }),
};

pub(super) const UNLIKELIHOOD: Word = Word {
    name: "unlikelihood",
    formula: "-logp_w + unlikelihood_alpha logp_l",
    source: "a baseline of Rafailov et al., 2023; after Welleck et al., 2020",
    uses: &["unlikelihood_alpha"],
    reference: false,
    per_token: false,
    kind: Kind::Pair(|s, w, l, _| PairLoss {
        value: s.unlikelihood_alpha * l.logp - w.logp,
        d_chosen: -1.0,
        d_rejected: s.unlikelihood_alpha,
    }),
};

/// The logistic loss of two rewards, `reward(a)` with its derivative, that have to differ by a margin.
fn rewarded(s: &Settings, chosen: Score, rejected: Score, reward: impl Fn(f64) -> (f64, f64)) -> PairLoss {
    let (nw, nl) = (chosen.per_token(), rejected.per_token());
    let ((w, dw), (l, dl)) = (reward(chosen.logp * nw), reward(rejected.logp * nl));
    let (value, slope) = smoothed(s, s.beta * (w - l) - s.simpo_gamma);
    PairLoss { value, d_chosen: slope * dw * nw, d_rejected: -slope * dl * nl }
}
