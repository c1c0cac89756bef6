//! One number for each entrant, and how badly one number does.

use crate::{Bootstrap, Contests, Wins, chi_square_tail, connected};

/// A step of the fit that changes no strength by more than this ends it.
const STEP: f64 = 1e-12;
/// Steps after which a fit is given up: it crawls where somebody nearly never wins.
const STEPS: usize = 200_000;

/// Strengths by which the first of two wins at `sigmoid(strength - strength)`, as likely as they can be (Bradley and
/// Terry, 1952).
#[derive(Clone, Debug, PartialEq)]
pub struct BradleyTerry {
    /// Natural log-odds; their mean is 0.
    pub strengths: Vec<f64>,
}

/// Why there is no fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoFit {
    /// Some entrants never lose to the others: no strengths are likeliest (Ford, 1957).
    Unbeaten,
    /// It was not found in 200,000 steps: some nearly never lose.
    Unfound,
}

/// What strengths cannot say of contests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Misfit {
    /// That of [`BradleyTerry::deviance`], where each prompt is a contest.
    pub deviance: f64,
    /// Pairs beyond what strengths can be fitted to: `n (n - 1)/2 - (n - 1)`.
    pub degrees: usize,
    /// The mean deviance of what strengths decide, over the degrees: 1 were pairs independent and each prompt one win
    /// or loss; more where a prompt says alike things of several pairs, less where it says a share.
    pub design: f64,
    /// How often what strengths decide has more deviance: chi-square's tail at `deviance / design` (Rao and Scott,
    /// 1984).
    pub tail: f64,
}

impl BradleyTerry {
    /// The fit to rates of wins, each of `number` contests of its pair, by minorisation (Hunter, 2004, equation 3).
    ///
    /// # Errors
    /// There is none, or it was not found.
    pub fn of(wins: &Wins, number: impl Fn(usize, usize) -> f64) -> Result<Self, NoFit> {
        let n = wins.entrants();
        if !connected(n, |i, j| wins.rate(i, j) > 0.0) {
            return Err(NoFit::Unbeaten);
        }
        let others = |i: usize| (0..n).filter(move |&j| j != i);
        let known: Vec<Vec<f64>> =
            (0..n).map(|i| (0..n).map(|j| if i == j { 0.0 } else { number(i, j) }).collect()).collect();
        let won: Vec<f64> = (0..n).map(|i| others(i).map(|j| known[i][j] * wins.rate(i, j)).sum()).collect();
        let mut strengths = vec![0.0; n];
        for _ in 0..STEPS {
            let odds: Vec<f64> = strengths.iter().map(|s: &f64| s.exp()).collect();
            let better = |i: usize| {
                let sum: f64 = others(i).map(|j| known[i][j] / (odds[i] + odds[j])).sum();
                (won[i] / sum).ln()
            };
            let mut next: Vec<f64> = (0..n).map(better).collect();
            let mean = next.iter().sum::<f64>() / n as f64;
            next.iter_mut().for_each(|s| *s -= mean);
            let moved = next.iter().zip(&strengths).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            strengths = next;
            if moved < STEP {
                return Ok(BradleyTerry { strengths });
            }
        }
        Err(NoFit::Unfound)
    }

    /// How often `i` beats `j` by the fit.
    pub fn rate(&self, i: usize, j: usize) -> f64 {
        1.0 / (1.0 + (self.strengths[j] - self.strengths[i]).exp())
    }

    /// Strengths on Elo's scale, 400 points for odds of 10 to 1, of which the mean is 1500 (Elo, 1978).
    pub fn elo(&self) -> Vec<f64> {
        self.strengths.iter().map(|s| 1500.0 + 400.0 * s / std::f64::consts::LN_10).collect()
    }

