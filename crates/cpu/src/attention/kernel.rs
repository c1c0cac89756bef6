//! The loops that attention spends its time in, compiled for every instruction set.

#[cfg(target_arch = "x86_64")]
use super::lanes::{Double4, Double8, Single8, Single16};
use super::lanes::{Four, Lanes};
use crate::prefetch::prefetch;
use crate::real::Scalar;
use crate::simd::{Isa, isa};
use std::ops::Range;

/// Keys whose scores are held at a time. With it the order of a row's sums changes: it is the same on every
/// instruction set, and a multiple of every kernel's rows and columns, and of 16.
pub const KEYS: usize = 96;
/// Distance between rows of scores: behind the keys there is room for zeros.
pub const STRIDE: usize = KEYS + 16;
/// Query rows whose scores are held at a time: a multiple of every kernel's rows.
pub const BLOCK: usize = 48;
/// No kernel has tiles of more rows.
pub const MOST_ROWS: usize = 12;
/// No kernel has tiles of more columns.
pub const MOST_COLUMNS: usize = 32;

/// A tile of keys as a block of queries sees it: query row `i` sees the first `i + skew` keys of the tile, at least
/// none and at most all `len`, but for the first `i + lag`, which its window has passed.
#[derive(Clone, Copy)]
pub struct Mask {
    pub len: usize,
    pub skew: isize,
    pub lag: isize,
}

impl Mask {
    /// Keys that query row `i` sees.
    #[inline(always)]
    pub fn seen(self, i: usize) -> usize {
        (i as isize + self.skew).clamp(0, self.len as isize) as usize
    }
    /// The first of them that are before its window.
    #[inline(always)]
    pub fn hidden(self, i: usize) -> usize {
        (i as isize + self.lag).clamp(0, self.seen(i) as isize) as usize
    }
    /// What is left.
    #[inline(always)]
    pub fn keys(self, i: usize) -> Range<usize> {
        self.hidden(i)..self.seen(i)
    }
    /// The same in whole sixteens: their begin and end.
    #[inline(always)]
    fn sixteens(self, i: usize) -> (usize, usize) {
        let Range { start, end } = self.keys(i);
        if start < end { (start - start % 16, end.next_multiple_of(16)) } else { (end, end) }
    }
    /// The first query row that sees key `j`.
    pub fn first(self, j: usize) -> usize {
        (j as isize + 1 - self.skew).max(0) as usize
    }
    /// The first query row after it, of `m`, whose window has passed key `j`.
    pub fn until(self, j: usize, m: usize) -> usize {
        (j as isize + 1 - self.lag).clamp(0, m as isize) as usize
    }
}

/// The left side of a product: element `(i, p)` lies at `at + i * row + p * step`.
#[derive(Clone, Copy)]
pub struct Left<S> {
    pub at: *const S,
    pub row: usize,
    pub step: usize,
}

/// What is kept of each query row on the way through its keys.
pub struct State<'a, S> {
    /// Largest score so far.
    pub top: &'a mut [S],
    /// Sums of the exponentials so far, relative to `top`, of every sixteenth key.
    pub total: &'a mut [[S; 16]],
}

/// The loops of one instruction set.
pub struct Kernel<S> {
    /// Rows of a tile of a product.
    pub rows: usize,
    /// Numbers in a register: a tile is two registers wide, or one.
    pub lanes: usize,
    /// Two registers wide.
    pub wide: Product<S>,
    /// One register wide.
    pub narrow: Product<S>,
    pub softmax: Softmax<S>,
    pub gradient: Gradient<S>,
}

/// `c[rows][columns] = sum over p < k of a[i][p] b[p][j]`, in this order, `c` itself first where `keep`. Rows of `b`
/// lie `b_step` apart, those of `c` `c_row`.
pub type Product<S> =
    unsafe fn(k: usize, a: Left<S>, b: *const S, b_step: usize, c: *mut S, c_row: usize, keep: bool);

