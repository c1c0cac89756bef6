//! Matrix product in packed panels (Goto & van de Geijn, 2008), for every layout of the operands.
//!
//! An element of the result is a sum over `k` in blocks of [`KC`], each block summed in order: its bits depend
//! neither on the thread count nor on how many other rows and columns there are.

use crate::real::{Pack, Real, Scalar};
use crate::simd::{Isa, isa};
use crate::sync::{Pool, SyncPtr};

/// Depth of a packed block: one `NR`-wide panel of it stays in the L1 cache.
const KC: usize = 256;
/// Columns of a packed block of `b`.
const NC: usize = 1024;
/// Micro-panels of a packed block of `a`, which stays in the L2 cache.
const MC_PANELS: usize = 20;

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

/// Micro-kernel: `tile[MR][NR] = sum over p of a[p][MR] b[p][NR]` from packed panels.
pub struct Kernel<S> {
    mr: usize,
    nr: usize,
    // Reads kc*mr elements of a, kc*nr of b; writes mr*nr of the tile. Needs the CPU features it was chosen for.
    run: unsafe fn(kc: usize, a: *const S, b: *const S, tile: *mut S),
}

/// Largest `mr * nr` of any kernel.
const TILE: usize = 12 * 32;

macro_rules! x86_kernel {
    ($name:ident, $t:ty, $feature:literal, $mr:literal, $lanes:literal,
     $zero:ident, $load:ident, $splat:ident, $fma:ident, $store:ident) => {
        /// # Safety
        /// As [`Kernel::run`] says.
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = $feature)]
        unsafe fn $name(kc: usize, a: *const $t, b: *const $t, tile: *mut $t) {
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
            for (i, row) in acc.iter().enumerate() {
                // SAFETY: the caller gives a tile of MR * NR elements.
                unsafe {
                    $store(tile.add(i * NR), row[0]);
                    $store(tile.add(i * NR + $lanes), row[1]);
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
    _mm256_storeu_pd
);

/// The micro-kernel of every other CPU.
///
/// # Safety
/// As [`Kernel::run`] says.
unsafe fn portable<S: Scalar>(kc: usize, a: *const S, b: *const S, tile: *mut S) {
    // SAFETY: the caller gives kc panels of 4 and 8 elements and a tile of 32.
    let (a, b, tile) = unsafe {
        (
            std::slice::from_raw_parts(a, kc * 4),
            std::slice::from_raw_parts(b, kc * 8),
            std::slice::from_raw_parts_mut(tile, 32),
        )
    };
    let mut acc = [[S::ZERO; 8]; 4];
    for (a, b) in a.chunks_exact(4).zip(b.chunks_exact(8)) {
        for i in 0..4 {
            for j in 0..8 {
                acc[i][j] += a[i] * b[j];
            }
        }
    }
    for (out, row) in tile.chunks_exact_mut(8).zip(&acc) {
        out.copy_from_slice(row);
    }
}

/// A scalar type that has micro-kernels.
pub trait HasKernel: Scalar {
    /// The best one for this machine.
    fn kernel() -> Kernel<Self>;
}

macro_rules! has_kernel {
    ($t:ty, $avx512:ident, $n512:literal, $avx2:ident, $n2:literal) => {
        impl HasKernel for $t {
            fn kernel() -> Kernel<$t> {
                match isa() {
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx512 => Kernel { mr: 12, nr: $n512, run: $avx512 },
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx2 => Kernel { mr: 6, nr: $n2, run: $avx2 },
                    _ => Kernel { mr: 4, nr: 8, run: portable::<$t> },
                }
            }
        }
    };
}
has_kernel!(f32, f32_avx512, 32, f32_avx2, 16);
has_kernel!(f64, f64_avx512, 16, f64_avx2, 8);

/// `c = init + a bᵀ`, split over the pool's threads along the longer of `m` and `n`.
pub fn gemm<S, A, B, C>(pool: &Pool, shape: Shape, c: &mut [C], a: Operand<A>, b: Operand<B>, init: Init<C>)
where
    S: HasKernel,
    A: Real<Acc = S>,
    B: Real<Acc = S>,
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
        assert!(residual.is_none_or(|x| x.len() >= m * n) && ldc == n, "residual too short");
    }
    let kernel = S::kernel();
    let c = SyncPtr::new(c);
    let parts = if m * n * k < 1 << 16 { 1 } else { usize::MAX };
    if m >= n {
        pool.ranges(m, kernel.mr, parts, |rows| {
            // SAFETY: this thread writes rows `rows` of c only, inside c as asserted above.
            unsafe { block(&kernel, shape, rows, 0..n, c, a, b, init) };
        });
    } else {
        pool.ranges(n, kernel.nr, parts, |cols| {
            // SAFETY: this thread writes columns `cols` of c only, inside c as asserted above.
            unsafe { block(&kernel, shape, 0..m, cols, c, a, b, init) };
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
    rows: std::ops::Range<usize>,
    cols: std::ops::Range<usize>,
    c: SyncPtr<C>,
    a: Operand<A>,
    b: Operand<B>,
    init: Init<C>,
) where
    S: HasKernel,
    A: Real<Acc = S>,
    B: Real<Acc = S>,
    C: Real<Acc = S>,
{
    let (mr, nr) = (kernel.mr, kernel.nr);
    let mc = mr * MC_PANELS;
    // A result narrower than its sums must not be rounded between blocks.
    let depth = if size_of::<C>() < size_of::<S>() { shape.k.max(1) } else { KC };
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
                pack(packed_b, b, jc, ncols, pc, kc, nr);
                for ic in rows.clone().step_by(mc) {
                    let nrows = mc.min(rows.end - ic);
                    pack(packed_a, a, ic, nrows, pc, kc, mr);
                    for jr in (0..ncols).step_by(nr) {
                        let width = nr.min(ncols - jr);
                        for ir in (0..nrows).step_by(mr) {
                            let height = mr.min(nrows - ir);
                            // SAFETY: panels are packed to whole multiples of mr and nr; the tile holds mr * nr.
                            unsafe {
                                (kernel.run)(
                                    kc,
                                    packed_a.as_ptr().add(ir * kc),
                                    packed_b.as_ptr().add(jr * kc),
                                    tile.as_mut_ptr(),
                                );
                            }
                            for i in 0..height {
                                let row = (ic + ir + i) * shape.ldc + jc + jr;
                                // SAFETY: row (ic + ir + i), columns jc + jr .. + width are inside the caller's part.
                                let out = unsafe { std::slice::from_raw_parts_mut(c.at(row), width) };
                                let sums = &tile[i * nr..i * nr + width];
                                merge_row(out, sums, init, (ic + ir + i) * shape.n + jc + jr, jc + jr);
                            }
                        }
                    }
                }
            }
        }
    });
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

