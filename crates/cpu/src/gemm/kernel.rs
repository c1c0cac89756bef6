//! What a micro-kernel is, and the text of those that x86 has.

/// Where a micro-kernel puts its tile: `out = base + (bias + sums)`, row `i` at `out + i * ld`. A null `base` or `bias`
/// is left out of the sum.
#[derive(Clone, Copy)]
pub struct Dest<S> {
    pub out: *mut S,
    pub ld: usize,
    pub base: *const S,
    pub base_ld: usize,
    pub bias: *const S,
}

/// Micro-kernel: `sums[MR][NR] = sum over p of a[p][MR] b[p][NR]` from packed panels.
pub struct Kernel<S> {
    pub mr: usize,
    pub nr: usize,
    // Reads kc*mr elements of a, kc*nr of b; writes the mr x nr elements of the destination and reads as many of its
    // base, nr of its bias. Needs the CPU features it was chosen for.
    pub run: unsafe fn(kc: usize, a: *const S, b: *const S, dest: Dest<S>),
    /// Transposes a square of this many rows while packing.
    pub transpose: Transpose<S>,
}

/// Largest `mr * nr` of any kernel.
pub const TILE: usize = 12 * 32;

/// Largest side of a square that is transposed at a time.
pub const SQUARE: usize = 16;

/// A square of `side` rows of `side` elements, put down column by column: column `q < depth`, cut to its first
/// `width` elements, at `out + q * ld`.
pub struct Transpose<S> {
    pub side: usize,
    // Reads side*side elements; writes `width <= side` elements for each of `depth <= side` columns. Needs the CPU
    // features it was chosen for.
    pub run: unsafe fn(square: *const S, out: *mut S, ld: usize, width: usize, depth: usize),
}

/// A kernel `$name` whose tile is `$mr` rows of two registers of `$lanes` elements.
#[cfg(target_arch = "x86_64")]
macro_rules! x86_kernel {
    ($name:ident, $t:ty, $feature:literal, $mr:literal, $lanes:literal,
     $zero:ident, $load:ident, $splat:ident, $fma:ident, $add:ident, $store:ident) => {
        /// # Safety
        /// As [`Kernel::run`](super::kernel::Kernel::run) says.
        #[target_feature(enable = $feature)]
        unsafe fn $name(kc: usize, a: *const $t, b: *const $t, dest: Dest<$t>) {
            use std::arch::x86_64::*;
            const NR: usize = 2 * $lanes;
            let mut acc = [[$zero(); 2]; $mr];
            let (mut a, mut b) = (a, b);
            for _ in 0..kc {
                // SAFETY: the caller gives kc panels of MR and NR elements.
                unsafe {
                    let b0 = $load(b);
                    let b1 = $load(b.add($lanes));
                    for i in 0..$mr {
                        let x = $splat(*a.add(i));
                        acc[i][0] = $fma(x, b0, acc[i][0]);
                        acc[i][1] = $fma(x, b1, acc[i][1]);
                    }
                    a = a.add($mr);
                    b = b.add(NR);
                }
            }
            for (i, mut row) in acc.into_iter().enumerate() {
                for (j, sums) in row.iter_mut().enumerate() {
                    // SAFETY: the caller gives MR rows of NR elements of the base and of the result, and NR of bias.
                    unsafe {
                        if !dest.bias.is_null() {
                            *sums = $add($load(dest.bias.add(j * $lanes)), *sums);
                        }
                        if !dest.base.is_null() {
                            *sums = $add($load(dest.base.add(i * dest.base_ld + j * $lanes)), *sums);
                        }
                        $store(dest.out.add(i * dest.ld + j * $lanes), *sums);
                    }
                }
            }
        }
    };
}
#[cfg(target_arch = "x86_64")]
pub(super) use x86_kernel;
