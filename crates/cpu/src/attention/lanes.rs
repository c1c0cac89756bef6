//! Registers of numbers: what the kernels of attention are written in, once for every instruction set.

use crate::real::Scalar;

/// A register of one instruction set. Every method compiles to an instruction or two where the caller has it.
///
/// AVX2 and AVX-512 give the same bits: a multiply-add rounds once on both, and `exp` is the same polynomial.
///
/// # Safety
/// All methods need the CPU features of the type, and pointers to [`Lanes::COUNT`] numbers, of any alignment.
pub trait Lanes: Copy {
    /// What a lane holds.
    type Number: Scalar;
    /// Numbers in a register: a divisor of 16.
    const COUNT: usize;

    unsafe fn load(at: *const Self::Number) -> Self;
    unsafe fn store(self, at: *mut Self::Number);
    unsafe fn splat(x: Self::Number) -> Self;
    unsafe fn add(self, b: Self) -> Self;
    unsafe fn sub(self, b: Self) -> Self;
    unsafe fn mul(self, b: Self) -> Self;
    /// `self · b + c`.
    unsafe fn mul_add(self, b: Self, c: Self) -> Self;
    /// The larger; `b` where `self` is NaN.
    unsafe fn max(self, b: Self) -> Self;
    /// `e^self` for `self < 88`; relative error below `2 * EPSILON`. In single precision 0 below -87.
    unsafe fn exp(self) -> Self;
}

/// Four numbers, for every CPU. A multiply-add rounds twice.
#[derive(Clone, Copy)]
pub struct Four<S>([S; 4]);

impl<S: Scalar> Four<S> {
    #[inline(always)]
    fn zip(self, b: Self, f: impl Fn(S, S) -> S) -> Self {
        Four(std::array::from_fn(|i| f(self.0[i], b.0[i])))
    }
}

impl<S: Scalar> Lanes for Four<S> {
    type Number = S;
    const COUNT: usize = 4;