/// Scores of `m` rows to weights `exp(scale · (s - top))`, zero where masked up to 16 places around, and `out`,
/// rows of `width`, multiplied by what the new `top` makes of it.
pub type Softmax<S> =
    unsafe fn(m: usize, s: *mut S, mask: Mask, scale: S, state: State<S>, out: *mut S, width: usize);

/// Scores of `m` rows to weights `p = exp(scale · s - lse)`, and `dp` to `p · (dp - delta) · scale`, zero where masked
/// up to 16 places around.
pub type Gradient<S> =
    unsafe fn(m: usize, p: *mut S, dp: *mut S, mask: Mask, scale: S, lse: &[S], delta: &[S]);

/// Steps of a product that memory is asked ahead of.
const AHEAD: usize = 8;

/// # Safety
/// `a`, `b` and `c` have room for `ROWS` rows, `k` steps and `WIDE` registers; the CPU has the features of `V`.
#[inline(always)]
unsafe fn product<V: Lanes, const ROWS: usize, const WIDE: usize>(
    k: usize,
    a: Left<V::Number>,
    b: *const V::Number,
    b_step: usize,
    c: *mut V::Number,
    c_row: usize,
    keep: bool,
) {
    // SAFETY: by this function's contract.
    unsafe {
        let mut sums = [[V::splat(V::Number::ZERO); WIDE]; ROWS];
        if keep {
            for (i, row) in sums.iter_mut().enumerate() {
                for (j, sum) in row.iter_mut().enumerate() {
                    *sum = V::load(c.add(i * c_row + j * V::COUNT));
                }
            }
        }
        let (mut x, mut y) = (a.at, b);
        for _ in 0..k {
            // As products of matrices do: the widest registers alone leave the time to ask.
            if V::COUNT * size_of::<V::Number>() == 64 {
                prefetch(y.wrapping_add(AHEAD * b_step), WIDE * V::COUNT);
            }
            let b: [V; WIDE] = std::array::from_fn(|j| V::load(y.add(j * V::COUNT)));
            for (i, row) in sums.iter_mut().enumerate() {
                let a = V::splat(*x.add(i * a.row));
                for (sum, b) in row.iter_mut().zip(b) {
                    *sum = a.mul_add(b, *sum);
                }
            }
            x = x.add(a.step);
            y = y.add(b_step);
        }
        for (i, row) in sums.into_iter().enumerate() {
            for (j, sum) in row.into_iter().enumerate() {
                sum.store(c.add(i * c_row + j * V::COUNT));
            }
        }
    }
}

/// Sixteen numbers, in as many registers as they take.
#[inline(always)]
unsafe fn sixteen<V: Lanes, const N: usize>(at: *const V::Number) -> [V; N] {
    // SAFETY: by the caller's contract.
    std::array::from_fn(|j| unsafe { V::load(at.add(j * V::COUNT)) })
}

/// `x` in sixteen places.
#[inline(always)]
unsafe fn fill<V: Lanes, const N: usize>(at: *mut V::Number, x: V::Number) {
    for j in 0..N {
        // SAFETY: by the caller's contract.
        unsafe { V::splat(x).store(at.add(j * V::COUNT)) };
    }
}

/// `x` in the sixteen places before the `end`th, as far as there are any.
#[inline(always)]
unsafe fn fill_before<V: Lanes, const N: usize>(at: *mut V::Number, end: usize, x: V::Number) {
    // SAFETY: by the caller's contract.
    unsafe {
        if end >= 16 {
            fill::<V, N>(at.add(end - 16), x);
        } else {
            (0..end).for_each(|j| *at.add(j) = x);
        }
    }
}

