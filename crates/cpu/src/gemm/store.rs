//! Tiles into the result.

use super::kernel::Dest;
use super::operand::{Init, Shape};
use crate::real::{Real, Scalar};
use crate::sync::SyncPtr;
use std::any::TypeId;

/// The tile at `(row, col)` of the result as a kernel's destination, where results are stored as sums are taken.
///
/// # Safety
/// The tile lies in `c`, and in what `init` adds.
pub unsafe fn direct<S: Scalar, C: Real<Acc = S>>(
    c: SyncPtr<C>,
    shape: Shape,
    row: usize,
    col: usize,
    init: Init<C>,
) -> Option<Dest<S>> {
    if TypeId::of::<C>() != TypeId::of::<S>() {
        return None;
    }
    // SAFETY: by this function's contract; C is S, so that the casts change nothing.
    unsafe {
        let out = c.at(row * shape.ldc + col).cast::<S>();
        let null = std::ptr::null();
        let (base, base_ld, bias) = match init {
            Init::Zero => (null, 0, null),
            Init::Keep => (out.cast_const(), shape.ldc, null),
            Init::Add(bias, residual) => (
                residual.map_or(null, |r| r.as_ptr().add(row * shape.n + col).cast::<S>()),
                shape.n,
                bias.map_or(null, |b| b.as_ptr().add(col).cast::<S>()),
            ),
        };
        Some(Dest { out, ld: shape.ldc, base, base_ld, bias })
    }
}

/// One row of a tile into the result; `at` is its place in the residual, `col` in the bias.
#[inline(always)]
pub fn merge_row<C: Real>(out: &mut [C], sums: &[C::Acc], init: Init<C>, at: usize, col: usize) {
    match init {
        Init::Zero | Init::Add(None, None) => {
            for (o, &s) in out.iter_mut().zip(sums) {
                *o = C::down(s);
            }
        }
        Init::Keep => {
            for (o, &s) in out.iter_mut().zip(sums) {
                *o = C::down(o.up() + s);
            }
        }
        Init::Add(Some(bias), None) => {
            for ((o, &s), b) in out.iter_mut().zip(sums).zip(&bias[col..]) {
                *o = C::down(b.up() + s);
            }
        }
        Init::Add(None, Some(residual)) => {
            for ((o, &s), r) in out.iter_mut().zip(sums).zip(&residual[at..]) {
                *o = C::down(r.up() + s);
            }
        }
        Init::Add(Some(bias), Some(residual)) => {
            for (((o, &s), b), r) in out.iter_mut().zip(sums).zip(&bias[col..]).zip(&residual[at..]) {
                *o = C::down(r.up() + (b.up() + s));
            }
        }
    }
}
