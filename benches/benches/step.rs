//! Loss and gradients of two groups through a model of SmolLM2-135M's layers (six of its thirty, to keep a run short):
//! the prompt computed once, against every response with a prompt of its own.
#![allow(missing_docs)] // criterion's macros make public items

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use duel_benches::values;
use duel_cpu::Cpu;
use duel_data::{Dataset, Options, Task, Truncation};
use duel_model::{Config, Keep, Model};
use duel_train::engine::{Engine, Room};

fn config() -> Config {
    let json = serde_json::json!({
        "model_type": "llama", "vocab_size": 49_152, "hidden_size": 576, "intermediate_size": 1536,
        "num_hidden_layers": 6, "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64,
        "max_position_embeddings": 2048, "tie_word_embeddings": true
    });
    Config::from_json(json.as_object().unwrap().clone()).unwrap()
}

fn dataset(prompt: usize, response: usize, shared: bool) -> Dataset {
    let options = Options { task: Task::Sft, max_length: None, truncation: Truncation::KeepStart };
    let mut builder = Dataset::builder(&options);
    let tokens =
        |n: usize, seed: usize| (0..n).map(|i| ((i * 97 + seed * 1009) % 40_000) as u32).collect::<Vec<_>>();
    for row in 0..2 {
        let (p, a, b) = (tokens(prompt, row), tokens(response, row + 10), tokens(response, row + 20));
        if shared {
            builder.push(row + 1, &p, &[&a, &b]).unwrap();
        } else {
            builder.push(row + 1, &p, &[&a]).unwrap();
            builder.push(row + 1, &p, &[&b]).unwrap();
        }
    }
    builder.finish().unwrap()
}

fn step(c: &mut Criterion) {
    let cpu = Cpu::<f32>::new(0);
    let config = config();
    let manifest = Model::manifest(&config);
    let mut normals = values(1 << 20, 1).into_iter().cycle();
    let weights = manifest.init(&cpu, &config, || f64::from(normals.next().unwrap_or(0.5))).unwrap();
    let mut grads = manifest.alloc::<Cpu<f32>, f32>(&cpu).unwrap();
    let mut group = c.benchmark_group("step");
    group.sample_size(10);
    group.throughput(Throughput::Elements(2));
    for (prompt, response) in [(64, 128), (256, 64)] {
        for shared in [true, false] {
            let ds = dataset(prompt, response, shared);
            let room = Room::plan(&ds, 4, 0, config.vocab);
            let mut engine = Engine::new(&cpu, &config, room, Keep::All).unwrap();
            let all: Vec<u32> = (0..ds.len() as u32).collect();
            let name = if shared { "shared prompt" } else { "prompt per response" };
            group.bench_function(BenchmarkId::new(name, format!("{prompt}+2x{response}")), |b| {
                b.iter(|| engine.accumulate(&weights, &mut grads, &ds, &all, |_, _, c| c.fill(0.01)));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, step);
criterion_main!(benches);
