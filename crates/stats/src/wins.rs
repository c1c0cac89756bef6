//! Who wins how often: contests of several entrants on the same prompts, and what an order of them can be made of.

use crate::bootstrap::ratio;
use crate::{Bootstrap, Estimate, Share, Z};

/// Contests of `n` entrants: of every pair, what each prompt adds to the wins of its first.
#[derive(Clone, Debug, PartialEq)]
pub struct Contests {
    entrants: usize,
    prompts: usize,
    /// A column a pair, in the order (0, 1), (0, 2), .., (1, 2), ..
    pairs: Vec<Vec<Share>>,
}

/// Where the pair (`i`, `j`), `i < j`, stands among all of `n`.
fn place(i: usize, j: usize, n: usize) -> usize {
    i * (2 * n - i - 1) / 2 + j - i - 1
}

impl Contests {
    /// None yet, of so many entrants on so many prompts.
    pub fn new(entrants: usize, prompts: usize) -> Self {
        let pairs = entrants * entrants.saturating_sub(1) / 2;
        Contests { entrants, prompts, pairs: vec![vec![Share::default(); prompts]; pairs] }
    }

    /// How many entrants there are.
    pub fn entrants(&self) -> usize {
        self.entrants
    }

    /// How many prompts there are.
    pub fn prompts(&self) -> usize {
        self.prompts
    }

    /// What a prompt says of the pair (`i`, `j`), `i < j`: the wins of `i`, a tie one half, and how many contests.
    pub fn share(&mut self, prompt: usize, i: usize, j: usize) -> &mut Share {
        &mut self.pairs[place(i, j, self.entrants)][prompt]
    }

    /// Prompts that say anything of the pair (`i`, `j`); of an entrant and itself, none.
    pub fn known(&self, i: usize, j: usize) -> usize {
        if i == j {
            return 0;
        }
        let column = &self.pairs[place(i.min(j), i.max(j), self.entrants)];
        column.iter().filter(|share| share.n > 0.0).count()
    }

    /// The win matrix; `None` where nothing is said of some pair.
    pub fn wins(&self) -> Option<Wins> {
        self.drawn(|_| 1)
    }

    /// The win matrix where each prompt is there so often; `None` where nothing is said of some pair.
    pub fn drawn(&self, times: impl Fn(usize) -> u32) -> Option<Wins> {
        let mean = |column: &Vec<Share>| {
            ratio(column.iter().enumerate().map(|(prompt, share)| share.times(times(prompt))))
        };
        let rates: Vec<f64> = self.pairs.iter().map(mean).collect::<Option<_>>()?;
        Some(Wins::of(self.entrants, |i, j| rates[place(i, j, self.entrants)]))
    }

    /// How often a mixture that was not made of these prompts beats `j` on those that `counts`, with the normal
    /// interval over prompts: a prompt adds `sum_i p_i (w_ij - P_ij n_ij) / N_ij` to the rate `sum_i p_i P_ij`, of its
    /// `w` wins among `n` contests and all `N` of the pair. `None` where fewer than two prompts say anything of a pair
    /// that is played.
    pub fn beaten(&self, mixture: &[f64], j: usize, counts: impl Fn(usize) -> bool) -> Option<Estimate> {
        let prompts: Vec<usize> = (0..self.prompts).filter(|&prompt| counts(prompt)).collect();
        let mut value = 0.0;
        let mut added = vec![0.0; prompts.len()];
        for (i, &weight) in mixture.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
            if i == j {
                value += 0.5 * weight;
                continue;
            }
            let column = &self.pairs[place(i.min(j), i.max(j), self.entrants)];
            if prompts.iter().filter(|&&prompt| column[prompt].n > 0.0).count() < 2 {
                return None;
            }
            let known: f64 = prompts.iter().map(|&prompt| column[prompt].n).sum();
            let rate = ratio(prompts.iter().map(|&prompt| column[prompt]))?;
            // The column is of the wins of the first of the pair.
            let (won, sign) = if i < j { (rate, 1.0) } else { (1.0 - rate, -1.0) };
            value += weight * won;
            for (added, &prompt) in added.iter_mut().zip(&prompts) {
                *added += sign * weight * (column[prompt].sum - rate * column[prompt].n) / known;
            }
        }
        let n = prompts.len() as f64;
        let half = Z * (added.iter().map(|x| x * x).sum::<f64>() * n / (n - 1.0)).sqrt();
        (n > 1.0).then_some(Estimate { value, interval: Some((value - half, value + half)) })
    }

    /// The rate of wins of `i` over `j` at `i n + j`, with its interval; of an entrant over itself, and of a pair that
    /// nothing is said of, `None`.
    pub fn estimates(&self, bootstrap: &Bootstrap) -> Vec<Option<Estimate>> {
        let n = self.entrants;
        let columns: Vec<&[Share]> = self.pairs.iter().map(Vec::as_slice).collect();
        let means = bootstrap.means(&columns);
        let turned = |e: Estimate| Estimate {
            value: 1.0 - e.value,
            interval: e.interval.map(|(low, high)| (1.0 - high, 1.0 - low)),
        };
        let cell = |i: usize, j: usize| match i.cmp(&j) {
            std::cmp::Ordering::Less => means[place(i, j, n)],
            std::cmp::Ordering::Equal => None,
            std::cmp::Ordering::Greater => means[place(j, i, n)].map(turned),
        };
        (0..n * n).map(|at| cell(at / n, at % n)).collect()
    }
}

