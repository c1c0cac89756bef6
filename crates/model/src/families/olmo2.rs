//! OLMo 2: norms at the ends of branches alone, and over all queries and keys.

use super::Description;
use super::llama::{NAMES as LLAMA_NAMES, heads, plain};
use crate::config::{Block, Config, QkNorm};
use crate::family::Family;
use crate::keys::{Keys, Read};
use crate::tensors::Names;

pub(crate) const OLMO2: Description = Description { model_type: "olmo2", read };

const NAMES: Names = Names {
    class: "Olmo2",
    attn_norm: "",
    q_norm: "self_attn.q_norm",
    k_norm: "self_attn.k_norm",
    attn_post: "post_attention_layernorm",
    mlp_norm: "",
    mlp_post: "post_feedforward_layernorm",
    bias_keys: LLAMA_NAMES.bias_keys.split_at(1).0,
    adapted: &[],
    ..LLAMA_NAMES
};

fn read(keys: Keys) -> Read<Config> {
    let config = plain(keys, Family::Olmo2, &NAMES, heads(keys, None)?)?;
    let bias = keys.flag("attention_bias")?.unwrap_or(false);
    Ok(Config {
        eps: keys.number("rms_norm_eps")?.unwrap_or(1e-5),
        block: Block::Post,
        qk_norm: Some(QkNorm::Whole),
        qkv_bias: bias,
        out_bias: bias,
        ..config
    })
}
