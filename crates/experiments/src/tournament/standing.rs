//! Who stands where, and how well that is known.

use super::game::{Winner, winner};
use super::held_out;
use duel_stats::{Bootstrap, BradleyTerry, Contests, Estimate, Misfit, NoFit, Wins, interval};
use duel_train::Error;

/// Draws of the prompts that shares of the winner are judged by: each solves games.
const REPLICATES: usize = 1000;

/// What contests say of the entrants; all lists are in their order.
pub struct Standing {
    /// The win matrix.
    pub wins: Wins,
    /// Its rates with intervals, at `i n + j`.
    pub rates: Vec<Option<Estimate>>,
    /// Borda's scores.
    pub borda: Vec<f64>,
    /// Copeland's scores.
    pub copeland: Vec<f64>,
    /// Condorcet's winner.
    pub condorcet: Option<usize>,
    /// Elo's numbers, of Bradley and Terry's strengths, or why there are none. They have intervals where every draw of
    /// the prompts has numbers: of draws that have none it is not known how far out they lie.
    pub elo: Result<Vec<Estimate>, NoFit>,
    /// The share of the draws that have no such numbers.
    pub unranked: f64,
    /// What strengths do not say, where that can be known.
    pub misfit: Option<Misfit>,
    /// The von Neumann winner.
    pub winner: Winner,
    /// In how many draws of the prompts the winner plays each.
    pub inclusion: Vec<f64>,
    /// Its share of the winner, in the mean over these draws, with the interval.
    pub share: Vec<Estimate>,
    /// How often the winner beats each on the prompts that it was made of: one half at least, by its making.
    pub in_sample: Vec<f64>,
    /// How often the winner of one half of the prompts beats each on the other half.
    pub guarantee: Vec<Option<Estimate>>,
    /// What the best answer has of each: `max_j A_ji`.
    pub exploitability: Vec<Estimate>,
    /// What an answer has of the winner on prompts that neither was chosen by.
    pub held_out: Option<Estimate>,
}

impl Standing {
    /// That of `contests`, by draws that the seed decides.
    ///
    /// # Errors
    /// Nothing is said of some pair, or a game was not solved.
    pub fn of(contests: &Contests, seed: u64) -> Result<Self, Error> {
        let (n, prompts) = (contests.entrants(), contests.prompts());
        let wins = contests.wins().ok_or_else(|| Error::new("nothing is known of some pair of policies"))?;
        let winner = winner(&wins)?;
        let number = |i: usize, j: usize| contests.known(i, j) as f64;
        let fit = BradleyTerry::of(&wins, number);
        let bootstrap = Bootstrap::new(seed);
        let fewer = bootstrap.with_replicates(REPLICATES);
        let drawn: Vec<Draw> = fewer
            .replicates(prompts, |counts| Some(Draw::of(&contests.drawn(|prompt| counts[prompt])?, number)))
            .into_iter()
            .flatten()
            .collect::<Result<_, _>>()?;
        let known = |value: f64, of: &dyn Fn(&Draw) -> Option<f64>| {
            let all: Option<Vec<f64>> = drawn.iter().map(of).collect();
            Estimate { value, interval: all.and_then(interval).filter(|_| prompts > 1) }
        };
        let mean = |of: &dyn Fn(&Draw) -> f64| drawn.iter().map(of).sum::<f64>() / drawn.len().max(1) as f64;
        let each = |of: &dyn Fn(usize) -> Estimate| (0..n).map(of).collect::<Vec<_>>();
        let pure = |i: usize| (0..n).map(|j| f64::from(u8::from(i == j))).collect::<Vec<_>>();
        Ok(Standing {
            rates: contests.estimates(&bootstrap),
            borda: wins.borda(),
            copeland: wins.copeland(),
            condorcet: wins.condorcet(),
            misfit: fit.as_ref().ok().and_then(|fit| fit.misfit(contests, &fewer)),
            elo: fit.map(|fit| {
                let elo = fit.elo();
                each(&|i| known(elo[i], &|draw| draw.elo.as_ref().map(|elo| elo[i])))
            }),
            unranked: mean(&|draw| f64::from(u8::from(draw.elo.is_none()))),
            inclusion: (0..n).map(|i| mean(&|draw| f64::from(u8::from(draw.shares[i] > 0.0)))).collect(),
            share: each(&|i| known(mean(&|draw| draw.shares[i]), &|draw| Some(draw.shares[i]))),
            in_sample: wins.against(&winner.mixture),
            guarantee: held_out::beats(contests, seed)?,
            exploitability: each(&|i| known(wins.exploitability(&pure(i)), &|draw| Some(draw.exploited[i]))),
            held_out: held_out::exploitability(contests, seed)?,
            winner,
            wins,
        })
    }
}

