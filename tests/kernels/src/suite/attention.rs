//! Attention.

use super::{check_both, for_random};
use crate::{Bench, Devices, Operation};
use duel_backend::{Backend, Element, Float, Heads, Layout, Scores, Segment};
use duel_cuda::{Cuda, CudaReal};
use duel_tests::{Random, host};
use half::bf16;
use proptest::prelude::*;

/// Inputs of up to this size leave weight to several keys.
const SOFT: f64 = 2.0;

/// Rows of a prompt and of each of its responses.
type Group = (usize, Vec<usize>);

fn upload<B: Backend, T: Element>(b: &B, values: &[T]) -> B::Buf<T> {
    let mut buf = b.alloc(values.len()).expect("room for a test");
    b.upload(&mut buf, 0, values);
    buf
}

/// The segments of groups, packed end to end. Responses without a prompt are prompts themselves.
fn packed(groups: &[Group]) -> Vec<Segment> {
    let mut segments = Vec::new();
    let mut start = 0;
    for (prompt, responses) in groups {
        segments.push(Segment { start, len: *prompt, prefix_start: start, prefix_len: 0 });
        let prefix_start = start;
        start += prompt;
        for &len in responses {
            segments.push(Segment { start, len, prefix_start, prefix_len: *prompt });
            start += len;
        }
    }
    segments
}

/// The forward and, with its outputs, the backward.
#[derive(Debug)]
struct Attention {
    dims: Heads,
    scores: Scores,
    groups: Vec<Group>,
    /// Of the largest query, key and value.
    scale: f64,
}

impl Attention {
    fn new((heads, kv_heads, head_dim): (usize, usize, usize), groups: &[(usize, &[usize])]) -> Self {
        let groups = groups.iter().map(|(prompt, responses)| (*prompt, responses.to_vec())).collect();
        let dims = Heads { heads, kv_heads, head_dim };
        Attention { dims, scores: dims.scores(), groups, scale: SOFT }
    }
}

impl Operation for Attention {
    fn name(&self) -> String {
        let Attention { dims, scores, groups, scale } = self;
        format!("attention {dims:?}, {scores:?}, groups {groups:?}, inputs to {scale:e}")
    }

    fn run<B: Backend>(&self, b: &B, bench: &mut Bench) {
        let d = self.dims;
        let segments = packed(&self.groups);
        let rows = segments.last().map_or(0, |s| s.start + s.len);
        let mut layout = Layout::new(b, rows).expect("room for a test");
        layout.set(b, &vec![0; rows], segments);
        let qkv = bench.real(b, rows * d.qkv_width(), self.scale);
        let dout = bench.real(b, rows * d.q_width(), 1.0);
        let mut o = bench.output(b, rows * d.q_width());
        let mut lse = bench.output(b, rows * d.heads);
        let mut dqkv = bench.output(b, rows * d.qkv_width());
        b.attention(&mut o, &mut lse, &qkv, &layout, d, self.scores);
        b.attention_bw(&mut dqkv, &dout, &o, &lse, &qkv, &layout, d, self.scores);
        bench.done(b, "o", &o, d.head_dim);
        // Scores can cancel to a log-sum-exp of about 0: the scale is that of all of them.
        bench.done(b, "lse", &lse, rows * d.heads);
        // A query that sees one key has no gradient: the scale is that of the row with its key and value. Where one
        // key takes all that a query sees, its gradient is the rounding of two sums that cancel, and a row whose key
        // nobody takes has nothing else: the scale is that of all rows.
        let row = if self.scale > SOFT { rows } else { 1 };
        bench.done(b, "dqkv", &dqkv, row * d.qkv_width());
    }
}

