//! GPT-J.

use super::{Description, activation, head_count, share};
use crate::config::{Block, Config, LayerKind, Mlp, NormKind};
use crate::family::{Family, Output};
use crate::keys::{Keys, Read};
use crate::rope::{Rope, RopeScaling};
use crate::tensors::{Names, Qkv};
use duel_backend::{Activation, Heads};
use serde_json::Map;

pub(crate) const GPTJ: Description = Description { model_type: "gptj", read };

const NAMES: Names = Names {
    class: "GPTJ",
    root: "transformer",
    block: "h",
    embed: "wte",
    positions: "",
    attn_norm: "ln_1",
    qkv: Qkv::Split(["attn.q_proj", "attn.k_proj", "attn.v_proj"]),
    q_norm: "",
    k_norm: "",
    out: "attn.out_proj",
    attn_post: "",
    mlp_norm: "",
    up: &["mlp.fc_in"],
    down: "mlp.fc_out",
    mlp_post: "",
    norm: "ln_f",
    head: "lm_head",
    transposed: false,
    rope: None,
    bias_keys: &[],
};

fn read(keys: Keys) -> Read<Config> {
    // transformers writes the common name onto the old one after it has read that.
    let width = keys.need(keys.either("hidden_size", "n_embd"))?;
    let heads = head_count(keys, keys.either("num_attention_heads", "n_head"))?;
    let head_dim = share(width, heads, ["n_embd", "n_head"])?;
    let key = "rotary_dim";
    let dims = if keys.is_null(key) { head_dim } else { keys.count(key)?.unwrap_or(64) };
    if dims == 0 || dims > head_dim || !dims.is_multiple_of(2) {
        return Err(format!("`{key}` is {dims}; it must be an even number of a head's {head_dim} elements"));
    }
    Ok(Config {
        family: Family::GptJ,
        names: &NAMES,
        vocab: keys.need("vocab_size")?,
        width,
        mlp_width: keys.count("n_inner")?.unwrap_or(width.saturating_mul(4)),
        layers: keys.need(keys.either("num_hidden_layers", "n_layer"))?,
        heads: Heads { heads, kv_heads: heads, head_dim },
        max_positions: keys.need(keys.either("max_position_embeddings", "n_positions"))?,
        eps: keys.number("layer_norm_epsilon")?.unwrap_or(1e-5),
        rope: Some(Rope { theta: 10_000.0, dims, pairs: true, scaling: RopeScaling::Plain }),
        local_rope: None,
        kinds: vec![LayerKind::default()],
        norm: NormKind::Layer,
        block: Block::ParallelOneNorm,
        mlp: Mlp { gated: false, activation: activation(keys, "activation_function", Activation::GeluTanh)? },
        output: Output::Logits,
        tied: keys.flag("tie_word_embeddings")?.unwrap_or(false),
        qkv_bias: false,
        out_bias: false,
        mlp_bias: true,
        head_bias: true,
        qk_norm: None,
        embed_scale: None,
        score_scale: None,
        score_cap: None,
        logit_cap: None,
        init_range: keys.number("initializer_range")?.unwrap_or(0.02),
        lora: None,
        json: Map::new(),
    })
}
