//! Products of few rows or columns, of operands that lie depth after depth, such as the gradients of an adapter's
//! weights: sums of outer products, for which the wide operand is read as it lies. Packing it takes as long as they do.

use super::block::{Product, blocks};
use super::choice::HasKernel;
use super::kernel::{OuterTile, SQUARE};
use super::operand::{Operand, Right};
use super::pack::{pack, room, same};
use super::store::finish_row;
use crate::real::{Lift, Pack, Real, Scalar};
use crate::sync::{Pool, SyncPtr};
use std::ops::Range;

/// Depths that a tile is summed over before the next tile's turn: so many lines of the wide operand are read side by
/// side.
const DEEP: usize = 16;

/// The wide operand is split among threads in multiples of this: whole tiles, whole squares.
const UNIT: usize = 24;

/// The operands by their sizes.
#[derive(Clone, Copy)]
pub(super) struct Sides<'a, S> {
    wide: Operand<'a, S>,
    rows: usize,
    narrow: Operand<'a, S>,
    width: usize,
    /// The width in whole registers.
    padded: usize,
    /// The wide one is the left one: a tile is a part of the result as it is, otherwise one on its side.
    upright: bool,
    /// Rows of the wide one in a tile, and its kernel.
    height: usize,
    run: OuterTile<S>,
}

impl<S, A, B, C> Product<'_, S, A, B, C>
where
    S: HasKernel,
    A: Lift<S>,
    B: Lift<S>,
    C: Real<Acc = S>,
{
    /// The operands, where one lies depth after depth, the other has no more rows than registers take, and the product
    /// is added to what is there; and where that is faster than packed products are.
    pub(super) fn sides(&self) -> Option<Sides<'_, S>> {
        let outer = &self.kernel.outer;
        let Right::Plain(b) = self.b else { return None };
        let ((a, b), (m, n)) = ((own(self.a)?, own(b)?), (self.shape.m, self.shape.n));
        let upright = n < m;
        let (wide, rows, narrow, width) = if upright { (a, m, b, n) } else { (b, n, a, m) };
        let registers = width.div_ceil(outer.lanes);
        let &(height, run) = outer.run.get(registers - 1)?;
        let padded = registers * outer.lanes;
        // Packed tiles of few rows are full, where on their side these may be half empty.
        let pays = upright || registers <= outer.on_side && 2 * width > padded;
        let fits = wide.rs == 1 && rows >= height && self.shape.k > 0 && pays;
        let sides = Sides { wide, rows, narrow, width, padded, upright, height, run };
        (fits && self.keeps() && !self.keeps_aside()).then_some(sides)
    }

    /// All of the product of these.
    ///
    /// # Safety
    /// As [`Product::run`].
    pub(super) unsafe fn outer(&self, pool: &Pool, sides: &Sides<S>) {
        let (k, &Sides { narrow, width, padded, upright, .. }) = (self.shape.k, sides);
        let transpose = &self.kernel.transpose_small;
        assert!(padded.is_multiple_of(transpose.side) && sides.height <= UNIT, "tiles of another kind");
        S::with_shared(|shared| {
            let mut sides = *sides;
            if narrow.rs != 1 || width < padded {
                let packed = room(shared, padded * k);
                let whole = SyncPtr::new(packed);
                pool.split(k, SQUARE, pool.parts_of(padded * k), |depths| {
                    let (from, len) = (depths.start, depths.len());
                    // SAFETY: these depths' part of the panel. It is whole squares wide (asserted), so that packing
                    // needs no room behind it.
                    let out =
                        unsafe { std::slice::from_raw_parts_mut(whole.at(from * padded), len * padded) };
                    pack(out, narrow, 0, width, from, len, padded, transpose, 0);
                });
                sides.narrow = Operand { data: &*packed, rs: 1, cs: padded };
            }
            pool.split(sides.rows, UNIT, pool.parts_of(sides.rows * k), |rows| {
                S::with_pack(|Pack { sums, .. }| {
                    let one = (rows.len() + UNIT) * padded;
                    let (sums, turned) = room(sums, if upright { one } else { 2 * one }).split_at_mut(one);
                    for depths in self.depths() {
                        sides.sum(&rows, &depths, sums);
                        // SAFETY: nobody else has the part of the result that these rows make.
                        unsafe { self.add(&sides, &rows, sums, turned) };
                    }
                });
            });
        });
    }

    /// Adds sums to what the result holds.
    ///
    /// # Safety
    /// `c` has room for the shape, and no other thread touches the part of it that these rows of the wide operand make.
    unsafe fn add(&self, sides: &Sides<S>, rows: &Range<usize>, sums: &[S], turned: &mut [S]) {
        let (len, ldc, &Sides { width, padded, .. }) = (rows.len(), self.shape.ldc, sides);
        let add = |at: usize, sums: &[S]| {
            // SAFETY: inside the caller's part.
            let c = unsafe { std::slice::from_raw_parts_mut(self.c.at(at), sums.len()) };
            finish_row(c, sums, true, (None, None), 0, 0);
        };
        if sides.upright {
            // Rows without anything beside or between them are one.
            if ldc == width && width == padded {
                return add(rows.start * ldc, &sums[..len * ldc]);
            }
            return rows
                .clone()
                .zip(sums.chunks(padded))
                .for_each(|(row, sums)| add(row * ldc, &sums[..width]));
        }
        let (transpose, ld) = (&self.kernel.transpose_small, len.next_multiple_of(UNIT));
        let side = transpose.side;
        for down in (0..len).step_by(side) {
            for across in (0..padded).step_by(side) {
                assert!((across + side - 1) * ld + down + side <= turned.len(), "no room on the side");
                assert!((down + side - 1) * padded + across + side <= sums.len(), "no sums for a square");
                // SAFETY: `side` rows of as many sums, and as many columns of the rows that receive them (asserted).
                unsafe {
                    let (from, to) = (sums.as_ptr().add(down * padded + across), turned.as_mut_ptr());
                    (transpose.run)(from, padded, to.add(across * ld + down), ld, side, side, 0);
                }
            }
        }
        for (row, sums) in turned.chunks(ld).take(width).enumerate() {
            add(row * ldc + rows.start, &sums[..len]);
        }
    }
}

