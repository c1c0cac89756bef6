//! The grammar's ground truth as a judge.

use crate::grammar;
use duel_judge::{Case, Judge, Maker, Opinion, Pair, Prompt, Result, Says, Scale, logit, preference};

/// The judge that cannot err: [`grammar::reward`] of a prompt and its answer together, as one review.
#[derive(Debug, Clone, Copy)]
pub struct Truth(
    /// Whether a score is the probability that a review is positive, or its log-odds.
    pub Scale,
);

impl Truth {
    /// What makes it by the name `truth`.
    pub fn maker<'a>() -> Maker<'a> {
        Maker::new("truth", "", "knows the built-in grammar, whose reviews it scores", |_, settings, _| {
            Ok(Box::new(Truth(settings.scale()?)))
        })
    }

    fn score(self, prompt: &Prompt, answer: &str) -> f64 {
        let p = grammar::reward(&format!("{} {answer}", prompt.text()));
        match self.0 {
            Scale::Probability => p,
            Scale::LogOdds => logit(p),
        }
    }
}

impl Judge for Truth {
    fn describe(&self) -> String {
        "the grammar's ground truth".to_owned()
    }

    fn identity(&self) -> String {
        format!("truth {:?}", self.0)
    }

    fn says(&self) -> Says {
        Says::Scores
    }

    fn scores(&mut self, cases: &[Case]) -> Result<Vec<Vec<Opinion>>> {
        let score = |case: &Case, text: &str| Opinion::Said(self.score(&case.prompt, text));
        Ok(cases.iter().map(|case| case.answers.iter().map(|a| score(case, &a.text)).collect()).collect())
    }

    fn compare(&mut self, pairs: &[Pair<'_>]) -> Result<Vec<Opinion>> {
        let score = |prompt: &Prompt, text: &str| Opinion::Said(self.score(prompt, text));
        let wins = |p: &Pair<'_>| {
            preference(&score(p.prompt, &p.first.text), &score(p.prompt, &p.second.text), false)
        };
        Ok(pairs.iter().map(wins).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_review_is_judged() {
        let cases = [Case::new("the film was", ["superb .", "dreadful .", "very superb ."])];
        let scores = |scale| -> Vec<f64> {
            Truth(scale).scores(&cases).unwrap()[0].iter().filter_map(Opinion::said).collect()
        };
        let (odds, p) = (scores(Scale::LogOdds), scores(Scale::Probability));
        assert_eq!(p[0], grammar::reward("the film was superb ."));
        // "superb" weighs 2, "dreadful" -2, and "very" half as much again; 0.8 makes log-odds of them.
        for (odds, expected) in odds.iter().zip([1.6, -1.6, 2.4]) {
            assert!((odds - expected).abs() < 1e-12, "{odds}");
        }
        let pairs: Vec<Pair<'_>> = cases[0].pairs().collect();
        let wins = Truth(Scale::LogOdds).compare(&pairs).unwrap();
        assert_eq!(wins, [Opinion::Said(1.0), Opinion::Said(0.0), Opinion::Said(0.0)]);
        let not = Case { prompt: Prompt::Text("the film was not".into()), answers: cases[0].answers.clone() };
        let scores = Truth(Scale::LogOdds).scores(&[not]).unwrap();
        assert!(scores[0][0].said() < scores[0][1].said(), "the prompt negates");
    }
}
