//! Packed rows in blocks of queries, and the products of a block with the keys that it sees.

use crate::gemm::{Band, HasKernel, Init, Operand, PANEL, Shape, gemm_band};
use crate::real::{Real, Scalar};
use crate::sync::Pool;
use duel_backend::Segment;

/// Query rows whose scores are held at a time: a multiple of every kernel's rows.
pub const BLOCK: usize = 96;

/// A matrix of packed rows, seen one head at a time.
#[derive(Clone, Copy)]
pub struct Columns<'a, R> {
    pub data: &'a [R],
    pub width: usize,
    pub head_dim: usize,
}

impl<'a, R: Real> Columns<'a, R> {
    /// Head `head` (counted over the whole row) from row `row` on.
    pub fn head(self, head: usize, row: usize) -> Operand<'a, R> {
        Operand { data: &self.data[row * self.width + head * self.head_dim..], rs: self.width, cs: 1 }
    }
    /// The vector of one row and head.
    pub fn vector(self, head: usize, row: usize) -> &'a [R] {
        &self.data[row * self.width + head * self.head_dim..][..self.head_dim]
    }
}

fn transposed<T>(x: Operand<T>) -> Operand<T> {
    Operand { rs: x.cs, cs: x.rs, ..x }
}

/// Query rows `from..to` of a segment, and the two runs of rows whose keys they see: `(first row, count)`.
#[derive(Clone, Copy)]
pub struct Block {
    segment: Segment,
    from: usize,
    to: usize,
    runs: [(usize, usize); 2],
}

impl Block {
    pub fn of(segment: Segment) -> impl Iterator<Item = Block> {
        (0..segment.len).step_by(BLOCK).map(move |from| {
            let to = (from + BLOCK).min(segment.len);
            let runs = [(segment.prefix_start, segment.prefix_len), (segment.start, to)];
            Block { segment, from, to, runs }
        })
    }
    pub fn rows(self) -> usize {
        self.to - self.from
    }
    /// Row number in the batch of query row `i` of the block.
    pub fn row(self, i: usize) -> usize {
        self.segment.start + self.from + i
    }
    /// Keys of the block's last row: the width of its score matrix.
    pub fn keys(self) -> usize {
        self.segment.prefix_len + self.to
    }
    /// Keys that query row `i` of the block sees.
    pub fn visible(self, i: usize) -> usize {
        self.segment.prefix_len + self.from + i + 1
    }
    /// The runs with their places among the keys, and how far the causal mask reaches: the segment's own keys are seen
    /// up to this many places beyond the query's number in the block.
    fn places(self) -> impl Iterator<Item = (usize, usize, usize, Option<usize>)> {
        let [(prefix, before), (own, n)] = self.runs;
        [(prefix, before, 0, None), (own, n, before, Some(self.from))].into_iter().filter(|place| place.1 > 0)
    }
    /// `out[rows, keys] = x · y(first row of a run)ᵀ`, run beside run; undefined where masked.
    pub fn scores<'a, S: HasKernel, R: Real<Acc = S>>(
        self,
        serial: &Pool,
        out: &mut [S],
        x: Operand<R>,
        k: usize,
        y: impl Fn(usize) -> Operand<'a, R>,
    ) {
        for (row, n, at, edge) in self.places() {
            let shape = Shape { m: self.rows(), n, k, ldc: self.keys() };
            let band = edge.map_or(Band::Full, |edge| Band::Result { edge });
            gemm_band(serial, shape, band, &mut out[at..], x, y(row), Init::Zero);
        }
    }
    /// Zeros behind the visible part of a row, as far as products of its block look.
    pub fn mask<S: Scalar>(masked: &mut [S]) {
        let n = PANEL.min(masked.len());
        masked[..n].fill(S::ZERO);
    }
    /// `out[rows, width] = weights[rows, keys] · y`, run after run.
    pub fn weighted<'a, S: HasKernel, R: Real<Acc = S>>(
        self,
        serial: &Pool,
        out: &mut [S],
        weights: &[S],
        width: usize,
        y: impl Fn(usize) -> Operand<'a, R>,
    ) {
        let mut init = Init::Zero;
        for (row, k, at, edge) in self.places() {
            let w = Operand { data: &weights[at..], rs: self.keys(), cs: 1 };
            let shape = Shape { m: self.rows(), n: width, k, ldc: width };
            let band = edge.map_or(Band::Full, |edge| Band::Left { edge });
            gemm_band(serial, shape, band, out, w, transposed(y(row)), init);
            init = Init::Keep;
        }
    }
    /// `out(first row of a run)[keys, width] += weights[rows, keys]ᵀ · y[rows, width]`, for the keys of every run.
    pub fn collect<S: HasKernel, R: Real<Acc = S>>(
        self,
        serial: &Pool,
        out: &mut [S],
        first: usize,
        weights: &[S],
        width: usize,
        y: Operand<R>,
    ) {
        for (row, n, at, edge) in self.places() {
            let w = transposed(Operand { data: &weights[at..], rs: self.keys(), cs: 1 });
            let shape = Shape { m: n, n: width, k: self.rows(), ldc: width };
            let band = edge.map_or(Band::Full, |edge| Band::LeftTransposed { edge });
            let out = &mut out[(row - first) * width..];
            gemm_band(serial, shape, band, out, w, transposed(y), Init::Keep);
        }
    }
}

/// Number of rows, which the segments tile in order: no two tasks then meet.
pub fn tiled(segments: &[Segment]) -> usize {
    segments.iter().fold(0, |rows, s| {
        let before = s.prefix_start + s.prefix_len <= s.start;
        assert!(
            s.start == rows && (s.prefix_len == 0 || before),
            "segments must tile the rows behind their prefixes"
        );
        rows + s.len
    })
}

/// A prompt with its responses: the rows whose keys collect each other's gradients.
pub struct Group<'a> {
    pub segments: &'a [Segment],
    pub start: usize,
    pub rows: usize,
}

/// The groups that segments make.
pub fn groups(segments: &[Segment]) -> impl Iterator<Item = Group<'_>> {
    segments.chunk_by(|_, next| next.prefix_len > 0).map(|segments| {
        let start = segments[0].start;
        let last = segments[segments.len() - 1];
        Group { segments, start, rows: last.start + last.len - start }
    })
}
