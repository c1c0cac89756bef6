//! RMSNorm, LayerNorm and the per-head norm of queries and keys, forward and backward.

use crate::Cpu;
use crate::real::{Real, Scalar, sum, sums};
use crate::reduce::over_rows;
use crate::simd::simd;
use crate::sync::Rows;
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

    /// `dx += rstd · (dy·w - x̂ · mean(dy·w·x̂))`, `dw += dy · x̂`, `x̂ = x · rstd`.
    pub fn rms_row_bw<R: Real>(dx: &mut [R], dw: &mut [R::Acc], dy: &[R], x: &[R], w: &[R], rstd: R::Acc) {
        let n = R::Acc::of(x.len() as f64);
        let dot = sum([dy, w, x], |[dy, w, x]| dy.up() * w.up() * x.up()) * rstd * rstd / n;
        for ((((dx, dw), dy), x), w) in dx.iter_mut().zip(dw).zip(dy).zip(x).zip(w) {
            *dx = R::down(dx.up() + rstd * (dy.up() * w.up() - x.up() * dot));
            *dw += dy.up() * (x.up() * rstd);
        }
    }

    /// As [`rms_row_bw`], but `d` holds `dy` and receives `dx`.
    pub fn rms_row_bw_in_place<R: Real>(d: &mut [R], dw: &mut [R::Acc], x: &[R], w: &[R], rstd: R::Acc) {
        let n = R::Acc::of(x.len() as f64);
        let dot = sum([d, w, x], |[d, w, x]| d.up() * w.up() * x.up()) * rstd * rstd / n;
        for (((d, dw), x), w) in d.iter_mut().zip(dw).zip(x).zip(w) {
            let dy = d.up();
            *d = R::down(rstd * (dy * w.up() - x.up() * dot));
            *dw += dy * (x.up() * rstd);
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

    /// `dx += rstd · (g - mean(g) - x̂ · mean(g·x̂))`, `g = dy·w`; `dw += dy · x̂`, `db += dy`.
    pub fn layer_row_bw<R: Real>(
        dx: &mut [R],
        dw: &mut [R::Acc],
        db: &mut [R::Acc],
        dy: &[R],
        x: &[R],
        w: &[R],
        stats: [R::Acc; 2],
    ) {
        let [mean, rstd] = stats;
        let inv = R::Acc::ONE / R::Acc::of(x.len() as f64);
        let [g_sum, gx_sum] = sums([dy, w, x], |[dy, w, x]| {
            let g = dy.up() * w.up();
            [g, g * (x.up() - mean)]
        });
        let (g_mean, gx_mean) = (g_sum * inv, gx_sum * rstd * inv);
        for (((((dx, dw), db), dy), x), w) in dx.iter_mut().zip(dw).zip(db).zip(dy).zip(x).zip(w) {
            let (dy, xhat) = (dy.up(), (x.up() - mean) * rstd);
            *dx = R::down(dx.up() + rstd * (dy * w.up() - g_mean - xhat * gx_mean));
            *dw += dy * xhat;
            *db += dy;
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
        let dx = Rows::new(dx, d.rows, n);
        let dw = dw.map(Vec::as_mut_slice);
        over_rows(&self.pool, [dw], n, d.rows, |rows, dw| {
            for r in rows {
                // SAFETY: a row is in one run of rows.
                let dx = unsafe { dx.row(r) };
                rms_row_bw(dx, dw, &dy[r * n..][..n], &x[r * n..][..n], &w[..n], rstd[r]);
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
        let dx = Rows::new(dx, d.rows, n);
        let outs = [dw, db].map(|out| out.map(Vec::as_mut_slice));
        over_rows(&self.pool, outs, n, d.rows, |rows, sums| {
            let (dw, db) = sums.split_at_mut(n);
            for r in rows {
                // SAFETY: a row is in one run of rows.
                let dx = unsafe { dx.row(r) };
                let stats = [stats[2 * r], stats[2 * r + 1]];
                layer_row_bw(dx, dw, db, &dy[r * n..][..n], &x[r * n..][..n], &w[..n], stats);
            }
        });
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
        let dqkv = Rows::new(dqkv, rows, width);
        let outs = [dwq, dwk].map(|out| out.map(Vec::as_mut_slice));
        over_rows(&self.pool, outs, hd, rows, |rows, sums| {
            for r in rows {
                // SAFETY: a row is in one run of rows.
                let d_row = unsafe { dqkv.row(r) };
                let (x, rstd) = (&x[r * width..][..width], &rstd[r * normed..][..normed]);
                for (h, (d_head, x)) in
                    d_row.chunks_exact_mut(hd).zip(x.chunks_exact(hd)).enumerate().take(normed)
                {
                    let of_keys = usize::from(h >= d.heads);
                    let dw = &mut sums[of_keys * hd..][..hd];
                    rms_row_bw_in_place(d_head, dw, x, &[wq, wk][of_keys][..hd], rstd[h]);
                }
            }
        });
    }
}
