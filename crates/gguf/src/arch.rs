//! What llama.cpp calls each family, what its graph of it has, and the keys that describe a model to it.

use crate::file::{Entry, Value};
use crate::rope::positions;
use duel_backend::Activation;
use duel_model::{Block, Config, EmbedScale, Family, NormKind, Output, QkNorm, Turns};

/// How rows of the maps to queries, keys and values stand in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rows {
    /// As files of transformers have them.
    AsStored,
    /// Of each query and key head, the two elements of a pair that turns beside each other.
    Pairs,
    /// All queries, all keys, all values, where files of transformers have a head's three beside each other.
    ByKind,
}

/// Whether there is something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum There {
    Never,
    Maybe,
    Always,
}
use There::{Always, Maybe, Never};

/// An architecture of llama.cpp.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arch {
    /// Its name, which its keys begin with.
    pub name: &'static str,
    pub rows: Rows,
    /// Biases of queries, keys and values, of the attention's output, of the feed-forward.
    biases: [There; 3],
    /// A head beside the embedding. Where it is always there, that of a tied model is a copy.
    head: There,
    /// Heads need not be as wide together as the residual stream.
    wide: bool,
    activation: Activation,
    /// Positions stretched by yarn are the model's.
    pub yarn: bool,
    /// There is a tensor of divisors of frequencies.
    pub divisors: bool,
    /// There are two of them, for short and for long sequences.
    pub longrope: bool,
    /// The context before a stretch has to be said.
    pub original_length: bool,
}

const LLAMA: Arch = Arch {
    name: "llama",
    rows: Rows::Pairs,
    biases: [Maybe; 3],
    head: Maybe,
    wide: true,
    activation: Activation::Silu,
    yarn: true,
    divisors: true,
    longrope: false,
    original_length: false,
};

const QWEN2: Arch = Arch {
    name: "qwen2",
    rows: Rows::AsStored,
    biases: [Always, Never, Never],
    wide: false,
    divisors: false,
    ..LLAMA
};

const QWEN3: Arch = Arch { name: "qwen3", biases: [Never; 3], wide: true, ..QWEN2 };

/// Its head is the embedding.
const GEMMA: Arch =
    Arch { name: "gemma", head: Never, activation: Activation::GeluTanh, yarn: false, ..QWEN3 };

const GPT2: Arch = Arch { name: "gpt2", biases: [Always; 3], activation: Activation::GeluTanh, ..QWEN2 };

const OLMO2: Arch = Arch { name: "olmo2", biases: [Never; 3], head: Always, ..QWEN2 };

impl Arch {
    /// That of a family.
    ///
    /// # Errors
    /// llama.cpp has none.
    pub(crate) fn of(family: Family) -> Result<Self, String> {
        Ok(match family {
            Family::Llama | Family::Mistral => LLAMA,
            Family::Qwen2 => QWEN2,
            Family::Qwen3 => QWEN3,
            Family::Gemma => GEMMA,
            Family::Gemma2 => Arch { name: "gemma2", ..GEMMA },
            Family::Gemma3 => Arch { name: "gemma3", ..GEMMA },
            Family::Gpt2 => GPT2,
            Family::GptNeoX => Arch { name: "gptneox", rows: Rows::ByKind, head: Always, ..GPT2 },
            Family::GptJ => return Err("llama.cpp has no graph of GPT-J".into()),
            Family::Phi => Arch { name: "phi2", head: Always, ..GPT2 },
            Family::Phi3 => {
                Arch { name: "phi3", head: Maybe, longrope: true, original_length: true, ..OLMO2 }
            }
            Family::SmolLm3 => Arch { name: "smollm3", rows: Rows::Pairs, ..QWEN3 },
            Family::Olmo2 => OLMO2,
            Family::Granite => Arch { name: "granite", ..LLAMA },
            Family::Starcoder2 => Arch { name: "starcoder2", ..GPT2 },
        })
    }

    /// Whether the head of a tied model has to be in the file beside the embedding.
    pub(crate) fn copies_head(&self) -> bool {
        self.head == Always
    }

    /// Whether its graph is that of the model.
    ///
    /// # Errors
    /// What it lacks.
    fn check(&self, c: &Config) -> Result<(), String> {
        let fails = |what: &str| Err(format!("llama.cpp's {} {what}", self.name));
        if c.output == Output::Score {
            return Err("the model scores texts; llama.cpp's file is one of a language model".into());
        }
        let maps = ["queries, keys and values", "the attention's output", "the feed-forward"];
        let biased = [c.qkv_bias, c.out_bias, c.mlp_bias];
        for ((map, is), there) in maps.into_iter().zip(biased).zip(self.biases) {
            match (is, there) {
                (true, Never) => return fails(&format!("has no biases on {map}")),
                (false, Always) => return fails(&format!("always has biases on {map}")),
                _ => {}
            }
        }
        if self.head == Never && !c.tied {
            return fails("has no head but the embedding, and this model's is another matrix");
        }
        if !self.wide && c.heads.q_width() != c.width {
            return fails("has heads that are together as wide as the model, which these are not");
        }
        let smooth = |activation| match activation {
            Activation::Gelu => Activation::GeluTanh,
            other => other,
        };
        if smooth(c.mlp.activation) != self.activation {
            return fails(&format!("computes another activation than {:?}", c.mlp.activation));
        }
        if c.qk_norm == Some(QkNorm::LayerNorms) {
            return fails("has no LayerNorm of query and key heads (`qk_layernorm`)");
        }
        let own = |l: usize| match c.family {
            Family::SmolLm3 if (l + 1).is_multiple_of(4) => (Turns::Not, false),
            Family::Gemma2 => (Turns::Rope, l.is_multiple_of(2)),
            Family::Gemma3 if (l + 1).is_multiple_of(6) => (Turns::Rope, false),
            Family::Gemma3 => (Turns::LocalRope, true),
            Family::Gpt2 => (Turns::Not, false),
            _ => (Turns::Rope, false),
        };
        let differs = |l: &usize| {
            let (kind, (turns, window)) = (c.kind(*l), own(*l));
            kind.turns != turns || (self.has_windows(c) && kind.window.is_some() != window)
        };
        if let Some(l) = (0..c.layers).find(differs) {
            return fails(&format!(
                "has windows and rotary positions in other layers than this model, as in layer {l}"
            ));
        }
        let scale = match c.family {
            Family::Gemma2 | Family::Gemma3 => Some(gemma_scale(c)),
            Family::Granite => c.score_scale,
            _ => None,
        };
        let same = |own: f64, other: f64| (own / other - 1.0).abs() < 1e-6;
        if !matches!((c.score_scale, scale), (None, None))
            && !c.score_scale.zip(scale).is_some_and(|(a, b)| same(a, b))
        {
            return fails("scales the scores of attention in another way (`query_pre_attn_scalar`)");
        }
        let capped = c.family == Family::Gemma2;
        if (c.score_cap.is_some(), c.logit_cap.is_some()) != (capped, capped) {
            return fails("has its soft caps on other scores and logits");
        }
        Ok(())
    }

