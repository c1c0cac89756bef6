//! Text from a model: greedy or drawn, many sequences at a time over one cache of keys and values.
//!
//!     cargo run --package duel --example 5_decoding
//!
//! Needs `duel-backend`, `duel-cpu` and `duel-model`.

use duel_backend::Backend;
use duel_cpu::Cpu;
use duel_model::decode::{Completion, Engine, FinishReason, Request, Room, Sampling};
use duel_model::{Config, Model};
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

    let prompts = PROMPTS.map(tokens);
    // Two continuations of each prompt, whose keys and values they share.
    let requests = Request::repeated(&prompts, 2);
    // Room for four sequences at a time: others wait until one ends.
    let room = Room::of(requests.iter().copied(), 4, 24);
    println!("{}", Engine::<Cpu<f32>>::plan(cpu.portions(), &config, room));
    let mut engine = Engine::new(&cpu, &config, room)?;
    let end = [u32::from(b'\n')];

    let drawn = Sampling { max_new_tokens: 24, temperature: 0.8, top_p: 0.9, seed: 7, ..Sampling::default() };
    for how in [Sampling::greedy(24), drawn] {
        println!("temperature {}", how.temperature);
        let together = engine.generate(&cpu, &weights, &requests, &how, &end)?;
        for (prompt, completions) in PROMPTS.iter().zip(&together.completions) {
            for Completion { tokens, logps, finish_reason } in completions {
                println!("  {prompt:8}{}  {:.1} nats", text(tokens), -logps.iter().sum::<f64>());
                assert_eq!(*finish_reason == FinishReason::Stop, tokens.ends_with(&end));
                assert!(tokens.len() == 24 || *finish_reason == FinishReason::Stop);
            }
        }
        // A sequence depends on the seed, its prompt and its number, not on what is decoded beside it.
        let alone = [Request { samples: 1, ..requests[2] }];
        let alone = engine.generate(&cpu, &weights, &alone, &how, &end)?;
        assert_eq!(alone.completions[0][0], together.completions[2][0]);
    }
    Ok(())
}
