//! Which model it is, and what it gives.

/// Family of a model: what transformers calls the model's type. What it says of the graph and of the files is its
/// description in `families`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Llama and the models that share its graph.
    Llama,
    /// Llama with a window.
    Mistral,
    /// Llama with biases on queries, keys and values.
    Qwen2,
    /// Llama with an RMSNorm on every query and key head.
    Qwen3,
    /// Gemma.
    Gemma,
    /// Gemma 2.
    Gemma2,
    /// Gemma 3, its text models.
    Gemma3,
    /// GPT-2.
    Gpt2,
    /// GPT-NeoX, and Pythia with it.
    GptNeoX,
    /// GPT-J.
    GptJ,
    /// Phi 1, 1.5 and 2.
    Phi,
    /// Phi 3 and 4.
    Phi3,
    /// Llama with layers that have no positions.
    SmolLm3,
    /// Norms at the ends of branches, and over all queries and keys.
    Olmo2,
    /// Llama with factors on the embedding, the scores, the branches and the logits.
    Granite,
    /// Llama with LayerNorms, biases, and a feed-forward without a gate.
    Starcoder2,
}

/// What the final hidden states become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Logits of the next token, by the head of a language model.
    Logits,
    /// One score, by a scalar head: a reward model.
    Score,
}
