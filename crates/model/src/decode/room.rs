//! How much is decoded at a time, and the memory that it takes.

use super::request::Request;
use crate::config::Config;
use duel_backend::Portions;
use std::fmt;

/// Room of an [`Engine`](super::Engine).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Sequences that are decoded at a time; others wait.
    pub sequences: usize,
    /// Tokens of the longest prompt.
    pub longest: usize,
    /// Tokens of prompts whose keys and values are kept at a time, each prompt's once for all its samples; at least
    /// those of the longest.
    pub prompts: usize,
    /// Most tokens that are added to a prompt.
    pub new_tokens: usize,
}

impl Room {
    /// For requests like these.
    pub fn of<'a>(
        requests: impl IntoIterator<Item = Request<'a>>,
        sequences: usize,
        new_tokens: usize,
    ) -> Self {
        Self::for_sizes(requests.into_iter().map(|r| (r.prompt.len(), r.samples)), sequences, new_tokens)
    }

    /// For prompts of such lengths, and so many samples of each: up to `sequences` at a time, of up to `new_tokens`
    /// each. As many of the longest prompts fit as fill the sequences with their samples, and as many again, since the
    /// last samples of a prompt keep it while others begin; so the `2 * sequences` longest are enough to know.
    pub fn for_sizes(
        sizes: impl IntoIterator<Item = (usize, usize)>,
        sequences: usize,
        new_tokens: usize,
    ) -> Self {
        let mut sizes: Vec<(usize, usize)> = sizes.into_iter().filter(|size| size.1 > 0).collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        let sequences = sizes.iter().map(|r| r.1).sum::<usize>().min(sequences);
        let mut samples = 0;
        let filling = sizes.iter().take_while(|(_, k)| {
            let room = samples < sequences;
            samples += k;
            room
        });
        let kept = (2 * filling.count()).min(sequences);
        Room {
            sequences,
            longest: sizes.first().map_or(0, |r| r.0),
            prompts: sizes.iter().take(kept).map(|r| r.0).sum(),
            new_tokens,
        }
    }

    /// Positions that a sequence takes at most.
    pub(super) fn positions(&self, c: &Config) -> usize {
        self.longest.saturating_add(self.new_tokens).min(c.max_positions)
    }

    /// Rows of the cache that a sequence has for itself: for its prompt's last token, and for each that is drawn but
    /// the last.
    pub(super) fn own(&self, c: &Config) -> usize {
        self.new_tokens.min(c.max_positions)
    }

    /// Rows of the cache that prompts have.
    pub(super) fn shared(&self) -> usize {
        self.prompts.max(self.longest)
    }

    /// Rows of a pass: as many as the device wants, no more than there are, and the longest prompt fits.
    pub(super) fn rows(&self, portions: Portions) -> usize {
        portions.tokens.min(self.shared()).max(self.longest).max(self.sequences)
    }
}

/// The plan of an engine's memory. It prints itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What there is room for.
    pub room: Room,
    /// Bytes of keys and values.
    pub cache: usize,
    /// Bytes of passes: activations, logits, rows.
    pub passes: usize,
}

impl Plan {
    /// All of them.
    pub fn bytes(&self) -> usize {
        self.cache + self.passes
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (room, gb) = (self.room, |bytes: usize| bytes as f64 / 1e9);
        write!(
            f,
            "{} sequences at a time, {} tokens of prompts and {} of each sequence in a cache of {:.2} GB; {:.2} GB for \
             passes",
            room.sequences,
            room.shared(),
            room.new_tokens,
            gb(self.cache),
            gb(self.passes)
        )
    }
}
