//! Launches of sums over rows and over whole arrays.

use crate::pointwise::{elements_a_thread, narrow};
use crate::{Buf, Cuda, CudaReal, Driver, Grid, kernel};
use duel_backend::{Gemm, Result};
use duel_kernels::sys;

/// Threads of a block: REDUCE_THREADS of reduce.cu.
const THREADS: u32 = 256;
/// Columns of a block of column_reduce, and its warps: TILE of reduce.cu.
const TILE: usize = 32;
/// Fewest rows that a block sums.
const MIN_ROWS_A_BLOCK: usize = 8;
/// Most blocks that the rows are divided among: two for each multiprocessor of a large device.
const MAX_PARTS: usize = 256;
/// Elements of a block of sumsq.
const SQUARES_A_BLOCK: usize = 1 << 14;
/// Shared memory for a block's sum in double: one number for each warp.
const BLOCK_SUM: usize = THREADS as usize / 32 * size_of::<f64>();

/// Rows that one block sums where the sums of blocks are added up later. It depends on nothing but the rows, so that
/// the bits of a sum are the same on every device.
pub(crate) fn rows_a_block(rows: usize) -> usize {
    rows.div_ceil(MAX_PARTS).max(MIN_ROWS_A_BLOCK)
}

impl<D: Driver, R: CudaReal> Cuda<D, R> {
    /// `out[i][..width] +=` the sums over parts of `partials[i, parts, width]`.
    pub(crate) fn add_partials<const N: usize>(
        &self,
        out: [&mut Buf<D, f32>; N],
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
            *address = self.write(out, width).cast();
        }
        let threads = narrow(TILE * TILE);
        let grid = Grid::plane([width.div_ceil(TILE), N], [threads, 1]);
        // SAFETY: the kernel takes ColumnReduceParams; the outputs are checked, and the caller has just had the
        // partial sums written.
        unsafe { self.launch("column_reduce", grid.with_shared(TILE * TILE * size_of::<f32>()), &params) };
    }

    pub(crate) fn launch_bias_dw(&self, db: &mut Buf<D, f32>, dy: &Buf<D, R>, dims: Gemm) {
        let Gemm { m: rows, n: width, .. } = dims;
        dims.assert_dense();
        if rows * width == 0 {
            return;
        }
        let rows_a_block = rows_a_block(rows);
        let parts = rows.div_ceil(rows_a_block);
        let count = elements_a_thread::<R>(width);
        let packs = width.div_ceil(count);
        let team = packs.next_power_of_two().clamp(32, THREADS as usize);
        let threads = [narrow(team), THREADS / narrow(team)];
        let grid = Grid::plane([parts, packs.div_ceil(team)], threads)
            .with_shared(THREADS as usize * count * size_of::<f32>());
        self.with_scratch(parts * width * size_of::<f32>(), |address| {
            let params = sys::ColumnSumsParams {
                partials: address.cast(),
                dy: self.read(dy, rows * width),
                rows: narrow(rows),
                width: narrow(width),
                rows_a_block: narrow(rows_a_block),
            };
            // SAFETY: the kernel takes ColumnSumsParams; `read` checked its input, and the scratch is what it writes.
            unsafe { self.launch(kernel!(R, "column_sums"), grid, &params) };
            self.add_partials([db], address.cast(), parts, width);
        });
    }

    /// Writes the sum of squares of `x` to `out`, a double on the device, with `partials` of [`Cuda::squares_bytes`].
    fn sum_squares(&self, out: *mut f64, x: &Buf<D, f32>, partials: *mut f64) {
        let blocks = x.len().div_ceil(SQUARES_A_BLOCK);
        if blocks > 0 {
            let params = sys::SumsqParams {
                partials,
                x: self.read(x, x.len()).cast(),
                len: x.len() as u64,
                block: narrow(SQUARES_A_BLOCK),
            };
            let grid = Grid::linear(blocks, THREADS).with_shared(BLOCK_SUM);
            // SAFETY: the kernel takes SumsqParams, and the scratch has a double for each block.
            unsafe { self.launch("sumsq", grid, &params) };
        }
        let params = sys::SumDoublesParams { out, x: partials, len: narrow(blocks) };
        // SAFETY: the kernel takes SumDoublesParams, of the doubles just written and the caller's output.
        unsafe { self.launch("sum_doubles", Grid::linear(1, THREADS).with_shared(BLOCK_SUM), &params) };
    }

    /// Scratch of [`Cuda::sum_squares`].
    fn squares_bytes(x: &Buf<D, f32>) -> usize {
        x.len().div_ceil(SQUARES_A_BLOCK).max(1) * size_of::<f64>()
    }

    pub(crate) fn launch_square_sums(&self, xs: &[&Buf<D, f32>]) -> Result<Vec<f64>> {
        // The sums first, then what the longest needs: one wait serves them all.
        let longest = xs.iter().map(|x| Self::squares_bytes(x)).max().unwrap_or(0);
        let mut sums = vec![0.0; xs.len()];
        let bytes = size_of_val(sums.as_slice());
        self.with_scratch(bytes + longest, |address| {
            let (sums, partials) = (address.cast::<f64>(), address.wrapping_byte_add(bytes).cast());
            for (i, x) in xs.iter().enumerate() {
                self.sum_squares(sums.wrapping_add(i), x, partials);
            }
        });
        self.download_scratch(&mut sums)?;
        Ok(sums)
    }

    /// `sums[at] =` the sum of squares of `x`, as [`duel_backend::Backend::square_sums`], but left on the device.
    ///
    /// # Panics
    /// When there is no `sums[at]`.
    pub fn square_sum(&self, sums: &mut Buf<D, f64>, at: usize, x: &Buf<D, f32>) {
        let out = self.write(sums, at + 1).cast::<f64>().wrapping_add(at);
        self.with_scratch(Self::squares_bytes(x), |address| self.sum_squares(out, x, address.cast()));
    }

    /// `scale[0] =` the factor that clips a gradient to the norm `max_norm` (0: never), whose square is the sum of
    /// `sums[..count]`: `min(1, max_norm / (norm + 1e-6))`, as PyTorch computes it. For [`Cuda::adamw_clipped`] and
    /// [`Cuda::rmsprop_clipped`].
    ///
    /// # Panics
    /// When a buffer is too short.
    pub fn clip_scale(&self, scale: &mut Buf<D, f32>, sums: &Buf<D, f64>, count: usize, max_norm: f64) {
        let params = sys::ClipScaleParams {
            scale: self.write(scale, 1).cast(),
            sums: self.read(sums, count).cast(),
            max_norm,
            len: narrow(count),
        };
        // SAFETY: the kernel takes ClipScaleParams; `write` and `read` checked the buffers.
        unsafe { self.launch("clip_scale", Grid::linear(1, THREADS).with_shared(BLOCK_SUM), &params) };
    }
}
