//! Softmax attention over groups with a shared prompt, in blocks of query rows.
//!
//! A task holds the scores of [`BLOCK`] query rows of one head at a time: memory grows with the length, not with
//! its square, and of the scores only the log-sum-exp of each row is kept for the backward.

use crate::gemm::{Band, HasKernel, Init, Operand, PANEL, Shape, gemm_band};
use crate::real::{Real, Scalar, max, sum};
use crate::simd::simd;
use crate::sync::{Pool, SyncPtr};
use duel_backend::{Heads, Segment};

/// Query rows whose scores are held at a time: a multiple of every kernel's rows.
const BLOCK: usize = 96;

simd! {
    /// `p = exp(scale · s - max)` over the row, unnormalised; returns the sum and the log-sum-exp of `scale · s`.
    pub fn softmax_row<S: Scalar>(row: &mut [S], scale: S) -> (S, S) {
        let top = max(row) * scale;
        for x in row.iter_mut() {
            *x = (*x * scale - top).exp();
        }
        let total = sum([row], |[p]| p);
        (total, top + total.ln())
    }

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

    /// `out = x · factor`, rounded to the storage type.
    pub fn scaled<R: Real>(out: &mut [R], x: &[R::Acc], factor: R::Acc) {
        for (out, &x) in out.iter_mut().zip(x) {
            *out = R::down(x * factor);
        }
    }

    /// Dot product of two vectors of one length.
    pub fn dot<R: Real>(a: &[R], b: &[R]) -> R::Acc {
        sum([a, b], |[a, b]| a.up() * b.up())
    }

    /// `out += p · v`.
    pub fn axpy<R: Real>(out: &mut [R::Acc], p: R::Acc, v: &[R]) {
        for (out, v) in out.iter_mut().zip(v) {
            *out += p * v.up();
        }
    }
}

/// A matrix of packed rows, seen one head at a time.
#[derive(Clone, Copy)]
struct Columns<'a, R> {
    data: &'a [R],
    width: usize,
    head_dim: usize,
}

impl<'a, R: Real> Columns<'a, R> {
    /// Head `head` (counted over the whole row) from row `row` on.
    fn head(self, head: usize, row: usize) -> Operand<'a, R> {
        Operand { data: &self.data[row * self.width + head * self.head_dim..], rs: self.width, cs: 1 }
    }
    /// The vector of one row and head.
    fn vector(self, head: usize, row: usize) -> &'a [R] {
        &self.data[row * self.width + head * self.head_dim..][..self.head_dim]
    }
}

fn transposed<T>(x: Operand<T>) -> Operand<T> {
    Operand { rs: x.cs, cs: x.rs, ..x }
}

/// Query rows `from..to` of a segment, and the two runs of rows whose keys they see: `(first row, count)`.
#[derive(Clone, Copy)]
struct Block {
    segment: Segment,
    from: usize,
    to: usize,
    runs: [(usize, usize); 2],
}

