//! Embedding, rotary positions, activations, gather and the optimizers: one pass over memory each.

use crate::real::{Lift, Real, Scalar};
use crate::simd::simd;
use crate::sync::{Pool, SyncPtr};
use duel_backend::{AdamW, Heads, Rmsprop};
use half::bf16;

simd! {
    /// `y += x`.
    pub fn add<R: Real>(y: &mut [R], x: &[R]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = R::down(y.up() + x.up());
        }
    }

    /// `y += x`, a gradient collecting a row.
    pub fn add_up<R: Real>(y: &mut [R::Acc], x: &[R]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y += x.up();
        }
    }

    /// Rotates the pairs `(x[i], x[i + n/2])` of one head by the row's angles.
    pub fn rotate<R: Real>(head: &mut [R], cos_sin: &[R::Acc], sign: R::Acc) {
        let half = head.len() / 2;
        let (lo, hi) = head.split_at_mut(half);
        let (cos, sin) = cos_sin.split_at(half);
        for (((lo, hi), &c), &s) in lo.iter_mut().zip(hi).zip(cos).zip(sin) {
            let (a, b, s) = (lo.up(), hi.up(), s * sign);
            *lo = R::down(a * c - b * s);
            *hi = R::down(b * c + a * s);
        }
    }

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

const GELU_SCALE: f64 = 2.0 * 0.797_884_560_802_865_4;
const GELU_CUBIC: f64 = 0.044_715;

simd! {
    /// One part of the AdamW update.
    pub fn adamw_part<R: Real>(w: &mut [R], m: &mut [R::Acc], v: &mut [R::Acc], g: &[R::Acc], h: AdamW) {
        let one = R::Acc::ONE;
        let (b1, b2, eps) = (R::Acc::of(h.beta1), R::Acc::of(h.beta2), R::Acc::of(h.eps));
        let (c1, c2) = (R::Acc::of(1.0 - h.beta1), R::Acc::of(1.0 - h.beta2));
        let step_size = R::Acc::of(h.lr / (1.0 - h.beta1.powf(h.step as f64)));
        let root = R::Acc::of((1.0 - h.beta2.powf(h.step as f64)).sqrt());
        let (scale, keep) = (R::Acc::of(h.grad_scale), R::Acc::of(1.0 - h.lr * h.weight_decay));
        let inv_root = one / root;
        for (((w, m), v), g) in w.iter_mut().zip(m).zip(v).zip(g) {
            let g = *g * scale;
            *m = b1 * *m + c1 * g;
            *v = b2 * *v + c2 * g * g;
            let denominator = v.sqrt() * inv_root + eps;
            *w = R::down(w.up() * keep - step_size * *m / denominator);
        }
    }

    /// One part of the RMSprop update.
    pub fn rmsprop_part<R: Real>(w: &mut [R], v: &mut [R::Acc], g: &[R::Acc], h: Rmsprop) {
        let (alpha, eps, lr) = (R::Acc::of(h.alpha), R::Acc::of(h.eps), R::Acc::of(h.lr));
        let beta = R::Acc::of(1.0 - h.alpha);
        let (scale, decay) = (R::Acc::of(h.grad_scale), R::Acc::of(h.weight_decay));
        for ((w, v), g) in w.iter_mut().zip(v).zip(g) {
            let g = *g * scale + decay * w.up();
            *v = alpha * *v + beta * g * g;
            *w = R::down(w.up() - lr * g / (v.sqrt() + eps));
        }
    }
}

/// Fused AdamW; every element is independent of all others.
pub fn adamw<R: Real>(pool: &Pool, w: &mut [R], m: &mut [R::Acc], v: &mut [R::Acc], g: &[R::Acc], h: AdamW) {
    let n = w.len();
    assert!(m.len() == n && v.len() == n && g.len() == n, "moments and gradient have the weights' length");
    let (m, v) = (SyncPtr::new(m), SyncPtr::new(v));
    pool.parts(w, n, |from, w| {
        // SAFETY: `parts` gives disjoint ranges inside 0..n, which m and v have (asserted).
        let (m, v) = unsafe {
            (
                std::slice::from_raw_parts_mut(m.at(from), w.len()),
                std::slice::from_raw_parts_mut(v.at(from), w.len()),
            )
        };
        let g = &g[from..][..w.len()];
        adamw_part::<R>(w, m, v, g, h);
    });
}

/// Fused RMSprop.
pub fn rmsprop<R: Real>(pool: &Pool, w: &mut [R], v: &mut [R::Acc], g: &[R::Acc], h: Rmsprop) {
    let n = w.len();
    assert!(v.len() == n && g.len() == n, "mean square and gradient have the weights' length");
    let v = SyncPtr::new(v);
    pool.parts(w, n, |from, w| {
        // SAFETY: `parts` gives disjoint ranges inside 0..n, which v has (asserted).
        let v = unsafe { std::slice::from_raw_parts_mut(v.at(from), w.len()) };
        let g = &g[from..][..w.len()];
        rmsprop_part::<R>(w, v, g, h);
    });
}

