use crate::family::{Family, Output};
use crate::keys::{Keys, Read};
use crate::plural::counted;
use crate::quantised;
use crate::rope::Rope;
use crate::score;
use duel_backend::Heads;
use serde_json::{Map, Value};

/// Kind of every norm in the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// Root mean square, weight only.
    Rms,
    /// Mean and variance, weight and bias.
    Layer,
}

/// Feed-forward of every layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mlp {
    /// `down(silu(gate x) · up x)`.
    SwiGlu,
    /// `down(gelu(up x))`, the tanh form.
    Gelu,
}

/// Shape of a decoder-only transformer, as its `config.json` describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Family.
    pub family: Family,
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
    /// Kind of norm.
    pub norm: NormKind,
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
    /// RMSNorm on query and key heads.
    pub qk_norm: bool,
    /// Standard deviation of fresh weights.
    pub init_range: f64,
    /// The file as it was read: what is saved again beside changed weights.
    pub json: Map<String, Value>,
}

impl Config {
    /// Interprets the content of a `config.json`. Only the weights tell whether a tied model is really one, so a
    /// folder is read with [`crate::Folder::open`].
    ///
    /// # Errors
    /// What is wrong, without the file's name.
    pub fn from_json(json: Map<String, Value>) -> Result<Self, String> {
        let keys = Keys::new(&json);
        quantised::refuse_config(keys)?;
        if keys.object("per_layer_config")?.is_some_and(|layers| !layers.is_empty()) {
            return Err(
                "`per_layer_config` is there; layers that differ from each other are not known".into()
            );
        }
        let config = match keys.text("model_type")?.unwrap_or_default() {
            "llama" => Self::llama(Family::Llama, keys),
            "qwen2" => Self::llama(Family::Qwen2, keys),
            "qwen3" => Self::llama(Family::Qwen3, keys),
            "gpt2" => Self::gpt2(keys),
            "" => Err(match keys.list("architectures")?.and_then(|all| all.first()?.as_str()) {
                Some(class) => format!(
                    "has no `model_type`, and its architecture is {class}; add the `model_type`, one of llama, qwen2, \
                     qwen3 and gpt2"
                ),
                None => "has no `model_type`; duel knows llama, qwen2, qwen3 and gpt2".into(),
            }),
            other => {
                Err(format!("architecture `{other}` is not known; duel knows llama, qwen2, qwen3 and gpt2"))
            }
        }?;
        config.check()?;
        Ok(Config { output: score::read(keys, &json)?, json, ..config })
    }

    fn llama(family: Family, keys: Keys) -> Read<Self> {
        if let Some(act) = keys.text("hidden_act")?.filter(|a| !["silu", "swish"].contains(a)) {
            return Err(format!("`hidden_act` is `{act}`; only silu is known for this architecture"));
        }
        let layers = keys.need("num_hidden_layers")?;
        refuse_windows(keys, layers)?;
        let width = keys.need("hidden_size")?;
        let heads = keys.need("num_attention_heads")?;
        if heads == 0 {
            return Err("`num_attention_heads` is 0".into());
        }
        let kv_heads = match keys.count("num_key_value_heads")? {
            Some(n) => n,
            None if family == Family::Llama || keys.is_null("num_key_value_heads") => heads,
            None => 32,
        };
        let head_dim = match keys.count("head_dim")? {
            Some(n) => n,
            None if family == Family::Qwen3 => 128,
            None => width / heads,
        };
        let max_positions = keys.need("max_position_embeddings")?;
        let attention_bias = keys.flag("attention_bias")?.unwrap_or(false);
        Ok(Config {
            family,
            vocab: keys.need("vocab_size")?,
            width,
            mlp_width: keys.need("intermediate_size")?,
            layers,
            heads: Heads { heads, kv_heads, head_dim },
            max_positions,
            eps: keys.number("rms_norm_eps")?.unwrap_or(1e-6),
            rope: Some(Rope::read(keys, max_positions)?),
            norm: NormKind::Rms,
            mlp: Mlp::SwiGlu,
            output: Output::Logits,
            tied: keys.flag("tie_word_embeddings")?.unwrap_or(false),
            qkv_bias: attention_bias || family == Family::Qwen2,
            out_bias: attention_bias && family != Family::Qwen2,
            mlp_bias: keys.flag("mlp_bias")?.unwrap_or(false) && family == Family::Llama,
            qk_norm: family == Family::Qwen3,
            init_range: keys.number("initializer_range")?.unwrap_or(0.02),
            json: Map::new(),
        })
    }

