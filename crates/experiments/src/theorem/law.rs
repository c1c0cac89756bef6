//! Distributions over the language, and how far they lie apart.

use serde_json::{Map, Value, json};

/// A number for every response to every prompt: rewards, or log-probabilities.
pub type Table = Vec<Vec<f64>>;

/// Log-probabilities that add up to 1, of some that are right up to a factor.
pub fn normal(x: Vec<f64>) -> Vec<f64> {
    let most = x.iter().fold(f64::NEG_INFINITY, |most, x| most.max(*x));
    let z = most + x.iter().map(|x| (x - most).exp()).sum::<f64>().ln();
    x.into_iter().map(|x| x - z).collect()
}

/// The distribution `ref exp(worth) / Z` of each prompt (Rafailov et al., 2023, equation 4, of `worth = r / beta`), as
/// log-probabilities.
pub fn tilted(reference: &Table, worth: &Table) -> Table {
    let prompt = |(reference, worth): (&Vec<f64>, &Vec<f64>)| {
        normal(reference.iter().zip(worth).map(|(f, w)| f + w).collect())
    };
    reference.iter().zip(worth).map(prompt).collect()
}

/// The mean over the prompts of `of(row, other row)`.
fn mean(a: &Table, b: &Table, of: impl Fn(&[f64], &[f64]) -> f64) -> f64 {
    a.iter().zip(b).map(|(a, b)| of(a, b)).sum::<f64>() / a.len() as f64
}

/// `KL(p || q)` in nats, the mean over the prompts.
pub fn kl(p: &Table, q: &Table) -> f64 {
    // By terms none of which is negative, so that little is lost where the two are nearly the same; where q is much
    // larger its own power is, which does not leave the range of f64.
    let term = |(p, q): (&f64, &f64)| match q - p {
        d if d > 1.0 => q.exp() - p.exp() * (1.0 + d),
        d => p.exp() * (d.exp_m1() - d),
    };
    mean(p, q, |p, q| p.iter().zip(q).map(term).sum())
}

/// Total variation, the mean over the prompts.
pub fn total_variation(p: &Table, q: &Table) -> f64 {
    mean(p, q, |p, q| 0.5 * p.iter().zip(q).map(|(p, q)| (p.exp() - q.exp()).abs()).sum::<f64>())
}

/// The reward that is expected, the mean over the prompts.
pub fn expected(p: &Table, reward: &Table) -> f64 {
    mean(p, reward, |p, r| p.iter().zip(r).map(|(p, r)| p.exp() * r).sum())
}

/// `beta ln(policy / reference)`: the reward that a policy stands for, up to a number a prompt.
pub fn implied(policy: &Table, reference: &Table, beta: f64) -> Table {
    let row = |(p, f): (&Vec<f64>, &Vec<f64>)| p.iter().zip(f).map(|(p, f)| beta * (p - f)).collect();
    policy.iter().zip(reference).map(row).collect()
}

/// The largest difference of two tables when each prompt's mean difference is taken off.
pub fn largest_deviation(a: &Table, b: &Table) -> f64 {
    let row = |(a, b): (&Vec<f64>, &Vec<f64>)| {
        let difference: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
        let shift = difference.iter().sum::<f64>() / difference.len() as f64;
        difference.iter().fold(0.0, |most: f64, d| most.max((d - shift).abs()))
    };
    a.iter().zip(b).map(row).fold(0.0, f64::max)
}

/// How a policy stands to the optimum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Distance {
    /// `KL(policy || optimum)`, nats.
    pub kl: f64,
    /// `KL(optimum || policy)`, nats.
    pub reverse: f64,
    /// Total variation.
    pub variation: f64,
    /// What the policy's objective `E r - beta KL(policy || reference)` lacks to the best there is, in units of the
    /// reward. It equals `beta KL(policy || optimum)`.
    pub gap: f64,
    /// `KL(policy || reference)`, nats.
    pub drift: f64,
    /// The reward that the policy expects.
    pub reward: f64,
    /// How far the implied reward is from the true one, at worst, up to a number a prompt.
    pub deviation: f64,
}