impl<S: Scalar> Sides<'_, S> {
    /// The sums of rows of the wide operand over these depths, one row of the padded width after the other.
    fn sum(&self, rows: &Range<usize>, depths: &Range<usize>, sums: &mut [S]) {
        let &Sides { wide, narrow, padded, height, run, .. } = self;
        // A tile that would end behind the operand begins that much earlier.
        let first = |tile: &Range<usize>| tile.start.min(self.rows - height);
        for deep in blocks(depths, DEEP) {
            for tile in blocks(rows, height) {
                let a = &wide.data[deep.start * wide.cs + first(&tile)..];
                let b = &narrow.data[deep.start * narrow.cs..];
                let out = &mut sums[(tile.start - rows.start) * padded..][..height * padded];
                let last = deep.len() - 1;
                assert!(
                    last * wide.cs + height <= a.len() && last * narrow.cs + padded <= b.len(),
                    "no tile"
                );
                let resume = deep.start > depths.start;
                // SAFETY: as many elements of both at each depth (asserted), and the tile's room.
                unsafe {
                    run(deep.len(), a.as_ptr(), wide.cs, b.as_ptr(), narrow.cs, out.as_mut_ptr(), resume)
                };
            }
        }
        if let Some(tile) = blocks(rows, height).last() {
            let (at, early) = ((tile.start - rows.start) * padded, (tile.start - first(&tile)) * padded);
            sums.copy_within(at + early..at + height * padded, at);
        }
    }
}

