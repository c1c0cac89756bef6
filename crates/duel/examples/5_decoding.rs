//! Text from a model: greedy or drawn, many sequences at a time over one key/value cache.
//!
//!     cargo run --package duel --example 5_decoding
//!
//! Needs `duel-cpu` and `duel-model`.

use duel_cpu::Cpu;
use duel_model::{Config, Generator, Model, Sampling};
use serde_json::json;
use std::error::Error;

const PROMPTS: [&str; 3] = ["once ", "upon a ", "time"];

/// A token is a byte.
fn tokens(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

fn text(tokens: &[u32]) -> String {
    tokens
        .iter()
        .map(|&token| char::from_u32(token).filter(|c| c.is_ascii_graphic()).unwrap_or('.'))
        .collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let json = json!({
        "model_type": "qwen3", "vocab_size": 128, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64,
        "tie_word_embeddings": true, "initializer_range": 0.3,
    });
    let config = Config::from_json(json.as_object().cloned().unwrap_or_default())?;
    let (cpu, mut random) = (Cpu::<f32>::new(0), fastrand::Rng::with_seed(1));
    let normal = || (0..12).map(|_| random.f64() - 0.5).sum();
    let weights = Model::manifest(&config).init(&cpu, &config, normal)?;

    let prompts: Vec<Vec<u32>> = PROMPTS.iter().map(|prompt| tokens(prompt)).collect();
    let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
    // Room for all prompts at once, each with what is added to it.
    let mut generator = Generator::new(&cpu, &config, prompts.len(), 48)?;
    let end = [u32::from(b'\n')];

    let greedy = Sampling { max_new_tokens: 24, temperature: 0.0, top_k: 0, top_p: 1.0, seed: 0 };
    for how in [greedy, Sampling { temperature: 0.8, top_p: 0.9, seed: 7, ..greedy }] {
        println!("temperature {}", how.temperature);
        let together = generator.generate(&cpu, &config, &weights, &prompts, how, &end)?;
        for (prompt, new) in PROMPTS.iter().zip(&together) {
            println!("  {prompt:8}{}", text(new));
            assert!(new.len() == 24 || new.ends_with(&end));
        }
        // A sequence depends on its seed and number, not on what is decoded beside it.
        let first = generator.generate(&cpu, &config, &weights, &prompts[..1], how, &end)?;
        assert_eq!(first[0], together[0]);
    }
    Ok(())
}
