//! What a judge says of the samples of all, prompt by prompt.

use super::entrant::stopped;
use crate::study::Study;
use duel_data::Prompt;
use duel_judge::{Answer, Case, Judge, Opinion, Pair, Says, verdicts};
use duel_rollout::prompt;
use duel_stats::{Contests, Share};
use duel_train::report::progress::Progress;
use duel_train::{Error, signal};
use serde_json::{Value, json};

/// Prompts that are judged, and written down, at a time: a judge that dies takes no more with it.
const PORTION: usize = 16;

/// What was judged, and what was not.
pub struct Judged {
    /// Who won how often.
    pub contests: Contests,
    /// Comparisons that were asked for.
    pub asked: u64,
    /// Those of which the judge said nothing.
    pub unjudged: u64,
}

/// Lets `judge` compare what the entrants wrote; `answers` are each entrant's, by prompt. A judge that scores compares
/// every sample with every other entrant's; one that compares is asked of the samples of the same number. What was
/// judged before is read.
///
/// # Errors
/// The judge failed or says nothing of most contests of a pair, or Ctrl-C; what it said before is kept.
pub fn judged(
    judge: &mut dyn Judge,
    study: &mut Study,
    names: &[String],
    prompts: &[Prompt],
    answers: &[Vec<Vec<Answer>>],
) -> Result<Judged, Error> {
    let n = names.len();
    let pairs: Vec<(usize, usize)> = (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j))).collect();
    let mut all = Judged { contests: Contests::new(n, prompts.len()), asked: 0, unjudged: 0 };
    let mut why = None;
    let mut progress = Progress::new("judging", "prompts", 0, prompts.len() as u64);
    for (portion, some) in prompts.chunks(PORTION).enumerate() {
        let first = portion * PORTION;
        let said = study.point(&format!("judge {portion}"), || {
            if signal::interrupted() {
                return Err(stopped());
            }
            let case = |(i, p): (usize, &Prompt)| {
                let answers = answers.iter().flat_map(|of| &of[first + i]).cloned().collect();
                Ok(Case { prompt: prompt(&p.turns()?, &p.columns), answers })
            };
            let cases = some.iter().enumerate().map(case).collect::<Result<Vec<_>, Error>>()?;
            let said = compared(judge, &cases, &pairs, n).map_err(|e| match e {
                duel_judge::Error::Stopped => stopped(),
                e => e.into(),
            })?;
            Ok(said.iter().map(|of| of.iter().map(|opinions| sums(opinions)).collect::<Value>()).collect())
        })?;
        let damaged = || Error::new("what the judge said is damaged; remove points.jsonl");
        for i in 0..some.len() {
            for (at, pair) in pairs.iter().enumerate() {
                let cell = &said[i][at];
                let number = |place: usize| cell[place].as_f64().ok_or_else(damaged);
                let (sum, known, asked) = (number(0)?, number(1)?, number(2)?);
                *all.contests.share(first + i, pair.0, pair.1) = Share { sum, n: known };
                all.asked += asked as u64;
                all.unjudged += (asked - known) as u64;
                why = why.or_else(|| cell[3].as_str().map(str::to_owned));
            }
        }
        progress.advance(some.len() as u64);
    }
    drop(progress);
    let rare = pairs.iter().find(|(i, j)| 2 * all.contests.known(*i, *j) < prompts.len());
    if let Some((i, j)) = rare {
        let why = why.map_or_else(String::new, |why| format!(" ({why})"));
        return Err(Error::new(format!(
            "the judge ({}) compared {} and {} on {} of {} prompts only{why}; give a judge that can say more",
            judge.describe(),
            names[*i],
            names[*j],
            all.contests.known(*i, *j),
            prompts.len()
        )));
    }
    Ok(all)
}

/// Of every case, of every pair of the `n` entrants: the opinions that the first is better.
fn compared(
    judge: &mut dyn Judge,
    cases: &[Case],
    pairs: &[(usize, usize)],
    n: usize,
) -> duel_judge::Result<Vec<Vec<Vec<Opinion>>>> {
    let samples = |case: &Case| case.answers.len() / n;
    if judge.says() == Says::Scores {
        let of = |(case, verdict): (&Case, duel_judge::Verdict)| {
            let k = samples(case);
            let all = |(i, j): &(usize, usize)| {
                (0..k * k).map(|at| verdict.wins(i * k + at / k, j * k + at % k, false)).collect()
            };
            pairs.iter().map(all).collect()
        };
        return Ok(cases.iter().zip(verdicts(judge, cases)?).map(of).collect());
    }
    let of = |case| {
        let k = samples(case);
        let places = pairs.iter().flat_map(move |&(i, j)| (0..k).map(move |s| (i * k + s, j * k + s)));
        places.map(move |(i, j)| Pair {
            prompt: &case.prompt,
            first: &case.answers[i],
            second: &case.answers[j],
        })
    };
    let asked: Vec<Pair<'_>> = cases.iter().flat_map(of).collect();
    let mut said = judge.compare(&asked)?.into_iter();
    Ok(cases
        .iter()
        .map(|case| pairs.iter().map(|_| said.by_ref().take(samples(case)).collect()).collect())
        .collect())
}

/// Wins, what is known, what was asked, and why something is not known.
fn sums(opinions: &[Opinion]) -> Value {
    let known: Vec<f64> = opinions.iter().filter_map(Opinion::said).collect();
    let why = opinions.iter().find_map(|opinion| match opinion {
        Opinion::Unjudged(why) => Some(why),
        Opinion::Said(_) => None,
    });
    json!([known.iter().sum::<f64>(), known.len(), opinions.len(), why])
}
