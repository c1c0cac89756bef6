use crate::family::{Family, Output};
use crate::keys::{Keys, Read};
use crate::lora::Lora;
use crate::plural::counted;
use crate::rope::Rope;
use crate::score;
use crate::tensors::Names;
use crate::weights::Shape;
use duel_backend::{Activation, Backend, Float, Heads, Scores};
use serde_json::{Map, Value};

/// More layers no model has.
pub(crate) const MOST_LAYERS: usize = 1 << 12;

/// Kind of every norm in the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// Root mean square, weight only.
    Rms,
    /// The same, and files hold the factors less 1 (Gemma).
    RmsPlusOne,
    /// Mean and variance, weight and bias.
    Layer,
}

/// Where a layer's norms stand, and how its two halves meet: `attn` and `mlp` are the branches, `n` a norm each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// `m = x + attn(n(x))`, `y = m + mlp(n(m))`.
    Pre,
    /// `m = x + n(attn(n(x)))`, `y = m + n(mlp(n(m)))` (Gemma 2).
    PreAndPost,
    /// `m = x + n(attn(x))`, `y = m + n(mlp(m))` (OLMo 2).
    Post,
    /// `y = x + attn(n(x)) + mlp(n(x))`, two norms (GPT-NeoX).
    Parallel,
    /// The same with one norm for both (GPT-J).
    ParallelOneNorm,
}

impl Block {
    /// Whether the attention reads what a norm made.
    pub(crate) fn has_pre(self) -> bool {
        self != Block::Post
    }

    /// Whether the feed-forward reads what a norm of its own made.
    pub(crate) fn has_mlp_norm(self) -> bool {
        !matches!(self, Block::Post | Block::ParallelOneNorm)
    }

    /// Whether branches go through a norm before they are added.
    pub(crate) fn has_post(self) -> bool {
        matches!(self, Block::PreAndPost | Block::Post)
    }

    /// Whether both branches read the layer's input.
    pub(crate) fn is_parallel(self) -> bool {
        matches!(self, Block::Parallel | Block::ParallelOneNorm)
    }
}

/// Feed-forward of every layer: `down(f(gate x) · up x)`, or `down(f(up x))`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mlp {
    /// Whether there is a gate.
    pub gated: bool,
    /// `f`.
    pub activation: Activation,
}

/// The norm of queries and keys. An RMSNorm's weights are the same kind as the other norms'.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNorm {
    /// RMSNorm of every head alone, with one weight for all query heads and one for all key heads.
    Heads,
    /// RMSNorm of all query heads at once, and all key heads (OLMo 2).
    Whole,
    /// LayerNorm of every head alone, with one weight and one offset for all query heads and for all key heads (Phi).
    LayerNorms,
}

/// What rows of the embedding are multiplied by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum EmbedScale {
    /// The factor as it is.
    Exact(f64),
    /// The factor rounded to the type of the weights (Gemma).
    Rounded(f64),
}

impl EmbedScale {
    /// The factor for weights of type `R`.
    pub(crate) fn of<R: Float>(self) -> f64 {
        match self {
            EmbedScale::Exact(factor) => factor,
            EmbedScale::Rounded(factor) => R::from_f64(factor).to_f64(),
        }
    }
}

/// In which way a layer differs from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerKind {
    /// How its queries and keys get their positions.
    pub turns: Turns,
    /// So many positions a token sees, its own the last; `None` means all.
    pub window: Option<usize>,
}

/// How queries and keys of a layer get their positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turns {
    /// Not at all, or with the embedding.
    Not,
    /// By [`Config::rope`].
    Rope,
    /// By [`Config::local_rope`].
    LocalRope,
}

/// Positions by [`Config::rope`], where there are any.
impl Default for LayerKind {
    fn default() -> Self {
        LayerKind { turns: Turns::Rope, window: None }
    }
}

