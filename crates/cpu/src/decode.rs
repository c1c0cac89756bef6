//! Attention of one query row a sequence to its cache, bound by memory.
//!
//! A run of cache rows is cut into pieces of [`PIECE`] rows from its beginning on. A piece is read once, for all heads
//! and for all neighbouring rows that see its run, and leaves of each of them a softmax of its own; those of a row are
//! joined in order. So the bits of a row depend on its runs alone: on no other row, and on no number of threads. Of
//! what its window has passed a row has no piece, and in the piece where the window begins weights of 0.

use crate::Cpu;
use crate::attention::{Cap, factor_and_cap};
use crate::prefetch::prefetch_far;
use crate::real::{Real, Scalar, joined, max, sum, take};
use crate::simd::simd;
use crate::softmax::{axpy, scaled};
use crate::sync::SyncPtr;
use duel_backend::{Decode, Heads, Scores};
use std::ops::Range;

/// Cache rows of a piece.
const PIECE: usize = 64;
/// Cache rows that every head takes before the next: some KB that lie together.
const STEP: usize = 8;
/// Partial sums of a score, and columns of an output that are summed at a time.
const LANES: usize = 16;
/// Elements of keys and values that are not worth a second thread.
const SMALL: usize = 1 << 15;
/// Numbers beside the output of a head's share: the largest score, and the sum of the exponentials.
const STATS: usize = 2;

/// A run of cache rows, and how many of the first are before the window.
#[derive(Clone, Copy)]
struct Run {
    first: usize,
    len: usize,
    hidden: usize,
}

/// Both runs of a row.
fn runs_of(&[first, len, own_first, own_len]: &[u32; 4], scores: Scores) -> [Run; 2] {
    let [first, len, own_first, own_len] = [first, len, own_first, own_len].map(|n| n as usize);
    let passed = (len + own_len).checked_sub(1).map_or(0, |position| scores.passed(position));
    let hidden = passed.min(len);
    [Run { first, len, hidden }, Run { first: own_first, len: own_len, hidden: passed - hidden }]
}

/// A piece of a run.
struct Piece {
    /// The rows that see some of it.
    rows: Range<usize>,
    /// Which of the runs of a row it is of.
    run: usize,
    /// The first row of the run that it has.
    at: usize,
    /// Its number among the pieces of each row.
    number: usize,
    first: usize,
    len: usize,
}

/// The pieces of all runs, and of each row where its shares begin, counted in rows of shares; the last is their number.
fn pieces(runs: &[[Run; 2]]) -> (Vec<Piece>, Vec<usize>) {
    let (mut pieces, mut starts) = (Vec::new(), vec![0]);
    // Pieces begin at multiples of their length, wherever the window does.
    let mut cut = |rows: Range<usize>, number: usize, which: usize| {
        let Run { first, len, hidden } = runs[rows.start][which];
        let from = if hidden < len { hidden - hidden % PIECE } else { len };
        let offsets = (from..len).step_by(PIECE).enumerate();
        pieces.extend(offsets.map(|(i, at)| Piece {
            rows: rows.clone(),
            run: which,
            at,
            number: number + i,
            first: first + at,
            len: PIECE.min(len - at),
        }));
        number + (len - from).div_ceil(PIECE)
    };
    let mut row = 0;
    let begin = |[run, _]: &[Run; 2]| (run.first, run.len, run.hidden / PIECE, run.hidden == run.len);
    for group in runs.chunk_by(|a, b| begin(a) == begin(b)) {
        let shared = cut(row..row + group.len(), 0, 0);
        for _ in group {
            let number = cut(row..row + 1, shared, 1);
            assert!(number > 0, "row {row} sees nothing of the cache");
            starts.push(starts[row] + number);
            row += 1;
        }
    }
    (pieces, starts)
}

/// Scores of some queries of one key head: `scores[query, PIECE]` for cache rows that lie `stride` apart.
fn scores<R: Real>(scores: &mut [R::Acc], queries: &[&[R]], keys: &[R], stride: usize) {
    #[cfg(target_arch = "x86_64")]
    if R::DTYPE == duel_backend::Dtype::F32 && crate::simd::isa() != crate::simd::Isa::Baseline {
        // SAFETY: R is f32, and so is what it sums in; `isa` found AVX2 and FMA.
        unsafe {
            let scores = std::slice::from_raw_parts_mut(scores.as_mut_ptr().cast(), scores.len());
            let queries = std::slice::from_raw_parts(queries.as_ptr().cast(), queries.len());
            let keys = std::slice::from_raw_parts(keys.as_ptr().cast(), keys.len());
            return crate::dots::scores(scores, PIECE, queries, keys, stride);
        }
    }
    scores_anywhere(scores, queries, keys, stride);
}

