//! Products of operands that are both bf16, 16 pairs of the depth at a time: what AMX has an instruction for, and the
//! same arithmetic in software.
//!
//! Of each 16 pairs, counted from the first, the first elements' products are summed in order, each a fused
//! multiply-add, and so are the second elements'; the two sums are added, and what they make is added to the result so
//! far. All is rounded to nearest; numbers too small for float32's normal range count as zero, wherever they appear
//! (the instruction `TDPBF16PS`, Intel's Software Developer's Manual, volume 2). A product of two bf16 numbers is exact
//! in float32 where it is not too small, so that zeros behind the depth, up to a multiple of 16 pairs, change nothing.

use super::kernel::{Dest, Kernel, Outer, Thin, Transpose, Turned, Unit, of_sizes};
use super::operand::Operand;
use super::pairs::{join, pair_at};
use half::bf16;
use std::ops::Range;

/// Pairs, rows of a and columns of b in a tile.
pub const SIDE: usize = 16;

/// Rows of a and columns of b in two tiles.
const TWO: usize = 2 * SIDE;

/// The kernels, where this machine has them.
pub fn kernel() -> Option<Kernel<f32>> {
    #[cfg(target_arch = "x86_64")]
    if crate::simd::isa() == crate::simd::Isa::Amx {
        return Some(hardware::KERNEL);
    }
    None
}

/// Whether this machine has tiles of bf16, and lets this process use them.
pub fn are_here() -> bool {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    {
        hardware::are_here()
    }
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    {
        false
    }
}

/// Those of each height of a tile.
macro_rules! of_each_height {
    ($tile:ident) => {
        of_sizes!($tile, 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32)
    };
}

/// Packs pairs `pairs` of the depth of rows `rows` of an operand that is `k` deep into panels of 32 rows: tile after
/// tile of 16 rows of 16 pairs, the lower rows' before the upper rows', then those further on. What is behind the rows
/// or the depth is zero.
pub fn pack_tiles(
    out: &mut [f32],
    src: Operand<bf16>,
    rows: Range<usize>,
    pairs: Range<usize>,
    k: usize,
    transpose: &Transpose<f32>,
) {
    if pairs.is_empty() {
        return;
    }
    let panels = out.chunks_exact_mut(TWO * pairs.len()).take(rows.len().div_ceil(TWO));
    for (panel, out) in panels.enumerate() {
        let first = rows.start + panel * TWO;
        for (tile, out) in out.as_chunks_mut::<{ SIDE * SIDE }>().0.iter_mut().enumerate() {
            let (first, pair) = (first + tile % 2 * SIDE, pairs.start + tile / 2 * SIDE);
            let height = rows.end.saturating_sub(first).min(SIDE);
            let whole = 2 * (pair + SIDE) <= k;
            if whole && src.cs == 1 {
                for (i, out) in out.as_chunks_mut::<SIDE>().0.iter_mut().enumerate() {
                    *out = match i < height {
                        true => row(&src.data[(first + i) * src.rs + 2 * pair..]),
                        false => [0.0; SIDE],
                    };
                }
                continue;
            }
            let mut turned = [[0f32; SIDE]; SIDE];
            if whole && src.rs == 1 && height == SIDE && transpose.side == SIDE {
                for (q, out) in turned.iter_mut().enumerate() {
                    let [lower, upper] = [0, 1].map(|i| &src.data[(2 * (pair + q) + i) * src.cs + first..]);
                    join(out, lower, upper);
                }
                // SAFETY: both hold 16 rows of 16 elements.
                unsafe {
                    (transpose.run)(turned.as_ptr().cast(), SIDE, out.as_mut_ptr(), SIDE, SIDE, SIDE, 0)
                };
                continue;
            }
            for (i, out) in out.as_chunks_mut::<SIDE>().0.iter_mut().enumerate() {
                *out = match i < height {
                    true => std::array::from_fn(|q| pair_at(src, first + i, pair + q, k)),
                    false => [0.0; SIDE],
                };
            }
        }
    }
}

/// The first 16 pairs of a row.
fn row(data: &[bf16]) -> [f32; SIDE] {
    // SAFETY: as many bytes, of which any are a value, read from wherever they lie.
    unsafe { data[..TWO].as_ptr().cast::<[f32; SIDE]>().read_unaligned() }
}

