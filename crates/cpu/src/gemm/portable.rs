//! The micro-kernel of every type and CPU that has no better one.

use super::kernel::{Dest, Kernel, Transpose};
use crate::real::Scalar;

pub const fn kernel<S: Scalar>() -> Kernel<S> {
    Kernel { mr: 4, nr: 8, run: tile, transpose: transpose() }
}

pub const fn transpose<S: Scalar>() -> Transpose<S> {
    Transpose { side: 8, run: transpose_square }
}

/// # Safety
/// As [`Kernel::run`] says.
unsafe fn tile<S: Scalar>(kc: usize, a: *const S, b: *const S, dest: Dest<S>) {
    // SAFETY: the caller gives kc panels of 4 and 8 elements.
    let (a, b) = unsafe { (std::slice::from_raw_parts(a, kc * 4), std::slice::from_raw_parts(b, kc * 8)) };
    let mut acc = [[S::ZERO; 8]; 4];
    for (a, b) in a.chunks_exact(4).zip(b.chunks_exact(8)) {
        for i in 0..4 {
            for j in 0..8 {
                acc[i][j] += a[i] * b[j];
            }
        }
    }
    for (i, row) in acc.into_iter().enumerate() {
        for (j, mut sum) in row.into_iter().enumerate() {
            // SAFETY: the caller gives 4 rows of 8 elements of the base and of the result, and 8 of bias.
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
/// As [`Transpose::run`] says, with a side of 8.
unsafe fn transpose_square<S: Scalar>(square: *const S, out: *mut S, ld: usize, width: usize, depth: usize) {
    for q in 0..depth {
        for i in 0..width {
            // SAFETY: i and q are below the side, and the caller has room for column q.
            unsafe { *out.add(q * ld + i) = *square.add(i * 8 + q) };
        }
    }
}
