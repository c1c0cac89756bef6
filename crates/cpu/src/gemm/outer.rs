//! Products of few rows or columns, of operands that lie depth after depth, such as the gradients of an adapter's
//! weights: sums of outer products, for which the wide operand is read as it lies. Packing it takes as long as they do.

use super::block::{Product, blocks};
use super::choice::HasKernel;
use super::kernel::{SQUARE, Unit};
use super::operand::{Operand, Right};
use super::pack::{pack, room, same};
use super::store::{adds, finish_row};
use crate::real::{Lift, Pack, Real, Scalar};
use crate::sync::{Pool, SyncPtr};
use std::ops::Range;

/// Depths over which tiles are summed before the same ones go on: so many rows of the wide operand are read side by
/// side.
const DEEP: usize = 16;

/// Rows of the wide operand that are split among threads: whole tiles, whole squares, whole cache lines.
const UNIT: usize = 48;

/// The operands by their sizes.
pub(super) struct Sides<'a, S> {
    wide: Operand<'a, S>,
    rows: usize,
    narrow: Operand<'a, S>,
    width: usize,
    /// The wide one is the left one.
    upright: bool,
}

impl<'a, S, A, B, C> Product<'a, S, A, B, C>
where
    S: HasKernel,
    A: Lift<S>,
    B: Lift<S>,
    C: Real<Acc = S>,
{
    /// The operands, where one lies depth after depth, the other has no more rows than registers take, and the product
    /// is added to what is there.
    pub(super) fn sides(&self) -> Option<Sides<'a, S>> {
        let outer = &self.kernel.outer;
        let Right::Plain(b) = self.b else { return None };
        let (a, b) = (own(self.a)?, own(b)?);
        let (m, n) = (self.shape.m, self.shape.n);
        let sides = match n < m {
            true => Sides { wide: a, rows: m, narrow: b, width: n, upright: true },
            false => Sides { wide: b, rows: n, narrow: a, width: m, upright: false },
        };
        let (height, _) = *outer.run.get(sides.width.div_ceil(outer.lanes).checked_sub(1)?)?;
        let fits = sides.wide.rs == 1 && sides.rows >= height && self.shape.k > 0;
        (fits && self.keeps() && self.kernel.unit == Unit::Element).then_some(sides)
    }

    /// All of the product of these.
    ///
    /// # Safety
    /// As [`Product::run`].
    pub(super) unsafe fn outer(&self, pool: &Pool, sides: &Sides<S>) {
        let (k, &Sides { narrow, width, .. }) = (self.shape.k, sides);
        let padded = width.next_multiple_of(self.kernel.outer.lanes);
        S::with_shared(|shared| {
            let mut panel = narrow;
            if narrow.rs != 1 || width < padded {
                let packed = room(shared, padded * k);
                let whole = SyncPtr::new(packed);
                pool.split(k, SQUARE, pool.parts_of(padded * k), |depths| {
                    // SAFETY: these depths' part of the panel, and the room behind the last.
                    let (from, len) = (depths.start, depths.len());
                    let out =
                        unsafe { std::slice::from_raw_parts_mut(whole.at(from * padded), len * padded) };
                    pack(out, narrow, 0, width, from, len, padded, &self.kernel.transpose_small, 0);
                });
                panel = Operand { data: &*packed, rs: 1, cs: padded };
            }
            pool.split(sides.rows, UNIT, pool.parts_of(sides.rows * k), |rows| {
                S::with_pack(|Pack { sums, .. }| {
                    let one = (rows.len() + UNIT) * padded;
                    let (sums, turned) = room(sums, 2 * one).split_at_mut(one);
                    for depths in self.depths() {
                        self.sums(sides, panel, &rows, &depths, sums);
                        // SAFETY: this task's part of the result.
                        unsafe { self.add(sides, &rows, sums, turned) };
                    }
                });
            });
        });
    }

    /// The sums of rows of the wide operand over these depths, one row of the padded width after the other.
    fn sums(
        &self,
        sides: &Sides<S>,
        narrow: Operand<S>,
        rows: &Range<usize>,
        depths: &Range<usize>,
        sums: &mut [S],
    ) {
        let lanes = self.kernel.outer.lanes;
        let padded = sides.width.next_multiple_of(lanes);
        let (height, run) = self.kernel.outer.run[padded / lanes - 1];
        // A tile that would end behind the operand begins that much earlier.
        let first = |tile: &Range<usize>| tile.start.min(sides.rows - height);
        for deep in blocks(depths, DEEP) {
            for tile in blocks(rows, height) {
                let wide = &sides.wide.data[deep.start * sides.wide.cs + first(&tile)..];
                let narrow_at = &narrow.data[deep.start * narrow.cs..];
                let out = &mut sums[(tile.start - rows.start) * padded..][..height * padded];
                let last = deep.len() - 1;
                assert!(last * sides.wide.cs + height <= wide.len(), "no rows for a tile");
                assert!(last * narrow.cs + padded <= narrow_at.len(), "no columns for a tile");
                let resume = deep.start > depths.start;
                // SAFETY: as many elements of both at each depth (asserted), and the tile's room.
                unsafe {
                    let (a, b) = (wide.as_ptr(), narrow_at.as_ptr());
                    run(deep.len(), a, sides.wide.cs, b, narrow.cs, out.as_mut_ptr(), resume);
                }
            }
        }
        if let Some(tile) = blocks(rows, height).last() {
            let (at, early) = ((tile.start - rows.start) * padded, (tile.start - first(&tile)) * padded);
            sums.copy_within(at + early..at + height * padded, at);
        }
    }

    /// Adds sums to what the result holds.
    ///
    /// # Safety
    /// As [`Product::few`], of these rows of the wide operand.
    unsafe fn add(&self, sides: &Sides<S>, rows: &Range<usize>, sums: &[S], turned: &mut [S]) {
        let (ldc, adds) = (self.shape.ldc, adds(self.init));
        let (len, width) = (rows.len(), sides.width);
        let padded = width.next_multiple_of(self.kernel.outer.lanes);
        let add = |row: usize, from: usize, sums: &[S]| {
            // SAFETY: inside the caller's part.
            let c = unsafe { std::slice::from_raw_parts_mut(self.c.at(row * ldc + from), sums.len()) };
            finish_row(c, sums, true, adds, 0, 0);
        };
        if sides.upright {
            return rows.clone().zip(sums.chunks(padded)).for_each(|(row, sums)| add(row, 0, &sums[..width]));
        }
        let (transpose, ld) = (&self.kernel.transpose_small, len.next_multiple_of(UNIT));
        for (down, across) in blocks(&(0..len), transpose.side).flat_map(|down| {
            blocks(&(0..padded), transpose.side).map(move |across| (down.start, across.start))
        }) {
            let side = transpose.side;
            assert!((across + side - 1) * ld + down + side <= turned.len(), "no room on the side");
            assert!((down + side - 1) * padded + across + side <= sums.len(), "no sums for a square");
            // SAFETY: `side` rows of as many sums, and as many columns of the rows that receive them (asserted).
            unsafe {
                let (from, to) = (sums.as_ptr().add(down * padded + across), turned.as_mut_ptr());
                (transpose.run)(from, padded, to.add(across * ld + down), ld, side, side, 0);
            }
        }
        for (row, sums) in turned.chunks(ld).take(width).enumerate() {
            add(row, rows.start, &sums[..len]);
        }
    }
}