/// `w = master`, rounded to what it is stored in.
pub fn round<R: Real>(pool: &Pool, w: &mut [R], master: &[R::Acc]) {
    assert_eq!(w.len(), master.len(), "a master of every weight");
    let n = w.len();
    pool.parts(w, n, |from, w| {
        let len = w.len();
        w.iter_mut().zip(&master[from..][..len]).for_each(|(w, &x)| *w = R::down(x));
    });
}

/// `dst[index[r]] += src[r]`, rows in order; each task owns a slab of columns.
fn scatter<T: Send, R: Real>(
    pool: &Pool,
    dst: &mut [T],
    src: &[R],
    index: &[u32],
    rows: usize,
    width: usize,
    add_row: impl Fn(&mut [T], &[R]) + Sync,
) {
    let height = dst.len() / width;
    assert!(index[..rows].iter().all(|&i| (i as usize) < height), "row number outside the table");
    let dst = SyncPtr::new(dst);
    let parts = if rows * width < 1 << 13 { 1 } else { usize::MAX };
    pool.ranges(width, 16, parts, |cols| {
        for r in 0..rows {
            // SAFETY: the row is in the table (asserted) and no other task has these columns.
            let out = unsafe {
                std::slice::from_raw_parts_mut(dst.at(index[r] as usize * width + cols.start), cols.len())
            };
            add_row(out, &src[r * width + cols.start..][..cols.len()]);
        }
    });
}

/// `dtable[ids[r]] += dy[r]`.
pub fn scatter_up<R: Real>(
    pool: &Pool,
    dtable: &mut [R::Acc],
    dy: &[R],
    ids: &[u32],
    rows: usize,
    width: usize,
) {
    scatter(pool, dtable, dy, ids, rows, width, |y, x| add_up::<R>(y, x));
}

pub fn scatter_add<R: Real>(pool: &Pool, dx: &mut [R], dy: &[R], index: &[u32], rows: usize, width: usize) {
    scatter(pool, dx, dy, index, rows, width, |y, x| add(y, x));
}

pub fn gather<R: Real>(pool: &Pool, y: &mut [R], x: &[R], index: &[u32], rows: usize, width: usize) {
    pool.rows(y, rows, width, |r, y| y.copy_from_slice(&x[index[r] as usize * width..][..width]));
}

/// As [`gather`], from a table in bf16.
pub fn gather_up<R: Real>(pool: &Pool, y: &mut [R], x: &[bf16], index: &[u32], rows: usize, width: usize) {
    pool.rows(y, rows, width, |r, y| {
        for (y, x) in y.iter_mut().zip(&x[index[r] as usize * width..][..width]) {
            *y = R::down(x.lift());
        }
    });
}

/// `y[r] += x[index[r]]`.
pub fn add_gathered<R: Real>(pool: &Pool, y: &mut [R], x: &[R], index: &[u32], rows: usize, width: usize) {
    pool.rows(y, rows, width, |r, y| add(y, &x[index[r] as usize * width..][..width]));
}

pub fn rope<R: Real>(
    pool: &Pool,
    qkv: &mut [R],
    table: &[R::Acc],
    positions: &[u32],
    rows: usize,
    inverse: bool,
    d: Heads,
) {
    let hd = d.head_dim;
    let sign = if inverse { -R::Acc::ONE } else { R::Acc::ONE };
    pool.rows(qkv, rows, d.qkv_width(), |r, row| {
        let cos_sin = &table[positions[r] as usize * hd..][..hd];
        for head in row.chunks_exact_mut(hd).take(d.heads + d.kv_heads) {
            rotate(head, cos_sin, sign);
        }
    });
}

pub fn swiglu<R: Real>(pool: &Pool, y: &mut [R], x: &[R], rows: usize, width: usize) {
    pool.rows(y, rows, width, |r, y| {
        let (g, u) = x[2 * r * width..][..2 * width].split_at(width);
        swiglu_row(y, g, u);
    });
}

pub fn swiglu_bw<R: Real>(pool: &Pool, dx: &mut [R], dy: &[R], x: &[R], rows: usize, width: usize) {
    pool.rows(dx, rows, 2 * width, |r, dx| {
        let (g, u) = x[2 * r * width..][..2 * width].split_at(width);
        let (dg, du) = dx.split_at_mut(width);
        swiglu_row_bw(dg, du, &dy[r * width..][..width], g, u);
    });
}

pub fn gelu<R: Real>(pool: &Pool, y: &mut [R], x: &[R], len: usize) {
    pool.parts(y, len, |from, y| gelu_part(y, &x[from..][..y.len()]));
}

pub fn gelu_bw<R: Real>(pool: &Pool, dx: &mut [R], dy: &[R], x: &[R], len: usize) {
    pool.parts(dx, len, |from, dx| gelu_part_bw(dx, &dy[from..][..dx.len()], &x[from..][..dx.len()]));
}

/// Keys and values of each row into their cache slots.
pub fn kv_store<R: Real>(keys: &mut [R], values: &mut [R], qkv: &[R], slots: &[u32], rows: usize, d: Heads) {
    let (kv, width) = (d.kv_width(), d.qkv_width());
    for r in 0..rows {
        let row = &qkv[r * width + d.q_width()..][..2 * kv];
        let slot = slots[r] as usize * kv;
        keys[slot..slot + kv].copy_from_slice(&row[..kv]);
        values[slot..slot + kv].copy_from_slice(&row[kv..]);
    }
}
