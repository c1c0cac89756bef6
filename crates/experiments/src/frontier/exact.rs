//! Curves that no method is above, from samples of the model before: the best of n, and the optimum of reward less KL.

use crate::written::{estimate, number};
use duel_stats::{Bootstrap, Estimate, Share, best_of_n, best_of_n_classes, effective_size, kl};
use serde_json::{Value, json};
use std::cmp::Ordering;

/// Samples a prompt that an estimate of the optimum has to be worth, by the harmonic mean over prompts: below, its mass
/// lies on a few of them, and its KL would be said to be too small. `ln Z` of a prompt with N samples that are worth
/// `ESS` is too small by about `(1/ESS - 1/N)/2` (the delta method), so that the mean bias over prompts is that of the
/// mean of `1/ESS`: at 8 about 1/16 nat. An average of `ESS` would be carried by prompts where the optimum is easy.
pub const TRUSTED: f64 = 8.0;
/// Temperatures of the optimum, each less by the root of 2: from one at which it is nearly the reference.
const TEMPERATURES: i32 = 40;
/// The largest temperature, in deviations of rewards.
const HOTTEST: f64 = 16.0;
/// Most of the samples that the best is taken of: each is then drawn from a distribution that is known well.
const BEST_OF: usize = 8;

/// A place of a curve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Exact {
    /// The temperature, or n.
    pub parameter: f64,
    /// Expected reward.
    pub reward: Estimate,
    /// KL to the model before, in nats.
    pub kl: Estimate,
    /// How many samples a prompt the estimate is worth, by the harmonic mean.
    pub effective: f64,
}

/// What rewards of samples give, a prompt a list.
struct Found {
    reward: f64,
    kl: f64,
    effective: f64,
}

/// The optimum `ref exp(s / beta) / Z` at falling `beta`, by weights of the reference's own samples, `aimed` being what
/// methods are told of them, `s`, and `rewards` what is measured: of a prompt's N with `w ∝ exp(s / beta)` of sum 1,
/// the reward is `sum w r`, and the KL `E s / beta - ln Z = sum w ln(N w)`. Where the two are alike no policy has more
/// reward at its KL. Ends where the samples are worth fewer than [`TRUSTED`].
pub fn optimum(aimed: &[Vec<f64>], rewards: &[Vec<f64>], seed: u64) -> Vec<Exact> {
    let all = || aimed.iter().flatten();
    let n = all().count().max(1) as f64;
    let mean = all().sum::<f64>() / n;
    let spread = (all().map(|r| (r - mean).powi(2)).sum::<f64>() / n).sqrt();
    let temperatures = (0..TEMPERATURES).map(|i| HOTTEST * spread * 0.5_f64.powf(f64::from(i) / 2.0));
    let of = |beta: f64| aimed.iter().zip(rewards).map(move |(s, r)| tilted(s, r, beta)).collect();
    let at = |beta: f64| place(beta, of(beta), seed);
    temperatures.filter(|beta| *beta > 0.0).map_while(at).take_while(|e| e.effective >= TRUSTED).collect()
}

/// The best of 1, 2, 4, ... samples, exactly as far as the rewards of the samples are those of the reference.
pub fn best_of(rewards: &[Vec<f64>], seed: u64) -> Vec<Exact> {
    let fewest = rewards.iter().map(Vec::len).min().unwrap_or(0);
    let numbers = (0..).map(|i| 1usize << i).take_while(|n| n * BEST_OF <= fewest);
    numbers.map_while(|n| place(n as f64, rewards.iter().map(|of| best(of, n)).collect(), seed)).collect()
}

fn place(parameter: f64, found: Vec<Found>, seed: u64) -> Option<Exact> {
    let column = |of: fn(&Found) -> f64| -> Vec<Share> {
        found.iter().map(|f| Share { sum: of(f), n: 1.0 }).collect()
    };
    let (reward, kl) = (column(|f| f.reward), column(|f| f.kl));
    let means = Bootstrap::new(seed).means(&[&reward, &kl]);
    let effective = found.len() as f64 / found.iter().map(|f| 1.0 / f.effective).sum::<f64>();
    Some(Exact { parameter, reward: means[0]?, kl: means[1]?, effective })
}

