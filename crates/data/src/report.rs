//! What became of the rows.

use crate::Labels;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Counts over a [`Dataset`](crate::Dataset): what was read, what is kept, and what was cut or dropped on the
/// way. `Display` is one line that leaves out the counts that are 0.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Rows read, whatever became of them; a pair that is unpaired counts as two.
    pub rows: usize,
    /// Groups kept.
    pub groups: usize,
    /// Responses kept, over all groups.
    pub responses: usize,
    /// Tokens kept: every prompt once, and all responses.
    pub tokens: usize,
    /// The longest sequence a model will see: a prompt and one of its responses, in tokens.
    pub longest: usize,
    /// Rows dropped because the prompt alone fills `max_length`.
    pub prompt_too_long: usize,
    /// Groups kept whose response is a good example, of unpaired rows.
    pub good: usize,
    /// Groups kept whose response is a bad example, of unpaired rows.
    pub bad: usize,
    /// Groups kept whose responses have scores.
    pub scored: usize,
    /// Groups kept that have a margin.
    pub margins: usize,
    /// Rows dropped because a response and its prompt are longer than `max_length`, and its end must stay.
    pub too_long: usize,
    /// Rows dropped because all of their responses have the same score.
    pub unranked: usize,
    /// Pairs of responses that are no preference: both have the same score.
    pub tied: usize,
    /// Rows dropped because fewer than two different responses were left.
    pub identical: usize,
    /// Responses dropped from kept groups because a better-ranked one is the same.
    pub duplicates: usize,
    /// Unpaired rows dropped from supervised training because their `label` is false.
    pub undesirable: usize,
    /// Rows dropped because they exclude every turn of the assistant from learning.
    pub unlearned: usize,
    /// Turns of the assistant that are learned, in conversations of which every such turn is.
    pub turns: usize,
    /// Turns of the assistant in them that are context only: excluded by their row, empty, or the first of all.
    pub given_turns: usize,
    /// Turns left out because none after them is learned.
    pub turns_after: usize,
    /// Kept groups that lost tokens to `max_length`.
    pub truncated: usize,
    /// Kept groups whose last prompt tokens belong to the responses, because the tokenizer merges across the
    /// boundary.
    pub boundary_moved: usize,
    /// Kept groups whose response does not begin where a generated one would: the chat template's generation prompt is
    /// not how its finished turns begin.
    pub other_opening: usize,
    /// Fields of messages, and variables, that the chat template never reads: in how many rows.
    pub unread: BTreeMap<String, usize>,
    /// Columns that rows have and nothing here uses.
    pub unused: BTreeSet<String>,
}

impl Report {
    /// Rows that were dropped, by the reason; those that there are none of too.
    pub fn dropped(&self) -> [(usize, &'static str); 6] {
        [
            (self.prompt_too_long, "the prompt alone fills max_length"),
            (self.too_long, "longer than max_length"),
            (self.unranked, "all scores are the same"),
            (self.identical, "the responses are identical"),
            (self.undesirable, "label is false"),
            (self.unlearned, "every assistant turn is excluded"),
        ]
    }

    /// Adds the counts of other rows.
    pub fn add(&mut self, other: &Report) {
        let Report { longest, unread, unused, .. } = other;
        self.longest = self.longest.max(*longest);
        unread.iter().for_each(|(name, rows)| *self.unread.entry(name.clone()).or_default() += rows);
        self.unused.extend(unused.iter().cloned());
        let own = self.counts();
        own.into_iter().zip(other.clone().counts()).for_each(|(own, other)| *own += *other);
    }

    /// All that add up.
    fn counts(&mut self) -> [&mut usize; 22] {
        let Report {
            rows,
            groups,
            responses,
            tokens,
            longest: _,
            prompt_too_long,
            good,
            bad,
            scored,
            margins,
            too_long,
            unranked,
            tied,
            identical,
            duplicates,
            undesirable,
            unlearned,
            turns,
            given_turns,
            turns_after,
            truncated,
            boundary_moved,
            other_opening,
            unread: _,
            unused: _,
        } = self;
        [
            rows,
            groups,
            responses,
            tokens,
            prompt_too_long,
            good,
            bad,
            scored,
            margins,
            too_long,
            unranked,
            tied,
            identical,
            duplicates,
            undesirable,
            unlearned,
            turns,
            given_turns,
            turns_after,
            truncated,
            boundary_moved,
            other_opening,
        ]
    }

    /// Counts a group by its labels.
    pub(crate) fn label(&mut self, labels: Labels<'_>) {
        match labels {
            Labels::Ranked { margin } => self.margins += usize::from(margin.is_some()),
            Labels::Scored(_) => self.scored += 1,
            Labels::Unpaired { desirable: true } => self.good += 1,
            Labels::Unpaired { desirable: false } => self.bad += 1,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows -> {} groups, {} responses", self.rows, self.groups, self.responses)?;
        write!(f, ", {} tokens (longest {})", self.tokens, self.longest)?;
        if self.turns > 0 {
            write!(f, "; the loss is on all {} assistant turns", self.turns)?;
        }
        if self.good + self.bad > 0 {
            write!(f, "; {} desirable, {} undesirable", self.good, self.bad)?;
        }
        for (count, what) in [(self.scored, "groups have scores"), (self.margins, "pairs have a margin")] {
            if count > 0 {
                write!(f, "; {count} {what}")?;
            }
        }
        for (count, why) in self.dropped() {
            if count > 0 {
                write!(f, "; {count} rows dropped: {why}")?;
            }
        }
        for (count, what) in [
            (
                self.given_turns,
                "other assistant turns are context only (excluded, empty or the first of all)",
            ),
            (self.turns_after, "turns after the last answer left out"),
            (self.duplicates, "duplicate responses dropped"),
            (self.tied, "pairs left out of the comparisons: both have the same score"),
            (self.truncated, "groups truncated to max_length"),
            (self.boundary_moved, "groups with the prompt boundary moved to a token boundary"),
            (
                self.other_opening,
                "groups whose finished turn does not begin with the chat template's generation prompt: what follows \
                 that prompt is learned from less context than generating gives it",
            ),
        ] {
            if count > 0 {
                write!(f, "; {count} {what}")?;
            }
        }
        if !self.unused.is_empty() {
            /// A line has no room for more.
            const SHOWN: usize = 8;
            let names: Vec<String> = self.unused.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
            let more = if self.unused.len() > SHOWN { ", ..." } else { "" };
            write!(f, "; columns not used: {}{more}", names.join(", "))?;
        }
        for (name, rows) in &self.unread {
            write!(f, "; `{name}` in {rows} rows is not read by the chat template")?;
        }
        Ok(())
    }
}
