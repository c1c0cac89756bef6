//! A lexicon as a judge: the words of an answer have weights, and their sum is its log-odds of being good.

use crate::judge::compare_by_scoring;
use crate::{Case, Error, Judge, Opinion, Pair, Result, Says, Scale, sigmoid};
use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_128;

/// The feature whose weight every text has.
const BIAS: &str = "__bias__";

/// A logistic regression over the distinct words of a text: runs of `a` to `z` and `'`, lower-cased, `<br />` a space.
#[derive(Debug)]
pub struct Lexicon {
    path: PathBuf,
    scale: Scale,
    bias: f64,
    weights: HashMap<String, f64>,
    hash: u128,
}

impl Lexicon {
    /// Reads a file of lines `feature<TAB>weight`. The feature `__bias__` is that of every text; it may be missing.
    ///
    /// # Errors
    /// The file cannot be read, or the first line that is wrong: no tab, no finite weight, a feature that no text has,
    /// or one that was there before.
    pub fn read(path: &Path, scale: Scale) -> Result<Self> {
        let at = path.display();
        let bytes = fs::read(path).map_err(|e| Error::new(format!("{at}: {e}")))?;
        let text = std::str::from_utf8(&bytes).map_err(|e| {
            Error::new(format!("{at}: is not UTF-8 (byte {}); save it as UTF-8", e.valid_up_to() + 1))
        })?;
        let mut weights = HashMap::new();
        for (i, line) in text.lines().enumerate() {
            let wrong = |what: String| Error::new(format!("{at}: line {} {what}", i + 1));
            let (feature, weight) = line
                .split_once('\t')
                .ok_or_else(|| wrong("has no tab; a line is a word, a tab and its weight".into()))?;
            let number = weight.trim_end().parse().ok().filter(|w: &f64| w.is_finite());
            let number = number
                .ok_or_else(|| wrong(format!("has the weight `{weight}`, which is no finite number")))?;
            if feature != BIAS && !is_word(feature) {
                return Err(wrong(format!(
                    "has the feature `{feature}`, which no text has: features are of a to z and ', lower-cased"
                )));
            }
            if weights.insert(feature.to_owned(), number).is_some() {
                return Err(wrong(format!("has `{feature}`, which an earlier line has too; keep one")));
            }
        }
        let bias = weights.remove(BIAS).unwrap_or(0.0);
        match weights.is_empty() {
            true => Err(Error::new(format!("{at}: has no words; a line is a word, a tab and its weight"))),
            false => Ok(Lexicon { path: path.to_owned(), scale, bias, weights, hash: xxh3_128(&bytes) }),
        }
    }

    /// The log-odds of a text. Words are added up in the order in which they first stand in it.
    pub fn log_odds(&self, text: &str) -> f64 {
        let text = text.to_lowercase().replace("<br />", " ");
        let mut seen = HashSet::new();
        let words = text.split(|c| !in_word(c)).filter(|word| !word.is_empty() && seen.insert(*word));
        words.filter_map(|word| self.weights.get(word)).fold(self.bias, |sum, weight| sum + weight)
    }
}

fn in_word(c: char) -> bool {
    c.is_ascii_lowercase() || c == '\''
}

fn is_word(feature: &str) -> bool {
    !feature.is_empty() && feature.chars().all(in_word)
}

impl Judge for Lexicon {
    fn describe(&self) -> String {
        format!("the lexicon {}", self.path.display())
    }

    fn identity(&self) -> String {
        format!("lexicon {:032x} {:?}", self.hash, self.scale)
    }

    fn says(&self) -> Says {
        Says::Scores
    }

    fn scores(&mut self, cases: &[Case]) -> Result<Vec<Vec<Opinion>>> {
        let score = |text: &str| match (self.log_odds(text), self.scale) {
            (log_odds, Scale::LogOdds) => Opinion::Said(log_odds),
            (log_odds, Scale::Probability) => Opinion::Said(sigmoid(log_odds)),
        };
        Ok(cases.iter().map(|case| case.answers.iter().map(|a| score(&a.text)).collect()).collect())
    }

    fn compare(&mut self, pairs: &[Pair<'_>]) -> Result<Vec<Opinion>> {
        compare_by_scoring(self, pairs)
    }
}