fn tilted(aimed: &[f64], rewards: &[f64], beta: f64) -> Found {
    let most = aimed.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = aimed.iter().map(|s| ((s - most) / beta).exp()).collect();
    let (n, sum) = (rewards.len() as f64, weights.iter().sum::<f64>());
    let shares = || weights.iter().map(|w| w / sum);
    // Of a weight that is 0 in f64, w ln w is too.
    let kl = shares().filter(|w| *w > 0.0).map(|w| w * (n * w).ln()).sum();
    Found { reward: shares().zip(rewards).map(|(w, r)| w * r).sum(), kl, effective: effective_size(&weights) }
}

/// By classes of equal reward with their shares of the samples; the KL is at most `ln n - (n - 1) / n`.
fn best(rewards: &[f64], n: usize) -> Found {
    let mut sorted = rewards.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let of = sorted.len() as f64;
    let classes = sorted.chunk_by(|a, b| a.total_cmp(b) == Ordering::Equal);
    let shares: Vec<f64> = classes.map(|class| class.len() as f64 / of).collect();
    let kl = kl(&best_of_n_classes(&shares, n as f64), &shares);
    Found { reward: best_of_n(&sorted, n).unwrap_or(f64::NAN), kl, effective: of }
}

/// The KL at which a curve reaches a reward, between its places; `None` where it does not.
pub fn kl_at(curve: &[Exact], reward: f64) -> Option<f64> {
    let first = curve.first()?;
    if reward <= first.reward.value {
        return Some(0.0);
    }
    let reaches = |ends: &&[Exact]| (ends[0].reward.value..=ends[1].reward.value).contains(&reward);
    let [a, b] = curve.windows(2).find(reaches)? else { return None };
    let share = (reward - a.reward.value) / (b.reward.value - a.reward.value);
    Some(a.kl.value + share * (b.kl.value - a.kl.value))
}

impl Exact {
    /// For a study.
    pub fn json(&self) -> Value {
        json!({
            "parameter": self.parameter, "reward": number(&self.reward), "kl": number(&self.kl),
            "effective": self.effective,
        })
    }

