//! GPT-J: GPT-2 with rotary positions and both branches beside each other.

use super::Description;
use super::gpt2::{NAMES as GPT2_NAMES, plain};
use crate::config::{Block, Config};
use crate::family::Family;
use crate::keys::{Keys, Read};
use crate::rope::{Rope, RopeScaling};
use crate::tensors::{Names, Qkv};

pub(crate) const GPTJ: Description = Description { model_type: "gptj", read };

const NAMES: Names = Names {
    class: "GPTJ",
    positions: "",
    qkv: Qkv::Split(["attn.q_proj", "attn.k_proj", "attn.v_proj"]),
    out: "attn.out_proj",
    mlp_norm: "",
    up: &["mlp.fc_in"],
    down: "mlp.fc_out",
    transposed: false,
    adapted: &["q_proj", "v_proj"],
    ..GPT2_NAMES
};

fn read(keys: Keys) -> Read<Config> {
    let config = plain(keys, Family::GptJ, &NAMES)?;
    let (key, head_dim) = ("rotary_dim", config.heads.head_dim);
    let dims = if keys.is_null(key) { head_dim } else { keys.count(key)?.unwrap_or(64) };
    if dims == 0 || dims > head_dim || !dims.is_multiple_of(2) {
        return Err(format!("`{key}` is {dims}; it must be an even number of a head's {head_dim} elements"));
    }
    Ok(Config {
        rope: Some(Rope { theta: 10_000.0, dims, pairs: true, scaling: RopeScaling::Plain }),
        block: Block::ParallelOneNorm,
        head_bias: true,
        ..config
    })
}
