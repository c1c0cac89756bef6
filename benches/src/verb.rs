//! Every verb of the backend at a model's shapes: how often a step calls it, and the work that one call must do.
//!
//! Work is the least that any implementation does. Products and attention are counted in floating-point operations,
//! a multiply-add as two; all others in bytes, every matrix operand read once and every matrix result written once.
//! Vectors (one value a row or a column), token ids and row numbers are left out: they are below one percent.

use crate::models::{self, GPT2, QWEN3, SMOLLM2};
use crate::pair::{Batch, Pair};
use duel_backend::{Backend, Bits, Blocks, Gemm, Heads, Norm};
use duel_cpu::Cpu;
use duel_model::{Config, Model, NormKind};
use duel_optim::Optimizer;
use std::fmt;

/// The pair that all verbs are measured at, and the whole step too: 1024 rows, 512 of which the head scores.
pub const PAIR: Pair = Pair::even(512, 256);

/// Rows of a product up to which memory bounds it: those of decoding. It is measured on weights in turn that no cache
/// holds together, since decoding comes back to one only after all others.
const FEW_ROWS: usize = 16;

/// What is decoded: sequences alone, whose cache is larger than last-level caches; four samples of each of four prompts
/// in the middle; one long sequence.
const DECODED: [Cached; 3] = [
    Cached { prompts: 64, samples: 1, prefix: 0, own: 768 },
    Cached { prompts: 4, samples: 4, prefix: 77, own: 64 },
    Cached { prompts: 1, samples: 1, prefix: 0, own: 8192 },
];

/// Sequences that are decoded together, and the rows that they have in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cached {
    /// Prompts.
    pub prompts: usize,
    /// Sequences of each prompt.
    pub samples: usize,
    /// Rows of each prompt, once for all of its sequences.
    pub prefix: usize,
    /// Rows of each sequence.
    pub own: usize,
}

impl Cached {
    /// Sequences.
    pub fn sequences(self) -> usize {
        self.prompts * self.samples
    }

    /// Rows of the cache.
    pub fn rows(self) -> usize {
        self.prompts * (self.prefix + self.samples * self.own)
    }

    /// The runs that the sequences see, one prompt with its sequences after the other.
    pub fn runs(self) -> impl Iterator<Item = [u32; 4]> {
        let group = self.prefix + self.samples * self.own;
        (0..self.sequences()).map(move |s| {
            let (prompt, sample) = (s / self.samples * group, s % self.samples);
            [prompt, self.prefix, prompt + self.prefix + sample * self.own, self.own].map(|n| n as u32)
        })
    }
}

impl fmt::Display for Cached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Cached { prompts, samples: 1, prefix: 0, own } => write!(f, "{prompts} after {own}"),
            Cached { prompts, samples, prefix, own } => {
                write!(f, "{prompts} x {samples} after {prefix} + {own}")
            }
        }
    }
}

/// What one call must do at least; it decides the ceiling that the verb is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Floating-point operations.
    Flops(u64),
    /// Bytes to and from memory.
    Bytes(u64),
}

/// Bytes of an element on a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Precision {
    /// Of weights and activations.
    pub real: usize,
    /// Of gradients of weights, statistics and moments.
    pub acc: usize,
    /// Whether the optimizer keeps a master of each weight, in the precision of sums.
    pub masters: bool,
}

impl Precision {
    /// That of a backend.
    pub fn of<B: Backend>() -> Self {
        let (real, acc) = (size_of::<B::Real>(), size_of::<B::Acc>());
        Precision { real, acc, masters: Optimizer::<B>::needs_masters() }
    }
}