/// `attention` and `attention_bw`.
pub fn attention(devices: &impl Devices) {
    let cases = [
        // One row; one group of each number of responses; widths from 8 to 256, also odd ones.
        Attention::new((1, 1, 8), &[(1, &[])]),
        Attention::new((2, 2, 64), &[(1, &[1])]),
        Attention::new(
            (8, 1, 40),
            &[(5, &[3, 9]), (1, &[1, 1, 2]), (17, &[4, 16, 1, 15]), (2, &[6, 5, 4, 3, 2])],
        ),
        Attention::new((3, 1, 80), &[(33, &[40, 7]), (9, &[70])]),
        Attention::new((2, 1, 256), &[(20, &[17, 1, 16]), (16, &[])]),
        Attention::new((3, 3, 10), &[(19, &[21])]),
        // Exactly a tile, one past it, one short, for every size of tile.
        Attention::new((1, 1, 64), &[(128, &[64, 65, 63])]),
        Attention::new((3, 1, 64), &[(129, &[127]), (192, &[193])]),
        Attention::new((1, 1, 128), &[(128, &[129, 32, 33])]),
        Attention::new((3, 1, 128), &[(65, &[64, 130])]),
        // No prompt, no response, and empty segments between others.
        Attention::new((2, 1, 64), &[(0, &[70, 3]), (40, &[0, 66, 0]), (0, &[]), (3, &[0])]),
        Attention::new((2, 2, 128), &[(0, &[0, 5]), (67, &[0, 0, 70])]),
    ];
    for case in &cases {
        check_both(devices, case);
    }
    // A scale of its own, and a window that no sequence leaves.
    for dims in [(2, 1, 64), (1, 1, 24)] {
        let scores = Scores { scale: 0.3, cap: None, window: Some(107) };
        check_both(devices, &Attention { scores, ..Attention::new(dims, &[(37, &[70, 5])]) });
    }
    // Scores of some hundreds, where a bare exponential overflows, and of 10^9, where one key takes all.
    for scale in [12.0, 1e4] {
        for dims in [(2, 1, 64), (1, 1, 128), (1, 1, 24)] {
            check_both(devices, &Attention { scale, ..Attention::new(dims, &[(37, &[70, 5])]) });
        }
    }
}

/// `attention` and `attention_bw` over layouts at random.
pub fn attention_of_random_layouts(devices: &impl Devices) {
    let dims =
        (1usize..3, prop::sample::select(vec![1usize, 2, 3]), prop::sample::select(vec![8usize, 64, 128]))
            .prop_map(|(kv_heads, ratio, head_dim)| Heads { heads: kv_heads * ratio, kv_heads, head_dim });
    let group = (0usize..100, prop::collection::vec(0usize..80, 0..4));
    let operation = (dims, prop::collection::vec(group, 1..3)).prop_map(|(dims, groups)| Attention {
        dims,
        scores: dims.scores(),
        groups,
        scale: SOFT,
    });
    for_random(10, operation, |operation| check_both(devices, &operation));
}

/// Outputs and log-sum-exps of each segment of a batch; the rows of a segment come from its seed.
fn forward<B: Backend>(b: &B, d: Heads, groups: &[(Group, u64)]) -> Vec<Vec<f64>> {
    let only_groups: Vec<Group> = groups.iter().map(|(group, _)| group.clone()).collect();
    let segments = packed(&only_groups);
    let seeds =
        groups.iter().flat_map(|((_, responses), seed)| (0..=responses.len() as u64).map(move |i| seed + i));
    let values: Vec<B::Real> = segments
        .iter()
        .zip(seeds)
        .flat_map(|(s, seed)| Random(seed).vec(s.len * d.qkv_width()))
        .map(|x| Float::from_f64(2.0 * x))
        .collect();
    let rows = values.len() / d.qkv_width();
    let mut layout = Layout::new(b, rows).expect("room for a test");
    layout.set(b, &vec![0; rows], segments.iter().copied());
    let qkv = upload(b, &values);
    let mut o = upload(b, &vec![B::Real::default(); rows * d.q_width()]);
    let mut lse = upload(b, &vec![B::Acc::default(); rows * d.heads]);
    b.attention(&mut o, &mut lse, &qkv, &layout, d, d.scores());
    b.finish().unwrap_or_else(|e| panic!("attention: {e}"));
    let (o, lse) = (host(b, &o), host(b, &lse));
    let part = |s: &Segment| {
        let rows = s.start..s.start + s.len;
        let of_o = &o[rows.start * d.q_width()..rows.end * d.q_width()];
        let of_lse = &lse[rows.start * d.heads..rows.end * d.heads];
        [of_o, of_lse].concat()
    };
    segments.iter().map(part).collect()
}