/// Folds sixteen numbers, halves onto each other.
#[inline(always)]
unsafe fn fold<V: Lanes, const N: usize>(
    x: [V; N],
    f: impl Fn(V::Number, V::Number) -> V::Number,
) -> V::Number {
    let mut lanes = [V::Number::ZERO; 16];
    for (j, x) in x.into_iter().enumerate() {
        // SAFETY: N registers hold sixteen numbers.
        unsafe { x.store(lanes.as_mut_ptr().add(j * V::COUNT)) };
    }
    let mut half = 8;
    while half > 0 {
        for i in 0..half {
            lanes[i] = f(lanes[i], lanes[i + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// # Safety
/// As [`Softmax`] says: rows of [`STRIDE`]. `N` registers hold 16 numbers; the CPU has the features of `V`.
#[inline(always)]
unsafe fn softmax<V: Lanes, const N: usize>(
    m: usize,
    s: *mut V::Number,
    mask: Mask,
    scale: V::Number,
    state: State<V::Number>,
    out: *mut V::Number,
    width: usize,
) {
    let State { top, total } = state;
    let mut before = [V::Number::ZERO; BLOCK];
    // Three sweeps, so that the end of a row does not hold up the next.
    for (i, (top, before)) in top[..m].iter_mut().zip(&mut before).enumerate() {
        // SAFETY: a row has room for the keys and 16 numbers more.
        unsafe {
            let s = s.add(i * STRIDE);
            let keys = mask.keys(i);
            fill::<V, N>(s.add(keys.end), V::Number::LOWEST);
            fill_before::<V, N>(s, keys.start, V::Number::LOWEST);
            let mut largest = [V::splat(*top); N];
            let (from, end) = mask.sixteens(i);
            for j in (from..end).step_by(16) {
                for (largest, x) in largest.iter_mut().zip(sixteen::<V, N>(s.add(j))) {
                    *largest = x.max(*largest);
                }
            }
            *before = *top;
            *top = fold(largest, |a, b| if b > a { b } else { a });
        }
    }
    // SAFETY: the CPU has the features of V.
    let scales = unsafe { V::splat(scale) };
    for (i, (&top, &before)) in top[..m].iter().zip(&before).enumerate() {
        if top > before {
            // SAFETY: `out` has whole registers of this row, and `total` sixteen numbers.
            unsafe {
                let factor = V::splat(before).sub(V::splat(top)).mul(scales).exp();
                for (at, n) in [(out.add(i * width), width), (total[i].as_mut_ptr(), 16)] {
                    for c in (0..n).step_by(V::COUNT) {
                        V::load(at.add(c)).mul(factor).store(at.add(c));
                    }
                }
            }
        }
    }
    for (i, (&top, total)) in top[..m].iter().zip(total).enumerate() {
        // SAFETY: as above.
        unsafe {
            let s = s.add(i * STRIDE);
            let (from, end) = mask.sixteens(i);
            let mut sum = sixteen::<V, N>(total.as_ptr());
            for j in (from..end).step_by(16) {
                for (lane, (sum, x)) in sum.iter_mut().zip(sixteen::<V, N>(s.add(j))).enumerate() {
                    let p = x.sub(V::splat(top)).mul(scales).exp();
                    p.store(s.add(j + lane * V::COUNT));
                    *sum = sum.add(p);
                }
            }
            for (lane, sum) in sum.into_iter().enumerate() {
                sum.store(total.as_mut_ptr().add(lane * V::COUNT));
            }
            fill::<V, N>(s.add(end), V::Number::ZERO);
            fill_before::<V, N>(s, from, V::Number::ZERO);
        }
    }
}

/// # Safety
/// As [`Gradient`] says: rows of [`STRIDE`]. `N` registers hold 16 numbers; the CPU has the features of `V`.
#[inline(always)]
unsafe fn gradient<V: Lanes, const N: usize>(
    m: usize,
    p: *mut V::Number,
    dp: *mut V::Number,
    mask: Mask,
    scale: V::Number,
    lse: &[V::Number],
    delta: &[V::Number],
) {
    for (i, (&lse, &delta)) in lse[..m].iter().zip(&delta[..m]).enumerate() {
        // SAFETY: a row has room for the keys and 16 numbers more.
        unsafe {
            let (p, dp) = (p.add(i * STRIDE), dp.add(i * STRIDE));
            let keys = mask.keys(i);
            let (from, end) = mask.sixteens(i);
            let scales = V::splat(scale);
            let lowered = V::splat(-lse);
            let delta = V::splat(delta);
            for j in (from..end).step_by(V::COUNT) {
                let (p, dp) = (p.add(j), dp.add(j));
                let weight = V::load(p).mul_add(scales, lowered).exp();
                weight.store(p);
                V::load(dp).sub(delta).mul(weight.mul(scales)).store(dp);
            }
            for at in [p, dp] {
                fill::<V, N>(at.add(keys.end), V::Number::ZERO);
                fill_before::<V, N>(at, keys.start, V::Number::ZERO);
            }
        }
    }
}

/// The loops for registers `$lanes`, `$rows` rows a tile, `$count` registers for sixteen numbers.
macro_rules! kernel {
    ($name:ident, $lanes:ty, $rows:literal, $count:literal $(, $feature:literal)?) => {
        mod $name {
            use super::*;
            type S = <$lanes as Lanes>::Number;

            pub const KERNEL: Kernel<S> = Kernel {
                rows: $rows,
                lanes: <$lanes>::COUNT,
                wide,
                narrow,
                softmax,
                gradient,
            };

            $(#[target_feature(enable = $feature)])?
            unsafe fn wide(k: usize, a: Left<S>, b: *const S, b_step: usize, c: *mut S, c_row: usize, keep: bool) {
                // SAFETY: by the caller's contract.
                unsafe { product::<$lanes, $rows, 2>(k, a, b, b_step, c, c_row, keep) }
            }
            $(#[target_feature(enable = $feature)])?
            unsafe fn narrow(k: usize, a: Left<S>, b: *const S, b_step: usize, c: *mut S, c_row: usize, keep: bool) {
                // SAFETY: by the caller's contract.
                unsafe { product::<$lanes, $rows, 1>(k, a, b, b_step, c, c_row, keep) }
            }
            $(#[target_feature(enable = $feature)])?
            unsafe fn softmax(m: usize, s: *mut S, mask: Mask, scale: S, state: State<S>, out: *mut S, width: usize) {
                // SAFETY: by the caller's contract.
                unsafe { super::softmax::<$lanes, $count>(m, s, mask, scale, state, out, width) }
            }
            $(#[target_feature(enable = $feature)])?
            unsafe fn gradient(m: usize, p: *mut S, dp: *mut S, mask: Mask, scale: S, lse: &[S], delta: &[S]) {
                // SAFETY: by the caller's contract.
                unsafe { super::gradient::<$lanes, $count>(m, p, dp, mask, scale, lse, delta) }
            }
        }
    };
}
#[cfg(target_arch = "x86_64")]
kernel!(avx2_single, Single8, 6, 2, "avx2,fma");
#[cfg(target_arch = "x86_64")]
kernel!(avx2_double, Double4, 6, 4, "avx2,fma");
#[cfg(target_arch = "x86_64")]
kernel!(avx512_single, Single16, 12, 1, "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma");
#[cfg(target_arch = "x86_64")]
kernel!(avx512_double, Double8, 12, 2, "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma");
kernel!(any_single, Four<f32>, 4, 4);
kernel!(any_double, Four<f64>, 4, 4);

/// A scalar type that attention has kernels for.
pub trait HasLoops: Sized + 'static {
    /// Those of this instruction set; [`Isa::Baseline`] has some everywhere.
    fn loops_of(isa: Isa) -> &'static Kernel<Self>;

    /// Those of this process.
    fn loops() -> &'static Kernel<Self> {
        Self::loops_of(isa())
    }
}

impl HasLoops for f32 {
    fn loops_of(isa: Isa) -> &'static Kernel<f32> {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Amx => &avx512_single::KERNEL,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => &avx2_single::KERNEL,
            _ => &any_single::KERNEL,
        }
    }
}

impl HasLoops for f64 {
    fn loops_of(isa: Isa) -> &'static Kernel<f64> {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Amx => &avx512_double::KERNEL,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => &avx2_double::KERNEL,
            _ => &any_double::KERNEL,
        }
    }
}
