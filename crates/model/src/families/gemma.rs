//! Gemma 1, 2 and 3, of the last the text models.

use super::llama::{NAMES as LLAMA_NAMES, ROPE_KEYS, plain};
use super::windows::{kinds, sliding, window};
use super::{Description, activation, head_count};
use crate::config::{Block, Config, EmbedScale, LayerKind, Mlp, NormKind, QkNorm, Turns};
use crate::family::Family;
use crate::keys::{Keys, Read};
use crate::rope::RopeKeys;
use crate::tensors::Names;
use duel_backend::{Activation, Heads};

pub(crate) const GEMMA: Description = Description { model_type: "gemma", read: first };

pub(crate) const GEMMA2: Description = Description { model_type: "gemma2", read: second };

pub(crate) const GEMMA3: Description = Description { model_type: "gemma3_text", read: third };

const NAMES: Names = Names { class: "Gemma", bias_keys: LLAMA_NAMES.bias_keys.split_at(1).0, ..LLAMA_NAMES };

const NAMES2: Names = Names {
    class: "Gemma2",
    attn_post: "post_attention_layernorm",
    mlp_norm: "pre_feedforward_layernorm",
    mlp_post: "post_feedforward_layernorm",
    ..NAMES
};

const NAMES3: Names = Names {
    class: "Gemma3Text",
    q_norm: "self_attn.q_norm",
    k_norm: "self_attn.k_norm",
    rope: Some(RopeKeys { default_theta: 1e6, local: Some(("rope_local_base_freq", 1e4)), ..ROPE_KEYS }),
    ..NAMES2
};

/// What all of them have, given how many key heads there are where the config does not say.
fn shared(keys: Keys, family: Family, names: &'static Names, kv_heads: usize) -> Read<Config> {
    let heads = Heads {
        heads: head_count(keys, "num_attention_heads")?,
        kv_heads: keys.count("num_key_value_heads")?.unwrap_or(kv_heads),
        head_dim: keys.count("head_dim")?.unwrap_or(256),
    };
    if keys.flag("use_bidirectional_attention")? == Some(true) {
        return Err("`use_bidirectional_attention` is true; a token that sees later ones is not known".into());
    }
    let config = plain(keys, family, names, heads)?;
    let bias = keys.flag("attention_bias")?.unwrap_or(false);
    Ok(Config {
        norm: NormKind::RmsPlusOne,
        mlp: Mlp { gated: true, activation: gate(keys)? },
        tied: keys.flag("tie_word_embeddings")?.unwrap_or(true),
        qkv_bias: bias,
        out_bias: bias,
        embed_scale: Some(EmbedScale::Rounded((config.width as f64).sqrt())),
        ..config
    })
}

/// The activation of the gate: configs of the first models say gelu where their weights were trained with its tanh
/// form, and transformers takes that.
fn gate(keys: Keys) -> Read<Activation> {
    let key = keys.either("hidden_activation", "hidden_act");
    Ok(match activation(keys, key, Activation::GeluTanh)? {
        Activation::Gelu => Activation::GeluTanh,
        other => other,
    })
}

fn first(keys: Keys) -> Read<Config> {
    shared(keys, Family::Gemma, &NAMES, 16)
}

/// What the later ones have beside: norms at the ends of branches, and their own scale of scores.
fn later(keys: Keys, family: Family, names: &'static Names) -> Read<Config> {
    let scalar = keys.positive("query_pre_attn_scalar")?.unwrap_or(256.0);
    Ok(Config {
        block: Block::PreAndPost,
        score_scale: Some(1.0 / scalar.sqrt()),
        ..shared(keys, family, names, 4)?
    })
}

/// A soft cap. `null` says that there is none.
fn cap(keys: Keys, key: &str, default: Option<f64>) -> Read<Option<f64>> {
    Ok(keys.positive(key)?.or(default.filter(|_| !keys.is_null(key))))
}

fn second(keys: Keys) -> Read<Config> {
    let config = later(keys, Family::Gemma2, &NAMES2)?;
    let window = window(keys, Some(4096))?;
    let sliding = sliding(keys, config.layers, |l| l % 2 == 0)?;
    let full = LayerKind::default();
    Ok(Config {
        kinds: kinds(&sliding, full, LayerKind { window, ..full }),
        score_cap: cap(keys, "attn_logit_softcapping", Some(50.0))?,
        logit_cap: cap(keys, "final_logit_softcapping", Some(30.0))?,
        ..config
    })
}

fn third(keys: Keys) -> Read<Config> {
    if cap(keys, "attn_logit_softcapping", None)?.is_some() {
        return Err(
            "`attn_logit_softcapping` is there; transformers does not cap scores of this family".into()
        );
    }
    let config = later(keys, Family::Gemma3, &NAMES3)?;
    let window = window(keys, Some(4096))?;
    let pattern = keys.count(keys.either("sliding_window_pattern", "_sliding_window_pattern"))?.unwrap_or(6);
    if pattern == 0 {
        return Err("`sliding_window_pattern` is 0; it says that every so manieth layer is full".into());
    }
    let sliding = sliding(keys, config.layers, |l| !(l + 1).is_multiple_of(pattern))?;
    let local = LayerKind { turns: Turns::LocalRope, window };
    Ok(Config {
        kinds: kinds(&sliding, LayerKind::default(), local),
        qk_norm: Some(QkNorm::Heads),
        logit_cap: cap(keys, "final_logit_softcapping", None)?,
        ..config
    })
}
