//! The kernels at the shapes of SmolLM2-135M. Elements a second are floating-point operations a second for the matrix
//! products and attention; the others report bytes.
#![allow(missing_docs)] // criterion's macros make public items

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use duel_backend::{AdamW, Backend, Gemm, Heads, Layout, Norm, RowStats, Segment};
use duel_benches::values;
use duel_cpu::Cpu;

const ROWS: usize = 512;
const WIDTH: usize = 576;
const MLP: usize = 1536;
const VOCAB: usize = 49_152;
const HEADS: Heads = Heads { heads: 9, kv_heads: 3, head_dim: 64 };

fn products(c: &mut Criterion) {
    let cpu = Cpu::<f32>::new(0);
    let mut group = c.benchmark_group("gemm");
    group.sample_size(20);
    for (name, n, k) in
        [("qkv", 960, WIDTH), ("up", 2 * MLP, WIDTH), ("down", WIDTH, MLP), ("head", VOCAB, WIDTH)]
    {
        let dims = Gemm { m: ROWS, n, k };
        let (x, w, dy) = (values(ROWS * k, 1), values(n * k, 2), values(ROWS * n, 3));
        let (mut y, mut dx, mut dw) = (vec![0.0; ROWS * n], vec![0.0; ROWS * k], vec![0.0; n * k]);
        group.throughput(Throughput::Elements(2 * (ROWS * n * k) as u64));
        group.bench_function(BenchmarkId::new("forward", name), |b| {
            b.iter(|| cpu.gemm(&mut y, &x, &w, None, None, dims));
        });
        group
            .bench_function(BenchmarkId::new("dx", name), |b| b.iter(|| cpu.gemm_dx(&mut dx, &dy, &w, dims)));
        group
            .bench_function(BenchmarkId::new("dw", name), |b| b.iter(|| cpu.gemm_dw(&mut dw, &dy, &x, dims)));
    }
    group.finish();
}

fn attention(c: &mut Criterion) {
    let cpu = Cpu::<f32>::new(0);
    let mut group = c.benchmark_group("attention");
    group.sample_size(20);
    for (prompt, response) in [(256, 128), (64, 224), (0, 512)] {
        let mut segments = Vec::new();
        if prompt > 0 {
            segments.push(Segment { start: 0, len: prompt, prefix_start: 0, prefix_len: 0 });
        }
        let responses = if prompt > 0 { 2 } else { 1 };
        for r in 0..responses {
            let start = prompt + r * response;
            segments.push(Segment { start, len: response, prefix_start: 0, prefix_len: prompt });
        }
        let rows = prompt + responses * response;
        let mut layout = Layout::new(&cpu, rows).unwrap();
        layout.set(&cpu, &vec![0; rows], segments.iter().copied());
        let seen: usize = segments.iter().map(|s| s.len * s.prefix_len + s.len * (s.len + 1) / 2).sum();
        let flops = 4 * seen * HEADS.q_width();
        let (qkv, dout) = (values(rows * HEADS.qkv_width(), 1), values(rows * HEADS.q_width(), 2));
        let (mut o, mut lse) = (vec![0.0; rows * HEADS.q_width()], vec![0.0; rows * HEADS.heads]);
        let mut dqkv = vec![0.0; rows * HEADS.qkv_width()];
        let name = format!("{prompt}+{responses}x{response}");
        group.throughput(Throughput::Elements(flops as u64));
        group.bench_function(BenchmarkId::new("forward", &name), |b| {
            b.iter(|| cpu.attention(&mut o, &mut lse, &qkv, &layout, HEADS));
        });
        group.throughput(Throughput::Elements((flops * 5 / 2) as u64));
        group.bench_function(BenchmarkId::new("backward", &name), |b| {
            b.iter(|| cpu.attention_bw(&mut dqkv, &dout, &o, &lse, &qkv, &layout, HEADS));
        });
    }
    group.finish();
}

fn bandwidth(c: &mut Criterion) {
    let cpu = Cpu::<f32>::new(0);
    let mut group = c.benchmark_group("bandwidth");
    group.sample_size(20);
    let bytes = |n: usize| Throughput::Bytes(4 * n as u64);

    let n = 1 << 24;
    let (src, mut dst) = (values(n, 1), vec![0.0; n]);
    group.throughput(bytes(2 * n));
    group.bench_function("copy", |b| b.iter(|| cpu.copy(&mut dst, &src, n)));

    let (mut m, mut v, g) = (vec![0.0; n], vec![0.0; n], values(n, 2));
    let hyper =
        AdamW { lr: 1e-6, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, step: 9, grad_scale: 1.0 };
    group.throughput(bytes(7 * n));
    group.bench_function("adamw", |b| b.iter(|| cpu.adamw(&mut dst, &mut m, &mut v, &g, hyper)));

    let rows = 4096;
    let dims = Norm { rows, width: WIDTH, eps: 1e-5 };
    let (x, w, mut y, mut rstd) =
        (values(rows * WIDTH, 3), values(WIDTH, 4), vec![0.0; rows * WIDTH], vec![0.0; rows]);
    group.throughput(bytes(2 * rows * WIDTH));
    group.bench_function("rmsnorm", |b| b.iter(|| cpu.rmsnorm(&mut y, &mut rstd, &x, &w, dims)));

    let (x, mut y) = (values(rows * 2 * MLP, 5), vec![0.0; rows * MLP]);
    group.throughput(bytes(3 * rows * MLP));
    group.bench_function("swiglu", |b| b.iter(|| cpu.swiglu(&mut y, &x, rows, MLP)));

    let rows = 256;
    let logits = values(rows * VOCAB, 6);
    let targets: Vec<u32> = (0..rows as u32).map(|i| i * 7).collect();
    let mut stats: [Vec<f32>; 5] = std::array::from_fn(|_| vec![0.0; rows]);
    group.throughput(bytes(rows * VOCAB));
    group.bench_function("logprob", |b| {
        b.iter(|| {
            let [logp, lse, entropy, mean_logit, hit] = &mut stats;
            cpu.logprob(RowStats { logp, lse, entropy, mean_logit, hit }, &logits, &targets, rows, VOCAB);
        });
    });
    group.finish();
}

criterion_group!(benches, products, attention, bandwidth);
criterion_main!(benches);
