//! Who stands where, and how well that is known.

use super::game::{Winner, winner};
use duel_random::at;
use duel_stats::{Bootstrap, BradleyTerry, Contests, Estimate, Misfit, Wins, interval};
use duel_train::Error;

/// Draws of the prompts that shares of the winner are judged by: each solves games.
const REPLICATES: usize = 1000;
/// Splits of the prompts into halves.
const SPLITS: u64 = 400;

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
    /// Elo's numbers, of Bradley and Terry's strengths; `None` where there are no likeliest ones.
    pub elo: Option<Vec<Estimate>>,
    /// What strengths do not say.
    pub misfit: Option<Misfit>,
    /// The von Neumann winner.
    pub winner: Winner,
    /// In how many draws of the prompts the winner plays each.
    pub inclusion: Vec<f64>,
    /// Its share of the winner, in the mean over these draws, with the interval.
    pub share: Vec<Estimate>,
    /// How often the winner beats each, with the interval of that mixture.
    pub guarantee: Vec<Estimate>,
    /// What the best answer has of each: `max_j A_ji`.
    pub exploitability: Vec<Estimate>,
    /// What the best answer has of the winner of one half of the prompts in the other half.
    pub held_out: Estimate,
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
        let misfit = fit.as_ref().map(|fit| fit.misfit(&wins, number));
        let bootstrap = Bootstrap::new(seed);
        let drawn: Vec<Draw> = bootstrap
            .with_replicates(REPLICATES)
            .replicates(prompts, |counts| {
                let wins = contests.drawn(|prompt| counts[prompt])?;
                Some(Draw::of(&wins, &winner.mixture, number))
            })
            .into_iter()
            .flatten()
            .collect::<Result<_, _>>()?;
        let known = |value: f64, of: &dyn Fn(&Draw) -> Option<f64>| {
            let interval = interval(drawn.iter().filter_map(of).collect()).filter(|_| prompts > 1);
            Estimate { value, interval }
        };
        let mean = |of: &dyn Fn(&Draw) -> f64| drawn.iter().map(of).sum::<f64>() / drawn.len().max(1) as f64;
        let against = wins.against(&winner.mixture);
        let each = |of: &dyn Fn(usize) -> Estimate| (0..n).map(of).collect::<Vec<_>>();
        let pure = |i: usize| (0..n).map(|j| f64::from(u8::from(i == j))).collect::<Vec<_>>();
        Ok(Standing {
            rates: contests.estimates(&bootstrap),
            borda: wins.borda(),
            copeland: wins.copeland(),
            condorcet: wins.condorcet(),
            elo: fit.map(|fit| {
                let elo = fit.elo();
                each(&|i| known(elo[i], &|draw| draw.elo.as_ref().map(|elo| elo[i])))
            }),
            misfit,
            inclusion: (0..n).map(|i| mean(&|draw| f64::from(u8::from(draw.shares[i] > 0.0)))).collect(),
            share: each(&|i| known(mean(&|draw| draw.shares[i]), &|draw| Some(draw.shares[i]))),
            guarantee: each(&|i| known(against[i], &|draw| Some(draw.against[i]))),
            exploitability: each(&|i| known(wins.exploitability(&pure(i)), &|draw| Some(draw.exploited[i]))),
            held_out: held_out(contests, seed)?,
            winner,
            wins,
        })
    }
}

/// What one draw of the prompts says.
struct Draw {
    elo: Option<Vec<f64>>,
    shares: Vec<f64>,
    against: Vec<f64>,
    exploited: Vec<f64>,
}

impl Draw {
    fn of(wins: &Wins, mixture: &[f64], number: impl Fn(usize, usize) -> f64) -> Result<Self, Error> {
        let most = |i: usize| (0..wins.entrants()).map(|j| 2.0 * wins.rate(j, i) - 1.0).fold(0.0, f64::max);
        Ok(Draw {
            elo: BradleyTerry::of(wins, number).map(|fit| fit.elo()),
            shares: winner(wins)?.mixture,
            against: wins.against(mixture),
            exploited: (0..wins.entrants()).map(most).collect(),
        })
    }
}

/// Half of the prompts solve, the others judge: on those that it was made of nobody beats a winner.
fn held_out(contests: &Contests, seed: u64) -> Result<Estimate, Error> {
    let split = |split: u64| {
        let half = |prompt: usize| at(&[seed, split, prompt as u64]) >> 63;
        let of = |side: u64| contests.drawn(|prompt| u32::from(half(prompt) == side));
        // A half may say nothing of a pair.
        let (Some(solves), Some(judges)) = (of(0), of(1)) else { return Ok(None) };
        Ok(Some(judges.exploitability(&winner(&solves)?.mixture)))
    };
    let found: Vec<f64> =
        (0..SPLITS).map(split).collect::<Result<Vec<_>, Error>>()?.into_iter().flatten().collect();
    let value = found.iter().sum::<f64>() / found.len() as f64;
    Ok(Estimate { value, interval: interval(found) })
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
            let (low, high) = all.guarantee[i].interval.unwrap();
            assert!(low < 0.5 && 0.5 < high && (all.guarantee[i].value - 0.5).abs() < 1e-9);
            assert!(all.exploitability[i].value > 0.1 && all.elo.is_some());
        }
        assert!(all.misfit.unwrap().tail < 1e-6);
        let few = Standing::of(&cycle(24), 1).unwrap();
        assert!(few.held_out.value > all.held_out.value && all.held_out.value < 0.1, "{:?}", all.held_out);
        let again = Standing::of(&cycle(24), 1).unwrap();
        assert_eq!((few.share, few.held_out), (again.share, again.held_out));
    }
}
