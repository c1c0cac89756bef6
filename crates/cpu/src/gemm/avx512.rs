//! The micro-kernels of AVX-512: tiles of 12 rows of two registers.

use super::kernel::{Dest, Kernel, Transpose, x86_kernel};
use super::portable;

pub const F32: Kernel<f32> =
    Kernel { mr: 12, nr: 32, run: tile_f32, transpose: Transpose { side: 16, run: transpose } };
pub const F64: Kernel<f64> = Kernel { mr: 12, nr: 16, run: tile_f64, transpose: portable::transpose() };

x86_kernel!(
    tile_f32,
    f32,
    "avx512f",
    12,
    16,
    _mm512_setzero_ps,
    _mm512_loadu_ps,
    _mm512_set1_ps,
    _mm512_fmadd_ps,
    _mm512_add_ps,
    _mm512_storeu_ps
);
x86_kernel!(
    tile_f64,
    f64,
    "avx512f",
    12,
    8,
    _mm512_setzero_pd,
    _mm512_loadu_pd,
    _mm512_set1_pd,
    _mm512_fmadd_pd,
    _mm512_add_pd,
    _mm512_storeu_pd
);

/// 16 x 16 in registers: pairs, then fours, are interleaved within 128-bit lanes, then the lanes change places.
///
/// # Safety
/// As [`Transpose::run`] says, with a side of 16.
#[target_feature(enable = "avx512f")]
unsafe fn transpose(square: *const f32, out: *mut f32, ld: usize, width: usize, depth: usize) {
    use std::arch::x86_64::*;
    // SAFETY: the square has 16 rows of 16.
    let row = |i: usize| unsafe { _mm512_loadu_ps(square.add(i * 16)) };
    let mut fours = [_mm512_setzero_ps(); 16];
    for i in (0..16).step_by(4) {
        let (a, b, c, d) = (row(i), row(i + 1), row(i + 2), row(i + 3));
        let pair = |x, y| (_mm512_unpacklo_ps(x, y), _mm512_unpackhi_ps(x, y));
        let ((ab_lo, ab_hi), (cd_lo, cd_hi)) = (pair(a, b), pair(c, d));
        fours[i] = _mm512_shuffle_ps::<0x44>(ab_lo, cd_lo);
        fours[i + 1] = _mm512_shuffle_ps::<0xee>(ab_lo, cd_lo);
        fours[i + 2] = _mm512_shuffle_ps::<0x44>(ab_hi, cd_hi);
        fours[i + 3] = _mm512_shuffle_ps::<0xee>(ab_hi, cd_hi);
    }
    // Lane l of fours[4 g + j] holds rows 4 g .. 4 g + 4 of column 4 l + j.
    let keep = (0xffffu32 >> (16 - width)) as u16;
    for j in 0..4 {
        let x = [fours[j], fours[4 + j], fours[8 + j], fours[12 + j]];
        let lo = [_mm512_shuffle_f32x4::<0x44>(x[0], x[1]), _mm512_shuffle_f32x4::<0x44>(x[2], x[3])];
        let hi = [_mm512_shuffle_f32x4::<0xee>(x[0], x[1]), _mm512_shuffle_f32x4::<0xee>(x[2], x[3])];
        let columns = [
            _mm512_shuffle_f32x4::<0x88>(lo[0], lo[1]),
            _mm512_shuffle_f32x4::<0xdd>(lo[0], lo[1]),
            _mm512_shuffle_f32x4::<0x88>(hi[0], hi[1]),
            _mm512_shuffle_f32x4::<0xdd>(hi[0], hi[1]),
        ];
        for (lane, column) in columns.into_iter().enumerate() {
            let q = 4 * lane + j;
            if q < depth {
                // SAFETY: the caller has room for the first `width` elements of column q.
                unsafe { _mm512_mask_storeu_ps(out.add(q * ld), keep, column) };
            }
        }
    }
}