simd! {
    /// [`scores`] in any type and on any machine.
    pub fn scores_anywhere<R: Real>(scores: &mut [R::Acc], queries: &[&[R]], keys: &[R], stride: usize) {
        for (scores, queries) in scores.chunks_mut(4 * PIECE).zip(queries.chunks(4)) {
            match *queries {
                [a] => scores_of(scores, [a], keys, stride),
                [a, b] => scores_of(scores, [a, b], keys, stride),
                [a, b, c] => scores_of(scores, [a, b, c], keys, stride),
                [a, b, c, d] => scores_of(scores, [a, b, c, d], keys, stride),
                _ => unreachable!("chunks of four"),
            }
        }
    }

    /// Products to scores.
    pub fn cap<S: Scalar>(row: &mut [S], cap: Cap<S>) {
        row.iter_mut().for_each(|s| *s = cap.of(*s));
    }

    /// `s = exp(scale · s - largest)` over a row; returns the largest, scaled, and the sum.
    pub fn exponentials<S: Scalar>(row: &mut [S], scale: S) -> (S, S) {
        let top = max(row) * scale;
        for x in row.iter_mut() {
            *x = (*x * scale - top).exp();
        }
        (top, sum([row], |[p]| p))
    }

    /// `out[query, head_dim] += weights[query, PIECE] · values`, for cache rows that lie `stride` apart.
    pub fn weigh<R: Real>(out: &mut [R::Acc], weights: &[R::Acc], values: &[R], stride: usize, head_dim: usize) {
        // Three queries and 32 columns are as many sums as AVX2 has registers for.
        for (out, weights) in out.chunks_mut(3 * head_dim).zip(weights.chunks(3 * PIECE)) {
            match out.len() / head_dim {
                1 => weigh_of::<R, 1, 64>(out, weights, values, stride, head_dim),
                2 => weigh_of::<R, 2, 32>(out, weights, values, stride, head_dim),
                _ => weigh_of::<R, 3, 32>(out, weights, values, stride, head_dim),
            }
        }
    }
}

/// [`scores_anywhere`] of `N` queries. Each is summed in [`LANES`] partial sums, whatever `N` is.
#[inline(always)]
fn scores_of<R: Real, const N: usize>(scores: &mut [R::Acc], queries: [&[R]; N], keys: &[R], stride: usize) {
    let head_dim = queries[0].len();
    let whole = head_dim / LANES;
    let blocks = queries.map(|q| &q.as_chunks::<LANES>().0[..whole]);
    for (t, key) in keys.chunks(stride).enumerate() {
        let (key, rest) = key[..head_dim].as_chunks::<LANES>();
        let mut sums = [[R::Acc::ZERO; LANES]; N];
        for (c, k) in key[..whole].iter().enumerate() {
            for (sums, q) in sums.iter_mut().zip(&blocks) {
                let q = &q[c];
                for lane in 0..LANES {
                    sums[lane] += q[lane].up() * k[lane].up();
                }
            }
        }
        for (i, sums) in sums.iter_mut().enumerate() {
            for ((sum, q), k) in sums.iter_mut().zip(&queries[i][whole * LANES..]).zip(rest) {
                *sum += q.up() * k.up();
            }
            scores[i * PIECE + t] = joined(*sums);
        }
    }
}

/// [`weigh`] of `N` queries, of which the sums of `WIDE` columns, then those of [`LANES`], stay in registers.
#[inline(always)]
fn weigh_of<R: Real, const N: usize, const WIDE: usize>(
    out: &mut [R::Acc],
    weights: &[R::Acc],
    values: &[R],
    stride: usize,
    head_dim: usize,
) {
    let rows = values.len().div_ceil(stride);
    let weights: [&[R::Acc]; N] = std::array::from_fn(|i| &weights[i * PIECE..][..rows]);
    let (wide, whole) = (head_dim - head_dim % WIDE, head_dim - head_dim % LANES);
    for c in (0..wide).step_by(WIDE) {
        weigh_columns::<R, N, WIDE>(out, weights, values, stride, head_dim, c);
    }
    for c in (wide..whole).step_by(LANES) {
        weigh_columns::<R, N, LANES>(out, weights, values, stride, head_dim, c);
    }
    for (i, weights) in weights.iter().enumerate() {
        for (t, value) in values.chunks(stride).enumerate() {
            for (out, v) in out[i * head_dim..][whole..head_dim].iter_mut().zip(&value[whole..]) {
                *out += weights[t] * v.up();
            }
        }
    }
}

