//! Soft caps: scores that come no further than a number.

use super::kernel::{Mask, STRIDE};
use crate::real::Scalar;
use crate::simd::simd;
use duel_backend::Scores;

/// A cap `c` of scores that are products times `scale`.
#[derive(Clone, Copy)]
pub struct Cap<S> {
    cap: S,
    /// `scale / c`.
    inner: S,
    scale: S,
}

/// What a product is multiplied by after its cap, if there is one: 1, since the cap has done it.
pub fn factor_and_cap<S: Scalar>(scores: Scores) -> (S, Option<Cap<S>>) {
    let scale = S::of(scores.scale);
    match scores.cap {
        None => (scale, None),
        Some(c) => (S::ONE, Some(Cap { cap: S::of(c), inner: S::of(scores.scale / c), scale })),
    }
}

impl<S: Scalar> Cap<S> {
    /// `c tanh(scale · x / c)`.
    #[inline(always)]
    pub fn of(self, x: S) -> S {
        self.cap * (x * self.inner).tanh()
    }
}

simd! {
    /// Products of `m` rows with the keys that they see to scores.
    pub fn cap<S: Scalar>(s: &mut [S], m: usize, mask: Mask, cap: Cap<S>) {
        for (i, row) in s.chunks_exact_mut(STRIDE).take(m).enumerate() {
            for s in &mut row[mask.keys(i)] {
                *s = cap.of(*s);
            }
        }
    }

    /// The same, and `dp` to `(dp - delta)` times the score's derivative by the product, `scale (1 - tanh²)`.
    pub fn cap_and_slope<S: Scalar>(s: &mut [S], dp: &mut [S], delta: &[S], m: usize, mask: Mask, cap: Cap<S>) {
        let rows = s.chunks_exact_mut(STRIDE).zip(dp.chunks_exact_mut(STRIDE));
        for (i, ((s, dp), &delta)) in rows.zip(delta).take(m).enumerate() {
            for (s, dp) in s[mask.keys(i)].iter_mut().zip(&mut dp[mask.keys(i)]) {
                let t = (*s * cap.inner).tanh();
                *s = cap.cap * t;
                *dp = (*dp - delta) * (cap.scale * (S::ONE - t * t));
            }
        }
    }
}
