//! What a mixture is worth on prompts that it was not made of: on its own nobody beats it.

use super::game::winner;
use duel_random::at;
use duel_stats::{Contests, Estimate};
use duel_train::Error;

/// Splits of the prompts that are averaged over.
const SPLITS: u64 = 200;

/// In which of so many parts a prompt lies.
fn part(parts: u64, seed: u64, split: u64, prompt: usize) -> u64 {
    // The high half of a product: even parts.
    ((u128::from(at(&[seed, parts, split, prompt as u64])) * u128::from(parts)) >> 64) as u64
}

/// The mean of estimates that may depend on each other in any way: its deviation is at most the mean of theirs, and so
/// its interval is no wider than the mean of their intervals, which is given.
fn averaged(all: &[Estimate]) -> Option<Estimate> {
    let n = all.len() as f64;
    let ends = all.iter().filter_map(|e| e.interval);
    let (low, high) = ends.fold((0.0, 0.0), |sum, ends| (sum.0 + ends.0 / n, sum.1 + ends.1 / n));
    let value = all.iter().map(|e| e.value / n).sum();
    (!all.is_empty()).then_some(Estimate { value, interval: Some((low, high)) })
}

/// How often the von Neumann winner of one half of the prompts beats each entrant on the other half, both ways, in the
/// mean over splits. A split whose parts say nothing of a pair is left out, here and below; `None` where all are.
///
/// # Errors
/// A game was not solved.
pub fn beats(contests: &Contests, seed: u64) -> Result<Vec<Option<Estimate>>, Error> {
    let mut found = vec![Vec::new(); contests.entrants()];
    for (split, side) in (0..SPLITS).flat_map(|split| [(split, 0), (split, 1)]) {
        let solves = |prompt: usize| part(2, seed, split, prompt) == side;
        let Some(wins) = contests.drawn(|prompt| u32::from(solves(prompt))) else { continue };
        let mixture = winner(&wins)?.mixture;
        for (j, found) in found.iter_mut().enumerate() {
            found.extend(contests.beaten(&mixture, j, |prompt| !solves(prompt)));
        }
    }
    Ok(found.iter().map(|found| averaged(found)).collect())
}

/// What an answer has of the von Neumann winner, in `2 P - 1`: a third of the prompts makes the winner, a third finds
/// its best answer, and the last says what that is worth, so that nothing was chosen by what judges it. Less than 0
/// where the answer is none.
///
/// # Errors
/// A game was not solved.
pub fn exploitability(contests: &Contests, seed: u64) -> Result<Option<Estimate>, Error> {
    let mut found = Vec::new();
    for split in 0..SPLITS {
        let lies = |prompt: usize| part(3, seed, split, prompt);
        let of = |part: u64| contests.drawn(|prompt| u32::from(lies(prompt) == part));
        let (Some(solves), Some(finds)) = (of(0), of(1)) else { continue };
        let mixture = winner(&solves)?.mixture;
        let rates = finds.against(&mixture);
        let best = (0..rates.len()).min_by(|&i, &j| rates[i].total_cmp(&rates[j]));
        let judged = best.and_then(|j| contests.beaten(&mixture, j, |prompt| lies(prompt) == 2));
        found.extend(judged.map(|e| Estimate {
            value: 1.0 - 2.0 * e.value,
            interval: e.interval.map(|(low, high)| (1.0 - 2.0 * high, 1.0 - 2.0 * low)),
        }));
    }
    Ok(averaged(&found))
}

#[cfg(test)]
mod tests {
    use super::*;
    use duel_random::{SplitMix, fraction};

    /// Three copies of one policy, by a judge that tosses a coin: nobody has anything of any mixture, and every mixture
    /// beats each copy one half of the time. 40 worlds of 60 prompts: means lie within four of their standard errors,
    /// and intervals cover at least 95 %, less four deviations of 0.034. The best answer that the judging prompts
    /// choose themselves would have about 0.1.
    #[test]
    fn copies_of_a_policy_have_nothing_of_each_other() {
        const WORLDS: u64 = 40;
        let (mut exploited, mut beaten) = (Vec::new(), Vec::new());
        for world in 0..WORLDS {
            let mut random = SplitMix::new(world);
            let mut contests = Contests::new(3, 60);
            for prompt in 0..60 {
                for (i, j) in [(0, 1), (0, 2), (1, 2)] {
                    contests.share(prompt, i, j).add(f64::from(u8::from(fraction(random.number()) < 0.5)));
                }
            }
            exploited.push(exploitability(&contests, world).unwrap().unwrap());
            beaten.push(beats(&contests, world).unwrap()[0].unwrap());
        }
        for (name, all, truth) in [("exploitability", exploited, 0.0), ("wins", beaten, 0.5)] {
            let values: Vec<f64> = all.iter().map(|e| e.value).collect();
            let mean = duel_stats::mean(&values).unwrap();
            let error = mean.interval.map_or(0.0, |(low, high)| (high - low) / 2.0 / duel_stats::Z);
            assert!((mean.value - truth).abs() < 4.0 * error, "{name}: {mean:?}");
            let covers = all.iter().filter_map(|e| e.interval).filter(|(l, h)| *l < truth && truth < *h);
            let covered = covers.count() as f64 / WORLDS as f64;
            assert!(covered > 0.95 - 4.0 * 0.034, "{name}: {covered}");
        }
    }

    #[test]
    fn one_prompt_says_nothing() {
        let mut contests = Contests::new(2, 1);
        contests.share(0, 0, 1).add(1.0);
        assert_eq!(exploitability(&contests, 1), Ok(None));
        assert_eq!(beats(&contests, 1), Ok(vec![None; 2]));
    }
}
