//! Matrix product in packed panels (Goto & van de Geijn, 2008), for every layout of the operands.
//!
//! An element of the result is a sum over `k` in blocks of [`KC`], each block summed in order: its bits depend
//! neither on the thread count nor on how many other rows and columns there are.

use crate::real::{Lift, Pack, Real, Scalar};
use crate::simd::{Isa, isa};
use crate::sync::{Pool, SyncPtr};
use std::any::TypeId;
use std::ops::Range;

/// Largest depth of a packed block. With it the order of sums changes, and so do the bits of a result: whoever keeps
/// results on disk must then tell them apart. A deep block reads and writes the result seldom; its panels still stream from the
/// L2 cache faster than the kernel uses them up.
const KC: usize = 768;
/// Columns of a packed block of `b`.
const NC: usize = 1024;
/// Micro-panels of a packed block of `a`, which stays in the L2 cache.
const MC_PANELS: usize = 12;

/// An operand: element `(i, p)` is `data[i * rs + p * cs]`, `p` running along the summed axis.
pub struct Operand<'a, T> {
    pub data: &'a [T],
    pub rs: usize,
    pub cs: usize,
}

impl<T> Clone for Operand<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Operand<'_, T> {}

/// What the product is added to.
pub enum Init<'a, C> {
    /// Nothing.
    Zero,
    /// What the result buffer holds.
    Keep,
    /// A row of biases and a matrix of the result's shape, dense.
    Add(Option<&'a [C]>, Option<&'a [C]>),
}

impl<C> Clone for Init<'_, C> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<C> Copy for Init<'_, C> {}

/// Shape of the product: `c[m, n]` with row stride `ldc`, summed over `k`.
#[derive(Clone, Copy)]
pub struct Shape {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub ldc: usize,
}

/// No kernel has more rows. What a [`Band`] leaves out is left out by whole panels of rows, so that zeros are needed up to
/// this far beyond its edge.
pub const PANEL: usize = 32;

/// What of a product is needed, where causal masks leave a triangle out.
#[derive(Clone, Copy)]
pub enum Band {
    /// All of it.
    Full,
    /// Of the result, the elements with `j <= i + edge`; what the others hold is undefined.
    Result { edge: usize },
    /// `a[i, p]` is zero for `p > i + edge`; from [`PANEL`] further on it need not be.
    Left { edge: usize },
    /// `a[i, p]` is zero for `i > p + edge`; from [`PANEL`] further on it need not be.
    LeftTransposed { edge: usize },
}

impl Band {
    /// Whether the tile of rows up to `last_row` and columns from `col` on has an element that is needed.
    fn needs(self, last_row: usize, col: usize) -> bool {
        match self {
            Band::Result { edge } => col <= last_row + edge,
            _ => true,
        }
    }

    /// The depths within `from..to` that the rows `first..=last` are not all zero at.
    fn depths(self, first: usize, last: usize, from: usize, to: usize) -> Range<usize> {
        match self {
            Band::Full | Band::Result { .. } => from..to,
            Band::Left { edge } => from..to.min(last + edge + 1).max(from),
            Band::LeftTransposed { edge } => from.max(first.saturating_sub(edge)).min(to)..to,
        }
    }
}

/// Where a micro-kernel puts its tile: `out = base + (bias + sums)`, row `i` at `out + i * ld`. A null `base` or `bias`
/// is left out of the sum.
#[derive(Clone, Copy)]
struct Dest<S> {
    out: *mut S,
    ld: usize,
    base: *const S,
    base_ld: usize,
    bias: *const S,
}

/// Micro-kernel: `sums[MR][NR] = sum over p of a[p][MR] b[p][NR]` from packed panels.
pub struct Kernel<S> {
    mr: usize,
    nr: usize,
    // Reads kc*mr elements of a, kc*nr of b; writes the mr x nr elements of the destination and reads as many of its
    // base, nr of its bias. Needs the CPU features it was chosen for.
    run: unsafe fn(kc: usize, a: *const S, b: *const S, dest: Dest<S>),
    /// Transposes a square of this many rows while packing.
    transpose: Transpose<S>,
}