/// An operand of numbers as sums are.
fn own<S: Scalar, T: Lift<S>>(Operand { data, rs, cs }: Operand<T>) -> Option<Operand<S>> {
    let at = same::<*const T, *const S>(data.as_ptr())?;
    // SAFETY: the types are one (just found).
    Some(Operand { data: unsafe { std::slice::from_raw_parts(at, data.len()) }, rs, cs })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gemm::kernel::{Kernel, Outer};
    use crate::gemm::{Init, Shape, gemm_by};

    /// What is added to `c`, of rows of `a_ld` and `b_ld` numbers, of which the first `m` and `n` are multiplied.
    fn made(kernel: Kernel<f32>, threads: usize, shape: Shape, lds: [usize; 2]) -> Vec<f32> {
        let value = |i: usize| ((i * 2_654_435_761) % 1009) as f32 / 504.5 - 1.0;
        let [a, b] = lds.map(|ld| (0..shape.k * ld).map(|i| value(i + ld)).collect::<Vec<_>>());
        let mut c: Vec<f32> = (0..shape.m * shape.ldc).map(value).collect();
        let [a, b] = [(&a, lds[0]), (&b, lds[1])].map(|(data, cs)| Operand { data, rs: 1, cs });
        gemm_by(kernel, &Pool::new(threads), shape, &mut c, a, Right::Plain(b), Init::Keep);
        c
    }

    /// Either operand may be the narrow one, and its rows may lie among others; the packed product is the reference.
    #[test]
    fn bits_are_those_of_a_packed_product() {
        let kernel = f32::kernel();
        if kernel.outer.run.is_empty() {
            return println!("NOT TESTED: this machine has no kernels of outer products");
        }
        let widest = kernel.outer.lanes * kernel.outer.run.len();
        let mut seen = 0;
        for (rows, k) in [(24, 1), (61, 40), (700, 300), (1536, 257)] {
            for width in [1, 3, 8, 15, 16, 17, widest, widest + 1] {
                for (upright, beside, threads) in [(true, 0, 1), (true, 5, 3), (false, 0, 3), (false, 7, 1)] {
                    let (m, n) = if upright { (rows, width) } else { (width, rows) };
                    let (shape, lds) = (Shape { m, n, k, ldc: n + beside }, [m + beside, n + beside]);
                    let reference = Kernel { outer: Outer::NONE, ..f32::kernel() };
                    let want = made(reference, 1, shape, lds);
                    assert_eq!(made(f32::kernel(), threads, shape, lds), want, "{m} x {n} x {k}");
                    seen += 1;
                }
            }
        }
        assert_eq!(seen, 4 * 8 * 4);
    }
}
