//! Duels with contexts, learned online: two learners over a finite set of policies spar, each fed whether it won.
//!
//! In each round a context comes, each learner names an action, and one of them wins. The regret after `T` rounds is
//! `max_pi sum_t [A(pi(x_t), a_t) + A(pi(x_t), b_t)] / 2`, with `A = 2 P - 1` (Dudik et al., 2015): over `T` it is what
//! the best policy of the set has of the average play.

use duel_judge::{Case, Judge, Opinion, verdicts};
use duel_random::{SplitMix, at, fraction};
use duel_stats::Wins;
use duel_train::Error;

/// The games that a judge plays, one a context.
#[derive(Clone, Debug, PartialEq)]
pub struct Games(Vec<Wins>);

impl Games {
    /// What `judge` says of the answers of every case: the prompt is the context, answers are the actions. All cases
    /// have as many.
    ///
    /// # Errors
    /// The judge failed, or says nothing of a pair.
    pub fn of(judge: &mut dyn Judge, cases: &[Case]) -> Result<Self, Error> {
        let game = |(case, verdict): (&Case, duel_judge::Verdict)| {
            let n = case.answers.len();
            let said = |at: usize| match verdict.wins(at / n, at % n, true) {
                Opinion::Said(rate) => Ok(rate),
                Opinion::Unjudged(why) => Err(Error::new(format!(
                    "the judge does not compare answers to {:?}: {why}",
                    case.prompt.text()
                ))),
            };
            let rates = (0..n * n).map(|at| if at / n < at % n { said(at) } else { Ok(0.5) });
            let rates = rates.collect::<Result<Vec<f64>, Error>>()?;
            Ok(Wins::of(n, |i, j| rates[i * n + j]))
        };
        let verdicts = verdicts(judge, cases)?;
        Ok(Games(cases.iter().zip(verdicts).map(game).collect::<Result<_, Error>>()?))
    }

    fn margin(&self, context: usize, i: usize, j: usize) -> f64 {
        2.0 * self.0[context].rate(i, j) - 1.0
    }

    /// Every map of contexts to actions, an action a context.
    pub fn policies(&self) -> Vec<Vec<usize>> {
        let actions = self.0[0].entrants();
        let all = actions.pow(self.0.len() as u32);
        (0..all).map(|n| (0..self.0.len() as u32).map(|x| n / actions.pow(x) % actions).collect()).collect()
    }
}

/// A small world: three contexts, in each of which another of three kinds of reviews has the first place of the cycle
/// ([`Cycle::by_prompt`](crate::cycle::Cycle::by_prompt)).
pub fn cases() -> Vec<Case> {
    let answers = [" and the acting shines .", " and the plot works .", " and the music shines ."];
    ["the cast is good", "the story is good", "the camera work is good"]
        .map(|prompt| Case::new(prompt, answers))
        .to_vec()
}

/// How actions are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Play {
    /// Two learners, EXP4.P each, who know how long it lasts.
    Sparring,
    /// Any action, always.
    Uniform,
}

/// EXP4.P (Beygelzimer et al., 2011, algorithm 2) of `K` actions, `N` experts and `T` rounds: weights of the experts,
/// by what their choices earned, with a bonus for what is not known. Experts are the policies, and one who names any
/// action, whom its theorem asks for.
struct Learner<'p> {
    policies: &'p [Vec<usize>],
    actions: usize,
    /// Logarithms, up to a constant; the last is of who names any action.
    weights: Vec<f64>,
    /// Least probability of an action: `sqrt(ln N / (K T))`.
    least: f64,
    /// What the bonus is weighed by: `sqrt(ln(N / delta) / (K T))`.
    bonus: f64,
}

/// Probability that the regret of a learner exceeds its bound.
const DELTA: f64 = 0.05;

impl<'p> Learner<'p> {
    fn new(policies: &'p [Vec<usize>], actions: usize, rounds: usize) -> Self {
        let experts = policies.len() + 1;
        let (n, kt) = (experts as f64, (actions * rounds) as f64);
        Learner {
            policies,
            actions,
            weights: vec![0.0; experts],
            least: (n.ln() / kt).sqrt().min(1.0 / actions as f64),
            bonus: ((n / DELTA).ln() / kt).sqrt(),
        }
    }

    /// The probability of each action in a context.
    fn chances(&self, context: usize) -> Vec<f64> {
        let top = self.weights.iter().fold(f64::NEG_INFINITY, |top, w| top.max(*w));
        let any = self.weights.last().map_or(0.0, |weight| (weight - top).exp());
        let mut chances = vec![any / self.actions as f64; self.actions];
        for (policy, weight) in self.policies.iter().zip(&self.weights) {
            chances[policy[context]] += (weight - top).exp();
        }
        let all: f64 = chances.iter().sum();
        let free = 1.0 - self.actions as f64 * self.least;
        chances.iter().map(|chance| free * chance / all + self.least).collect()
    }

