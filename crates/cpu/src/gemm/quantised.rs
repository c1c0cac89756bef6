//! Weights in blocks, widened while they are packed: to numbers of float32, so that a product has the bits of that of a
//! matrix of such numbers.

use super::kernel::{SQUARE, Transpose};
use crate::Cpu;
use crate::real::{Real, Scalar};
use crate::simd::simd;
use duel_backend::{Bits, Blocks};
use half::bf16;
use std::ops::Range;

/// Rows that lie side by side in a panel.
pub const LANES: usize = Blocks::<Cpu>::LANES;
/// Columns that share factors.
pub const BLOCK: usize = Blocks::<Cpu>::BLOCK;

/// A matrix as [`Blocks`] lay it out: a panel after the other, of [`LANES`] rows column by column.
#[derive(Clone, Copy)]
pub struct Panels<'a> {
    pub bits: Bits,
    values: &'a [i8],
    factors: &'a [bf16],
    rows: usize,
    cols: usize,
}

impl<'a> Panels<'a> {
    /// Of such blocks.
    pub fn of<R: Real>(blocks: &'a Blocks<Cpu<R>>) -> Self {
        let (rows, cols) = blocks.dims();
        let panels =
            Panels { bits: blocks.bits(), values: blocks.values(), factors: blocks.factors(), rows, cols };
        let count = rows.div_ceil(LANES);
        assert_eq!(panels.values.len(), count * panels.bytes(), "numbers of whole panels");
        assert_eq!(panels.factors.len(), count * panels.factors(), "factors of whole panels");
        panels
    }

    /// Bytes of a panel's numbers.
    fn bytes(self) -> usize {
        self.cols.div_ceil(self.bits.per_byte()) * LANES
    }

    /// Factors of a panel.
    fn factors(self) -> usize {
        self.cols.div_ceil(BLOCK) * self.bits.factors() * LANES
    }

    /// # Panics
    /// When it is not a matrix of these dimensions.
    pub fn assert_holds(self, n: usize, k: usize) {
        assert_eq!((self.rows, self.cols), (n, k), "weights in blocks of another shape");
    }

    /// Numbers and factors from panel `panel` on, which is one of them.
    pub fn tile(self, panel: usize) -> (*const i8, *const bf16) {
        (self.values[panel * self.bytes()..].as_ptr(), self.factors[panel * self.factors()..].as_ptr())
    }

    /// Packs rows `rows` and depths `depths` as [`pack`](super::pack::pack) does: into panels of `width` rows, a
    /// multiple of 8, filled up with zeros. `rows` start at a multiple of 8.
    pub fn pack<S: Scalar>(self, out: &mut [S], rows: &Range<usize>, depths: &Range<usize>, width: usize) {
        widen::<S>(out, self, rows.clone(), depths.clone(), width);
    }

    /// The same of the matrix on its side: `rows` are some of its columns and `depths`, from a multiple of [`LANES`]
    /// on, some of its rows; `width` is a multiple of the transposition's side.
    pub fn pack_turned<S: Scalar>(
        self,
        out: &mut [S],
        rows: &Range<usize>,
        depths: &Range<usize>,
        width: usize,
        transpose: &Transpose<S>,
    ) {
        assert!(depths.start.is_multiple_of(LANES) && width.is_multiple_of(transpose.side), "cut panels");
        assert!(depths.end <= self.rows && rows.end <= self.cols, "no such weights");
        assert!(rows.len().next_multiple_of(width) * depths.len() <= out.len(), "no room for the panels");
        widen_turned::<S>(out, self, rows.clone(), depths.clone(), width, transpose);
    }

    /// Row `r`.
    pub fn row<R: Real>(self, out: &mut [R], r: usize) {
        assert!(r < self.rows, "row {r} of {}", self.rows);
        let mut out = out[..self.cols].iter_mut();
        self.columns::<1>(r / LANES, r % LANES, 0..self.cols, |[x]| {
            out.next().into_iter().for_each(|out| *out = R::down(R::Acc::of_f32(x)));
        });
    }

