//! GPT-2.

use super::{Description, activation, head_count, share};
use crate::config::{Block, Config, LayerKind, Mlp, NormKind, Turns};
use crate::family::{Family, Output};
use crate::keys::{Keys, Read};
use crate::tensors::{Names, Qkv};
use duel_backend::{Activation, Heads};
use serde_json::Map;

pub(crate) const GPT2: Description = Description { model_type: "gpt2", read };

pub(crate) const NAMES: Names = Names {
    class: "GPT2",
    root: "transformer",
    block: "h",
    embed: "wte",
    positions: "wpe",
    attn_norm: "ln_1",
    qkv: Qkv::Whole("attn.c_attn"),
    q_norm: "",
    k_norm: "",
    out: "attn.c_proj",
    attn_post: "",
    mlp_norm: "ln_2",
    up: &["mlp.c_fc"],
    down: "mlp.c_proj",
    mlp_post: "",
    norm: "ln_f",
    head: "lm_head",
    transposed: true,
    rope: None,
    bias_keys: &[],
    adapted: &["c_attn"],
};

fn read(keys: Keys) -> Read<Config> {
    if keys.flag("scale_attn_weights")? == Some(false)
        || keys.flag("scale_attn_by_inverse_layer_idx")? == Some(true)
    {
        return Err("attention scaled in another way than 1/sqrt(head_dim) is not known".into());
    }
    let config = plain(keys, Family::Gpt2, &NAMES)?;
    Ok(Config {
        kinds: vec![LayerKind { turns: Turns::Not, ..LayerKind::default() }],
        tied: keys.flag("tie_word_embeddings")?.unwrap_or(true),
        qkv_bias: true,
        out_bias: true,
        ..config
    })
}

/// What GPT-2 and GPT-J have in common, by the keys of both.
pub(crate) fn plain(keys: Keys, family: Family, names: &'static Names) -> Read<Config> {
    // transformers writes the common name onto the old one after it has read that.
    let width = keys.need(keys.either("hidden_size", "n_embd"))?;
    let heads = head_count(keys, keys.either("num_attention_heads", "n_head"))?;
    let head_dim = share(width, heads, ["n_embd", "n_head"])?;
    Ok(Config {
        family,
        names,
        vocab: keys.need("vocab_size")?,
        width,
        mlp_width: keys.count("n_inner")?.unwrap_or(width.saturating_mul(4)),
        layers: keys.need(keys.either("num_hidden_layers", "n_layer"))?,
        heads: Heads { heads, kv_heads: heads, head_dim },
        max_positions: keys.need(keys.either("max_position_embeddings", "n_positions"))?,
        eps: keys.number("layer_norm_epsilon")?.unwrap_or(1e-5),
        rope: None,
        local_rope: None,
        kinds: vec![LayerKind::default()],
        norm: NormKind::Layer,
        block: Block::Pre,
        mlp: Mlp { gated: false, activation: activation(keys, "activation_function", Activation::GeluTanh)? },
        output: Output::Logits,
        tied: keys.flag("tie_word_embeddings")?.unwrap_or(false),
        qkv_bias: false,
        out_bias: false,
        mlp_bias: true,
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
