//! RMSNorm, LayerNorm and the per-head norm of queries and keys, forward and backward.

use crate::Cpu;
use crate::real::{Real, Scalar, sum};
use crate::reduce::{add_columns, slabs};
use crate::simd::simd;
use duel_backend::{Heads, Norm, Norms};

simd! {
    /// `y = x · rstd · w`; returns `rstd`.
    pub fn rms_row<R: Real>(y: &mut [R], x: &[R], w: &[R], eps: f64) -> R::Acc {
        let n = x.len();
        let ms = sum([x], |[x]| x.up() * x.up()) / R::Acc::of(n as f64);
        let rstd = R::Acc::ONE / (ms + R::Acc::of(eps)).sqrt();
        for ((y, x), w) in y.iter_mut().zip(x).zip(w) {
            *y = R::down(x.up() * rstd * w.up());
        }
        rstd
    }

    /// `dx += rstd · (dy·w - x̂ · mean(dy·w·x̂))`, `x̂ = x · rstd`.
    pub fn rms_row_bw<R: Real>(dx: &mut [R], dy: &[R], x: &[R], w: &[R], rstd: R::Acc) {
        let n = x.len();
        let dot = sum([dy, w, x], |[dy, w, x]| dy.up() * w.up() * x.up()) * rstd * rstd / R::Acc::of(n as f64);
        for (((dx, dy), x), w) in dx.iter_mut().zip(dy).zip(x).zip(w) {
            *dx = R::down(dx.up() + rstd * (dy.up() * w.up() - x.up() * dot));
        }
    }

    /// As [`rms_row_bw`], but `d` holds `dy` and receives `dx`.
    pub fn rms_row_bw_in_place<R: Real>(d: &mut [R], x: &[R], w: &[R], rstd: R::Acc) {
        let n = x.len();
        let dot = sum([d, w, x], |[d, w, x]| d.up() * w.up() * x.up()) * rstd * rstd / R::Acc::of(n as f64);
        for ((d, x), w) in d.iter_mut().zip(x).zip(w) {
            *d = R::down(rstd * (d.up() * w.up() - x.up() * dot));
        }
    }

    /// `y = (x - mean) · rstd · w + b`; returns `[mean, rstd]`.
    pub fn layer_row<R: Real>(y: &mut [R], x: &[R], w: &[R], b: &[R], eps: f64) -> [R::Acc; 2] {
        let n = x.len();
        let mean = sum([x], |[x]| x.up()) / R::Acc::of(n as f64);
        let var = sum([x], |[x]| (x.up() - mean) * (x.up() - mean)) / R::Acc::of(n as f64);
        let rstd = R::Acc::ONE / (var + R::Acc::of(eps)).sqrt();
        for (((y, x), w), b) in y.iter_mut().zip(x).zip(w).zip(b) {
            *y = R::down((x.up() - mean) * rstd * w.up() + b.up());
        }
        [mean, rstd]
    }

    /// `dx += rstd · (g - mean(g) - x̂ · mean(g·x̂))`, `g = dy·w`.
    pub fn layer_row_bw<R: Real>(dx: &mut [R], dy: &[R], x: &[R], w: &[R], stats: [R::Acc; 2]) {
        let [mean, rstd] = stats;
        let n = x.len();
        let inv = R::Acc::ONE / R::Acc::of(n as f64);
        let g_mean = sum([dy, w], |[dy, w]| dy.up() * w.up()) * inv;
        let gx_mean = sum([dy, w, x], |[dy, w, x]| dy.up() * w.up() * (x.up() - mean)) * rstd * inv;
        for (((dx, dy), x), w) in dx.iter_mut().zip(dy).zip(x).zip(w) {
            let xhat = (x.up() - mean) * rstd;
            *dx = R::down(dx.up() + rstd * (dy.up() * w.up() - g_mean - xhat * gx_mean));
        }
    }

    /// `dw += dy · (x - mean) · rstd` for one row of a slab of columns.
    pub fn weight_row<R: Real>(dw: &mut [R::Acc], dy: &[R], x: &[R], mean: R::Acc, rstd: R::Acc) {
        for ((dw, dy), x) in dw.iter_mut().zip(dy).zip(x) {
            *dw += dy.up() * ((x.up() - mean) * rstd);
        }
    }
}

impl<R: Real> Norms for Cpu<R> {
    fn rmsnorm(&self, y: &mut Vec<R>, rstd: &mut Vec<R::Acc>, x: &Vec<R>, w: &Vec<R>, d: Norm) {
        let n = d.width;
        self.pool.rows2(y, n, rstd, 1, d.rows, |r, y, rstd| {
            rstd[0] = rms_row(y, &x[r * n..][..n], &w[..n], d.eps);
        });
    }

