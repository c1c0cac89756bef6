//! Sums over rows, in parts that are added up later.

use crate::grid::narrow;
use crate::{Buf, Cuda, CudaReal, Driver, Grid};
use duel_kernels::sys;

/// Fewest rows that a block sums.
const MIN_ROWS_A_BLOCK: usize = 8;
/// Most blocks that the rows are divided among: two for each multiprocessor of a large device.
const MAX_PARTS: usize = 256;

/// Rows that one block sums where the sums of blocks are added up later. It depends on nothing but the rows, so that
/// the bits of a sum are the same on every device.
pub(crate) fn rows_a_block(rows: usize) -> usize {
    rows.div_ceil(MAX_PARTS).max(MIN_ROWS_A_BLOCK)
}

impl<D: Driver, R: CudaReal> Cuda<D, R> {
    /// `out[i][..width] +=` the sums over parts of `partials[i, parts, width]`, where `out[i]` is there.
    pub(crate) fn add_partials<const N: usize>(
        &self,
        out: [Option<&mut Buf<D, f32>>; N],
        partials: *const f32,
        parts: usize,
        width: usize,
    ) {
        let mut params = sys::ColumnReduceParams {
            out: [std::ptr::null_mut(); 2],
            partials,
            parts: narrow(parts),
            width: narrow(width),
        };
        for (address, out) in params.out.iter_mut().zip(out) {
            *address = out.map_or(std::ptr::null_mut(), |out| self.write(out, width).cast());
        }
        let blocks = [width.div_ceil(sys::COLUMN_TILE as usize), N];
        let grid = Grid::plane(blocks, [sys::COLUMN_THREADS, 1]).with_shared(sys::COLUMN_BYTES);
        // SAFETY: the kernel takes ColumnReduceParams; the outputs are checked, and the caller has just had the
        // partial sums written.
        unsafe { self.launch("column_reduce", grid, &params) };
    }
}