/// Largest `mr * nr` of any kernel.
const TILE: usize = 12 * 32;

/// Largest side of a square that is transposed at a time.
const SQUARE: usize = 16;

/// A square of `side` rows of `side` elements, put down column by column: column `q < depth`, cut to its first
/// `width` elements, at `out + q * ld`.
struct Transpose<S> {
    side: usize,
    // Reads side*side elements; writes `width <= side` elements for each of `depth <= side` columns. Needs the CPU features
    // it was chosen for.
    run: unsafe fn(square: *const S, out: *mut S, ld: usize, width: usize, depth: usize),
}

/// The transposition of every type and CPU that has no better one.
///
/// # Safety
/// As [`Transpose::run`] says, with a side of 8.
unsafe fn transpose_portable<S: Scalar>(
    square: *const S,
    out: *mut S,
    ld: usize,
    width: usize,
    depth: usize,
) {
    for q in 0..depth {
        for i in 0..width {
            // SAFETY: i and q are below the side, and the caller has room for column q.
            unsafe { *out.add(q * ld + i) = *square.add(i * 8 + q) };
        }
    }
}

/// 16 x 16 in registers: pairs, then fours, are interleaved within 128-bit lanes, then the lanes change places.
///
/// # Safety
/// As [`Transpose::run`] says, with a side of 16.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn transpose_avx512(square: *const f32, out: *mut f32, ld: usize, width: usize, depth: usize) {
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

/// 8 x 8 in registers, as [`transpose_avx512`].
///
/// # Safety
/// As [`Transpose::run`] says, with a side of 8.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn transpose_avx2(square: *const f32, out: *mut f32, ld: usize, width: usize, depth: usize) {
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

