//! Operands into panels that a micro-kernel reads in order.

use super::kernel::{SQUARE, Transpose, Turn};
use super::operand::Operand;
use crate::pages::grow;
use crate::prefetch::prefetch;
use crate::real::{Lift, Scalar};
use half::bf16;
use std::any::TypeId;

/// Room for panels of `len` elements in all, and for what a transposition writes behind the last. It begins with a
/// cache line, and so do the vectors that kernels read of it.
pub fn room<S: Scalar>(buf: &mut Vec<S>, len: usize) -> &mut [S] {
    let line = 64 / size_of::<S>();
    let len = len + SQUARE + line;
    grow(buf, len, S::ZERO);
    let start = buf.as_ptr().align_offset(64).min(line);
    &mut buf[start..]
}

/// Packs rows `i0..i0+rows` and depth `p0..p0+kc` of an operand into panels of `width` rows, depth first;
/// the last panel is filled up with zeros. What lies `ahead` elements further on is asked for, where rows are not side
/// by side. The result has the panels' elements, and [`SQUARE`] more where no panel is whole squares.
pub fn pack<S: Scalar, T: Lift<S>>(
    out: &mut [S],
    src: Operand<T>,
    i0: usize,
    rows: usize,
    p0: usize,
    kc: usize,
    width: usize,
    transpose: &Transpose<S>,
    ahead: usize,
) {
    if kc == 0 {
        return;
    }
    let behind = if width.is_multiple_of(transpose.side) { 0 } else { SQUARE };
    let out = &mut out[..rows.next_multiple_of(width) * kc + behind];
    if src.rs != 1 {
        let src = Operand { data: &src.data[i0 * src.rs + p0 * src.cs..], ..src };
        return match transpose.side {
            8 => pack_transposed::<8, S, T>(out, src, rows, kc, width, transpose, ahead),
            16 => pack_transposed::<16, S, T>(out, src, rows, kc, width, transpose, ahead),
            side => unreachable!("no transposition has a side of {side}"),
        };
    }
    let src = Operand { data: &src.data[i0 + p0 * src.cs..], ..src };
    let whole = rows / width;
    match width {
        6 => pack_rows::<6, S, T>(out, src, whole, kc),
        8 => pack_rows::<8, S, T>(out, src, whole, kc),
        4 => pack_rows::<4, S, T>(out, src, whole, kc),
        12 => pack_rows::<12, S, T>(out, src, whole, kc),
        16 => pack_rows::<16, S, T>(out, src, whole, kc),
        24 => pack_rows::<24, S, T>(out, src, whole, kc),
        32 => pack_rows::<32, S, T>(out, src, whole, kc),
        48 => pack_rows::<48, S, T>(out, src, whole, kc),
        _ => unreachable!("no kernel has panels of {width} rows"),
    }
    let height = rows - whole * width;
    if height > 0 {
        for (p, out) in out[whole * width * kc..].chunks_exact_mut(width).take(kc).enumerate() {
            let row = &src.data[p * src.cs + whole * width..][..height];
            for (i, o) in out.iter_mut().enumerate() {
                *o = row.get(i).map_or(S::ZERO, |x| x.lift());
            }
        }
    }
}

/// Depths that are packed into a panel before the next panel's, and that memory is asked for ahead of.
const DEEP: usize = 8;

/// The `whole` full panels of an operand whose rows lie side by side in memory.
fn pack_rows<const WIDTH: usize, S: Scalar, T: Lift<S>>(
    out: &mut [S],
    src: Operand<T>,
    whole: usize,
    kc: usize,
) {
    // Some rows of the source are read in order, and lines of panels are written whole.
    for from in (0..kc).step_by(DEEP) {
        for panel in 0..whole {
            for p in from..kc.min(from + DEEP) {
                let row = &src.data[p * src.cs + panel * WIDTH..];
                prefetch(row.as_ptr().wrapping_add(DEEP * src.cs), WIDTH);
                let out = &mut out[(panel * kc + p) * WIDTH..];
                if let (Some(row), Some(out)) = (row.first_chunk::<WIDTH>(), out.first_chunk_mut::<WIDTH>()) {
                    *out = row.map(T::lift);
                }
            }
        }
    }
}

/// The panels of an operand whose depth is contiguous (or strided), square by square.
fn pack_transposed<const SIDE: usize, S: Scalar, T: Lift<S>>(
    out: &mut [S],
    src: Operand<T>,
    rows: usize,
    kc: usize,
    width: usize,
    transpose: &Transpose<S>,
    ahead: usize,
) {
    let turn = turn::<S, T>(transpose).filter(|_| src.cs == 1);
    let mut square = [[S::ZERO; SIDE]; SIDE];
    for panel in 0..rows.div_ceil(width) {
        let out = &mut out[panel * width * kc..];
        for across in (0..width).step_by(SIDE) {
            let cut = SIDE.min(width - across);
            let row = panel * width + across;
            assert!((kc - 1) * width + across + SIDE <= out.len(), "panel too short");
            // SAFETY: column `p < kc` ends in the panel or in the room behind the last (asserted).
            let column = |p: usize, out: &mut [S]| unsafe { out.as_mut_ptr().add(p * width + across) };
            // Whole squares of the source as they are, as far as there are `SIDE` rows.
            let mut whole = 0;
            if let Some(turn) = turn
                && row + cut <= rows
                && (row + SIDE - 1) * src.rs + kc <= src.data.len()
            {
                whole = kc - kc % SIDE;
                let from = src.data[row * src.rs..].as_ptr();
                // SAFETY: `whole` elements of each of SIDE rows lie in the source.
                unsafe { turn(from, src.rs, column(0, out), width, cut, whole, ahead) };
            }
            for p in (whole..kc).step_by(SIDE) {
                let depth = SIDE.min(kc - p);
                for (i, line) in square[..cut].iter_mut().enumerate() {
                    if row + i >= rows {
                        *line = [S::ZERO; SIDE];
                        continue;
                    }
                    let from = &src.data[(row + i) * src.rs + p * src.cs..];
                    for (x, from) in line[..depth].iter_mut().zip(from.iter().step_by(src.cs)) {
                        *x = from.lift();
                    }
                }
                // SAFETY: the square holds SIDE * SIDE elements.
                unsafe {
                    (transpose.run)(square.as_ptr().cast(), SIDE, column(p, out), width, cut, depth, 0);
                }
            }
        }
    }
}

/// How rows of the operand's own elements are transposed, for the types that this is known for.
fn turn<S: Scalar, T: Lift<S>>(transpose: &Transpose<S>) -> Option<Turn<T, S>> {
    same::<Turn<S, S>, Turn<T, S>>(transpose.run)
        .or_else(|| same::<Turn<bf16, S>, Turn<T, S>>(transpose.narrow))
}

/// `x`, where the types are one.
pub fn same<A: Copy + 'static, B: Copy + 'static>(x: A) -> Option<B> {
    // SAFETY: a copy of a value to its own type.
    (TypeId::of::<A>() == TypeId::of::<B>()).then(|| unsafe { std::mem::transmute_copy(&x) })
}
