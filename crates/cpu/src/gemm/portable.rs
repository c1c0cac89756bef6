//! The micro-kernel of every type and CPU that has no better one.

use super::kernel::{Dest, Kernel, Outer, Thin, Transpose, Turned, Unit};
use crate::real::{Lift, Scalar};
use half::bf16;

pub const fn kernel<S: Scalar>() -> Kernel<S> {
    Kernel {
        mr: 4,
        nr: 8,
        depth: 256,
        panels: 24,
        run: const { &[tile::<S, 1>, tile::<S, 2>, tile::<S, 3>, tile::<S, 4>] },
        transpose: transpose(),
        transpose_small: transpose(),
        thin: Thin::NONE,
        turned: Turned::NONE,
        outer: Outer::NONE,
        unit: Unit::Element,
        registers: None,
    }
}

pub const fn transpose<S: Scalar>() -> Transpose<S> {
    Transpose { side: 8, run: turn::<S, S>, narrow: turn::<bf16, S> }
}

/// # Safety
/// As [`Tile`](super::kernel::Tile) says, for `H` rows.
unsafe fn tile<S: Scalar, const H: usize>(kc: usize, a: *const S, b: *const S, dest: Dest<S>) {
    // SAFETY: by this function's contract.
    unsafe { tile_by::<S, H>(kc, a, b, dest, |x, y, acc| acc + x * y) }
}

/// [`tile`], with what is made of an element of each operand and a sum.
///
/// # Safety
/// As [`Tile`](super::kernel::Tile) says, for `H` rows.
#[inline(always)]
pub unsafe fn tile_by<S: Scalar, const H: usize>(
    kc: usize,
    a: *const S,
    b: *const S,
    dest: Dest<S>,
    add: impl Fn(S, S, S) -> S,
) {
    // SAFETY: the caller gives kc panels of 4 and 8 elements.
    let (a, b) = unsafe { (std::slice::from_raw_parts(a, kc * 4), std::slice::from_raw_parts(b, kc * 8)) };
    let mut acc = [[S::ZERO; 8]; H];
    if dest.resume {
        for (i, row) in acc.iter_mut().enumerate() {
            for (j, sum) in row.iter_mut().enumerate() {
                // SAFETY: the caller gives H rows of 8 elements.
                *sum = unsafe { *dest.out.add(i * dest.ld + j) };
            }
        }
    }
    for (a, b) in a.chunks_exact(4).zip(b.chunks_exact(8)) {
        for i in 0..H {
            for j in 0..8 {
                acc[i][j] = add(a[i], b[j], acc[i][j]);
            }
        }
    }
    for (i, row) in acc.into_iter().enumerate() {
        for (j, mut sum) in row.into_iter().enumerate() {
            // SAFETY: the caller gives H rows of 8 elements of the base and of the result, and 8 of bias.
            unsafe {
                if !dest.bias.is_null() {
                    sum = *dest.bias.add(j) + sum;
                }
                if !dest.base.is_null() {
                    sum = *dest.base.add(i * dest.base_ld + j) + sum;
                }
                *dest.out.add(i * dest.ld + j) = sum;
            }
        }
    }
}

/// # Safety
/// As [`Turn`](super::kernel::Turn) says, with a side of 8.
unsafe fn turn<T: Lift<S>, S: Scalar>(
    from: *const T,
    from_ld: usize,
    out: *mut S,
    ld: usize,
    width: usize,
    depth: usize,
    _: usize,
) {
    for q in 0..depth {
        for i in 0..width {
            // SAFETY: i is below the side, q below the depth, and the caller has room for column q.
            unsafe { *out.add(q * ld + i) = (*from.add(i * from_ld + q)).lift() };
        }
    }
}
