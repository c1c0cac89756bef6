//! A forward pass: a prompt is computed once for all its responses, and each response is what it would be alone.
//!
//!     cargo run --package duel --example 2_forward
//!
//! Needs `duel-backend`, `duel-cpu` and `duel-model`.

use duel_backend::{Layout, Segment, Storage};
use duel_cpu::Cpu;
use duel_model::{Activations, Config, Keep, Model, forward};
use serde_json::json;
use std::error::Error;

const PROMPT: [u32; 4] = [5, 9, 2, 7];
const RESPONSES: [[u32; 3]; 2] = [[1, 3, 8], [6, 6, 4]];

/// The shape of a Llama so small that it needs no file.
fn config() -> Result<Config, String> {
    let json = json!({
        "model_type": "llama", "vocab_size": 11, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32,
    });
    Config::from_json(json.as_object().cloned().unwrap_or_default())
}

fn main() -> Result<(), Box<dyn Error>> {
    let (cpu, config) = (Cpu::<f32>::new(0), config()?);
    let mut random = fastrand::Rng::with_seed(1);
    // Of twelve uniform numbers the sum is nearly normal, with variance 1.
    let normal = || (0..12).map(|_| random.f64() - 0.5).sum();
    let weights = Model::manifest(&config).init(&cpu, &config, normal)?;
    println!("{} parameters", Model::manifest(&config).parameters());

    // Everything is allocated once, for the largest batch.
    let mut layout = Layout::new(&cpu, 16)?;
    let mut activations = Activations::new(&cpu, &config, 16, 16, Keep::Nothing)?;
    let mut hidden = |tokens: &[u32], segments: &[Segment]| -> Result<Vec<f32>, duel_backend::Error> {
        layout.set(&cpu, tokens, segments.iter().copied());
        forward(&cpu, &config, &weights, &layout, &mut activations);
        let mut rows = vec![0.0; tokens.len() * config.width];
        cpu.download(&mut rows, &activations.hidden, 0)?;
        Ok(rows)
    };

    // [prompt | response 1 | response 2]: a response's rows see the prompt and themselves.
    let prompt = Segment { start: 0, len: 4, prefix_start: 0, prefix_len: 0 };
    let response = |i: usize| Segment { start: 4 + 3 * i, len: 3, prefix_start: 0, prefix_len: 4 };
    let tokens = [&PROMPT[..], &RESPONSES[0], &RESPONSES[1]].concat();
    let packed = hidden(&tokens, &[prompt, response(0), response(1)])?;

    for (i, words) in RESPONSES.iter().enumerate() {
        // The same response as the end of one plain sequence.
        let alone = hidden(&[&PROMPT[..], words].concat(), &[Segment { len: 7, ..prompt }])?;
        let rows = (4 + 3 * i) * config.width..(7 + 3 * i) * config.width;
        let pairs = packed[rows].iter().zip(&alone[4 * config.width..]);
        let apart = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        println!("response {}: packed and alone differ by {apart:.1e} at most", i + 1);
        // Final hidden states are normed to about 1; sums in another order round otherwise, by a few parts in 2^24.
        assert!(apart < 1e-5);
    }
    Ok(())
}
