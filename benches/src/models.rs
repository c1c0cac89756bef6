//! The models whose shapes are measured.

use duel_model::Config;
use serde_json::{Value, json};

/// Name of [`smollm2`], as tables show it.
pub const SMOLLM2: &str = "SmolLM2-135M";
/// Name of [`gpt2`].
pub const GPT2: &str = "GPT-2-124M";
/// Name of [`qwen3`].
pub const QWEN3: &str = "Qwen3-0.6B";

/// Name of [`llama`].
pub const LLAMA: &str = "Llama-3.2-1B";
/// Name of [`qwen2`].
pub const QWEN2: &str = "Qwen2.5-0.5B";

/// SmolLM2-135M: RMSNorm, SwiGLU, three query heads to a key/value head, tied.
pub fn smollm2() -> Config {
    config(json!({
        "model_type": "llama", "vocab_size": 49_152, "hidden_size": 576, "intermediate_size": 1536,
        "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64,
        "rms_norm_eps": 1e-5, "rope_theta": 100_000.0, "max_position_embeddings": 8192, "tie_word_embeddings": true
    }))
}

/// GPT-2 124M: LayerNorm, GELU, biases, learned positions, tied.
pub fn gpt2() -> Config {
    config(json!({
        "model_type": "gpt2", "vocab_size": 50_257, "n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024
    }))
}

/// Qwen3-0.6B, for the norm of queries and keys that the other two lack.
pub fn qwen3() -> Config {
    config(json!({
        "model_type": "qwen3", "vocab_size": 151_936, "hidden_size": 1024, "intermediate_size": 3072,
        "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
        "max_position_embeddings": 40_960, "tie_word_embeddings": true
    }))
}

/// Llama-3.2-1B: four query heads to a key/value head, tied.
pub fn llama() -> Config {
    config(json!({
        "model_type": "llama", "vocab_size": 128_256, "hidden_size": 2048, "intermediate_size": 8192,
        "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
        "rms_norm_eps": 1e-5, "rope_theta": 500_000.0, "max_position_embeddings": 131_072, "tie_word_embeddings": true
    }))
}

/// Qwen2.5-0.5B: seven query heads to a key/value head, biases of queries, keys and values, tied.
pub fn qwen2() -> Config {
    config(json!({
        "model_type": "qwen2", "vocab_size": 151_936, "hidden_size": 896, "intermediate_size": 4864,
        "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2, "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000.0, "max_position_embeddings": 32_768, "tie_word_embeddings": true
    }))
}

/// SmolLM2-135M cut to six layers and given `vocab` tokens: the model of the growth series, which repeat a step often.
pub fn six_layers(vocab: usize) -> Config {
    Config { layers: 6, vocab, ..smollm2() }
}

fn config(json: Value) -> Config {
    let Value::Object(json) = json else { unreachable!("every config here is an object") };
    Config::from_json(json).unwrap_or_else(|what| panic!("a config written here {what}"))
}
