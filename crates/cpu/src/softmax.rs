//! A row of scores and the vectors that it weighs.

use crate::real::{Real, sum};
use crate::simd::simd;

simd! {
    /// `out = x · factor`, rounded to the storage type.
    pub fn scaled<R: Real>(out: &mut [R], x: &[R::Acc], factor: R::Acc) {
        for (out, &x) in out.iter_mut().zip(x) {
            *out = R::down(x * factor);
        }
    }

    /// Dot product of two vectors of one length.
    pub fn dot<R: Real>(a: &[R], b: &[R]) -> R::Acc {
        sum([a, b], |[a, b]| a.up() * b.up())
    }

    /// `out += p · v`.
    pub fn axpy<R: Real>(out: &mut [R::Acc], p: R::Acc, v: &[R]) {
        for (out, v) in out.iter_mut().zip(v) {
            *out += p * v.up();
        }
    }
}
