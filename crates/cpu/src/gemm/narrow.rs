//! Products of a register of columns, such as those into an adapter's rank: tiles of two registers would be half empty,
//! and packing a would cost half of what the product does.

use super::block::{LOAD, Product, THIN, blocks, pieces};
use super::choice::HasKernel;
use super::few::rows_of;
use super::kernel::Unit;
use super::operand::{Operand, Right, Shape};
use super::pack::{pack, room};
use super::store::{adds, finish_row};
use crate::real::{Lift, Pack, Real};
use crate::sync::{Pool, part};

impl<S, A, B, C> Product<'_, S, A, B, C>
where
    S: HasKernel,
    A: Lift<S>,
    B: Lift<S>,
    C: Real<Acc = S>,
{
    /// The right operand of a product of few columns that the first kernel of [`Turned`](super::kernel::Turned) makes,
    /// with the operands' parts exchanged, so that tiles are upright: a lies row after row, and this machine has such a
    /// kernel.
    pub(super) fn narrows(&self) -> Option<Operand<'_, B>> {
        let Right::Plain(b) = self.b else { return None };
        let (turned, Shape { m, n, k, .. }) = (&self.kernel.turned, self.shape);
        let kernel = !turned.run.is_empty() && self.kernel.unit == Unit::Element && !self.keeps();
        let dense = self.a.cs == 1 && k > 0;
        (kernel && dense && m > THIN && m >= turned.rows && n <= turned.lanes).then_some(b)
    }

    /// The product by that kernel. Each thread packs b.
    ///
    /// # Safety
    /// As [`Product::run`], of what [`Product::narrows`].
    pub(super) unsafe fn narrow(&self, pool: &Pool, b: Operand<B>) {
        let (Shape { m, n, k, ldc }, turned) = (self.shape, &self.kernel.turned);
        let (height, width, run) = (turned.rows, turned.lanes, turned.run[0]);
        let transpose = &self.kernel.transpose;
        let parts = pieces(m, height, LOAD / k);
        pool.tasks_after(parts, |last, task| {
            S::with_pack(|Pack { a: lifted, b: panel, sums }| {
                let panel = room(panel, width * k);
                if last.is_none() {
                    pack(panel, b, 0, n, 0, k, width, transpose, transpose.side * b.rs);
                }
                let sums = room(sums, height * width);
                for tile in blocks(&part(m, height, task, parts), height) {
                    // A tile that would end behind a begins that much earlier, and its first rows are left alone.
                    let first = tile.start.min(m - height);
                    let (from, ld) = rows_of(self.a, k, lifted, first..first + height);
                    // SAFETY: `height` rows of k elements of a (asserted where they come from), a packed panel, and
                    // room for the tile.
                    unsafe { run(k, from, ld, panel.as_ptr(), sums.as_mut_ptr(), width, height * ld) };
                    for row in tile {
                        // SAFETY: a row of c, and this task's alone.
                        let c = unsafe { std::slice::from_raw_parts_mut(self.c.at(row * ldc), n) };
                        finish_row(c, &sums[(row - first) * width..], false, adds(self.init), row * n, 0);
                    }
                }
            });
        });
    }
}
