//! Grids of kernels that work on rows or on flat arrays.

use crate::{Cuda, CudaReal, Driver, Grid};
use duel_kernels::sys::{ROW_HELD, ROW_TEAM, ROW_THREADS};

/// Threads of a block in the kernels of one pass over memory.
pub(crate) const THREADS: usize = ROW_THREADS as usize;
/// Most blocks along y.
const MAX_ROWS_OF_BLOCKS: usize = 65535;

/// Elements of `R` in 16 bytes, which is what a thread moves at a time.
fn lanes<R>() -> usize {
    16 / size_of::<R>()
}

/// Elements that a thread moves at a time in rows of `width`: 16 bytes of them, or one where rows are not made of
/// those.
pub(crate) fn elements_a_thread<R>(width: usize) -> usize {
    if width.is_multiple_of(lanes::<R>()) { lanes::<R>() } else { 1 }
}

/// A grid of blocks of [`THREADS`] in which a team of `x` threads has a row, for `rows` rows: so many threads that each
/// holds all that it has of the row in registers, if the block has them.
pub(crate) fn team_grid<R>(rows: usize, width: usize) -> Grid {
    let packs = width.div_ceil(elements_a_thread::<R>(width));
    let team = packs.div_ceil(ROW_HELD as usize).next_power_of_two().clamp(ROW_TEAM as usize, THREADS);
    let teams = THREADS / team;
    Grid::plane([rows.div_ceil(teams), 1], [narrow(team), narrow(teams)])
}

/// `u32` of a number of rows or columns.
pub(crate) fn narrow(n: usize) -> u32 {
    u32::try_from(n).expect("rows and widths fit into 32 bits")
}

impl<D: Driver, R: CudaReal> Cuda<D, R> {
    /// A grid whose x covers `width` columns and whose y strides over `rows`.
    pub(crate) fn rows_grid(&self, rows: usize, width: usize) -> Grid {
        let columns = width.div_ceil(elements_a_thread::<R>(width) * THREADS);
        Grid::plane([columns, rows.min(MAX_ROWS_OF_BLOCKS)], [ROW_THREADS, 1])
    }

    /// A grid that strides over `len` elements.
    pub(crate) fn flat_grid(&self, len: usize) -> Grid {
        Grid::linear(self.blocks_for(len.div_ceil(lanes::<R>() * THREADS)), ROW_THREADS)
    }

    /// Blocks that keep every multiprocessor busy in a kernel that strides over its work, but no more than `work`.
    pub(crate) fn blocks_for(&self, work: usize) -> usize {
        work.clamp(1, 8 * self.properties.multiprocessors as usize)
    }
}
