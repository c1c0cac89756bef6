//! Activations of the feed-forward layers.

use crate::Cpu;
use crate::gemm::HasKernel;
use crate::normal::normals;
use crate::real::{Real, Scalar};
use crate::simd::simd;
use duel_backend::{Activation, FeedForward};

const GELU_SCALE: f64 = 2.0 * 0.797_884_560_802_865_4;
const GELU_CUBIC: f64 = 0.044_715;
const SIGMOID_SCALE: f64 = 1.702;

/// Elements whose exponentials are computed together. SwiGLU has more operands and less between them: there the copies
/// cost more than waiting for each other does.
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

/// What the tanh form of GELU takes the sigmoid of: `2 · sqrt(2/π) · (x + 0.044715 x³)`.
#[inline(always)]
fn gelu_arguments<S: Scalar>(x: &[S; LANES]) -> [S; LANES] {
    let (c, a) = (S::of(GELU_SCALE), S::of(GELU_CUBIC));
    x.map(|x| c * (x + a * x * x * x))
}

/// `f` of each.
#[inline(always)]
fn values<S: Scalar>(x: &[S; LANES], f: Activation) -> [S; LANES] {
    let mut lanes = match f {
        Activation::Silu => denominators(x),
        Activation::GeluTanh => denominators(&gelu_arguments(x)),
        Activation::GeluSigmoid => denominators(&x.map(|x| S::of(SIGMOID_SCALE) * x)),
        Activation::Gelu => {
            let mut lanes = normals(x).0;
            lanes.iter_mut().zip(x).for_each(|(y, x)| *y = *x * *y);
            return lanes;
        }
        Activation::Relu => return x.map(|x| if x < S::ZERO { S::ZERO } else { x }),
    };
    lanes.iter_mut().zip(x).for_each(|(y, x)| *y = *x / *y);
    lanes
}

/// The derivative of `f` at each: of `x · s(z(x))`, `s` the sigmoid, it is `s + x · s · (1 - s) · z'`.
#[inline(always)]
fn slopes<S: Scalar>(x: &[S; LANES], f: Activation) -> [S; LANES] {
    let (c, a) = (S::of(GELU_SCALE), S::of(GELU_CUBIC));
    let (three, scale) = (S::of(3.0), S::of(SIGMOID_SCALE));
    let mut lanes = match f {
        Activation::Silu => denominators(x),
        Activation::GeluTanh => denominators(&gelu_arguments(x)),
        Activation::GeluSigmoid => denominators(&x.map(|x| scale * x)),
        Activation::Gelu => {
            let (mut lanes, densities) = normals(x);
            for ((slope, density), x) in lanes.iter_mut().zip(&densities).zip(x) {
                *slope += *x * *density;
            }
            return lanes;
        }
        Activation::Relu => return x.map(|x| if x > S::ZERO { S::ONE } else { S::ZERO }),
    };
    for (slope, x) in lanes.iter_mut().zip(x) {
        let (s, x) = (S::ONE / *slope, *x);
        let dz = match f {
            Activation::GeluTanh => c * (S::ONE + three * a * x * x),
            Activation::GeluSigmoid => scale,
            _ => S::ONE,
        };
        *slope = s + x * s * (S::ONE - s) * dz;
    }
    lanes
}

