//! RMSNorm, LayerNorm and the per-head norm of queries and keys, forward and backward.

use crate::Cpu;
use crate::real::{Real, Scalar, sum, sums};
use crate::reduce::over_rows;
use crate::simd::simd;
use crate::sync::Rows;
use duel_backend::{Norm, Norms, QkNorm};

simd! {
    /// `y += x`.
    pub fn add_part<R: Real>(y: &mut [R], x: &[R]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = R::down(y.up() + x.up());
        }
    }

    /// `y = x · rstd · w`, `one` added to `w`; returns `rstd`.
    pub fn rms_row<R: Real>(y: &mut [R], x: &[R], w: &[R], eps: f64, one: R::Acc) -> R::Acc {
        let n = x.len();
        let ms = sum([x], |[x]| x.up() * x.up()) / R::Acc::of(n as f64);
        let rstd = R::Acc::ONE / (ms + R::Acc::of(eps)).sqrt();
        for ((y, x), w) in y.iter_mut().zip(x).zip(w) {
            *y = R::down(x.up() * rstd * (one + w.up()));
        }
        rstd
    }

    /// `dx += rstd · (dy·w - x̂ · mean(dy·w·x̂))`, `dw += dy · x̂` where it is wanted, `x̂ = x · rstd`; `one` is added
    /// to `w`.
    pub fn rms_row_bw<R: Real>(
        dx: &mut [R],
        dw: Option<&mut [R::Acc]>,
        dy: &[R],
        x: &[R],
        w: &[R],
        rstd: R::Acc,
        one: R::Acc,
    ) {
        let n = R::Acc::of(x.len() as f64);
        let dot = sum([dy, w, x], |[dy, w, x]| dy.up() * (one + w.up()) * x.up()) * rstd * rstd / n;
        let of = |dx: R, dy: R, x: R, w: R| {
            R::down(dx.up() + rstd * (dy.up() * (one + w.up()) - x.up() * dot))
        };
        let dx = dx.iter_mut().zip(dy).zip(x).zip(w);
        match dw {
            Some(dw) => {
                for ((((dx, dy), x), w), dw) in dx.zip(dw) {
                    *dx = of(*dx, *dy, *x, *w);
                    *dw += dy.up() * (x.up() * rstd);
                }
            }
            None => dx.for_each(|(((dx, dy), x), w)| *dx = of(*dx, *dy, *x, *w)),
        }
    }

    /// As [`rms_row_bw`], but `d` holds `dy` and receives `dx`.
    pub fn rms_row_bw_in_place<R: Real>(
        d: &mut [R],
        dw: Option<&mut [R::Acc]>,
        x: &[R],
        w: &[R],
        rstd: R::Acc,
        one: R::Acc,
    ) {
        let n = R::Acc::of(x.len() as f64);
        let dot = sum([d, w, x], |[d, w, x]| d.up() * (one + w.up()) * x.up()) * rstd * rstd / n;
        let of = |dy: R, x: R, w: R| R::down(rstd * (dy.up() * (one + w.up()) - x.up() * dot));
        let d = d.iter_mut().zip(x).zip(w);
        match dw {
            Some(dw) => {
                for (((d, x), w), dw) in d.zip(dw) {
                    *dw += d.up() * (x.up() * rstd);
                    *d = of(*d, *x, *w);
                }
            }
            None => d.for_each(|((d, x), w)| *d = of(*d, *x, *w)),
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

    /// `dx += rstd · (g - mean(g) - x̂ · mean(g·x̂))`, `g = dy·w`; `dw += dy · x̂` and `db += dy` where they are
    /// wanted: both of them or none in one sweep.
    pub fn layer_row_bw<R: Real>(
        dx: &mut [R],
        dw: Option<&mut [R::Acc]>,
        db: Option<&mut [R::Acc]>,
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
        let xhat = |x: R| (x.up() - mean) * rstd;
        let of = |dx: R, dy: R, x: R, w: R| {
            R::down(dx.up() + rstd * (dy.up() * w.up() - g_mean - xhat(x) * gx_mean))
        };
        let dxs = dx.iter_mut().zip(dy).zip(x).zip(w);
        match (dw, db) {
            (Some(dw), Some(db)) => {
                for (((((dx, dy), x), w), dw), db) in dxs.zip(dw).zip(db) {
                    *dx = of(*dx, *dy, *x, *w);
                    *dw += dy.up() * xhat(*x);
                    *db += dy.up();
                }
            }
            (dw, db) => {
                dxs.for_each(|(((dx, dy), x), w)| *dx = of(*dx, *dy, *x, *w));
                if let Some(dw) = dw {
                    dw.iter_mut().zip(dy).zip(x).for_each(|((dw, dy), x)| *dw += dy.up() * xhat(*x));
                }
                if let Some(db) = db {
                    db.iter_mut().zip(dy).for_each(|(db, dy)| *db += dy.up());
                }
            }
        }
    }
}

/// What is added to the weights of an RMSNorm.
fn one<S: Scalar>(plus_one: bool) -> S {
    if plus_one { S::ONE } else { S::ZERO }
}

impl<R: Real> Norms for Cpu<R> {
    fn add(&self, y: &mut Vec<R>, x: &Vec<R>, len: usize) {
        self.pool.parts(y, len, |from, y| add_part(y, &x[from..][..y.len()]));
    }

    fn rmsnorm(&self, y: &mut Vec<R>, rstd: &mut Vec<R::Acc>, x: &Vec<R>, w: &Vec<R>, d: Norm) {
        let n = d.width;
        self.pool.rows2(y, n, rstd, 1, d.rows, |r, y, rstd| {
            rstd[0] = rms_row(y, &x[r * n..][..n], &w[..n], d.eps, one(d.plus_one));
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
        let (n, one) = (d.width, one(d.plus_one));
        let dx = Rows::new(dx, d.rows, n);
        let dw = dw.map(Vec::as_mut_slice);
        over_rows(&self.pool, [dw], n, d.rows, |rows, [mut dw]| {
            for r in rows {
                // SAFETY: a row is in one run of rows.
                let dx = unsafe { dx.row(r) };
                rms_row_bw(dx, dw.as_deref_mut(), &dy[r * n..][..n], &x[r * n..][..n], &w[..n], rstd[r], one);
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
        over_rows(&self.pool, outs, n, d.rows, |rows, [mut dw, mut db]| {
            for r in rows {
                // SAFETY: a row is in one run of rows.
                let dx = unsafe { dx.row(r) };
                let stats = [stats[2 * r], stats[2 * r + 1]];
                let (dw, db) = (dw.as_deref_mut(), db.as_deref_mut());
                layer_row_bw(dx, dw, db, &dy[r * n..][..n], &x[r * n..][..n], &w[..n], stats);
            }
        });
    }

    const WHOLE_OF_FEWER_KEYS: bool = true;

    fn qk_norm(
        &self,
        y: &mut Vec<R>,
        rstd: &mut Vec<R::Acc>,
        x: &Vec<R>,
        wq: &Vec<R>,
        wk: &Vec<R>,
        d: QkNorm,
    ) {
        let (width, values) = (d.heads.qkv_width(), d.heads.q_width() + d.heads.kv_width());
        self.pool.rows2(y, width, rstd, d.stats(), d.rows, |r, y, mut rstd| {
            let x = &x[r * width..][..width];
            let mut at = 0;
            for ((count, n), w) in d.parts().into_iter().zip([wq, wk]) {
                let own;
                (own, rstd) = rstd.split_at_mut(count);
                for rstd in own {
                    *rstd = rms_row(&mut y[at..][..n], &x[at..][..n], &w[..n], d.eps, one(d.plus_one));
                    at += n;
                }
            }
            y[values..].copy_from_slice(&x[values..]);
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
        d: QkNorm,
    ) {
        let (width, stats) = (d.heads.qkv_width(), d.stats());
        let dqkv = Rows::new(dqkv, d.rows, width);
        let (mut at, mut first) = (0, 0);
        for (((count, n), w), dw) in d.parts().into_iter().zip([wq, wk]).zip([dwq, dwk]) {
            over_rows(&self.pool, [dw.map(Vec::as_mut_slice)], n, d.rows, |rows, [mut dw]| {
                for r in rows {
                    // SAFETY: a row is in one run of rows.
                    let d_row = unsafe { dqkv.row(r) };
                    let (d_row, x) = (&mut d_row[at..][..count * n], &x[r * width + at..][..count * n]);
                    let rstd = &rstd[r * stats + first..][..count];
                    for ((d_part, x), rstd) in d_row.chunks_exact_mut(n).zip(x.chunks_exact(n)).zip(rstd) {
                        rms_row_bw_in_place(d_part, dw.as_deref_mut(), x, &w[..n], *rstd, one(d.plus_one));
                    }
                }
            });
            (at, first) = (at + count * n, first + count);
        }
    }

    const LAYERNORMS_OF_HEADS: bool = true;

    fn qk_layernorm(
        &self,
        y: &mut Vec<R>,
        stats: &mut Vec<R::Acc>,
        x: &Vec<R>,
        w: [&Vec<R>; 2],
        b: [&Vec<R>; 2],
        d: QkNorm,
    ) {
        let (width, n, values) =
            (d.heads.qkv_width(), d.heads.head_dim, d.heads.q_width() + d.heads.kv_width());
        self.pool.rows2(y, width, stats, 2 * d.stats(), d.rows, |r, y, stats| {
            let x = &x[r * width..][..width];
            let heads = y.chunks_exact_mut(n).zip(x.chunks_exact(n)).zip(stats.chunks_exact_mut(2));
            for (head, ((y, x), stats)) in heads.enumerate() {
                let of_keys = usize::from(head >= d.heads.heads);
                stats.copy_from_slice(&layer_row(y, x, &w[of_keys][..n], &b[of_keys][..n], d.eps));
            }
            y[values..].copy_from_slice(&x[values..]);
        });
    }

    fn qk_layernorm_bw(
        &self,
        dqkv: &mut Vec<R>,
        dw: [Option<&mut Vec<R::Acc>>; 2],
        db: [Option<&mut Vec<R::Acc>>; 2],
        x: &Vec<R>,
        stats: &Vec<R::Acc>,
        w: [&Vec<R>; 2],
        d: QkNorm,
    ) {
        let (width, n, all) = (d.heads.qkv_width(), d.heads.head_dim, d.stats());
        let dqkv = Rows::new(dqkv, d.rows, width);
        let mut first = 0;
        for ((((count, _), w), dw), db) in d.parts().into_iter().zip(w).zip(dw).zip(db) {
            let outs = [dw, db].map(|out| out.map(Vec::as_mut_slice));
            over_rows(&self.pool, outs, n, d.rows, |rows, [mut dw, mut db]| {
                let mut dy = vec![R::default(); n];
                for r in rows {
                    // SAFETY: a row is in one run of rows.
                    let d_row = unsafe { dqkv.row(r) };
                    for head in first..first + count {
                        let (at, stats) = (head * n, &stats[2 * (r * all + head)..][..2]);
                        let d_head = &mut d_row[at..][..n];
                        dy.copy_from_slice(d_head);
                        d_head.fill(R::default());
                        let (dw, db) = (dw.as_deref_mut(), db.as_deref_mut());
                        let x = &x[r * width + at..][..n];
                        layer_row_bw(d_head, dw, db, &dy, x, &w[..n], [stats[0], stats[1]]);
                    }
                }
            });
            first += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use duel_backend::Heads;

    /// Gradients of parameters that nobody wants change nothing of the others, to the bit.
    #[test]
    fn a_frozen_parameter_changes_no_other_gradient() {
        let (rows, width) = (70, 19);
        let wave = |n: usize, k: f64| (0..n).map(|i| (i as f64 * k).sin() as f32).collect::<Vec<f32>>();
        let (dy, x, w) = (wave(rows * width, 0.7), wave(rows * width, 1.3), wave(width, 2.1));
        let (b, d) = (Cpu::<f32>::new(2), Norm { rows, width, eps: 1e-5, plus_one: false });
        let layer = |weight: bool, bias: bool| {
            let (mut dx, mut dw, mut db) = (wave(rows * width, 0.3), vec![0.5; width], vec![0.25; width]);
            let stats = wave(2 * rows, 0.9);
            b.layernorm_bw(
                &mut dx,
                weight.then_some(&mut dw),
                bias.then_some(&mut db),
                &dy,
                &x,
                &stats,
                &w,
                d,
            );
            (dx, dw, db)
        };
        let rms = |weight: bool| {
            let (mut dx, mut dw) = (wave(rows * width, 0.3), vec![0.5; width]);
            b.rmsnorm_bw(&mut dx, weight.then_some(&mut dw), &dy, &x, &wave(rows, 0.9), &w, d);
            (dx, dw)
        };
        let heads = Heads { heads: 2, kv_heads: 1, head_dim: width };
        let x = wave(rows * heads.qkv_width(), 1.3);
        let head = |q: bool, k: bool| {
            let (mut d, mut dq, mut dk) = (wave(x.len(), 0.3), vec![0.5; width], vec![0.25; width]);
            let rstd = wave(3 * rows, 0.9);
            let (q, k) = (q.then_some(&mut dq), k.then_some(&mut dk));
            let dims = QkNorm { rows, heads, eps: 1e-5, plus_one: false, whole: false };
            b.qk_norm_bw(&mut d, q, k, &x, &rstd, &w, &w, dims);
            (d, dq, dk)
        };
        let frozen = (vec![0.5; width], vec![0.25; width]);
        for all in [layer(true, true), head(true, true)] {
            assert!(all.1 != frozen.0 && all.2 != frozen.1, "what is wanted is summed");
        }
        for (first, second) in [(true, false), (false, true), (false, false)] {
            for (all, some) in
                [(layer(true, true), layer(first, second)), (head(true, true), head(first, second))]
            {
                assert_eq!(some.0, all.0);
                assert_eq!(some.1, if first { all.1 } else { frozen.0.clone() });
                assert_eq!(some.2, if second { all.2 } else { frozen.1.clone() });
            }
        }
        assert_eq!(rms(false), (rms(true).0, frozen.0));
    }
}
