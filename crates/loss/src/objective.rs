//! Preference losses: one small pure function each, over the sums of a response's log-probabilities.
//!
//! `u = logp - reference` of a response, `h = u_chosen - u_rejected`, `ls(z) = ln sigmoid(z)`.

/// What the loss knows of one response.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// Sum of the policy's log-probabilities over the response's tokens.
    pub logp: f64,
    /// The same of the reference.
    pub reference: f64,
    /// Tokens in the sums.
    pub tokens: usize,
}

impl Score {
    /// The log-ratio `u`.
    pub fn log_ratio(&self) -> f64 {
        self.logp - self.reference
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

/// Which preference loss, with its own parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Preference {
    /// [`sigmoid`].
    Sigmoid {
        /// Share of labels that are taken to be wrong.
        label_smoothing: f64,
    },
    /// [`ipo`].
    Ipo {
        /// Log-ratios per token (as TRL takes them) rather than summed (as the DPO authors' code does).
        per_token: bool,
    },
    /// [`hinge`].
    Hinge,
}

impl Preference {
    /// Loss of a pair at the strength `beta`.
    pub fn pair(self, beta: f64, chosen: Score, rejected: Score) -> PairLoss {
        match self {
            Preference::Sigmoid { label_smoothing } => sigmoid(beta, label_smoothing, chosen, rejected),
            Preference::Ipo { per_token } => ipo(beta, per_token, chosen, rejected),
            Preference::Hinge => hinge(beta, chosen, rejected),
        }
    }
}

/// `ln(1 + e^x)` without overflow.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// `1 / (1 + e^-x)` without overflow.
fn logistic(x: f64) -> f64 {
    if x >= 0.0 {
        1.0 / (1.0 + (-x).exp())
    } else {
        let e = x.exp();
        e / (1.0 + e)
    }
}

/// DPO: `-ls(βh)` (Rafailov et al., 2023, equation 7); with smoothing ε the conservative form
/// `-(1-ε) ls(βh) - ε ls(-βh)` (Mitchell, 2023, equation 3).
pub fn sigmoid(beta: f64, label_smoothing: f64, chosen: Score, rejected: Score) -> PairLoss {
    let z = beta * (chosen.log_ratio() - rejected.log_ratio());
    let value = (1.0 - label_smoothing) * softplus(-z) + label_smoothing * softplus(z);
    let slope = beta * (logistic(z) - (1.0 - label_smoothing));
    PairLoss { value, d_chosen: slope, d_rejected: -slope }
}

/// IPO: `(h - 1/(2β))²` (Azar et al., 2023, equation 17), with `h` of per-token averages or of sums.
pub fn ipo(beta: f64, per_token: bool, chosen: Score, rejected: Score) -> PairLoss {
    let share = |s: Score| if per_token { 1.0 / s.tokens.max(1) as f64 } else { 1.0 };
    let (nw, nl) = (share(chosen), share(rejected));
    let miss = chosen.log_ratio() * nw - rejected.log_ratio() * nl - 1.0 / (2.0 * beta);
    PairLoss { value: miss * miss, d_chosen: 2.0 * miss * nw, d_rejected: -2.0 * miss * nl }
}

/// SLiC's hinge on the DPO margin: `max(0, 1 - βh)` (Zhao et al., 2023; Liu et al., 2023).
pub fn hinge(beta: f64, chosen: Score, rejected: Score) -> PairLoss {
    let value = 1.0 - beta * (chosen.log_ratio() - rejected.log_ratio());
    let slope = if value > 0.0 { -beta } else { 0.0 };
    PairLoss { value: value.max(0.0), d_chosen: slope, d_rejected: -slope }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KINDS: [Preference; 5] = [
        Preference::Sigmoid { label_smoothing: 0.0 },
        Preference::Sigmoid { label_smoothing: 0.2 },
        Preference::Ipo { per_token: true },
        Preference::Ipo { per_token: false },
        Preference::Hinge,
    ];

    fn score(logp: f64, reference: f64, tokens: usize) -> Score {
        Score { logp, reference, tokens }
    }

    #[test]
    fn at_the_reference() {
        let s = score(-7.0, -7.0, 3);
        for kind in &KINDS[..2] {
            assert_eq!(kind.pair(0.1, s, s).value, std::f64::consts::LN_2);
        }
        assert_eq!(Preference::Ipo { per_token: true }.pair(0.1, s, s).value, 25.0);
        assert_eq!(Preference::Hinge.pair(0.1, s, s).value, 1.0);
    }

    #[test]
    fn extreme_margins_stay_finite() {
        for kind in KINDS {
            for far in [-1e5, 1e5] {
                let p = kind.pair(5.0, score(far, 0.0, 9), score(-far, 0.0, 9));
                assert!(p.value.is_finite() && p.d_chosen.is_finite() && p.d_rejected.is_finite());
            }
        }
    }

    proptest! {
        #[test]
        fn derivatives_match_differences(
            w in -40.0..0.0f64, l in -40.0..0.0f64, rw in -40.0..0.0f64, rl in -40.0..0.0f64,
            nw in 1usize..9, nl in 1usize..9, beta in 0.05..2.0f64,
        ) {
            for kind in KINDS {
                let (step, at) = (1e-5, |w, l| kind.pair(beta, score(w, rw, nw), score(l, rl, nl)));
                let here = at(w, l);
                // The hinge has no derivative at its corner.
                prop_assume!(kind != Preference::Hinge || (1.0 - beta * (w - rw - l + rl)).abs() > 1e-3);
                let dw = (at(w + step, l).value - at(w - step, l).value) / (2.0 * step);
                let dl = (at(w, l + step).value - at(w, l - step).value) / (2.0 * step);
                // Central difference: rounding of the terms of h passes through the slope, that of the value adds;
                // both over the step. Then the third derivative's share.
                let size = w.abs() + l.abs() + rw.abs() + rl.abs() + 1.0 / beta;
                let slope = here.d_chosen.abs().max(here.d_rejected.abs());
                let rounding = 4.0 * f64::EPSILON * (here.value.abs().max(1.0) + slope * size);
                let bound = rounding / step + beta.powi(3) * step * step;
                prop_assert!((dw - here.d_chosen).abs() < bound, "{kind:?}: {dw} {}", here.d_chosen);
                prop_assert!((dl - here.d_rejected).abs() < bound, "{kind:?}: {dl} {}", here.d_rejected);
            }
        }
    }
}
