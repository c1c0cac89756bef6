//! Tiles into the result.

use super::kernel::Dest;
use super::operand::{Init, Shape};
use super::soon::Soon;
use crate::real::{Real, Scalar};
use crate::simd::simd;
use crate::sync::SyncPtr;
use std::any::TypeId;

/// A row of biases and a residual of the result's shape.
pub type Adds<'a, C> = (Option<&'a [C]>, Option<&'a [C]>);

/// What is added to the sums when they are complete.
pub fn adds<C>(init: Init<C>) -> Adds<C> {
    match init {
        Init::Zero | Init::Keep => (None, None),
        Init::Add(bias, residual) => (bias, residual),
    }
}

/// The tile at `(row, col)` of the result as a kernel's destination, where results are stored as sums are taken.
/// `add_old`: to what it holds.
///
/// # Safety
/// The tile lies in `c`, and in what is added.
pub unsafe fn in_place<S: Scalar, C: Real<Acc = S>>(
    c: SyncPtr<C>,
    shape: Shape,
    row: usize,
    col: usize,
    resume: bool,
    add_old: bool,
    (bias, residual): Adds<C>,
) -> Option<Dest<S>> {
    if TypeId::of::<C>() != TypeId::of::<S>() {
        return None;
    }
    let null = std::ptr::null();
    // SAFETY: by this function's contract; C is S, so that the casts change nothing.
    unsafe {
        let out = c.at(row * shape.ldc + col).cast::<S>();
        let (base, base_ld) = match residual {
            Some(r) => (r.as_ptr().add(row * shape.n + col).cast::<S>(), shape.n),
            None => (if add_old { out.cast_const() } else { null }, shape.ldc),
        };
        Some(Dest {
            out,
            ld: shape.ldc,
            resume,
            base,
            base_ld,
            bias: bias.map_or(null, |b| b.as_ptr().add(col).cast::<S>()),
            soon: Soon::NOTHING,
        })
    }
}

simd! {
    /// One row of a tile into the result, or to what it holds where `add_old`; `at` is its place in the residual, `col`
    /// in the bias.
    pub fn finish_row<C: Real>(
        out: &mut [C],
        sums: &[C::Acc],
        add_old: bool,
        adds: Adds<C>,
        at: usize,
        col: usize,
    ) {
        let n = out.len().min(sums.len());
        let (out, sums) = (&mut out[..n], &sums[..n]);
        match (adds.0.map(|b| &b[col..][..n]), adds.1.map(|r| &r[at..][..n])) {
            (None, None) if add_old => (0..n).for_each(|j| out[j] = C::down(out[j].up() + sums[j])),
            (None, None) => (0..n).for_each(|j| out[j] = C::down(sums[j])),
            (Some(b), None) => (0..n).for_each(|j| out[j] = C::down(b[j].up() + sums[j])),
            (None, Some(r)) => (0..n).for_each(|j| out[j] = C::down(r[j].up() + sums[j])),
            (Some(b), Some(r)) => (0..n).for_each(|j| out[j] = C::down(r[j].up() + (b[j].up() + sums[j]))),
        }
    }
}
