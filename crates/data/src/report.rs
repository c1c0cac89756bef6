//! What became of the rows.

use std::fmt;

/// Counts over a [`Dataset`](crate::Dataset): what was read, what is kept, and what was cut or dropped on the
/// way. `Display` is one line that leaves out the counts that are 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Rows read, whatever became of them.
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
    /// Rows dropped because fewer than two different responses were left.
    pub identical: usize,
    /// Responses dropped from kept groups because a better-ranked one is the same.
    pub duplicates: usize,
    /// Unpaired rows dropped from supervised training because their `label` is false.
    pub undesirable: usize,
    /// Kept groups that lost tokens to `max_length`.
    pub truncated: usize,
    /// Kept groups whose last prompt tokens belong to the responses, because the tokenizer merges across the
    /// boundary.
    pub boundary_moved: usize,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows -> {} groups, {} responses", self.rows, self.groups, self.responses)?;
        write!(f, ", {} tokens (longest {})", self.tokens, self.longest)?;
        for (count, what) in [
            (self.prompt_too_long, "rows dropped: the prompt alone fills max_length"),
            (self.identical, "rows dropped: the responses are identical"),
            (self.undesirable, "rows dropped: label is false"),
            (self.duplicates, "duplicate responses dropped"),
            (self.truncated, "groups truncated to max_length"),
            (self.boundary_moved, "groups with the prompt boundary moved to a token boundary"),
        ] {
            if count > 0 {
                write!(f, "; {count} {what}")?;
            }
        }
        Ok(())
    }
}
