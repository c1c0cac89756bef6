//! Whole runs on a real model against TRL's metrics of the same runs, step for step.

mod common;

use common::{Run, Temp, shared_data, write_lines};
use duel_data::{Dataset, Options, Task, Tokenizer, Truncation, Whole};
use serde_json::Value;
use std::fs;

fn matches_trl(loss: &str) {
    let Some(data) = shared_data(&format!("parity with TRL, {loss}")) else { return };
    let golden = fs::read_to_string(data.join("golden/trl_stories260k_polite.json")).unwrap();
    let golden: Value = serde_json::from_str(&golden).unwrap();
    let golden = golden[loss].as_array().unwrap();

    let temp = Temp::new(&format!("parity-{loss}"));
    let rows = fs::read_to_string(data.join("preference/rasbt_polite_pairs.jsonl")).unwrap();
    let (train, model) = (temp.path("train.jsonl"), data.join("models/stories260k"));
    write_lines(&train, rows.lines().take(80));
    let run = Run::new(&temp, "out")
        .set("model", model.display())
        .set("max-length", 256)
        .set("lr-scheduler-type", "constant")
        .set("shuffle", false)
        .set("loss-type", loss)
        .set("max-steps", golden.len())
        .set("threads", 2);
    run.ok();

    let options = Options {
        task: Task::Preference,
        whole: Whole::default(),
        max_length: Some(256),
        truncation: Truncation::KeepStart,
    };
    let ds = Dataset::load(&train, &Tokenizer::from_dir(&model).unwrap(), &options).unwrap();
    let chosen: Vec<usize> = ds.groups().map(|g| g.responses().next().unwrap().len()).collect();

    let records = run.metrics();
    assert_eq!((records.len(), golden.len()), (10, 10));
    let mut wrong = Vec::new();
    for (i, (ours, theirs)) in records.iter().zip(golden).enumerate() {
        for (key, want) in theirs.as_object().unwrap() {
            let want = want.as_f64().unwrap();
            let got = ours.get(key).and_then(Value::as_f64).unwrap_or(f64::NAN);
            let tolerance = match key.as_str() {
                "loss" => 2e-4 * want.abs().max(1.0),
                "grad_norm" => 0.01 * want,
                "logps/chosen" | "logps/rejected" => 0.05,
                // One pair of eight can fall on the other side only where its margin is nearly 0.
                "rewards/accuracies" => 0.0,
                "rewards/chosen" | "rewards/rejected" | "rewards/margins" => 1e-3 * want.abs().max(1.0),
                "entropy" | "logits/chosen" | "logits/rejected" => 1e-3,
                // One token of slack, where two logits are nearly the same.
                "mean_token_accuracy" => 1.001 / chosen[8 * i..8 * i + 8].iter().sum::<usize>() as f64,
                "learning_rate" => 1e-12,
                "num_tokens" | "step" | "epoch" => 0.0,
                other => panic!("TRL's {other} is not compared"),
            };
            let within = (got - want).abs() <= tolerance;
            if !within {
                wrong.push(format!("step {} {key}: {got}, TRL has {want}", i + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn sigmoid_matches_trl() {
    matches_trl("sigmoid");
}

#[test]
fn ipo_matches_trl() {
    matches_trl("ipo");
}

#[test]
fn hinge_matches_trl() {
    matches_trl("hinge");
}
