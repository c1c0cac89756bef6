//! The loss whose gradient is a policy gradient: advantages times ratios, clipped, with the KL from the reference.

use super::kl::Estimator;

/// What is known of the tokens of a sampled response.
#[derive(Clone, Copy, Debug)]
pub struct Sampled<'a> {
    /// The policy's log-probabilities, `l`.
    pub policy: &'a [f64],
    /// Those of the policy that drew them, `o`.
    pub old: &'a [f64],
    /// The reference's, `f`; empty where [`Surrogate::beta`] is 0.
    pub reference: &'a [f64],
}

/// What an advantage is multiplied by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ratio {
    /// 1, whoever drew it: the loss is `-A l` (REINFORCE, Williams, 1992).
    None,
    /// That of the token, `rho` (PPO, Schulman et al., 2017).
    Token,
    /// That of the response, `exp sum(l - o)` (RLOO).
    Response,
}

/// Between which ratios an advantage has a gradient.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clip {
    /// A negative advantage has none where the ratio is below `1 - low`.
    pub low: f64,
    /// A positive advantage has none where the ratio is above `1 + high`.
    pub high: f64,
}

/// On which side a ratio was clipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clipped {
    /// It was not.
    No,
    /// Below.
    Low,
    /// Above.
    High,
}

impl Clip {
    /// Never.
    pub const NEVER: Clip = Clip { low: f64::INFINITY, high: f64::INFINITY };

    fn of(self, ratio: f64, advantage: f64) -> Clipped {
        if advantage > 0.0 && ratio > 1.0 + self.high {
            Clipped::High
        } else if advantage < 0.0 && ratio < 1.0 - self.low {
            Clipped::Low
        } else {
            Clipped::No
        }
    }
}

/// `sum_t weight (-min(ratio A_t, clip(ratio) A_t) + beta rho_t k3_t)` of a response.
///
/// The second term, whose ratio is not a constant, has the coefficient `beta rho (l - f)`, which is the gradient of the
/// KL from the reference for tokens that any policy drew; `k3` alone would descend the KL the other way round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Surrogate {
    /// What advantages are multiplied by.
    pub ratio: Ratio,
    /// Where they have no gradient.
    pub clip: Clip,
    /// How much the KL from the reference counts.
    pub beta: f64,
}

/// What a response adds to the loss and to its metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Said {
    /// To the loss, with its weight.
    pub loss: f64,
    /// Ratios, summed over tokens; of a response, its own a token.
    pub ratio: f64,
    /// Tokens whose ratio was clipped from below.
    pub low: usize,
    /// Tokens whose ratio was clipped from above.
    pub high: usize,
    /// `(l - o)² / 2`, summed: how far the policy is from the one that drew.
    pub moved: f64,
    /// [`Estimator::K3`] of the KL from the reference, summed; 0 where there is none.
    pub kl: f64,
}

impl Surrogate {
    /// The share of a response in the loss, with advantages a token and each token's `weight`; adds the coefficients to
    /// `coefs`.
    ///
    /// # Panics
    /// When the slices are not of one length, but for an empty reference where `beta` is 0.
    pub fn slopes(&self, tokens: Sampled<'_>, advantages: &[f64], weight: f64, coefs: &mut [f64]) -> Said {
        let Sampled { policy, old, reference } = tokens;
        let n = policy.len();
        assert!(old.len() == n && advantages.len() == n && coefs.len() == n, "one of each a token");
        assert!(
            reference.len() == n || self.beta == 0.0 && reference.is_empty(),
            "a reference for each token"
        );
        let whole = policy.iter().zip(old).map(|(l, o)| l - o).sum::<f64>().exp();
        let mut said = Said::default();
        for t in 0..n {
            let (l, rho) = (policy[t], (policy[t] - old[t]).exp());
            let advantage = advantages[t];
            let ratio = match self.ratio {
                Ratio::None => 1.0,
                Ratio::Token => rho,
                Ratio::Response => whole,
            };
            let clipped =
                if self.ratio == Ratio::None { Clipped::No } else { self.clip.of(ratio, advantage) };
            let kept = match clipped {
                Clipped::No => ratio,
                Clipped::Low => 1.0 - self.clip.low,
                Clipped::High => 1.0 + self.clip.high,
            };
            let value = match self.ratio {
                Ratio::None => advantage * l,
                Ratio::Token => advantage * kept,
                // A response has one ratio, of which each token has a share.
                Ratio::Response => advantage * kept / n as f64,
            };
            said.loss -= weight * value;
            if clipped == Clipped::No {
                coefs[t] -= weight * advantage * ratio;
            }
            said.low += usize::from(clipped == Clipped::Low);
            said.high += usize::from(clipped == Clipped::High);
            said.ratio += ratio;
            said.moved += Estimator::K2.of(l, old[t]);
            if let Some(&f) = reference.get(t) {
                let k3 = Estimator::K3.of(l, f);
                said.kl += k3;
                said.loss += weight * self.beta * rho * k3;
                coefs[t] += weight * self.beta * rho * (l - f);
            }
        }
        said
    }
}