impl Distance {
    /// Every number by its name.
    pub fn json(&self) -> Map<String, Value> {
        let entries = [
            ("kl", self.kl),
            ("reverse", self.reverse),
            ("variation", self.variation),
            ("gap", self.gap),
            ("drift", self.drift),
            ("reward", self.reward),
            ("deviation", self.deviation),
        ];
        entries.into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect()
    }
}

/// What a policy is measured by.
#[derive(Clone, Debug)]
pub struct Aim {
    /// Log-probabilities before training.
    pub reference: Table,
    /// What responses are worth.
    pub reward: Table,
    /// The price of a nat.
    pub beta: f64,
    /// `reference exp(reward / beta) / Z`.
    pub optimum: Table,
}

impl Aim {
    /// The optimum of this reward at this price.
    pub fn new(reference: Table, reward: Table, beta: f64) -> Self {
        let worth = reward.iter().map(|row| row.iter().map(|r| r / beta).collect()).collect();
        Aim { optimum: tilted(&reference, &worth), reference, reward, beta }
    }

    /// `E r - beta KL(policy || reference)`, which the optimum has most of.
    pub fn objective(&self, policy: &Table) -> f64 {
        expected(policy, &self.reward) - self.beta * kl(policy, &self.reference)
    }

    /// How a policy stands to the optimum.
    pub fn distance(&self, policy: &Table) -> Distance {
        Distance {
            kl: kl(policy, &self.optimum),
            reverse: kl(&self.optimum, policy),
            variation: total_variation(policy, &self.optimum),
            gap: self.objective(&self.optimum) - self.objective(policy),
            drift: kl(policy, &self.reference),
            reward: expected(policy, &self.reward),
            deviation: largest_deviation(&implied(policy, &self.reference, self.beta), &self.reward),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(seed: u64, scale: f64) -> Table {
        let mut rng = fastrand::Rng::with_seed(seed);
        (0..2).map(|_| (0..7).map(|_| scale * (2.0 * rng.f64() - 1.0)).collect()).collect()
    }

    fn distribution(seed: u64) -> Table {
        tilted(&vec![vec![0.0; 7]; 2], &table(seed, 2.0))
    }

    /// Section 4 of the paper and appendix A.1: the optimum has the highest objective, and what another policy lacks is
    /// `beta` times its KL from it; its implied reward is the reward.
    #[test]
    fn the_gap_is_beta_times_the_kl() {
        let aim = Aim::new(distribution(1), table(2, 1.0), 0.3);
        for seed in 3..20 {
            let d = aim.distance(&distribution(seed));
            assert!(d.gap > 0.0 && (d.gap - aim.beta * d.kl).abs() < 1e-13, "{d:?}");
        }
        let at = aim.distance(&aim.optimum);
        assert!(at.deviation < 1e-14 && at.kl == 0.0 && at.variation == 0.0, "{at:?}");
    }

    #[test]
    fn what_is_hardly_said_at_all_has_a_kl() {
        let (p, q) = (vec![vec![0.0, -2000.0]], vec![vec![0.5f64.ln(); 2]]);
        assert_eq!(kl(&p, &q), 2f64.ln());
        assert!((kl(&q, &p) - (1000.0 - 2f64.ln())).abs() < 1e-12);
    }

    /// Terms that cannot be negative keep the digits of a small KL: half the variance of the log-ratio.
    #[test]
    fn a_small_kl_keeps_its_digits() {
        let p = distribution(5);
        let worth: Table = table(6, 1e-7);
        let q = tilted(&p, &worth);
        let variance = |p: &[f64], w: &[f64]| {
            let m = |k: i32| p.iter().zip(w).map(|(p, w)| p.exp() * w.powi(k)).sum::<f64>();
            m(2) - m(1).powi(2)
        };
        let want = 0.5 * mean(&p, &worth, variance);
        assert!((kl(&p, &q) / want - 1.0).abs() < 1e-6);
    }
}
