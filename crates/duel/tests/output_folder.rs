//! What a run does with an output folder that is not empty.

mod common;

use common::{Run, Temp, tiny_config, write_model};
use half::bf16;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Leaves a sharded model of another trainer in a folder.
fn put_another_model(dir: &Path) {
    write_model(dir, tiny_config());
    let shard = "model-00001-of-00001.safetensors";
    fs::rename(dir.join("model.safetensors"), dir.join(shard)).unwrap();
    let index = json!({"weight_map": {"model.norm.weight": shard}});
    fs::write(dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
    for name in ["adapter_config.json", "merges.txt", "notes.txt"] {
        fs::write(dir.join(name), "{}").unwrap();
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

const RESULT: [&str; 7] = [
    "config.json",
    "duel.toml",
    "metrics.jsonl",
    "metrics.svg",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
];

fn result_and(more: &[&str]) -> Vec<String> {
    let json = ["all_results.json", "train_results.json", "trainer_state.json"];
    let all = RESULT.iter().chain(&json).chain(more);
    let mut names: Vec<String> = all.map(ToString::to_string).collect();
    names.sort();
    names
}

#[test]
fn a_finished_run_replaces_a_model_that_was_there() {
    let temp = Temp::with_model("replace");
    put_another_model(&temp.path("out"));
    let run = Run::new(&temp, "out").set("max-steps", 1).set("save-strategy", "no");
    let said = run.ok();
    let warned = said.find("holds another model (model-00001-of-00001.safetensors, ").expect(&said);
    assert!(warned < said.find("training").expect(&said), "before training: {said}");
    assert_eq!(names(&run.out()), result_and(&["notes.txt"]));
    let line = said.lines().find(|line| line.contains("held a model")).expect(&said);
    for name in ["model.safetensors.index.json", "model-00001-of-00001.safetensors", "merges.txt"] {
        assert!(line.contains(name), "{line}");
    }
    assert!(!line.contains("notes.txt"), "{line}");
}

/// Neither the model, nor a reference, nor the model that an adapter is beside.
#[test]
fn what_a_run_reads_is_not_its_output() {
    let temp = Temp::with_model("reads");
    Run::new(&temp, "adapter").set("lora-r", 2).set("max-steps", 1).ok();
    let refused = |run: &Run, what: &str| {
        let ended = run.go();
        assert!(ended.error().contains(what), "{}", ended.stderr);
        assert!(temp.path("model").join("model.safetensors").is_file());
    };
    let on_model = Run::new(&temp, "model");
    refused(&on_model, "is the model's own folder");
    refused(
        &on_model.clone().set("model", temp.path("adapter").display()),
        "is the adapter's base's own folder",
    );
    let on_reference = Run::new(&temp, "adapter").set("ref-model", temp.path("adapter").display());
    refused(&on_reference, "is the reference's own folder");
    let within = Run::new(&temp, "").set("overwrite-output-dir", true);
    refused(&within, "overwrite_output_dir would delete in");
}

#[test]
fn a_run_that_fails_replaces_nothing() {
    let temp = Temp::with_model("fails");
    put_another_model(&temp.path("out"));
    let before = names(&temp.path("out"));
    let run =
        Run::new(&temp, "out").set("max-steps", 1).set("save-strategy", "no").set("learning-rate", 1e300);
    assert!(run.go().error().contains("not finite"));
    let after = names(&run.out());
    assert!(before.iter().all(|name| after.contains(name)), "{after:?}");
}

#[test]
fn overwriting_removes_the_old_run_as_a_whole() {
    let temp = Temp::with_model("whole");
    let run = Run::new(&temp, "out").set("save-steps", 1).set("max-steps", 3);
    run.ok();
    put_another_model(&run.out());
    for folder in ["checkpoint-9.partial", "model.partial", "checkpoint-of-mine"] {
        fs::create_dir(run.out().join(folder)).unwrap();
    }
    fs::write(run.out().join("samples.jsonl"), "{}").unwrap();
    let mut next = run.set("max-steps", 1).set("save-strategy", "no").set("overwrite-output-dir", true);
    next.forget("save-steps");
    let said = next.ok();
    assert_eq!(names(&temp.path("out")), result_and(&["checkpoint-of-mine", "notes.txt"]));
    assert!(!said.contains("held a model") && !said.contains("another model"), "it was asked for: {said}");
}

/// A checkpoint of ours is a model folder like any other: what it is besides stays behind.
#[test]
fn a_checkpoint_as_the_model_brings_no_state_along() {
    let temp = Temp::with_model("along");
    let first = Run::new(&temp, "first").set("max-steps", 1);
    first.ok();
    let model = first.out().join("checkpoint-1");
    let next = Run::new(&temp, "next").set("model", model.display()).set("max-steps", 1);
    next.set("save-strategy", "no").ok();
    assert_eq!(names(&temp.path("next")), result_and(&[]));
}

#[test]
fn notes_about_the_model_are_printed() {
    let temp = Temp::with_model("notes");
    let dir = temp.path("model");
    let path = dir.join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let size = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + size]).unwrap();
    let end = bytes.len() - 8 - size;
    header["score.weight"] = json!({"dtype": "F32", "shape": [0], "data_offsets": [end, end]});
    let header = header.to_string();
    let parts = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &bytes[8 + size..]];
    fs::write(&path, parts.concat()).unwrap();
    let said = Run::new(&temp, "out").set("max-steps", 1).ok();
    let notes: Vec<&str> = said.lines().filter(|line| line.starts_with("note: ")).collect();
    assert!(notes.len() == 1 && notes[0].contains("score.weight"), "{said}");
}

/// The trained model has the source's type, or the one that is asked for; a checkpoint has what is computed with.
#[test]
fn a_model_is_saved_in_the_type_that_is_asked_for() {
    let temp = Temp::with_model("dtype");
    let tensors = |folder: &Path| {
        let bytes = fs::read(folder.join("model.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensor = |(name, view): (String, TensorView)| (name, (view.dtype(), view.data().to_vec()));
        file.tensors().into_iter().map(tensor).collect::<BTreeMap<_, _>>()
    };
    let config = |folder: &Path| -> Value {
        serde_json::from_slice(&fs::read(folder.join("config.json")).unwrap()).unwrap()
    };
    let run = |name: &str| Run::new(&temp, name).set("max-steps", 1).set("save-steps", 1);
    let plain = run("plain");
    plain.ok();
    let half = run("half").set("save-dtype", "bfloat16");
    half.ok();
    assert_eq!(config(&half.out())["torch_dtype"], "bfloat16");
    let (whole, rounded) = (tensors(&plain.out()), tensors(&half.out()));
    assert_eq!(whole.len(), rounded.len());
    for (name, (dtype, bytes)) in &whole {
        assert_eq!((*dtype, rounded[name].0), (Dtype::F32, Dtype::BF16), "{name}");
        let numbers = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        let expected: Vec<u8> = numbers.flat_map(|x| bf16::from_f32(x).to_le_bytes()).collect();
        assert!(rounded[name].1 == expected, "{name}");
    }
    assert!(tensors(&half.out().join("checkpoint-1")) == whole, "checkpoints are what is computed with");

    // What was saved so is the source of the next.
    let next = run("next").set("model", half.out().display());
    next.ok();
    assert!(tensors(&next.out()).values().all(|(dtype, _)| *dtype == Dtype::BF16));
    assert_eq!(config(&next.out())["torch_dtype"], "bfloat16");
}
