//! What to tell a user whose folder is not one that can be read.

use crate::error::Error;
use crate::names::{INDEX, SINGLE};
use std::path::{Component, Path};

/// The error for a folder without `config.json`.
pub(crate) fn no_config(dir: &Path) -> Error {
    if dir.is_file() {
        return Error::file(
            dir,
            "is a file; give the folder of a model, which holds config.json and the weights",
        );
    }
    if !dir.exists() {
        return Error::file(dir, not_there(dir));
    }
    let names = entries(dir);
    let inner = || names.iter().find(|name| dir.join(name).join("config.json").is_file());
    match what_else(&names, dir) {
        Some(what) => Error::file(dir, what),
        None if names.is_empty() => Error::file(dir, "is an empty folder; download a model into it"),
        None => Error::file(
            &dir.join("config.json"),
            match inner() {
                Some(name) => {
                    format!("is missing; {} is a model folder, give that", dir.join(name).display())
                }
                None => "is missing; --model needs a Hugging Face folder".into(),
            },
        ),
    }
}

/// The error for a folder with `config.json` and without weights by the names that are looked for.
pub(crate) fn no_weights(dir: &Path) -> Error {
    let names = entries(dir);
    match what_else(&names, dir).or_else(|| other_safetensors(&names)) {
        Some(what) => Error::file(dir, what),
        None => Error::file(&dir.join(SINGLE), "is missing; download the weights as safetensors"),
    }
}

fn not_there(path: &Path) -> String {
    let parts: Vec<Component> = path.components().collect();
    let is_name = parts.len() == 2 && parts.iter().all(|p| matches!(p, Component::Normal(_)));
    let name = if is_name { path.display().to_string() } else { "ORGANISATION/NAME".into() };
    format!(
        "there is no such folder; a model of the Hugging Face Hub must be downloaded first, as with `hf download {name} \
         --local-dir FOLDER`"
    )
}

/// Names in a folder, sorted; none where it cannot be read.
fn entries(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// What is there instead of a model in safetensors, with or without a config.
fn what_else(names: &[String], dir: &Path) -> Option<String> {
    adapter(names, dir).or_else(|| parts_of_a_run(names)).or_else(|| other_format(names, dir))
}

fn adapter(names: &[String], dir: &Path) -> Option<String> {
    names.iter().find(|name| name.starts_with("adapter_config.") || name.starts_with("adapter_model."))?;
    let text = std::fs::read_to_string(dir.join("adapter_config.json")).unwrap_or_default();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let base = json["base_model_name_or_path"].as_str().unwrap_or("another model");
    Some(format!(
        "is a LoRA adapter of {base} without its adapter_model.safetensors or adapter_config.json; copy the whole folder \
         again"
    ))
}

/// A checkpoint of a trainer that deals the weights to its processes.
fn parts_of_a_run(names: &[String]) -> Option<String> {
    let find = |of: &dyn Fn(&str) -> bool| names.iter().find(|name| of(name));
    if let Some(name) = find(&|n| n.starts_with("global_step") || n.starts_with("bf16_zero_pp_rank")) {
        return Some(format!(
            "is a checkpoint of DeepSpeed ({name}), whose weights are in parts; make a model of it first (the \
             zero_to_fp32.py beside it, with --safe_serialization)"
        ));
    }
    let name = find(&|n| n.starts_with("pytorch_model_fsdp") || n.ends_with(".distcp"))?;
    Some(format!(
        "is a checkpoint of FSDP ({name}), whose weights are in parts; make a model of it first (`accelerate \
         merge-weights`)"
    ))
}

/// Weights in another format: the end of a file's name, and what to do about it.
fn other_format(names: &[String], dir: &Path) -> Option<String> {
    // Of a trainer, not weights.
    let state = ["training_args.", "optimizer.", "scheduler.", "scaler.", "rng_state"];
    let find = |end: &str| {
        names.iter().find(|name| name.ends_with(end) && !state.iter().any(|start| name.starts_with(start)))
    };
    let convert = format!(
        "save it as safetensors (in Python: AutoModelForCausalLM.from_pretrained({0:?}).save_pretrained({0:?}))",
        dir.display().to_string()
    );
    let hub = "take the model as safetensors from where it was published";
    let formats = [
        (".bin", "PyTorch's", convert.as_str()),
        (".bin.index.json", "PyTorch's", hub),
        (".pth", "PyTorch's", hub),
        (".pt", "PyTorch's", hub),
        (".h5", "TensorFlow's", hub),
        (".msgpack", "Flax's", hub),
        (".gguf", "llama.cpp's", hub),
        (".onnx", "ONNX's", hub),
    ];
    let (name, whose, how) = formats.iter().find_map(|(end, whose, how)| Some((find(end)?, whose, how)))?;
    Some(format!("has its weights in {whose} format ({name}), duel reads safetensors; {how}"))
}

fn other_safetensors(names: &[String]) -> Option<String> {
    let name = names.iter().find(|name| name.ends_with(".safetensors"))?;
    let shard = name.starts_with("model-");
    Some(if shard {
        format!("has {name} but no {INDEX}; download that file too")
    } else {
        format!(
            "has {name} but no {SINGLE}; take the model as transformers saves it, or rename the file if it is that"
        )
    })
}