    fn learn(&mut self, context: usize, chances: &[f64], action: usize, won: f64) {
        let gain = |own: usize| {
            let earned = if own == action { won / chances[action] } else { 0.0 };
            self.least / 2.0 * (earned + self.bonus / chances[own])
        };
        let gains: Vec<f64> = (0..self.actions).map(gain).collect();
        let any = gains.iter().sum::<f64>() / gains.len() as f64;
        let of = self.policies.iter().map(|policy| gains[policy[context]]).chain([any]);
        self.weights.iter_mut().zip(of).for_each(|(weight, gain)| *weight += gain);
    }
}

/// A number in `0..1` picks an action.
fn pick(chances: &[f64], number: f64) -> usize {
    let mut below = 0.0;
    let here = |chance: &f64| {
        below += chance;
        number < below
    };
    chances.iter().position(here).unwrap_or(chances.len() - 1)
}

/// The regret of so many rounds, each in a context that is drawn, against the best of all policies.
pub fn regret(games: &Games, play: Play, rounds: usize, seed: u64) -> f64 {
    let (contexts, actions) = (games.0.len(), games.0[0].entrants());
    let policies = games.policies();
    let mut learners = [(); 2].map(|()| Learner::new(&policies, actions, rounds));
    let mut random = SplitMix::new(at(&[seed, rounds as u64]));
    let mut number = move || fraction(random.number());
    // How often each action was named in each context: all that the regret depends on.
    let mut named = vec![vec![0u64; actions]; contexts];
    for _ in 0..rounds {
        let context = (number() * contexts as f64) as usize;
        let chances = match play {
            Play::Sparring => [0, 1].map(|i: usize| learners[i].chances(context)),
            Play::Uniform => [(); 2].map(|()| vec![1.0 / actions as f64; actions]),
        };
        let action = [0, 1].map(|i: usize| pick(&chances[i], number()));
        action.iter().for_each(|action| named[context][*action] += 1);
        if play == Play::Sparring {
            let won = f64::from(u8::from(number() < games.0[context].rate(action[0], action[1])));
            for (i, won) in [won, 1.0 - won].into_iter().enumerate() {
                learners[i].learn(context, &chances[i], action[i], won);
            }
        }
    }
    let earned = |policy: &Vec<usize>| {
        let of = |(context, named): (usize, &Vec<u64>)| {
            let own = policy[context];
            named.iter().enumerate().map(|(j, n)| games.margin(context, own, j) * *n as f64).sum::<f64>()
        };
        named.iter().enumerate().map(of).sum::<f64>() / 2.0
    };
    policies.iter().map(earned).fold(f64::NEG_INFINITY, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cycle::Cycle;

    fn games() -> Games {
        Games::of(&mut Cycle { by_prompt: true }, &cases()).unwrap()
    }

    #[test]
    fn a_judge_makes_the_games() {
        let games = games();
        assert_eq!(games.policies().len(), 27);
        assert_eq!([games.0[0].rate(0, 1), games.0[1].rate(1, 2), games.0[2].rate(2, 0)], [0.9; 3]);
    }

    /// The best action has (0 + .8 - .4)/3 of uniform play a round. A count of an action in a context deviates by less
    /// than sqrt(2 T / 9), of 2 T named; six of these are allowed in each of the nine, times a margin of at most .8.
    #[test]
    fn uniform_play_loses_in_proportion() {
        let rounds = 20_000;
        let got = regret(&games(), Play::Uniform, rounds, 1) / rounds as f64;
        assert!(
            (got - 0.4 / 3.0).abs() < 9.0 * 6.0 * (2.0 / 9.0 / rounds as f64 / 2.0).sqrt() / 3.0,
            "{got}"
        );
    }

    /// A learner loses at most `6 sqrt(K T ln(N / delta))` of rewards in 0..=1, with a probability of 1 - delta
    /// (Beygelzimer et al., theorem 2): in sixteen times as many rounds four times as much, where learning nothing
    /// loses sixteen times as much. The bound itself is kept by uniform play too, up to 2^17 rounds. Runs of up to
    /// about 2^14 rounds end before their weights have gone round the cycle once, and regret grows nearly as rounds do;
    /// then seeds differ by a tenth, and where on the cycle a run ends is seen too: twice as much as four times is
    /// allowed.
    #[test]
    fn sparring_loses_ever_less_a_round() {
        let games = games();
        let sum = |play, rounds| (1..=4).map(|seed| regret(&games, play, rounds, seed)).sum::<f64>();
        let [short, long] = [1 << 14, 1 << 18].map(|rounds| sum(Play::Sparring, rounds));
        assert!(long < 8.0 * short, "{short}, then {long}");
        let uniform = sum(Play::Uniform, 1 << 18);
        assert!(long < uniform / 3.0, "{long}; uniform play {uniform}");
        assert_eq!(short, sum(Play::Sparring, 1 << 14));
    }
}
