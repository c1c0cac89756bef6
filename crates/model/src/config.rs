use crate::error::{Error, Result};
use duel_backend::Heads;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::path::Path;

/// Family of a model: decides tensor names and the parts that configs do not mention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Llama and the models that share its graph.
    Llama,
    /// Llama with biases on queries, keys and values.
    Qwen2,
    /// Llama with an RMSNorm on every query and key head.
    Qwen3,
    /// GPT-2.
    Gpt2,
}

/// How rotary frequencies are stretched for long contexts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    Plain,
    /// Positions divided by a factor.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Llama 3: low frequencies divided by `factor`, high ones kept, a ramp between.
    Llama3 {
        /// The divisor of low frequencies.
        factor: f64,
        /// Wavelengths above `original / low_freq_factor` are low frequencies.
        low_freq_factor: f64,
        /// Wavelengths below `original / high_freq_factor` are high frequencies.
        high_freq_factor: f64,
        /// Context length before the stretch.
        original: f64,
    },
}

/// Rotary position embedding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f64,
    /// Stretch for long contexts.
    pub scaling: RopeScaling,
}

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
    /// Whether the head is the embedding.
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

#[derive(Deserialize)]
struct LlamaJson {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    max_position_embeddings: usize,
    rms_norm_eps: Option<f64>,
    rope_theta: Option<f64>,
    rope_scaling: Option<RopeJson>,
    rope_parameters: Option<RopeJson>,
    hidden_act: Option<String>,
    tie_word_embeddings: Option<bool>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    use_sliding_window: Option<bool>,
    initializer_range: Option<f64>,
}

#[derive(Deserialize)]
struct RopeJson {
    rope_theta: Option<f64>,
    #[serde(alias = "type")]
    rope_type: Option<String>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
}

#[derive(Deserialize)]
struct Gpt2Json {
    vocab_size: usize,
    n_embd: usize,
    n_layer: usize,
    n_head: usize,
    n_positions: usize,
    n_inner: Option<usize>,
    layer_norm_epsilon: Option<f64>,
    activation_function: Option<String>,
    scale_attn_weights: Option<bool>,
    scale_attn_by_inverse_layer_idx: Option<bool>,
    tie_word_embeddings: Option<bool>,
    initializer_range: Option<f64>,
}

