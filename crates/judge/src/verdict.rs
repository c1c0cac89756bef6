//! All that a judge says of a case.

use crate::opinion::place;
use crate::{Case, Judge, Opinion, Pair, Result, Says, preference, win_rates};

/// What a judge says of the answers of a case.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// A score of each answer; of a judge that compares or orders, mean win rates.
    pub scores: Vec<Opinion>,
    /// Of a judge that compares or orders: what it said of each pair, in the order of [`Case::pairs`].
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

/// What `judge` says of every case, of its own: by scores, by an order, or by comparing all pairs.
///
/// # Errors
/// As [`Judge::scores`].
pub fn verdicts(judge: &mut dyn Judge, cases: &[Case]) -> Result<Vec<Verdict>> {
    match judge.says() {
        Says::Scores => {
            let scores = judge.scores(cases)?.into_iter();
            Ok(scores.map(|scores| Verdict { scores, compared: None }).collect())
        }
        Says::Order => {
            let certain = |scores: Vec<Opinion>| {
                let n = scores.len();
                let pairs = (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j)));
                let won = pairs.map(|(i, j)| preference(&scores[i], &scores[j], false)).collect();
                Verdict { scores, compared: Some(won) }
            };
            Ok(judge.scores(cases)?.into_iter().map(certain).collect())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Answer, Prompt};

    /// Prefers what is longer.
    struct Longest;

    impl Judge for Longest {
        fn describe(&self) -> String {
            "the longest".into()
        }
        fn identity(&self) -> String {
            self.describe()
        }
        fn says(&self) -> Says {
            Says::Order
        }
        fn scores(&mut self, cases: &[Case]) -> Result<Vec<Vec<Opinion>>> {
            let rate = |case: &Case, answer: &Answer| {
                let shorter =
                    case.answers.iter().filter(|other| other.text.len() < answer.text.len()).count();
                Opinion::Said((shorter as f64 + 0.5) / case.answers.len() as f64)
            };
            Ok(cases
                .iter()
                .map(|case| case.answers.iter().map(|answer| rate(case, answer)).collect())
                .collect())
        }
        fn compare(&mut self, pairs: &[Pair<'_>]) -> Result<Vec<Opinion>> {
            crate::judge::compare_by_scoring(self, pairs)
        }
    }

    /// Who is before another in an order is better, whatever is drawn: their rates are no scores.
    #[test]
    fn an_order_is_certain() {
        let answers = ["bb", "a", "ccc"].map(Answer::new).to_vec();
        let case = Case { prompt: Prompt::Text("Q".into()), answers };
        let [verdict] = &verdicts(&mut Longest, &[case]).unwrap()[..] else { panic!("one case") };
        for drawn in [false, true] {
            let wins = [(0, 1), (0, 2), (1, 2), (2, 1)].map(|(i, j)| verdict.wins(i, j, drawn).said());
            assert_eq!(wins, [Some(1.0), Some(0.0), Some(0.0), Some(1.0)]);
        }
        assert_eq!(verdict.scores[2], Opinion::Said(2.5 / 3.0));
    }
}
