//! What a loss is given and what it gives back.

use std::f64::consts::LN_2;

/// What a loss knows of one response.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// Sum of the policy's log-probabilities over the response's tokens.
    pub logp: f64,
    /// The same of the reference; 0 where there is none.
    pub reference: f64,
    /// Tokens in the sums.
    pub tokens: usize,
}

impl Score {
    /// The log-ratio `u`.
    pub fn log_ratio(&self) -> f64 {
        self.logp - self.reference
    }

    /// One over the number of tokens.
    pub(super) fn per_token(&self) -> f64 {
        1.0 / self.tokens.max(1) as f64
    }
}

/// Loss of a pair, and its derivatives by the two sums of log-probabilities.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairLoss {
    /// The loss.
    pub value: f64,
    /// Derivative by the chosen response's `logp`.
    pub d_chosen: f64,
    /// Derivative by the rejected response's `logp`.
    pub d_rejected: f64,
}

/// The divergence that holds the policy to its reference, by what it makes of a log-ratio (f-DPO: Wang et al., 2024; the
/// constants, which matter where a score is divided by a length, are TRL's).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Divergence {
    /// `u`: DPO's own.
    ReverseKl,
    /// `1 - e^-u`.
    ForwardKl,
    /// `ln 2 + ls(u)`: Jensen-Shannon.
    Js,
    /// `(e^((a-1)u) - 1) / (a-1)`.
    Alpha(f64),
}

impl Divergence {
    /// The score of a log-ratio, and its derivative.
    pub fn score(self, u: f64) -> (f64, f64) {
        match self {
            Divergence::ReverseKl => (u, 1.0),
            Divergence::ForwardKl => (-(-u).exp_m1(), (-u).exp()),
            Divergence::Js => (LN_2 - softplus(-u), logistic(-u)),
            Divergence::Alpha(a) => (((a - 1.0) * u).exp_m1() / (a - 1.0), ((a - 1.0) * u).exp()),
        }
    }
}

/// `ln(1 + e^x)` without overflow; `ls(z) = -softplus(-z)`.
pub(super) fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// `1 / (1 + e^-x)` without overflow.
pub(super) fn logistic(x: f64) -> f64 {
    if x >= 0.0 {
        1.0 / (1.0 + (-x).exp())
    } else {
        let e = x.exp();
        e / (1.0 + e)
    }
}
