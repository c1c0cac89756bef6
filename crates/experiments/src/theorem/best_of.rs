//! The best of n draws, exactly.

use super::law::Table;
use duel_stats::{best_of_n_classes, kl};

/// What drawing `n` responses and keeping the best makes of the reference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BestOf {
    /// `KL(best of n || reference)` in nats, the mean over the prompts.
    pub kl: f64,
    /// The reward that is expected.
    pub reward: f64,
    /// How often it is better than one draw, a tie as a half.
    pub win_rate: f64,
}

/// The bound of the KL of the best of n: `ln n - (n - 1) / n`, reached where no two draws are worth the same (Beirami
/// et al., 2024).
pub fn bound(n: f64) -> f64 {
    n.ln() - (n - 1.0) / n
}

/// Draws `n` times by the reference, log-probabilities, and keeps the best; any of those that are worth the same.
///
/// Within a class of equal reward the best is as the reference has it, so the KL is that of the chances of the classes.
pub fn best_of(reference: &Table, reward: &Table, n: f64) -> BestOf {
    let mut all = BestOf { kl: 0.0, reward: 0.0, win_rate: 0.0 };
    for (logp, reward) in reference.iter().zip(reward) {
        let (worths, chances) = classes(logp, reward);
        let best = best_of_n_classes(&chances, n);
        all.kl += kl(&best, &chances);
        let mut below = 0.0;
        for ((q, worth), chance) in best.iter().zip(worths).zip(chances) {
            all.reward += q * worth;
            all.win_rate += q * (below + chance / 2.0);
            below += chance;
        }
    }
    let prompts = reference.len() as f64;
    // Of one draw it is 0, and a rounding.
    BestOf { kl: (all.kl / prompts).max(0.0), reward: all.reward / prompts, win_rate: all.win_rate / prompts }
}

/// Every reward that there is, upward, and the chance of each.
fn classes(logp: &[f64], reward: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let mut sorted: Vec<(f64, f64)> = reward.iter().zip(logp).map(|(r, p)| (*r, p.exp())).collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let of_class = |class: &[(f64, f64)]| (class[0].0, class.iter().map(|of| of.1).sum::<f64>());
    sorted.chunk_by(|a, b| a.0 == b.0).map(of_class).unzip()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn language() -> (Table, [Table; 2]) {
        let mut rng = fastrand::Rng::with_seed(3);
        let raw: Vec<f64> = (0..9).map(|_| rng.f64() + 0.1).collect();
        let sum: f64 = raw.iter().sum();
        let reward: Vec<f64> = (0..9).map(|_| 2.0 * rng.f64() - 1.0).collect();
        let coarse = reward.iter().map(|r: &f64| (2.0 * r).round() / 2.0).collect();
        (vec![raw.iter().map(|p| (p / sum).ln()).collect()], [vec![reward], vec![coarse]])
    }

    /// Against the distribution of the best over all 9^3 ways to draw three, ties shared out.
    #[test]
    fn it_is_what_all_draws_say() {
        let (reference, rewards) = language();
        let p: Vec<f64> = reference[0].iter().map(|p| p.exp()).collect();
        for reward in &rewards {
            let r = &reward[0];
            let mut best = [0.0; 9];
            for draw in 0..9usize.pow(3) {
                let drawn = [draw % 9, draw / 9 % 9, draw / 81];
                let most = drawn.iter().map(|&i| r[i]).fold(f64::MIN, f64::max);
                let tied: Vec<usize> = drawn.into_iter().filter(|&i| r[i] == most).collect();
                let chance: f64 = drawn.iter().map(|&i| p[i]).product();
                tied.iter().for_each(|&i| best[i] += chance / tied.len() as f64);
            }
            let kl: f64 = best.iter().zip(&p).filter(|(b, _)| **b > 0.0).map(|(b, p)| b * (b / p).ln()).sum();
            let worth: f64 = best.iter().zip(r).map(|(b, r)| b * r).sum();
            let beats =
                |i: usize, j: usize| if r[i] == r[j] { 0.5 } else { f64::from(u8::from(r[i] > r[j])) };
            let wins = (0..9).flat_map(|i| (0..9).map(move |j| (i, j)));
            let win_rate: f64 = wins.map(|(i, j)| best[i] * p[j] * beats(i, j)).sum();
            let got = best_of(&reference, reward, 3.0);
            assert!((got.kl - kl).abs() < 1e-14 && got.kl < bound(3.0), "{got:?}: {kl}");
            assert!((got.reward - worth).abs() < 1e-14 && (got.win_rate - win_rate).abs() < 1e-14);
            assert!(win_rate < 3.0 / 4.0);
        }
    }

    /// One draw is the reference; endless draws are the best response, whose mass bounds the KL. A thousand responses
    /// that are all different come near the bound.
    #[test]
    fn ends_are_known() {
        let (reference, rewards) = language();
        for reward in &rewards {
            let one = best_of(&reference, reward, 1.0);
            assert!(one.kl.abs() < 1e-15 && (one.win_rate - 0.5).abs() < 1e-15);
            let most = best_of(&reference, reward, 1e6);
            let (worths, chances) = classes(&reference[0], &reward[0]);
            let (best, chance) = (worths.last().unwrap(), chances.last().unwrap());
            assert!((most.kl + chance.ln()).abs() < 1e-12 && (most.reward - best).abs() < 1e-12);
        }
        let even = vec![vec![-(1e5f64.ln()); 100_000]];
        let all = vec![(0..100_000).map(f64::from).collect()];
        let four = best_of(&even, &all, 4.0);
        assert!((bound(4.0) - four.kl).abs() < 1e-4 && (four.win_rate - 0.8).abs() < 1e-4);
    }
}