    /// Hands the `N` rows from `lane` on of a panel to `put`, column by column.
    #[inline(always)]
    fn columns<const N: usize>(
        self,
        panel: usize,
        lane: usize,
        cols: Range<usize>,
        mut put: impl FnMut([f32; N]),
    ) {
        let (values, factors) = (panel * self.bytes() + lane, panel * self.factors() + lane);
        let value = |at: usize| self.values[values + at * LANES..].first_chunk::<N>().expect("whole panels");
        let factor = |at: usize| {
            let factors = self.factors[factors + at * LANES..].first_chunk::<N>().expect("whole panels");
            factors.map(|x| f32::from_bits(u32::from(x.to_bits()) << 16))
        };
        let (mut p, end) = (cols.start, cols.end);
        while p < end {
            let (block, next) = (p / BLOCK, end.min((p / BLOCK + 1) * BLOCK));
            match self.bits {
                Bits::Eight => {
                    let scales = factor(block);
                    for p in p..next {
                        let values = value(p);
                        put(std::array::from_fn(|i| f32::from(values[i]) * scales[i]));
                    }
                }
                Bits::Four => {
                    let (scales, minima) = (factor(2 * block), factor(2 * block + 1));
                    let number = |pair: i8, half: usize| {
                        let pair = pair.cast_unsigned();
                        f32::from(if half == 0 { pair & 15 } else { pair >> 4 })
                    };
                    for p in p..next {
                        let values = value(p / 2);
                        put(std::array::from_fn(|i| number(values[i], p % 2) * scales[i] + minima[i]));
                    }
                }
            }
            p = next;
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

    /// As [`Panels::pack_turned`], which checks the sizes.
    pub fn widen_turned<S: Scalar>(
        out: &mut [S],
        from: Panels<'_>,
        rows: Range<usize>,
        depths: Range<usize>,
        width: usize,
        transpose: &Transpose<S>,
    ) {
        let side = transpose.side;
        for (panel, first) in rows.clone().step_by(width).enumerate() {
            let out = &mut out[panel * width * depths.len()..][..width * depths.len()];
            for (strip, p) in depths.clone().step_by(LANES).enumerate() {
                let depth = LANES.min(depths.end - p);
                for across in (0..width).step_by(side) {
                    // Columns of the blocks, each of all lanes of a panel.
                    let mut square = [[S::ZERO; LANES]; SQUARE];
                    let mut lines = square.iter_mut();
                    let cols = first + across..rows.end.min(first + across + side);
                    from.columns::<LANES>(p / LANES, 0, cols, |column| {
                        lines.next().into_iter().for_each(|line| *line = column.map(S::of_f32));
                    });
                    let to = &mut out[strip * LANES * width + across..];
                    // SAFETY: a side of lines of LANES, a multiple of it, and `depth` rows of the panel, whose width
                    // the side divides.
                    unsafe { (transpose.run)(square.as_ptr().cast(), LANES, to.as_mut_ptr(), width, side, depth, 0) };
                }
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
    from.columns::<N>(panel, lane, depths.clone(), |column| {
        out.next().into_iter().for_each(|out| *out = column.map(S::of_f32));
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use duel_backend::{Gemm, Products, Weight};

    const BITS: [Bits; 2] = [Bits::Four, Bits::Eight];

    fn value(i: usize) -> f64 {
        ((i * 2_654_435_761) % 1009) as f64 / 504.5 - 1.0
    }

    /// Whichever kernels make it, and on any number of threads; forward, and backward to the input.
    #[test]
    fn a_product_has_the_bits_of_that_of_the_widened_matrix() {
        fn check<R: Real>(bits: Bits, weights_of: impl Fn(&[f32]) -> Vec<R>)
        where
            R::Acc: crate::gemm::HasKernel,
        {
            for (n, k) in [(1, 1), (15, 31), (75, 33), (112, 64), (130, 800), (810, 70), (33, 0)] {
                let matrix: Vec<f64> = (0..n * k).map(|i| value(i) * value(i / 7) + value(i / 50)).collect();
                for (threads, m) in [(1, 1), (3, 1), (1, 2), (2, 3), (1, 5), (2, 16), (3, 40), (1, 140)] {
                    let cpu = Cpu::<R>::new(threads);
                    let blocks = Blocks::of(&cpu, bits, &matrix, n, k).unwrap();
                    let real = |n: usize, from: usize| -> Vec<R> {
                        (from..from + n).map(|i| R::from_f64(value(i))).collect()
                    };
                    let (x, bias, residual) = (real(m * k, 1), real(n, 2), real(m * n, 3));
                    let (mut got, mut want) = (real(m * n, 4), real(m * n, 5));
                    let dims = Gemm::dense(m, n, k);
                    cpu.gemm(&mut got, &x, Weight::Blocks(&blocks), Some(&bias), Some(&residual), dims);
                    let widened = weights_of(&blocks.to_f32(&cpu).unwrap());
                    cpu.gemm(&mut want, &x, &widened, Some(&bias), Some(&residual), dims);
                    assert_eq!(got, want, "{m}x{n}x{k} of {bits:?} on {threads} threads");
                    let (mut got, mut want) = (real(m * k, 6), real(m * k, 7));
                    cpu.gemm_dx(&mut got, &residual, Weight::Blocks(&blocks), dims);
                    cpu.gemm_dx(&mut want, &residual, &widened, dims);
                    assert_eq!(got, want, "the input of {m}x{n}x{k} of {bits:?} on {threads} threads");
                }
            }
        }
        for bits in BITS {
            check::<f32>(bits, <[f32]>::to_vec);
            check::<f64>(bits, |w| w.iter().map(|w| f64::from(*w)).collect());
        }
    }

    /// Rows in bf16 are multiplied with the same weights, and the sum is rounded once.
    #[test]
    fn rows_in_bf16_meet_weights_that_are_not() {
        let (m, n, k) = (5, 40, 300);
        let matrix: Vec<f64> = (0..n * k).map(value).collect();
        let (narrow, wide) = (Cpu::<bf16>::new(2), Cpu::<f32>::new(1));
        let x: Vec<bf16> = (0..m * k).map(|i| bf16::from_f64(value(i + 3))).collect();
        let lifted = x.iter().map(|x| x.to_f32()).collect();
        for bits in BITS {
            let (mut got, mut sums) = (vec![bf16::ZERO; m * n], vec![0.0; m * n]);
            let blocks = Blocks::of(&narrow, bits, &matrix, n, k).unwrap();
            narrow.gemm(&mut got, &x, Weight::Blocks(&blocks), None, None, Gemm::dense(m, n, k));
            let blocks = Blocks::of(&wide, bits, &matrix, n, k).unwrap();
            wide.gemm(&mut sums, &lifted, Weight::Blocks(&blocks), None, None, Gemm::dense(m, n, k));
            let want: Vec<bf16> = sums.iter().map(|sum| bf16::from_f32(*sum)).collect();
            assert_eq!(got, want, "{bits:?}");
        }
    }

    #[test]
    fn a_row_is_what_the_matrix_has() {
        let (n, k) = (35, 71);
        let cpu = Cpu::<f32>::new(1);
        let matrix: Vec<f64> = (0..n * k).map(value).collect();
        for bits in BITS {
            let blocks = Blocks::of(&cpu, bits, &matrix, n, k).unwrap();
            let (mut row, all) = (vec![0f32; k], blocks.to_f32(&cpu).unwrap());
            for r in 0..n {
                Panels::of(&blocks).row(&mut row, r);
                assert_eq!(row, all[r * k..][..k], "row {r} of {bits:?}");
            }
        }
    }

    #[test]
    fn rows_are_filled_in_one_after_another() {
        let (n, k) = (53, 45);
        let cpu = Cpu::<f32>::new(1);
        let matrix: Vec<f64> = (0..n * k).map(value).collect();
        for bits in BITS {
            let whole = Blocks::of(&cpu, bits, &matrix, n, k).unwrap();
            let mut parts = Blocks::new(&cpu, bits, n, k).unwrap();
            for first in [32, 0] {
                parts.fill(&cpu, first, &matrix[first * k..n.min(first + 32) * k]);
            }
            assert_eq!((parts.values(), parts.factors()), (whole.values(), whole.factors()), "{bits:?}");
        }
    }
}
