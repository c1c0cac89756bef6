//! One number for each entrant, and how badly one number does.

use crate::{Wins, chi_square_tail};

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

/// What strengths cannot say of contests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Misfit {
    /// `2 sum n [P ln(P / fitted) + (1 - P) ln((1 - P) / (1 - fitted))]` over the pairs.
    pub deviance: f64,
    /// Pairs beyond what strengths can be fitted to: `n (n - 1)/2 - (n - 1)`.
    pub degrees: usize,
    /// How often contests that strengths decide have more deviance; without a degree of freedom 1.
    pub tail: f64,
}

impl BradleyTerry {
    /// The fit to rates of wins, each of `number` contests of its pair. `None` where no strengths are likeliest, since
    /// some entrants never lose to the others (Ford, 1957), or where it was not found. By minorisation (Hunter, 2004,
    /// equation 3).
    pub fn of(wins: &Wins, number: impl Fn(usize, usize) -> f64) -> Option<Self> {
        let n = wins.entrants();
        if !connected(n, |i, j| wins.rate(i, j) > 0.0) {
            return None;
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
                return Some(BradleyTerry { strengths });
            }
        }
        None
    }

    /// How often `i` beats `j` by the fit.
    pub fn rate(&self, i: usize, j: usize) -> f64 {
        1.0 / (1.0 + (self.strengths[j] - self.strengths[i]).exp())
    }

    /// Strengths on Elo's scale, 400 points for odds of 10 to 1, of which the mean is 1500 (Elo, 1978).
    pub fn elo(&self) -> Vec<f64> {
        self.strengths.iter().map(|s| 1500.0 + 400.0 * s / std::f64::consts::LN_10).collect()
    }

    /// What it cannot say of the contests that it was fitted to. Where each is a prompt, won to the share that its
    /// samples say, it is never overstated: a share varies less than a single win.
    pub fn misfit(&self, wins: &Wins, number: impl Fn(usize, usize) -> f64) -> Misfit {
        let n = wins.entrants();
        // x ln x is 0 at 0.
        let part = |p: f64, fitted: f64| if p > 0.0 { p * (p / fitted).ln() } else { 0.0 };
        let pairs = (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j)));
        let of = |(i, j): (usize, usize)| {
            let (p, fitted) = (wins.rate(i, j), self.rate(i, j));
            2.0 * number(i, j) * (part(p, fitted) + part(1.0 - p, 1.0 - fitted))
        };
        let deviance = pairs.map(of).sum::<f64>().max(0.0);
        let degrees = (n - 1) * n.saturating_sub(2) / 2;
        let tail = if degrees == 0 { 1.0 } else { chi_square_tail(deviance, degrees) };
        Misfit { deviance, degrees, tail }
    }
}

/// Whether everyone reaches everyone along the edges.
fn connected(n: usize, edge: impl Fn(usize, usize) -> bool) -> bool {
    let reached = |follow: &dyn Fn(usize, usize) -> bool| {
        let (mut seen, mut open) = (vec![false; n], vec![0]);
        while let Some(i) = open.pop() {
            if !std::mem::replace(&mut seen[i], true) {
                open.extend((0..n).filter(|&j| j != i && follow(i, j)));
            }
        }
        seen.into_iter().all(|seen| seen)
    };
    n > 0 && reached(&edge) && reached(&|i, j| edge(j, i))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strengths_that_are_there_are_found() {
        let truth = [0.7, -0.2, 0.1, -0.6f64];
        let wins = Wins::of(4, |i, j| 1.0 / (1.0 + (truth[j] - truth[i]).exp()));
        // However often each pair met.
        let number = |i: usize, j: usize| (1 + i * j) as f64;
        let fit = BradleyTerry::of(&wins, number).unwrap();
        assert!(fit.strengths.iter().zip(truth).all(|(got, want)| (got - want).abs() < 1e-9), "{fit:?}");
        let misfit = fit.misfit(&wins, number);
        assert!(misfit.deviance < 1e-9 && misfit.degrees == 3 && misfit.tail > 0.999, "{misfit:?}");
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
        let misfit = fit.misfit(&wins, |_, _| 100.0);
        assert!(misfit.degrees == 1 && misfit.tail < 1e-12, "{misfit:?}");
    }

    #[test]
    fn who_never_loses_has_no_strength() {
        let wins = Wins::of(3, |i, _| if i == 0 { 1.0 } else { 0.5 });
        assert_eq!(BradleyTerry::of(&wins, |_, _| 5.0), None);
    }
}
