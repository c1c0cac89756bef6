//! Rubrics: texts with places.

use crate::{Error, Result};
use std::fs;
use std::path::Path;
use xxhash_rust::xxh3::xxh3_128;

/// What stands in a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// What is answered.
    Prompt,
    /// The answer that is shown first.
    First,
    /// The answer that is shown second.
    Second,
    /// The only answer.
    Answer,
    /// A principle that was drawn.
    Principle,
    /// What a critic said of the answer.
    Critique,
}

impl Place {
    const ALL: [Place; 6] =
        [Place::Prompt, Place::First, Place::Second, Place::Answer, Place::Principle, Place::Critique];

    fn written(self) -> &'static str {
        match self {
            Place::Prompt => "{prompt}",
            Place::First => "{first}",
            Place::Second => "{second}",
            Place::Answer => "{answer}",
            Place::Principle => "{principle}",
            Place::Critique => "{critique}",
        }
    }
}

/// A text with places.
#[derive(Debug, Clone)]
pub struct Rubric {
    /// Texts, each with the place that follows it; the last one has none.
    parts: Vec<(String, Option<Place>)>,
    hash: u128,
}

impl Rubric {
    /// Of a text. All other braces are text.
    pub fn new(text: &str) -> Self {
        let mut parts = Vec::new();
        let mut rest = text;
        let next = |rest: &str| {
            let found = Place::ALL.iter().filter_map(|p| rest.find(p.written()).map(|at| (at, *p)));
            found.min_by_key(|(at, _)| *at)
        };
        while let Some((at, place)) = next(rest) {
            parts.push((rest[..at].to_owned(), Some(place)));
            rest = &rest[at + place.written().len()..];
        }
        parts.push((rest.to_owned(), None));
        Rubric { parts, hash: xxh3_128(text.as_bytes()) }
    }

    /// Of a file, with these places each, perhaps with that of a principle, and with no other.
    ///
    /// # Errors
    /// The file cannot be read, or lacks a place, or has one that nothing stands for.
    pub fn read(path: &Path, needed: &[Place]) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(|e| Error::new(format!("{}: {e}", path.display())))?;
        let rubric = Rubric::new(&text);
        let fault = |place: &Place| match (rubric.has(*place), needed.contains(place)) {
            (false, true) => Some(format!("lacks the place {}", place.written())),
            (true, false) if *place != Place::Principle => {
                Some(format!("has the place {}, which nothing stands for here", place.written()))
            }
            _ => None,
        };
        match Place::ALL.iter().find_map(fault) {
            None => Ok(rubric),
            Some(fault) => {
                let all: Vec<&str> = needed.iter().map(|p| p.written()).collect();
                Err(Error::new(format!("{}: {fault}; a rubric has {}", path.display(), all.join(", "))))
            }
        }
    }

    /// Whether it has this place.
    pub fn has(&self, place: Place) -> bool {
        self.parts.iter().any(|(_, p)| *p == Some(place))
    }

    /// A hash of its text.
    pub fn hash(&self) -> u128 {
        self.hash
    }

    /// The text with its places filled. What stands in a place is not looked at: a place in an answer stays as it is.
    pub fn fill(&self, what: impl Fn(Place) -> String) -> String {
        self.parts.iter().map(|(text, place)| text.clone() + &place.map(&what).unwrap_or_default()).collect()
    }
}

/// The principles of a text, one a line.
pub fn principles(text: &str) -> Vec<String> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_filled_once() {
        let rubric = Rubric::new("{x} {first}|{second}{first}.");
        let filled = rubric.fill(|place| match place {
            Place::First => "{second}".into(),
            _ => "b".into(),
        });
        assert_eq!(filled, "{x} {second}|b{second}.");
        assert!(rubric.has(Place::First) && !rubric.has(Place::Prompt));
        assert_ne!(rubric.hash(), Rubric::new("").hash());
    }
}
