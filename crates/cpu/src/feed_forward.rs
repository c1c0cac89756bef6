//! Activations of the feed-forward layers.

use crate::Cpu;
use crate::gemm::HasKernel;
use crate::real::{Real, Scalar};
use crate::simd::simd;
use duel_backend::FeedForward;

const GELU_SCALE: f64 = 2.0 * 0.797_884_560_802_865_4;
const GELU_CUBIC: f64 = 0.044_715;

/// Elements of GELU whose exponentials are computed together. SwiGLU has more operands and less between them: there the
/// copies cost more than waiting for each other does.
const LANES: usize = 64;

/// The first [`LANES`] of `x`, zeros behind its end.
#[inline(always)]
fn up<R: Real>(x: &[R]) -> [R::Acc; LANES] {
    let mut lanes = [R::Acc::ZERO; LANES];
    match x.first_chunk::<LANES>() {
        Some(x) => lanes.iter_mut().zip(x).for_each(|(lane, x)| *lane = x.up()),
        None => lanes.iter_mut().zip(x).for_each(|(lane, x)| *lane = x.up()),
    }
    lanes
}

/// As many of `lanes` as `y` has room for.
#[inline(always)]
fn down<R: Real>(y: &mut [R], lanes: &[R::Acc; LANES]) {
    match y.first_chunk_mut::<LANES>() {
        Some(y) => y.iter_mut().zip(lanes).for_each(|(y, lane)| *y = R::down(*lane)),
        None => y.iter_mut().zip(lanes).for_each(|(y, lane)| *y = R::down(*lane)),
    }
}

/// `1 + e^-x` of each: the sigmoid's denominator.
#[inline(always)]
fn denominators<S: Scalar>(x: &[S; LANES]) -> [S; LANES] {
    let mut lanes = *x;
    lanes.iter_mut().for_each(|x| *x = -*x);
    let mut lanes = S::exps(lanes);
    lanes.iter_mut().for_each(|e| *e = S::ONE + *e);
    lanes
}

/// What GELU takes the sigmoid of.
#[inline(always)]
fn gelu_arguments<S: Scalar>(x: &[S; LANES]) -> [S; LANES] {
    let (c, a) = (S::of(GELU_SCALE), S::of(GELU_CUBIC));
    let mut lanes = *x;
    lanes.iter_mut().for_each(|x| *x = c * (*x + a * *x * *x * *x));
    lanes
}

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
        for (y, x) in y.chunks_mut(LANES).zip(x.chunks(LANES)) {
            let x = up(x);
            let mut lanes = denominators(&gelu_arguments(&x));
            lanes.iter_mut().zip(&x).for_each(|(y, x)| *y = *x / *y);
            down(y, &lanes);
        }
    }

    /// `dx = dy · (s + x · s · (1 - s) · z')`.
    pub fn gelu_part_bw<R: Real>(dx: &mut [R], dy: &[R], x: &[R]) {
        let (c, a) = (R::Acc::of(GELU_SCALE), R::Acc::of(GELU_CUBIC));
        let three = R::Acc::of(3.0);
        for ((dx, dy), x) in dx.chunks_mut(LANES).zip(dy.chunks(LANES)).zip(x.chunks(LANES)) {
            let (dy, x) = (up(dy), up(x));
            let mut lanes = denominators(&gelu_arguments(&x));
            for ((dx, dy), x) in lanes.iter_mut().zip(&dy).zip(&x) {
                let (s, x) = (R::Acc::ONE / *dx, *x);
                let dz = c * (R::Acc::ONE + three * a * x * x);
                *dx = *dy * (s + x * s * (R::Acc::ONE - s) * dz);
            }
            down(dx, &lanes);
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
        for n in [1, LANES - 1, LANES, LANES + 1, 3 * LANES + 7] {
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
