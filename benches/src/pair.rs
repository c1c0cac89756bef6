//! Prompts with two responses each: what every benchmark is fed.

use duel_backend::Segment;
use std::fmt;

/// A prompt and two responses, in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Tokens of the prompt; may be 0.
    pub prompt: usize,
    /// Tokens of the preferred response.
    pub chosen: usize,
    /// Tokens of the other.
    pub rejected: usize,
}

impl Pair {
    /// A prompt and two responses of `response` tokens each.
    pub const fn even(prompt: usize, response: usize) -> Self {
        Pair { prompt, chosen: response, rejected: response }
    }

    /// Tokens of both responses: the rows that the head scores, where there is a prompt.
    pub fn responses(self) -> usize {
        self.chosen + self.rejected
    }

    /// Packed rows: the prompt once, and both responses.
    pub fn rows(self) -> usize {
        self.prompt + self.responses()
    }

    /// Length of the longer sequence: the prompt and one response.
    pub fn positions(self) -> usize {
        self.prompt + self.chosen.max(self.rejected)
    }

    /// The packed layout `[prompt | response | response]`, without parts that are empty.
    pub fn segments(self) -> Vec<Segment> {
        let prompt = Segment { start: 0, len: self.prompt, prefix_start: 0, prefix_len: 0 };
        let response = |start, len| Segment { start, len, prefix_start: 0, prefix_len: self.prompt };
        let chosen = response(self.prompt, self.chosen);
        let rejected = response(self.prompt + self.chosen, self.rejected);
        [prompt, chosen, rejected].into_iter().filter(|s| s.len > 0).collect()
    }

    /// Query and key rows that see each other: a row sees its prefix, its own segment up to itself, and itself.
    pub fn visible(self) -> usize {
        self.segments().iter().map(|s| s.len * s.prefix_len + s.len * (s.len + 1) / 2).sum()
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.chosen == self.rejected {
            return write!(f, "{}+2x{}", self.prompt, self.chosen);
        }
        write!(f, "{}+{}+{}", self.prompt, self.chosen, self.rejected)
    }
}

/// Equal pairs, packed end to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// How many.
    pub pairs: usize,
    /// Each of them.
    pub pair: Pair,
}

impl From<Pair> for Batch {
    fn from(pair: Pair) -> Self {
        Batch { pairs: 1, pair }
    }
}

impl Batch {
    /// Sequences that each attend to themselves alone: as prompts without a response.
    pub fn sequences(count: usize, tokens: usize) -> Self {
        Batch { pairs: count, pair: Pair::even(tokens, 0) }
    }

    /// Packed rows.
    pub fn rows(self) -> usize {
        self.pairs * self.pair.rows()
    }

    /// Length of the longest sequence.
    pub fn positions(self) -> usize {
        self.pair.positions()
    }

    /// Rows of responses.
    pub fn responses(self) -> usize {
        self.pairs * self.pair.responses()
    }

    /// The packed layout, by pairs.
    pub fn groups(self) -> impl Iterator<Item = Vec<Segment>> {
        let moved = move |s: Segment, by| Segment {
            start: s.start + by,
            prefix_start: if s.prefix_len > 0 { by } else { 0 },
            ..s
        };
        let group = move |i| self.pair.segments().into_iter().map(move |s| moved(s, i * self.pair.rows()));
        (0..self.pairs).map(move |i| group(i).collect())
    }

    /// Query and key rows that see each other.
    pub fn visible(self) -> usize {
        self.pairs * self.pair.visible()
    }
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pairs > 1 {
            write!(f, "{} x ", self.pairs)?;
        }
        write!(f, "{}", self.pair)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counted one by one, from what the layout means: same segment or its prefix, and not later.
    #[test]
    fn visible_pairs() {
        let uneven = Pair { prompt: 5, chosen: 3, rejected: 2 };
        for pair in [Pair::even(5, 3), Pair::even(0, 4), Pair::even(6, 0), uneven] {
            let part =
                |row: usize| usize::from(row >= pair.prompt) + usize::from(row >= pair.prompt + pair.chosen);
            let sees = |q: usize, k: usize| k <= q && (part(k) == part(q) || k < pair.prompt);
            let rows = 0..pair.rows();
            let counted =
                rows.clone().flat_map(|q| rows.clone().map(move |k| (q, k))).filter(|&(q, k)| sees(q, k));
            assert_eq!(pair.visible(), counted.count(), "{pair}");
        }
    }

    #[test]
    fn pairs_follow_each_other() {
        let batch = Batch { pairs: 3, pair: Pair { prompt: 5, chosen: 3, rejected: 2 } };
        let groups: Vec<_> = batch.groups().collect();
        let rows = groups.iter().flatten().map(|s| s.len).sum::<usize>();
        assert_eq!((rows, batch.rows(), batch.responses()), (30, 30, 15));
        let last = Segment { start: 28, len: 2, prefix_start: 20, prefix_len: 5 };
        assert_eq!(groups[2][2], last);
        assert_eq!(groups[1][0], Segment { start: 10, len: 5, prefix_start: 0, prefix_len: 0 });
        assert_eq!(batch.to_string(), "3 x 5+3+2");
        assert_eq!(Batch::from(Pair::even(5, 3)).to_string(), "5+2x3");
    }
}