/// One verb of [`duel_backend::Backend`] with its dimensions, which are called as the backend calls them; or the head,
/// which is several of them.
#[expect(missing_docs, reason = "the backend documents the dimensions of its verbs")]
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verb {
    /// `gemm`, with or without the bias and the residual that the model adds.
    Gemm { dims: Gemm, bias: bool, residual: bool },
    /// `gemm` of few rows and a weight in blocks.
    GemmBlocks { dims: Gemm, bits: Bits },
    /// `gemm_dx`.
    GemmDx(Gemm),
    /// `gemm_dw`.
    GemmDw(Gemm),
    /// `bias_dw`.
    BiasDw(Gemm),
    /// `embed`, with learned positions or without.
    Embed { batch: Batch, vocab: usize, width: usize, learned: bool },
    /// `embed_bw`, as [`Verb::Embed`].
    EmbedBw { batch: Batch, vocab: usize, width: usize, learned: bool },
    /// `rmsnorm`.
    RmsNorm(Norm),
    /// `rmsnorm_bw`.
    RmsNormBw(Norm),
    /// `layernorm`.
    LayerNorm(Norm),
    /// `layernorm_bw`.
    LayerNormBw(Norm),
    /// `qk_norm`.
    QkNorm { rows: usize, heads: Heads },
    /// `qk_norm_bw`.
    QkNormBw { rows: usize, heads: Heads },
    /// `rope`; its inverse is the same work.
    Rope { batch: Batch, heads: Heads },
    /// `attention`.
    Attention { batch: Batch, heads: Heads },
    /// `attention_bw`.
    AttentionBw { batch: Batch, heads: Heads },
    /// `attention_cached` of one query a sequence.
    AttentionCached { cached: Cached, heads: Heads },
    /// `kv_store`.
    KvStore { rows: usize, heads: Heads },
    /// `swiglu`.
    SwiGlu { rows: usize, width: usize },
    /// `swiglu_bw`.
    SwiGluBw { rows: usize, width: usize },
    /// `gelu`.
    Gelu { rows: usize, width: usize },
    /// `gelu_bw`.
    GeluBw { rows: usize, width: usize },
    /// `scale`.
    Scale { rows: usize, width: usize },
    /// `gather` of `rows` of the batch's rows.
    Gather { batch: Batch, rows: usize, width: usize },
    /// `scatter_add`.
    ScatterAdd { batch: Batch, rows: usize, width: usize },
    /// `sample` with `top_p` of logits as a model has them.
    Sample { rows: usize, vocab: usize },
    /// `penalise` of a row's tokens so far.
    Penalise { rows: usize, vocab: usize, seen: usize },
    /// `blend`.
    Blend { rows: usize, vocab: usize },
    /// `logprob`.
    LogProb { rows: usize, vocab: usize },
    /// `logprob_bw`.
    LogProbBw { rows: usize, vocab: usize },
    /// `soft_cap`.
    SoftCap { rows: usize, vocab: usize },
    /// `kl`.
    Kl { rows: usize, vocab: usize },
    /// The head on every response of the batch in one chunk, as a step of DPO runs it: rows gathered, logits, their
    /// log-probabilities, the objective, and the gradients of rows and weight.
    Head { batch: Batch, width: usize, vocab: usize },
    /// `adamw` of a parameter of this many elements.
    AdamW(usize),
    /// `rmsprop`.
    Rmsprop(usize),
    /// `square_sums` of one buffer.
    SumSq(usize),
    /// `copy`.
    Copy(usize),
    /// `zero`.
    Zero(usize),
}