    /// Whether some layers have windows there.
    fn has_windows(&self, c: &Config) -> bool {
        matches!(c.family, Family::Gemma2 | Family::Gemma3)
    }
}

/// What the scores of Gemma 2 and 3 are multiplied by: llama.cpp knows the largest models by their layers.
fn gemma_scale(c: &Config) -> f64 {
    let largest = if c.family == Family::Gemma2 { 46 } else { 62 };
    let scalar = if c.layers == largest { c.width / c.heads.heads } else { c.heads.head_dim };
    1.0 / (scalar as f64).sqrt()
}

/// What describes a model.
pub(crate) struct Described {
    pub keys: Vec<Entry>,
    /// Tensors of divisors of frequencies.
    pub divisors: Vec<(&'static str, Vec<f32>)>,
    /// What the user should hear.
    pub notes: Vec<String>,
}

/// Describes a model in the keys of its architecture.
///
/// # Errors
/// llama.cpp would compute something else.
pub(crate) fn describe(c: &Config, arch: &Arch) -> Result<Described, String> {
    arch.check(c)?;
    let mut notes = Vec::new();
    let mut keys: Vec<Entry> = Vec::new();
    let mut count = |key: &str, n: usize| keys.push((key.into(), Value::U32(n as u32)));
    count("vocab_size", c.vocab);
    count("context_length", context(c, arch, &mut notes));
    count("embedding_length", c.width);
    count("block_count", c.layers);
    count("feed_forward_length", c.mlp_width);
    count("attention.head_count", c.heads.heads);
    count("attention.head_count_kv", c.heads.kv_heads);
    count("attention.key_length", c.heads.head_dim);
    count("attention.value_length", c.heads.head_dim);
    if arch.has_windows(c)
        && let Some(window) = (0..c.layers).find_map(|l| c.kind(l).window)
    {
        count("attention.sliding_window", window);
    }
    // How much of each branch is added, which our graph has in the factors around it.
    let branches = match c.family {
        Family::Granite => c.json.get("residual_multiplier").and_then(|x| x.as_f64()).unwrap_or(1.0),
        _ => 1.0,
    };
    let mut number = |key: &str, x: f64| keys.push((key.into(), Value::F32(x as f32)));
    let eps = c.eps * branches * branches;
    match c.norm {
        NormKind::Layer => number("attention.layer_norm_epsilon", eps),
        NormKind::Rms | NormKind::RmsPlusOne => number("attention.layer_norm_rms_epsilon", eps),
    }
    if let (Some(scores), Some(logits)) = (c.score_cap, c.logit_cap) {
        number("attn_logit_softcapping", scores);
        number("final_logit_softcapping", logits);
    }
    if c.family == Family::Granite {
        let embedding = match c.embed_scale {
            Some(EmbedScale::Exact(factor) | EmbedScale::Rounded(factor)) => factor * branches,
            None => 1.0,
        };
        number("attention.scale", c.score_scale.unwrap_or(c.heads.scores().scale));
        number("embedding_scale", embedding);
        number("residual_scale", branches);
        number("logit_scale", 1.0 / c.hidden_scale.unwrap_or(1.0));
    }
    if c.family == Family::GptNeoX {
        keys.push(("use_parallel_residual".into(), Value::Bool(c.block == Block::Parallel)));
    }
    if c.mlp.activation == Activation::Gelu {
        notes.push(format!(
            "llama.cpp's {} computes gelu by its tanh form, up to 0.0005 away in each activation",
            arch.name
        ));
    }
    let positions = positions(c, arch)?;
    notes.extend(positions.note);
    keys.extend(positions.keys);
    let of_arch = keys.into_iter().map(|(key, value)| (format!("{}.{key}", arch.name), value));
    Ok(Described { keys: of_arch.collect(), divisors: positions.divisors, notes })
}

/// The longest sequence: where llama.cpp has no windows, as long as none of them is shorter than it.
fn context(c: &Config, arch: &Arch, notes: &mut Vec<String>) -> usize {
    let window = (0..c.layers).filter_map(|l| c.kind(l).window).min().filter(|_| !arch.has_windows(c));
    let Some(window) = window.filter(|&window| window < c.max_positions) else { return c.max_positions };
    notes.push(format!(
        "llama.cpp's {} sees everything where this model sees {window} positions; the file says that contexts are up to \
         {window} tokens, in which both are the same",
        arch.name
    ));
    window
}
