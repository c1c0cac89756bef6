//! Which model it is, and what it gives.

/// Family of a model: decides tensor names and the parts that configs do not mention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Llama and the models that share its graph.
    Llama,
    /// Llama with biases on queries, keys and values.
    Qwen2,
    /// Llama with an RMSNorm on every query and key head.
    Qwen3,
    /// GPT-2.
    Gpt2,
}

impl Family {
    /// First parts of a layer's tensor names: what holds the layers, and how they are called there.
    pub(crate) fn names(self) -> (&'static str, &'static str) {
        match self {
            Family::Gpt2 => ("transformer", "h"),
            Family::Llama | Family::Qwen2 | Family::Qwen3 => ("model", "layers"),
        }
    }

    /// A tensor's name as base models have it, without the model's own.
    pub(crate) fn without_root(self, name: &str) -> &str {
        name.strip_prefix(self.names().0).and_then(|rest| rest.strip_prefix('.')).unwrap_or(name)
    }
}

/// What the final hidden states become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Logits of the next token, by the head of a language model.
    Logits,
    /// One score, by a scalar head: a reward model.
    Score,
}
