//! Weights in 8-bit blocks, widened while they are packed: `q s`, which is exact in the type that sums are taken in, so
//! that a product has the bits of that of a matrix of such numbers.

use crate::Cpu;
use crate::real::{Real, Scalar};
use crate::simd::simd;
use duel_backend::Blocks;
use half::bf16;
use std::ops::Range;

/// Rows that lie side by side in a panel.
pub const LANES: usize = Blocks::<Cpu>::LANES;
/// Columns that share a scale.
pub const BLOCK: usize = Blocks::<Cpu>::BLOCK;

/// A matrix as [`Blocks`] lay it out: a panel after the other, of [`LANES`] rows column by column.
#[derive(Clone, Copy)]
pub struct Panels<'a> {
    values: &'a [i8],
    scales: &'a [bf16],
    rows: usize,
    cols: usize,
}

impl<'a> Panels<'a> {
    /// Of such blocks.
    pub fn of<R: Real>(blocks: &'a Blocks<Cpu<R>>) -> Self {
        let (rows, cols) = blocks.dims();
        let panels = Panels { values: blocks.values(), scales: blocks.scales(), rows, cols };
        assert_eq!(panels.values.len(), rows.div_ceil(LANES) * cols * LANES, "values of whole panels");
        assert_eq!(
            panels.scales.len(),
            rows.div_ceil(LANES) * panels.across() * LANES,
            "scales of whole panels"
        );
        panels
    }

    /// Blocks of a row.
    fn across(self) -> usize {
        self.cols.div_ceil(BLOCK)
    }

    /// # Panics
    /// When it is not a matrix of these dimensions.
    pub fn assert_holds(self, n: usize, k: usize) {
        assert_eq!((self.rows, self.cols), (n, k), "weights in blocks of another shape");
    }

    /// Values and scales from panel `panel` on, which is one of them.
    pub fn tile(self, panel: usize) -> (*const i8, *const bf16) {
        let (values, scales) = (panel * self.cols * LANES, panel * self.across() * LANES);
        (self.values[values..].as_ptr(), self.scales[scales..].as_ptr())
    }

    /// Packs rows `rows` and depths `depths` as [`pack`](super::pack::pack) does: into panels of `width` rows, a
    /// multiple of 8, filled up with zeros. `rows` start at a multiple of 8.
    pub fn pack<S: Scalar>(self, out: &mut [S], rows: &Range<usize>, depths: &Range<usize>, width: usize) {
        widen::<S>(out, self, rows.clone(), depths.clone(), width);
    }

    /// Row `r`.
    pub fn row<R: Real>(self, out: &mut [R], r: usize) {
        assert!(r < self.rows, "row {r} of {}", self.rows);
        let (values, scales) = (r / LANES * self.cols * LANES, r / LANES * self.across() * LANES);
        let lane = |from: usize, i: usize| from + i * LANES + r % LANES;
        for (block, out) in out[..self.cols].chunks_mut(BLOCK).enumerate() {
            let scale = f32::from(self.scales[lane(scales, block)]);
            for (c, out) in (block * BLOCK..).zip(out) {
                *out = R::down(R::Acc::of_f32(f32::from(self.values[lane(values, c)]) * scale));
            }
        }
    }
}

simd! {
    /// As [`Panels::pack`].
    pub fn widen<S: Scalar>(
        out: &mut [S],
        from: Panels<'_>,
        rows: Range<usize>,
        depths: Range<usize>,
        width: usize,
    ) {
        let size = width * depths.len();
        for (panel, first) in rows.step_by(width).enumerate() {
            let out = &mut out[panel * size..][..size];
            if first.is_multiple_of(LANES) && width.is_multiple_of(LANES) {
                (0..width).step_by(LANES).for_each(|i| widen_lanes::<LANES, S>(out, from, first, i, &depths, width));
            } else {
                (0..width).step_by(8).for_each(|i| widen_lanes::<8, S>(out, from, first, i, &depths, width));
            }
        }
    }
}

