//! Attention of one query row a sequence to its cache.

use crate::Cpu;
use crate::real::{Real, Scalar, take};
use crate::softmax::{axpy, dot, scaled, softmax_row};
use duel_backend::{Decode, Heads};

impl<R: Real> Decode for Cpu<R> {
    fn kv_store(
        &self,
        keys: &mut Vec<R>,
        values: &mut Vec<R>,
        qkv: &Vec<R>,
        slots: &Vec<u32>,
        rows: usize,
        d: Heads,
    ) {
        let (kv, width) = (d.kv_width(), d.qkv_width());
        for r in 0..rows {
            let row = &qkv[r * width + d.q_width()..][..2 * kv];
            let slot = slots[r] as usize * kv;
            keys[slot..slot + kv].copy_from_slice(&row[..kv]);
            values[slot..slot + kv].copy_from_slice(&row[kv..]);
        }
    }

    fn attention_cached(
        &self,
        o: &mut Vec<R>,
        qkv: &Vec<R>,
        keys: &Vec<R>,
        values: &Vec<R>,
        runs: &Vec<u32>,
        rows: usize,
        d: Heads,
    ) {
        let (hd, kv_width) = (d.head_dim, d.kv_width());
        let scale = R::Acc::of(d.scale());
        self.pool.rows(o, rows * d.heads, hd, |task, out| {
            let (r, h) = (task / d.heads, task % d.heads);
            let kv = h / d.ratio();
            let [prefix, before, own, len] = std::array::from_fn(|i| runs[4 * r + i] as usize);
            let seen = || (prefix..prefix + before).chain(own..own + len).map(|t| t * kv_width + kv * hd);
            let q = &qkv[r * d.qkv_width() + h * hd..][..hd];
            R::Acc::with_scratch(|scratch| {
                let sizes = [before + len, hd];
                let [s, sums] = take(scratch, &sizes).try_into().unwrap_or_else(|_| unreachable!());
                for (s, at) in s.iter_mut().zip(seen()) {
                    *s = dot(q, &keys[at..][..hd]);
                }
                let (total, _) = softmax_row(s, scale);
                sums.fill(R::Acc::ZERO);
                for (&p, at) in s.iter().zip(seen()) {
                    axpy(sums, p, &values[at..][..hd]);
                }
                scaled(out, sums, R::Acc::ONE / total);
            });
        });
    }
}
