//! Softmax attention over groups with a shared prompt.
//!
//! Keys and values are packed once ([`packed`]). A task then goes through the keys that one block of queries of one head
//! sees, a tile at a time, whose scores stay in the L1 cache (Dao, 2023: `top` and `total` of a row are corrected as its
//! largest score grows). Memory grows with the length, not with its square, and of the scores only the log-sum-exp of
//! each row is kept for the backward.
//!
//! A row's sums run over its keys in order, in tiles that begin with its prefix and with its segment: its bits depend on
//! nothing else in the batch. The gradient of a key runs over the queries that see it in order ([`order`]).

mod blocks;
mod kernel;
mod lanes;
mod order;
mod packed;
mod products;

use crate::Cpu;
use crate::gemm::HasKernel;
use crate::real::{Real, Scalar};
use crate::simd::simd;
use crate::softmax::{dot, scaled};
use crate::sync::{Pool, SyncPtr};
use blocks::Plan;
use duel_backend::{Attention, Heads, Layout};
pub use kernel::HasLoops;
use kernel::{BLOCK, Rows, STRIDE};
use order::{Turns, in_order};
use packed::lines;

simd! {
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
}

impl<R: Real> Attention for Cpu<R>
where
    R::Acc: HasKernel,
{
    fn rope(
        &self,
        qkv: &mut Vec<R>,
        table: &Vec<R::Acc>,
        positions: &Vec<u32>,
        rows: usize,
        inverse: bool,
        d: Heads,
    ) {
        let hd = d.head_dim;
        let sign = if inverse { -R::Acc::ONE } else { R::Acc::ONE };
        self.pool.rows(qkv, rows, d.qkv_width(), |r, row| {
            let cos_sin = &table[positions[r] as usize * hd..][..hd];
            for head in row.chunks_exact_mut(hd).take(d.heads + d.kv_heads) {
                rotate(head, cos_sin, sign);
            }
        });
    }

    fn attention(
        &self,
        o: &mut Vec<R>,
        lse: &mut Vec<R::Acc>,
        qkv: &Vec<R>,
        layout: &Layout<Self>,
        d: Heads,
    ) {
        let kernel = R::Acc::loops();
        let (hd, heads, kv_heads) = (d.head_dim, d.heads, d.kv_heads);
        let width = hd.next_multiple_of(kernel.lanes);
        let scale = R::Acc::of(d.scale());
        let plan = Plan::new(&layout.segments);
        let rows = plan.rows;
        assert!(o.len() >= rows * d.q_width() && lse.len() >= rows * heads, "output shorter than the rows");
        let c = packed::Heads { data: qkv, width: d.qkv_width(), head_dim: hd };
        let (o, lse) = (SyncPtr::new(o), SyncPtr::new(lse));
        let serial = Pool::new(1);
        let pool = if plan.pairs * heads * hd < 1 << 16 { &serial } else { &self.pool };
        R::Acc::with_shared(|shared| {
            let [keys, values] = lines(shared, [kv_heads * plan.packed * hd, kv_heads * plan.packed * width]);
            plan.transpose(pool, kernel, keys, c, heads, kv_heads);
            plan.panels(pool, kernel, values, width, c, heads + kv_heads, kv_heads);
            let (keys, values) = (&*keys, &*values);
            in_order(pool, plan.blocks.len() * heads, |task| {
                let (b, h) = (plan.blocks[task / heads], task % heads);
                let kv = h / d.ratio();
                let values = &values[kv * plan.packed * width..][..plan.packed * width];
                R::Acc::with_scratch(|scratch| {
                    let [q, s, out, top, total] =
                        lines(scratch, [BLOCK * width, BLOCK * STRIDE, BLOCK * width, BLOCK, BLOCK]);
                    c.copy(q, width, h, b.row, b.rows);
                    out.fill(R::Acc::ZERO);
                    top.fill(R::Acc::LOWEST);
                    total.fill(R::Acc::ZERO);
                    for t in b.tiles() {
                        let panels = &keys[(kv * plan.packed + t.at) * hd..];
                        kernel.scores(s, q, width, panels, hd, b.rows, t.mask);
                        let state = Rows { top, total };
                        // SAFETY: the buffers hold BLOCK rows, of STRIDE and of whole registers.
                        unsafe {
                            (kernel.softmax)(
                                b.rows,
                                s.as_mut_ptr(),
                                t.mask,
                                scale,
                                state,
                                out.as_mut_ptr(),
                                width,
                            );
                        }
                        kernel.weighted(out, width, s, values, t.at, b.rows, t.mask);
                    }
                    for i in 0..b.rows {
                        // SAFETY: row and head belong to this task only, inside o and lse as asserted.
                        let dst = unsafe {
                            *lse.at((b.row + i) * heads + h) = top[i] * scale + total[i].ln();
                            std::slice::from_raw_parts_mut(o.at((b.row + i) * d.q_width() + h * hd), hd)
                        };
                        scaled(dst, &out[i * width..][..hd], R::Acc::ONE / total[i]);
                    }
                });
            });
        });
    }

    fn attention_bw(
        &self,
        dqkv: &mut Vec<R>,
        dout: &Vec<R>,
        o: &Vec<R>,
        lse: &Vec<R::Acc>,
        qkv: &Vec<R>,
        layout: &Layout<Self>,
        d: Heads,
    ) {
        let kernel = R::Acc::loops();
        let (hd, heads, kv_heads) = (d.head_dim, d.heads, d.kv_heads);
        let width = hd.next_multiple_of(kernel.lanes);
        let scale = R::Acc::of(d.scale());
        let plan = Plan::new(&layout.segments);
        let rows = plan.rows;
        assert!(dqkv.len() >= rows * d.qkv_width(), "output shorter than the rows");
        let c = packed::Heads { data: qkv, width: d.qkv_width(), head_dim: hd };
        let g = packed::Heads { data: dout, width: d.q_width(), head_dim: hd };
        let y = packed::Heads { data: o, width: d.q_width(), head_dim: hd };
        let dqkv = SyncPtr::new(dqkv);
        let place = |row: usize, head: usize| {
            // SAFETY: the row lies in dqkv (asserted), and each task below owns the rows and heads that it asks for.
            unsafe { std::slice::from_raw_parts_mut(dqkv.at(row * d.qkv_width() + head * hd), hd) }
        };
        let serial = Pool::new(1);
        let pool = if plan.pairs * heads * hd < 1 << 16 { &serial } else { &self.pool };
        R::Acc::with_shared(|shared| {
            let (deep, wide) = (kv_heads * plan.packed * hd, kv_heads * plan.packed * width);
            let [keys, values, key_rows, grads] = lines(shared, [deep, deep, wide, 2 * wide]);
            plan.transpose(pool, kernel, keys, c, heads, kv_heads);
            plan.transpose(pool, kernel, values, c, heads + kv_heads, kv_heads);
            plan.panels(pool, kernel, key_rows, width, c, heads, kv_heads);
            pool.parts(grads, 2 * wide, |_, part| part.fill(R::Acc::ZERO));
            let (keys, values, key_rows) = (&*keys, &*values, &*key_rows);
            let sums = SyncPtr::new(grads);
            let turns = Turns::new(plan.tiles * kv_heads);
            let tasks = plan.tasks(d);
            in_order(pool, tasks.len(), |task| {
                let (b, h) = tasks[task];
                let kv = h / d.ratio();
                let key_rows = &key_rows[kv * plan.packed * width..][..plan.packed * width];
                R::Acc::with_scratch(|scratch| {
                    let [q, do_, p, dp, dq, row_lse, delta] = lines(
                        scratch,
                        [
                            BLOCK * width,
                            BLOCK * width,
                            BLOCK * STRIDE,
                            BLOCK * STRIDE,
                            BLOCK * width,
                            BLOCK,
                            BLOCK,
                        ],
                    );
                    c.copy(q, width, h, b.row, b.rows);
                    g.copy(do_, width, h, b.row, b.rows);
                    dq.fill(R::Acc::ZERO);
                    for i in 0..b.rows {
                        row_lse[i] = lse[(b.row + i) * heads + h];
                        delta[i] = dot(g.vector(h, b.row + i), y.vector(h, b.row + i));
                    }
                    for t in b.tiles() {
                        let at = (kv * plan.packed + t.at) * hd;
                        kernel.scores(p, q, width, &keys[at..], hd, b.rows, t.mask);
                        kernel.scores(dp, do_, width, &values[at..], hd, b.rows, t.mask);
                        // SAFETY: the buffers hold BLOCK rows of STRIDE.
                        unsafe {
                            (kernel.gradient)(
                                b.rows,
                                p.as_mut_ptr(),
                                dp.as_mut_ptr(),
                                t.mask,
                                scale,
                                row_lse,
                                delta,
                            );
                        }
                        kernel.weighted(dq, width, dp, key_rows, t.at, b.rows, t.mask);
                        let turn = (b.number - t.first) * d.ratio() + h % d.ratio();
                        turns.take(t.number * kv_heads + kv, turn, || {
                            let len = t.mask.len.next_multiple_of(kernel.rows) * width;
                            let sums = |values: usize| {
                                let at = ((values * kv_heads + kv) * plan.packed + t.at) * width;
                                // SAFETY: the rows of this tile, with room for the last of the kernel's, are this
                                // task's while it is its turn.
                                unsafe { std::slice::from_raw_parts_mut(sums.at(at), len) }
                            };
                            kernel.collect(sums(0), width, dp, q, b.rows, t.mask);
                            kernel.collect(sums(1), width, p, do_, b.rows, t.mask);
                        });
                    }
                    for i in 0..b.rows {
                        scaled(place(b.row + i, h), &dq[i * width..][..hd], R::Acc::ONE);
                    }
                });
            });
            let grads = &*grads;
            plan.each(pool, kv_heads, |run, from, n, _, kv| {
                for (values, head) in [(0, heads + kv), (1, heads + kv_heads + kv)] {
                    let sums = &grads[((values * kv_heads + kv) * plan.packed + run.at + from) * width..];
                    for i in 0..n {
                        scaled(place(run.row + from + i, head), &sums[i * width..][..hd], R::Acc::ONE);
                    }
                }
            });
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use duel_backend::Segment;

    fn wave(n: usize, step: f64) -> Vec<f64> {
        (0..n).map(|i| (i as f64 * step).sin()).collect()
    }

    /// Softmax attention and its gradient, one pair of rows after the other.
    fn plain(qkv: &[f64], dout: &[f64], segments: &[Segment], d: Heads) -> (Vec<f64>, Vec<f64>) {
        let (hd, width) = (d.head_dim, d.qkv_width());
        let rows = Plan::new(segments).rows;
        let (mut o, mut dqkv) = (vec![0.0; rows * d.q_width()], vec![0.0; rows * width]);
        for s in segments {
            for (row, h) in (s.start..s.start + s.len).flat_map(|row| (0..d.heads).map(move |h| (row, h))) {
                let prefix = s.prefix_start..s.prefix_start + s.prefix_len;
                let keys: Vec<usize> = prefix.chain(s.start..=row).collect();
                let kv = d.heads + h / d.ratio();
                let at = |row: usize, head: usize| row * width + head * hd;
                let product = |a: usize, b: usize| (0..hd).map(|c| qkv[a + c] * qkv[b + c]).sum::<f64>();
                let scores: Vec<f64> =
                    keys.iter().map(|&k| d.scale() * product(at(row, h), at(k, kv))).collect();
                let total: f64 = scores.iter().map(|s| s.exp()).sum();
                let p: Vec<f64> = scores.iter().map(|s| s.exp() / total).collect();
                let own = (row * d.heads + h) * hd;
                let grad = &dout[own..][..hd];
                let dp: Vec<f64> = keys
                    .iter()
                    .map(|&k| (0..hd).map(|c| grad[c] * qkv[at(k, kv + d.kv_heads) + c]).sum())
                    .collect();
                let delta: f64 = p.iter().zip(&dp).map(|(p, dp)| p * dp).sum();
                for ((&k, &p), &dp) in keys.iter().zip(&p).zip(&dp) {
                    let ds = p * (dp - delta) * d.scale();
                    for c in 0..hd {
                        o[own + c] += p * qkv[at(k, kv + d.kv_heads) + c];
                        dqkv[at(row, h) + c] += ds * qkv[at(k, kv) + c];
                        dqkv[at(k, kv) + c] += ds * qkv[at(row, h) + c];
                        dqkv[at(k, kv + d.kv_heads) + c] += p * grad[c];
                    }
                }
            }
        }
        (o, dqkv)
    }

    /// Around the edges of a block of queries, with and without a prefix, on scratch full of NaN: what the masks hide
    /// is never read.
    #[test]
    fn blocks_match_the_plain_sums() {
        let d = Heads { heads: 4, kv_heads: 2, head_dim: 8 };
        for prefix in [0, 1, BLOCK + 4] {
            for len in [1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 8] {
                let mut segments = vec![Segment { start: 0, len: prefix, prefix_start: 0, prefix_len: 0 }];
                for (start, len) in [(prefix, len), (prefix + len, 3)] {
                    segments.push(Segment { start, len, prefix_start: 0, prefix_len: prefix });
                }
                let rows = Plan::new(&segments).rows;
                let (qkv, dout) = (wave(rows * d.qkv_width(), 0.7), wave(rows * d.q_width(), 1.3));
                let (want_o, want_dqkv) = plain(&qkv, &dout, &segments, d);
                for threads in [1, 2] {
                    let poison = |buffer: &mut Vec<f64>| {
                        buffer.clear();
                        buffer.resize(1 << 20, f64::NAN);
                    };
                    f64::with_scratch(poison);
                    f64::with_shared(poison);
                    let b = Cpu::<f64>::new(threads);
                    let mut layout = Layout::new(&b, rows).expect("room for a test");
                    layout.set(&b, &vec![0; rows], segments.iter().copied());
                    let (mut o, mut lse) = (vec![f64::NAN; want_o.len()], vec![f64::NAN; rows * d.heads]);
                    let mut dqkv = vec![f64::NAN; want_dqkv.len()];
                    b.attention(&mut o, &mut lse, &qkv, &layout, d);
                    b.attention_bw(&mut dqkv, &dout, &o, &lse, &qkv, &layout, d);
                    // Sums of at most `rows` products of numbers below 1, some ten roundings each.
                    let bound = 10.0 * rows as f64 * f64::EPSILON;
                    for (what, got, want) in [("o", &o, &want_o), ("dqkv", &dqkv, &want_dqkv)] {
                        for (i, (g, w)) in got.iter().zip(want).enumerate() {
                            assert!(
                                (g - w).abs() <= bound * w.abs().max(1.0),
                                "{prefix}+{len} {what}[{i}]: {g} not {w}"
                            );
                        }
                    }
                }
            }
        }
    }
}
