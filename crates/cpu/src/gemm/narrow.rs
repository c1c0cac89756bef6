//! Products of a register of columns, such as those into an adapter's rank: tiles of two registers would be half empty,
//! and packing a would cost half of what the product does.

use super::block::{Product, blocks};
use super::choice::HasKernel;
use super::few::rows_of;
use super::kernel::Unit;
use super::operand::Right;
use super::pack::{pack, room};
use super::store::{adds, finish_row};
use crate::real::{Lift, Pack, Real};
use std::ops::Range;

impl<S, A, B, C> Product<'_, S, A, B, C>
where
    S: HasKernel,
    A: Lift<S>,
    B: Lift<S>,
    C: Real<Acc = S>,
{
    /// Whether so many columns are made by the first kernel of [`Turned`](super::kernel::Turned), with the operands'
    /// parts exchanged, so that tiles are upright: a lies row after row, and this machine has such a kernel.
    pub(super) fn is_narrow(&self, cols: usize) -> bool {
        let turned = &self.kernel.turned;
        let dense = self.a.cs == 1 && self.shape.k > 0 && self.kernel.unit == Unit::Element;
        let kernel = !turned.run.is_empty() && matches!(self.b, Right::Plain(_));
        kernel && dense && cols <= turned.lanes && !self.keeps() && self.shape.m >= turned.rows
    }

    /// The part `rows` x `cols`, of a as it lies; nothing and `false` where it is not [narrow](Product::is_narrow).
    ///
    /// # Safety
    /// As [`Product::few`].
    pub(super) unsafe fn narrow(&self, rows: &Range<usize>, cols: &Range<usize>) -> bool {
        let (turned, k) = (&self.kernel.turned, self.shape.k);
        let (Right::Plain(b), [run, ..], true) = (self.b, turned.run, self.is_narrow(cols.len())) else {
            return false;
        };
        let (height, width) = (turned.rows, turned.lanes);
        let transpose = &self.kernel.transpose;
        S::with_pack(|Pack { a: lifted, b: panel, sums }| {
            let panel = room(panel, width * k);
            pack(panel, b, cols.start, cols.len(), 0, k, width, transpose, transpose.side * b.rs);
            let sums = room(sums, height * width);
            for tile in blocks(rows, height) {
                // A tile that would end behind a begins that much earlier, and its first rows are left alone.
                let first = tile.start.min(self.shape.m - height);
                let (from, ld) = rows_of(self.a, k, lifted, first..first + height);
                // SAFETY: `height` rows of k elements of a (asserted where they come from), a packed panel, and room
                // for the tile.
                unsafe { run(k, from, ld, panel.as_ptr(), sums.as_mut_ptr(), width, height * ld) };
                for row in tile {
                    // SAFETY: inside the caller's part.
                    let c = unsafe {
                        let at = self.c.at(row * self.shape.ldc + cols.start);
                        std::slice::from_raw_parts_mut(at, cols.len())
                    };
                    let residual = row * self.shape.n + cols.start;
                    finish_row(
                        c,
                        &sums[(row - first) * width..],
                        false,
                        adds(self.init),
                        residual,
                        cols.start,
                    );
                }
            }
        });
        true
    }
}