/// A row of the forward is the same bits whatever other groups and responses are in the batch.
pub fn attention_rows(devices: &impl Devices) {
    fn check<R: CudaReal>(devices: &impl Devices) {
        for driver in devices.devices().into_iter().take(1) {
            let b = Cuda::<_, R>::new(driver);
            for head_dim in [64, 128, 256] {
                let d = Heads { heads: 2, kv_heads: 1, head_dim };
                let (before, group, after) =
                    (((9, vec![5]), 100), ((140, vec![70, 40]), 200), ((80, vec![]), 300));
                let all = forward(&b, d, &[before, group.clone(), after]);
                let alone = forward(&b, d, &[group]);
                assert!(all[2..5] == alone[..], "other groups: {d:?} on {}", b.describe());
                let first = forward(&b, d, &[((140, vec![70]), 200)]);
                assert!(alone[..2] == first[..], "another response: {d:?} on {}", b.describe());
            }
        }
    }
    check::<f32>(devices);
    check::<bf16>(devices);
}

/// Rows into a cache in some order, then queries over runs of it.
struct Cached {
    dims: Heads,
    /// First cache row and number of rows of the two runs that a query sees, for each query.
    runs: Vec<[u32; 4]>,
    capacity: usize,
    scale: f64,
}

impl Operation for Cached {
    fn name(&self) -> String {
        format!("attention_cached {:?}, runs {:?}, inputs to {:e}", self.dims, self.runs, self.scale)
    }

    fn run<B: Backend>(&self, b: &B, bench: &mut Bench) {
        let (d, n, rows) = (self.dims, self.capacity, self.runs.len());
        let new = bench.real(b, n * d.qkv_width(), self.scale);
        let qkv = bench.real(b, rows * d.qkv_width(), self.scale);
        // Every row of the cache once: 7 has no factor in common with the capacities below.
        let slots = upload(b, &(0..n).map(|i| (7 * i % n) as u32).collect::<Vec<_>>());
        let mut keys = bench.output(b, n * d.kv_width());
        let mut values = bench.output(b, n * d.kv_width());
        let mut o = bench.output(b, rows * d.q_width());
        b.kv_store(&mut keys, &mut values, &new, &slots, n, d);
        let runs = upload(b, self.runs.as_flattened());
        b.attention_cached(&mut o, &qkv, &keys, &values, &runs, rows, d, d.scores());
        bench.done(b, "keys", &keys, d.kv_width());
        bench.done(b, "values", &values, d.kv_width());
        bench.done(b, "o", &o, d.head_dim);
    }
}

/// `kv_store` and `attention_cached`.
pub fn attention_cached(devices: &impl Devices) {
    // One row, a key for each team and one more, more than all warps take at once, runs that overlap, a prefix that
    // neighbours share and one that others have too, a row without one, a row with nothing else; widths with and
    // without 16-byte rows; groups of a query head, of several and of more than a block has.
    for (heads, kv_heads, head_dim, scale) in [
        (1, 1, 8, 2.0),
        (3, 1, 64, 2.0),
        (4, 2, 64, 2.0),
        (17, 1, 64, 2.0),
        (18, 2, 128, 2.0),
        (8, 1, 40, 2.0),
        (2, 2, 128, 12.0),
        (2, 1, 256, 1e4),
        (3, 3, 10, 2.0),
    ] {
        let runs = [
            [0, 0, 0, 1],
            [0, 0, 3, 16],
            [9, 0, 1, 17],
            [20, 33, 0, 0],
            [5, 21, 30, 1],
            [5, 21, 31, 12],
            [5, 21, 0, 0],
            [5, 22, 59, 1],
            [0, 0, 0, 60],
            [5, 21, 0, 60],
            [0, 90, 3, 87],
        ];
        let dims = Heads { heads, kv_heads, head_dim };
        check_both(devices, &Cached { dims, runs: runs.into(), capacity: 90, scale });
    }
}
