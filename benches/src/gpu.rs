//! What is measured on a GPU: the kernels in bf16 at the shapes of models that are trained there.

use crate::models::{gpt2, llama, qwen2, qwen3};
use crate::pair::{Batch, Pair};
use crate::verb::{Cached, Precision, Verb, Work};
use duel_backend::{Gemm, Heads, Norm};
use duel_cuda::{Cuda, Device};
use duel_model::Config;
use half::bf16;

/// The backend.
pub type Gpu = Cuda<Device, bf16>;

/// Tokens that a layer's kernels are given, as the attention papers take them.
const TOKENS: usize = 16 << 10;
/// Rows of a matrix product: a micro-batch of the backend.
const ROWS: usize = 8 << 10;
/// Heads together: 32 of 64, or 16 of 128.
const WIDTH: usize = 2048;
/// Elements of a flat array: 268 MB of gradients.
const FLAT: usize = 1 << 26;

/// Lengths of the sequences that attention is measured at.
pub const LENGTHS: [usize; 6] = [512, 1024, 2048, 4096, 8192, 16_384];
/// Widths of heads.
pub const HEAD_DIMS: [usize; 2] = [64, 128];
/// The groups that attention with a shared prompt is measured at.
pub const SHARED: Pair = Pair::even(512, 256);

/// Bytes that calls must touch before they come back to a buffer: several times the L2 cache of any GPU, which is 50 MB
/// on an H100.
const COLD: usize = 256 << 20;
/// Most sets of buffers: the small ones, which would need more, are held back by something else than memory.
const MOST_SETS: usize = 8;

/// A benchmark.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// What it belongs to.
    pub group: Group,
    /// What is called.
    pub verb: Verb,
    /// Whether duel's own kernels make the products; otherwise cuBLASLt does, where it is there.
    pub own: bool,
}

/// A group of benchmarks.
#[expect(missing_docs, reason = "the verbs' names say it")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    Attention,
    AttentionBw,
    Products,
    Head,
    /// Everything that memory bounds.
    Memory,
}

impl Group {
    /// As criterion and the results call it.
    pub fn name(self) -> &'static str {
        match self {
            Group::Attention => "attention",
            Group::AttentionBw => "attention_bw",
            Group::Products => "products",
            Group::Head => "head",
            Group::Memory => "memory",
        }
    }
}

impl Case {
    /// As criterion and the results call it: the verb, and who makes the products if it is not cuBLASLt.
    pub fn kernel(&self) -> String {
        let own = if self.own { " own" } else { "" };
        format!("{}{own}", self.verb.name())
    }

    /// The dimensions: for attention the width of a head and the length of a sequence, or the group.
    pub fn shape(&self) -> String {
        match self.verb {
            Verb::Attention { batch, heads } | Verb::AttentionBw { batch, heads } => {
                let pair = batch.pair;
                let rows = if pair.responses() == 0 { pair.prompt.to_string() } else { pair.to_string() };
                format!("hd{} {rows}", heads.head_dim)
            }
            verb => verb.to_string(),
        }
    }

    /// Bytes of an element.
    pub fn precision() -> Precision {
        Precision::of::<Gpu>()
    }

    /// The work of a call.
    pub fn work(&self) -> Work {
        self.verb.work(Self::precision())
    }

    /// Sets of buffers to go through, so that none is found in the cache.
    pub fn sets(&self) -> usize {
        COLD.div_ceil(self.verb.bytes(Self::precision())).clamp(1, MOST_SETS)
    }
}

/// Equal heads for queries, keys and values, as the attention papers take them.
fn heads(head_dim: usize) -> Heads {
    let heads = WIDTH / head_dim;
    Heads { heads, kv_heads: heads, head_dim }
}

/// The batches that attention is measured at: causal sequences, and groups that share their prompt.
fn batches() -> impl Iterator<Item = Batch> {
    let sequences = LENGTHS.into_iter().map(|tokens| Batch::sequences(TOKENS / tokens, tokens));
    sequences.chain([Batch { pairs: TOKENS / SHARED.rows(), pair: SHARED }])
}