/// What one draw of the prompts says.
struct Draw {
    elo: Option<Vec<f64>>,
    shares: Vec<f64>,
    exploited: Vec<f64>,
}

impl Draw {
    fn of(wins: &Wins, number: impl Fn(usize, usize) -> f64) -> Result<Self, Error> {
        let most = |i: usize| (0..wins.entrants()).map(|j| 2.0 * wins.rate(j, i) - 1.0).fold(0.0, f64::max);
        Ok(Draw {
            elo: BradleyTerry::of(wins, number).ok().map(|fit| fit.elo()),
            shares: winner(wins)?.mixture,
            exploited: (0..wins.entrants()).map(most).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use duel_random::{SplitMix, fraction};

    /// Contests of three who beat each other at .9, .6 and .7, on so many prompts.
    fn cycle(prompts: usize) -> Contests {
        let mut random = SplitMix::new(21);
        let mut contests = Contests::new(3, prompts);
        for prompt in 0..prompts {
            for (i, j, rate) in [(0, 1, 0.9), (1, 2, 0.6), (0, 2, 0.3)] {
                (0..4).for_each(|_| {
                    contests.share(prompt, i, j).add(f64::from(u8::from(fraction(random.number()) < rate)));
                });
            }
        }
        contests
    }

    #[test]
    fn the_winner_of_a_cycle_is_known_in_proportion_to_the_prompts() {
        let all = Standing::of(&cycle(400), 1).unwrap();
        assert_eq!((all.condorcet, all.inclusion.clone()), (None, vec![1.0; 3]));
        assert!(all.borda[0] > all.borda[2] && all.winner.mixture[0] < all.winner.mixture[2]);
        for (i, want) in [1.0 / 7.0, 2.0 / 7.0, 4.0 / 7.0].into_iter().enumerate() {
            let (low, high) = all.share[i].interval.unwrap();
            assert!(low < want && want < high, "{i}: {low}..{high}");
            let (low, high) = all.guarantee[i].unwrap().interval.unwrap();
            assert!(low < 0.5 && 0.5 < high && (all.in_sample[i] - 0.5).abs() < 1e-9, "{low}..{high}");
            assert!(all.exploitability[i].value > 0.1 && all.elo.is_ok());
        }
        assert!(all.misfit.unwrap().tail < 1e-6);
        let few = Standing::of(&cycle(24), 1).unwrap();
        let [known, hardly] = [&all, &few].map(|s| s.held_out.unwrap().value);
        assert!(hardly > known && known < 0.1, "{known} and {hardly}");
        // Made of twelve prompts, a mixture loses to somebody.
        assert!(few.guarantee.iter().flatten().any(|e| e.value < 0.5 - 1e-3), "{:?}", few.guarantee);
        let again = Standing::of(&cycle(24), 1).unwrap();
        assert_eq!((few.share, few.held_out), (again.share, again.held_out));
    }
    /// The first loses one of twenty contests: about exp(-1) of all draws of the prompts are without it.
    #[test]
    fn draws_without_strengths_are_counted() {
        let mut contests = Contests::new(3, 20);
        for prompt in 0..20 {
            contests.share(prompt, 0, 1).add(f64::from(u8::from(prompt > 0)));
            contests.share(prompt, 0, 2).add(1.0);
            contests.share(prompt, 1, 2).add(f64::from(u8::from(prompt % 2 == 0)));
        }
        let standing = Standing::of(&contests, 1).unwrap();
        assert!((standing.unranked - (-1.0f64).exp()).abs() < 0.1, "{}", standing.unranked);
        assert!(standing.elo.unwrap().iter().all(|e| e.interval.is_none()));
    }
}
