//! A prompt and two responses: what every benchmark is fed.

use duel_backend::Segment;
use std::fmt;

/// A prompt of `prompt` tokens and two responses of `response` tokens each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Tokens of the prompt; may be 0.
    pub prompt: usize,
    /// Tokens of each response.
    pub response: usize,
}

impl Pair {
    /// Packed rows: the prompt once, and both responses.
    pub fn rows(self) -> usize {
        self.prompt + 2 * self.response
    }

    /// Length of the longer sequence: the prompt and one response.
    pub fn positions(self) -> usize {
        self.prompt + self.response
    }

    /// The packed layout `[prompt | response | response]`.
    pub fn segments(self) -> Vec<Segment> {
        let prompt = Segment { start: 0, len: self.prompt, prefix_start: 0, prefix_len: 0 };
        let response =
            |start| Segment { start, len: self.response, prefix_start: 0, prefix_len: self.prompt };
        let responses = [response(self.prompt), response(self.prompt + self.response)];
        (self.prompt > 0).then_some(prompt).into_iter().chain(responses).collect()
    }

    /// Query and key rows that see each other: a row sees its prefix, its own segment up to itself, and itself.
    pub fn visible(self) -> usize {
        self.segments().iter().map(|s| s.len * s.prefix_len + s.len * (s.len + 1) / 2).sum()
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+2x{}", self.prompt, self.response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counted one by one, from what the layout means: same segment or its prefix, and not later.
    #[test]
    fn visible_pairs() {
        for pair in [Pair { prompt: 5, response: 3 }, Pair { prompt: 0, response: 4 }] {
            let part =
                |row: usize| if row < pair.prompt { 0 } else { 1 + (row - pair.prompt) / pair.response };
            let sees = |q: usize, k: usize| k <= q && (part(k) == part(q) || k < pair.prompt);
            let rows = 0..pair.rows();
            let counted =
                rows.clone().flat_map(|q| rows.clone().map(move |k| (q, k))).filter(|&(q, k)| sees(q, k));
            assert_eq!(pair.visible(), counted.count(), "{pair}");
        }
    }
}
