//! A training loop of one's own: DPO from the dataset to the optimizer's step, without the trainer's files, options and
//! checkpoints.
//!
//!     cargo run --release --package duel --example 4_training_loop
//!
//! Needs `duel-cpu`, `duel-data`, `duel-loss`, `duel-model`, `duel-optim`, and `duel-train` for its `engine`.

use duel_backend::{Storage, Update};
use duel_cpu::Cpu;
use duel_data::{Builder, Options, Task, Truncation, Whole, order};
use duel_loss::{Group, Objective, ResponseStats, Score, Settings, Totals, word};
use duel_model::{Config, Keep, Model};
use duel_optim::{Algorithm, Optimizer, clip_scale};
use duel_train::engine::{Engine, Room};
use serde_json::json;
use std::error::Error;

const TRAINED: usize = 256;
const HELD_OUT: usize = 64;
const BATCH: usize = 8;
const VOCAB: u32 = 16;

/// What a loss knows of responses: what the policy says of them, and the reference.
fn scores(stats: &[ResponseStats], reference: &[ResponseStats]) -> Vec<Score> {
    stats.iter().zip(reference).map(|(s, r)| s.score(r.logp)).collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let json = json!({
        "model_type": "llama", "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 16, "initializer_range": 0.1,
    });
    let model = Config::from_json(json.as_object().cloned().unwrap_or_default())?;
    let (cpu, mut random) = (Cpu::<f32>::new(0), fastrand::Rng::with_seed(1));
    let manifest = Model::manifest(&model);
    let mut weights = manifest.init(&cpu, &model, || (0..12).map(|_| random.f64() - 0.5).sum())?;

    // Rows that are tokens already: of two responses, the one that says the prompt again is preferred. The last are
    // held out.
    let options = Options {
        task: Task::Preference,
        whole: Whole::default(),
        max_length: None,
        truncation: Truncation::KeepStart,
    };
    let mut rows = Builder::new(&options);
    for row in 1..=TRAINED + HELD_OUT {
        let mut some = || -> Vec<u32> { (0..3).map(|_| random.u32(..VOCAB)).collect() };
        let (prompt, other) = (some(), some());
        rows.push(row, &prompt, &[&prompt, &other])?;
    }
    let data = rows.finish()?;

    let room = Room::plan(&cpu, &data, BATCH, 0, model.vocab);
    let mut engine = Engine::new(&cpu, &model, room, Keep::All)?;
    let mut grads = manifest.alloc::<_, f32>(&cpu)?;
    let adamw = Algorithm::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 };
    let shapes = manifest.iter().into_iter().map(|shape| (shape.len(), shape.decays()));
    let mut optimizer = Optimizer::new(&cpu, adamw, shapes)?;

    // Before the first step the model is its own reference.
    let all: Vec<u32> = (0..data.len() as u32).collect();
    let reference = engine.score(&weights, &data, &all, |_| true)?;
    let objective = Objective::new(vec![(1.0, word("sigmoid").expect("a loss"))], Settings::default());
    let mut losses = Vec::new();
    for epoch in 0..5 {
        for batch in order(TRAINED, 42, epoch, true).chunks(BATCH) {
            grads.iter_mut().into_iter().for_each(|grad| cpu.zero(grad));
            let mut totals = Totals::default();
            batch.iter().for_each(|_| totals.add(2, 3, 0));
            let mut loss = 0.0;
            engine.accumulate(&weights, &mut grads, &data, batch, |group, stats, slopes| {
                let scores = scores(stats, &reference[2 * group..][..2]);
                loss += objective.slopes(&[Group::ranked(&scores)], totals, slopes);
            })?;
            let norm = cpu.square_sums(&grads.iter())?.iter().sum::<f64>().sqrt();
            optimizer.step(&cpu, weights.iter_mut(), grads.iter(), 3e-3, clip_scale(norm, 1.0));
            losses.push(loss);
        }
        let steps = TRAINED / BATCH;
        println!(
            "epoch {epoch}: loss {:.4}",
            losses[losses.len() - steps..].iter().sum::<f64>() / steps as f64
        );
    }

    let held_out =
        scores(&engine.score(&weights, &data, &all[TRAINED..], |_| true)?, &reference[2 * TRAINED..]);
    let right = held_out.chunks(2).filter(|pair| pair[0].log_ratio() > pair[1].log_ratio()).count();
    println!("{right} of {HELD_OUT} pairs that it never saw are in the right order");
    assert!(right > 3 * HELD_OUT / 4);
    assert!((losses[0] - std::f64::consts::LN_2).abs() < 1e-12, "at the reference the loss is ln 2");
    assert!(losses[losses.len() - 1] < 0.5 * losses[0]);
    Ok(())
}
