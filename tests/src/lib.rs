//! What the tests of duel share: pseudo-random data, packed groups, whole models on any backend, safetensors files
//! taken apart, and the way to the data that the project does not hold.

pub mod golden;

use duel_backend::{Acc, Backend, Float, Gemm, Layout, Logits, Real, Segment};
use duel_loss::{Head, ResponseStats, Targets, sigmoid};
use duel_model::{
    Activations, Config, Family, Gradients, Keep, Layer, Lora, LoraSettings, Model, Shape, Weights,
};
use serde_json::{Map, Value, json};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// `../shared/data/what` beside the project; a loud note and `None` where it is absent.
pub fn shared_data(what: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data").join(what);
    if !path.exists() {
        // Not eprintln: the test harness would keep that to itself.
        {
            use std::io::Write as _;
            drop(writeln!(std::io::stderr(), "SKIPPED: {what} is not tested, ../shared/data is not here"));
        }
    }
    path.exists().then_some(path)
}

/// A folder that is removed when this is dropped.
pub struct TempDir(PathBuf);

impl TempDir {
    /// An empty folder of its own.
    pub fn new() -> std::io::Result<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("duel-tests-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path)?;
        Ok(TempDir(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // A folder that stays behind in the system's temporary place is no reason to fail.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// SplitMix64: the same numbers everywhere, for ever.
pub struct Random(pub u64);

impl Random {
    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// Uniform in `-1..1`.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    /// Uniform in `range`.
    pub fn pick(&mut self, range: Range<usize>) -> usize {
        range.start + (self.bits() % range.len() as u64) as usize
    }

    /// `n` numbers, uniform in `-1..1`.
    pub fn vec(&mut self, n: usize) -> Vec<f64> {
        (0..n).map(|_| self.unit()).collect()
    }

    /// `n` token ids.
    pub fn tokens(&mut self, n: usize, vocab: usize) -> Vec<u32> {
        (0..n).map(|_| self.pick(0..vocab) as u32).collect()
    }

    /// A group with a prompt and responses whose lengths are drawn from the ranges.
    pub fn group(&mut self, vocab: usize, prompt: Range<usize>, k: usize, response: Range<usize>) -> Group {
        let prompt = self.pick(prompt);
        let prompt = self.tokens(prompt, vocab);
        let responses = (0..k).map(|_| {
            let n = self.pick(response.clone());
            self.tokens(n, vocab)
        });
        Group { responses: responses.collect(), prompt }
    }
}

/// A prompt, which may be empty, and its responses.
#[derive(Clone, Debug)]
pub struct Group {
    /// Tokens of the prompt.
    pub prompt: Vec<u32>,
    /// Tokens of each response.
    pub responses: Vec<Vec<u32>>,
}

/// Groups laid out as rows.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// A token a row.
    pub tokens: Vec<u32>,
    /// Segments for the attention.
    pub segments: Vec<Segment>,
    /// For each group, the rows of its responses, with the rows before them that predict their first token.
    pub scored: Vec<Vec<Segment>>,
}

impl Batch {
    /// As training packs them: a prompt once, then all its responses.
    pub fn packed(groups: &[Group]) -> Self {
        let mut batch = Batch::default();
        for g in groups {
            let prompt = batch.push(&g.prompt, 0..0);
            let responses = g.responses.iter().map(|r| batch.push(r, prompt.clone()));
            let responses: Vec<_> = responses.collect();
            batch.scored.push(responses.into_iter().map(|r| segment(r, prompt.clone())).collect());
        }
        batch
    }

    /// As it is without any sharing: each prompt and response together are one plain causal sequence.
    pub fn unshared(groups: &[Group]) -> Self {
        let mut batch = Batch::default();
        for g in groups {
            let scored = g.responses.iter().map(|r| {
                let rows = batch.push(&[&g.prompt[..], r].concat(), 0..0);
                let middle = rows.start + g.prompt.len();
                segment(middle..rows.end, rows.start..middle)
            });
            let scored = scored.collect();
            batch.scored.push(scored);
        }
        batch
    }

    /// One text of which every token but the first is scored.
    pub fn text(tokens: &[u32]) -> Self {
        Batch::packed(&[Group { prompt: Vec::new(), responses: vec![tokens.to_vec()] }])
    }

    fn push(&mut self, tokens: &[u32], prefix: Range<usize>) -> Range<usize> {
        let rows = self.tokens.len()..self.tokens.len() + tokens.len();
        if !tokens.is_empty() {
            self.segments.push(segment(rows.clone(), prefix));
        }
        self.tokens.extend(tokens);
        rows
    }

    /// The layout on a backend.
    pub fn layout<B: Backend>(&self, b: &B) -> Layout<B> {
        let mut layout = Layout::new(b, self.tokens.len()).expect("room for a test");
        layout.set(b, &self.tokens, self.segments.iter().copied());
        layout
    }

    /// The rows that the head runs on.
    pub fn targets(&self) -> Targets {
        let mut targets = Targets::default();
        for group in &self.scored {
            targets.push_group(&self.tokens, group.iter().copied(), &[]);
        }
        targets
    }
}

fn segment(rows: Range<usize>, prefix: Range<usize>) -> Segment {
    // An empty prompt has no place: whoever scores without one says so with zeros.
    let prefix_start = if prefix.is_empty() { 0 } else { prefix.start };
    Segment { start: rows.start, len: rows.len(), prefix_start, prefix_len: prefix.len() }
}

/// What a model is trained on here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Objective {
    /// Cross entropy of all responses, summed and multiplied by the factor.
    Sft(f64),
    /// DPO of the first response against each other one; the reference is a number a token.
    Dpo,
}

impl Objective {
    /// Loss of a group, and its derivative by the log-probability of each response.
    pub fn loss(self, stats: &[ResponseStats], coefs: &mut [f64]) -> f64 {
        match self {
            Objective::Sft(factor) => {
                coefs.fill(-factor);
                -factor * stats.iter().map(|s| s.logp).sum::<f64>()
            }
            Objective::Dpo => {
                coefs.fill(0.0);
                let score = |s: &ResponseStats| s.score(-2.5 * s.tokens as f64);
                let mut loss = 0.0;
                for (i, rejected) in stats.iter().enumerate().skip(1) {
                    let pair = sigmoid(0.3, 0.1, score(&stats[0]), score(rejected));
                    loss += pair.value;
                    coefs[0] += pair.d_chosen;
                    coefs[i] += pair.d_rejected;
                }
                loss
            }
        }
    }
}

/// A model of the given family that is as small as it can be and still has everything: several layers, shared
/// key/value heads, heads that do not add up to the width.
pub fn tiny(family: Family) -> Config {
    let llama = |model_type: &str, more: Value| {
        let mut json = json!({
            "model_type": model_type, "vocab_size": 19, "hidden_size": 12, "intermediate_size": 10,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4,
            "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "initializer_range": 0.3,
        });
        merge(&mut json, more);
        json
    };
    let json = match family {
        Family::Llama => {
            let scaling = json!({
                "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16, "rope_theta": 10000.0,
            });
            llama("llama", json!({"rope_parameters": scaling, "tie_word_embeddings": false}))
        }
        Family::Qwen2 => llama(
            "qwen2",
            json!({"num_attention_heads": 3, "num_key_value_heads": 1, "tie_word_embeddings": true}),
        ),
        Family::Qwen3 => llama("qwen3", json!({"head_dim": 6, "tie_word_embeddings": true})),
        // A window that most texts of the tests leave.
        Family::Mistral => llama("mistral", json!({"sliding_window": 3, "tie_word_embeddings": false})),
        Family::Gemma => llama("gemma", json!({"hidden_act": "gelu"})),
        Family::Gemma2 => llama(
            "gemma2",
            json!({
                "sliding_window": 4, "query_pre_attn_scalar": 6, "attn_logit_softcapping": 2.0,
                "final_logit_softcapping": 3.0,
            }),
        ),
        Family::Gemma3 => llama(
            "gemma3_text",
            json!({
                "head_dim": 6, "sliding_window": 4, "query_pre_attn_scalar": 6, "rope_local_base_freq": 50.0,
                "layer_types": ["sliding_attention", "full_attention"],
            }),
        ),
        Family::Gpt2 => json!({
            "model_type": "gpt2", "vocab_size": 19, "n_embd": 12, "n_layer": 2, "n_head": 4, "n_positions": 64,
            "initializer_range": 0.3,
        }),
        Family::GptNeoX => json!({
            "model_type": "gpt_neox", "vocab_size": 19, "hidden_size": 12, "intermediate_size": 10,
            "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64, "rotary_pct": 0.34,
            "initializer_range": 0.3,
        }),
        Family::GptJ => json!({
            "model_type": "gptj", "vocab_size": 19, "n_embd": 12, "n_layer": 2, "n_head": 2, "n_positions": 64,
            "n_inner": 10, "rotary_dim": 4, "initializer_range": 0.3,
        }),
        Family::Phi => llama(
            "phi",
            json!({"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 6, "partial_rotary_factor": 0.7}),
        ),
        Family::Phi3 => llama("phi3", json!({"partial_rotary_factor": 0.5})),
        Family::SmolLm3 => llama("smollm3", json!({"no_rope_layers": [1, 0]})),
        Family::Granite => llama(
            "granite",
            json!({
                "embedding_multiplier": 1.5, "residual_multiplier": 0.7, "attention_multiplier": 0.4,
                "logits_scaling": 1.7, "rms_norm_eps": 0.01,
            }),
        ),
        Family::Starcoder2 => llama("starcoder2", json!({"norm_epsilon": 0.01, "sliding_window": 4})),
        Family::Olmo2 => llama("olmo2", json!({"hidden_act": "gelu", "rms_norm_eps": 0.01})),
    };
    config(json)
}

/// A `config.json` as a [`Config`].
pub fn config(json: Value) -> Config {
    let Value::Object(json) = json else { panic!("a config is an object") };
    Config::from_json(json).expect("a config of the tests is right")
}

/// Puts the members of `more` into `json`.
pub fn merge(json: &mut Value, more: Value) {
    if let (Some(json), Value::Object(more)) = (json.as_object_mut(), more) {
        json.extend(more);
    }
}

/// Every family, for tests over all of them.
pub const FAMILIES: [Family; 16] = [
    Family::Llama,
    Family::Mistral,
    Family::Qwen2,
    Family::Qwen3,
    Family::Gemma,
    Family::Gemma2,
    Family::Gemma3,
    Family::Gpt2,
    Family::GptNeoX,
    Family::GptJ,
    Family::Phi,
    Family::Phi3,
    Family::SmolLm3,
    Family::Olmo2,
    Family::Granite,
    Family::Starcoder2,
];

/// Those whose head is the embedding where a config does not say.
pub const TIED_UNSAID: [Family; 6] =
    [Family::Gpt2, Family::Gemma, Family::Gemma2, Family::Gemma3, Family::SmolLm3, Family::Starcoder2];

/// The model of `config` with adapters.
pub fn adapted(config: Config, settings: LoraSettings) -> Config {
    let lora = Lora::of(settings, &config, false, true).expect("they fit");
    Config { lora: Some(lora), ..config }
}

/// A model on the host: what every backend is given, and what they are compared on.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its shape.
    pub config: Config,
    /// Every parameter, in the order of [`Model::iter`].
    pub weights: Vec<Vec<f64>>,
}

/// How a pass is done.
#[derive(Clone, Copy, Debug)]
pub struct How {
    /// The loss.
    pub objective: Objective,
    /// What the activations keep.
    pub keep: Keep,
    /// Rows of logits at a time.
    pub head_rows: usize,
}

impl How {
    /// `objective` with everything kept and room for all logits of the tests.
    pub fn new(objective: Objective) -> Self {
        How { objective, keep: Keep::All, head_rows: 512 }
    }
}

/// What a pass gives, exactly as the backend computed it.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Sum of the groups' losses.
    pub loss: f64,
    /// Statistics of every response.
    pub stats: Vec<ResponseStats>,
    /// Final hidden states of the last batch.
    pub hidden: Vec<f64>,
    /// Gradient of every parameter, in the order of [`Model::iter`].
    pub grads: Vec<Vec<f64>>,
}

impl Case {
    /// Weights around their fresh constants, large enough that nothing is linear.
    pub fn new(config: Config, seed: u64) -> Self {
        let mut random = Random(seed);
        let manifest = Model::manifest(&config);
        let fresh = |s: &Shape| {
            let scale = if s.vector { 0.3 } else { 1.5 / (s.cols as f64).sqrt() };
            (0..s.len()).map(|_| s.fill.unwrap_or(0.0) + scale * random.unit()).collect()
        };
        let weights = manifest.iter().into_iter().map(fresh).collect();
        Case { config, weights }
    }

    /// Shapes of the parameters.
    pub fn manifest(&self) -> Model<Shape> {
        Model::manifest(&self.config)
    }

    /// First name in a file of each parameter.
    pub fn names(&self) -> Vec<String> {
        self.manifest().iter().into_iter().map(|s| s.pieces[0].name.clone()).collect()
    }

    /// The weights on a backend, rounded to what it stores.
    pub fn upload<B: Backend>(&self, b: &B) -> Model<Real<B>> {
        let mut model = self.manifest().alloc::<B, B::Real>(b).expect("room for a test");
        for (buf, w) in model.iter_mut().into_iter().zip(&self.weights) {
            let host: Vec<B::Real> = w.iter().map(|&x| B::Real::from_f64(x)).collect();
            b.upload(buf, 0, &host);
        }
        model
    }

    /// Loss, statistics and hidden states of one batch: the forward alone.
    pub fn score<B: Backend>(&self, b: &B, batch: &Batch, how: How) -> Outcome {
        let weights = self.upload(b);
        let (layout, targets) = (batch.layout(b), batch.targets());
        let mut a = activations(b, &self.config, layout.rows, Keep::Nothing);
        duel_model::forward(b, &self.config, &weights, &layout, &mut a);
        let mut head = head(b, &self.config, how.head_rows);
        let rows = head.score(b, weights.view().lm_head(), &a.hidden, &targets).expect("the device works");
        let stats = targets.sums(rows);
        let (mut loss, mut first) = (0.0, 0);
        for group in &batch.scored {
            let stats = &stats[first..first + group.len()];
            loss += how.objective.loss(stats, &mut vec![0.0; group.len()]);
            first += group.len();
        }
        Outcome { loss, stats, hidden: host(b, &a.hidden), grads: Vec::new() }
    }

    /// Loss and gradients, summed over micro-batches.
    pub fn run<B: Backend>(&self, b: &B, batches: &[Batch], how: How) -> Outcome {
        let weights = self.upload(b);
        let mut grads = self.manifest().alloc::<B, B::Acc>(b).expect("room");
        let rows = batches.iter().map(|batch| batch.tokens.len()).max().unwrap_or(0);
        let mut a = activations(b, &self.config, rows, how.keep);
        let mut head = head(b, &self.config, how.head_rows);
        let mut out = Outcome { loss: 0.0, stats: Vec::new(), hidden: Vec::new(), grads: Vec::new() };
        for batch in batches {
            let stats =
                step(b, &self.config, &weights, &mut grads, &mut a, &mut head, batch, |stats, coefs| {
                    out.loss += how.objective.loss(stats, coefs);
                });
            out.stats.extend(stats);
        }
        out.hidden = host(b, &a.hidden);
        out.grads = grads.iter().into_iter().map(|g| host(b, g)).collect();
        out
    }

    /// Gradients of each batch as a step of its own, in the memory of one layer's, each read when it is whole.
    pub fn relayed<B: Backend>(&self, b: &B, batches: &[Batch], how: How) -> Vec<Vec<Vec<f64>>> {
        let weights = self.upload(b);
        let mut grads =
            Reader { grads: self.manifest().gradients(b, Keep::Relay).expect("room"), read: Vec::new() };
        let rows = batches.iter().map(|batch| batch.tokens.len()).max().unwrap_or(0);
        let mut a = activations(b, &self.config, rows, Keep::Relay);
        let mut head = head(b, &self.config, how.head_rows);
        let of_batch = |batch| {
            grads.grads.iter_mut().into_iter().for_each(|g| b.zero(g));
            grads.read.clear();
            step(b, &self.config, &weights, &mut grads, &mut a, &mut head, batch, |stats, coefs| {
                how.objective.loss(stats, coefs);
            });
            let mut all = grads.read(b);
            grads.read.iter().rev().enumerate().for_each(|(l, layer)| all.layers[l] = layer.clone());
            a.take_back(b, &mut grads);
            all.into_vec()
        };
        batches.iter().map(of_batch).collect()
    }

    /// Gradients of each batch as a step of its own, all in the memory that the activations lend.
    pub fn lent<B: Backend>(&self, b: &B, batches: &[Batch], how: How) -> Vec<Vec<Vec<f64>>> {
        let weights = self.upload(b);
        let mut grads = self.manifest().gradients(b, Keep::Lend).expect("room");
        let rows = batches.iter().map(|batch| batch.tokens.len()).max().unwrap_or(0);
        let mut a = activations(b, &self.config, rows, Keep::Lend);
        let mut head = head(b, &self.config, how.head_rows);
        let of_batch = |batch| {
            grads.iter_mut().into_iter().for_each(|g| b.zero(g));
            step(b, &self.config, &weights, &mut grads, &mut a, &mut head, batch, |stats, coefs| {
                how.objective.loss(stats, coefs);
            });
            let all = grads.iter().into_iter().map(|g| host(b, g)).collect();
            a.take_back(b, &mut grads);
            all
        };
        batches.iter().map(of_batch).collect()
    }
}

/// Gradients of which each layer's are read when they are whole.
struct Reader<B: Backend> {
    grads: Model<Acc<B>>,
    /// Those of layers, from the last to the first.
    read: Vec<Layer<Vec<f64>>>,
}

impl<B: Backend> Reader<B> {
    fn read(&self, b: &B) -> Model<Vec<f64>> {
        self.grads.as_ref().map(|g| host(b, g))
    }
}

impl<B: Backend> Gradients<B> for Reader<B> {
    fn view(&mut self) -> Model<Option<&mut Acc<B>>> {
        Gradients::<B>::view(&mut self.grads)
    }

    fn whole(&mut self, b: &B, layer: usize) {
        assert_eq!(layer + 1 + self.read.len(), self.grads.layers.len(), "from the last to the first");
        self.read.push(self.read(b).layers.swap_remove(layer));
    }
}

/// A model's head with room for so many rows of logits.
pub fn head<B: Backend>(b: &B, c: &Config, rows: usize) -> Head<B> {
    Head::new(b, c.width, c.vocab, rows).expect("room for a test").capped(c.logit_cap)
}

/// Activations for the tests' positions, all of which are below the config's longest.
pub fn activations<B: Backend>(b: &B, c: &Config, rows: usize, keep: Keep) -> Activations<B> {
    Activations::new(b, c, rows, c.max_positions, keep).expect("room for a test")
}

/// Forward, loss and backward of one batch; gradients are added.
pub fn step<B: Backend>(
    b: &B,
    config: &Config,
    weights: &Model<Real<B>>,
    grads: &mut impl Gradients<B>,
    a: &mut Activations<B>,
    head: &mut Head<B>,
    batch: &Batch,
    mut objective: impl FnMut(&[ResponseStats], &mut [f64]),
) -> Vec<ResponseStats> {
    let (layout, targets) = (batch.layout(b), batch.targets());
    duel_model::forward(b, config, weights, &layout, a);
    b.zero(&mut a.dhidden);
    let of = targets.by_response(|_, stats, slopes| objective(stats, slopes));
    let (w, mut dw) = (weights.view().lm_head(), grads.view());
    let rows = head.loss(b, w, dw.lm_head_mut(), &a.hidden, &mut a.dhidden, &targets, of);
    let stats = targets.sums(rows.expect("the device works"));
    duel_model::backward_pass(b, config, weights, grads, &layout, a, true);
    stats
}

/// Logits of every row of `hidden`.
pub fn logits<B: Backend>(
    b: &B,
    c: &Config,
    weights: &Model<Real<B>>,
    a: &Activations<B>,
    rows: usize,
) -> Vec<f64> {
    let mut y = b.alloc(rows * c.vocab).expect("room for a test");
    let head = weights.view().lm_head();
    b.gemm(&mut y, &a.hidden, head.weight, head.bias, None, Gemm::dense(rows, c.vocab, c.width));
    if let Some(cap) = c.logit_cap {
        b.soft_cap(&mut y, cap, Logits::dense(rows, c.vocab));
    }
    host(b, &y)
}

/// A buffer on the host; widening is exact, so equal numbers are equal bits.
pub fn host<B: Backend, T: Float>(b: &B, buf: &B::Buf<T>) -> Vec<f64> {
    let mut host = vec![T::default(); b.len(buf)];
    b.download(&mut host, buf, 0).expect("the device works");
    host.into_iter().map(T::to_f64).collect()
}

/// Euclidean norm.
pub fn norm(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// Euclidean distance of `a` and `b`, relative to the norm of `b`.
///
/// # Panics
/// When the lengths differ.
pub fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    norm(&a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<_>>()) / norm(b).max(f64::MIN_POSITIVE)
}

/// A safetensors file taken apart, so that tests can look into it and tell lies in it.
#[derive(Clone, Debug)]
pub struct TensorFile {
    /// Name to `{dtype, shape, data_offsets}`.
    pub header: Map<String, Value>,
    /// Everything after the header.
    pub data: Vec<u8>,
}

impl TensorFile {
    /// Reads a whole and right file.
    pub fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).expect("a readable file");
        let (size, rest) = bytes.split_first_chunk().expect("a size");
        let (header, data) = rest.split_at(u64::from_le_bytes(*size) as usize);
        TensorFile { header: serde_json::from_slice(header).expect("a JSON header"), data: data.to_vec() }
    }

