//! The micro-kernels of AVX-512: tiles of 8 rows of three registers.

use super::avx2::{
    TRANSPOSE as TRANSPOSE_256, columns as columns_256, rows as rows_256, rows_narrow as rows_narrow_256,
};
use super::kernel::{Dest, Kernel, Outer, Thin, Transpose, Turned, Unit, of_sizes};
use super::portable;
use super::quantised::{BLOCK, LANES};
use super::x86::{
    finish, written_out, x86_kernel, x86_outer, x86_thin, x86_thin_blocks, x86_transpose, x86_turned,
};
use duel_backend::Bits;
use half::bf16;
use std::arch::x86_64::*;

pub const F32: Kernel<f32> = Kernel {
    mr: 8,
    nr: 48,
    depth: 576,
    panels: 32,
    run: of_sizes!(tile_f32, 1 2 3 4 5 6 7 8),
    transpose: Transpose { side: 16, run: transpose, narrow: transpose_narrow },
    transpose_small: TRANSPOSE_256,
    thin: Thin {
        nr: 16,
        side: 8,
        run: of_sizes!(thin, 1 2 3 4 5 6 7 8),
        narrow: of_sizes!(thin_narrow, 1 2 3 4 5 6 7 8),
        eights: of_sizes!(thin_eights, 1 2 3 4 5 6 7 8),
        fours: of_sizes!(thin_fours, 1 2 3 4 5 6 7 8),
    },
    turned: Turned { rows: 12, lanes: 16, run: of_sizes!(turned, 1 2) },
    outer: Outer { lanes: 16, run: &[(24, outer::<24, 1>), (12, outer::<12, 2>)], on_side: 1 },
    unit: Unit::Element,
    registers: None,
};
pub const F64: Kernel<f64> = Kernel {
    mr: 8,
    nr: 24,
    depth: 288,
    panels: 32,
    run: of_sizes!(tile_f64, 1 2 3 4 5 6 7 8),
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
    "avx512f",
    8,
    3,
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
    8,
    3,
    8,
    _mm512_setzero_pd,
    _mm512_loadu_pd,
    _mm512_set1_pd,
    _mm512_fmadd_pd,
    _mm512_add_pd,
    _mm512_storeu_pd
);

x86_turned!(
    turned,
    "avx512f",
    12,
    16,
    4,
    _mm512_setzero_ps,
    _mm512_loadu_ps,
    _mm512_set1_ps,
    _mm512_fmadd_ps,
    _mm512_storeu_ps
);

x86_outer!(
    outer,
    "avx512f",
    16,
    _mm512_setzero_ps,
    _mm512_loadu_ps,
    _mm512_set1_ps,
    _mm512_fmadd_ps,
    _mm512_storeu_ps
);

// Registers of 256 bits turn a square in fewer steps, and there are twice as many as in AVX2.
x86_thin!(thin, f32, "avx512f,avx512vl,avx2,fma", rows_256, columns_256);
x86_thin!(thin_narrow, bf16, "avx512f,avx512vl,avx2,fma", rows_narrow_256, columns_256);

x86_thin_blocks!(
    thin_eights,
    thin_panels_of_eights,
    Bits::Eight,
    "avx512f",
    1,
    16,
    _mm512_setzero_ps,
    _mm512_loadu_ps,
    _mm512_set1_ps,
    _mm512_fmadd_ps,
    _mm512_add_ps,
    _mm512_storeu_ps,
    eights,
    narrow
);
x86_thin_blocks!(
    thin_fours,
    thin_panels_of_fours,
    Bits::Four,
    "avx512f",
    1,
    16,
    _mm512_setzero_ps,
    _mm512_loadu_ps,
    _mm512_set1_ps,
    _mm512_fmadd_ps,
    _mm512_add_ps,
    _mm512_storeu_ps,
    fours,
    narrow
);

/// 16 weights of 8 bits.
///
/// # Safety
/// They can be read.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn eights(from: *const i8, _: usize, [scales]: [__m512; 1]) -> __m512 {
    // SAFETY: by this function's contract.
    let values = _mm512_cvtepi8_epi32(unsafe { _mm_loadu_si128(from.cast()) });
    _mm512_mul_ps(_mm512_cvtepi32_ps(values), scales)
}

