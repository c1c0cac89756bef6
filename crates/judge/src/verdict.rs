//! All that a judge says of a case.

use crate::opinion::place;
use crate::{Case, Judge, Opinion, Pair, Result, Says, preference, win_rates};

/// What a judge says of the answers of a case.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// A score of each answer; of a judge that compares, mean win rates.
    pub scores: Vec<Opinion>,
    /// Of a judge that compares: what it said of each pair, in the order of [`Case::pairs`].
    pub compared: Option<Vec<Opinion>>,
}

impl Verdict {
    /// The probability that answer `i` is better than answer `j`. Scores say it as [`preference`] does, `drawn` or not.
    pub fn wins(&self, i: usize, j: usize, drawn: bool) -> Opinion {
        let n = self.scores.len();
        match &self.compared {
            None => preference(&self.scores[i], &self.scores[j], drawn),
            Some(wins) if i < j => wins[place(i, j, n)].clone(),
            Some(wins) => wins[place(j, i, n)].clone().map(|p| 1.0 - p),
        }
    }
}

/// What `judge` says of every case, of its own: by scores, or by comparing all pairs.
///
/// # Errors
/// As [`Judge::scores`].
pub fn verdicts(judge: &mut dyn Judge, cases: &[Case]) -> Result<Vec<Verdict>> {
    match judge.says() {
        Says::Scores => {
            let scores = judge.scores(cases)?.into_iter();
            Ok(scores.map(|scores| Verdict { scores, compared: None }).collect())
        }
        Says::Preferences => {
            let pairs: Vec<Pair<'_>> = cases.iter().flat_map(Case::pairs).collect();
            let mut wins = judge.compare(&pairs)?.into_iter();
            let verdict = |case: &Case| {
                let n = case.answers.len();
                let own: Vec<Opinion> = wins.by_ref().take(n * n.saturating_sub(1) / 2).collect();
                Verdict { scores: win_rates(&own, n), compared: Some(own) }
            };
            Ok(cases.iter().map(verdict).collect())
        }
    }
}
