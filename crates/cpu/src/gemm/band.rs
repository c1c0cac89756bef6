//! The parts of a product that causal masks leave.

use std::ops::Range;

/// No kernel has more rows. What a [`Band`] leaves out is left out by whole panels of rows, so that zeros are needed up
/// to this far beyond its edge.
pub const PANEL: usize = 32;

/// What of a product is needed, where causal masks leave a triangle out.
#[derive(Clone, Copy)]
pub enum Band {
    /// All of it.
    Full,
    /// Of the result, the elements with `j <= i + edge`; what the others hold is undefined.
    Result { edge: usize },
    /// `a[i, p]` is zero for `p > i + edge`; from [`PANEL`] further on it need not be.
    Left { edge: usize },
    /// `a[i, p]` is zero for `i > p + edge`; from [`PANEL`] further on it need not be.
    LeftTransposed { edge: usize },
}

impl Band {
    /// Whether the tile of rows up to `last_row` and columns from `col` on has an element that is needed.
    pub fn needs(self, last_row: usize, col: usize) -> bool {
        match self {
            Band::Result { edge } => col <= last_row + edge,
            _ => true,
        }
    }

    /// The depths within `from..to` that the rows `first..=last` are not all zero at.
    pub fn depths(self, first: usize, last: usize, from: usize, to: usize) -> Range<usize> {
        match self {
            Band::Full | Band::Result { .. } => from..to,
            Band::Left { edge } => from..to.min(last + edge + 1).max(from),
            Band::LeftTransposed { edge } => from.max(first.saturating_sub(edge)).min(to)..to,
        }
    }
}