/// 16 weights of 4 bits, in the lower or the upper halves of so many bytes.
///
/// # Safety
/// They can be read.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn fours(from: *const i8, half: usize, [scales, minima]: [__m512; 2]) -> __m512 {
    // SAFETY: by this function's contract.
    let pairs = unsafe { _mm_loadu_si128(from.cast()) };
    let pairs = if half == 0 { pairs } else { _mm_srli_epi16::<4>(pairs) };
    let values = _mm512_cvtepu8_epi32(_mm_and_si128(pairs, _mm_set1_epi8(15)));
    _mm512_fmadd_ps(_mm512_cvtepi32_ps(values), scales, minima)
}

/// 16 numbers in bf16: the upper halves of float32.
///
/// # Safety
/// They can be read.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn narrow(from: *const bf16) -> __m512 {
    // SAFETY: by this function's contract.
    let x = unsafe { _mm256_loadu_si256(from.cast()) };
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(x)))
}

/// 16 rows of 16 elements.
///
/// # Safety
/// They can be read.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn rows(square: *const f32, ld: usize) -> [__m512; 16] {
    // SAFETY: by this function's contract.
    std::array::from_fn(|i| unsafe { _mm512_loadu_ps(square.add(i * ld)) })
}

/// As [`rows`], of bf16.
///
/// # Safety
/// As [`rows`].
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn rows_narrow(square: *const bf16, ld: usize) -> [__m512; 16] {
    // SAFETY: by this function's contract.
    std::array::from_fn(|i| unsafe { narrow(square.add(i * ld)) })
}

/// The columns of 16 rows of 16: pairs, then fours, are interleaved within 128-bit lanes, then the lanes change places.
#[inline]
#[target_feature(enable = "avx512f")]
fn columns(rows: [__m512; 16]) -> [__m512; 16] {
    let mut fours = [_mm512_setzero_ps(); 16];
    for i in (0..16).step_by(4) {
        let (a, b, c, d) = (rows[i], rows[i + 1], rows[i + 2], rows[i + 3]);
        let pair = |x, y| (_mm512_unpacklo_ps(x, y), _mm512_unpackhi_ps(x, y));
        let ((ab_lo, ab_hi), (cd_lo, cd_hi)) = (pair(a, b), pair(c, d));
        fours[i] = _mm512_shuffle_ps::<0x44>(ab_lo, cd_lo);
        fours[i + 1] = _mm512_shuffle_ps::<0xee>(ab_lo, cd_lo);
        fours[i + 2] = _mm512_shuffle_ps::<0x44>(ab_hi, cd_hi);
        fours[i + 3] = _mm512_shuffle_ps::<0xee>(ab_hi, cd_hi);
    }
    // Lane l of fours[4 g + j] holds rows 4 g .. 4 g + 4 of column 4 l + j.
    let mut columns = [_mm512_setzero_ps(); 16];
    for j in 0..4 {
        let x = [fours[j], fours[4 + j], fours[8 + j], fours[12 + j]];
        let lo = [_mm512_shuffle_f32x4::<0x44>(x[0], x[1]), _mm512_shuffle_f32x4::<0x44>(x[2], x[3])];
        let hi = [_mm512_shuffle_f32x4::<0xee>(x[0], x[1]), _mm512_shuffle_f32x4::<0xee>(x[2], x[3])];
        columns[j] = _mm512_shuffle_f32x4::<0x88>(lo[0], lo[1]);
        columns[4 + j] = _mm512_shuffle_f32x4::<0xdd>(lo[0], lo[1]);
        columns[8 + j] = _mm512_shuffle_f32x4::<0x88>(hi[0], hi[1]);
        columns[12 + j] = _mm512_shuffle_f32x4::<0xdd>(hi[0], hi[1]);
    }
    columns
}

x86_transpose!(transpose, f32, f32, "avx512f", 16, rows, columns, _mm512_storeu_ps);
x86_transpose!(transpose_narrow, bf16, f32, "avx512f", 16, rows_narrow, columns, _mm512_storeu_ps);
