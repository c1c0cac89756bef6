//! What is found in the rows of one file, each on its own.

use super::characters::{Oddity, oddities};
use super::lengths::Lengths;
use super::pairs::{Found, SHOWN, pairs};
use duel_data::{Group, Labels, Report, Seen};
use duel_stats::{Estimate, mean, wilson};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// What is found in the rows of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Sheet {
    /// The file.
    pub path: PathBuf,
    /// What a run makes of its rows; nothing of those that it refuses.
    pub report: Report,
    /// Rows at the first of which a run stops, by the reason: as many reasons as others are shown of, then all others
    /// together.
    pub refused: Vec<(String, Found<usize>)>,
    /// Rows that are dropped, and why.
    pub dropped: Found<(usize, &'static str)>,
    /// Rows whose responses are all the same.
    pub identical: Found<usize>,
    /// Tokens of prompts.
    pub prompt: Lengths,
    /// Tokens of the better responses, of the good ones, or of all where nothing is compared.
    pub better: Lengths,
    /// Tokens of the others.
    pub worse: Lengths,
    /// Tokens of a prompt and the longest response to it: what `max_length` is about.
    pub longest: Lengths,
    /// By how many tokens the better response of each pair is longer.
    gaps: Vec<f64>,
    /// Rows with odd characters, of every kind in the order of [`Oddity::ALL`], each with the text around the first.
    pub odd: [Found<(usize, String)>; Oddity::ALL.len()],
}

impl Sheet {
    /// That of a file of which nothing is seen yet.
    pub fn new(path: &Path) -> Self {
        Sheet {
            path: path.to_path_buf(),
            report: Report::default(),
            refused: Vec::new(),
            dropped: Found::default(),
            identical: Found::default(),
            prompt: Lengths::default(),
            better: Lengths::default(),
            worse: Lengths::default(),
            longest: Lengths::default(),
            gaps: Vec::new(),
            odd: Default::default(),
        }
    }

    /// Takes a row.
    pub fn add(&mut self, seen: &Seen) {
        match &seen.refused {
            Some(why) => self.refuse(seen.row, why),
            None => self.report.add(&seen.report),
        }
        if let Some((_, why)) = seen.report.dropped().into_iter().find(|(count, _)| *count > 0) {
            self.dropped.add((seen.row, why));
        }
        if seen.report.identical > 0 {
            self.identical.add(seen.row);
        }
        self.look(seen);
        seen.whole.iter().flat_map(|whole| whole.groups()).for_each(|group| self.measure(group));
    }

    fn refuse(&mut self, row: usize, why: &str) {
        let known = self.refused.iter().position(|(known, _)| known == why);
        let at = known.unwrap_or_else(|| {
            if self.refused.len() <= SHOWN {
                let why = if self.refused.len() < SHOWN { why } else { "other reasons" };
                self.refused.push((why.to_owned(), Found::default()));
            }
            self.refused.len() - 1
        });
        self.refused[at].1.add(row);
    }

    /// Rows at the first of which a run stops.
    pub fn refusals(&self) -> u64 {
        self.refused.iter().map(|(_, found)| found.count).sum()
    }

    fn measure(&mut self, group: Group<'_>) {
        let responses: Vec<usize> = group.responses().map(<[u32]>::len).collect();
        self.prompt.add(group.prompt.len());
        self.longest.add(group.prompt.len() + responses.iter().max().unwrap_or(&0));
        match group.labels() {
            Labels::Unpaired { desirable: false } => responses.iter().for_each(|&n| self.worse.add(n)),
            Labels::Unpaired { desirable: true } => responses.iter().for_each(|&n| self.better.add(n)),
            labels => {
                self.better.add(responses[0]);
                responses[1..].iter().for_each(|&n| self.worse.add(n));
                let gap = |(i, j): (usize, usize)| responses[i] as f64 - responses[j] as f64;
                self.gaps.extend(pairs(labels, responses.len()).map(gap));
            }
        }
    }

    /// Looks for odd characters in the columns that are used.
    fn look(&mut self, seen: &Seen) {
        let Value::Object(columns) = &seen.columns else { return };
        let used = columns.iter().filter(|(name, _)| !seen.report.unused.contains(*name));
        let mut found: [Option<String>; Oddity::ALL.len()] = Default::default();
        used.for_each(|(_, value)| {
            each_text(value, &mut |text| {
                for (what, at) in oddities(text) {
                    let i = Oddity::ALL.iter().position(|known| *known == what);
                    i.map(|i| found[i].get_or_insert_with(|| around(text, at)));
                }
            });
        });
        for (odd, found) in self.odd.iter_mut().zip(found) {
            found.into_iter().for_each(|text| odd.add((seen.row, text)));
        }
    }

    /// Pairs of responses.
    pub fn pairs(&self) -> usize {
        self.gaps.len()
    }

    /// Pairs of different lengths.
    pub fn unequal(&self) -> usize {
        self.gaps.iter().filter(|gap| **gap != 0.0).count()
    }

    /// In which share of the pairs of different lengths the better response is the longer one, with Wilson's interval
    /// for independent pairs.
    pub fn better_is_longer(&self) -> Option<Estimate> {
        let longer = self.gaps.iter().filter(|gap| **gap > 0.0).count();
        wilson(longer as f64, self.unequal() as f64)
    }

    /// By how many tokens the better response is longer in the mean.
    pub fn gap(&self) -> Option<Estimate> {
        mean(&self.gaps)
    }
}

/// Hands every text in a value to `each`.
fn each_text(value: &Value, each: &mut dyn FnMut(&str)) {
    match value {
        Value::String(text) => each(text),
        Value::Array(list) => list.iter().for_each(|value| each_text(value, each)),
        Value::Object(fields) => fields.values().for_each(|value| each_text(value, each)),
        _ => {}
    }
}

/// Some characters before and behind a place in a text, all of which can be seen.
fn around(text: &str, at: usize) -> String {
    let before: Vec<char> = text[..at].chars().rev().take(16).collect();
    let shown: String = before.into_iter().rev().chain(text[at..].chars().take(16)).collect();
    let shown: String = shown
        .chars()
        .map(|c| if c == ' ' || c.is_alphanumeric() { c.to_string() } else { c.escape_debug().to_string() })
        .collect();
    // What has no look of its own.
    shown.chars().map(|c| if c == '\u{FFFD}' { "\\u{fffd}".into() } else { String::from(c) }).collect()
}
