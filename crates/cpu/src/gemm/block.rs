//! The loops over packed blocks that make one thread's part of a product.

use super::band::Band;
use super::choice::HasKernel;
use super::kernel::{Dest, Kernel, SQUARE, TILE};
use super::operand::{Init, Operand, Shape};
use super::pack::{grow, pack};
use super::store::{direct, merge_row};
use crate::real::{Lift, Pack, Real};
use crate::sync::SyncPtr;
use std::ops::Range;

/// Largest depth of a packed block. With it the order of sums changes, and so do the bits of a result: whoever keeps
/// results on disk must then tell them apart. A deep block reads and writes the result seldom; its panels still stream
/// from the L2 cache faster than the kernel uses them up.
pub const KC: usize = 768;
/// Columns of a packed block of `b`.
const NC: usize = 1024;
/// Micro-panels of a packed block of `a`, which stays in the L2 cache.
const MC_PANELS: usize = 12;

/// The part `rows` x `cols` of the product, on this thread.
///
/// # Safety
/// `c` has room for the shape, and no other thread touches that part of it.
pub unsafe fn block<S, A, B, C>(
    kernel: &Kernel<S>,
    shape: Shape,
    band: Band,
    rows: Range<usize>,
    cols: Range<usize>,
    c: SyncPtr<C>,
    a: Operand<A>,
    b: Operand<B>,
    init: Init<C>,
) where
    S: HasKernel,
    A: Lift<S>,
    B: Lift<S>,
    C: Real<Acc = S>,
{
    let (mr, nr) = (kernel.mr, kernel.nr);
    let mc = mr * MC_PANELS;
    // A result narrower than its sums must not be rounded between blocks.
    let depth = if size_of::<C>() < size_of::<S>() { shape.k.max(1) } else { block_depth(shape.k) };
    S::with_pack(|Pack { a: packed_a, b: packed_b }| {
        let need_a = mc.min(rows.len().next_multiple_of(mr)) * depth.min(shape.k);
        let need_b = NC.next_multiple_of(nr).min(cols.len().next_multiple_of(nr)) * depth.min(shape.k);
        grow(packed_a, need_a);
        grow(packed_b, need_b);
        let mut tile = [S::ZERO; TILE];
        for jc in cols.clone().step_by(NC) {
            let ncols = NC.min(cols.end - jc);
            for pc in (0..shape.k.max(1)).step_by(depth) {
                let kc = depth.min(shape.k - pc);
                let init = if pc == 0 { init } else { Init::Keep };
                pack(packed_b, b, jc, ncols, pc, kc, nr, &kernel.transpose);
                for ic in rows.clone().step_by(mc) {
                    let nrows = mc.min(rows.end - ic);
                    pack(packed_a, a, ic, nrows, pc, kc, mr, &kernel.transpose);
                    for jr in (0..ncols).step_by(nr) {
                        let width = nr.min(ncols - jr);
                        for ir in (0..nrows).step_by(mr) {
                            let height = mr.min(nrows - ir);
                            let (row, col) = (ic + ir, jc + jr);
                            if !band.needs(row + height - 1, col) {
                                continue;
                            }
                            let depths = band.depths(row, row + height - 1, pc, pc + kc);
                            let whole = height == mr && width == nr;
                            let in_place = match whole {
                                // SAFETY: the whole tile is in the caller's part of c, and in init (asserted).
                                true => unsafe { direct(c, shape, row, col, init) },
                                false => None,
                            };
                            let aside = Dest {
                                out: tile.as_mut_ptr(),
                                ld: nr,
                                base: std::ptr::null(),
                                base_ld: 0,
                                bias: std::ptr::null(),
                            };
                            // SAFETY: panels are packed to whole multiples of mr and nr; a destination in c is a whole
                            // tile, and the one aside holds mr * nr.
                            unsafe {
                                (kernel.run)(
                                    depths.len(),
                                    packed_a.as_ptr().add(ir * kc + (depths.start - pc) * mr),
                                    packed_b.as_ptr().add(jr * kc + (depths.start - pc) * nr),
                                    in_place.unwrap_or(aside),
                                );
                            }
                            if in_place.is_some() {
                                continue;
                            }
                            for i in 0..height {
                                // SAFETY: row `row + i`, columns `col .. col + width` are inside the caller's part.
                                let out = unsafe {
                                    std::slice::from_raw_parts_mut(c.at((row + i) * shape.ldc + col), width)
                                };
                                let sums = &tile[i * nr..i * nr + width];
                                merge_row(out, sums, init, (row + i) * shape.n + col, col);
                            }
                        }
                    }
                }
            }
        }
    });
}

/// Depth of the packed blocks of a sum over `k`: all of one size but the last. It depends on `k` alone, and with it the
/// order of the sums.
fn block_depth(k: usize) -> usize {
    let blocks = k.div_ceil(KC).max(1);
    k.div_ceil(blocks).next_multiple_of(SQUARE).max(1)
}
