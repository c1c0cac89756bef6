//! Every verb of the CPU backend at the models' shapes. Elements are floating-point operations; see
//! [`duel_benches::verb`] for what is counted.
#![allow(missing_docs)] // criterion's macros make public items

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use duel_backend::{AdamW, Backend, Heads, Layout, Rmsprop, RowStats};
use duel_benches::pair::Pair;
use duel_benches::verb::{Verb, Work, calls};
use duel_benches::{indices, values};
use duel_cpu::Cpu;
use std::hint::black_box;
use std::time::Duration;

/// Random inputs, each different from those before.
struct Inputs {
    seed: u64,
}

impl Inputs {
    fn values(&mut self, n: usize) -> Vec<f32> {
        self.seed += 1;
        values(n, self.seed)
    }

    fn indices(&mut self, n: usize, bound: usize) -> Vec<u32> {
        self.seed += 1;
        indices(n, bound, self.seed)
    }

    fn layout(&mut self, cpu: &Cpu, pair: Pair, vocab: usize) -> Layout<Cpu> {
        let mut layout = Layout::new(cpu, pair.rows()).unwrap();
        layout.set(cpu, &self.indices(pair.rows(), vocab), pair.segments());
        layout
    }
}

type Run<'b> = Box<dyn FnMut() + 'b>;

