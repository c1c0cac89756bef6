//! Keys and values in the order that the kernels read them, packed once for all query heads and blocks.

use super::blocks::{Plan, Run};
use super::kernel::Kernel;
use crate::real::{Real, Scalar, take};
use crate::sync::{Pool, SyncPtr};

/// A matrix of packed rows, seen one head at a time.
#[derive(Clone, Copy)]
pub struct Heads<'a, R> {
    pub data: &'a [R],
    pub width: usize,
    pub head_dim: usize,
}

impl<'a, R: Real> Heads<'a, R> {
    /// The vector of one row and head (counted over the whole row).
    pub fn vector(self, head: usize, row: usize) -> &'a [R] {
        &self.data[row * self.width + head * self.head_dim..][..self.head_dim]
    }

    /// Rows `row..` of a head, as many as fit in `out[rows, width]` at most `n`; zeros behind them, and behind each.
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
    pub fn transpose(self, out: &mut [R::Acc], columns: usize, head: usize, row: usize, n: usize) {
        for (panel, out) in out.chunks_exact_mut(columns * self.head_dim).enumerate() {
            for j in 0..columns {
                let key = panel * columns + j;
                let to = out[j..].iter_mut().step_by(columns);
                match key < n {
                    true => to.zip(self.vector(head, row + key)).for_each(|(x, v)| *x = v.up()),
                    false => to.for_each(|x| *x = R::Acc::ZERO),
                }
            }
        }
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
    /// Calls `f(run, first key, keys, packed rows, head)` for the tiles of every segment and each of `heads`.
    pub fn each(&self, pool: &Pool, heads: usize, f: impl Fn(Run, usize, usize, usize, usize) + Sync) {
        pool.tasks(self.runs.len(), |r| {
            let run = self.runs[r];
            for (from, n, packed) in run.tiles() {
                (0..heads).for_each(|head| f(run, from, n, packed, head));
            }
        });
    }

    /// Heads `first..first + heads` of all rows, as [`Heads::transpose`] does it.
    pub fn transpose<R: Real>(
        &self,
        pool: &Pool,
        kernel: &Kernel<R::Acc>,
        out: &mut [R::Acc],
        x: Heads<R>,
        first: usize,
        heads: usize,
    ) {
        assert!(out.len() >= heads * self.packed * x.head_dim, "output shorter than the rows");
        let out = SyncPtr::new(out);
        self.each(pool, heads, |run, from, n, packed, head| {
            let at = (head * self.packed + run.at + from) * x.head_dim;
            // SAFETY: the packed rows of this tile, inside the output (asserted), are this task's alone.
            let out = unsafe { std::slice::from_raw_parts_mut(out.at(at), packed * x.head_dim) };
            x.transpose(out, kernel.columns(), first + head, run.row + from, n);
        });
    }

    /// Heads `first..first + heads` of all rows, each in panels of the kernel's columns, `width` in all.
    pub fn panels<R: Real>(
        &self,
        pool: &Pool,
        kernel: &Kernel<R::Acc>,
        out: &mut [R::Acc],
        width: usize,
        x: Heads<R>,
        first: usize,
        heads: usize,
    ) {
        assert!(out.len() >= heads * self.packed * width, "output shorter than the rows");
        let out = SyncPtr::new(out);
        self.each(pool, heads, |run, from, n, packed, head| {
            for c in (0..width).step_by(kernel.columns()) {
                let columns = kernel.columns().min(width - c);
                let at = (head * width + c) * self.packed + (run.at + from) * columns;
                // SAFETY: the packed rows of this tile and panel, inside the output (asserted), are this task's alone.
                let out = unsafe { std::slice::from_raw_parts_mut(out.at(at), packed * columns) };
                for (i, out) in out.chunks_exact_mut(columns).enumerate().take(n) {
                    let vector = &x.vector(first + head, run.row + from + i)[c..];
                    let held = columns.min(vector.len());
                    out[held..].fill(R::Acc::ZERO);
                    out.iter_mut().zip(vector).for_each(|(x, v)| *x = v.up());
                }
            }
        });
    }
}
