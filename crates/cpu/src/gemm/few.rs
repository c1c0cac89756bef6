//! Products of few rows, for which nothing but those rows is packed: the result is made on its side.

use super::block::{FEW, LOAD, Product, THIN, blocks, pieces};
use super::choice::HasKernel;
use super::kernel::{SQUARE, Unit};
use super::operand::{Operand, Right, Shape};
use super::pack::{pack, room, same};
use super::store::{adds, finish_row};
use crate::real::{Lift, Pack, Real, Scalar};
use crate::sync::{Pool, part};
use std::ops::Range;

/// Rows of b whose sums wait to be turned: whole tiles, whole squares and whole cache lines of the result.
const GROUP: usize = 3 * SQUARE;

impl<S, A, B, C> Product<'_, S, A, B, C>
where
    S: HasKernel,
    A: Lift<S>,
    B: Lift<S>,
    C: Real<Acc = S>,
{
    /// The right operand of a product of few rows that the kernels of [`Turned`](super::kernel::Turned) make: both
    /// operands lie row after row, and this machine has such kernels.
    pub(super) fn turns(&self) -> Option<Operand<'_, B>> {
        let Right::Plain(b) = self.b else { return None };
        let (turned, Shape { m, n, k, .. }) = (&self.kernel.turned, self.shape);
        let kernel = !turned.run.is_empty() && self.kernel.unit == Unit::Element && !self.keeps();
        let dense = self.a.cs == 1 && b.cs == 1 && k > 0;
        (kernel && dense && (THIN + 1..=FEW).contains(&m) && n >= turned.rows).then_some(b)
    }

    /// The product by those kernels. Each thread packs the rows.
    ///
    /// # Safety
    /// As [`Product::run`], of what [`Product::turns`].
    pub(super) unsafe fn turned(&self, pool: &Pool, b: Operand<B>) {
        let Shape { n, k, .. } = self.shape;
        let across = pieces(n, GROUP, LOAD / k);
        pool.tasks_after(across, |last, task| {
            // SAFETY: this task writes its columns of c only.
            unsafe { self.turned_columns(b, &part(n, GROUP, task, across), last.is_none()) };
        });
    }

    /// These columns of it, on this thread, which packs the rows if it has not yet.
    ///
    /// # Safety
    /// As [`Product::turned`]; nobody else touches those columns.
    unsafe fn turned_columns(&self, b: Operand<B>, cols: &Range<usize>, first: bool) {
        let (turned, transpose, Shape { m, k, .. }) =
            (&self.kernel.turned, &self.kernel.transpose, self.shape);
        let (height, side, rows) = (turned.rows, transpose.side, 0..m);
        let width = m.next_multiple_of(turned.lanes);
        S::with_pack(|Pack { a, b: lifted, sums }| {
            let a = room(a, width * k);
            for panel in self.panels(width).filter(|_| first) {
                let out = &mut a[panel.start * k..];
                let count = panel.len().min(m - panel.start);
                pack(out, self.a, panel.start, count, 0, k, panel.len(), transpose, side * self.a.rs);
            }
            // A tile that would end behind b begins that much earlier: what is made twice comes out the same.
            let sums = room(sums, (height + GROUP) * width + rows.len() * GROUP);
            let (on_side, upright) = sums.split_at_mut((height + GROUP) * width);
            for group in blocks(cols, GROUP) {
                for tile in blocks(&group, height) {
                    let first = tile.start.min(self.shape.n - height);
                    let (from, ld) = rows_of(b, k, lifted, first..first + height);
                    let to = &mut on_side[(first + height - group.start) * width..];
                    for panel in self.panels(width) {
                        let ahead = if panel.start == 0 { height * ld } else { 0 };
                        let run = turned.run[panel.len() / turned.lanes - 1];
                        assert!((height - 1) * width + panel.end <= to.len(), "no room for a tile");
                        // SAFETY: `height` rows of k elements of b (asserted where they come from), a packed panel, and
                        // room for the tile.
                        unsafe {
                            let a = a.as_ptr().add(panel.start * k);
                            run(k, from, ld, a, to.as_mut_ptr().add(panel.start), width, ahead);
                        }
                    }
                }
                for across in (0..group.len()).step_by(side) {
                    let from = &on_side[(height + across) * width..];
                    // SAFETY: `side` rows of `width`, which is a multiple of it, and as many columns of the rows that
                    // receive them.
                    unsafe {
                        let out = upright.as_mut_ptr().add(across);
                        (self.kernel.transpose.run)(from.as_ptr(), width, out, GROUP, side, rows.len(), 0);
                    }
                }
                for (row, sums) in rows.clone().zip(upright.chunks(GROUP)) {
                    // SAFETY: inside the caller's part.
                    let c = unsafe {
                        let at = self.c.at(row * self.shape.ldc + group.start);
                        std::slice::from_raw_parts_mut(at, group.len())
                    };
                    let residual = row * self.shape.n + group.start;
                    finish_row(c, sums, false, adds(self.init), residual, group.start);
                }
            }
        });
    }

    /// The panels of `width` rows of a: as many registers as a tile has, and one or more at the end.
    fn panels(&self, width: usize) -> impl Iterator<Item = Range<usize>> + use<S, A, B, C> {
        blocks(&(0..width), self.kernel.turned.lanes * self.kernel.turned.run.len())
    }
}

/// These rows of an operand, of `k` elements, where they lie, or lifted; and how far apart they are.
pub(super) fn rows_of<S: Scalar, T: Lift<S>>(
    of: Operand<T>,
    k: usize,
    out: &mut Vec<S>,
    rows: Range<usize>,
) -> (*const S, usize) {
    let Operand { data, rs, .. } = of;
    let data = &data[rows.start * rs..][..(rows.len() - 1) * rs + k];
    if let Some(data) = same::<*const T, *const S>(data.as_ptr()) {
        return (data, rs);
    }
    let out = room(out, rows.len() * k);
    for (out, x) in out.chunks_exact_mut(k).zip(data.chunks(rs)) {
        out.iter_mut().zip(x).for_each(|(out, x)| *out = x.lift());
    }
    (out.as_ptr(), k)
}