/// A win matrix: the probability that one entrant beats another. That of the other is the rest, and of an entrant
/// against itself one half.
#[derive(Clone, Debug, PartialEq)]
pub struct Wins {
    n: usize,
    rates: Vec<f64>,
}

impl Wins {
    /// That of `n` entrants of which the first of a pair `i < j` wins so often.
    pub fn of(n: usize, rate: impl Fn(usize, usize) -> f64) -> Self {
        let cell = |(i, j): (usize, usize)| match i.cmp(&j) {
            std::cmp::Ordering::Less => rate(i, j),
            std::cmp::Ordering::Equal => 0.5,
            std::cmp::Ordering::Greater => 1.0 - rate(j, i),
        };
        Wins { n, rates: (0..n * n).map(|at| cell((at / n, at % n))).collect() }
    }

    /// How many entrants there are.
    pub fn entrants(&self) -> usize {
        self.n
    }

    /// How often `i` beats `j`.
    pub fn rate(&self, i: usize, j: usize) -> f64 {
        self.rates[i * self.n + j]
    }

    /// How often a mixture of the entrants beats each of them.
    pub fn against(&self, mixture: &[f64]) -> Vec<f64> {
        let of = |j: usize| mixture.iter().enumerate().map(|(i, p)| p * self.rate(i, j)).sum();
        (0..self.n).map(of).collect()
    }

    /// What the best answer to a mixture has of it: `max_j A_jp`, with `A = 2 P - 1`, in 0..=1.
    pub fn exploitability(&self, mixture: &[f64]) -> f64 {
        // Nobody loses to itself, and so not less than nothing.
        self.against(mixture).iter().map(|rate| 1.0 - 2.0 * rate).fold(0.0, f64::max)
    }