impl Block {
    fn of(segment: Segment) -> impl Iterator<Item = Block> {
        (0..segment.len).step_by(BLOCK).map(move |from| {
            let to = (from + BLOCK).min(segment.len);
            let runs = [(segment.prefix_start, segment.prefix_len), (segment.start, to)];
            Block { segment, from, to, runs }
        })
    }
    fn rows(self) -> usize {
        self.to - self.from
    }
    /// Row number in the batch of query row `i` of the block.
    fn row(self, i: usize) -> usize {
        self.segment.start + self.from + i
    }
    /// Keys of the block's last row: the width of its score matrix.
    fn keys(self) -> usize {
        self.segment.prefix_len + self.to
    }
    /// Keys that query row `i` of the block sees.
    fn visible(self, i: usize) -> usize {
        self.segment.prefix_len + self.from + i + 1
    }
    /// The runs with their places among the keys, and how far the causal mask reaches: the segment's own keys are seen
    /// up to this many places beyond the query's number in the block.
    fn places(self) -> impl Iterator<Item = (usize, usize, usize, Option<usize>)> {
        let [(prefix, before), (own, n)] = self.runs;
        [(prefix, before, 0, None), (own, n, before, Some(self.from))].into_iter().filter(|place| place.1 > 0)
    }
    /// `out[rows, keys] = x · y(first row of a run)ᵀ`, run beside run; undefined where masked.
    fn scores<'a, S: HasKernel, R: Real<Acc = S>>(
        self,
        serial: &Pool,
        out: &mut [S],
        x: Operand<R>,
        k: usize,
        y: impl Fn(usize) -> Operand<'a, R>,
    ) {
        for (row, n, at, edge) in self.places() {
            let shape = Shape { m: self.rows(), n, k, ldc: self.keys() };
            let band = edge.map_or(Band::Full, |edge| Band::Result { edge });
            gemm_band(serial, shape, band, &mut out[at..], x, y(row), Init::Zero);
        }
    }
    /// Zeros behind the visible part of a row, as far as products of its block look.
    fn mask<S: Scalar>(masked: &mut [S]) {
        let n = PANEL.min(masked.len());
        masked[..n].fill(S::ZERO);
    }
    /// `out[rows, width] = weights[rows, keys] · y`, run after run.
    fn weighted<'a, S: HasKernel, R: Real<Acc = S>>(
        self,
        serial: &Pool,
        out: &mut [S],
        weights: &[S],
        width: usize,
        y: impl Fn(usize) -> Operand<'a, R>,
    ) {
        let mut init = Init::Zero;
        for (row, k, at, edge) in self.places() {
            let w = Operand { data: &weights[at..], rs: self.keys(), cs: 1 };
            let shape = Shape { m: self.rows(), n: width, k, ldc: width };
            let band = edge.map_or(Band::Full, |edge| Band::Left { edge });
            gemm_band(serial, shape, band, out, w, transposed(y(row)), init);
            init = Init::Keep;
        }
    }
    /// `out(first row of a run)[keys, width] += weights[rows, keys]ᵀ · y[rows, width]`, for the keys of every run.
    fn collect<S: HasKernel, R: Real<Acc = S>>(
        self,
        serial: &Pool,
        out: &mut [S],
        first: usize,
        weights: &[S],
        width: usize,
        y: Operand<R>,
    ) {
        for (row, n, at, edge) in self.places() {
            let w = transposed(Operand { data: &weights[at..], rs: self.keys(), cs: 1 });
            let shape = Shape { m: n, n: width, k: self.rows(), ldc: width };
            let band = edge.map_or(Band::Full, |edge| Band::LeftTransposed { edge });
            let out = &mut out[(row - first) * width..];
            gemm_band(serial, shape, band, out, w, transposed(y), Init::Keep);
        }
    }
}

fn take<'a, S: Scalar>(scratch: &'a mut Vec<S>, sizes: &[usize]) -> Vec<&'a mut [S]> {
    let total = sizes.iter().sum();
    if scratch.len() < total {
        scratch.resize(total, S::ZERO);
    }
    let mut rest = &mut scratch[..total];
    sizes
        .iter()
        .map(|&n| {
            let (part, tail) = std::mem::take(&mut rest).split_at_mut(n);
            rest = tail;
            part
        })
        .collect()
}

/// Number of rows, which the segments tile in order: no two tasks then meet.
fn tiled(segments: &[Segment]) -> usize {
    segments.iter().fold(0, |rows, s| {
        let before = s.prefix_start + s.prefix_len <= s.start;
        assert!(
            s.start == rows && (s.prefix_len == 0 || before),
            "segments must tile the rows behind their prefixes"
        );
        rows + s.len
    })
}