    /// From a study.
    pub fn from_json(value: &Value) -> Option<Self> {
        Some(Exact {
            parameter: value["parameter"].as_f64()?,
            reward: estimate(&value["reward"])?,
            kl: estimate(&value["kl"])?,
            effective: value["effective"].as_f64()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use duel_random::{SplitMix, fraction};

    /// Rewards 0 and 1, the second with probability 1/4, in samples that have exactly that share.
    fn coin() -> Vec<Vec<f64>> {
        vec![(0..64).map(|i| f64::from(u8::from(i % 4 == 0))).collect(); 3]
    }

    /// The optimum over two rewards in closed form: `Z = 3/4 + 1/4 exp(1/beta)`.
    #[test]
    fn the_optimum_of_a_coin_is_known() {
        let curve = optimum(&coin(), &coin(), 1);
        assert!(curve.len() > 5, "{}", curve.len());
        // Below, the closed form leaves the range of f64.
        for place in curve.into_iter().filter(|place| place.parameter > 0.01) {
            let z = 0.75 + 0.25 * (1.0 / place.parameter).exp();
            let p = 0.25 * (1.0 / place.parameter).exp() / z;
            // Sums of 64 numbers near 1.
            assert!((place.reward.value - p).abs() < 1e-12, "{place:?}");
            assert!((place.kl.value - (p / place.parameter - z.ln())).abs() < 1e-10, "{place:?}");
        }
    }

    #[test]
    fn the_best_of_n_of_a_coin_is_known() {
        for place in best_of(&coin(), 1) {
            let n = place.parameter;
            let q = 1.0 - 0.75_f64.powf(n);
            let kl = q * (q / 0.25).ln() + (1.0 - q) * ((1.0 - q) / 0.75).ln();
            assert!((place.kl.value - kl).abs() < 1e-12, "{place:?}");
            // Taken without putting back: of 64, n are none of the 16 with probability C(48, n) / C(64, n).
            let none: f64 = (0..n as u32).map(|i| f64::from(48 - i) / f64::from(64 - i)).product();
            assert!((place.reward.value - (1.0 - none)).abs() < 1e-12, "{place:?}");
        }
        assert_eq!(best_of(&coin(), 1).len(), 4, "1, 2, 4 and 8 of 64");
    }

    /// Without ties the KL of the best of n is `ln n - (n - 1) / n`, but that N samples are steps of 1/N: with n of
    /// them in the last step, an error of the order of n / N.
    #[test]
    fn without_ties_the_bound_is_reached() {
        let mut random = SplitMix::new(5);
        let rewards: Vec<Vec<f64>> =
            (0..4).map(|_| (0..4096).map(|_| fraction(random.number())).collect()).collect();
        for Exact { parameter: n, kl, .. } in best_of(&rewards, 1).into_iter().take(6) {
            let bound = n.ln() - (n - 1.0) / n;
            assert!(kl.value <= bound + 1e-12 && bound - kl.value < n / 4096.0, "{n}: {kl:?}, {bound}");
        }
    }

    /// One prompt of many whose best is a single sample ends the curve no earlier than its share of the bias says.
    #[test]
    fn the_worst_known_prompts_decide_where_the_curve_ends() {
        let rare = |n: usize| -> Vec<f64> { (0..64).map(|i| f64::from(u8::from(i < n))).collect() };
        let cold =
            |rewards: &[Vec<f64>]| place(0.01, rewards.iter().map(|r| tilted(r, r, 0.01)).collect(), 1);
        // Weights of the others are below exp(-100).
        let effective = cold(&[rare(1), rare(32), rare(32)]).unwrap().effective;
        assert!((effective - 3.0 / (1.0 + 2.0 / 32.0)).abs() < 1e-9, "{effective}, and not 65 / 3");
    }

    /// What is told is twice the reward and a number: the same policies, at other temperatures.
    #[test]
    fn what_is_aimed_at_may_be_another_scale() {
        let rewards: Vec<Vec<f64>> = vec![(0..64).map(|i| f64::from(i % 7)).collect()];
        let told: Vec<Vec<f64>> = vec![rewards[0].iter().map(|r| 2.0 * r + 3.0).collect()];
        let (own, aimed) = (optimum(&rewards, &rewards, 1), optimum(&told, &rewards, 1));
        assert_eq!(own.len(), aimed.len());
        for (a, b) in own.iter().zip(&aimed) {
            // Sums of 64 numbers of up to 17, and weights of exponents that are rounded alike.
            assert!((a.reward.value - b.reward.value).abs() < 1e-10, "{a:?} {b:?}");
            assert!(
                (a.kl.value - b.kl.value).abs() < 1e-10 && (2.0 * a.parameter - b.parameter).abs() < 1e-10
            );
        }
    }

    /// No distribution of these rewards has more reward at the KL of the best of n than the optimum.
    #[test]
    fn the_optimum_is_above_the_best_of_n() {
        let mut random = SplitMix::new(9);
        let rewards: Vec<Vec<f64>> = vec![(0..512).map(|_| fraction(random.number())).collect()];
        let (optimum, best) = (optimum(&rewards, &rewards, 1), best_of(&rewards, 1));
        // Rewards are those of n samples without putting back, KLs of n with: of n much fewer than 512 they are of one
        // distribution but for steps of 1/512, which are worth less KL than 1/512 over the temperature there, 1/10.
        for place in best[1..].iter().filter(|place| place.parameter <= 8.0) {
            let kl = kl_at(&optimum, place.reward.value).expect("the optimum goes further");
            // Straight lines between the places of the curve lie above it by less than what is left of this.
            assert!(kl < place.kl.value + 0.02, "{place:?}: {kl}");
        }
        assert_eq!(kl_at(&optimum, 2.0), None);
        assert_eq!(Exact::from_json(&optimum[3].json()), Some(optimum[3]));
    }
}