/// The buffers of one verb, made once; calling the result calls the verb.
fn prepare<'b>(cpu: &'b Cpu, verb: Verb) -> Run<'b> {
    let mut new = Inputs { seed: 0 };
    match verb {
        Verb::Gemm { dims: d, bias, residual } => {
            let (x, w, mut y) = (new.values(d.m * d.k), new.values(d.n * d.k), vec![0.0; d.m * d.n]);
            let bias = bias.then(|| new.values(d.n));
            let residual = residual.then(|| new.values(d.m * d.n));
            Box::new(move || cpu.gemm(&mut y, &x, &w, bias.as_ref(), residual.as_ref(), d))
        }
        Verb::GemmDx(d) => {
            let (dy, w, mut dx) = (new.values(d.m * d.n), new.values(d.n * d.k), vec![0.0; d.m * d.k]);
            Box::new(move || cpu.gemm_dx(&mut dx, &dy, &w, d))
        }
        Verb::GemmDw(d) => {
            let (dy, x, mut dw) = (new.values(d.m * d.n), new.values(d.m * d.k), vec![0.0; d.n * d.k]);
            Box::new(move || cpu.gemm_dw(&mut dw, &dy, &x, d))
        }
        Verb::BiasDw(d) => {
            let (dy, mut db) = (new.values(d.m * d.n), vec![0.0; d.n]);
            Box::new(move || cpu.bias_dw(&mut db, &dy, d))
        }
        Verb::Embed { pair, vocab, width, learned } => {
            let (layout, table) = (new.layout(cpu, pair, vocab), new.values(vocab * width));
            let positions = learned.then(|| new.values(pair.positions() * width));
            let mut y = vec![0.0; pair.rows() * width];
            Box::new(move || cpu.embed(&mut y, &table, positions.as_ref(), &layout, width))
        }
        Verb::EmbedBw { pair, vocab, width, learned } => {
            let (layout, dy) = (new.layout(cpu, pair, vocab), new.values(pair.rows() * width));
            let mut dpositions = learned.then(|| vec![0.0; pair.positions() * width]);
            let mut dtable = vec![0.0; vocab * width];
            Box::new(move || cpu.embed_bw(&mut dtable, dpositions.as_mut(), &dy, &layout, width))
        }
        Verb::RmsNorm(d) => {
            let (x, w) = (new.values(d.rows * d.width), new.values(d.width));
            let (mut y, mut rstd) = (vec![0.0; d.rows * d.width], vec![0.0; d.rows]);
            Box::new(move || cpu.rmsnorm(&mut y, &mut rstd, &x, &w, d))
        }
        Verb::RmsNormBw(d) => {
            let (x, w, rstd) = (new.values(d.rows * d.width), new.values(d.width), new.values(d.rows));
            let (dy, mut dx) = (new.values(d.rows * d.width), new.values(d.rows * d.width));
            let mut dw = vec![0.0; d.width];
            Box::new(move || cpu.rmsnorm_bw(&mut dx, &mut dw, &dy, &x, &rstd, &w, d))
        }
        Verb::LayerNorm(d) => {
            let (x, w, b) = (new.values(d.rows * d.width), new.values(d.width), new.values(d.width));
            let (mut y, mut stats) = (vec![0.0; d.rows * d.width], vec![0.0; 2 * d.rows]);
            Box::new(move || cpu.layernorm(&mut y, &mut stats, &x, &w, &b, d))
        }
        Verb::LayerNormBw(d) => {
            let (x, w, stats) = (new.values(d.rows * d.width), new.values(d.width), new.values(2 * d.rows));
            let (dy, mut dx) = (new.values(d.rows * d.width), new.values(d.rows * d.width));
            let (mut dw, mut db) = (vec![0.0; d.width], vec![0.0; d.width]);
            Box::new(move || cpu.layernorm_bw(&mut dx, &mut dw, &mut db, &dy, &x, &stats, &w, d))
        }
        Verb::QkNorm { rows, heads } => {
            let (x, wq, wk) = (
                new.values(rows * heads.qkv_width()),
                new.values(heads.head_dim),
                new.values(heads.head_dim),
            );
            let mut y = vec![0.0; rows * heads.qkv_width()];
            let mut rstd = vec![0.0; rows * (heads.heads + heads.kv_heads)];
            Box::new(move || cpu.qk_norm(&mut y, &mut rstd, &x, &wq, &wk, rows, 1e-6, heads))
        }
        Verb::QkNormBw { rows, heads } => qk_norm_bw(cpu, &mut new, rows, heads),
        Verb::Rope { pair, heads } => {
            let layout = new.layout(cpu, pair, 1);
            let angles = new.values(pair.positions() * heads.head_dim / 2);
            let angles = angles.chunks(heads.head_dim / 2);
            let table: Vec<f32> =
                angles.flat_map(|a| a.iter().map(|x| x.cos()).chain(a.iter().map(|x| x.sin()))).collect();
            let mut qkv = new.values(pair.rows() * heads.qkv_width());
            Box::new(move || cpu.rope(&mut qkv, &table, &layout.positions, pair.rows(), false, heads))
        }
        Verb::Attention { pair, heads } => {
            let (layout, qkv) = (new.layout(cpu, pair, 1), new.values(pair.rows() * heads.qkv_width()));
            let (mut o, mut lse) =
                (vec![0.0; pair.rows() * heads.q_width()], vec![0.0; pair.rows() * heads.heads]);
            Box::new(move || cpu.attention(&mut o, &mut lse, &qkv, &layout, heads))
        }
        Verb::AttentionBw { pair, heads } => {
            let (layout, qkv) = (new.layout(cpu, pair, 1), new.values(pair.rows() * heads.qkv_width()));
            let (mut o, mut lse) =
                (vec![0.0; pair.rows() * heads.q_width()], vec![0.0; pair.rows() * heads.heads]);
            cpu.attention(&mut o, &mut lse, &qkv, &layout, heads);
            let (dout, mut dqkv) = (new.values(o.len()), vec![0.0; qkv.len()]);
            Box::new(move || cpu.attention_bw(&mut dqkv, &dout, &o, &lse, &qkv, &layout, heads))
        }
        Verb::AttentionCached { sequences, tokens, heads } => {
            let cached = sequences * tokens * heads.kv_width();
            let (keys, values) = (new.values(cached), new.values(cached));
            let (qkv, mut o) =
                (new.values(sequences * heads.qkv_width()), vec![0.0; sequences * heads.q_width()]);
            let bases: Vec<u32> = (0..sequences).map(|s| (s * tokens) as u32).collect();
            let lens = vec![tokens as u32; sequences];
            Box::new(move || {
                cpu.attention_cached(&mut o, &qkv, &keys, &values, &bases, &lens, sequences, heads)
            })
        }
        Verb::KvStore { rows, heads } => {
            let (qkv, slots) = (new.values(rows * heads.qkv_width()), (0..rows as u32).collect());
            let (mut keys, mut values) =
                (vec![0.0; rows * heads.kv_width()], vec![0.0; rows * heads.kv_width()]);
            Box::new(move || cpu.kv_store(&mut keys, &mut values, &qkv, &slots, rows, heads))
        }
        Verb::SwiGlu { rows, width } => {
            let (x, mut y) = (new.values(2 * rows * width), vec![0.0; rows * width]);
            Box::new(move || cpu.swiglu(&mut y, &x, rows, width))
        }
        Verb::SwiGluBw { rows, width } => {
            let (x, dy, mut dx) =
                (new.values(2 * rows * width), new.values(rows * width), vec![0.0; 2 * rows * width]);
            Box::new(move || cpu.swiglu_bw(&mut dx, &dy, &x, rows, width))
        }
        Verb::Gelu { rows, width } => {
            let (x, mut y) = (new.values(rows * width), vec![0.0; rows * width]);
            Box::new(move || cpu.gelu(&mut y, &x, rows * width))
        }
        Verb::GeluBw { rows, width } => {
            let (x, dy, mut dx) =
                (new.values(rows * width), new.values(rows * width), vec![0.0; rows * width]);
            Box::new(move || cpu.gelu_bw(&mut dx, &dy, &x, rows * width))
        }
        Verb::Gather { pair, rows, width } => {
            let (x, index, mut y) =
                (new.values(pair.rows() * width), new.indices(rows, pair.rows()), vec![0.0; rows * width]);
            Box::new(move || cpu.gather(&mut y, &x, &index, rows, width))
        }
        Verb::ScatterAdd { pair, rows, width } => {
            let (dy, index, mut dx) =
                (new.values(rows * width), new.indices(rows, pair.rows()), vec![0.0; pair.rows() * width]);
            Box::new(move || cpu.scatter_add(&mut dx, &dy, &index, rows, width))
        }
        Verb::LogProb { rows, vocab } => {
            let (logits, targets) = (new.values(rows * vocab), new.indices(rows, vocab));
            let mut stats = Statistics::new(rows);
            Box::new(move || cpu.logprob(stats.rows(), &logits, &targets, rows, vocab))
        }
        Verb::LogProbBw { rows, vocab } => {
            let (mut logits, targets) = (new.values(rows * vocab), new.indices(rows, vocab));
            let mut stats = Statistics::new(rows);
            cpu.logprob(stats.rows(), &logits, &targets, rows, vocab);
            let coef = new.values(rows);
            // In place: the next call takes the gradients for logits. They are small, so it computes on numbers of
            // the same kind.
            Box::new(move || cpu.logprob_bw(&mut logits, &stats.lse, &coef, &targets, rows, vocab))
        }
        Verb::AdamW(n) => {
            let (mut w, g, mut m, mut v) = (new.values(n), new.values(n), vec![0.0; n], vec![0.0; n]);
            let (beta1, beta2) = (0.9, 0.999);
            let hyper =
                AdamW { lr: 1e-6, beta1, beta2, eps: 1e-8, weight_decay: 0.01, step: 9, grad_scale: 1.0 };
            Box::new(move || cpu.adamw(&mut w, None, &mut m, &mut v, &g, hyper))
        }
        Verb::Rmsprop(n) => {
            let (mut w, g, mut v) = (new.values(n), new.values(n), vec![0.0; n]);
            let hyper = Rmsprop { lr: 1e-6, alpha: 0.99, eps: 1e-8, weight_decay: 0.01, grad_scale: 1.0 };
            Box::new(move || cpu.rmsprop(&mut w, None, &mut v, &g, hyper))
        }
        Verb::SumSq(n) => {
            let x = new.values(n);
            Box::new(move || {
                black_box(cpu.square_sums(&[&x])).unwrap();
            })
        }
        Verb::Copy(n) => {
            let (src, mut dst) = (new.values(n), vec![0.0; n]);
            Box::new(move || cpu.copy(&mut dst, &src, n))
        }
        Verb::Zero(n) => {
            let mut buf = new.values(n);
            Box::new(move || cpu.zero(&mut buf))
        }
    }
}

