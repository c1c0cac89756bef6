//! Narrow maps beside wide ones, and the dropout of their inputs.

use crate::Cpu;
use crate::gemm::{HasKernel, Init, Operand, Shape, gemm};
use crate::real::{Real, Scalar};
use crate::simd::simd;
use duel_backend::{Dropout, Gemm, LowRank};
use duel_random::{mix, number};

/// The columns `at..` of rows that are `stride` elements apart.
fn columns<T>(data: &[T], at: usize, stride: usize) -> Operand<'_, T> {
    Operand { data: &data[at..], rs: stride, cs: 1 }
}

fn turned<T>(data: &[T], at: usize, stride: usize) -> Operand<'_, T> {
    Operand { data: &data[at..], rs: 1, cs: stride }
}

simd! {
    /// `y = x factor` of the elements of a row whose numbers are not below `below`, 0 of the others; added to `y` with
    /// `onto`.
    pub fn drop_row<R: Real>(y: &mut [R], x: &[R], key: u64, below: u32, factor: R::Acc, onto: bool) {
        for (column, (y, x)) in y.iter_mut().zip(x).enumerate() {
            let kept = if number(key, column as u32) < below { R::Acc::ZERO } else { x.up() * factor };
            *y = R::down(if onto { y.up() + kept } else { kept });
        }
    }
}

impl<R: Real> LowRank for Cpu<R>
where
    R::Acc: HasKernel,
{
    const ADAPTS: bool = true;

    fn gemm_onto(&self, y: &mut Vec<R>, at: usize, x: &Vec<R>, w: &Vec<R>, Gemm { m, n, k, stride }: Gemm) {
        let shape = Shape { m, n, k, ldc: stride };
        gemm(&self.pool, shape, &mut y[at..], columns(x, 0, k), columns(w, 0, k), Init::Keep);
    }

    fn gemm_dx_of(&self, dx: &mut Vec<R>, dy: &Vec<R>, at: usize, w: &Vec<R>, d: Gemm) {
        let shape = Shape { m: d.m, n: d.k, k: d.n, ldc: d.k };
        gemm(&self.pool, shape, dx, columns(dy, at, d.stride), turned(w, 0, d.k), Init::Zero);
    }

    fn gemm_dx_onto(&self, dx: &mut Vec<R>, dy: &Vec<R>, w: &Vec<R>, d: Gemm) {
        let shape = Shape { m: d.m, n: d.k, k: d.n, ldc: d.k };
        gemm(&self.pool, shape, dx, columns(dy, 0, d.stride), turned(w, 0, d.k), Init::Keep);
    }

    fn gemm_dw_of(&self, dw: &mut Vec<R::Acc>, dy: &Vec<R>, at: usize, x: &Vec<R>, d: Gemm) {
        let shape = Shape { m: d.n, n: d.k, k: d.m, ldc: d.k };
        gemm(&self.pool, shape, dw, turned(dy, at, d.stride), turned(x, 0, d.k), Init::Keep);
    }

    fn dropout(&self, y: &mut Vec<R>, x: &Vec<R>, keys: &Vec<u32>, onto: bool, of: Dropout) {
        let Dropout { rows, width, rate, stream } = of;
        let below = (rate * (1u64 << 32) as f64) as u32;
        let factor = R::Acc::of(1.0 / (1.0 - rate));
        self.pool.rows(y, rows, width, |r, y| {
            let key = u64::from(keys[2 * r]) << 32 | u64::from(keys[2 * r + 1]);
            drop_row(y, &x[r * width..][..width], mix(key ^ mix(stream)), below, factor, onto);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use duel_backend::Products;

    fn wave(n: usize, k: f64) -> Vec<f64> {
        (0..n).map(|i| (i as f64 * k).sin()).collect()
    }

    /// Of every column that there is, against the wide product with zeros beside; nothing else is touched.
    #[test]
    fn columns_of_a_product() {
        let (m, n, k, stride, at) = (7, 3, 5, 11, 4);
        let b = Cpu::<f64>::new(2);
        let (x, w, before) = (wave(m * k, 0.7), wave(n * k, 1.3), wave(m * stride, 2.1));
        let d = Gemm { m, n, k, stride };
        let mut y = before.clone();
        b.gemm_onto(&mut y, at, &x, &w, d);
        let mut wide = vec![0.0; stride * k];
        wide[at * k..(at + n) * k].copy_from_slice(&w);
        let mut want = vec![0.0; m * stride];
        b.gemm(&mut want, &x, &wide, None, Some(&before), Gemm::dense(m, stride, k));
        let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-14);
        assert!(close(&y, &want));
        let (mut dx, mut wide_dx) = (vec![0.0; m * k], vec![0.0; m * k]);
        b.gemm_dx_of(&mut dx, &before, at, &w, d);
        b.gemm_dx(&mut wide_dx, &before, &wide, Gemm::dense(m, stride, k));
        assert!(close(&dx, &wide_dx));
        let dy = wave(m * n, 0.4);
        let (dense, mut added) = (Gemm::dense(m, n, k), wide_dx.clone());
        b.gemm_dx_onto(&mut added, &dy, &w, dense);
        b.gemm_dx(&mut dx, &dy, &w, dense);
        let sum: Vec<f64> = wide_dx.iter().zip(&dx).map(|(a, b)| a + b).collect();
        assert!(close(&added, &sum));
        let (mut dw, mut wide_dw) = (vec![0.0; n * k], vec![0.0; stride * k]);
        b.gemm_dw_of(&mut dw, &before, at, &x, d);
        b.gemm_dw(&mut wide_dw, &before, &x, Gemm::dense(m, stride, k));
        assert!(close(&dw, &wide_dw[at * k..(at + n) * k]));
    }

    /// A row's mask is that of its key wherever it lies, and about `rate` of all elements are dropped.
    #[test]
    fn masks_follow_keys() {
        let (rows, width, rate) = (64, 51, 0.3);
        let b = Cpu::<f64>::new(3);
        let x = vec![1.0; rows * width];
        let keys: Vec<u32> = (0..2 * rows as u32).collect();
        let mask = |keys: &Vec<u32>, rows, stream| {
            let mut y = vec![f64::NAN; rows * width];
            b.dropout(&mut y, &x, keys, false, Dropout { rows, width, rate, stream });
            y
        };
        let all = mask(&keys, rows, 9);
        assert_eq!(mask(&keys[20..].to_vec(), 3, 9), all[10 * width..13 * width]);
        assert_ne!(mask(&keys, rows, 8), all);
        let kept = 1.0 / (1.0 - rate);
        assert!(all.iter().all(|y| *y == 0.0 || *y == kept));
        let dropped = all.iter().filter(|y| **y == 0.0).count() as f64 / all.len() as f64;
        // 3264 draws: the deviation is 0.008.
        assert!((dropped - rate).abs() < 0.035, "{dropped}");
        let mut twice = all.clone();
        b.dropout(&mut twice, &x, &keys, true, Dropout { rows, width, rate, stream: 9 });
        assert!(twice.iter().zip(&all).all(|(twice, once)| *twice == once + once));
    }
}