pub fn forward<R: Real>(
    pool: &Pool,
    o: &mut [R],
    lse: &mut [R::Acc],
    qkv: &[R],
    segments: &[Segment],
    d: Heads,
) where
    R::Acc: HasKernel,
{
    let (hd, heads) = (d.head_dim, d.heads);
    let scale = R::Acc::of(d.scale());
    let c = Columns { data: qkv, width: d.qkv_width(), head_dim: hd };
    let rows = tiled(segments);
    assert!(o.len() >= rows * d.q_width() && lse.len() >= rows * heads, "output shorter than the rows");
    let (o, lse) = (SyncPtr::new(o), SyncPtr::new(lse));
    let serial = Pool::new(1);
    let blocks: Vec<Block> = segments.iter().flat_map(|&s| Block::of(s)).collect();
    pool.tasks(blocks.len() * heads, |task| {
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

/// A prompt with its responses: the rows whose keys collect each other's gradients.
struct Group<'a> {
    segments: &'a [Segment],
    start: usize,
    rows: usize,
}

fn groups(segments: &[Segment]) -> impl Iterator<Item = Group<'_>> {
    segments.chunk_by(|_, next| next.prefix_len > 0).map(|segments| {
        let start = segments[0].start;
        let last = segments[segments.len() - 1];
        Group { segments, start, rows: last.start + last.len - start }
    })
}

/// One task a group and query head: it owns the gradient of those queries, and sums its share of the gradients of the
/// keys and values that they read. The shares of the query heads that read one key/value head are added up in order.
pub fn backward<R: Real>(
    pool: &Pool,
    dqkv: &mut [R],
    dout: &[R],
    o: &[R],
    lse: &[R::Acc],
    qkv: &[R],
    segments: &[Segment],
    d: Heads,
) where
    R::Acc: HasKernel,
{
    let (hd, heads, width) = (d.head_dim, d.heads, d.qkv_width());
    let scale = R::Acc::of(d.scale());
    let c = Columns { data: qkv, width, head_dim: hd };
    let (g, out) = (
        Columns { data: dout, width: d.q_width(), head_dim: hd },
        Columns { data: o, width: d.q_width(), head_dim: hd },
    );
    let rows = tiled(segments);
    assert!(dqkv.len() >= rows * width, "output shorter than the rows");
    let dqkv = SyncPtr::new(dqkv);
    let place = |row: usize, head: usize| {
        // SAFETY: the row lies in dqkv (asserted), and each task below owns the rows and heads that it asks for.
        unsafe { std::slice::from_raw_parts_mut(dqkv.at(row * width + head * hd), hd) }
    };
    let serial = Pool::new(1);
    let groups: Vec<Group> = groups(segments).collect();
    R::Acc::with_shared(|shared| {
        // For each query head the gradients of keys, then of values, of all rows.
        let share = rows * hd;
        let [shares] = take(shared, &[2 * heads * share]).try_into().unwrap_or_else(|_| unreachable!());
        let shares_at = SyncPtr::new(shares);
        pool.tasks(groups.len() * heads, |task| {
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
        pool.ranges(rows, 1, usize::MAX, |range| {
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

/// Attention of one query row a sequence to its cache: a matrix-vector product a head, bound by memory.
pub fn cached<R: Real>(
    pool: &Pool,
    o: &mut [R],
    qkv: &[R],
    (keys, values): (&[R], &[R]),
    bases: &[u32],
    lens: &[u32],
    rows: usize,
    d: Heads,
) {
    let (hd, kv_width) = (d.head_dim, d.kv_width());
    let scale = R::Acc::of(d.scale());
    pool.rows(o, rows * d.heads, hd, |task, out| {
        let (r, h) = (task / d.heads, task % d.heads);
        let kv = h / d.ratio();
        let (base, len) = (bases[r] as usize, lens[r] as usize);
        let q = &qkv[r * d.qkv_width() + h * hd..][..hd];
        R::Acc::with_scratch(|scratch| {
            let [s, sums] = take(scratch, &[len, hd]).try_into().unwrap_or_else(|_| unreachable!());
            for (t, s) in s.iter_mut().enumerate() {
                *s = dot(q, &keys[(base + t) * kv_width + kv * hd..][..hd]);
            }
            let (total, _) = softmax_row(s, scale);
            sums.fill(R::Acc::ZERO);
            for (t, &p) in s.iter().enumerate() {
                axpy(sums, p, &values[(base + t) * kv_width + kv * hd..][..hd]);
            }
            scaled(out, sums, R::Acc::ONE / total);
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

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
                    let pool = Pool::new(threads);
                    let (mut o, mut lse) = (vec![f64::NAN; want_o.len()], vec![f64::NAN; rows * d.heads]);
                    let mut dqkv = vec![f64::NAN; want_dqkv.len()];
                    forward(&pool, &mut o, &mut lse, &qkv, &segments, d);
                    backward(&pool, &mut dqkv, &dout, &o, &lse, &qkv, &segments, d);
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
