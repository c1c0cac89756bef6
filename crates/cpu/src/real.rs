//! The number types the kernels are written over.

use crate::attention::HasLoops;
use crate::pages::grow;
use duel_backend::Float;
use half::bf16;
use std::cell::{Cell, RefCell};
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};
use std::thread::LocalKey;

/// A type that sums are taken in. All methods must inline into the SIMD clones of the kernels.
pub trait Scalar:
    Real<Acc = Self>
    + HasLoops
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
{
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// Below every finite number.
    const LOWEST: Self;
    /// `e^self`, branch-free so that loops over it vectorise; relative error below `2 * EPSILON`.
    #[inline(always)]
    fn exp(self) -> Self {
        Self::exps([self])[0]
    }
    /// [`Scalar::exp`] of each. Of many at a time it is faster: a step of one does not wait for that of another.
    fn exps<const N: usize>(x: [Self; N]) -> [Self; N];
    /// Hyperbolic tangent, branch-free in single precision; relative error below `4 * EPSILON`, and never above 1.
    fn tanh(self) -> Self;
    /// Natural logarithm.
    fn ln(self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// Rounds a constant.
    fn of(x: f64) -> Self;
    /// Exact.
    fn of_f32(x: f32) -> Self;
    /// This thread's packing buffers of the matrix product.
    fn with_pack<T>(f: impl FnOnce(&mut Pack<Self>) -> T) -> T;
    /// This thread's scratch of the attention kernels.
    fn with_scratch<T>(f: impl FnOnce(&mut Vec<Self>) -> T) -> T;
    /// Scratch that the calling thread shares with the tasks it starts, which have their own by
    /// [`Scalar::with_scratch`].
    fn with_shared<T>(f: impl FnOnce(&mut Vec<Self>) -> T) -> T;
}

/// Packed panels of the two operands of a matrix product; grow once, then stay.
#[derive(Default)]
pub struct Pack<S> {
    pub a: Vec<S>,
    pub b: Vec<S>,
    /// Sums of a part of a result that is narrower than they are.
    pub sums: Vec<S>,
}

/// A stored number as one that sums are taken in, exactly.
pub trait Lift<S>: Float {
    /// The same number.
    fn lift(self) -> S;
}

impl Lift<f64> for f64 {
    #[inline(always)]
    fn lift(self) -> f64 {
        self
    }
}
impl Lift<f32> for f32 {
    #[inline(always)]
    fn lift(self) -> f32 {
        self
    }
}
impl<S: Scalar> Lift<S> for bf16 {
    #[inline(always)]
    fn lift(self) -> S {
        S::of_f32(f32::from_bits(u32::from(self.to_bits()) << 16))
    }
}

/// A type that weights and activations are stored in.
pub trait Real: Float + Lift<Self::Acc> {
    /// What its sums are taken in.
    type Acc: Scalar;
    /// Exact.
    #[inline(always)]
    fn up(self) -> Self::Acc {
        self.lift()
    }
    /// Rounds to nearest.
    fn down(x: Self::Acc) -> Self;
}

impl Real for f64 {
    type Acc = f64;
    #[inline(always)]
    fn down(x: f64) -> f64 {
        x
    }
}

impl Real for f32 {
    type Acc = f32;
    #[inline(always)]
    fn down(x: f32) -> f32 {
        x
    }
}

impl Real for bf16 {
    type Acc = f32;
    #[inline(always)]
    // As `bf16::from_f32`, without branches: loops over it vectorise.
    fn down(x: f32) -> bf16 {
        let bits = x.to_bits();
        let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
        let quiet = bits >> 16 | 0x40;
        bf16::from_bits(if x.is_nan() { quiet } else { rounded } as u16)
    }
}

thread_local! {
    static PACK64: RefCell<Pack<f64>> = RefCell::default();
    static PACK32: RefCell<Pack<f32>> = RefCell::default();
    static SCRATCH64: RefCell<Vec<f64>> = const { RefCell::new(Vec::new()) };
    static SCRATCH32: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
    static SHARED64: Cell<Vec<f64>> = const { Cell::new(Vec::new()) };
    static SHARED32: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Takes the buffer out while `f` runs: a thread that waits for its tasks may start other work, which then finds
/// an empty one.
fn lent<S, T>(cell: &'static LocalKey<Cell<Vec<S>>>, f: impl FnOnce(&mut Vec<S>) -> T) -> T {
    let mut buffer = cell.take();
    let result = f(&mut buffer);
    cell.set(buffer);
    result
}

impl Scalar for f64 {
    const ZERO: f64 = 0.0;
    const ONE: f64 = 1.0;
    const LOWEST: f64 = f64::NEG_INFINITY;
    #[inline(always)]
    fn exps<const N: usize>(x: [f64; N]) -> [f64; N] {
        x.map(f64::exp)
    }
    #[inline(always)]
    fn tanh(self) -> f64 {
        f64::tanh(self)
    }
    #[inline(always)]
    fn ln(self) -> f64 {
        f64::ln(self)
    }
    #[inline(always)]
    fn sqrt(self) -> f64 {
        f64::sqrt(self)
    }
    #[inline(always)]
    fn of(x: f64) -> f64 {
        x
    }
    #[inline(always)]
    fn of_f32(x: f32) -> f64 {
        f64::from(x)
    }
    fn with_pack<T>(f: impl FnOnce(&mut Pack<f64>) -> T) -> T {
        PACK64.with_borrow_mut(f)
    }
    fn with_scratch<T>(f: impl FnOnce(&mut Vec<f64>) -> T) -> T {
        SCRATCH64.with_borrow_mut(f)
    }
    fn with_shared<T>(f: impl FnOnce(&mut Vec<f64>) -> T) -> T {
        lent(&SHARED64, f)
    }
}

impl Scalar for f32 {
    const ZERO: f32 = 0.0;
    const ONE: f32 = 1.0;
    const LOWEST: f32 = f32::NEG_INFINITY;
    // x = n ln 2 + r with |r| <= ln 2 / 2; e^r by its Taylor polynomial to degree 7 (next term 5e-9), 2^n by the
    // exponent bits. The rounding to n adds and removes 1.5·2^23, whose low mantissa bits then are n itself.
    #[inline(always)]
    fn exps<const N: usize>(mut x: [f32; N]) -> [f32; N] {
        const SHIFT: f32 = 12_582_912.0;
        const LN2_HI: f32 = 0.693_359_4;
        const LN2_LO: f32 = -2.121_944_4e-4;
        const TERMS: [f32; 7] = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
        let (mut power, mut sum) = ([0.0f32; N], [1.0 / 5040.0; N]);
        for (x, t) in x.iter_mut().zip(&mut power) {
            // A comparison, not max/min: a NaN stays a NaN.
            let y = if *x < -87.0 { -87.0 } else { *x };
            let y = if y > 88.0 { 88.0 } else { y };
            *t = y * std::f32::consts::LOG2_E + SHIFT;
            let n = *t - SHIFT;
            *x = y - n * LN2_HI - n * LN2_LO;
        }
        for term in TERMS {
            for (sum, r) in sum.iter_mut().zip(&x) {
                *sum = *sum * r + term;
            }
        }
        for (sum, t) in sum.iter_mut().zip(&power) {
            *sum *= f32::from_bits(t.to_bits().wrapping_add(127) << 23);
        }
        sum
    }
    // Lambert's continued fraction x / (1 + x² / (3 + x² / (5 + ..))) up to 25, as a quotient of two sums without a
    // negative term: off by less than 4e-8 up to 9, where the tangent is 1 to a float.
    #[inline(always)]
    fn tanh(self) -> f32 {
        const OVER: [f32; 7] =
            [1.264_885_6e-13, 5.179_706e-10, 3.228_683_6e-7, 6.625_259e-5, 5.217_391_3e-3, 0.146_666_67, 1.0];
        const UNDER: [f32; 7] =
            [1.151_045_9e-11, 1.519_380_5e-8, 5.230_467_5e-6, 6.625_259e-4, 3.188_406e-2, 0.48, 1.0];
        // Comparisons, not max/min: a NaN stays a NaN.
        let x = if self < -9.0 { -9.0 } else { self };
        let x = if x > 9.0 { 9.0 } else { x };
        let square = x * x;
        let sum = |terms: [f32; 7]| terms.into_iter().fold(0.0, |sum, term| sum * square + term);
        let y = x * sum(OVER) / sum(UNDER);
        let y = if y < -1.0 { -1.0 } else { y };
        if y > 1.0 { 1.0 } else { y }
    }
    #[inline(always)]
    fn ln(self) -> f32 {
        f32::ln(self)
    }
    #[inline(always)]
    fn sqrt(self) -> f32 {
        f32::sqrt(self)
    }
    #[inline(always)]
    fn of(x: f64) -> f32 {
        x as f32
    }
    #[inline(always)]
    fn of_f32(x: f32) -> f32 {
        x
    }
    fn with_pack<T>(f: impl FnOnce(&mut Pack<f32>) -> T) -> T {
        PACK32.with_borrow_mut(f)
    }
    fn with_scratch<T>(f: impl FnOnce(&mut Vec<f32>) -> T) -> T {
        SCRATCH32.with_borrow_mut(f)
    }
    fn with_shared<T>(f: impl FnOnce(&mut Vec<f32>) -> T) -> T {
        lent(&SHARED32, f)
    }
}

/// Sum of `f` over the elements of slices of one length; see [`sums`].
#[inline(always)]
pub fn sum<T: Copy, S: Scalar, const K: usize>(xs: [&[T]; K], f: impl Fn([T; K]) -> S) -> S {
    sums(xs, |x| [f(x)])[0]
}

/// Sums of the `N` values of `f` over the elements of slices of one length, each in 16 interleaved partial sums: an
/// order that vectorises and never changes.
#[inline(always)]
pub fn sums<T: Copy, S: Scalar, const K: usize, const N: usize>(
    xs: [&[T]; K],
    f: impl Fn([T; K]) -> [S; N],
) -> [S; N] {
    const LANES: usize = 16;
    let n = xs[0].len();
    let mut acc = [[S::ZERO; LANES]; N];
    let whole = n - n % LANES;
    let mut at = 0;
    while at < whole {
        // Arrays, and the sums outside the lanes: what the compiler makes vectors of.
        let block: [[T; LANES]; K] =
            std::array::from_fn(|k| std::array::from_fn(|lane| xs[k][at..at + LANES][lane]));
        for (k, acc) in acc.iter_mut().enumerate() {
            for (lane, acc) in acc.iter_mut().enumerate() {
                *acc += f(std::array::from_fn(|k| block[k][lane]))[k];
            }
        }
        at += LANES;
    }
    for lane in 0..n - whole {
        let values = f(std::array::from_fn(|k| xs[k][whole + lane]));
        for (acc, v) in acc.iter_mut().zip(values) {
            acc[lane] += v;
        }
    }
    acc.map(joined)
}

/// The sum of 16 partial sums, half upon half.
#[inline(always)]
pub fn joined<S: Scalar>(mut sums: [S; 16]) -> S {
    let mut width = sums.len() / 2;
    while width > 0 {
        for lane in 0..width {
            let upper = sums[lane + width];
            sums[lane] += upper;
        }
        width /= 2;
    }
    sums[0]
}

/// Largest of `x`; a NaN may be passed over (the sums that follow it carry it on).
#[inline(always)]
pub fn max<S: Scalar>(x: &[S]) -> S {
    const LANES: usize = 16;
    let mut acc = [S::LOWEST; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder();
    for c in chunks {
        for (a, &v) in acc.iter_mut().zip(c) {
            *a = if v > *a { v } else { *a };
        }
    }
    for (a, &v) in acc.iter_mut().zip(rest) {
        *a = if v > *a { v } else { *a };
    }
    acc.into_iter().fold(S::LOWEST, |a, v| if v > a { v } else { a })
}

/// Parts of these sizes of a scratch buffer, which grows where they need it; what they hold is undefined.
pub fn take<'a, S: Scalar>(scratch: &'a mut Vec<S>, sizes: &[usize]) -> Vec<&'a mut [S]> {
    let total = sizes.iter().sum();
    grow(scratch, total, S::ZERO);
    let mut rest = &mut scratch[..total];
    sizes
        .iter()
        .map(|&n| {
            let (part, tail) = std::mem::take(&mut rest).split_at_mut(n);
            rest = tail;
            part
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_ulp_over_its_range() {
        let mut worst = 0.0f64;
        let mut x = -86.9f32;
        while x < 87.9 {
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(Scalar::exp(x)) - exact).abs() / exact);
            x += 0.001_7;
        }
        assert!(worst < 2.0 * f64::from(f32::EPSILON), "relative error {worst:e}");
        assert_eq!(Scalar::exp(0.0f32), 1.0);
        assert!(Scalar::exp(-1e9f32) < 1e-37 && Scalar::exp(f32::NAN).is_nan());
    }

    #[test]
    fn tanh_is_within_four_ulp_over_its_range() {
        let (mut worst, mut x) = (0.0f64, 1e-6f32);
        while x < 12.0 {
            let exact = f64::from(x).tanh();
            worst = worst.max((f64::from(Scalar::tanh(x)) - exact).abs() / exact);
            assert!(Scalar::tanh(x) <= 1.0 && Scalar::tanh(-x) == -Scalar::tanh(x));
            x *= 1.000_03;
        }
        assert!(worst < 4.0 * f64::from(f32::EPSILON), "relative error {worst:e}");
        assert_eq!(Scalar::tanh(f32::INFINITY), 1.0);
        assert!(Scalar::tanh(0.0f32) == 0.0 && Scalar::tanh(f32::NAN).is_nan());
    }

    #[test]
    fn bf16_is_rounded_as_the_library_does() {
        for top in 0..=u16::MAX {
            for low in [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff] {
                let x = f32::from_bits(u32::from(top) << 16 | low);
                assert_eq!(bf16::down(x).to_bits(), bf16::from_f32(x).to_bits(), "{x:e}");
            }
        }
    }

    #[test]
    fn sum_and_max_cover_every_length() {
        for n in 0..70 {
            let x: Vec<f64> = (0..n).map(|i| ((i * 37) % 11) as f64 - 5.0).collect();
            assert_eq!(sum([&x], |[v]| v), x.iter().sum::<f64>());
            assert_eq!(sums([&x, &x], |[v, w]| [1.0, v + w]), [n as f64, 2.0 * x.iter().sum::<f64>()]);
            assert_eq!(max(&x), x.iter().copied().fold(f64::NEG_INFINITY, f64::max));
        }
    }
}
