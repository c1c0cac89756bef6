//! Steps of the optimizers, one pass over memory each.

use crate::Cpu;
use crate::prefetch::prefetch_far;
use crate::real::{Real, Scalar, joined};
use crate::simd::simd;
use crate::sync::{Pool, SyncPtr};
use duel_backend::{AdamW, Float, Result, Rmsprop, Update};

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

    /// Sum of squares of one block, each square taken and summed in f64.
    pub fn block_sumsq<S: Scalar>(x: &[S]) -> f64 {
        // So far ahead that memory is waited for once a block: the processor's own guesses end at each page of 4 KB.
        const AHEAD: usize = 2048;
        let mut sums = [0.0; 16];
        let mut add = |x: &[S]| {
            for (sum, &x) in sums.iter_mut().zip(x) {
                let x = Float::to_f64(x);
                *sum += x * x;
            }
        };
        let rows = x.chunks_exact(16);
        let rest = rows.remainder();
        for row in rows {
            prefetch_far(row.as_ptr().wrapping_add(AHEAD), row.len());
            add(row);
        }
        add(rest);
        joined(sums)
    }
}

/// Fused AdamW; every element is independent of all others.
fn adamw<R: Real>(pool: &Pool, w: &mut [R], m: &mut [R::Acc], v: &mut [R::Acc], g: &[R::Acc], h: AdamW) {
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
fn rmsprop<R: Real>(pool: &Pool, w: &mut [R], v: &mut [R::Acc], g: &[R::Acc], h: Rmsprop) {
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
fn round<R: Real>(pool: &Pool, w: &mut [R], master: &[R::Acc]) {
    assert_eq!(w.len(), master.len(), "a master of every weight");
    let n = w.len();
    pool.parts(w, n, |from, w| {
        let len = w.len();
        w.iter_mut().zip(&master[from..][..len]).for_each(|(w, &x)| *w = R::down(x));
    });
}

/// Sum of squares in f64, in blocks whose order does not depend on the threads.
fn sumsq<S: Scalar>(pool: &Pool, x: &[S]) -> f64 {
    const BLOCK: usize = 1 << 14;
    let blocks = x.len().div_ceil(BLOCK);
    f64::with_shared(|partial| {
        partial.resize(partial.len().max(blocks), 0.0);
        let out = SyncPtr::new(partial);
        pool.tasks(blocks, |b| {
            let block = &x[b * BLOCK..x.len().min((b + 1) * BLOCK)];
            let s = block_sumsq(block);
            // SAFETY: each task writes its own element of `partial`.
            unsafe {
                *out.at(b) = s;
            }
        });
        partial[..blocks].iter().sum()
    })
}

impl<R: Real> Update for Cpu<R> {
    fn adamw(
        &self,
        w: &mut Vec<R>,
        master: Option<&mut Vec<R::Acc>>,
        m: &mut Vec<R::Acc>,
        v: &mut Vec<R::Acc>,
        g: &Vec<R::Acc>,
        hyper: AdamW,
    ) {
        match master {
            None => adamw(&self.pool, w, m, v, g, hyper),
            Some(master) => {
                adamw(&self.pool, master, m, v, g, hyper);
                round(&self.pool, w, master);
            }
        }
    }

    fn rmsprop(
        &self,
        w: &mut Vec<R>,
        master: Option<&mut Vec<R::Acc>>,
        v: &mut Vec<R::Acc>,
        g: &Vec<R::Acc>,
        hyper: Rmsprop,
    ) {
        match master {
            None => rmsprop(&self.pool, w, v, g, hyper),
            Some(master) => {
                rmsprop(&self.pool, master, v, g, hyper);
                round(&self.pool, w, master);
            }
        }
    }

    fn square_sums(&self, xs: &[&Vec<R::Acc>]) -> Result<Vec<f64>> {
        Ok(xs.iter().map(|x| sumsq(&self.pool, x)).collect())
    }
}