impl Config {
    /// Reads `config.json` of a model folder.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        let path = dir.join("config.json");
        let text = std::fs::read_to_string(&path).map_err(|e| {
            Error::file(&path, format!("cannot be read ({e}); --model needs a Hugging Face folder"))
        })?;
        let json = serde_json::from_str(&text)
            .map_err(|e| Error::file(&path, format!("is not a JSON object: {e}")))?;
        Self::from_json(json).map_err(|what| Error::file(&path, what))
    }

    /// Interprets the content of a `config.json`. The error says what is wrong, without the file's name.
    pub fn from_json(json: Map<String, Value>) -> std::result::Result<Self, String> {
        let model_type = json.get("model_type").and_then(Value::as_str).unwrap_or_default().to_string();
        let config = match model_type.as_str() {
            "llama" => Self::llama(Family::Llama, json),
            "qwen2" => Self::llama(Family::Qwen2, json),
            "qwen3" => Self::llama(Family::Qwen3, json),
            "gpt2" => Self::gpt2(json),
            "" => Err("has no `model_type`; duel knows llama, qwen2, qwen3 and gpt2".into()),
            other => {
                Err(format!("architecture `{other}` is not known; duel knows llama, qwen2, qwen3 and gpt2"))
            }
        }?;
        config.check()?;
        Ok(config)
    }

    fn llama(family: Family, json: Map<String, Value>) -> std::result::Result<Self, String> {
        let c: LlamaJson = serde_json::from_value(Value::Object(json.clone())).map_err(|e| e.to_string())?;
        if let Some(act) = c.hidden_act.as_deref().filter(|a| *a != "silu") {
            return Err(format!("`hidden_act` is `{act}`; only silu is known for this architecture"));
        }
        if c.use_sliding_window == Some(true) {
            return Err("`use_sliding_window` is true; sliding windows are not known".into());
        }
        if c.num_attention_heads == 0 {
            return Err("`num_attention_heads` is 0".into());
        }
        let attention_bias = c.attention_bias.unwrap_or(false);
        let scaling = c.rope_parameters.as_ref().or(c.rope_scaling.as_ref());
        let theta = c.rope_theta.or(scaling.and_then(|r| r.rope_theta)).unwrap_or(10_000.0);
        let scaling = match scaling {
            None => RopeScaling::Plain,
            Some(r) => {
                let need =
                    |x: Option<f64>, key: &str| x.ok_or_else(|| format!("the rope scaling lacks `{key}`"));
                match r.rope_type.as_deref().unwrap_or("default") {
                    "default" => RopeScaling::Plain,
                    "linear" => RopeScaling::Linear { factor: need(r.factor, "factor")? },
                    "llama3" => RopeScaling::Llama3 {
                        factor: need(r.factor, "factor")?,
                        low_freq_factor: need(r.low_freq_factor, "low_freq_factor")?,
                        high_freq_factor: need(r.high_freq_factor, "high_freq_factor")?,
                        original: need(
                            r.original_max_position_embeddings,
                            "original_max_position_embeddings",
                        )?,
                    },
                    other => {
                        return Err(format!(
                            "rope type `{other}` is not known; duel knows default, linear and llama3"
                        ));
                    }
                }
            }
        };
        Ok(Config {
            family,
            vocab: c.vocab_size,
            width: c.hidden_size,
            mlp_width: c.intermediate_size,
            layers: c.num_hidden_layers,
            heads: Heads {
                heads: c.num_attention_heads,
                kv_heads: c.num_key_value_heads.unwrap_or(c.num_attention_heads),
                head_dim: c.head_dim.unwrap_or(c.hidden_size / c.num_attention_heads),
            },
            max_positions: c.max_position_embeddings,
            eps: c.rms_norm_eps.unwrap_or(1e-6),
            rope: Some(Rope { theta, scaling }),
            norm: NormKind::Rms,
            mlp: Mlp::SwiGlu,
            tied: c.tie_word_embeddings.unwrap_or(false),
            qkv_bias: attention_bias || family == Family::Qwen2,
            out_bias: attention_bias && family != Family::Qwen2,
            mlp_bias: c.mlp_bias.unwrap_or(false),
            qk_norm: family == Family::Qwen3,
            init_range: c.initializer_range.unwrap_or(0.02),
            json,
        })
    }

    fn gpt2(json: Map<String, Value>) -> std::result::Result<Self, String> {
        let c: Gpt2Json = serde_json::from_value(Value::Object(json.clone())).map_err(|e| e.to_string())?;
        if let Some(act) =
            c.activation_function.as_deref().filter(|a| !["gelu_new", "gelu_pytorch_tanh"].contains(a))
        {
            return Err(format!(
                "`activation_function` is `{act}`; only gelu_new is known for this architecture"
            ));
        }
        if c.scale_attn_weights == Some(false) || c.scale_attn_by_inverse_layer_idx == Some(true) {
            return Err("attention scaled in another way than 1/sqrt(head_dim) is not known".into());
        }
        if c.n_head == 0 || !c.n_embd.is_multiple_of(c.n_head) {
            return Err("`n_embd` is not a multiple of `n_head`".into());
        }
        Ok(Config {
            family: Family::Gpt2,
            vocab: c.vocab_size,
            width: c.n_embd,
            mlp_width: c.n_inner.unwrap_or(c.n_embd.saturating_mul(4)),
            layers: c.n_layer,
            heads: Heads { heads: c.n_head, kv_heads: c.n_head, head_dim: c.n_embd / c.n_head },
            max_positions: c.n_positions,
            eps: c.layer_norm_epsilon.unwrap_or(1e-5),
            rope: None,
            norm: NormKind::Layer,
            mlp: Mlp::Gelu,
            tied: c.tie_word_embeddings.unwrap_or(true),
            qkv_bias: true,
            out_bias: true,
            mlp_bias: true,
            qk_norm: false,
            init_range: c.initializer_range.unwrap_or(0.02),
            json,
        })
    }

    fn check(&self) -> std::result::Result<(), String> {
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
            return Err(format!("{heads} query heads cannot share {kv_heads} key/value heads evenly"));
        }
        if self.rope.is_some() && !head_dim.is_multiple_of(2) {
            return Err(format!("rotary positions need an even head_dim, not {head_dim}"));
        }
        Ok(())
    }

    /// `[max_positions, head_dim]`: half cosines, half sines a position, for [`duel_backend::Backend::rope`].
    pub fn rope_table(&self, positions: usize) -> Vec<f64> {
        let Some(rope) = self.rope else { return Vec::new() };
        let hd = self.heads.head_dim;
        let frequencies: Vec<f64> = (0..hd / 2)
            .map(|i| {
                let f = rope.theta.powf(-2.0 * i as f64 / hd as f64);
                match rope.scaling {
                    RopeScaling::Plain => f,
                    RopeScaling::Linear { factor } => f / factor,
                    RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original } => {
                        let wavelength = 2.0 * std::f64::consts::PI / f;
                        if wavelength < original / high_freq_factor {
                            f
                        } else if wavelength > original / low_freq_factor {
                            f / factor
                        } else {
                            let smooth = (original / wavelength - low_freq_factor)
                                / (high_freq_factor - low_freq_factor);
                            (1.0 - smooth) * f / factor + smooth * f
                        }
                    }
                }
            })
            .collect();
        (0..positions)
            .flat_map(|p| {
                let angles = frequencies.iter().map(move |f| p as f64 * f);
                angles.clone().map(f64::cos).chain(angles.map(f64::sin))
            })
            .collect()
    }
}
