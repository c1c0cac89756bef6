//! A judge of whom no order of answers is right: three kinds of reviews beat each other in a cycle.

use duel_judge::{Case, Judge, Maker, Opinion, Pair, Prompt, Result, Says, scores_by_comparing};
use duel_stats::Wins;

/// Kinds of reviews, by what they speak of first; the last is of those that speak of none of it.
pub const KINDS: [&str; 4] = ["people", "writing", "craft", "nothing"];

/// Words of the first three.
const WORDS: [&[&str]; 3] = [
    &["acting", "actor", "actors", "cast", "characters", "director", "performances"],
    &["dialogue", "ending", "humor", "jokes", "pacing", "plot", "script", "story"],
    &["camera", "costumes", "effects", "music", "scenes", "songs"],
];

/// How often a kind beats another. Among three the first is ahead for Borda, .60 before .55 and .35, and played least
/// by the von Neumann winner, (1/7, 2/7, 4/7).
const RATES: [[f64; 4]; 4] =
    [[0.5, 0.9, 0.3, 0.9], [0.1, 0.5, 0.6, 0.9], [0.7, 0.4, 0.5, 0.9], [0.1, 0.1, 0.1, 0.5]];

/// Of three kinds that beat each other in a cycle: how often.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cycle {
    /// Whether the kinds change places with the kind of the prompt: in a prompt of the second, that has the first's
    /// place.
    pub by_prompt: bool,
}

/// The kind of a text: whose word comes first.
pub fn kind(text: &str) -> usize {
    let of = |word: &str| WORDS.iter().position(|words| words.contains(&word));
    text.split_whitespace().find_map(of).unwrap_or(WORDS.len())
}

/// The game of the kinds.
pub fn wins() -> Wins {
    Wins::of(KINDS.len(), |i, j| RATES[i][j])
}

impl Cycle {
    /// What makes it by the name `cycle`.
    pub fn maker<'a>() -> Maker<'a> {
        let help = "prefers reviews in a cycle, by what they speak of first: people, writing, craft";
        Maker::new("cycle", "", help, |_, _, _| Ok(Box::new(Cycle::default())))
    }

    fn rate(self, prompt: &Prompt, [first, second]: [&str; 2]) -> f64 {
        let turn = if self.by_prompt { kind(&prompt.text()) % 3 } else { 0 };
        let seat = |text| match kind(text) {
            none @ 3 => none,
            kind => (kind + 3 - turn) % 3,
        };
        RATES[seat(first)][seat(second)]
    }
}

impl Judge for Cycle {
    fn describe(&self) -> String {
        format!("a cycle of {}, {} and {}", KINDS[0], KINDS[1], KINDS[2])
    }

    fn identity(&self) -> String {
        format!("cycle {WORDS:?} {RATES:?} {}", self.by_prompt)
    }

    fn says(&self) -> Says {
        Says::Preferences
    }

    fn scores(&mut self, cases: &[Case]) -> Result<Vec<Vec<Opinion>>> {
        scores_by_comparing(self, cases)
    }

    fn compare(&mut self, pairs: &[Pair<'_>]) -> Result<Vec<Opinion>> {
        let of = |p: &Pair<'_>| Opinion::Said(self.rate(p.prompt, [&p.first.text, &p.second.text]));
        Ok(pairs.iter().map(of).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grammar;

    fn rates(judge: Cycle, prompt: &str, answers: [&str; 4]) -> Vec<f64> {
        let case = Case::new(prompt, answers);
        let mut judge = judge;
        judge.compare(&case.pairs().collect::<Vec<_>>()).unwrap().iter().filter_map(Opinion::said).collect()
    }

    #[test]
    fn the_first_word_that_counts_is_the_kind() {
        let answers =
            ["acting is the plot .", "jokes fail .", "it is the music , and the cast .", "it works ."];
        assert_eq!(answers.map(kind), [0, 1, 2, 3]);
        // (0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)
        assert_eq!(rates(Cycle::default(), "the cast", answers), [0.9, 0.3, 0.9, 0.6, 0.9, 0.9]);
        let turned = Cycle { by_prompt: true };
        assert_eq!(rates(turned, "the film", answers), [0.9, 0.3, 0.9, 0.6, 0.9, 0.9]);
        // Where writing has the first place, craft has the second and people the third.
        assert_eq!(rates(turned, "the plot", answers), [0.7, 0.4, 0.9, 0.9, 0.9, 0.9]);
        let vocabulary = grammar::vocabulary();
        assert!(WORDS.iter().flat_map(|words| words.iter()).all(|word| vocabulary.contains(word)));
    }
}