    fn gpt2(keys: Keys) -> Read<Self> {
        let tanh = ["gelu_new", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_fast", "gelu_accurate"];
        if let Some(act) = keys.text("activation_function")?.filter(|a| !tanh.contains(a)) {
            return Err(format!(
                "`activation_function` is `{act}`; only gelu_new is known for this architecture"
            ));
        }
        if keys.flag("scale_attn_weights")? == Some(false)
            || keys.flag("scale_attn_by_inverse_layer_idx")? == Some(true)
        {
            return Err("attention scaled in another way than 1/sqrt(head_dim) is not known".into());
        }
        // transformers writes the common name onto the old one after it has read that.
        let width = keys.need(keys.either("hidden_size", "n_embd"))?;
        let heads = keys.need(keys.either("num_attention_heads", "n_head"))?;
        if heads == 0 || !width.is_multiple_of(heads) {
            return Err(format!("`n_embd` {width} is not a multiple of `n_head` {heads}"));
        }
        Ok(Config {
            family: Family::Gpt2,
            vocab: keys.need("vocab_size")?,
            width,
            mlp_width: keys.count("n_inner")?.unwrap_or(width.saturating_mul(4)),
            layers: keys.need(keys.either("num_hidden_layers", "n_layer"))?,
            heads: Heads { heads, kv_heads: heads, head_dim: width / heads },
            max_positions: keys.need(keys.either("max_position_embeddings", "n_positions"))?,
            eps: keys.number("layer_norm_epsilon")?.unwrap_or(1e-5),
            rope: None,
            norm: NormKind::Layer,
            mlp: Mlp::Gelu,
            output: Output::Logits,
            tied: keys.flag("tie_word_embeddings")?.unwrap_or(true),
            qkv_bias: true,
            out_bias: true,
            mlp_bias: true,
            qk_norm: false,
            init_range: keys.number("initializer_range")?.unwrap_or(0.02),
            json: Map::new(),
        })
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
        if let Some(rope) = self.rope {
            rope.write(&mut json);
        }
        if self.output == Output::Score {
            score::write(self.family, &mut json, self.pad_token());
        }
        json
    }

    /// The same model with a scalar head in the place of the language model's.
    pub fn with_score(self) -> Self {
        Config { output: Output::Score, ..self }
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
        *self == Config { json: self.json.clone(), ..other.clone() }
    }

    fn check(&self) -> Read<()> {
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
        for (name, n, most) in bounds.chain([("the number of layers", self.layers, 1 << 12)]) {
            if n == 0 || n > most {
                return Err(format!("{name} is {n}, which cannot be"));
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

    /// `[max_positions, head_dim]`: half cosines, half sines a position, for [`duel_backend::Attention::rope`].
    pub fn rope_table(&self, positions: usize) -> Vec<f64> {
        let Some(rope) = self.rope else { return Vec::new() };
        let frequencies = rope.frequencies(self.heads.head_dim);
        (0..positions)
            .flat_map(|p| {
                let angles = frequencies.iter().map(move |f| p as f64 * f);
                angles.clone().map(f64::cos).chain(angles.map(f64::sin))
            })
            .collect()
    }
}

/// Sliding windows are not known, so each layer's attention must be full by the rules of transformers: `layer_types`
/// where it is there, otherwise a window that is switched on for some of the layers.
fn refuse_windows(keys: Keys, layers: usize) -> Read<()> {
    if let Some(types) = keys.list("layer_types")? {
        if types.len() != layers {
            return Err(format!(
                "`layer_types` has {} for {}",
                counted(types.len(), "entry", "entries"),
                counted(layers, "layer", "layers")
            ));
        }
        return match types.iter().find(|t| *t != "full_attention") {
            Some(other) => Err(format!("`layer_types` has {other}; only full_attention is known")),
            None => Ok(()),
        };
    }
    let on = keys.flag("use_sliding_window")? == Some(true) && !keys.is_null("sliding_window");
    if on && keys.count("max_window_layers")?.unwrap_or(28) < layers {
        return Err("`use_sliding_window` is true; sliding windows are not known".into());
    }
    Ok(())
}