fn grow<S: Scalar>(buf: &mut Vec<S>, len: usize) {
    if buf.len() < len {
        buf.resize(len, S::ZERO);
    }
}

/// Packs rows `i0..i0+rows` and depth `p0..p0+kc` of an operand into panels of `width` rows, depth first;
/// the last panel is filled up with zeros.
fn pack<S: Scalar, T: Real<Acc = S>>(
    out: &mut [S],
    src: Operand<T>,
    i0: usize,
    rows: usize,
    p0: usize,
    kc: usize,
    width: usize,
) {
    for (panel, out) in out.chunks_mut((width * kc).max(1)).take(rows.div_ceil(width)).enumerate() {
        let first = i0 + panel * width;
        let height = width.min(i0 + rows - first);
        if height < width {
            out[..width * kc].fill(S::ZERO);
        }
        if src.cs == 1 {
            // Depth is contiguous: transpose, eight columns at a time to stay within few cache lines.
            for p in (0..kc).step_by(8) {
                let depth = 8.min(kc - p);
                for i in 0..height {
                    let row = &src.data[(first + i) * src.rs + p0 + p..][..depth];
                    for (q, x) in row.iter().enumerate() {
                        out[(p + q) * width + i] = x.up();
                    }
                }
            }
        } else {
            for (p, out) in out.chunks_exact_mut(width).take(kc).enumerate() {
                let at = first * src.rs + (p0 + p) * src.cs;
                if src.rs == 1 {
                    for (o, x) in out.iter_mut().zip(&src.data[at..at + height]) {
                        *o = x.up();
                    }
                } else {
                    for (i, o) in out.iter_mut().enumerate().take(height) {
                        *o = src.data[at + i * src.rs].up();
                    }
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
            for (m, n, k) in
                [(1, 1, 1), (1, 70, 33), (2, 5, 300), (13, 33, 7), (60, 130, 257), (250, 40, 600), (5, 9, 0)]
            {
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
        let (n, k) = (75, 530);
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

    /// Every kernel that this machine can run, not only the one it would choose, against the plain sum.
    #[test]
    fn every_kernel_matches() {
        fn check<S: Scalar>(kernel: Kernel<S>) {
            let kc = 9;
            let (mr, nr) = (kernel.mr, kernel.nr);
            let a: Vec<S> = (0..mr * kc).map(|i| S::of(value(i))).collect();
            let b: Vec<S> = (0..nr * kc).map(|i| S::of(value(i + 1))).collect();
            let mut tile = vec![S::ZERO; mr * nr];
            // SAFETY: whole panels of kc and a whole tile; the caller checked the CPU features.
            unsafe { (kernel.run)(kc, a.as_ptr(), b.as_ptr(), tile.as_mut_ptr()) };
            for i in 0..mr {
                for j in 0..nr {
                    let want: f64 = (0..kc).map(|p| a[p * mr + i].to_f64() * b[p * nr + j].to_f64()).sum();
                    // Products of numbers below 1: kc roundings of sums below kc.
                    let bound = (kc * kc) as f64 * S::EPSILON;
                    assert!((tile[i * nr + j].to_f64() - want).abs() < bound, "({i},{j})");
                }
            }
        }
        check(Kernel { mr: 4, nr: 8, run: portable::<f64> });
        check(Kernel { mr: 4, nr: 8, run: portable::<f32> });
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            check(Kernel { mr: 6, nr: 16, run: f32_avx2 });
            check(Kernel { mr: 6, nr: 8, run: f64_avx2 });
        }
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx512f") {
            check(Kernel { mr: 12, nr: 32, run: f32_avx512 });
            check(Kernel { mr: 12, nr: 16, run: f64_avx512 });
        }
    }
}