/// Columns `c` to `c + WIDE` of [`weigh_of`].
#[inline(always)]
fn weigh_columns<R: Real, const N: usize, const WIDE: usize>(
    out: &mut [R::Acc],
    weights: [&[R::Acc]; N],
    values: &[R],
    stride: usize,
    head_dim: usize,
    c: usize,
) {
    let mut sums = [[R::Acc::ZERO; WIDE]; N];
    for (i, sums) in sums.iter_mut().enumerate() {
        sums.copy_from_slice(&out[i * head_dim + c..][..WIDE]);
    }
    for t in 0..weights[0].len() {
        let value = &values[t * stride + c..][..WIDE];
        for (sums, weights) in sums.iter_mut().zip(&weights) {
            let p = weights[t];
            for lane in 0..WIDE {
                sums[lane] += p * value[lane].up();
            }
        }
    }
    for (i, sums) in sums.iter().enumerate() {
        out[i * head_dim + c..][..WIDE].copy_from_slice(sums);
    }
}

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
        how: Scores,
    ) {
        let (hd, heads, ratio, kv_width) = (d.head_dim, d.heads, d.ratio(), d.kv_width());
        let (scale, capped) = factor_and_cap(how);
        let runs: Vec<_> = runs.as_chunks().0[..rows].iter().map(|run| runs_of(run, how)).collect();
        let (pieces, starts) = pieces(&runs);
        // Of each head: the output, not divided, and its statistics.
        let share = hd + STATS;
        let query = |row: usize, head: usize| &qkv[row * d.qkv_width() + head * hd..][..hd];
        R::Acc::with_shared(|shared| {
            let [shares] =
                take(shared, &[starts[rows] * heads * share]).try_into().unwrap_or_else(|_| unreachable!());
            let shares_at = SyncPtr::new(shares);
            let attend = |i: usize| {
                let piece: &Piece = &pieces[i];
                // By key head, by row, by query head of the key head.
                let order =
                    (0..d.kv_heads).flat_map(|kv| piece.rows.clone().map(move |row| (row, kv * ratio)));
                let order = order.flat_map(|(row, head)| (head..head + ratio).map(move |head| (row, head)));
                let queries: Vec<&[R]> = order.clone().map(|(row, head)| query(row, head)).collect();
                let of_kv = piece.rows.len() * ratio;
                // Of this piece; what all rows have passed is not read.
                let hidden = |row: usize| runs[row][piece.run].hidden.saturating_sub(piece.at);
                let least = piece.rows.clone().map(hidden).min().unwrap_or_default();
                let seen = piece.first + least..piece.first + piece.len;
                let cached = seen.start * kv_width..seen.end * kv_width;
                // Each head of a step asks for its share of what is read after all steps: their order is no stream that
                // a machine sees.
                let soon = |cache: &[R], of: &Range<usize>, step: usize, kv: usize| {
                    let rows = of.len().saturating_sub(step * STEP).min(STEP);
                    let from = (of.start + step * STEP) * kv_width + kv * rows * hd;
                    prefetch_far(cache.as_ptr().wrapping_add(from), rows * hd);
                };
                let next = pieces.get(i + 1).map_or(0..0, |next| next.first..next.first + next.len);
                R::Acc::with_scratch(|scratch| {
                    let sizes = [queries.len() * PIECE, queries.len() * hd];
                    let [s, out] = take(scratch, &sizes).try_into().unwrap_or_else(|_| unreachable!());
                    for (step, part) in keys[cached.clone()].chunks(STEP * kv_width).enumerate() {
                        for (kv, queries) in queries.chunks(of_kv).enumerate() {
                            let s = &mut s[kv * of_kv * PIECE..][..of_kv * PIECE];
                            soon(values, &seen, step, kv);
                            scores(&mut s[least + step * STEP..], queries, &part[kv * hd..], kv_width);
                        }
                    }
                    out.fill(R::Acc::ZERO);
                    let weights = |(s, (row, _)): (&mut [R::Acc], (usize, usize))| {
                        let (hidden, seen) = s[..piece.len].split_at_mut(hidden(row));
                        hidden.fill(R::Acc::ZERO);
                        if let Some(of) = capped {
                            cap(seen, of);
                        }
                        exponentials(seen, scale)
                    };
                    let stats: Vec<_> = s.chunks_mut(PIECE).zip(order.clone()).map(weights).collect();
                    for (step, part) in values[cached.clone()].chunks(STEP * kv_width).enumerate() {
                        for (kv, out) in out.chunks_mut(of_kv * hd).enumerate() {
                            let s = &s[kv * of_kv * PIECE..][..of_kv * PIECE];
                            soon(keys, &next, step, kv);
                            weigh(out, &s[least + step * STEP..], &part[kv * hd..], kv_width, hd);
                        }
                    }
                    for (((row, head), out), (top, total)) in order.zip(out.chunks(hd)).zip(stats) {
                        let at = ((starts[row] + piece.number) * heads + head) * share;
                        // SAFETY: each share lies in `shares`, which has room for all, and is one piece's.
                        let to = unsafe { std::slice::from_raw_parts_mut(shares_at.at(at), share) };
                        to[..hd].copy_from_slice(out);
                        to[hd..].copy_from_slice(&[top, total]);
                    }
                });
            };
            let work = 2 * kv_width * pieces.iter().map(|p| p.len).sum::<usize>();
            if work < SMALL {
                (0..pieces.len()).for_each(attend);
            } else {
                self.pool.tasks(pieces.len(), attend);
            }
            let shares = &*shares;
            self.pool.rows(o, rows * heads, hd, |task, out| {
                let (row, head) = (task / heads, task % heads);
                let of_head = (starts[row]..starts[row + 1])
                    .map(|piece| shares[(piece * heads + head) * share..][..share].split_at(hd));
                let top = of_head.clone().map(|(_, stats)| stats[0]);
                let top = top.fold(R::Acc::LOWEST, |a, b| if b > a { b } else { a });
                R::Acc::with_scratch(|scratch| {
                    let [sums] = take(scratch, &[hd]).try_into().unwrap_or_else(|_| unreachable!());
                    sums.fill(R::Acc::ZERO);
                    let mut total = R::Acc::ZERO;
                    for (part, stats) in of_head {
                        let factor = (stats[0] - top).exp();
                        total += stats[1] * factor;
                        axpy(sums, factor, part);
                    }
                    scaled(out, sums, R::Acc::ONE / total);
                });
            });
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(n: usize, step: f64) -> Vec<f32> {
        (0..n).map(|i| (i as f64 * step).sin() as f32).collect()
    }

    /// Rows of the cache in the tests below.
    const CACHED: usize = 700;

    fn run<R: Real>(threads: usize, runs: &[[u32; 4]], queries: &[f32], d: Heads, scores: Scores) -> Vec<R> {
        let of = |x: Vec<f32>| x.into_iter().map(|x| R::from_f32(x)).collect::<Vec<R>>();
        let (keys, values) = (of(wave(CACHED * d.kv_width(), 0.7)), of(wave(CACHED * d.kv_width(), 1.3)));
        let mut o = vec![R::from_f32(f32::NAN); runs.len() * d.q_width()];
        let qkv = of(queries.to_vec());
        let runs = runs.as_flattened().to_vec();
        let b = Cpu::<R>::new(threads);
        b.attention_cached(&mut o, &qkv, &keys, &values, &runs, runs.len() / 4, d, scores);
        o
    }

    /// One row around the edges of a piece and of a step, shared prefixes, and numbers of heads and columns that no
    /// block divides.
    const RUNS: [[u32; 4]; 13] = [
        [0, 0, 5, 1],
        [0, 0, 600, 64],
        [3, 65, 0, 0],
        [40, 63, 300, 200],
        [40, 63, 20, 9],
        [40, 63, 0, 0],
        [40, 63, 699, 1],
        [40, 63, 1, 128],
        [40, 64, 2, 129],
        [40, 64, 2, 129],
        [0, 0, 0, 700],
        [1, 300, 350, 300],
        [1, 300, 320, 8],
    ];
    const HEADS: [Heads; 5] = [
        Heads { heads: 9, kv_heads: 3, head_dim: 64 },
        Heads { heads: 2, kv_heads: 2, head_dim: 16 },
        Heads { heads: 5, kv_heads: 1, head_dim: 10 },
        Heads { heads: 4, kv_heads: 2, head_dim: 40 },
        Heads { heads: 8, kv_heads: 1, head_dim: 5 },
    ];

    /// Windows around the edges of a piece, a step and a run, with a cap and without.
    fn all_scores(d: Heads) -> impl Iterator<Item = Scores> {
        let windows = [1, 2, 63, 64, 65, 128, 201, 263, 600].map(Some);
        let windows = windows.into_iter().chain([None]);
        windows.flat_map(move |window| [None, Some(0.8)].map(|cap| Scores { cap, window, ..d.scores() }))
    }

    #[test]
    fn rows_match_the_plain_sums() {
        for (d, scores) in HEADS.into_iter().flat_map(|d| all_scores(d).map(move |scores| (d, scores))) {
            let qkv = wave(RUNS.len() * d.qkv_width(), 0.9);
            let got = run::<f64>(2, &RUNS, &qkv, d, scores);
            let (keys, values) = (wave(CACHED * d.kv_width(), 0.7), wave(CACHED * d.kv_width(), 1.3));
            for (row, &[prefix, before, own, len]) in RUNS.iter().enumerate() {
                let passed = scores.passed((before + len) as usize - 1);
                let seen = || (prefix..prefix + before).chain(own..own + len).skip(passed);
                for h in 0..d.heads {
                    let at = |t: u32, c: usize| t as usize * d.kv_width() + h / d.ratio() * d.head_dim + c;
                    let q = |c: usize| f64::from(qkv[row * d.qkv_width() + h * d.head_dim + c]);
                    let weights = seen().map(|t| {
                        let score = (0..d.head_dim).map(|c| q(c) * f64::from(keys[at(t, c)])).sum::<f64>();
                        let score = score * scores.scale;
                        scores.cap.map_or(score, |c| c * (score / c).tanh()).exp()
                    });
                    let weights: Vec<f64> = weights.collect();
                    for c in 0..d.head_dim {
                        let sum: f64 =
                            seen().zip(&weights).map(|(t, w)| w * f64::from(values[at(t, c)])).sum();
                        let want = sum / weights.iter().sum::<f64>();
                        let got = got[row * d.q_width() + h * d.head_dim + c];
                        // Sums of at most 700 terms, weights that carry the error of their scores.
                        assert!(
                            (got - want).abs() < 1e4 * f64::EPSILON,
                            "row {row} head {h}: {got} not {want}"
                        );
                    }
                }
            }
        }
    }

    /// Rows that the window of every query has passed may hold anything.
    #[test]
    fn what_a_window_has_passed_is_not_read() {
        let d = HEADS[1];
        let scores = Scores { window: Some(70), ..d.scores() };
        let (qkv, b) = (wave(2 * d.qkv_width(), 0.9), Cpu::<f32>::new(1));
        // The first ends at position 199 and the second at 195: neither sees one before 126 of the shared run.
        let runs = vec![0, 150, 300, 50, 0, 150, 400, 46];
        let of = |passed: f32| {
            let [mut keys, mut values] = [0.7, 1.3].map(|step| wave(CACHED * d.kv_width(), step));
            for cache in [&mut keys, &mut values] {
                cache[..126 * d.kv_width()].fill(passed);
            }
            let mut o = vec![f32::NAN; 2 * d.q_width()];
            b.attention_cached(&mut o, &qkv, &keys, &values, &runs, 2, d, scores);
            o
        };
        assert_eq!(of(f32::NAN), of(0.0));
    }

    #[test]
    fn a_row_depends_on_nothing_but_its_runs() {
        for (d, scores) in HEADS.into_iter().flat_map(|d| all_scores(d).map(move |scores| (d, scores))) {
            let qkv = wave(RUNS.len() * d.qkv_width(), 0.9);
            let all = run::<f32>(1, &RUNS, &qkv, d, scores);
            assert_eq!(run::<f32>(3, &RUNS, &qkv, d, scores), all, "threads, {scores:?}");
            for row in 0..RUNS.len() {
                let own = &qkv[row * d.qkv_width()..][..d.qkv_width()];
                let alone = run::<f32>(2, &RUNS[row..=row], own, d, scores);
                let here = &all[row * d.q_width()..][..d.q_width()];
                assert_eq!(alone[..], *here, "row {row} alone, {d:?}, {scores:?}");
            }
        }
    }
}
