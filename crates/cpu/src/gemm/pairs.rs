//! Products of operands that are both bf16, two elements of the depth at a time: what AVX512-BF16 has an instruction
//! for, and the same arithmetic in software for every other machine.
//!
//! `acc + x[1] y[1]`, then `+ x[0] y[0]`, each rounded to nearest; numbers too small for float32's normal range count
//! as zero, wherever they appear (the instruction `VDPBF16PS`, Intel's Software Developer's Manual, volume 2). A
//! product of two bf16 numbers is exact in float32.

use super::kernel::{Dest, Kernel, Transpose, Unit, of_sizes};
use super::operand::Operand;
use super::pack::pack;
use super::portable;
use half::bf16;
use std::ops::Range;

/// The kernels of this machine; their depth is counted in pairs.
pub fn kernel() -> Kernel<f32> {
    #[cfg(target_arch = "x86_64")]
    if is_fast() {
        return hardware::KERNEL;
    }
    SOFTWARE
}

/// Whether there is an instruction for it.
pub fn is_fast() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        use crate::simd::{Isa, isa};
        matches!(isa(), Isa::Avx512 | Isa::Amx) && is_x86_feature_detected!("avx512bf16")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

const SOFTWARE: Kernel<f32> =
    Kernel { run: of_sizes!(tile, 1 2 3 4), unit: Unit::Pair, ..portable::kernel() };

/// Packs pairs `pairs` of the depth of rows `rows` of an operand that is `k` deep, as [`pack`] does elements: the first
/// of a pair in the lower half of a number's bits. Behind an odd end comes a zero.
pub fn pack_pairs(
    out: &mut [f32],
    src: Operand<bf16>,
    rows: Range<usize>,
    pairs: Range<usize>,
    k: usize,
    transpose: &Transpose<f32>,
    width: usize,
    ahead: usize,
) {
    if pairs.is_empty() {
        return;
    }
    // Rows of whole pairs are packed as rows of numbers.
    // SAFETY: every bit pattern is a float32, and two bf16 take as much memory.
    if let ([], words, []) = unsafe { src.data.align_to::<f32>() }
        && src.cs == 1
        && src.rs.is_multiple_of(2)
        && 2 * pairs.end <= k
    {
        let words = Operand { data: words, rs: src.rs / 2, cs: 1 };
        return pack(
            out,
            words,
            rows.start,
            rows.len(),
            pairs.start,
            pairs.len(),
            width,
            transpose,
            ahead / 2,
        );
    }
    for (panel, out) in out.chunks_exact_mut(width * pairs.len()).take(rows.len().div_ceil(width)).enumerate()
    {
        let first = rows.start + panel * width;
        let whole = first + width <= rows.end && src.rs == 1;
        for (pair, out) in pairs.clone().zip(out.chunks_exact_mut(width)) {
            let p = 2 * pair;
            if whole && p + 1 < k {
                let [lower, upper] = [p, p + 1].map(|p| &src.data[first + p * src.cs..][..width]);
                join(out, lower, upper);
                continue;
            }
            for (i, out) in out.iter_mut().enumerate() {
                let row = first + i;
                *out = match row < rows.end {
                    true => pair_at(src, row, pair, k),
                    false => 0.0,
                };
            }
        }
    }
}

/// Pairs of the elements of two depths.
pub fn join(out: &mut [f32], lower: &[bf16], upper: &[bf16]) {
    for ((out, x), y) in out.iter_mut().zip(lower).zip(upper) {
        *out = f32::from_bits(u32::from(x.to_bits()) | u32::from(y.to_bits()) << 16);
    }
}

/// A pair of a row of an operand that is `k` deep.
pub fn pair_at(src: Operand<bf16>, row: usize, pair: usize, k: usize) -> f32 {
    let bits = |p: usize| match p < k {
        true => u32::from(src.data[row * src.rs + p * src.cs].to_bits()),
        false => 0,
    };
    f32::from_bits(bits(2 * pair) | bits(2 * pair + 1) << 16)
}

/// The numbers of a pair.
pub fn halves(pair: f32) -> [f32; 2] {
    let bits = pair.to_bits();
    [bits << 16, bits & 0xffff_0000].map(|bits| flushed(f32::from_bits(bits)))
}

/// A number too small to be normal counts as zero.
pub fn flushed(x: f32) -> f32 {
    if x.abs() < f32::MIN_POSITIVE { 0.0f32.copysign(x) } else { x }
}

/// `acc + x[1] y[1] + x[0] y[0]`, where a number's bits are a pair.
fn dot(x: f32, y: f32, acc: f32) -> f32 {
    let ([x0, x1], [y0, y1]) = (halves(x), halves(y));
    let acc = flushed(flushed(acc) + flushed(x1 * y1));
    flushed(acc + flushed(x0 * y0))
}

/// # Safety
/// As [`Tile`](super::kernel::Tile) says, for `H` rows of 8 columns.
unsafe fn tile<const H: usize>(kc: usize, a: *const f32, b: *const f32, dest: Dest<f32>) {
    // SAFETY: by this function's contract.
    unsafe { portable::tile_by::<f32, H>(kc, a, b, dest, dot) }
}

#[cfg(target_arch = "x86_64")]
mod hardware {
    use super::*;
    use crate::gemm::avx512;
    use crate::gemm::kernel::{Outer, Thin, Turned};
    use crate::gemm::x86::{finish, x86_kernel};
    use std::arch::x86_64::*;

