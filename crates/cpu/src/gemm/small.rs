//! Products by a small `b`, such as those of a small model's maps or into an adapter's rank: `b` is packed once, nothing
//! else is, and no tile has columns that are not there.

use super::block::{Product, blocks};
use super::choice::HasKernel;
use super::few::rows_of;
use super::kernel::Unit;
use super::operand::{Init, Right};
use super::pack::{pack, room};
use super::store::{adds, finish_row, in_place};
use crate::real::{Lift, Pack, Real};
use std::ops::Range;

/// Bytes of a packed `b` that stay in the L2 cache, beside the rows of `a` that pass by.
const SMALL: usize = 1 << 18;

impl<S, A, B, C> Product<'_, S, A, B, C>
where
    S: HasKernel,
    A: Lift<S>,
    B: Lift<S>,
    C: Real<Acc = S>,
{
    /// The part `rows` x `cols`, of a as it lies, by the kernels of [`Turned`](super::kernel::Turned) with the operands'
    /// parts exchanged, so that tiles are made upright. Nothing and `false` where a does not lie row after row, b is
    /// not small, or this machine has no such kernel.
    ///
    /// # Safety
    /// As [`Product::part`].
    pub(super) unsafe fn small(&self, rows: &Range<usize>, cols: &Range<usize>) -> bool {
        let (turned, k) = (&self.kernel.turned, self.shape.k);
        let Right::Plain(b) = self.b else { return false };
        let height = turned.rows;
        let dense = self.a.cs == 1 && k > 0 && self.kernel.unit == Unit::Element;
        let width = cols.len().next_multiple_of(turned.lanes);
        let small = width * k * size_of::<S>() <= SMALL;
        if turned.run.is_empty() || !dense || !small || self.keeps() || self.shape.m < height {
            return false;
        }
        let transpose = &self.kernel.transpose;
        let plain = matches!(self.init, Init::Zero | Init::Add(None, None));
        S::with_pack(|Pack { a: lifted, b: packed, sums }| {
            let packed = room(packed, width * k);
            for panel in self.panels(width) {
                let of_panel = cols.start + panel.start..cols.end.min(cols.start + panel.end);
                let out = &mut packed[panel.start * k..];
                let ahead = transpose.side * b.rs;
                pack(out, b, of_panel.start, of_panel.len(), 0, k, panel.len(), transpose, ahead);
            }
            let sums = room(sums, height * width);
            for tile in blocks(rows, height) {
                // A tile that would end behind a begins that much earlier, and its first rows are left alone.
                let first = tile.start.min(self.shape.m - height);
                let (from, ld) = rows_of(self.a, k, lifted, first..first + height);
                let whole = plain && tile.len() == height && cols.len() == width;
                // SAFETY: the tile is in the caller's part.
                let dest = unsafe {
                    in_place::<S, C>(self.c, self.shape, first, cols.start, false, false, (None, None))
                };
                let (out, out_ld) = match dest {
                    Some(dest) if whole => (dest.out, dest.ld),
                    _ => (sums.as_mut_ptr(), width),
                };
                for panel in self.panels(width) {
                    let ahead = if panel.start == 0 { height * ld } else { 0 };
                    let run = turned.run[panel.len() / turned.lanes - 1];
                    // SAFETY: `height` rows of k elements of a (asserted where they come from), a packed panel, and room
                    // for the tile: in the caller's part, where it is whole, or in the sums.
                    unsafe {
                        let b = packed.as_ptr().add(panel.start * k);
                        run(k, from, ld, b, out.add(panel.start), out_ld, ahead);
                    }
                }
                if dest.is_some() && whole {
                    continue;
                }
                for row in tile {
                    // SAFETY: inside the caller's part.
                    let c = unsafe {
                        let at = self.c.at(row * self.shape.ldc + cols.start);
                        std::slice::from_raw_parts_mut(at, cols.len())
                    };
                    let residual = row * self.shape.n + cols.start;
                    let sums = &sums[(row - first) * width..];
                    finish_row(c, sums, false, adds(self.init), residual, cols.start);
                }
            }
        });
        true
    }
}