/// The four products of a layer.
fn layer(c: &Config) -> [Gemm; 4] {
    let product = |n, k| Gemm::dense(ROWS, n, k);
    [
        product(c.heads.qkv_width(), c.width),
        product(c.width, c.heads.q_width()),
        product(c.up_width(), c.width),
        product(c.width, c.mlp_width),
    ]
}

/// The verbs that memory bounds.
fn memory() -> Vec<Verb> {
    let (llama, gpt2, qwen2, qwen3) = (llama(), gpt2(), qwen2(), qwen3());
    let norm = |c: &Config| Norm { rows: TOKENS, width: c.width, eps: c.eps, plus_one: false };
    let batch = Batch { pairs: TOKENS / SHARED.rows(), pair: SHARED };
    let (vocab, width, rows, heads) = (llama.vocab, llama.width, batch.responses(), llama.heads);
    vec![
        Verb::LogProb { rows: ROWS / 2, vocab },
        Verb::LogProbBw { rows: ROWS / 2, vocab },
        Verb::SoftCap { rows: ROWS / 2, vocab },
        Verb::LogProb { rows: ROWS, vocab: gpt2.vocab },
        Verb::LogProbBw { rows: ROWS, vocab: gpt2.vocab },
        Verb::RmsNorm(norm(&llama)),
        Verb::RmsNormBw(norm(&llama)),
        Verb::RmsNorm(norm(&qwen2)),
        Verb::RmsNormBw(norm(&qwen2)),
        Verb::LayerNorm(norm(&gpt2)),
        Verb::LayerNormBw(norm(&gpt2)),
        Verb::QkNorm { rows: TOKENS, heads: qwen3.heads },
        Verb::QkNormBw { rows: TOKENS, heads: qwen3.heads },
        Verb::Rope { batch, heads },
        Verb::SwiGlu { rows: ROWS, width: llama.mlp_width },
        Verb::SwiGluBw { rows: ROWS, width: llama.mlp_width },
        Verb::Gelu { rows: TOKENS, width: gpt2.mlp_width },
        Verb::GeluBw { rows: TOKENS, width: gpt2.mlp_width },
        Verb::Embed { batch, vocab, width, learned: false },
        Verb::EmbedBw { batch, vocab, width, learned: false },
        Verb::Gather { batch, rows, width },
        Verb::ScatterAdd { batch, rows, width },
        Verb::Scale { rows: TOKENS, width },
        Verb::BiasDw(Gemm::dense(TOKENS, gpt2.heads.qkv_width(), gpt2.width)),
        Verb::SumSq(FLAT),
        Verb::AdamW(FLAT),
        Verb::Rmsprop(FLAT),
        Verb::Zero(FLAT),
        Verb::Copy(2 * FLAT),
        Verb::KvStore { rows: TOKENS, heads },
        Verb::AttentionCached { cached: Cached { prompts: 256, samples: 1, prefix: 0, own: 1024 }, heads },
        Verb::AttentionCached { cached: Cached { prompts: 64, samples: 8, prefix: 1024, own: 512 }, heads },
        Verb::Sample { rows: 256, vocab },
        Verb::Penalise { rows: 256, vocab, seen: 16_384 },
        Verb::Blend { rows: 256, vocab },
        Verb::Kl { rows: ROWS / 2, vocab },
    ]
}