simd! {
    /// `y = f(g) · u`.
    pub fn glu_row<R: Real>(y: &mut [R], g: &[R], u: &[R], f: Activation) {
        if f == Activation::Silu {
            for ((y, g), u) in y.iter_mut().zip(g).zip(u) {
                let g = g.up();
                *y = R::down(g / (R::Acc::ONE + (-g).exp()) * u.up());
            }
            return;
        }
        for ((y, g), u) in y.chunks_mut(LANES).zip(g.chunks(LANES)).zip(u.chunks(LANES)) {
            let mut lanes = values(&up(g), f);
            lanes.iter_mut().zip(&up(u)).for_each(|(y, u)| *y = *y * *u);
            down(y, &lanes);
        }
    }

    /// `dg = dy · u · f'(g)`, `du = dy · f(g)`.
    pub fn glu_row_bw<R: Real>(dg: &mut [R], du: &mut [R], dy: &[R], g: &[R], u: &[R], f: Activation) {
        if f == Activation::Silu {
            for ((((dg, du), dy), g), u) in dg.iter_mut().zip(du).zip(dy).zip(g).zip(u) {
                let (dy, g, u) = (dy.up(), g.up(), u.up());
                let s = R::Acc::ONE / (R::Acc::ONE + (-g).exp());
                *dg = R::down(dy * u * s * (R::Acc::ONE + g * (R::Acc::ONE - s)));
                *du = R::down(dy * g * s);
            }
            return;
        }
        let ins = dy.chunks(LANES).zip(g.chunks(LANES)).zip(u.chunks(LANES));
        for ((dg, du), ((dy, g), u)) in dg.chunks_mut(LANES).zip(du.chunks_mut(LANES)).zip(ins) {
            let (dy, g, u) = (up(dy), up(g), up(u));
            let (mut gates, mut ups) = (slopes(&g, f), values(&g, f));
            for (((dg, du), dy), u) in gates.iter_mut().zip(&mut ups).zip(&dy).zip(&u) {
                *dg = *dy * *u * *dg;
                *du = *dy * *du;
            }
            down(dg, &gates);
            down(du, &ups);
        }
    }

    /// `y = f(x)`.
    pub fn activate_part<R: Real>(y: &mut [R], x: &[R], f: Activation) {
        for (y, x) in y.chunks_mut(LANES).zip(x.chunks(LANES)) {
            down(y, &values(&up(x), f));
        }
    }

    /// `dx = dy · f'(x)`.
    pub fn activate_part_bw<R: Real>(dx: &mut [R], dy: &[R], x: &[R], f: Activation) {
        for ((dx, dy), x) in dx.chunks_mut(LANES).zip(dy.chunks(LANES)).zip(x.chunks(LANES)) {
            let mut lanes = slopes(&up(x), f);
            lanes.iter_mut().zip(&up(dy)).for_each(|(dx, dy)| *dx = *dy * *dx);
            down(dx, &lanes);
        }
    }
}

impl<R: Real> FeedForward for Cpu<R>
where
    R::Acc: HasKernel,
{
    fn glu(&self, y: &mut Vec<R>, x: &Vec<R>, rows: usize, width: usize, f: Activation) {
        self.pool.rows(y, rows, width, |r, y| {
            let (g, u) = x[2 * r * width..][..2 * width].split_at(width);
            glu_row(y, g, u, f);
        });
    }

    fn glu_bw(&self, dx: &mut Vec<R>, dy: &Vec<R>, x: &Vec<R>, rows: usize, width: usize, f: Activation) {
        self.pool.rows(dx, rows, 2 * width, |r, dx| {
            let (g, u) = x[2 * r * width..][..2 * width].split_at(width);
            let (dg, du) = dx.split_at_mut(width);
            glu_row_bw(dg, du, &dy[r * width..][..width], g, u, f);
        });
    }

    fn activate(&self, y: &mut Vec<R>, x: &Vec<R>, len: usize, f: Activation) {
        self.pool.parts(y, len, |from, y| activate_part(y, &x[from..][..y.len()], f));
    }

    fn activate_bw(&self, dx: &mut Vec<R>, dy: &Vec<R>, x: &Vec<R>, len: usize, f: Activation) {
        self.pool.parts(dx, len, |from, dx| {
            activate_part_bw(dx, &dy[from..][..dx.len()], &x[from..][..dx.len()], f);
        });
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
            activate_part(&mut y, &x, Activation::GeluTanh);
            activate_part_bw(&mut dx, &dy, &x, Activation::GeluTanh);
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
