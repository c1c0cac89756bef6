//! The micro-kernels of AVX2 with FMA: tiles of 6 rows of two registers.

use super::kernel::{Dest, Kernel, Transpose, x86_kernel};
use super::portable;

pub const F32: Kernel<f32> =
    Kernel { mr: 6, nr: 16, run: tile_f32, transpose: Transpose { side: 8, run: transpose } };
pub const F64: Kernel<f64> = Kernel { mr: 6, nr: 8, run: tile_f64, transpose: portable::transpose() };

x86_kernel!(
    tile_f32,
    f32,
    "avx2,fma",
    6,
    8,
    _mm256_setzero_ps,
    _mm256_loadu_ps,
    _mm256_set1_ps,
    _mm256_fmadd_ps,
    _mm256_add_ps,
    _mm256_storeu_ps
);
x86_kernel!(
    tile_f64,
    f64,
    "avx2,fma",
    6,
    4,
    _mm256_setzero_pd,
    _mm256_loadu_pd,
    _mm256_set1_pd,
    _mm256_fmadd_pd,
    _mm256_add_pd,
    _mm256_storeu_pd
);

/// 8 x 8 in registers, as the 16 x 16 of `avx512`.
///
/// # Safety
/// As [`Transpose::run`] says, with a side of 8.
#[target_feature(enable = "avx2")]
unsafe fn transpose(square: *const f32, out: *mut f32, ld: usize, width: usize, depth: usize) {
    use std::arch::x86_64::*;
    // SAFETY: the square has 8 rows of 8.
    let row = |i: usize| unsafe { _mm256_loadu_ps(square.add(i * 8)) };
    let mut fours = [_mm256_setzero_ps(); 8];
    for i in [0, 4] {
        let (a, b, c, d) = (row(i), row(i + 1), row(i + 2), row(i + 3));
        let pair = |x, y| (_mm256_unpacklo_ps(x, y), _mm256_unpackhi_ps(x, y));
        let ((ab_lo, ab_hi), (cd_lo, cd_hi)) = (pair(a, b), pair(c, d));
        fours[i] = _mm256_shuffle_ps::<0x44>(ab_lo, cd_lo);
        fours[i + 1] = _mm256_shuffle_ps::<0xee>(ab_lo, cd_lo);
        fours[i + 2] = _mm256_shuffle_ps::<0x44>(ab_hi, cd_hi);
        fours[i + 3] = _mm256_shuffle_ps::<0xee>(ab_hi, cd_hi);
    }
    let keep = _mm256_cmpgt_epi32(_mm256_set1_epi32(width as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    for j in 0..4 {
        let columns = [
            _mm256_permute2f128_ps::<0x20>(fours[j], fours[4 + j]),
            _mm256_permute2f128_ps::<0x31>(fours[j], fours[4 + j]),
        ];
        for (lane, column) in columns.into_iter().enumerate() {
            let q = 4 * lane + j;
            if q < depth {
                // SAFETY: the caller has room for the first `width` elements of column q.
                unsafe { _mm256_maskstore_ps(out.add(q * ld), keep, column) };
            }
        }
    }
}