macro_rules! x86_kernel {
    ($name:ident, $t:ty, $feature:literal, $mr:literal, $lanes:literal,
     $zero:ident, $load:ident, $splat:ident, $fma:ident, $add:ident, $store:ident) => {
        /// # Safety
        /// As [`Kernel::run`] says.
        #[cfg(target_arch = "x86_64")]
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

x86_kernel!(
    f32_avx512,
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
    f64_avx512,
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
x86_kernel!(
    f32_avx2,
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
    f64_avx2,
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

/// The micro-kernel of every other CPU.
///
/// # Safety
/// As [`Kernel::run`] says.
unsafe fn portable<S: Scalar>(kc: usize, a: *const S, b: *const S, dest: Dest<S>) {
    // SAFETY: the caller gives kc panels of 4 and 8 elements.
    let (a, b) = unsafe { (std::slice::from_raw_parts(a, kc * 4), std::slice::from_raw_parts(b, kc * 8)) };
    let mut acc = [[S::ZERO; 8]; 4];
    for (a, b) in a.chunks_exact(4).zip(b.chunks_exact(8)) {
        for i in 0..4 {
            for j in 0..8 {
                acc[i][j] += a[i] * b[j];
            }
        }
    }
    for (i, row) in acc.into_iter().enumerate() {
        for (j, mut sum) in row.into_iter().enumerate() {
            // SAFETY: the caller gives 4 rows of 8 elements of the base and of the result, and 8 of bias.
            unsafe {
                if !dest.bias.is_null() {
                    sum = *dest.bias.add(j) + sum;
                }
                if !dest.base.is_null() {
                    sum = *dest.base.add(i * dest.base_ld + j) + sum;
                }
                *dest.out.add(i * dest.ld + j) = sum;
            }
        }
    }
}

/// A scalar type that has micro-kernels.
pub trait HasKernel: Scalar {
    /// The best one for this machine.
    fn kernel() -> Kernel<Self>;
}

macro_rules! has_kernel {
    ($t:ty, ($avx512:ident, $n512:literal, $t512:ident, $s512:literal), ($avx2:ident, $n2:literal, $t2:ident)) => {
        impl HasKernel for $t {
            fn kernel() -> Kernel<$t> {
                match isa() {
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx512 => {
                        let transpose = Transpose { side: $s512, run: $t512 };
                        Kernel { mr: 12, nr: $n512, run: $avx512, transpose }
                    }
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx2 => {
                        let transpose = Transpose { side: 8, run: $t2 };
                        Kernel { mr: 6, nr: $n2, run: $avx2, transpose }
                    }
                    _ => {
                        let transpose = Transpose { side: 8, run: transpose_portable::<$t> };
                        Kernel { mr: 4, nr: 8, run: portable::<$t>, transpose }
                    }
                }
            }
        }
    };
}
has_kernel!(f32, (f32_avx512, 32, transpose_avx512, 16), (f32_avx2, 16, transpose_avx2));
has_kernel!(f64, (f64_avx512, 16, transpose_portable, 8), (f64_avx2, 8, transpose_portable));

/// `c = init + a bᵀ`, split over the pool's threads along the longer of `m` and `n`.
pub fn gemm<S, A, B, C>(pool: &Pool, shape: Shape, c: &mut [C], a: Operand<A>, b: Operand<B>, init: Init<C>)
where
    S: HasKernel,
    A: Lift<S>,
    B: Lift<S>,
    C: Real<Acc = S>,
{
    gemm_band(pool, shape, Band::Full, c, a, b, init);
}

/// As [`gemm`], of the part that `band` says.
pub fn gemm_band<S, A, B, C>(
    pool: &Pool,
    shape: Shape,
    band: Band,
    c: &mut [C],
    a: Operand<A>,
    b: Operand<B>,
    init: Init<C>,
) where
    S: HasKernel,
    A: Lift<S>,
    B: Lift<S>,
    C: Real<Acc = S>,
{
    let Shape { m, n, k, ldc } = shape;
    if m == 0 || n == 0 {
        return;
    }
    assert!(ldc >= n && c.len() >= (m - 1) * ldc + n, "result buffer too short");
    assert!(k == 0 || a.data.len() > (m - 1) * a.rs + (k - 1) * a.cs, "left operand too short");
    assert!(k == 0 || b.data.len() > (n - 1) * b.rs + (k - 1) * b.cs, "right operand too short");
    if let Init::Add(bias, residual) = init {
        assert!(bias.is_none_or(|x| x.len() >= n), "bias too short");
        assert!(
            residual.is_none_or(|x| x.len() >= m * n && ldc == n),
            "residual too short, or rows not dense"
        );
    }
    let kernel = S::kernel();
    assert!(kernel.mr <= PANEL, "a band's zeros must cover a panel");
    let c = SyncPtr::new(c);
    let parts = if m * n * k < 1 << 16 { 1 } else { usize::MAX };
    if m >= n {
        pool.ranges(m, kernel.mr, parts, |rows| {
            // SAFETY: this thread writes rows `rows` of c only, inside c as asserted above.
            unsafe { block(&kernel, shape, band, rows, 0..n, c, a, b, init) };
        });
    } else {
        pool.ranges(n, kernel.nr, parts, |cols| {
            // SAFETY: this thread writes columns `cols` of c only, inside c as asserted above.
            unsafe { block(&kernel, shape, band, 0..m, cols, c, a, b, init) };
        });
    }
}

/// The part `rows` x `cols` of the product, on this thread.
///
/// # Safety
/// `c` has room for the shape, and no other thread touches that part of it.
unsafe fn block<S, A, B, C>(
    kernel: &Kernel<S>,
    shape: Shape,
    band: Band,
    rows: Range<usize>,
    cols: Range<usize>,
    c: SyncPtr<C>,
    a: Operand<A>,
    b: Operand<B>,
    init: Init<C>,
) where
    S: HasKernel,
    A: Lift<S>,
    B: Lift<S>,
    C: Real<Acc = S>,
{
    let (mr, nr) = (kernel.mr, kernel.nr);
    let mc = mr * MC_PANELS;
    // A result narrower than its sums must not be rounded between blocks.
    let depth = if size_of::<C>() < size_of::<S>() { shape.k.max(1) } else { block_depth(shape.k) };
    S::with_pack(|Pack { a: packed_a, b: packed_b }| {
        let need_a = mc.min(rows.len().next_multiple_of(mr)) * depth.min(shape.k);
        let need_b = NC.next_multiple_of(nr).min(cols.len().next_multiple_of(nr)) * depth.min(shape.k);
        grow(packed_a, need_a);
        grow(packed_b, need_b);
        let mut tile = [S::ZERO; TILE];
        for jc in cols.clone().step_by(NC) {
            let ncols = NC.min(cols.end - jc);
            for pc in (0..shape.k.max(1)).step_by(depth) {
                let kc = depth.min(shape.k - pc);
                let init = if pc == 0 { init } else { Init::Keep };
                pack(packed_b, b, jc, ncols, pc, kc, nr, &kernel.transpose);
                for ic in rows.clone().step_by(mc) {
                    let nrows = mc.min(rows.end - ic);
                    pack(packed_a, a, ic, nrows, pc, kc, mr, &kernel.transpose);
                    for jr in (0..ncols).step_by(nr) {
                        let width = nr.min(ncols - jr);
                        for ir in (0..nrows).step_by(mr) {
                            let height = mr.min(nrows - ir);
                            let (row, col) = (ic + ir, jc + jr);
                            if !band.needs(row + height - 1, col) {
                                continue;
                            }
                            let depths = band.depths(row, row + height - 1, pc, pc + kc);
                            let whole = height == mr && width == nr;
                            let in_place = match whole {
                                // SAFETY: the whole tile is in the caller's part of c, and in init (asserted).
                                true => unsafe { direct(c, shape, row, col, init) },
                                false => None,
                            };
                            let aside = Dest {
                                out: tile.as_mut_ptr(),
                                ld: nr,
                                base: std::ptr::null(),
                                base_ld: 0,
                                bias: std::ptr::null(),
                            };
                            // SAFETY: panels are packed to whole multiples of mr and nr; a destination in c is a whole
                            // tile, and the one aside holds mr * nr.
                            unsafe {
                                (kernel.run)(
                                    depths.len(),
                                    packed_a.as_ptr().add(ir * kc + (depths.start - pc) * mr),
                                    packed_b.as_ptr().add(jr * kc + (depths.start - pc) * nr),
                                    in_place.unwrap_or(aside),
                                );
                            }
                            if in_place.is_some() {
                                continue;
                            }
                            for i in 0..height {
                                // SAFETY: row `row + i`, columns `col .. col + width` are inside the caller's part.
                                let out = unsafe {
                                    std::slice::from_raw_parts_mut(c.at((row + i) * shape.ldc + col), width)
                                };
                                let sums = &tile[i * nr..i * nr + width];
                                merge_row(out, sums, init, (row + i) * shape.n + col, col);
                            }
                        }
                    }
                }
            }
        }
    });
}

/// The tile at `(row, col)` of the result as a kernel's destination, where results are stored as sums are taken.
///
/// # Safety
/// The tile lies in `c`, and in what `init` adds.
unsafe fn direct<S: Scalar, C: Real<Acc = S>>(
    c: SyncPtr<C>,
    shape: Shape,
    row: usize,
    col: usize,
    init: Init<C>,
) -> Option<Dest<S>> {
    if TypeId::of::<C>() != TypeId::of::<S>() {
        return None;
    }
    // SAFETY: by this function's contract; C is S, so that the casts change nothing.
    unsafe {
        let out = c.at(row * shape.ldc + col).cast::<S>();
        let null = std::ptr::null();
        let (base, base_ld, bias) = match init {
            Init::Zero => (null, 0, null),
            Init::Keep => (out.cast_const(), shape.ldc, null),
            Init::Add(bias, residual) => (
                residual.map_or(null, |r| r.as_ptr().add(row * shape.n + col).cast::<S>()),
                shape.n,
                bias.map_or(null, |b| b.as_ptr().add(col).cast::<S>()),
            ),
        };
        Some(Dest { out, ld: shape.ldc, base, base_ld, bias })
    }
}

/// One row of a tile into the result; `at` is its place in the residual, `col` in the bias.
#[inline(always)]
fn merge_row<C: Real>(out: &mut [C], sums: &[C::Acc], init: Init<C>, at: usize, col: usize) {
    match init {
        Init::Zero | Init::Add(None, None) => {
            for (o, &s) in out.iter_mut().zip(sums) {
                *o = C::down(s);
            }
        }
        Init::Keep => {
            for (o, &s) in out.iter_mut().zip(sums) {
                *o = C::down(o.up() + s);
            }
        }
        Init::Add(Some(bias), None) => {
            for ((o, &s), b) in out.iter_mut().zip(sums).zip(&bias[col..]) {
                *o = C::down(b.up() + s);
            }
        }
        Init::Add(None, Some(residual)) => {
            for ((o, &s), r) in out.iter_mut().zip(sums).zip(&residual[at..]) {
                *o = C::down(r.up() + s);
            }
        }
        Init::Add(Some(bias), Some(residual)) => {
            for (((o, &s), b), r) in out.iter_mut().zip(sums).zip(&bias[col..]).zip(&residual[at..]) {
                *o = C::down(r.up() + (b.up() + s));
            }
        }
    }
}

/// Depth of the packed blocks of a sum over `k`: all of one size but the last. It depends on `k` alone, and with it the
/// order of the sums.
fn block_depth(k: usize) -> usize {
    let blocks = k.div_ceil(KC).max(1);
    k.div_ceil(blocks).next_multiple_of(SQUARE).max(1)
}

fn grow<S: Scalar>(buf: &mut Vec<S>, len: usize) {
    if buf.len() < len {
        buf.resize(len, S::ZERO);
    }
}

/// Packs rows `i0..i0+rows` and depth `p0..p0+kc` of an operand into panels of `width` rows, depth first;
/// the last panel is filled up with zeros.
fn pack<S: Scalar, T: Lift<S>>(
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

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;

    fn value(i: usize) -> f64 {
        ((i * 2_654_435_761) % 1009) as f64 / 504.5 - 1.0
    }

    /// Every layout and edge against the plain triple loop in f64, the error bounded by k + 3 roundings of the largest partial sum.
    fn check<R: Real>()
    where
        R::Acc: HasKernel,
    {
        for threads in [1, 3] {
            let pool = Pool::new(threads);
            for (m, n, k) in [
                (1, 1, 1),
                (1, 70, 33),
                (2, 5, 300),
                (13, 33, 7),
                (60, 130, KC + 1),
                (250, 40, 2 * KC + 9),
                (5, 9, 0),
            ] {
                for (ta, tb) in [(false, false), (true, false), (false, true), (true, true)] {
                    let a: Vec<R> = (0..m * k).map(|i| R::from_f64(value(i))).collect();
                    let b: Vec<R> = (0..n * k).map(|i| R::from_f64(value(i + 7))).collect();
                    let bias: Vec<R> = (0..n).map(|i| R::from_f64(value(i + 3))).collect();
                    let res: Vec<R> = (0..m * n).map(|i| R::from_f64(value(i + 5))).collect();
                    let (ars, acs) = if ta { (1, m) } else { (k, 1) };
                    let (brs, bcs) = if tb { (1, n) } else { (k, 1) };
                    let mut c = vec![R::default(); m * n];
                    gemm(
                        &pool,
                        Shape { m, n, k, ldc: n },
                        &mut c,
                        Operand { data: &a, rs: ars, cs: acs },
                        Operand { data: &b, rs: brs, cs: bcs },
                        Init::Add(Some(&bias), Some(&res)),
                    );
                    for i in 0..m {
                        for j in 0..n {
                            let mut want = bias[j].to_f64() + res[i * n + j].to_f64();
                            let mut size = bias[j].to_f64().abs() + res[i * n + j].to_f64().abs();
                            for p in 0..k {
                                let product = a[i * ars + p * acs].to_f64() * b[j * brs + p * bcs].to_f64();
                                want += product;
                                size += product.abs();
                            }
                            let bound = (k + 3) as f64 * size * <R::Acc as duel_backend::Float>::EPSILON
                                + want.abs() * R::EPSILON;
                            let got = c[i * n + j].to_f64();
                            assert!(
                                (got - want).abs() <= bound,
                                "({m},{n},{k}) at ({i},{j}): {got} not {want}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn matches_the_triple_loop() {
        check::<f64>();
        check::<f32>();
        check::<bf16>();
    }

    #[test]
    fn a_row_does_not_depend_on_the_other_rows() {
        let (n, k) = (75, 2 * KC + 30);
        let a: Vec<f32> = (0..40 * k).map(|i| value(i) as f32).collect();
        let b: Vec<f32> = (0..n * k).map(|i| value(i + 11) as f32).collect();
        let run = |m: usize, threads| {
            let mut c = vec![0f32; m * n];
            let (a, b) = (Operand { data: &a, rs: k, cs: 1 }, Operand { data: &b, rs: k, cs: 1 });
            gemm(&Pool::new(threads), Shape { m, n, k, ldc: n }, &mut c, a, b, Init::Zero);
            c
        };
        let all = run(40, 1);
        for (m, threads) in [(1, 1), (3, 1), (17, 2), (39, 3)] {
            assert_eq!(run(m, threads), all[..m * n]);
        }
    }

    /// Each band against the triple loop over what it keeps, with NaN wherever the band says that nothing is read.
    #[test]
    fn bands_leave_out_what_they_say() {
        fn check<S: HasKernel>() {
            let pool = Pool::new(1);
            let nan = S::of(f64::NAN);
            for (m, n, k) in [(1, 1, 1), (40, 100, 70), (97, 300, 130), (200, 64, 2 * KC + 9)] {
                for edge in [0, 5, 96] {
                    let b: Vec<S> = (0..n * k).map(|i| S::of(value(i + 7))).collect();
                    let of_b = Operand { data: &b, rs: k, cs: 1 };
                    let bands = [Band::Result { edge }, Band::Left { edge }, Band::LeftTransposed { edge }];
                    for band in bands {
                        let kept = |i: usize, p: usize| match band {
                            Band::Left { .. } => p <= i + edge,
                            Band::LeftTransposed { .. } => i <= p + edge,
                            _ => true,
                        };
                        // Behind the zeros that a panel may look at, nothing may be read.
                        let hidden = |i: usize, p: usize| match band {
                            Band::Left { .. } => p > i + edge + PANEL,
                            Band::LeftTransposed { .. } => i > p + edge + PANEL,
                            _ => false,
                        };
                        let element = |i: usize, p: usize| match (kept(i, p), hidden(i, p)) {
                            (true, _) => S::of(value(i * k + p)),
                            (false, true) => nan,
                            (false, false) => S::ZERO,
                        };
                        let a: Vec<S> = (0..m * k).map(|at| element(at / k, at % k)).collect();
                        let mut c = vec![nan; m * n];
                        let shape = Shape { m, n, k, ldc: n };
                        let of_a = Operand { data: &a, rs: k, cs: 1 };
                        gemm_band(&pool, shape, band, &mut c, of_a, of_b, Init::Zero);
                        for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
                            if matches!(band, Band::Result { .. }) && j > i + edge {
                                continue;
                            }
                            let products = (0..k)
                                .filter(|&p| kept(i, p))
                                .map(|p| a[i * k + p].to_f64() * b[j * k + p].to_f64());
                            let (want, size) = products.fold((0.0, 0.0), |(w, s), x| (w + x, s + x.abs()));
                            let bound = (k + 3) as f64 * size * S::EPSILON;
                            let got = c[i * n + j].to_f64();
                            assert!(
                                (got - want).abs() <= bound,
                                "({m},{n},{k}) edge {edge} at ({i},{j}): {got} not {want}"
                            );
                        }
                    }
                }
            }
        }
        check::<f64>();
        check::<f32>();
    }

    /// Every kernel that this machine can run, not only the one it would choose, against the plain sum, and its
    /// transposition.
    #[test]
    fn every_kernel_matches() {
        fn check<S: Scalar>(kernel: Kernel<S>) {
            let kc = 9;
            let (mr, nr) = (kernel.mr, kernel.nr);
            let a: Vec<S> = (0..mr * kc).map(|i| S::of(value(i))).collect();
            let b: Vec<S> = (0..nr * kc).map(|i| S::of(value(i + 1))).collect();
            let base: Vec<S> = (0..mr * nr).map(|i| S::of(value(i + 2))).collect();
            let bias: Vec<S> = (0..nr).map(|i| S::of(value(i + 3))).collect();
            for (with_base, with_bias) in [(false, false), (true, false), (false, true), (true, true)] {
                let mut tile = vec![S::ZERO; mr * nr];
                let dest = Dest {
                    out: tile.as_mut_ptr(),
                    ld: nr,
                    base: if with_base { base.as_ptr() } else { std::ptr::null() },
                    base_ld: nr,
                    bias: if with_bias { bias.as_ptr() } else { std::ptr::null() },
                };
                // SAFETY: whole panels of kc and whole tiles; the caller checked the CPU features.
                unsafe { (kernel.run)(kc, a.as_ptr(), b.as_ptr(), dest) };
                for i in 0..mr {
                    for j in 0..nr {
                        let mut want: f64 =
                            (0..kc).map(|p| a[p * mr + i].to_f64() * b[p * nr + j].to_f64()).sum();
                        want += if with_base { base[i * nr + j].to_f64() } else { 0.0 };
                        want += if with_bias { bias[j].to_f64() } else { 0.0 };
                        // Products of numbers below 1: kc + 2 roundings of sums below kc + 2.
                        let bound = ((kc + 2) * (kc + 2)) as f64 * S::EPSILON;
                        assert!((tile[i * nr + j].to_f64() - want).abs() < bound, "({i},{j})");
                    }
                }
            }
            let side = kernel.transpose.side;
            let square: Vec<S> = (0..side * side).map(|i| S::of(i as f64)).collect();
            let untouched = S::of(-1.0);
            for (width, depth) in [(side, side), (1, side), (side, 1), (side - 3, side - 1)] {
                let mut out = vec![untouched; side * side];
                // SAFETY: the square and the result hold side * side elements.
                unsafe { (kernel.transpose.run)(square.as_ptr(), out.as_mut_ptr(), side, width, depth) };
                for (at, &x) in out.iter().enumerate() {
                    let (q, i) = (at / side, at % side);
                    let inside = q < depth && i < width;
                    assert_eq!(
                        x,
                        if inside { square[i * side + q] } else { untouched },
                        "column {q}, row {i}"
                    );
                }
            }
        }
        fn portable_of<S: Scalar>() -> Kernel<S> {
            let transpose = Transpose { side: 8, run: transpose_portable::<S> };
            Kernel { mr: 4, nr: 8, run: portable::<S>, transpose }
        }
        check(portable_of::<f64>());
        check(portable_of::<f32>());
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            let transpose = Transpose { side: 8, run: transpose_avx2 };
            check(Kernel { mr: 6, nr: 16, run: f32_avx2, transpose });
            check(Kernel { mr: 6, nr: 8, run: f64_avx2, ..portable_of() });
        }
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx512f") {
            let transpose = Transpose { side: 16, run: transpose_avx512 };
            check(Kernel { mr: 12, nr: 32, run: f32_avx512, transpose });
            check(Kernel { mr: 12, nr: 16, run: f64_avx512, ..portable_of() });
        }
    }
}
