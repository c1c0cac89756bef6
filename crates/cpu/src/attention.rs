//! Softmax attention over groups with a shared prompt, in blocks of query rows.
//!
//! A task holds the scores of [`BLOCK`] query rows of one head at a time: memory grows with the length, not with
//! its square, and of the scores only the log-sum-exp of each row is kept for the backward.

use crate::Cpu;
use crate::blocks::{BLOCK, Block, Columns, Group, groups, tiled};
use crate::gemm::HasKernel;
use crate::real::{Real, Scalar, take};
use crate::simd::simd;
use crate::softmax::{axpy, dot, scaled, softmax_row};
use crate::sync::{Pool, SyncPtr};
use duel_backend::{Attention, Heads, Layout};

simd! {
    /// `p = exp(scale · s - lse)`.
    pub fn probabilities<S: Scalar>(row: &mut [S], scale: S, lse: S) {
        for x in row.iter_mut() {
            *x = (*x * scale - lse).exp();
        }
    }

    /// `dp = p · (dp - delta) · scale`.
    pub fn score_grad<S: Scalar>(dp: &mut [S], p: &[S], delta: S, scale: S) {
        for (dp, &p) in dp.iter_mut().zip(p) {
            *dp = p * (*dp - delta) * scale;
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
        let (hd, heads) = (d.head_dim, d.heads);
        let scale = R::Acc::of(d.scale());
        let c = Columns { data: qkv, width: d.qkv_width(), head_dim: hd };
        let rows = tiled(&layout.segments);
        assert!(o.len() >= rows * d.q_width() && lse.len() >= rows * heads, "output shorter than the rows");
        let (o, lse) = (SyncPtr::new(o), SyncPtr::new(lse));
        let serial = Pool::new(1);
        let blocks: Vec<Block> = layout.segments.iter().flat_map(|&s| Block::of(s)).collect();
        self.pool.tasks(blocks.len() * heads, |task| {
            let (b, h) = (blocks[task / heads], task % heads);
            let kv = h / d.ratio();
            let (m, keys) = (b.rows(), b.keys());
            R::Acc::with_scratch(|scratch| {
                let [s, out, totals] =
                    take(scratch, &[m * keys, m * hd, m]).try_into().unwrap_or_else(|_| unreachable!());
                b.scores(&serial, s, c.head(h, b.row(0)), hd, |row| c.head(heads + kv, row));
                for i in 0..m {
                    let (seen, masked) = s[i * keys..][..keys].split_at_mut(b.visible(i));
                    let (total, row_lse) = softmax_row(seen, scale);
                    Block::mask(masked);
                    totals[i] = total;
                    // SAFETY: row and head belong to this task only, inside lse as asserted.
                    unsafe {
                        *lse.at(b.row(i) * heads + h) = row_lse;
                    }
                }
                b.weighted(&serial, out, s, hd, |row| c.head(heads + d.kv_heads + kv, row));
                for i in 0..m {
                    // SAFETY: row and head belong to this task only, inside o as asserted.
                    let dst =
                        unsafe { std::slice::from_raw_parts_mut(o.at(b.row(i) * d.q_width() + h * hd), hd) };
                    scaled(dst, &out[i * hd..][..hd], R::Acc::ONE / totals[i]);
                }
            });
        });
    }

    // One task a group and query head: it owns the gradient of those queries, and sums its share of the gradients of
    // the keys and values that they read. The shares of the query heads that read one key/value head are added up in
    // order.
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
        let (hd, heads, width) = (d.head_dim, d.heads, d.qkv_width());
        let scale = R::Acc::of(d.scale());
        let c = Columns { data: qkv, width, head_dim: hd };
        let (g, out) = (
            Columns { data: dout, width: d.q_width(), head_dim: hd },
            Columns { data: o, width: d.q_width(), head_dim: hd },
        );
        let rows = tiled(&layout.segments);
        assert!(dqkv.len() >= rows * width, "output shorter than the rows");
        let dqkv = SyncPtr::new(dqkv);
        let place = |row: usize, head: usize| {
            // SAFETY: the row lies in dqkv (asserted), and each task below owns the rows and heads that it asks for.
            unsafe { std::slice::from_raw_parts_mut(dqkv.at(row * width + head * hd), hd) }
        };
        let serial = Pool::new(1);
        let groups: Vec<Group> = groups(&layout.segments).collect();
        R::Acc::with_shared(|shared| {
            // For each query head the gradients of keys, then of values, of all rows.
            let share = rows * hd;
            let [shares] = take(shared, &[2 * heads * share]).try_into().unwrap_or_else(|_| unreachable!());
            let shares_at = SyncPtr::new(shares);
            self.pool.tasks(groups.len() * heads, |task| {
                let (group, h) = (&groups[task / heads], task % heads);
                let (k_head, v_head) = (heads + h / d.ratio(), heads + d.kv_heads + h / d.ratio());
                let longest = group.segments.iter().map(|s| s.prefix_len + s.len).max().unwrap_or(0);
                let most = BLOCK.min(group.rows);
                let own = |values: usize| {
                    let at = (2 * h + values) * share + group.start * hd;
                    // SAFETY: head h's two shares of this group's rows, inside `shares`, are this task's alone.
                    unsafe { std::slice::from_raw_parts_mut(shares_at.at(at), group.rows * hd) }
                };
                let (dk, dv) = (own(0), own(1));
                dk.fill(R::Acc::ZERO);
                dv.fill(R::Acc::ZERO);
                R::Acc::with_scratch(|scratch| {
                    let sizes = [most * longest, most * longest, most * hd];
                    let [p, dp, dq] = take(scratch, &sizes).try_into().unwrap_or_else(|_| unreachable!());
                    for b in group.segments.iter().flat_map(|&s| Block::of(s)) {
                        let (m, keys) = (b.rows(), b.keys());
                        let (q, do_) = (c.head(h, b.row(0)), g.head(h, b.row(0)));
                        b.scores(&serial, p, q, hd, |row| c.head(k_head, row));
                        b.scores(&serial, dp, do_, hd, |row| c.head(v_head, row));
                        for i in 0..m {
                            let delta = dot(g.vector(h, b.row(i)), out.vector(h, b.row(i)));
                            let (seen, masked) = p[i * keys..][..keys].split_at_mut(b.visible(i));
                            let (dseen, dmasked) = dp[i * keys..][..keys].split_at_mut(b.visible(i));
                            probabilities(seen, scale, lse[b.row(i) * heads + h]);
                            score_grad(dseen, seen, delta, scale);
                            Block::mask(masked);
                            Block::mask(dmasked);
                        }
                        b.weighted(&serial, dq, dp, hd, |row| c.head(k_head, row));
                        for i in 0..m {
                            scaled(place(b.row(i), h), &dq[i * hd..][..hd], R::Acc::ONE);
                        }
                        b.collect(&serial, dk, group.start, dp, hd, q);
                        b.collect(&serial, dv, group.start, p, hd, do_);
                    }
                });
            });
            self.pool.ranges(rows, 1, usize::MAX, |range| {
                for (row, kv) in range.flat_map(|row| (0..d.kv_heads).map(move |kv| (row, kv))) {
                    for (values, head) in [(0, heads + kv), (1, heads + d.kv_heads + kv)] {
                        let share_of = |h: usize| {
                            let at = (2 * h + values) * share + row * hd;
                            // SAFETY: inside `shares`; the tasks that wrote there are done, and this row is one task's.
                            unsafe { std::slice::from_raw_parts_mut(shares_at.at(at), hd) }
                        };
                        let sum = share_of(kv * d.ratio());
                        for h in kv * d.ratio() + 1..(kv + 1) * d.ratio() {
                            axpy(sum, R::Acc::ONE, share_of(h));
                        }
                        scaled(place(row, head), sum, R::Acc::ONE);
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
        let rows = tiled(segments);
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
                let rows = tiled(&segments);
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
