//! How a family's tensors are called, and how its files hold them.

use crate::rope::RopeKeys;

/// Names of a family's tensors. Those of a layer stand behind `ROOT.BLOCK.NUMBER.`, the others but the head behind
/// `ROOT.`; `.weight` and `.bias` follow. A name that a family has no use for is empty.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Names {
    /// Beginning of the names of transformers' classes.
    pub(crate) class: &'static str,
    pub(crate) root: &'static str,
    pub(crate) block: &'static str,
    pub(crate) embed: &'static str,
    pub(crate) positions: &'static str,
    pub(crate) attn_norm: &'static str,
    pub(crate) qkv: Qkv,
    pub(crate) q_norm: &'static str,
    pub(crate) k_norm: &'static str,
    pub(crate) out: &'static str,
    pub(crate) attn_post: &'static str,
    pub(crate) mlp_norm: &'static str,
    /// Gate and up, or the one tensor that holds both or up alone.
    pub(crate) up: &'static [&'static str],
    pub(crate) down: &'static str,
    pub(crate) mlp_post: &'static str,
    pub(crate) norm: &'static str,
    pub(crate) head: &'static str,
    /// Matrices of layers lie as `[inputs, outputs]` (GPT-2's Conv1D).
    pub(crate) transposed: bool,
    /// Keys of the config that rotary positions are written under; `None` where there are none to write.
    pub(crate) rope: Option<RopeKeys>,
    /// Keys of the config that give biases to maps of every layer, and all maps of each.
    pub(crate) bias_keys: &'static [(&'static str, &'static [&'static str])],
    /// Maps that PEFT adapts where nothing is said of them; empty where it has to be told.
    pub(crate) adapted: &'static [&'static str],
}

/// How files hold the map to queries, keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qkv {
    /// A tensor each.
    Split([&'static str; 3]),
    /// One of all queries, all keys and all values.
    Whole(&'static str),
    /// One that holds a head's query, key and value beside each other (GPT-NeoX).
    ByHead(&'static str),
}

impl Names {
    /// A tensor's name as base models have it, without the model's own.
    pub(crate) fn without_root<'n>(&self, name: &'n str) -> &'n str {
        name.strip_prefix(self.root).and_then(|rest| rest.strip_prefix('.')).unwrap_or(name)
    }

    /// Full name of the tensor `suffix` of what a layer calls `name`.
    pub(crate) fn in_layer(&self, layer: usize, name: &str, suffix: &str) -> String {
        format!("{}.{}.{layer}.{name}.{suffix}", self.root, self.block)
    }

    /// The same of what is not in a layer.
    pub(crate) fn outside(&self, name: &str, suffix: &str) -> String {
        format!("{}.{name}.{suffix}", self.root)
    }

    /// Full name of the head of the language model.
    pub(crate) fn head(&self) -> String {
        format!("{}.weight", self.head)
    }

    /// Whether a tensor is the weight of a map back into the residual stream.
    pub(crate) fn is_back(&self, name: &str) -> bool {
        let ends = |map: &str| name.strip_suffix(".weight").is_some_and(|name| name.ends_with(map));
        ends(self.out) || ends(self.down)
    }
}