impl Verb {
    /// The method of the backend that it is.
    pub fn name(self) -> &'static str {
        match self {
            Verb::Gemm { .. } | Verb::GemmBlocks { .. } => "gemm",
            Verb::GemmDx(_) => "gemm_dx",
            Verb::GemmDw(_) => "gemm_dw",
            Verb::BiasDw(_) => "bias_dw",
            Verb::Embed { .. } => "embed",
            Verb::EmbedBw { .. } => "embed_bw",
            Verb::RmsNorm(_) => "rmsnorm",
            Verb::RmsNormBw(_) => "rmsnorm_bw",
            Verb::LayerNorm(_) => "layernorm",
            Verb::LayerNormBw(_) => "layernorm_bw",
            Verb::QkNorm { .. } => "qk_norm",
            Verb::QkNormBw { .. } => "qk_norm_bw",
            Verb::Rope { .. } => "rope",
            Verb::Attention { .. } => "attention",
            Verb::AttentionBw { .. } => "attention_bw",
            Verb::AttentionCached { .. } => "attention_cached",
            Verb::KvStore { .. } => "kv_store",
            Verb::SwiGlu { .. } => "swiglu",
            Verb::SwiGluBw { .. } => "swiglu_bw",
            Verb::Gelu { .. } => "gelu",
            Verb::GeluBw { .. } => "gelu_bw",
            Verb::Scale { .. } => "scale",
            Verb::Gather { .. } => "gather",
            Verb::ScatterAdd { .. } => "scatter_add",
            Verb::Sample { .. } => "sample",
            Verb::Penalise { .. } => "penalise",
            Verb::Blend { .. } => "blend",
            Verb::LogProb { .. } => "logprob",
            Verb::LogProbBw { .. } => "logprob_bw",
            Verb::SoftCap { .. } => "soft_cap",
            Verb::Kl { .. } => "kl",
            Verb::Head { .. } => "head",
            Verb::AdamW(_) => "adamw",
            Verb::Rmsprop(_) => "rmsprop",
            Verb::SumSq(_) => "square_sums",
            Verb::Copy(_) => "copy",
            Verb::Zero(_) => "zero",
        }
    }

    /// Whether it is one of the three matrix products.
    pub fn is_product(self) -> bool {
        matches!(self, Verb::Gemm { .. } | Verb::GemmBlocks { .. } | Verb::GemmDx(_) | Verb::GemmDw(_))
    }

    /// Whether it is a product of so few rows that reading the weight is its work.
    pub fn has_few_rows(self) -> bool {
        matches!(self, Verb::Gemm { dims, .. } | Verb::GemmBlocks { dims, .. } if dims.m <= FEW_ROWS)
    }

    /// The work of one call. A result that is added to (`+=`) is read and written.
    pub fn work(self, precision: Precision) -> Work {
        match self {
            _ if self.has_few_rows() => Work::Bytes(self.bytes(precision) as u64),
            // Additions of a bias or a residual are not counted.
            Verb::Gemm { dims, .. } | Verb::GemmDx(dims) | Verb::GemmDw(dims) => {
                Work::Flops(2 * (dims.m * dims.n * dims.k) as u64)
            }
            // Two products of head_dim multiply-adds for each visible pair: scores, and values weighted.
            Verb::Attention { batch, heads } => Work::Flops((4 * batch.visible() * heads.q_width()) as u64),
            // Five: the scores again, and the gradients of weights, values, keys and queries.
            Verb::AttentionBw { batch, heads } => {
                Work::Flops((10 * batch.visible() * heads.q_width()) as u64)
            }
            // Its three products; the rest is below one percent.
            Verb::Head { batch, width, vocab } => {
                Work::Flops(6 * (batch.responses() * width) as u64 * vocab as u64)
            }
            _ => Work::Bytes(self.bytes(precision) as u64),
        }
    }

    /// Bytes that one call must move: every matrix operand read once, every matrix result written once.
    pub fn bytes(self, precision: Precision) -> usize {
        let (reals, accs) = self.elements(precision.masters);
        let blocks = match self {
            Verb::GemmBlocks { dims: Gemm { n, k, .. }, bits } => Blocks::<Cpu>::size(bits, n, k),
            _ => 0,
        };
        reals * precision.real + accs * precision.acc + blocks
    }

    /// Elements read and written: weights and activations, and those in the precision of sums.
    fn elements(self, masters: bool) -> (usize, usize) {
        let reals = |n| (n, 0);
        match self {
            Verb::Gemm { dims: Gemm { m, n, k, .. }, residual, .. } => {
                reals(m * k + n * k + m * n * (1 + usize::from(residual)))
            }
            // The blocks are counted in bytes.
            Verb::GemmBlocks { dims: Gemm { m, n, k, .. }, .. } => reals(m * k + m * n),
            Verb::GemmDx(Gemm { m, n, k, .. }) => reals(m * n + n * k + m * k),
            Verb::GemmDw(Gemm { m, n, k, .. }) => (m * n + m * k, 2 * n * k),
            Verb::Attention { batch, heads } => reals(batch.rows() * (heads.qkv_width() + heads.q_width())),
            Verb::AttentionBw { batch, heads } => {
                reals(2 * batch.rows() * (heads.qkv_width() + heads.q_width()))
            }
            Verb::BiasDw(d) => reals(d.m * d.n),
            Verb::Embed { batch, width, learned, .. } => {
                reals((2 + usize::from(learned)) * batch.rows() * width)
            }
            Verb::EmbedBw { batch, width, learned, .. } => {
                let elements = batch.rows() * width;
                (elements, 2 * (1 + usize::from(learned)) * elements)
            }
            Verb::RmsNorm(d) | Verb::LayerNorm(d) => reals(2 * d.rows * d.width),
            Verb::RmsNormBw(d) | Verb::LayerNormBw(d) => reals(4 * d.rows * d.width),
            Verb::QkNorm { rows, heads } => reals(2 * rows * heads.qkv_width()),
            Verb::QkNormBw { rows, heads } => reals(3 * rows * (heads.q_width() + heads.kv_width())),
            Verb::Rope { batch, heads } => {
                let rotated = batch.rows() * (heads.q_width() + heads.kv_width());
                (2 * rotated, batch.positions() * heads.head_dim)
            }
            Verb::AttentionCached { cached, heads } => {
                reals(2 * (cached.rows() * heads.kv_width() + cached.sequences() * heads.q_width()))
            }
            Verb::KvStore { rows, heads } => reals(4 * rows * heads.kv_width()),
            Verb::SwiGlu { rows, width } => reals(3 * rows * width),
            Verb::SwiGluBw { rows, width } => reals(5 * rows * width),
            Verb::Gelu { rows, width } => reals(2 * rows * width),
            Verb::GeluBw { rows, width } => reals(3 * rows * width),
            Verb::Scale { rows, width } | Verb::Gather { rows, width, .. } => reals(2 * rows * width),
            Verb::ScatterAdd { rows, width, .. } => reals(3 * rows * width),
            Verb::LogProb { rows, vocab } | Verb::Sample { rows, vocab } => reals(rows * vocab),
            // A cache line is not counted for each element.
            Verb::Penalise { rows, seen, .. } => reals(2 * rows * seen),
            Verb::LogProbBw { rows, vocab } | Verb::SoftCap { rows, vocab } | Verb::Kl { rows, vocab } => {
                reals(2 * rows * vocab)
            }
            Verb::Blend { rows, vocab } => reals(3 * rows * vocab),
            // Rows gathered, their gradients written and scattered; the weight twice; its gradient. Logits need not
            // exist in memory.
            Verb::Head { batch, width, vocab } => {
                (5 * batch.responses() * width + 2 * vocab * width, 2 * vocab * width)
            }
            // The weight and its moments are read and written, the gradient read; or the master is in the weight's
            // place, which is then only written.
            Verb::AdamW(n) if masters => (n, 7 * n),
            Verb::AdamW(n) => (2 * n, 5 * n),
            Verb::Rmsprop(n) if masters => (n, 5 * n),
            Verb::Rmsprop(n) => (2 * n, 3 * n),
            // Of gradients.
            Verb::SumSq(n) | Verb::Zero(n) => (0, n),
            Verb::Copy(n) => reals(2 * n),
        }
    }
}

