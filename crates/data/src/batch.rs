//! Order, micro-batches, and the packed layout that a model computes on.

use crate::Dataset;
use duel_random::{SplitMix, mix};
use std::ops::Range;

/// The order in which epoch `epoch` visits `len` groups: a permutation that depends on nothing but the
/// arguments, or `0..len` when `shuffle` is false. `len` is at most `u32::MAX`, as every dataset's is.
pub fn order(len: usize, seed: u64, epoch: u64, shuffle: bool) -> Vec<u32> {
    let mut order: Vec<u32> = (0..len as u32).collect();
    if shuffle {
        // Without its first number: a resumed run must see the same order for ever.
        let mut random = SplitMix::new(mix(seed ^ mix(epoch)));
        random.number();
        for i in (1..len).rev() {
            // The high half of a product maps 64 random bits to 0..=i without a visible bias.
            let j = ((u128::from(random.number()) * (i as u128 + 1)) >> 64) as usize;
            order.swap(i, j);
        }
    }
    order
}

/// Splits consecutive groups of `sizes` tokens into micro-batches of at most `budget` tokens, keeping their
/// order. A group larger than the budget gets a micro-batch of its own.
pub fn pack(sizes: impl Iterator<Item = usize>, budget: usize) -> Vec<Range<usize>> {
    let mut packs: Vec<Range<usize>> = Vec::new();
    let mut filled = 0usize;
    for (i, size) in sizes.enumerate() {
        match packs.last_mut() {
            Some(pack) if filled.saturating_add(size) <= budget => {
                pack.end = i + 1;
                filled += size;
            }
            _ => {
                packs.push(i..i + 1);
                filled = size;
            }
        }
    }
    packs
}

/// Consecutive rows of a batch that form one prompt or one response. Each row attends to the rows of its segment
/// up to itself, and to all rows of the prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// The first row.
    pub start: usize,
    /// How many rows; at least 1.
    pub len: usize,
    /// The first row of the prefix: a response's prompt.
    pub prefix_start: usize,
    /// How many rows the prefix has, which is also the position of the segment's first token; 0 for prompts.
    pub prefix_len: usize,
}

/// One group in a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchGroup {
    /// Its index in the dataset.
    pub index: usize,
    /// Its responses' segments, best first. The segment before them is its prompt, unless the prompt is empty.
    pub responses: Range<usize>,
}

/// Groups packed end to end as `[prompt | response 1 | .. | response K]`, without padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// One token a row.
    pub tokens: Vec<u32>,
    /// What the rows belong to: they tile the rows in order.
    pub segments: Vec<Segment>,
    /// What the segments belong to, in the order asked for.
    pub groups: Vec<BatchGroup>,
    /// Rows of responses whose tokens are given, not learned; in order.
    pub given: Vec<Range<usize>>,
}

impl Batch {
    /// Packs the groups of `ds` at `indices`, in that order.
    ///
    /// # Panics
    /// When an index is not below `ds.len()`.
    pub fn new(ds: &Dataset, indices: &[u32]) -> Self {
        let rows = indices.iter().map(|&i| ds.group(i as usize).tokens()).sum();
        let mut batch = Batch {
            tokens: Vec::with_capacity(rows),
            segments: Vec::new(),
            groups: Vec::with_capacity(indices.len()),
            given: Vec::new(),
        };
        for &index in indices {
            let group = ds.group(index as usize);
            let (prefix_start, prefix_len) = (batch.tokens.len(), group.prompt.len());
            if prefix_len > 0 {
                batch.segment(group.prompt, prefix_start, 0);
            }
            let (first, row) = (batch.segments.len(), batch.tokens.len());
            batch.given.extend(group.given().map(|run| row + run.start..row + run.end));
            for response in group.responses() {
                batch.segment(response, prefix_start, prefix_len);
            }
            batch.groups.push(BatchGroup { index: index as usize, responses: first..batch.segments.len() });
        }
        batch
    }

    fn segment(&mut self, tokens: &[u32], prefix_start: usize, prefix_len: usize) {
        self.segments.push(Segment { start: self.tokens.len(), len: tokens.len(), prefix_start, prefix_len });
        self.tokens.extend_from_slice(tokens);
    }
}
