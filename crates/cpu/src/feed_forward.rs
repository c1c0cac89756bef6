//! Activations of the feed-forward layers.

use crate::Cpu;
use crate::gemm::HasKernel;
use crate::real::{Real, Scalar};
use crate::simd::simd;
use duel_backend::FeedForward;

const GELU_SCALE: f64 = 2.0 * 0.797_884_560_802_865_4;
const GELU_CUBIC: f64 = 0.044_715;

simd! {
    /// `y = silu(g) · u`.
    pub fn swiglu_row<R: Real>(y: &mut [R], g: &[R], u: &[R]) {
        for ((y, g), u) in y.iter_mut().zip(g).zip(u) {
            let g = g.up();
            *y = R::down(g / (R::Acc::ONE + (-g).exp()) * u.up());
        }
    }

    /// `dg = dy · u · silu'(g)`, `du = dy · silu(g)`.
    pub fn swiglu_row_bw<R: Real>(dg: &mut [R], du: &mut [R], dy: &[R], g: &[R], u: &[R]) {
        for ((((dg, du), dy), g), u) in dg.iter_mut().zip(du).zip(dy).zip(g).zip(u) {
            let (dy, g, u) = (dy.up(), g.up(), u.up());
            let s = R::Acc::ONE / (R::Acc::ONE + (-g).exp());
            *dg = R::down(dy * u * s * (R::Acc::ONE + g * (R::Acc::ONE - s)));
            *du = R::down(dy * g * s);
        }
    }

    /// `y = x · s`, `s` the sigmoid of `2 · sqrt(2/π) · (x + 0.044715 x³)`: the tanh form of GELU.
    pub fn gelu_part<R: Real>(y: &mut [R], x: &[R]) {
        let (c, a) = (R::Acc::of(GELU_SCALE), R::Acc::of(GELU_CUBIC));
        for (y, x) in y.iter_mut().zip(x) {
            let x = x.up();
            let z = c * (x + a * x * x * x);
            *y = R::down(x / (R::Acc::ONE + (-z).exp()));
        }
    }

    /// `dx = dy · (s + x · s · (1 - s) · z')`.
    pub fn gelu_part_bw<R: Real>(dx: &mut [R], dy: &[R], x: &[R]) {
        let (c, a) = (R::Acc::of(GELU_SCALE), R::Acc::of(GELU_CUBIC));
        let three = R::Acc::of(3.0);
        for ((dx, dy), x) in dx.iter_mut().zip(dy).zip(x) {
            let x = x.up();
            let z = c * (x + a * x * x * x);
            let dz = c * (R::Acc::ONE + three * a * x * x);
            let s = R::Acc::ONE / (R::Acc::ONE + (-z).exp());
            *dx = R::down(dy.up() * (s + x * s * (R::Acc::ONE - s) * dz));
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
