//! The micro-kernels of AVX2 with FMA: tiles of 6 rows of two registers.

use super::kernel::{Dest, Kernel, Outer, Thin, Transpose, Turned, Unit, of_sizes};
use super::portable;
use super::quantised::{BLOCK, LANES};
use super::x86::{
    finish, written_out, x86_kernel, x86_outer, x86_thin, x86_thin_blocks, x86_transpose, x86_turned,
};
use duel_backend::Bits;
use half::bf16;
use std::arch::x86_64::*;

pub const TRANSPOSE: Transpose<f32> = Transpose { side: 8, run: transpose, narrow: transpose_narrow };
pub const F32: Kernel<f32> = Kernel {
    mr: 6,
    nr: 16,
    depth: 384,
    panels: 28,
    run: of_sizes!(tile_f32, 1 2 3 4 5 6),
    transpose: TRANSPOSE,
    transpose_small: TRANSPOSE,
    thin: Thin {
        nr: 16,
        side: 8,
        run: of_sizes!(thin, 1 2 3 4),
        narrow: of_sizes!(thin_narrow, 1 2 3 4),
        eights: of_sizes!(thin_eights, 1 2 3),
        fours: of_sizes!(thin_fours, 1 2 3),
    },
    turned: Turned { rows: 6, lanes: 8, run: of_sizes!(turned, 1 2) },
    outer: Outer { lanes: 8, run: &[(12, outer::<12, 1>), (6, outer::<6, 2>)], on_side: 2 },
    unit: Unit::Element,
    registers: None,
};
pub const F64: Kernel<f64> = Kernel {
    mr: 6,
    nr: 8,
    depth: 256,
    panels: 24,
    run: of_sizes!(tile_f64, 1 2 3 4 5 6),
    transpose: portable::transpose(),
    transpose_small: portable::transpose(),
    thin: Thin::NONE,
    turned: Turned::NONE,
    outer: Outer::NONE,
    unit: Unit::Element,
    registers: None,
};

x86_kernel!(
    tile_f32,
    f32,
    "avx2,fma",
    6,
    2,
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
    2,
    4,
    _mm256_setzero_pd,
    _mm256_loadu_pd,
    _mm256_set1_pd,
    _mm256_fmadd_pd,
    _mm256_add_pd,
    _mm256_storeu_pd
);

x86_turned!(
    turned,
    "avx2,fma",
    6,
    8,
    1,
    _mm256_setzero_ps,
    _mm256_loadu_ps,
    _mm256_set1_ps,
    _mm256_fmadd_ps,
    _mm256_storeu_ps
);

x86_outer!(
    outer,
    "avx2,fma",
    8,
    _mm256_setzero_ps,
    _mm256_loadu_ps,
    _mm256_set1_ps,
    _mm256_fmadd_ps,
    _mm256_storeu_ps
);

x86_thin!(thin, f32, "avx2,fma", rows, columns);
x86_thin!(thin_narrow, bf16, "avx2,fma", rows_narrow, columns);

x86_thin_blocks!(
    thin_eights,
    thin_panels_of_eights,
    Bits::Eight,
    "avx2,fma",
    2,
    8,
    _mm256_setzero_ps,
    _mm256_loadu_ps,
    _mm256_set1_ps,
    _mm256_fmadd_ps,
    _mm256_add_ps,
    _mm256_storeu_ps,
    eights,
    narrow
);
x86_thin_blocks!(
    thin_fours,
    thin_panels_of_fours,
    Bits::Four,
    "avx2,fma",
    2,
    8,
    _mm256_setzero_ps,
    _mm256_loadu_ps,
    _mm256_set1_ps,
    _mm256_fmadd_ps,
    _mm256_add_ps,
    _mm256_storeu_ps,
    fours,
    narrow
);

/// 8 weights of 8 bits.
///
/// # Safety
/// They can be read.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn eights(from: *const i8, _: usize, [scales]: [__m256; 1]) -> __m256 {
    // SAFETY: by this function's contract.
    let values = _mm256_cvtepi8_epi32(unsafe { _mm_loadl_epi64(from.cast()) });
    _mm256_mul_ps(_mm256_cvtepi32_ps(values), scales)
}

/// 8 weights of 4 bits, in the lower or the upper halves of so many bytes.
///
/// # Safety
/// They can be read.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn fours(from: *const i8, half: usize, [scales, minima]: [__m256; 2]) -> __m256 {
    // SAFETY: by this function's contract.
    let pairs = unsafe { _mm_loadl_epi64(from.cast()) };
    let pairs = if half == 0 { pairs } else { _mm_srli_epi16::<4>(pairs) };
    let values = _mm256_cvtepu8_epi32(_mm_and_si128(pairs, _mm_set1_epi8(15)));
    _mm256_fmadd_ps(_mm256_cvtepi32_ps(values), scales, minima)
}

/// 8 numbers in bf16: the upper halves of float32.
///
/// # Safety
/// They can be read.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn narrow(from: *const bf16) -> __m256 {
    // SAFETY: by this function's contract.
    let x = unsafe { _mm_loadu_si128(from.cast()) };
    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(x)))
}

/// 8 rows of 8 elements.
///
/// # Safety
/// They can be read.
#[inline]
#[target_feature(enable = "avx2")]
pub unsafe fn rows(square: *const f32, ld: usize) -> [__m256; 8] {
    // SAFETY: by this function's contract.
    std::array::from_fn(|i| unsafe { _mm256_loadu_ps(square.add(i * ld)) })
}

/// As [`rows`], of bf16.
///
/// # Safety
/// As [`rows`].
#[inline]
#[target_feature(enable = "avx2")]
pub unsafe fn rows_narrow(square: *const bf16, ld: usize) -> [__m256; 8] {
    // SAFETY: by this function's contract.
    std::array::from_fn(|i| unsafe { narrow(square.add(i * ld)) })
}

/// The columns of 8 rows of 8: pairs, then fours, are interleaved within 128-bit lanes, then the lanes change places.
#[inline]
#[target_feature(enable = "avx2")]
pub fn columns(rows: [__m256; 8]) -> [__m256; 8] {
    let mut fours = [_mm256_setzero_ps(); 8];
    for i in [0, 4] {
        let (a, b, c, d) = (rows[i], rows[i + 1], rows[i + 2], rows[i + 3]);
        let pair = |x, y| (_mm256_unpacklo_ps(x, y), _mm256_unpackhi_ps(x, y));
        let ((ab_lo, ab_hi), (cd_lo, cd_hi)) = (pair(a, b), pair(c, d));
        fours[i] = _mm256_shuffle_ps::<0x44>(ab_lo, cd_lo);
        fours[i + 1] = _mm256_shuffle_ps::<0xee>(ab_lo, cd_lo);
        fours[i + 2] = _mm256_shuffle_ps::<0x44>(ab_hi, cd_hi);
        fours[i + 3] = _mm256_shuffle_ps::<0xee>(ab_hi, cd_hi);
    }
    let mut columns = [_mm256_setzero_ps(); 8];
    for j in 0..4 {
        columns[j] = _mm256_permute2f128_ps::<0x20>(fours[j], fours[4 + j]);
        columns[4 + j] = _mm256_permute2f128_ps::<0x31>(fours[j], fours[4 + j]);
    }
    columns
}

x86_transpose!(transpose, f32, f32, "avx2", 8, rows, columns, _mm256_storeu_ps);
x86_transpose!(transpose_narrow, bf16, f32, "avx2", 8, rows_narrow, columns, _mm256_storeu_ps);