    fn others(&self, i: usize) -> impl Iterator<Item = f64> + '_ {
        (0..self.n).filter(move |&j| j != i).map(move |j| self.rate(i, j))
    }

    /// Borda's scores: how often each beats the others, in the mean.
    pub fn borda(&self) -> Vec<f64> {
        (0..self.n).map(|i| self.others(i).sum::<f64>() / (self.n - 1) as f64).collect()
    }

    /// Copeland's scores: how many others each beats more often than not, one half for as often as not.
    pub fn copeland(&self) -> Vec<f64> {
        let beats = |rate: f64| if rate == 0.5 { 0.5 } else { f64::from(rate > 0.5) };
        (0..self.n).map(|i| self.others(i).map(beats).sum()).collect()
    }

    /// Condorcet's winner: who beats every other more often than not; there may be none.
    pub fn condorcet(&self) -> Option<usize> {
        (0..self.n).find(|&i| self.others(i).all(|rate| rate > 0.5))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A beats B at .9, B C at .6, C A at .7.
    fn cycle() -> Wins {
        Wins::of(3, |i, j| [[0.5, 0.9, 0.3], [0.1, 0.5, 0.6], [0.7, 0.4, 0.5]][i][j])
    }

    fn close(got: &[f64], want: &[f64]) {
        assert!(
            got.len() == want.len() && got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-12),
            "{got:?}"
        );
    }

    /// By hand: A has (.9 + .3)/2, B (.1 + .6)/2, C (.7 + .4)/2; each beats one. A loses to C by .4 of 2 P - 1. Of
    /// (1/7, 2/7, 4/7) everyone has one half.
    #[test]
    fn a_cycle_has_a_first_for_borda_and_none_for_condorcet() {
        let wins = cycle();
        close(&wins.borda(), &[0.6, 0.35, 0.55]);
        close(&wins.copeland(), &[1.0; 3]);
        assert_eq!(wins.condorcet(), None);
        let exploited = |mixture: [f64; 3]| wins.exploitability(&mixture);
        close(&[exploited([1.0, 0.0, 0.0]), exploited([0.0, 1.0, 0.0])], &[0.4, 0.8]);
        close(&wins.against(&[1.0 / 7.0, 2.0 / 7.0, 4.0 / 7.0]), &[0.5; 3]);
        assert_eq!(Wins::of(3, |_, _| 0.6).condorcet(), Some(0));
        close(&Wins::of(2, |_, _| 0.5).copeland(), &[0.5, 0.5]);
    }

    /// With as many contests on every prompt it is the mean of what a mixture wins there, and its interval is that
    /// mean's.
    #[test]
    fn what_a_mixture_beats_is_a_mean_over_prompts() {
        let mut contests = Contests::new(3, 6);
        let won = |prompt: usize, pair: usize| ((prompt * 5 + pair * 3) % 7) as f64 / 6.0;
        for prompt in 0..6 {
            for (pair, (i, j)) in [(0, 1), (0, 2), (1, 2)].into_iter().enumerate() {
                *contests.share(prompt, i, j) = Share { sum: 2.0 * won(prompt, pair), n: 2.0 };
            }
        }
        let mixture = [0.2, 0.5, 0.3];
        // Against 1: of 0 by the first pair, of 2 by what the third leaves.
        let each = |prompt: usize| 0.2 * won(prompt, 0) + 0.5 * 0.5 + 0.3 * (1.0 - won(prompt, 2));
        let want = crate::mean(&[1, 2, 4, 5].map(each)).unwrap();
        let got = contests.beaten(&mixture, 1, |prompt| prompt % 3 > 0).unwrap();
        let ends = |e: Estimate| e.interval.map_or([f64::NAN; 2], |(low, high)| [low, high]);
        close(&[got.value], &[want.value]);
        close(&ends(got), &ends(want));
        assert_eq!(contests.beaten(&mixture, 1, |prompt| prompt == 3), None);
    }

    #[test]
    fn contests_add_up_over_prompts() {
        let mut contests = Contests::new(3, 2);
        *contests.share(0, 0, 1) = Share { sum: 2.0, n: 2.0 };
        *contests.share(1, 0, 1) = Share { sum: 0.5, n: 2.0 };
        *contests.share(1, 1, 2) = Share { sum: 1.0, n: 1.0 };
        assert_eq!((contests.known(1, 0), contests.known(2, 1), contests.known(0, 2)), (2, 1, 0));
        assert_eq!(contests.wins(), None, "nothing is said of 0 and 2");
        *contests.share(0, 0, 2) = Share { sum: 0.0, n: 1.0 };
        let wins = contests.wins().unwrap();
        close(&[wins.rate(0, 1), wins.rate(1, 0), wins.rate(2, 0)], &[0.625, 0.375, 1.0]);
        assert_eq!(
            contests.drawn(|prompt| 2 * u32::from(prompt == 0)),
            None,
            "1 against 2 is on the other prompt"
        );
        let estimates = contests.estimates(&Bootstrap::new(1));
        let (there, back) = (estimates[1].unwrap(), estimates[3].unwrap());
        let (low, high) = there.interval.unwrap();
        assert_eq!((back.value, back.interval), (1.0 - there.value, Some((1.0 - high, 1.0 - low))));
        assert_eq!((estimates[0], estimates[5].unwrap().interval), (None, None));
    }
}