/// Shape of a decoder-only transformer, as its `config.json` describes it: all that the graph reads. What a family is
/// lies here and in its [`Names`], nowhere in the graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Family.
    pub family: Family,
    /// What its tensors are called, and how files hold them.
    pub names: &'static Names,
    /// Rows of the embedding and of the head.
    pub vocab: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Width of the feed-forward.
    pub mlp_width: usize,
    /// Layers.
    pub layers: usize,
    /// Heads of the attention.
    pub heads: Heads,
    /// Longest sequence.
    pub max_positions: usize,
    /// Added in every norm.
    pub eps: f64,
    /// Rotary positions; `None` means learned ones.
    pub rope: Option<Rope>,
    /// Those of layers with [`Turns::LocalRope`].
    pub local_rope: Option<Rope>,
    /// What layers are like, over and over: layer `l` is `kinds[l % kinds.len()]`.
    pub kinds: Vec<LayerKind>,
    /// Kind of norm.
    pub norm: NormKind,
    /// Where norms stand.
    pub block: Block,
    /// Kind of feed-forward.
    pub mlp: Mlp,
    /// What the hidden states become: which head there is.
    pub output: Output,
    /// Whether the language model's head is the embedding.
    pub tied: bool,
    /// Biases on queries, keys and values.
    pub qkv_bias: bool,
    /// Bias on the attention's output.
    pub out_bias: bool,
    /// Biases in the feed-forward.
    pub mlp_bias: bool,
    /// Bias of the language model's head.
    pub head_bias: bool,
    /// Norm of queries and keys, before their positions.
    pub qk_norm: Option<QkNorm>,
    /// What rows of the embedding are multiplied by.
    pub embed_scale: Option<EmbedScale>,
    /// What the language model's head reads is multiplied by: the final hidden states.
    pub hidden_scale: Option<f64>,
    /// What products of queries and keys are multiplied by; `None` means `1/sqrt(head_dim)`.
    pub score_scale: Option<f64>,
    /// Soft cap of attention's scores.
    pub score_cap: Option<f64>,
    /// Soft cap of the logits.
    pub logit_cap: Option<f64>,
    /// Standard deviation of fresh weights.
    pub init_range: f64,
    /// Adapters beside the maps of the layers, which are trained in the place of what they are beside.
    pub lora: Option<Lora>,
    /// The file as it was read: what is saved again beside changed weights.
    pub json: Map<String, Value>,
}

impl Config {
    /// What layer `l` is like.
    pub fn kind(&self, l: usize) -> LayerKind {
        self.kinds[l % self.kinds.len()]
    }

    /// Tokens of the longest sequence whose positions turn as those of short ones do, where longer ones turn in another
    /// way: all of a group are on one side of it.
    pub fn longest_short(&self) -> Option<usize> {
        self.rope.as_ref().and_then(Rope::longest_short)
    }

    /// What attention of layer `l` makes of its products, in sequences of up to `positions`.
    pub fn scores(&self, l: usize, positions: usize) -> Scores {
        let usual = self.heads.scores();
        let scale = self.score_scale.unwrap_or(usual.scale);
        Scores { scale, cap: self.score_cap, window: self.kind(l).window }.within(positions)
    }

    /// Whether the device has verbs for sequences of up to `positions`.
    ///
    /// # Errors
    /// What it lacks.
    pub fn check_device<B: Backend>(&self, b: &B, positions: usize) -> duel_backend::Result<()> {
        let scores = || (0..self.layers).map(|l| self.scores(l, positions));
        let window = scores().find_map(|s| s.window).filter(|_| !B::WINDOWS_AND_CAPS);
        let cap = self.score_cap.filter(|_| !B::WINDOWS_AND_CAPS);
        let fewer = self.qk_norm == Some(QkNorm::Whole) && self.heads.ratio() > 1;
        let lacking = [
            (self.qk_norm == Some(QkNorm::LayerNorms) && !B::LAYERNORMS_OF_HEADS)
                .then(|| "a LayerNorm of query and key heads (`qk_layernorm`)".into()),
            (fewer && !B::WHOLE_OF_FEWER_KEYS).then(|| "a norm of all queries and of fewer keys".into()),
            (self.head_bias && !self.vocab.is_multiple_of(b.portions().logits_multiple))
                .then(|| format!("the bias of a head of {} words", self.vocab)),
            window.map(|n| format!("attention that sees {n} of {positions} positions (`sliding_window`)")),
            cap.map(|_| "attention whose scores have a soft cap (`attn_logit_softcapping`)".into()),
        ];
        let Some(what) = lacking.into_iter().flatten().next() else { return Ok(()) };
        let shorter = if window.is_some() && cap.is_none() { ", or shorter sequences" } else { "" };
        Err(duel_backend::Error::NoDevice(format!(
            "{} has no kernels for {what}; take the CPU{shorter}",
            b.describe()
        )))
    }

    /// Outputs of the first half of the feed-forward.
    pub fn up_width(&self) -> usize {
        if self.mlp.gated { 2 * self.mlp_width } else { self.mlp_width }
    }