    #[inline(always)]
    unsafe fn load(at: *const S) -> Self {
        // SAFETY: by the trait's contract.
        Four(unsafe { at.cast::<[S; 4]>().read() })
    }
    #[inline(always)]
    unsafe fn store(self, at: *mut S) {
        // SAFETY: by the trait's contract.
        unsafe { at.cast::<[S; 4]>().write(self.0) }
    }
    #[inline(always)]
    unsafe fn splat(x: S) -> Self {
        Four([x; 4])
    }
    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        self.zip(b, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(self, b: Self) -> Self {
        self.zip(b, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(self, b: Self) -> Self {
        self.zip(b, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        Four(std::array::from_fn(|i| self.0[i] * b.0[i] + c.0[i]))
    }
    #[inline(always)]
    unsafe fn max(self, b: Self) -> Self {
        self.zip(b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn exp(self) -> Self {
        let lowest = S::of(-87.0);
        Four(self.0.map(|x| if size_of::<S>() == 4 && x < lowest { S::ZERO } else { x.exp() }))
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Lanes;
    use crate::real::Scalar;
    use std::arch::x86_64::*;

    /// A register type and what its instructions are called.
    macro_rules! lanes {
        ($name:ident, $register:ty, $number:ty, $count:literal, $load:ident, $store:ident, $splat:ident, $add:ident,
         $sub:ident, $mul:ident, $fma:ident, $max:ident, $exp:ident) => {
            #[derive(Clone, Copy)]
            pub struct $name($register);

            // SAFETY (of every block): by the trait's contract the CPU has the instruction, and memory its room.
            impl Lanes for $name {
                type Number = $number;
                const COUNT: usize = $count;

                #[inline(always)]
                unsafe fn load(at: *const $number) -> Self {
                    // SAFETY: as above.
                    $name(unsafe { $load(at) })
                }
                #[inline(always)]
                unsafe fn store(self, at: *mut $number) {
                    // SAFETY: as above.
                    unsafe { $store(at, self.0) }
                }
                #[inline(always)]
                unsafe fn splat(x: $number) -> Self {
                    // SAFETY: as above.
                    $name(unsafe { $splat(x) })
                }
                #[inline(always)]
                unsafe fn add(self, b: Self) -> Self {
                    // SAFETY: as above.
                    $name(unsafe { $add(self.0, b.0) })
                }
                #[inline(always)]
                unsafe fn sub(self, b: Self) -> Self {
                    // SAFETY: as above.
                    $name(unsafe { $sub(self.0, b.0) })
                }
                #[inline(always)]
                unsafe fn mul(self, b: Self) -> Self {
                    // SAFETY: as above.
                    $name(unsafe { $mul(self.0, b.0) })
                }
                #[inline(always)]
                unsafe fn mul_add(self, b: Self, c: Self) -> Self {
                    // SAFETY: as above.
                    $name(unsafe { $fma(self.0, b.0, c.0) })
                }
                #[inline(always)]
                unsafe fn max(self, b: Self) -> Self {
                    // SAFETY: as above.
                    $name(unsafe { $max(self.0, b.0) })
                }
                #[inline(always)]
                unsafe fn exp(self) -> Self {
                    // SAFETY: as above.
                    unsafe { $exp(self) }
                }
            }
        };
    }
    lanes!(
        Single8,
        __m256,
        f32,
        8,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_set1_ps,
        _mm256_add_ps,
        _mm256_sub_ps,
        _mm256_mul_ps,
        _mm256_fmadd_ps,
        _mm256_max_ps,
        exp8
    );
    lanes!(
        Single16,
        __m512,
        f32,
        16,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_set1_ps,
        _mm512_add_ps,
        _mm512_sub_ps,
        _mm512_mul_ps,
        _mm512_fmadd_ps,
        _mm512_max_ps,
        exp16
    );
    lanes!(
        Double4,
        __m256d,
        f64,
        4,
        _mm256_loadu_pd,
        _mm256_storeu_pd,
        _mm256_set1_pd,
        _mm256_add_pd,
        _mm256_sub_pd,
        _mm256_mul_pd,
        _mm256_fmadd_pd,
        _mm256_max_pd,
        exp_each
    );
    lanes!(
        Double8,
        __m512d,
        f64,
        8,
        _mm512_loadu_pd,
        _mm512_storeu_pd,
        _mm512_set1_pd,
        _mm512_add_pd,
        _mm512_sub_pd,
        _mm512_mul_pd,
        _mm512_fmadd_pd,
        _mm512_max_pd,
        exp_each
    );

    /// `e^x` in single precision: x = n ln 2 + r with |r| <= ln 2 / 2; e^r by a polynomial of degree 6, which touches
    /// 1 + r + r²/2 at 0 and e^r at the Chebyshev nodes of the rest (relative error 1.1e-8), and n added to its
    /// exponent. The rounding to n adds and removes 1.5·2^23, whose low mantissa bits then are n itself. Returns the
    /// product, still to be set to 0 where `x` is too low for an exponent.
    #[inline(always)]
    unsafe fn polynomial<V: Lanes<Number = f32>>(x: V, add_exponent: impl FnOnce(V, V) -> V) -> V {
        // SAFETY: the caller has the features of V.
        unsafe {
            let shift = V::splat(12_582_912.0);
            let t = x.mul_add(V::splat(std::f32::consts::LOG2_E), shift);
            let n = t.sub(shift);
            let r = n.mul_add(V::splat(-0.693_359_4), x);
            let r = n.mul_add(V::splat(2.121_944_4e-4), r);
            let mut p = V::splat(1.392_619_1e-3);
            for c in [8.363_185e-3, 4.166_655_6e-2, 1.666_657_6e-1, 0.5, 1.0, 1.0] {
                p = p.mul_add(r, V::splat(c));
            }
            add_exponent(p, t)
        }
    }

    /// Where numbers are lower than this, `exp` is 0. A NaN is not lower.
    const LOWEST: f32 = -87.0;

    #[inline(always)]
    unsafe fn exp8(x: Single8) -> Single8 {
        // SAFETY: the caller has AVX2.
        unsafe {
            polynomial(x, |p, t| {
                let n = _mm256_slli_epi32::<23>(_mm256_castps_si256(t.0));
                let y = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p.0), n));
                Single8(_mm256_and_ps(y, _mm256_cmp_ps::<_CMP_NLT_UQ>(x.0, _mm256_set1_ps(LOWEST))))
            })
        }
    }

    #[inline(always)]
    unsafe fn exp16(x: Single16) -> Single16 {
        // SAFETY: the caller has AVX-512.
        unsafe {
            polynomial(x, |p, t| {
                let n = _mm512_slli_epi32::<23>(_mm512_castps_si512(t.0));
                let y = _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p.0), n));
                let seen = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x.0, _mm512_set1_ps(LOWEST));
                Single16(_mm512_maskz_mov_ps(seen, y))
            })
        }
    }

    /// A lane after the other.
    #[inline(always)]
    unsafe fn exp_each<V: Lanes>(x: V) -> V {
        let mut lanes = [V::Number::ZERO; 16];
        // SAFETY: a register holds 16 numbers at most.
        unsafe {
            x.store(lanes.as_mut_ptr());
            for x in &mut lanes[..V::COUNT] {
                *x = x.exp();
            }
            V::load(lanes.as_ptr())
        }
    }
}
#[cfg(target_arch = "x86_64")]
pub use x86::{Double4, Double8, Single8, Single16};