    /// What it leaves of the rates that it was fitted to:
    /// `2 sum n [P ln(P / fitted) + (1 - P) ln((1 - P) / (1 - fitted))]` over the pairs.
    pub fn deviance(&self, wins: &Wins, number: impl Fn(usize, usize) -> f64) -> f64 {
        let n = wins.entrants();
        // x ln x is 0 at 0.
        let part = |p: f64, fitted: f64| if p > 0.0 { p * (p / fitted).ln() } else { 0.0 };
        let pairs = (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j)));
        let of = |(i, j): (usize, usize)| {
            let (p, fitted) = (wins.rate(i, j), self.rate(i, j));
            2.0 * number(i, j) * (part(p, fitted) + part(1.0 - p, 1.0 - fitted))
        };
        pairs.map(of).sum::<f64>().max(0.0)
    }

    /// Whether it says all of the contests that it was fitted to, each prompt one contest of a pair. Prompts are
    /// independent and their pairs are not: what the deviance would be if strengths decided is found by drawing the
    /// prompts again, each rate moved from the seen one to the fitted one. `None` without a degree of freedom or a
    /// second prompt, or where some of these draws have no fit.
    pub fn misfit(&self, contests: &Contests, bootstrap: &Bootstrap) -> Option<Misfit> {
        let (n, prompts) = (contests.entrants(), contests.prompts());
        let degrees = (n - 1) * n.saturating_sub(2) / 2;
        if degrees == 0 || prompts < 2 {
            return None;
        }
        let wins = contests.wins()?;
        let known: Vec<f64> = (0..n * n).map(|at| contests.known(at / n, at % n) as f64).collect();
        let number = |i: usize, j: usize| known[i * n + j];
        let deviance = self.deviance(&wins, number);
        let drawn = bootstrap.replicates(prompts, |counts| {
            let drawn = contests.drawn(|prompt| counts[prompt])?;
            let moved =
                |i: usize, j: usize| (self.rate(i, j) + drawn.rate(i, j) - wins.rate(i, j)).clamp(0.0, 1.0);
            let moved = Wins::of(n, moved);
            Some(Self::of(&moved, number).ok()?.deviance(&moved, number))
        });
        let drawn = drawn.into_iter().collect::<Option<Vec<f64>>>()?;
        let design = drawn.iter().sum::<f64>() / drawn.len() as f64 / degrees as f64;
        // Prompts that all say the same leave no doubt of what they say.
        let tail = match design > f64::EPSILON {
            true => chi_square_tail(deviance / design, degrees),
            false => f64::from(u8::from(deviance < STEP)),
        };
        Some(Misfit { deviance, degrees, design, tail })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use duel_random::SplitMix;

    #[test]
    fn strengths_that_are_there_are_found() {
        let truth = [0.7, -0.2, 0.1, -0.6f64];
        let wins = Wins::of(4, |i, j| 1.0 / (1.0 + (truth[j] - truth[i]).exp()));
        // However often each pair met.
        let number = |i: usize, j: usize| (1 + i * j) as f64;
        let fit = BradleyTerry::of(&wins, number).unwrap();
        assert!(fit.strengths.iter().zip(truth).all(|(got, want)| (got - want).abs() < 1e-9), "{fit:?}");
        let deviance = fit.deviance(&wins, number);
        assert!(deviance < 1e-9 && chi_square_tail(deviance, 3) > 0.999, "{deviance}");
        assert!((fit.elo()[0] - fit.elo()[3] - 400.0 * 1.3 / std::f64::consts::LN_10).abs() < 1e-6);
    }

    /// At the likeliest strengths everyone wins as often as is fitted; a cycle of .9, .6 and .7 they do not know.
    #[test]
    fn a_cycle_is_a_misfit() {
        let p = [[0.5, 0.9, 0.3], [0.1, 0.5, 0.6], [0.7, 0.4, 0.5]];
        let wins = Wins::of(3, |i, j| p[i][j]);
        let fit = BradleyTerry::of(&wins, |_, _| 100.0).unwrap();
        for (i, won) in [1.2, 0.7, 1.1].into_iter().enumerate() {
            let fitted: f64 = (0..3).filter(|&j| j != i).map(|j| fit.rate(i, j)).sum();
            assert!((fitted - won).abs() < 1e-9, "{i}: {fitted}");
        }
        let deviance = fit.deviance(&wins, |_, _| 100.0);
        assert!(chi_square_tail(deviance, 1) < 1e-12, "{deviance}");
    }

    /// Every prompt is a cycle, the one way round or the other at one half: equal strengths are right, and pairs have
    /// the same number of wins, so that the deviance is three times a chi-square number of one degree. As if pairs were
    /// independent it would be too large of P(|Z| > 1.96 / sqrt 3), 26 % of all; 400 trials at 5 % deviate by 0.011, of
    /// which four are allowed.
    #[test]
    fn prompts_that_pairs_share_are_no_misfit() {
        const TRIALS: u64 = 400;
        let mut random = SplitMix::new(5);
        let [mut rejected, mut independent, mut design] = [0.0; 3];
        for trial in 0..TRIALS {
            let mut contests = Contests::new(3, 100);
            for prompt in 0..100 {
                let way = (random.number() >> 63) as f64;
                for (i, j, won) in [(0, 1, way), (1, 2, way), (0, 2, 1.0 - way)] {
                    contests.share(prompt, i, j).add(won);
                }
            }
            let fit = BradleyTerry::of(&contests.wins().unwrap(), |_, _| 100.0).unwrap();
            let misfit = fit.misfit(&contests, &Bootstrap::new(trial).with_replicates(200)).unwrap();
            let share = |tail: f64| f64::from(u8::from(tail < 0.05)) / TRIALS as f64;
            rejected += share(misfit.tail);
            independent += share(chi_square_tail(misfit.deviance, 1));
            design += misfit.design / TRIALS as f64;
        }
        assert!((rejected - 0.05).abs() < 4.0 * 0.011, "{rejected}");
        assert!((design - 3.0).abs() < 0.1 && independent > 0.15, "{design}, {independent}");
    }

    /// A cycle of .9, .6 and .7 on prompts that say different things of the pairs is seen; one prompt says nothing.
    #[test]
    fn a_misfit_is_seen_over_prompts() {
        let contests = |prompts: usize| {
            let mut contests = Contests::new(3, prompts);
            for (prompt, place) in (0..prompts).map(|prompt| (prompt, prompt % 10)) {
                contests.share(prompt, 0, 1).add(f64::from(u8::from(place < 9)));
                contests.share(prompt, 1, 2).add(f64::from(u8::from(place * 3 % 10 < 6)));
                contests.share(prompt, 0, 2).add(f64::from(u8::from(place * 7 % 10 < 3)));
            }
            contests
        };
        let misfit = |contests: &Contests| {
            let fit = BradleyTerry::of(&contests.wins()?, |_, _| 100.0).ok()?;
            fit.misfit(contests, &Bootstrap::new(1).with_replicates(200))
        };
        let seen = misfit(&contests(100)).unwrap();
        assert!(seen.degrees == 1 && seen.tail < 1e-6, "{seen:?}");
        assert_eq!(misfit(&contests(1)), None);
    }

    #[test]
    fn who_never_loses_has_no_strength() {
        let wins = Wins::of(3, |i, _| if i == 0 { 1.0 } else { 0.5 });
        assert_eq!(BradleyTerry::of(&wins, |_, _| 5.0), Err(NoFit::Unbeaten));
    }
}