    pub const KERNEL: Kernel<f32> = Kernel {
        run: of_sizes!(tile, 1 2 3 4 5 6 7 8),
        unit: Unit::Pair,
        thin: Thin::NONE,
        turned: Turned::NONE,
        outer: Outer::NONE,
        ..avx512::F32
    };

    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    fn dot(x: __m512, y: __m512, acc: __m512) -> __m512 {
        // SAFETY: registers of the same size, of which any bits are a value.
        let (x, y) = unsafe {
            (std::mem::transmute::<__m512, __m512bh>(x), std::mem::transmute::<__m512, __m512bh>(y))
        };
        _mm512_dpbf16_ps(acc, x, y)
    }

    x86_kernel!(
        tile,
        f32,
        "avx512f,avx512bf16",
        8,
        3,
        16,
        _mm512_setzero_ps,
        _mm512_loadu_ps,
        _mm512_set1_ps,
        dot,
        _mm512_add_ps,
        _mm512_storeu_ps
    );
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::gemm::soon::Soon;
    use crate::gemm::{Init, Shape, gemm_by};
    use crate::sync::Pool;

    /// Numbers of all sizes, now and then too small to be normal.
    pub fn numbers(n: usize, seed: u64) -> Vec<bf16> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as u16
        };
        (0..n)
            .map(|_| {
                let x = next();
                let exponent = if next() % 16 == 0 { 50 + next() % 30 } else { 120 + x % 12 };
                bf16::from_bits((x & 0x8000) | exponent << 7 | (next() & 0x7f))
            })
            .collect()
    }

    /// As many pairs of such numbers.
    pub fn pairs(n: usize, seed: u64) -> Vec<f32> {
        let numbers = numbers(2 * n, seed);
        let all = Operand { data: &numbers, rs: numbers.len(), cs: 1 };
        (0..n).map(|pair| pair_at(all, 0, pair, numbers.len())).collect()
    }

    /// Every layout of a product by `kernel` against what `sum` makes of a row's and a column's pairs: to the bit.
    pub fn check(kernel: fn() -> Kernel<f32>, sum: impl Fn(&[f32], &[f32]) -> f32) {
        for (m, n, k) in [(1, 1, 1), (5, 40, 7), (13, 33, 64), (30, 70, 130), (3, 9, 2001), (70, 40, 96)] {
            for (ta, tb) in [(false, false), (true, false), (false, true), (true, true)] {
                let (a, b) = (numbers(m * k, 1), numbers(n * k, 2));
                let ((ars, acs), (brs, bcs)) =
                    (if ta { (1, m) } else { (k, 1) }, if tb { (1, n) } else { (k, 1) });
                let (of_a, of_b) =
                    (Operand { data: &a, rs: ars, cs: acs }, Operand { data: &b, rs: brs, cs: bcs });
                let mut c = vec![0f32; m * n];
                let shape = Shape { m, n, k, ldc: n };
                gemm_by(kernel(), &Pool::new(2), shape, &mut c, of_a, of_b.into(), Init::Zero);
                let pairs = |of: Operand<bf16>, i: usize| -> Vec<f32> {
                    (0..k.div_ceil(2)).map(|pair| pair_at(of, i, pair, k)).collect()
                };
                for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
                    let want = sum(&pairs(of_a, i), &pairs(of_b, j));
                    assert_eq!(c[i * n + j].to_bits(), want.to_bits(), "({m},{n},{k}) at ({i},{j})");
                }
            }
        }
    }

    #[test]
    fn a_product_is_pair_after_pair() {
        let sum =
            |row: &[f32], column: &[f32]| row.iter().zip(column).fold(0.0, |acc, (x, y)| dot(*x, *y, acc));
        check(kernel, sum);
        check(|| SOFTWARE, sum);
    }

    /// The instruction against software, which runs where the instruction is as well.
    #[test]
    fn software_and_hardware_agree_to_the_bit() {
        let kc = 37;
        let best = kernel();
        let (a, b) = (pairs(best.mr * kc, 3), pairs(best.nr * kc, 4));
        let mut tile = vec![0f32; best.mr * best.nr];
        let (null, ld) = (std::ptr::null(), best.nr);
        let dest = Dest {
            out: tile.as_mut_ptr(),
            ld,
            resume: true,
            base: null,
            base_ld: 0,
            bias: null,
            soon: Soon::NOTHING,
        };
        // SAFETY: whole panels and a whole tile, for the kernel of this machine.
        unsafe { best.run[best.mr - 1](kc, a.as_ptr(), b.as_ptr(), dest) };
        for (i, j) in (0..best.mr).flat_map(|i| (0..best.nr).map(move |j| (i, j))) {
            let (mut row, mut columns, mut want) = (vec![0.0; 4 * kc], vec![0.0; 8 * kc], [0f32; 8]);
            for p in 0..kc {
                (row[4 * p], columns[8 * p]) = (a[p * best.mr + i], b[p * best.nr + j]);
            }
            let dest = Dest {
                out: want.as_mut_ptr(),
                ld: 8,
                resume: true,
                base: null,
                base_ld: 0,
                bias: null,
                soon: Soon::NOTHING,
            };
            // SAFETY: panels of 4 and 8, and a tile of a row of 8.
            unsafe { SOFTWARE.run[0](kc, row.as_ptr(), columns.as_ptr(), dest) };
            assert_eq!(tile[i * best.nr + j].to_bits(), want[0].to_bits(), "({i},{j})");
        }
    }
}
