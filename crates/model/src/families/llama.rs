//! Llama, and the families that are Llama with something more.

use super::windows::{from_some_layer, refuse_windows};
use super::{Description, activation, head_count};
use crate::config::{Block, Config, LayerKind, Mlp, NormKind, QkNorm};
use crate::family::{Family, Output};
use crate::keys::{Keys, Read};
use crate::rope::{Rope, RopeKeys};
use crate::tensors::{Names, Qkv};
use duel_backend::{Activation, Heads};
use serde_json::Map;

pub(crate) const LLAMA: Description =
    Description { model_type: "llama", read: |keys| read(keys, Family::Llama, &NAMES) };

pub(crate) const QWEN2: Description =
    Description { model_type: "qwen2", read: |keys| read(keys, Family::Qwen2, &QWEN2_NAMES) };

pub(crate) const QWEN3: Description =
    Description { model_type: "qwen3", read: |keys| read(keys, Family::Qwen3, &QWEN3_NAMES) };

/// Keys that give biases to maps.
const BIAS_KEYS: &[(&str, &[&str])] = &[
    ("attention_bias", &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"]),
    ("mlp_bias", &["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]),
];

pub(crate) const ROPE_KEYS: RopeKeys =
    RopeKeys { theta: "rope_theta", default_theta: 10_000.0, share: None, local: None };

/// Names of Llama's tensors, which many families share.
pub(crate) const NAMES: Names = Names {
    class: "Llama",
    root: "model",
    block: "layers",
    embed: "embed_tokens",
    positions: "",
    attn_norm: "input_layernorm",
    qkv: Qkv::Split(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
    q_norm: "",
    k_norm: "",
    out: "self_attn.o_proj",
    attn_post: "",
    mlp_norm: "post_attention_layernorm",
    up: &["mlp.gate_proj", "mlp.up_proj"],
    down: "mlp.down_proj",
    mlp_post: "",
    norm: "norm",
    head: "lm_head",
    transposed: false,
    rope: Some(ROPE_KEYS),
    bias_keys: BIAS_KEYS,
    adapted: &["q_proj", "v_proj"],
};

const QWEN2_NAMES: Names = Names { class: "Qwen2", bias_keys: &[], ..NAMES };

const QWEN3_NAMES: Names = Names {
    class: "Qwen3",
    q_norm: "self_attn.q_norm",
    k_norm: "self_attn.k_norm",
    bias_keys: BIAS_KEYS.split_at(1).0,
    ..NAMES
};

/// A Llama as `config.json` describes it, where the keys of all its relatives are read alike; `heads` are its heads.
pub(crate) fn plain(keys: Keys, family: Family, names: &'static Names, heads: Heads) -> Read<Config> {
    let max_positions = keys.need("max_position_embeddings")?;
    let rope = names.rope.unwrap_or(ROPE_KEYS);
    Ok(Config {
        family,
        names,
        vocab: keys.need("vocab_size")?,
        width: keys.need("hidden_size")?,
        mlp_width: keys.need("intermediate_size")?,
        layers: keys.need("num_hidden_layers")?,
        heads,
        max_positions,
        eps: keys.number("rms_norm_eps")?.unwrap_or(1e-6),
        rope: Some(Rope::read(keys, rope, heads.head_dim, max_positions)?),
        local_rope: Rope::read_local(keys, rope, heads.head_dim, max_positions)?,
        kinds: vec![LayerKind::default()],
        norm: NormKind::Rms,
        block: Block::Pre,
        mlp: Mlp { gated: true, activation: activation(keys, "hidden_act", Activation::Silu)? },
        output: Output::Logits,
        tied: keys.flag("tie_word_embeddings")?.unwrap_or(false),
        qkv_bias: false,
        out_bias: false,
        mlp_bias: false,
        head_bias: false,
        qk_norm: None,
        embed_scale: None,
        hidden_scale: None,
        score_scale: None,
        score_cap: None,
        logit_cap: None,
        init_range: keys.number("initializer_range")?.unwrap_or(0.02),
        lora: None,
        json: Map::new(),
    })
}

/// Heads by Llama's keys. Where nothing is said of key heads there are `kv_heads`, or as many as query heads, as where
/// `null` is; and a head's width is its share.
pub(crate) fn heads(keys: Keys, kv_heads: Option<usize>) -> Read<Heads> {
    const KEY: &str = "num_key_value_heads";
    let (width, heads) = (keys.need("hidden_size")?, head_count(keys, "num_attention_heads")?);
    let unsaid = kv_heads.filter(|_| !keys.is_null(KEY)).unwrap_or(heads);
    let kv_heads = keys.count(KEY)?.unwrap_or(unsaid);
    Ok(Heads { heads, kv_heads, head_dim: keys.count("head_dim")?.unwrap_or(width / heads) })
}

fn read(keys: Keys, family: Family, names: &'static Names) -> Read<Config> {
    let mut heads = heads(keys, (family != Family::Llama).then_some(32))?;
    if family == Family::Qwen3 && keys.get("head_dim").is_none() {
        heads.head_dim = 128;
    }
    let config = plain(keys, family, names, heads)?;
    let kinds = match family {
        Family::Llama => refuse_windows(keys, config.layers).map(|()| config.kinds)?,
        _ => from_some_layer(keys, config.layers)?,
    };
    let attention_bias = keys.flag("attention_bias")?.unwrap_or(false);
    Ok(Config {
        qkv_bias: attention_bias || family == Family::Qwen2,
        out_bias: attention_bias && family != Family::Qwen2,
        mlp_bias: keys.flag("mlp_bias")?.unwrap_or(false) && family == Family::Llama,
        qk_norm: (family == Family::Qwen3).then_some(QkNorm::Heads),
        kinds,
        ..config
    })
}