#[cfg(target_arch = "x86_64")]
mod hardware {
    use super::*;
    use crate::gemm::avx512;
    use crate::gemm::kernel::Registers;
    use crate::gemm::x86::finish;
    use std::arch::asm;
    use std::arch::x86_64::*;

    pub const KERNEL: Kernel<f32> = Kernel {
        mr: TWO,
        nr: TWO,
        // 32 KB of a panel of b, which stays in the L1 cache; a's come from the L2 cache at half of its speed.
        depth: 256,
        panels: 24,
        run: of_each_height!(tile),
        unit: Unit::Tile,
        registers: Some(Registers { open, close }),
        thin: Thin::NONE,
        turned: Turned::NONE,
        outer: Outer::NONE,
        ..avx512::F32
    };

    /// Linux lets a process use tiles when it asks.
    #[cfg(target_os = "linux")]
    pub fn are_here() -> bool {
        const ARCH_PRCTL: i64 = 158;
        const REQUEST: u64 = 0x1023;
        const TILE_DATA: u64 = 18;
        if !has_amx() {
            return false;
        }
        let result: i64;
        // SAFETY: the call changes what the kernel saves of this process's registers, and no memory.
        unsafe {
            asm!(
                "syscall",
                inlateout("rax") ARCH_PRCTL => result, in("rdi") REQUEST, in("rsi") TILE_DATA,
                out("rcx") _, out("r11") _, options(nostack)
            );
        }
        result == 0
    }

    /// Whether the CPU says that it has tiles and multiplies bf16 in them (leaf 7: bits 24 and 22).
    #[cfg(target_os = "linux")]
    fn has_amx() -> bool {
        const BOTH: u32 = 1 << 24 | 1 << 22;
        __get_cpuid_max(0).0 >= 7 && __cpuid_count(7, 0).edx & BOTH == BOTH
    }

    /// Eight tiles of 16 rows of 64 bytes.
    #[repr(C, align(64))]
    struct Shape([u8; 64]);

    const SHAPE: Shape = {
        let (mut shape, mut tile) = ([0; 64], 0);
        shape[0] = 1;
        while tile < 8 {
            shape[16 + 2 * tile] = 64;
            shape[48 + tile] = SIDE as u8;
            tile += 1;
        }
        Shape(shape)
    };

    unsafe fn open() {
        // SAFETY: the machine has tiles, and reads 64 bytes of what they are to be like.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &SHAPE, options(nostack, readonly, preserves_flags)) };
    }

