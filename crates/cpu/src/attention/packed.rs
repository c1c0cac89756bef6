//! Keys and values in the order that the kernels read them, packed once for all query heads and blocks.

use super::blocks::Plan;
use super::kernel::Kernel;
use crate::gemm::{HasKernel, Operand, pack, plain_transpose};
use crate::real::{Real, Scalar, take};
use crate::sync::{Pool, SyncPtr};

/// A matrix of packed rows, seen one head at a time.
#[derive(Clone, Copy)]
pub struct Columns<'a, R> {
    pub data: &'a [R],
    pub width: usize,
    pub head_dim: usize,
}

impl<'a, R: Real> Columns<'a, R> {
    /// The vector of one row and head (counted over the whole row).
    pub fn vector(self, head: usize, row: usize) -> &'a [R] {
        &self.data[row * self.width + head * self.head_dim..][..self.head_dim]
    }

    /// `n` rows of a head from `row` on into `out[rows, width]`; zeros behind them, and behind each.
    pub fn copy(self, out: &mut [R::Acc], width: usize, head: usize, row: usize, n: usize) {
        for (i, out) in out.chunks_exact_mut(width).enumerate() {
            let (vector, rest) = out.split_at_mut(self.head_dim);
            match i < n {
                true => vector.iter_mut().zip(self.vector(head, row + i)).for_each(|(x, v)| *x = v.up()),
                false => vector.fill(R::Acc::ZERO),
            }
            rest.fill(R::Acc::ZERO);
        }
    }

    /// `n` rows of a head from `row` on into `out[rows, head_dim]` in panels of `columns` rows, depth first; zeros
    /// behind them.
    pub fn transpose(self, out: &mut [R::Acc], columns: usize, head: usize, row: usize, n: usize)
    where
        R::Acc: HasKernel,
    {
        // That of this machine, where panels are whole squares of it.
        let best = R::Acc::kernel().transpose;
        let transpose = if columns.is_multiple_of(best.side) { best } else { plain_transpose() };
        let panels = n.next_multiple_of(columns) * self.head_dim;
        let (out, rest) = out.split_at_mut(panels);
        let (data, ahead) = (&self.data[head * self.head_dim..], transpose.side * self.width);
        let keys = Operand { data, rs: self.width, cs: 1 };
        pack(out, keys, row, n, 0, self.head_dim, columns, &transpose, ahead);
        rest.fill(R::Acc::ZERO);
    }
}

/// Parts of these sizes of a buffer, which grows where they need it; each begins with a cache line, and what they hold
/// is undefined.
pub fn lines<S: Scalar, const N: usize>(buffer: &mut Vec<S>, sizes: [usize; N]) -> [&mut [S]; N] {
    let line = 64 / size_of::<S>();
    let sizes = sizes.map(|n| n.next_multiple_of(line));
    let whole = take(buffer, &[sizes.iter().sum::<usize>() + line]).remove(0);
    let start = whole.as_ptr().align_offset(64).min(line);
    let mut rest = &mut whole[start..];
    sizes.map(|n| {
        let (part, tail) = std::mem::take(&mut rest).split_at_mut(n);
        rest = tail;
        part
    })
}

impl Plan {
    /// Heads `first..first + heads` of all rows, as [`Columns::transpose`] does it.
    pub fn transpose<R: Real>(
        &self,
        pool: &Pool,
        kernel: &Kernel<R::Acc>,
        out: &mut [R::Acc],
        x: Columns<R>,
        first: usize,
        heads: usize,
    ) where
        R::Acc: HasKernel,
    {
        assert!(out.len() >= heads * self.packed * x.head_dim, "output shorter than the rows");
        let out = SyncPtr::new(out);
        pool.tasks(self.cuts.len(), |cut| {
            let cut = self.cuts[cut];
            for head in 0..heads {
                let at = (head * self.packed + cut.at) * x.head_dim;
                // SAFETY: the packed rows of this tile, inside the output (asserted), are this task's alone.
                let out = unsafe { std::slice::from_raw_parts_mut(out.at(at), cut.packed * x.head_dim) };
                x.transpose(out, kernel.columns(), first + head, cut.row, cut.len);
            }
        });
    }

    /// Heads `first..first + heads` of all rows, each in panels of the kernel's columns, the last one
    /// narrower, filled up to whole registers.
    pub fn panels<R: Real>(
        &self,
        pool: &Pool,
        kernel: &Kernel<R::Acc>,
        out: &mut [R::Acc],
        x: Columns<R>,
        first: usize,
        heads: usize,
    ) {
        let width = kernel.width(x.head_dim);
        assert!(out.len() >= heads * self.packed * width, "output shorter than the rows");
        let out = SyncPtr::new(out);
        pool.tasks(self.cuts.len(), |cut| {
            let cut = self.cuts[cut];
            // Rows outside: the source is read in order.
            for (i, head) in (0..cut.len).flat_map(|i| (0..heads).map(move |head| (i, head))) {
                let vector = x.vector(first + head, cut.row + i);
                for c in (0..width).step_by(kernel.columns()) {
                    let columns = kernel.columns().min(width - c);
                    let at = (head * width + c) * self.packed + (cut.at + i) * columns;
                    // SAFETY: the rows of this tile, inside the output (asserted), are this task's alone.
                    let out = unsafe { std::slice::from_raw_parts_mut(out.at(at), columns) };
                    let (held, rest) = out.split_at_mut(columns.min(vector.len() - c));
                    held.iter_mut().zip(&vector[c..]).for_each(|(x, v)| *x = v.up());
                    rest.fill(R::Acc::ZERO);
                }
            }
        });
    }
}
