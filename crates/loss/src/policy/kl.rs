//! Estimates of the KL divergence of the policy from the reference, of tokens that the policy drew.

/// An estimate from one drawn token, of `x = l - f` (Schulman, 2020: k1, k2, k3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Estimator {
    /// `x`: unbiased, below 0 as often as not.
    K1,
    /// `x² / 2`: biased, but its derivative is that of the KL.
    K2,
    /// `exp(-x) - 1 + x`: unbiased and never below 0, with a heavy tail where the reference likes what the policy does
    /// not.
    K3,
}

impl Estimator {
    /// Of a token of which the policy says `l` and the reference `f`.
    pub fn of(self, l: f64, f: f64) -> f64 {
        let x = l - f;
        match self {
            Estimator::K1 => x,
            Estimator::K2 => x * x / 2.0,
            Estimator::K3 => (-x).exp_m1() + x,
        }
    }
}