/// The dimensions, as tables show them.
impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of_heads = |h: Heads| format!("{}/{} heads of {}", h.heads, h.kv_heads, h.head_dim);
        match *self {
            Verb::Gemm { dims: Gemm { m, n, k, .. }, .. }
            | Verb::GemmDx(Gemm { m, n, k, .. })
            | Verb::GemmDw(Gemm { m, n, k, .. }) => write!(f, "{m}x{n}x{k}"),
            Verb::GemmBlocks { dims: Gemm { m, n, k, .. }, bits } => {
                write!(f, "{m}x{n}x{k} of {} bits", if bits == Bits::Four { 4 } else { 8 })
            }
            Verb::BiasDw(d) => write!(f, "{}x{}", d.m, d.n),
            Verb::Embed { batch, width, .. } | Verb::EmbedBw { batch, width, .. } => {
                write!(f, "{}x{width}", batch.rows())
            }
            Verb::RmsNorm(d) | Verb::RmsNormBw(d) | Verb::LayerNorm(d) | Verb::LayerNormBw(d) => {
                write!(f, "{}x{}", d.rows, d.width)
            }
            Verb::QkNorm { rows, heads } | Verb::QkNormBw { rows, heads } | Verb::KvStore { rows, heads } => {
                write!(f, "{rows} rows, {}", of_heads(heads))
            }
            Verb::Rope { batch, heads }
            | Verb::Attention { batch, heads }
            | Verb::AttentionBw { batch, heads } => {
                write!(f, "{batch}, {}", of_heads(heads))
            }
            Verb::AttentionCached { cached, heads } => write!(f, "{cached}, {}", of_heads(heads)),
            Verb::SwiGlu { rows, width }
            | Verb::SwiGluBw { rows, width }
            | Verb::Gelu { rows, width }
            | Verb::GeluBw { rows, width }
            | Verb::Scale { rows, width }
            | Verb::Gather { rows, width, .. }
            | Verb::ScatterAdd { rows, width, .. } => write!(f, "{rows}x{width}"),
            Verb::LogProb { rows, vocab }
            | Verb::LogProbBw { rows, vocab }
            | Verb::SoftCap { rows, vocab }
            | Verb::Kl { rows, vocab }
            | Verb::Blend { rows, vocab }
            | Verb::Sample { rows, vocab } => write!(f, "{rows}x{vocab}"),
            Verb::Penalise { rows, vocab, seen } => write!(f, "{seen} of {rows}x{vocab}"),
            Verb::Head { batch, width, vocab } => write!(f, "{}x{width}x{vocab}", batch.responses()),
            Verb::AdamW(n) | Verb::Rmsprop(n) | Verb::SumSq(n) | Verb::Copy(n) | Verb::Zero(n) => {
                write!(f, "{n}")
            }
        }
    }
}