/// Every benchmark.
pub fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    let mut push = |group, verb, own| all.push(Case { group, verb, own });
    for heads in HEAD_DIMS.map(heads) {
        for batch in batches() {
            push(Group::Attention, Verb::Attention { batch, heads }, false);
        }
    }
    for heads in HEAD_DIMS.map(heads) {
        for batch in batches() {
            push(Group::AttentionBw, Verb::AttentionBw { batch, heads }, false);
        }
    }
    // GPT-2's vocabulary is odd: the head gives its rows of logits room to the next whole 16 bytes.
    let (large, odd) = (llama(), gpt2());
    for (pairs, width, vocab) in
        [(8, 4096, large.vocab), (4, large.width, large.vocab), (8, odd.width, odd.vocab)]
    {
        let verb = Verb::Head { batch: Batch { pairs, pair: SHARED }, width, vocab };
        push(Group::Head, verb, false);
        push(Group::Head, verb, true);
    }
    memory().into_iter().for_each(|verb| push(Group::Memory, verb, false));
    // Last: there are many, and a run that is cut off has all others.
    for dims in [llama(), gpt2(), qwen2()].iter().flat_map(layer) {
        for verb in
            [Verb::Gemm { dims, bias: false, residual: false }, Verb::GemmDx(dims), Verb::GemmDw(dims)]
        {
            push(Group::Products, verb, false);
            push(Group::Products, verb, true);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prepare::samples;

    fn find(kernel: &str, shape: &str) -> Case {
        let found = cases().into_iter().find(|c| c.kernel() == kernel && c.shape() == shape);
        found.unwrap_or_else(|| panic!("{kernel} {shape} is not measured"))
    }

    /// Counts by hand, in bf16 with masters.
    #[test]
    fn work_by_hand() {
        let flops = |kernel, shape, want| assert_eq!(find(kernel, shape).work(), Work::Flops(want));
        // 8 sequences, a triangle each; scores and values.
        flops("attention", "hd64 2048", 8 * (2048 * 2049 / 2) * 4 * 2048);
        flops("attention_bw", "hd128 16384", (16_384 * 16_385 / 2) * 10 * 2048);
        // 16 groups: the prompt's triangle, and for each response all of the prompt and a triangle.
        let visible = 512 * 513 / 2 + 2 * (256 * 512 + 256 * 257 / 2);
        flops("attention", "hd64 512+2x256", 16 * visible * 4 * 2048);
        flops("gemm", "8192x16384x2048", 2 * 8192 * 16_384 * 2048);
        flops("gemm_dw own", "8192x2304x768", 2 * 8192 * 2304 * 768);
        flops("head", "4096x4096x128256", 6 * 4096 * 4096 * 128_256);
        flops("head own", "2048x2048x128256", 6 * 2048 * 2048 * 128_256);

        let bytes = |kernel, shape, want| assert_eq!(find(kernel, shape).work(), Work::Bytes(want));
        bytes("adamw", "67108864", 30 * 67_108_864);
        bytes("rmsprop", "67108864", 22 * 67_108_864);
        bytes("square_sums", "67108864", 4 * 67_108_864);
        bytes("zero", "67108864", 4 * 67_108_864);
        bytes("copy", "134217728", 4 * 134_217_728);
        bytes("rmsnorm", "16384x2048", 2 * 2 * 16_384 * 2048);
        bytes("rmsnorm_bw", "16384x2048", 4 * 2 * 16_384 * 2048);
        bytes("logprob", "4096x128256", 2 * 4096 * 128_256);
        bytes("logprob_bw", "8192x50257", 4 * 8192 * 50_257);
        bytes("swiglu_bw", "8192x8192", 5 * 2 * 8192 * 8192);
        // A row of gradients in bf16, and a row of the table in float, read and written.
        bytes("embed_bw", "16384x2048", (2 + 8) * 16_384 * 2048);
        // Queries and keys, read and written, and an angle's cosine and sine in float.
        bytes("rope", "16 x 512+2x256, 32/8 heads of 64", 16_384 * 40 * 64 * 4 + 768 * 64 * 4);
    }

    #[test]
    fn every_case_has_a_name_of_its_own() {
        let mut names: Vec<_> = cases().iter().map(|c| (c.group.name(), c.kernel(), c.shape())).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    /// What the tests call in small is what is measured.
    #[test]
    fn every_verb_is_measured() {
        for verb in samples() {
            assert!(cases().iter().any(|c| c.verb.name() == verb.name()), "{}", verb.name());
        }
    }

    #[test]
    fn no_buffer_stays_in_the_cache() {
        for case in cases() {
            let touched = case.sets() * case.verb.bytes(Case::precision());
            assert!(touched >= COLD || case.sets() == MOST_SETS, "{} {}", case.kernel(), case.shape());
            // L2 of an H100, in any case.
            assert!(touched > 100 << 20, "{} {}", case.kernel(), case.shape());
        }
    }
}
