//! Granite: Llama with factors on the embedding, the scores, the branches and the logits.

use super::Description;
use super::llama::{NAMES as LLAMA_NAMES, heads, plain};
use crate::config::{Config, EmbedScale};
use crate::family::Family;
use crate::keys::{Keys, Read};
use crate::tensors::Names;

pub(crate) const GRANITE: Description = Description { model_type: "granite", read };

const NAMES: Names = Names { class: "Granite", adapted: &[], ..LLAMA_NAMES };

/// The branches' factor needs nothing in the graph: `x += s f(n(x))` is `u += f(n(u))` of the stream `u = x / s`. The
/// embedding begins it, and norms do not see a factor but against what is added under their root.
fn read(keys: Keys) -> Read<Config> {
    let config = plain(keys, Family::Granite, &NAMES, heads(keys, None)?)?;
    let factor = |key: &str| -> Read<f64> {
        match keys.positive(key)?.unwrap_or(1.0) {
            x if (1e-6..=1e6).contains(&x) => Ok(x),
            x => Err(format!("`{key}` is {x:e}, which cannot be")),
        }
    };
    let of_branches = factor("residual_multiplier")?;
    let bias = keys.flag("attention_bias")?.unwrap_or(false);
    Ok(Config {
        eps: config.eps / (of_branches * of_branches),
        embed_scale: Some(EmbedScale::Exact(factor("embedding_multiplier")? / of_branches)),
        hidden_scale: Some(1.0 / factor("logits_scaling")?),
        score_scale: Some(factor("attention_multiplier")?),
        qkv_bias: bias,
        out_bias: bias,
        mlp_bias: keys.flag("mlp_bias")?.unwrap_or(false),
        ..config
    })
}