/// A verb in a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The model.
    pub model: &'static str,
    /// The verb.
    pub verb: Verb,
    /// Which of the model's parts it computes, where there are several.
    pub part: &'static str,
    /// Calls in a step, such that calls times work is what the step does: a verb that runs over every parameter is
    /// measured on the embedding, the largest, and counts as often as that goes into all of them. 0 is a verb that a
    /// step of this model does not have.
    pub in_step: f64,
}

impl Call {
    /// The part and the dimensions.
    pub fn shape(&self) -> String {
        format!("{} {}", self.part, self.verb).trim_start().to_owned()
    }
}

/// Every call that is measured.
pub fn calls() -> Vec<Call> {
    let mut all = step_calls(SMOLLM2, &models::smollm2(), PAIR.into());
    all.extend(other_calls(SMOLLM2, &models::smollm2()));
    all.extend(few_row_calls(SMOLLM2, &models::smollm2()));
    all.extend(adapter_calls(SMOLLM2, &models::smollm2()));
    all.extend(step_calls(GPT2, &models::gpt2(), PAIR.into()));
    all.extend(other_calls(GPT2, &models::gpt2()));
    let (rows, heads) = (PAIR.rows(), models::qwen3().heads);
    for verb in [Verb::QkNorm { rows, heads }, Verb::QkNormBw { rows, heads }] {
        all.push(Call { model: QWEN3, verb, part: "", in_step: 0.0 });
    }
    all
}

/// The verbs that generation and other configurations of the trainer call.
fn other_calls(model: &'static str, c: &Config) -> Vec<Call> {
    let (heads, parameter) = (c.heads, c.vocab * c.width);
    let mut verbs = vec![
        Verb::KvStore { rows: PAIR.prompt, heads },
        Verb::Rmsprop(parameter),
        Verb::Copy(parameter),
        Verb::Sample { rows: 16, vocab: c.vocab },
        Verb::Blend { rows: 16, vocab: c.vocab },
        Verb::Kl { rows: PAIR.responses(), vocab: c.vocab },
    ];
    verbs.extend(DECODED.map(|cached| Verb::AttentionCached { cached, heads }));
    verbs.into_iter().map(|verb| Call { model, verb, part: "", in_step: 0.0 }).collect()
}

/// A product and both of its gradients.
fn products(dims: Gemm, bias: bool, residual: bool) -> [Verb; 3] {
    [Verb::Gemm { dims, bias, residual }, Verb::GemmDx(dims), Verb::GemmDw(dims)]
}

/// Rank of the adapters that are measured.
const RANK: usize = 16;

/// The products of an adapter of [`RANK`] beside a layer's widest map, on the rows of a pair.
fn adapter_calls(model: &'static str, c: &Config) -> Vec<Call> {
    let (down, up) = (Gemm::dense(PAIR.rows(), RANK, c.width), Gemm::dense(PAIR.rows(), c.up_width(), RANK));
    let calls =
        |(part, dims)| products(dims, false, false).map(|verb| Call { model, verb, part, in_step: 0.0 });
    [("adapter's first", down), ("adapter's second", up)].into_iter().flat_map(calls).collect()
}