    /// The file that describes this model in every version of transformers, with weights of the given type.
    pub(crate) fn saved(&self, dtype: &str) -> Map<String, Value> {
        let mut json = self.json.clone();
        if json.contains_key("torch_dtype") {
            json.insert("torch_dtype".into(), dtype.into());
        }
        if json.contains_key("dtype") || !json.contains_key("torch_dtype") {
            json.insert("dtype".into(), dtype.into());
        }
        json.insert("tie_word_embeddings".into(), self.tied.into());
        if let (Some(rope), Some(names)) = (&self.rope, self.names.rope) {
            rope.write(self.local_rope.as_ref(), &mut json, names, self.heads.head_dim);
        }
        if self.output == Output::Score {
            score::write(self.names, &mut json, self.pad_token());
        }
        json
    }

    /// The same model with a scalar head in the place of the language model's.
    pub fn with_score(self) -> Self {
        Config { output: Output::Score, hidden_scale: None, ..self }
    }

    /// The token that pads a batch, which a model with a scalar head is saved with: the file's, or else the first that
    /// ends no text. transformers reads the score at the last token that is not the padding, so that where texts end
    /// and are padded with the same token it would read the row before the one that was learned.
    pub fn pad_token(&self) -> Option<u64> {
        let keys = Keys::new(&self.json);
        let ends: Vec<u64> = match keys.get("eos_token_id") {
            Some(Value::Array(ids)) => ids.iter().filter_map(Value::as_u64).collect(),
            id => id.and_then(Value::as_u64).into_iter().collect(),
        };
        let pad = keys.get("pad_token_id").and_then(Value::as_u64).filter(|id| !ends.contains(id));
        pad.or_else(|| (0..).find(|id| !ends.contains(id)).filter(|_| !ends.is_empty()))
    }

    /// Whether both are one and the same model, in whatever words their files say so.
    pub fn is_like(&self, other: &Self) -> bool {
        let same = match (&self.lora, &other.lora) {
            (Some(own), Some(other)) => own.is_like(other),
            (own, other) => own.is_some() == other.is_some(),
        };
        same && *self == Config { json: self.json.clone(), lora: self.lora.clone(), ..other.clone() }
    }

    /// Whether a parameter is trained: all are, or where there are adapters those alone, with what goes with them.
    pub fn trains(&self, shape: &Shape) -> bool {
        self.lora.as_ref().is_none_or(|lora| lora.trains(shape))
    }

    pub(crate) fn check(&self) -> Read<()> {
        let Heads { heads, kv_heads, head_dim } = self.heads;
        let sizes = [
            ("the vocabulary", self.vocab),
            ("the width", self.width),
            ("the feed-forward's width", self.mlp_width),
            ("the number of query heads", heads),
            ("the number of key/value heads", kv_heads),
            ("the head's width", head_dim),
            ("the width of all heads", heads.saturating_mul(head_dim)),
            ("the longest position", self.max_positions),
        ];
        // Products of these are buffer lengths, and every layer has a list of names: nothing real comes near these
        // bounds, a lying file does.
        let bounds = sizes.map(|(name, n)| (name, n, 1 << 28)).into_iter();
        for (name, n, most) in bounds.chain([("the number of layers", self.layers, MOST_LAYERS)]) {
            if n == 0 || n > most {
                return Err(format!("{name} is {n}, which cannot be"));
            }
        }
        // Far from what a float holds, with room for products.
        let embed_scale = self.embed_scale.map(|scale| scale.of::<f64>());
        let factors = [
            ("the scale of the embedding", embed_scale),
            ("the scale of hidden states", self.hidden_scale),
            ("the scale of scores", self.score_scale),
            ("the cap of scores", self.score_cap),
            ("the cap of logits", self.logit_cap),
        ];
        for (name, factor) in factors {
            if let Some(x) = factor.filter(|x| !(1e-6..=1e6).contains(x)) {
                return Err(format!("{name} is {x:e}, which cannot be"));
            }
        }
        if !heads.is_multiple_of(kv_heads) {
            return Err(format!(
                "{} cannot share {} evenly",
                counted(heads, "query head", "query heads"),
                counted(kv_heads, "key/value head", "key/value heads")
            ));
        }
        if self.rope.is_some() && !head_dim.is_multiple_of(2) {
            return Err(format!("rotary positions need an even head_dim, not {head_dim}"));
        }
        Ok(())
    }
}
