//! Activations of the feed-forward layers.

use crate::Cpu;
use crate::gemm::HasKernel;
use crate::lanes::{Lanes, update};
use crate::real::{Real, Scalar};
use crate::simd::simd;
use duel_backend::FeedForward;

const GELU_SCALE: f64 = 2.0 * 0.797_884_560_802_865_4;
const GELU_CUBIC: f64 = 0.044_715;

/// `1 + e^-x`: the sigmoid's denominator.
///
/// # Safety
/// The CPU has the features of `V`.
#[inline(always)]
unsafe fn denominator<V: Lanes>(x: V) -> V {
    // SAFETY: by this function's contract.
    unsafe {
        let [zero, one, lowest] =
            [V::Number::ZERO, V::Number::ONE, V::Number::of(-88.0)].map(|x| V::splat(x));
        // In this order a NaN stays a NaN.
        zero.sub(lowest.max(x)).exp().add(one)
    }
}

/// What GELU takes the sigmoid of, and the square of `x`.
///
/// # Safety
/// The CPU has the features of `V`.
#[inline(always)]
unsafe fn gelu_argument<V: Lanes>(x: V) -> [V; 2] {
    // SAFETY: by this function's contract.
    unsafe {
        let [c, a] = [GELU_SCALE, GELU_SCALE * GELU_CUBIC].map(|x| V::splat(V::Number::of(x)));
        let square = x.mul(x);
        [square.mul_add(a, c).mul(x), square]
    }
}

simd! {
    /// `y = silu(g) · u`.
    pub fn swiglu_row<R: Real>(y: &mut [R], g: &[R], u: &[R]) {
        // SAFETY: V is of the instruction set that this is compiled for.
        unsafe {
            update::<R, V, 1, 2>([y], [g, u], |_, [g, u]| [g.mul(u).div(denominator(g))]);
        }
    }

    /// `dg = dy · u · silu'(g)`, `du = dy · silu(g)`.
    pub fn swiglu_row_bw<R: Real>(dg: &mut [R], du: &mut [R], dy: &[R], g: &[R], u: &[R]) {
        // SAFETY: V is of the instruction set that this is compiled for.
        unsafe {
            let one = V::splat(R::Acc::ONE);
            update::<R, V, 2, 3>([dg, du], [dy, g, u], |_, [dy, g, u]| {
                let s = one.div(denominator(g));
                let scaled = dy.mul(s);
                [scaled.mul(u).mul(one.sub(s).mul_add(g, one)), scaled.mul(g)]
            });
        }
    }

    /// `y = x · s`, `s` the sigmoid of `2 · sqrt(2/π) · (x + 0.044715 x³)`: the tanh form of GELU.
    pub fn gelu_part<R: Real>(y: &mut [R], x: &[R]) {
        // SAFETY: V is of the instruction set that this is compiled for.
        unsafe {
            update::<R, V, 1, 1>([y], [x], |_, [x]| {
                let [argument, _] = gelu_argument(x);
                [x.div(denominator(argument))]
            });
        }
    }

    /// `dx = dy · (s + x · s · (1 - s) · z')`.
    pub fn gelu_part_bw<R: Real>(dx: &mut [R], dy: &[R], x: &[R]) {
        // SAFETY: V is of the instruction set that this is compiled for.
        unsafe {
            let slopes = [GELU_SCALE, 3.0 * GELU_SCALE * GELU_CUBIC].map(|x| V::splat(R::Acc::of(x)));
            let one = V::splat(R::Acc::ONE);
            update::<R, V, 1, 2>([dx], [dy, x], |_, [dy, x]| {
                let [argument, square] = gelu_argument(x);
                let s = one.div(denominator(argument));
                let slope = square.mul_add(slopes[1], slopes[0]).mul(x);
                [dy.mul(s).mul(one.sub(s).mul_add(slope, one))]
            });
        }
    }
}

impl<R: Real> FeedForward for Cpu<R>
where
    R::Acc: HasKernel,
{
    fn swiglu(&self, y: &mut Vec<R>, x: &Vec<R>, rows: usize, width: usize) {
        self.pool.rows(y, rows, width, |r, y| {
            let (g, u) = x[2 * r * width..][..2 * width].split_at(width);
            swiglu_row(y, g, u);
        });
    }

    fn swiglu_bw(&self, dx: &mut Vec<R>, dy: &Vec<R>, x: &Vec<R>, rows: usize, width: usize) {
        self.pool.rows(dx, rows, 2 * width, |r, dx| {
            let (g, u) = x[2 * r * width..][..2 * width].split_at(width);
            let (dg, du) = dx.split_at_mut(width);
            swiglu_row_bw(dg, du, &dy[r * width..][..width], g, u);
        });
    }

    fn gelu(&self, y: &mut Vec<R>, x: &Vec<R>, len: usize) {
        self.pool.parts(y, len, |from, y| gelu_part(y, &x[from..][..y.len()]));
    }

    fn gelu_bw(&self, dx: &mut Vec<R>, dy: &Vec<R>, x: &Vec<R>, len: usize) {
        self.pool
            .parts(dx, len, |from, dx| gelu_part_bw(dx, &dy[from..][..dx.len()], &x[from..][..dx.len()]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lengths that lanes do not divide: every element, and none behind the end.
    #[test]
    fn parts_of_any_length_are_whole() {
        for n in [1, 15, 16, 17, 32, 3 * 16 + 7] {
            let wave = |k: f64| (0..n).map(|i| 3.0 * (i as f64 * k).sin()).collect::<Vec<f64>>();
            let (x, dy, mut y, mut dx) = (wave(0.7), wave(2.1), vec![f64::NAN; n], vec![f64::NAN; n]);
            gelu_part(&mut y, &x);
            gelu_part_bw(&mut dx, &dy, &x);
            for i in 0..n {
                let s = 1.0 / (1.0 + (-GELU_SCALE * (x[i] + GELU_CUBIC * x[i].powi(3))).exp());
                let slope = GELU_SCALE * (1.0 + 3.0 * GELU_CUBIC * x[i] * x[i]);
                let want = [x[i] * s, dy[i] * (s + x[i] * s * (1.0 - s) * slope)];
                for (got, want) in [y[i], dx[i]].into_iter().zip(want) {
                    // Some twenty roundings of numbers up to 40.
                    assert!((got - want).abs() <= 20.0 * 40.0 * f64::EPSILON, "{i} of {n}: {got} not {want}");
                }
            }
        }
    }
}