/// The products of decoding a few sequences: those of a layer that differ in shape, and the head's.
fn few_row_calls(model: &'static str, c: &Config) -> Vec<Call> {
    let parts = [
        ("qkv", c.heads.qkv_width(), c.width),
        ("up", c.up_width(), c.width),
        ("down", c.width, c.mlp_width),
        ("head", c.vocab, c.width),
    ];
    let calls = |m, (part, n, k)| {
        let dims = Gemm::dense(m, n, k);
        let blocks = [Bits::Eight, Bits::Four].map(|bits| Verb::GemmBlocks { dims, bits });
        [Verb::Gemm { dims, bias: false, residual: false }, blocks[0], blocks[1]].map(|verb| Call {
            model,
            verb,
            part,
            in_step: 0.0,
        })
    };
    [1, 4, FEW_ROWS]
        .into_iter()
        .flat_map(|m| parts.into_iter().flat_map(move |part| calls(m, part)))
        .collect()
}

/// The calls of one optimizer step on `batch` with everything kept for the backward pass, AdamW, and the head's rows
/// in one chunk. `crates/model/src/graph.rs` and `crates/loss/src/head.rs` make them.
pub fn step_calls(model: &'static str, c: &Config, batch: Batch) -> Vec<Call> {
    let mut all = Vec::new();
    let mut push = |in_step: f64, part, verb| all.push(Call { model, verb, part, in_step });
    let (rows, scored, layers) = (batch.rows(), batch.responses(), c.layers as f64);
    let (width, vocab, heads) = (c.width, c.vocab, c.heads);

    let parts = [
        ("qkv", heads.qkv_width(), width, c.qkv_bias, false),
        ("out", width, heads.q_width(), c.out_bias, true),
        ("up", c.up_width(), width, c.mlp_bias, false),
        ("down", width, c.mlp_width, c.mlp_bias, true),
    ];
    for (part, n, k, bias, residual) in parts {
        let dims = Gemm::dense(rows, n, k);
        products(dims, bias, residual).into_iter().for_each(|verb| push(layers, part, verb));
        if bias {
            push(layers, part, Verb::BiasDw(dims));
        }
    }
    let dims = Gemm::dense(scored, vocab, width);
    products(dims, false, false).into_iter().for_each(|verb| push(1.0, "head", verb));

    push(layers, "", Verb::Attention { batch, heads });
    push(layers, "", Verb::AttentionBw { batch, heads });
    if c.rope.is_some() {
        push(2.0 * layers, "", Verb::Rope { batch, heads });
    }
    // Two norms a layer, which the backward computes again, and the last one, which it does not.
    let norm = Norm { rows, width, eps: c.eps, plus_one: false };
    let (forward, backward) = match c.norm {
        NormKind::Rms | NormKind::RmsPlusOne => (Verb::RmsNorm(norm), Verb::RmsNormBw(norm)),
        NormKind::Layer => (Verb::LayerNorm(norm), Verb::LayerNormBw(norm)),
    };
    push(4.0 * layers + 1.0, "", forward);
    push(2.0 * layers + 1.0, "", backward);
    let (forward, backward) = match (rows, c.mlp_width, c.mlp.gated) {
        (rows, width, true) => (Verb::SwiGlu { rows, width }, Verb::SwiGluBw { rows, width }),
        (rows, width, false) => (Verb::Gelu { rows, width }, Verb::GeluBw { rows, width }),
    };
    push(2.0 * layers, "", forward);
    push(layers, "", backward);
    let learned = c.rope.is_none();
    push(1.0, "", Verb::Embed { batch, vocab, width, learned });
    push(1.0, "", Verb::EmbedBw { batch, vocab, width, learned });

    push(1.0, "", Verb::Gather { batch, rows: scored, width });
    push(1.0, "", Verb::LogProb { rows: scored, vocab });
    push(1.0, "", Verb::LogProbBw { rows: scored, vocab });
    push(1.0, "", Verb::ScatterAdd { batch, rows: scored, width });

    let parameter = vocab * width;
    let times = Model::manifest(c).parameters() as f64 / parameter as f64;
    push(times, "", Verb::Zero(parameter));
    push(times, "", Verb::SumSq(parameter));
    push(times, "", Verb::AdamW(parameter));
    all
}