    fn rmsnorm_bw(
        &self,
        dx: &mut Vec<R>,
        dw: Option<&mut Vec<R::Acc>>,
        dy: &Vec<R>,
        x: &Vec<R>,
        rstd: &Vec<R::Acc>,
        w: &Vec<R>,
        d: Norm,
    ) {
        let n = d.width;
        self.pool.rows(dx, d.rows, n, |r, dx| {
            rms_row_bw(dx, &dy[r * n..][..n], &x[r * n..][..n], &w[..n], rstd[r])
        });
        let Some(dw) = dw else { return };
        slabs(&self.pool, dw, n, |col, dw| {
            for (r, &rstd) in rstd.iter().enumerate().take(d.rows) {
                let at = r * n + col;
                weight_row(dw, &dy[at..][..dw.len()], &x[at..][..dw.len()], R::Acc::ZERO, rstd);
            }
        });
    }

    fn layernorm(
        &self,
        y: &mut Vec<R>,
        stats: &mut Vec<R::Acc>,
        x: &Vec<R>,
        w: &Vec<R>,
        b: &Vec<R>,
        d: Norm,
    ) {
        let n = d.width;
        self.pool.rows2(y, n, stats, 2, d.rows, |r, y, stats| {
            stats.copy_from_slice(&layer_row(y, &x[r * n..][..n], &w[..n], &b[..n], d.eps));
        });
    }

    fn layernorm_bw(
        &self,
        dx: &mut Vec<R>,
        dw: Option<&mut Vec<R::Acc>>,
        db: Option<&mut Vec<R::Acc>>,
        dy: &Vec<R>,
        x: &Vec<R>,
        stats: &Vec<R::Acc>,
        w: &Vec<R>,
        d: Norm,
    ) {
        let n = d.width;
        self.pool.rows(dx, d.rows, n, |r, dx| {
            layer_row_bw(dx, &dy[r * n..][..n], &x[r * n..][..n], &w[..n], [stats[2 * r], stats[2 * r + 1]]);
        });
        if let Some(dw) = dw {
            slabs(&self.pool, dw, n, |col, dw| {
                for r in 0..d.rows {
                    let at = r * n + col;
                    weight_row(
                        dw,
                        &dy[at..][..dw.len()],
                        &x[at..][..dw.len()],
                        stats[2 * r],
                        stats[2 * r + 1],
                    );
                }
            });
        }
        if let Some(db) = db {
            add_columns(&self.pool, db, dy, d.rows, n);
        }
    }

    fn qk_norm(
        &self,
        y: &mut Vec<R>,
        rstd: &mut Vec<R::Acc>,
        x: &Vec<R>,
        wq: &Vec<R>,
        wk: &Vec<R>,
        rows: usize,
        eps: f64,
        d: Heads,
    ) {
        let (width, hd, normed) = (d.qkv_width(), d.head_dim, d.heads + d.kv_heads);
        self.pool.rows2(y, width, rstd, normed, rows, |r, y, rstd| {
            let x = &x[r * width..][..width];
            for h in 0..normed {
                let w = [wq, wk][usize::from(h >= d.heads)];
                rstd[h] = rms_row(&mut y[h * hd..][..hd], &x[h * hd..][..hd], &w[..hd], eps);
            }
            y[normed * hd..].copy_from_slice(&x[normed * hd..]);
        });
    }

    fn qk_norm_bw(
        &self,
        dqkv: &mut Vec<R>,
        dwq: Option<&mut Vec<R::Acc>>,
        dwk: Option<&mut Vec<R::Acc>>,
        x: &Vec<R>,
        rstd: &Vec<R::Acc>,
        wq: &Vec<R>,
        wk: &Vec<R>,
        rows: usize,
        d: Heads,
    ) {
        let (width, hd, normed) = (d.qkv_width(), d.head_dim, d.heads + d.kv_heads);
        // The weights' gradients need dy, which the next pass overwrites.
        for (dw, heads) in [dwq, dwk].into_iter().zip([0..d.heads, d.heads..normed]) {
            let Some(dw) = dw else { continue };
            let dy = &*dqkv;
            slabs(&self.pool, dw, hd, |col, dw| {
                for r in 0..rows {
                    for h in heads.clone() {
                        let at = r * width + h * hd + col;
                        let scale = rstd[r * normed + h];
                        weight_row(dw, &dy[at..][..dw.len()], &x[at..][..dw.len()], R::Acc::ZERO, scale);
                    }
                }
            });
        }
        self.pool.rows(dqkv, rows, width, |r, d_row| {
            for h in 0..normed {
                let w = [wq, wk][usize::from(h >= d.heads)];
                let x = &x[r * width + h * hd..][..hd];
                rms_row_bw_in_place(&mut d_row[h * hd..][..hd], x, &w[..hd], rstd[r * normed + h]);
            }
        });
    }
}