    unsafe fn close() {
        // SAFETY: the machine has tiles.
        unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) };
    }

    /// Tiles of `H` rows of 32 columns, of panels as [`pack_tiles`] makes them of a and `pack_pairs` of b.
    ///
    /// # Safety
    /// As [`Tile`](crate::gemm::kernel::Tile) says, of `H` rows; `kc` is a multiple of 16, and it is called between
    /// [`open`] and [`close`].
    #[target_feature(enable = "avx512f")]
    unsafe fn tile<const H: usize>(kc: usize, a: *const f32, b: *const f32, dest: Dest<f32>) {
        #[repr(align(64))]
        struct Aside([f32; TWO * TWO]);
        dest.soon.ask_rows();
        let blocks = kc / SIDE;
        let straight = H.is_multiple_of(SIDE) && blocks > 0 && dest.bias.is_null() && dest.base.is_null();
        // SAFETY: the caller gives whole panels, and H rows of the result, of the base and of the bias.
        unsafe {
            if straight {
                return sum::<H>(blocks, a, b, dest.out, dest.ld, dest.resume);
            }
        }
        let mut aside = Aside([0.0; TWO * TWO]);
        let sums = aside.0.as_mut_ptr();
        // SAFETY: as above; aside there are 32 rows of 32.
        unsafe {
            if dest.resume {
                for i in 0..H {
                    sums.add(i * TWO).copy_from_nonoverlapping(dest.out.add(i * dest.ld), TWO);
                }
            }
            if blocks > 0 {
                sum::<H>(blocks, a, b, sums, TWO, dest.resume);
            }
        }
        // SAFETY: as above.
        let acc: [[_; 2]; H] =
            std::array::from_fn(|i| [0, 1].map(|j| unsafe { _mm512_load_ps(sums.add(i * TWO + j * SIDE)) }));
        finish!(acc, dest, 16, _mm512_loadu_ps, _mm512_add_ps, _mm512_storeu_ps);
    }

    /// The sums of 32 rows, or of 16 where `H` is no more, from nothing, or with `resume` from what is there.
    ///
    /// # Safety
    /// `blocks` tiles of each panel can be read, and that many rows of 32 elements read and written, `ld` apart.
    #[inline]
    unsafe fn sum<const H: usize>(
        blocks: usize,
        a: *const f32,
        b: *const f32,
        out: *mut f32,
        ld: usize,
        resume: bool,
    ) {
        const TILE: usize = 4 * SIDE * SIDE;
        // SAFETY: by this function's contract; besides, the tiles' registers alone are changed.
        unsafe {
            if H <= SIDE {
                asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "test {resume:e}, {resume:e}",
                    "jz 2f",
                    "tileloadd tmm0, [{out} + {ld}]",
                    "tileloadd tmm1, [{out} + {ld} + 64]",
                    "2:",
                    "tileloadd tmm4, [{a} + {a_ld}]",
                    "tileloadd tmm6, [{b} + {b_ld}]",
                    "tileloadd tmm7, [{b} + {b_ld} + 64]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "add {a}, {step}",
                    "add {b}, {step}",
                    "dec {blocks}",
                    "jnz 2b",
                    "tilestored [{out} + {ld}], tmm0",
                    "tilestored [{out} + {ld} + 64], tmm1",
                    resume = in(reg) u32::from(resume), out = in(reg) out, ld = in(reg) 4 * ld,
                    a = inout(reg) a => _, a_ld = in(reg) 4 * SIDE, b = inout(reg) b => _, b_ld = in(reg) 4 * TWO,
                    blocks = inout(reg) blocks => _, step = const 2 * TILE,
                    out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm6") _, out("tmm7") _, options(nostack)
                );
                return;
            }
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "test {resume:e}, {resume:e}",
                "jz 2f",
                "tileloadd tmm0, [{out} + {ld}]",
                "tileloadd tmm1, [{out} + {ld} + 64]",
                "tileloadd tmm2, [{low} + {ld}]",
                "tileloadd tmm3, [{low} + {ld} + 64]",
                "2:",
                "tileloadd tmm4, [{a} + {a_ld}]",
                "tileloadd tmm6, [{b} + {b_ld}]",
                "tileloadd tmm7, [{b} + {b_ld} + 64]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm5, [{a} + {a_ld} + {tile}]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {a}, {step}",
                "add {b}, {step}",
                "dec {blocks}",
                "jnz 2b",
                "tilestored [{out} + {ld}], tmm0",
                "tilestored [{out} + {ld} + 64], tmm1",
                "tilestored [{low} + {ld}], tmm2",
                "tilestored [{low} + {ld} + 64], tmm3",
                resume = in(reg) u32::from(resume), out = in(reg) out, low = in(reg) out.wrapping_add(SIDE * ld),
                ld = in(reg) 4 * ld, a = inout(reg) a => _, a_ld = in(reg) 4 * SIDE, b = inout(reg) b => _,
                b_ld = in(reg) 4 * TWO, blocks = inout(reg) blocks => _, step = const 2 * TILE, tile = const TILE,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _, out("tmm5") _,
                out("tmm6") _, out("tmm7") _, options(nostack)
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gemm::pairs::tests::{check, numbers, pairs};
    use crate::gemm::pairs::{flushed, halves};
    use crate::gemm::portable;
    use crate::gemm::soon::Soon;

    /// The same arithmetic without the instruction.
    const SOFTWARE: Kernel<f32> =
        Kernel { mr: TWO, nr: TWO, run: of_each_height!(tile), unit: Unit::Tile, ..portable::kernel() };

    /// Tiles of `H` rows of 32 columns, of panels as [`pack_tiles`] makes them of a and `pack_pairs` of b.
    ///
    /// # Safety
    /// As [`Tile`](crate::gemm::kernel::Tile) says, of `H` rows; `kc` is a multiple of 16.
    unsafe fn tile<const H: usize>(kc: usize, a: *const f32, b: *const f32, dest: Dest<f32>) {
        // SAFETY: the caller gives kc panels of 32 elements of each.
        let (a, b) =
            unsafe { (std::slice::from_raw_parts(a, kc * TWO), std::slice::from_raw_parts(b, kc * TWO)) };
        for (i, j) in (0..H).flat_map(|i| (0..TWO).map(move |j| (i, j))) {
            // SAFETY: the caller gives H rows of 32 elements.
            let mut sum = if dest.resume { unsafe { *dest.out.add(i * dest.ld + j) } } else { 0.0 };
            for (a, b) in a.chunks_exact(SIDE * TWO).zip(b.chunks_exact(SIDE * TWO)) {
                let row = &a[i / SIDE * SIDE * SIDE + i % SIDE * SIDE..][..SIDE];
                let column: [f32; SIDE] = std::array::from_fn(|q| b[q * TWO + j]);
                sum = sixteen_pairs(row, &column, sum);
            }
            // SAFETY: the caller gives H rows of 32 elements of the base and of the result, and 32 of bias.
            unsafe {
                if !dest.bias.is_null() {
                    sum += *dest.bias.add(j);
                }
                if !dest.base.is_null() {
                    sum += *dest.base.add(i * dest.base_ld + j);
                }
                *dest.out.add(i * dest.ld + j) = sum;
            }
        }
    }

    /// What the instruction makes of a row, a column and a sum.
    fn sixteen_pairs(row: &[f32], column: &[f32], sum: f32) -> f32 {
        let mut sums = [0f32; 2];
        for (x, y) in row.iter().zip(column) {
            for ((sum, x), y) in sums.iter_mut().zip(halves(*x)).zip(halves(*y)) {
                *sum = flushed(x.mul_add(y, *sum));
            }
        }
        flushed(flushed(sum) + flushed(sums[0] + sums[1]))
    }

    #[test]
    fn a_product_is_sixteen_pairs_after_sixteen() {
        let sum = |row: &[f32], column: &[f32]| {
            row.chunks(SIDE).zip(column.chunks(SIDE)).fold(0.0, |sum, (x, y)| sixteen_pairs(x, y, sum))
        };
        check(|| SOFTWARE, sum);
        if kernel().is_some() {
            check(|| kernel().unwrap(), sum);
        } else {
            println!("NOT TESTED: this machine has no tiles (AMX), or DUEL_ISA holds it to less");
        }
    }

    /// Whatever is added, and wherever sums go on from.
    #[test]
    fn software_and_hardware_agree_to_the_bit() {
        let Some(best) = kernel() else {
            return println!("NOT TESTED: this machine has no tiles (AMX), or DUEL_ISA holds it to less");
        };
        let kc = 3 * SIDE;
        let many = |n, seed| -> Vec<f32> { numbers(n, seed).into_iter().map(f32::from).collect() };
        let (a, b, before) = (pairs(TWO * kc, 1), pairs(TWO * kc, 2), many(TWO * 40, 3));
        let (base, bias) = (many(TWO * TWO, 4), many(TWO, 5));
        for case in 0..8 {
            for height in 0..TWO {
                let made = [&best, &SOFTWARE].map(|kernel| {
                    let mut tile = before.clone();
                    let dest = Dest {
                        out: tile.as_mut_ptr(),
                        ld: 40,
                        resume: case & 1 > 0,
                        base: if case & 2 > 0 { base.as_ptr() } else { std::ptr::null() },
                        base_ld: TWO,
                        bias: if case & 4 > 0 { bias.as_ptr() } else { std::ptr::null() },
                        soon: Soon::NOTHING,
                    };
                    let registers = kernel.registers;
                    // SAFETY: whole panels and tiles; the kernel is this machine's.
                    unsafe {
                        registers.inspect(|of| (of.open)());
                        kernel.run[height](kc, a.as_ptr(), b.as_ptr(), dest);
                        registers.inspect(|of| (of.close)());
                    }
                    tile.into_iter().map(f32::to_bits).collect::<Vec<_>>()
                });
                assert!(made[0] == made[1], "{} rows, case {case}", height + 1);
            }
        }
    }
}
