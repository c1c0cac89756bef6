//! Sums of squares, and the factor by which they clip a gradient.

use crate::grid::narrow;
use crate::{Buf, Cuda, CudaReal, Driver, Grid};
use duel_kernels::sys;

/// Elements of a block of sumsq.
const SQUARES_A_BLOCK: usize = 1 << 14;

impl<D: Driver, R: CudaReal> Cuda<D, R> {
    /// Blocks that each sum in double.
    fn sum_grid(blocks: usize) -> Grid {
        Grid::linear(blocks, sys::ROW_THREADS).with_shared(sys::BLOCK_SUM_BYTES)
    }

    /// Writes the sum of squares of `x` to `out`, a double on the device, with `partials` of [`Cuda::squares_bytes`].
    pub(crate) fn sum_squares(&self, out: *mut f64, x: &Buf<D, f32>, partials: *mut f64) {
        let blocks = x.len().div_ceil(SQUARES_A_BLOCK);
        if blocks > 0 {
            let params = sys::SumsqParams {
                partials,
                x: self.read(x, x.len()).cast(),
                len: x.len() as u64,
                block: narrow(SQUARES_A_BLOCK),
            };
            let grid = Self::sum_grid(blocks);
            // SAFETY: the kernel takes SumsqParams, and the scratch has a double for each block.
            unsafe { self.launch("sumsq", grid, &params) };
        }
        let params = sys::SumDoublesParams { out, x: partials, len: narrow(blocks) };
        // SAFETY: the kernel takes SumDoublesParams, of the doubles just written and the caller's output.
        unsafe { self.launch("sum_doubles", Self::sum_grid(1), &params) };
    }

    /// Scratch of [`Cuda::sum_squares`].
    pub(crate) fn squares_bytes(x: &Buf<D, f32>) -> usize {
        x.len().div_ceil(SQUARES_A_BLOCK).max(1) * size_of::<f64>()
    }

    /// `sums[at] =` the sum of squares of `x`, as [`duel_backend::Update::square_sums`], but left on the device.
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
        unsafe { self.launch("clip_scale", Self::sum_grid(1), &params) };
    }
}
