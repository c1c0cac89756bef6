//! Whether a text is one of the grammar's.

use super::{LEXICON, rule};
use std::collections::BTreeMap;

/// Whether the grammar can say these words as a review, of any length: every clause is one of its clauses, whose words
/// are of one sentiment, and every article fits the word behind it.
pub fn grammatical(review: &str) -> bool {
    let said: Vec<&str> = review.split_whitespace().collect();
    let vowel = |word: Option<&&str>| word.is_some_and(|w| w.starts_with(['a', 'e', 'i', 'o', 'u']));
    // The grammar knows one article; the word behind it says how it is written.
    let article = |(i, word): (usize, &&'_ str)| match (*word, vowel(said.get(i + 1))) {
        ("a", true) | ("an", false) => None,
        ("an", true) => Some("a"),
        _ => Some(said[i]),
    };
    let Some(words) = said.iter().enumerate().map(article).collect::<Option<Vec<&str>>>() else {
        return false;
    };
    let mut chart = Chart { words: &words, known: BTreeMap::new() };
    [true, false].into_iter().any(|positive| chart.ends("REVIEW", positive, 0).contains(&words.len()))
}

/// Where symbols end that begin somewhere. No symbol of the grammar is part of itself, so this comes to an end.
struct Chart<'w> {
    words: &'w [&'w str],
    known: BTreeMap<(&'static str, bool, usize), Vec<usize>>,
}

impl Chart<'_> {
    /// The places, in order, that a symbol, or a word, of this sentiment can end before when it begins at `from`.
    fn ends(&mut self, symbol: &'static str, positive: bool, from: usize) -> Vec<usize> {
        let (symbol, positive) =
            symbol.strip_prefix('~').map_or((symbol, positive), |symbol| (symbol, !positive));
        let Some(expansions) = rule(symbol) else {
            let fits = self.words.get(from).is_some_and(|word| fits(symbol, positive, word));
            return if fits { vec![from + 1] } else { Vec::new() };
        };
        if let Some(ends) = self.known.get(&(symbol, positive, from)) {
            return ends.clone();
        }
        let mut all = Vec::new();
        for (_, expansion) in expansions {
            let mut ends = vec![from];
            for part in expansion.split_whitespace() {
                ends = ends.iter().flat_map(|from| self.ends(part, positive, *from)).collect();
                ends.sort_unstable();
                ends.dedup();
            }
            all.extend(ends);
        }
        all.sort_unstable();
        all.dedup();
        self.known.insert((symbol, positive, from), all.clone());
        all
    }
}

/// Whether `word` is this word, or one of this class and sentiment.
fn fits(symbol: &str, positive: bool, word: &str) -> bool {
    match LEXICON.iter().find(|(class, _)| *class == symbol) {
        Some((_, class)) => class.iter().any(|(known, value)| *known == word && (*value > 0.0) == positive),
        None => symbol == word,
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample_review;
    use super::*;
    use fastrand::Rng;

    #[test]
    fn every_review_is_grammatical() {
        let mut rng = Rng::with_seed(11);
        for _ in 0..2_000 {
            let review = sample_review(&mut rng);
            assert!(grammatical(&review), "{review}");
        }
    }

    /// Two neighbours swapped, a word left out or said twice: of 500 reviews hardly one is still one, as where two
    /// adjectives change places.
    #[test]
    fn what_is_damaged_is_seldom_grammatical() {
        let mut rng = Rng::with_seed(12);
        let mut still = 0;
        for i in 0..500 {
            let review = sample_review(&mut rng);
            let mut words: Vec<&str> = review.split(' ').collect();
            let at = rng.usize(0..words.len() - 1);
            match i % 3 {
                0 if words[at] != words[at + 1] => words.swap(at, at + 1),
                1 => drop(words.remove(at)),
                _ => words.insert(at, words[at]),
            }
            still += usize::from(grammatical(&words.join(" ")));
        }
        // A degree or "really" can be left out, and words of one class change places across "and".
        assert!(still < 60, "{still} of 500");
    }

    #[test]
    fn words_of_a_clause_are_of_one_sentiment() {
        let opening = "it runs for two hours . ";
        for (clause, right) in [
            ("the plot is good and moving .", true),
            ("the plot is good and boring .", false),
            ("the plot is not boring .", true),
            ("the plot is good , but the music is dull .", true),
            ("the plot is an awful .", false),
            ("it is an awful mess .", true),
            ("it is a awful mess .", false),
            ("it is an dull mess .", false),
            ("the plot is good", false),
        ] {
            assert_eq!(grammatical(&format!("{opening}{clause}")), right, "{clause}");
        }
        assert!(!grammatical(""));
    }
}
