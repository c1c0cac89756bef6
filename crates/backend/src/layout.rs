use crate::{Index, Result, Storage};

/// A run of consecutive rows that attend causally to themselves and fully to a prefix.
///
/// A prompt is a segment without prefix; a response is a segment whose prefix is its prompt. Row `i` of the
/// segment has position `prefix_len + i`: positions restart after the prompt for every response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// First row.
    pub start: usize,
    /// Rows.
    pub len: usize,
    /// First row of the prefix.
    pub prefix_start: usize,
    /// Rows of the prefix; 0 for a prompt.
    pub prefix_len: usize,
}

/// One micro-batch: groups packed end to end without padding, `[prompt | response 1 | … | response K]` each.
///
/// Allocated once for the largest micro-batch and refilled with [`Layout::set`].
pub struct Layout<B: Storage> {
    /// Rows in use.
    pub rows: usize,
    /// Segments that tile the rows, in order.
    pub segments: Vec<Segment>,
    /// Token id of each row.
    pub tokens: Index<B>,
    /// Position of each row in its own sequence.
    pub positions: Index<B>,
    staging: Vec<u32>,
}

impl<B: Storage> Layout<B> {
    /// Room for `max_rows` rows.
    pub fn new(backend: &B, max_rows: usize) -> Result<Self> {
        Ok(Layout {
            rows: 0,
            segments: Vec::new(),
            tokens: backend.alloc(max_rows)?,
            positions: backend.alloc(max_rows)?,
            staging: Vec::with_capacity(max_rows),
        })
    }

    /// Replaces the content.
    ///
    /// # Panics
    /// When the segments do not tile the tokens, when a prefix does not lie before its segment in a segment
    /// without prefix, or when there are more rows than room.
    pub fn set(&mut self, backend: &B, tokens: &[u32], segments: impl IntoIterator<Item = Segment>) {
        self.segments.clear();
        self.segments.extend(segments);
        self.staging.clear();
        let mut prompt = 0..0;
        for s in &self.segments {
            assert_eq!(s.start, self.staging.len(), "segments must tile the rows in order");
            if s.prefix_len == 0 {
                prompt = s.start..s.start + s.len;
            } else {
                let prefix = s.prefix_start..s.prefix_start + s.prefix_len;
                assert_eq!(prefix, prompt, "a prefix is the whole prompt before it");
            }
            self.staging.extend((0..s.len).map(|i| (s.prefix_len + i) as u32));
        }
        assert_eq!(self.staging.len(), tokens.len(), "segments must cover every token");
        assert!(tokens.len() <= backend.len(&self.tokens), "more rows than the layout has room for");
        self.rows = tokens.len();
        backend.upload(&mut self.tokens, 0, tokens);
        backend.upload(&mut self.positions, 0, &self.staging);
    }

    /// Replaces the content by rows without segments: one token at one position each, for decoding with a cache.
    ///
    /// # Panics
    /// When the lengths differ or there are more rows than room.
    pub fn set_rows(&mut self, backend: &B, tokens: &[u32], positions: &[u32]) {
        assert_eq!(tokens.len(), positions.len(), "a position for every token");
        assert!(tokens.len() <= backend.len(&self.tokens), "more rows than the layout has room for");
        self.segments.clear();
        self.rows = tokens.len();
        backend.upload(&mut self.tokens, 0, tokens);
        backend.upload(&mut self.positions, 0, positions);
    }
}
