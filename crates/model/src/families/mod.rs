//! What each family is: how its `config.json` is read to a [`Config`], and its tensors' names. A file a family, or
//! those that are one with something more.

mod gemma;
mod gpt2;
mod gpt_neox;
mod gptj;
mod granite;
pub(crate) mod inside;
mod llama;
mod mistral;
mod olmo2;
mod phi;
mod smollm3;
mod starcoder2;
mod windows;

use crate::config::Config;
use crate::family::Output;
use crate::keys::{Keys, Read};
use crate::quantised;
use crate::score;
use duel_backend::Activation;
use serde_json::{Map, Value};

/// A family as configs name it.
pub(crate) struct Description {
    /// The `model_type`.
    pub(crate) model_type: &'static str,
    /// Reads the other keys; [`Config::json`] stays empty.
    pub(crate) read: fn(Keys) -> Read<Config>,
}

/// Every family.
const FAMILIES: [&Description; 16] = [
    &llama::LLAMA,
    &mistral::MISTRAL,
    &llama::QWEN2,
    &llama::QWEN3,
    &gemma::GEMMA,
    &gemma::GEMMA2,
    &gemma::GEMMA3,
    &gpt2::GPT2,
    &gpt_neox::GPT_NEOX,
    &gptj::GPTJ,
    &phi::PHI,
    &phi::PHI3,
    &smollm3::SMOLLM3,
    &olmo2::OLMO2,
    &granite::GRANITE,
    &starcoder2::STARCODER2,
];

impl Config {
    /// Interprets the content of a `config.json`; of a model that sees pictures too it is that of its text model. Only
    /// the weights tell whether a tied model is really one, so a folder is read with [`crate::Folder::open`].
    ///
    /// # Errors
    /// What is wrong, without the file's name.
    pub fn from_json(json: Map<String, Value>) -> Result<Self, String> {
        quantised::refuse_config(Keys::new(&json))?;
        if let Some(text) = inside::text_model(&json)? {
            return Self::from_json(text);
        }
        let keys = Keys::new(&json);
        if keys.object("per_layer_config")?.is_some_and(|layers| !layers.is_empty()) {
            return Err(
                "`per_layer_config` is there; layers that differ from each other are not known".into()
            );
        }
        let model_type = keys.text("model_type")?.unwrap_or_default();
        let Some(family) = FAMILIES.iter().find(|family| family.model_type == model_type) else {
            let class = keys.list("architectures")?.and_then(|all| all.first()?.as_str());
            return Err(unknown(model_type, class));
        };
        let config = (family.read)(keys)?;
        config.check()?;
        let output = score::read(keys, &json)?;
        let config = Config { json, ..config };
        Ok(if output == Output::Score { config.with_score() } else { config })
    }
}

fn unknown(model_type: &str, class: Option<&str>) -> String {
    let [others @ .., last] = FAMILIES.map(|family| family.model_type);
    let all = format!("{} and {last}", others.join(", "));
    match (model_type, class) {
        ("", Some(class)) => format!(
            "has no `model_type`, and its architecture is {class}; add the `model_type`, one of {all}"
        ),
        ("", None) => format!("has no `model_type`; duel knows {all}"),
        (other, _) => format!("architecture `{other}` is not known; duel knows {all}"),
    }
}

/// The activation that a key names, by transformers' names.
fn activation(keys: Keys, key: &str, default: Activation) -> Read<Activation> {
    Ok(match keys.text(key)? {
        None => default,
        Some("silu" | "swish") => Activation::Silu,
        Some("gelu" | "gelu_python") => Activation::Gelu,
        Some("gelu_new" | "gelu_pytorch_tanh" | "gelu_python_tanh" | "gelu_fast" | "gelu_accurate") => {
            Activation::GeluTanh
        }
        Some("quick_gelu") => Activation::GeluSigmoid,
        Some("relu") => Activation::Relu,
        Some(other) => {
            return Err(format!(
                "`{key}` is `{other}`, which is not known; duel knows silu, gelu, gelu_new, quick_gelu and relu"
            ));
        }
    })
}

/// A number of heads, which divides others.
fn head_count(keys: Keys, key: &str) -> Read<usize> {
    match keys.need(key)? {
        0 => Err(format!("`{key}` is 0")),
        heads => Ok(heads),
    }
}

/// Width of a head, where all together are as wide as the residual stream.
fn share(width: usize, heads: usize, [of_width, of_heads]: [&str; 2]) -> Read<usize> {
    if !width.is_multiple_of(heads) {
        return Err(format!("`{of_width}` {width} is not a multiple of `{of_heads}` {heads}"));
    }
    Ok(width / heads)
}