    /// The bytes of the file, whether they make sense or not.
    pub fn bytes(&self) -> Vec<u8> {
        let mut header = Value::Object(self.header.clone()).to_string().into_bytes();
        header.resize(header.len().next_multiple_of(8), b' ');
        [&(header.len() as u64).to_le_bytes()[..], &header, &self.data].concat()
    }

    /// Names of the tensors, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.header.keys().filter(|n| *n != "__metadata__").cloned().collect();
        names.sort();
        names
    }

    /// Where the bytes of a tensor are.
    pub fn range(&self, name: &str) -> Range<usize> {
        let at = |i: usize| self.header[name]["data_offsets"][i].as_u64().expect("an offset") as usize;
        at(0)..at(1)
    }

    /// The bytes of a tensor.
    pub fn tensor(&self, name: &str) -> &[u8] {
        &self.data[self.range(name)]
    }

    /// Adds a tensor of single-precision zeros.
    pub fn add(&mut self, name: &str, shape: &[usize]) {
        let from = self.data.len();
        self.data.resize(from + 4 * shape.iter().product::<usize>(), 0);
        let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": [from, self.data.len()]});
        self.header.insert(name.into(), entry);
    }

    /// Gives a tensor another name.
    pub fn rename(&mut self, name: &str, to: &str) {
        let entry = self.header.remove(name).expect("a tensor of this name");
        self.header.insert(to.into(), entry);
    }

    /// A file of the given tensors of this one, each converted to `dtype` by `f`, in order.
    pub fn select(&self, names: &[String], dtype: &str, f: impl Fn(&[u8]) -> Vec<u8>) -> Self {
        let mut out = TensorFile { header: Map::new(), data: Vec::new() };
        for name in names {
            let from = out.data.len();
            out.data.extend(f(self.tensor(name)));
            let shape = self.header[name]["shape"].clone();
            let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": [from, out.data.len()]});
            out.header.insert(name.clone(), entry);
        }
        out
    }
}
