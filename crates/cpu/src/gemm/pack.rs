//! Operands into panels that a micro-kernel reads in order.

use super::kernel::Transpose;
use super::operand::Operand;
use crate::real::{Lift, Scalar};

/// Room for `len` elements.
pub fn grow<S: Scalar>(buf: &mut Vec<S>, len: usize) {
    if buf.len() < len {
        buf.resize(len, S::ZERO);
    }
}

/// Packs rows `i0..i0+rows` and depth `p0..p0+kc` of an operand into panels of `width` rows, depth first;
/// the last panel is filled up with zeros.
pub fn pack<S: Scalar, T: Lift<S>>(
    out: &mut [S],
    src: Operand<T>,
    i0: usize,
    rows: usize,
    p0: usize,
    kc: usize,
    width: usize,
    transpose: &Transpose<S>,
) {
    if kc == 0 {
        return;
    }
    let out = &mut out[..rows.next_multiple_of(width) * kc];
    if src.rs != 1 {
        let src = Operand { data: &src.data[i0 * src.rs + p0 * src.cs..], ..src };
        return match transpose.side {
            8 => pack_transposed::<8, S, T>(out, src, rows, kc, width, transpose),
            16 => pack_transposed::<16, S, T>(out, src, rows, kc, width, transpose),
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
        32 => pack_rows::<32, S, T>(out, src, whole, kc),
        _ => unreachable!("no kernel has panels of {width} rows"),
    }
    let height = rows - whole * width;
    if height > 0 {
        for (p, out) in out[whole * width * kc..].chunks_exact_mut(width).enumerate() {
            let row = &src.data[p * src.cs + whole * width..][..height];
            for (i, o) in out.iter_mut().enumerate() {
                *o = row.get(i).map_or(S::ZERO, |x| x.lift());
            }
        }
    }
}

/// Depths that packing asks memory for ahead of their use.
const AHEAD: usize = 4;

/// Asks for the cache line of `data[at]`, if there is one.
#[inline(always)]
fn prefetch<T>(data: &[T], at: usize) {
    #[cfg(target_arch = "x86_64")]
    if let Some(x) = data.get(at) {
        // SAFETY: a hint that reads nothing, at an address inside a slice.
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>((&raw const *x).cast())
        };
    }
}

/// The `whole` full panels of an operand whose rows lie side by side in memory.
fn pack_rows<const WIDTH: usize, S: Scalar, T: Lift<S>>(
    out: &mut [S],
    src: Operand<T>,
    whole: usize,
    kc: usize,
) {
    // Depth outside: the source is read in order, the panels are so many streams to write to.
    for p in 0..kc {
        let (row, _) = src.data[p * src.cs..][..whole * WIDTH].as_chunks::<WIDTH>();
        for (panel, row) in row.iter().enumerate() {
            prefetch(src.data, (p + AHEAD) * src.cs + panel * WIDTH);
            if let Some(out) = out[(panel * kc + p) * WIDTH..].first_chunk_mut::<WIDTH>() {
                *out = row.map(T::lift);
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
) {
    let mut square = [[S::ZERO; SIDE]; SIDE];
    for (panel, out) in out.chunks_exact_mut(width * kc).enumerate() {
        for across in (0..width).step_by(SIDE) {
            let cut = SIDE.min(width - across);
            for p in (0..kc).step_by(SIDE) {
                let depth = SIDE.min(kc - p);
                for (i, line) in square[..cut].iter_mut().enumerate() {
                    let row = panel * width + across + i;
                    let from = &src.data[(row * src.rs + p * src.cs).min(src.data.len())..];
                    prefetch(src.data, (row + SIDE) * src.rs + p * src.cs);
                    match from.first_chunk::<SIDE>() {
                        _ if row >= rows => *line = [S::ZERO; SIDE],
                        Some(from) if src.cs == 1 && depth == SIDE => *line = from.map(T::lift),
                        _ => {
                            for (x, from) in line[..depth].iter_mut().zip(from.iter().step_by(src.cs)) {
                                *x = from.lift();
                            }
                        }
                    }
                }
                assert!((p + depth - 1) * width + across + cut <= out.len(), "panel too short");
                // SAFETY: the square holds SIDE * SIDE elements, and column `depth - 1` ends in the panel (asserted).
                unsafe {
                    let at = out.as_mut_ptr().add(p * width + across);
                    (transpose.run)(square.as_ptr().cast(), at, width, cut, depth);
                }
            }
        }
    }
}