/// In place, so each call works on the result of the one before. With inputs of 1 or -1, whose mean square is 1, and
/// weights of 1 it projects, and a projection that is repeated changes nothing: no call meets numbers that earlier
/// ones made vanish or overflow.
fn qk_norm_bw<'b>(cpu: &'b Cpu, new: &mut Inputs, rows: usize, heads: Heads) -> Run<'b> {
    let x: Vec<f32> = new.values(rows * heads.qkv_width()).iter().map(|x| x.signum()).collect();
    let (ones, rstd) = (vec![1.0; heads.head_dim], vec![1.0; rows * (heads.heads + heads.kv_heads)]);
    let mut dqkv = new.values(x.len());
    let (mut dwq, mut dwk) = (vec![0.0; heads.head_dim], vec![0.0; heads.head_dim]);
    Box::new(move || {
        cpu.qk_norm_bw(&mut dqkv, &mut dwq, &mut dwk, &x, &rstd, &ones, &ones, rows, heads);
    })
}

/// Where `logprob` writes.
struct Statistics {
    logp: Vec<f32>,
    lse: Vec<f32>,
    entropy: Vec<f32>,
    mean_logit: Vec<f32>,
    hit: Vec<f32>,
}

impl Statistics {
    fn new(rows: usize) -> Self {
        let empty = || vec![0.0; rows];
        Statistics { logp: empty(), lse: empty(), entropy: empty(), mean_logit: empty(), hit: empty() }
    }

    fn rows(&mut self) -> RowStats<'_, Cpu> {
        RowStats {
            logp: &mut self.logp,
            lse: &mut self.lse,
            entropy: &mut self.entropy,
            mean_logit: &mut self.mean_logit,
            hit: &mut self.hit,
        }
    }
}

fn verbs(c: &mut Criterion) {
    let cpu = Cpu::new(0);
    for call in calls() {
        let mut group = c.benchmark_group(call.model);
        group.sample_size(10).sampling_mode(SamplingMode::Flat).nresamples(2000);
        group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(700));
        group.throughput(match call.verb.work() {
            Work::Flops(n) => Throughput::Elements(n),
            Work::Bytes(n) => Throughput::BytesDecimal(n),
        });
        let mut run = None;
        group.bench_function(BenchmarkId::new(call.verb.name(), call.shape()), |b| {
            b.iter(run.get_or_insert_with(|| {
                let mut run = prepare(&cpu, call.verb);
                // The system gives a buffer its memory at the first touch, which is not the verb's work.
                run();
                run
            }));
        });
        group.finish();
    }
}

criterion_group!(name = benches; config = Criterion::default().without_plots(); targets = verbs);
criterion_main!(benches);