/// The operand, where its numbers are of the type that sums are taken in.
fn own<S: Scalar, T: Lift<S>>(Operand { data, rs, cs }: Operand<T>) -> Option<Operand<S>> {
    let at = same::<*const T, *const S>(data.as_ptr())?;
    // SAFETY: the types are one (just found).
    Some(Operand { data: unsafe { std::slice::from_raw_parts(at, data.len()) }, rs, cs })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gemm::kernel::{Kernel, Outer};
    use crate::gemm::{Init, Shape};

    /// What is added to `c`, by the kernel as it is or by packed products, and whether it was outer ones: of rows of
    /// `lds` numbers, of which the first `m` and `n` are multiplied; of the operand `along`, if any, one row after the
    /// other.
    fn made(
        kernel: Kernel<f32>,
        threads: usize,
        shape: Shape,
        lds: [usize; 2],
        along: Option<usize>,
    ) -> (Vec<u32>, bool) {
        let value = |i: usize| ((i * 2_654_435_761) % 1009) as f32 / 504.5 - 1.0;
        let data = lds.map(|ld| (0..shape.k * ld).map(|i| value(i + ld)).collect::<Vec<_>>());
        let mut c: Vec<f32> = (0..shape.m * shape.ldc).map(value).collect();
        // What lies beside the result would no longer be -0 if anything were added to it, even 0.
        c.chunks_mut(shape.ldc).for_each(|row| row[shape.n..].fill(-0.0));
        let [a, b] = [0, 1].map(|i| {
            let (rs, cs) = if along == Some(i) { (shape.k, 1) } else { (1, lds[i]) };
            Operand { data: &data[i][..], rs, cs }
        });
        let to = SyncPtr::new(&mut c);
        let product = Product { kernel, shape, c: to, a, b: Right::Plain(b), init: Init::Keep };
        let is_outer = product.sides().is_some();
        // SAFETY: the buffers are as large as the shape says.
        unsafe { product.run(&Pool::new(threads)) };
        (c.into_iter().map(f32::to_bits).collect(), is_outer)
    }

    /// Either operand may be the narrow one, whose rows may lie among others or one after the other; the packed product
    /// is the reference.
    #[test]
    fn bits_are_those_of_a_packed_product() {
        let Outer { lanes, on_side, run } = f32::kernel().outer;
        if run.is_empty() {
            return println!("NOT TESTED: this machine has no kernels of outer products");
        }
        let heights = run.iter().flat_map(|&(height, _)| [height - 1, height, height + 1]);
        let sizes = heights.map(|rows| (rows, 19)).chain([(61, 40), (700, 300), (1536, 257)]);
        let widest = lanes * run.len();
        for (rows, k) in sizes {
            for width in [1, 3, 8, 11, 12, 15, 16, 17, widest, widest + 1] {
                for (upright, beside, threads) in [(true, 0, 1), (true, 5, 3), (false, 0, 3), (false, 7, 1)] {
                    let (m, n) = if upright { (rows, width) } else { (width, rows) };
                    let (shape, lds) = (Shape { m, n, k, ldc: n + beside }, [m + beside, n + beside]);
                    for along in [None, Some(usize::from(upright))] {
                        let packed = Kernel { outer: Outer::NONE, ..f32::kernel() };
                        let (want, _) = made(packed, 1, shape, lds, along);
                        let (got, is_outer) = made(f32::kernel(), threads, shape, lds, along);
                        assert!(got == want, "{m} x {n} x {k}, {along:?}");
                        if width < rows {
                            let registers = width.div_ceil(lanes);
                            let tall = run.get(registers - 1).is_some_and(|&(height, _)| rows >= height);
                            let pays = upright || registers <= on_side && 2 * width > registers * lanes;
                            assert_eq!(is_outer, tall && pays, "{m} x {n} x {k}, {along:?}");
                        }
                    }
                }
            }
        }
    }
}