/// Rows `first + i` to `first + i + N` of a packed panel; they lie in one of `from`, or behind all.
#[inline(always)]
fn widen_lanes<const N: usize, S: Scalar>(
    out: &mut [S],
    from: Panels<'_>,
    first: usize,
    i: usize,
    depths: &Range<usize>,
    width: usize,
) {
    let (panel, lane) = ((first + i) / LANES, (first + i) % LANES);
    let mut out =
        out.chunks_exact_mut(width).map(|out| out[i..].first_chunk_mut::<N>().expect("a multiple of N"));
    if panel * LANES >= from.rows {
        return out.for_each(|out| *out = [S::ZERO; N]);
    }
    let (values, scales) = (panel * from.cols * LANES + lane, panel * from.across() * LANES + lane);
    let (mut p, end) = (depths.start, depths.end);
    while p < end {
        let scales = from.scales[scales + p / BLOCK * LANES..].first_chunk::<N>().expect("whole panels");
        let scales = scales.map(|x| f32::from_bits(u32::from(x.to_bits()) << 16));
        let next = end.min((p / BLOCK + 1) * BLOCK);
        for (p, out) in (p..next).zip(&mut out) {
            let values = from.values[values + p * LANES..].first_chunk::<N>().expect("whole panels");
            for ((out, value), scale) in out.iter_mut().zip(values).zip(&scales) {
                *out = S::of_f32(f32::from(*value) * scale);
            }
        }
        p = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use duel_backend::{Gemm, Products, Weight};

    fn value(i: usize) -> f64 {
        ((i * 2_654_435_761) % 1009) as f64 / 504.5 - 1.0
    }

    /// Whichever kernels make it, and on any number of threads.
    #[test]
    fn a_product_has_the_bits_of_that_of_the_widened_matrix() {
        fn check<R: Real>(weights_of: impl Fn(&[f32]) -> Vec<R>)
        where
            R::Acc: crate::gemm::HasKernel,
        {
            for (n, k) in [(1, 1), (15, 31), (75, 33), (112, 64), (130, 800), (33, 0)] {
                let matrix: Vec<f64> = (0..n * k).map(|i| value(i) * value(i / 7)).collect();
                for (threads, m) in [(1, 1), (3, 1), (1, 2), (2, 3), (1, 5), (2, 16), (3, 40), (1, 140)] {
                    let cpu = Cpu::<R>::new(threads);
                    let blocks = Blocks::of(&cpu, &matrix, n, k).unwrap();
                    let real = |n: usize, from: usize| -> Vec<R> {
                        (from..from + n).map(|i| R::from_f64(value(i))).collect()
                    };
                    let (x, bias, residual) = (real(m * k, 1), real(n, 2), real(m * n, 3));
                    let (mut got, mut want) = (real(m * n, 4), real(m * n, 5));
                    let dims = Gemm::dense(m, n, k);
                    cpu.gemm(&mut got, &x, Weight::Blocks(&blocks), Some(&bias), Some(&residual), dims);
                    let widened = weights_of(&blocks.to_f32(&cpu).unwrap());
                    cpu.gemm(&mut want, &x, &widened, Some(&bias), Some(&residual), dims);
                    assert_eq!(got, want, "{m}x{n}x{k} on {threads} threads");
                }
            }
        }
        check::<f32>(<[f32]>::to_vec);
        check::<f64>(|w| w.iter().map(|w| f64::from(*w)).collect());
    }

    /// Rows in bf16 are multiplied with the same weights, and the sum is rounded once.
    #[test]
    fn rows_in_bf16_meet_weights_that_are_not() {
        let (m, n, k) = (5, 40, 300);
        let matrix: Vec<f64> = (0..n * k).map(value).collect();
        let (narrow, wide) = (Cpu::<bf16>::new(2), Cpu::<f32>::new(1));
        let x: Vec<bf16> = (0..m * k).map(|i| bf16::from_f64(value(i + 3))).collect();
        let lifted = x.iter().map(|x| x.to_f32()).collect();
        let (mut got, mut sums) = (vec![bf16::ZERO; m * n], vec![0.0; m * n]);
        let blocks = Blocks::of(&narrow, &matrix, n, k).unwrap();
        narrow.gemm(&mut got, &x, Weight::Blocks(&blocks), None, None, Gemm::dense(m, n, k));
        let blocks = Blocks::of(&wide, &matrix, n, k).unwrap();
        wide.gemm(&mut sums, &lifted, Weight::Blocks(&blocks), None, None, Gemm::dense(m, n, k));
        let want: Vec<bf16> = sums.iter().map(|sum| bf16::from_f32(*sum)).collect();
        assert_eq!(got, want);
    }

    #[test]
    fn a_row_is_what_the_matrix_has() {
        let (n, k) = (35, 71);
        let cpu = Cpu::<f32>::new(1);
        let matrix: Vec<f64> = (0..n * k).map(value).collect();
        let blocks = Blocks::of(&cpu, &matrix, n, k).unwrap();
        let (mut row, all) = (vec![0f32; k], blocks.to_f32(&cpu).unwrap());
        for r in 0..n {
            Panels::of(&blocks).row(&mut row, r);
            assert_eq!(row, all[r * k..][..k], "row {r}");
        }
    }
}
