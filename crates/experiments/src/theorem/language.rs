//! A language small enough to count: all that can be said is in a list.

use duel_data::Dataset;
use duel_train::Error;

/// The token that ends a response.
pub const END: u32 = 0;

/// Every response there is, to every prompt.
///
/// Token 0 ends a response and the others are letters; a response is letters and an end, or as many letters as there is
/// room for. So any model over these tokens is a distribution over the list: nothing lies outside it.
#[derive(Clone, Debug)]
pub struct Language {
    letters: u32,
    prompts: Vec<Vec<u32>>,
    responses: Vec<Vec<u32>>,
}

impl Language {
    /// Responses of up to `longest` of so many letters; a prompt is one letter, and there are `prompts`.
    ///
    /// # Panics
    /// When there are not so many letters, or no prompt.
    pub fn new(letters: u32, longest: usize, prompts: u32) -> Self {
        assert!((1..=letters).contains(&prompts), "a prompt is a letter");
        let mut responses = Vec::new();
        let mut begun = vec![Vec::new()];
        for _ in 0..longest {
            responses.extend(begun.iter().map(|said: &Vec<u32>| [said, &[END][..]].concat()));
            let longer = |said: Vec<u32>| (1..=letters).map(move |letter| [&said, &[letter][..]].concat());
            begun = begun.into_iter().flat_map(longer).collect();
        }
        responses.extend(begun);
        Language { letters, prompts: (1..=prompts).map(|letter| vec![letter]).collect(), responses }
    }

    /// Tokens: the letters and the end.
    pub fn vocabulary(&self) -> usize {
        self.letters as usize + 1
    }

    /// Tokens of the longest prompt and response together.
    pub fn longest(&self) -> usize {
        let longest = |all: &[Vec<u32>]| all.iter().map(Vec::len).max().unwrap_or(0);
        longest(&self.prompts) + longest(&self.responses)
    }

    /// How many prompts.
    pub fn prompts(&self) -> usize {
        self.prompts.len()
    }

    /// How many responses each prompt has.
    pub fn responses(&self) -> usize {
        self.responses.len()
    }

    /// A group a prompt, of all its responses.
    ///
    /// # Errors
    /// Never: every response has tokens.
    pub fn dataset(&self) -> Result<Dataset, Error> {
        let responses = || self.responses.iter().map(Vec::as_slice).collect();
        let rows = self.prompts.iter().enumerate().map(|(i, prompt)| (i + 1, prompt.as_slice(), responses()));
        Ok(Dataset::of_samples(rows)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_can_be_said_is_listed_once() {
        let language = Language::new(3, 3, 2);
        // The empty one, three of a letter, nine of two, 27 that fill the room.
        assert_eq!(language.responses(), 1 + 3 + 9 + 27);
        // Of a model that draws every token evenly the probabilities add up to 1.
        let sum: f64 = language.responses.iter().map(|r| 0.25f64.powi(r.len() as i32)).sum();
        assert_eq!(sum, 1.0);
        let mut sorted = language.responses.clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!(sorted.len(), language.responses());
        let ends = |r: &Vec<u32>| r.iter().position(|t| *t == END).is_none_or(|end| end + 1 == r.len());
        assert!(language.responses.iter().all(ends));
    }
}
