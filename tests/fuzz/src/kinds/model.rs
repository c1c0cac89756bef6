//! Model folders: config and weights.

use super::{CPU, file, made};
use crate::Files;
use duel_model::decode::{Engine, Request, Room, Sampling};
use duel_model::{Config, Folder};
use duel_tests::{Case, FAMILIES, TensorFile, config, merge, tiny};
use serde_json::{Map, Value, json};
use std::path::Path;

/// A small model of every family, and other ways to write a config.
pub fn configs() -> Vec<Files> {
    let mut all = FAMILIES.map(tiny).to_vec();
    for more in [
        json!({"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_theta": 500_000.0}),
        json!({"attention_bias": true, "mlp_bias": true, "hidden_act": "silu", "torch_dtype": "bfloat16"}),
    ] {
        let mut json = Value::Object(all[1].json.clone());
        merge(&mut json, json!({"model_type": "llama"}));
        merge(&mut json, more);
        all.push(config(json));
    }
    all.iter().map(|config| made(|dir| save(dir, config))).collect()
}

/// Writes a model folder.
pub fn save(dir: &Path, config: &Config) {
    let weights = Case::new(config.clone(), 1).upload(&*CPU);
    duel_model::save(&*CPU, dir, config, &weights).expect("room for a model");
}

/// Models in two files with an index.
pub fn shards() -> Vec<Files> {
    FAMILIES.map(tiny).iter().map(split).collect()
}

fn split(config: &Config) -> Files {
    made(|dir| {
        save(dir, config);
        let whole = dir.join("model.safetensors");
        let tensors = TensorFile::read(&whole);
        let names = tensors.names();
        let halves = names.split_at(names.len() / 2);
        let mut map = Map::new();
        for (half, name) in [(halves.0, "a.safetensors"), (halves.1, "b.safetensors")] {
            let shard = tensors.select(half, "F32", <[u8]>::to_vec);
            std::fs::write(dir.join(name), shard.bytes()).expect("room for a file");
            map.extend(half.iter().map(|tensor| (tensor.clone(), name.into())));
        }
        let index = json!({"metadata": {"total_size": tensors.data.len()}, "weight_map": map});
        let (name, text) = file("model.safetensors.index.json", index.to_string());
        std::fs::write(dir.join(name), text).expect("room for a file");
        std::fs::remove_file(whole).expect("it was just read");
    })
}

/// Reads a model folder and, where that is right, samples from the model as `duel generate` would.
pub fn load(dir: &Path) -> Result<(), String> {
    let said = |e: duel_model::Error| e.to_string();
    let folder = Folder::open(dir).map_err(said)?;
    let weights = duel_model::load(&*CPU, &folder).map_err(said)?;
    duel_model::load_frozen(&*CPU, &folder).map_err(said)?;
    let how = Sampling { max_new_tokens: 2, top_p: 0.9, ..Sampling::default() };
    let requests = [Request { prompt: &[1, 2, 3], samples: 1, id: 0 }];
    let mut engine = Engine::new(&*CPU, folder.config(), Room::of(requests, 1, 2)).map_err(said)?;
    engine.generate(&*CPU, &weights, &requests, &how, &[]).map_err(said)?;
    Ok(())
}
