//! Model folders that are damaged or lie: an error that names the file, and the tensor where it is about one; never
//! a panic, and never an allocation of what a lie asks for.

use duel_cpu::Cpu;
use duel_model::{Family, Folder};
use duel_tests::{Case, TempDir, TensorFile, merge, tiny};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::path::Path;

const WEIGHTS: &str = "model.safetensors";
const CONFIG: &str = "config.json";
const TENSOR: &str = "model.layers.1.mlp.down_proj.weight";

/// A small and right Llama.
fn folder() -> TempDir {
    let dir = TempDir::new().unwrap();
    let (b, case) = (Cpu::<f32>::new(1), Case::new(tiny(Family::Llama), 1));
    duel_model::save(&b, dir.path(), &case.config, &case.upload(&b)).unwrap();
    dir
}

/// What a user would be told, if anything is wrong.
fn load(dir: &Path) -> Result<(), String> {
    let folder = Folder::open(dir).map_err(|e| e.to_string())?;
    let model = duel_model::load(&Cpu::<f32>::new(1), &folder).map_err(|e| e.to_string())?;
    assert!(model.iter().into_iter().flatten().all(|x| x.is_finite()), "what loads is finite");
    Ok(())
}

#[track_caller]
fn assert_refused(dir: &Path, file: &str, words: &[&str]) {
    let message = load(dir).expect_err("a broken folder was loaded");
    let path = dir.join(file);
    assert!(message.starts_with(&path.display().to_string()), "{file} is not named: {message}");
    for word in words {
        assert!(message.contains(word), "`{word}` is not mentioned: {message}");
    }
}

/// A folder whose weights file was changed.
fn with_weights(change: impl FnOnce(&mut TensorFile)) -> TempDir {
    let dir = folder();
    let path = dir.path().join(WEIGHTS);
    let mut file = TensorFile::read(&path);
    change(&mut file);
    std::fs::write(&path, file.bytes()).unwrap();
    dir
}

/// A folder whose config was changed.
fn with_config(more: Value) -> TempDir {
    let dir = folder();
    let path = dir.path().join(CONFIG);
    let mut json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    merge(&mut json, more);
    std::fs::write(&path, json.to_string()).unwrap();
    dir
}

#[test]
fn a_right_folder_loads() {
    assert_eq!(load(folder().path()), Ok(()));
    assert_eq!(load(with_weights(|_| ()).path()), Ok(()));
    assert_eq!(load(with_config(json!({"unknown_key": [1, 2]})).path()), Ok(()));
}

#[test]
fn missing_files() {
    for file in [WEIGHTS, CONFIG] {
        let dir = folder();
        std::fs::remove_file(dir.path().join(file)).unwrap();
        assert_refused(dir.path(), file, &[]);
        std::fs::create_dir(dir.path().join(file)).unwrap();
        assert_refused(dir.path(), file, &[]);
    }
}

#[test]
fn truncated_weights() {
    let dir = folder();
    let path = dir.path().join(WEIGHTS);
    let bytes = std::fs::read(&path).unwrap();
    for len in [0, 1, 7, 8, 9, 100, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..len]).unwrap();
        assert_refused(dir.path(), WEIGHTS, &["not a whole safetensors file"]);
    }
    std::fs::write(&path, [&bytes[..], &[0]].concat()).unwrap();
    assert_refused(dir.path(), WEIGHTS, &["not a whole safetensors file"]);
}

#[test]
fn broken_headers() {
    let dir = folder();
    let path = dir.path().join(WEIGHTS);
    let bytes = std::fs::read(&path).unwrap();
    // The header's size, its first brace, and a size that no memory has.
    for (at, value) in [(0, 0xff), (7, 0xff), (7, 0x7f), (8, b'['), (9, 0), (9, 0xff)] {
        let mut bytes = bytes.clone();
        bytes[at] = value;
        std::fs::write(&path, bytes).unwrap();
        assert_refused(dir.path(), WEIGHTS, &["not a whole safetensors file"]);
    }
}

#[test]
fn lying_offsets() {
    let end = u64::MAX;
    for offsets in
        [json!([0, end]), json!([end - 4, end]), json!([480, 0]), json!([-1, 4]), json!([0, 4]), json!([0])]
    {
        let dir = with_weights(|file| file.header[TENSOR]["data_offsets"] = offsets.clone());
        assert_refused(dir.path(), WEIGHTS, &[]);
    }
    // Two tensors in one place.
    let dir = with_weights(|file| {
        let other = file.header["model.layers.0.mlp.down_proj.weight"]["data_offsets"].clone();
        file.header[TENSOR]["data_offsets"] = other;
    });
    assert_refused(dir.path(), WEIGHTS, &[]);
}

#[test]
fn lying_shapes() {
    // As many elements, in other shapes: the file is consistent and yet not this model's.
    for shape in [json!([10, 12]), json!([120]), json!([12, 10, 1]), json!([60, 2])] {
        let dir = with_weights(|file| file.header[TENSOR]["shape"] = shape.clone());
        assert_refused(dir.path(), WEIGHTS, &[TENSOR, "shape", "[12, 10]"]);
    }
    for shape in
        [json!([12, 11]), json!([1u64 << 63, 1u64 << 63]), json!([]), json!([12, -10]), json!("12x10")]
    {
        let dir = with_weights(|file| file.header[TENSOR]["shape"] = shape.clone());
        assert_refused(dir.path(), WEIGHTS, &[]);
    }
}

#[test]
fn wrong_types() {
    for dtype in ["I32", "U32"] {
        let dir = with_weights(|file| file.header[TENSOR]["dtype"] = dtype.into());
        assert_refused(dir.path(), WEIGHTS, &[TENSOR, dtype, "F32"]);
    }
    for dtype in ["F64", "BF16", "F99", ""] {
        let dir = with_weights(|file| file.header[TENSOR]["dtype"] = dtype.into());
        assert_refused(dir.path(), WEIGHTS, &[]);
    }
}

#[test]
fn missing_tensors() {
    for name in [TENSOR, "model.norm.weight", "lm_head.weight", "model.layers.0.self_attn.k_proj.weight"] {
        let dir = with_weights(|file| {
            let entry = file.header.remove(name).unwrap();
            file.header.insert(format!("{name}.renamed"), entry);
        });
        assert_refused(dir.path(), WEIGHTS, &[name, "missing"]);
    }
}

#[test]
fn values_that_are_not_finite() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let dir = with_weights(|file| {
            let at = file.range(TENSOR).start + 4 * 7;
            file.data[at..at + 4].copy_from_slice(&bad.to_le_bytes());
        });
        assert_refused(dir.path(), WEIGHTS, &[TENSOR, "not finite", "element 7"]);
    }
}

#[test]
fn broken_shards() {
    let index = "model.safetensors.index.json";
    let names = TensorFile::read(&folder().path().join(WEIGHTS)).names();
    let shard = "model-00001-of-00001.safetensors";
    let map = |file: &str| {
        let entries = names.iter().map(|n| (n.clone(), Value::String(file.into())));
        json!({"weight_map": entries.collect::<serde_json::Map<_, _>>()})
    };
    let refused = |json: &Value, file: &str, words: &[&str]| {
        let dir = folder();
        std::fs::rename(dir.path().join(WEIGHTS), dir.path().join(shard)).unwrap();
        std::fs::write(dir.path().join(index), json.to_string()).unwrap();
        assert_refused(dir.path(), file, words);
    };
    refused(&json!([]), index, &["weight_map"]);
    refused(&json!({"weight_map": 3}), index, &["weight_map"]);
    refused(&json!({"weight_map": {"a": 1}}), index, &["`a`"]);
    refused(&json!({"weight_map": {}}), index, &["model.embed_tokens.weight"]);
    refused(&map("absent.safetensors"), "absent.safetensors", &[]);
    // No file outside the folder is read, whatever an index says.
    refused(&map("../model.safetensors"), index, &["not mapped to a file of this folder"]);
    refused(&map("/etc/passwd"), index, &["not mapped to a file of this folder"]);
    refused(&map(".."), "..", &[]);
}

#[test]
fn broken_configs() {
    let dir = folder();
    let path = dir.path().join(CONFIG);
    let text = std::fs::read_to_string(&path).unwrap();
    for broken in ["", "{", "[]", "null", "{}", &text[..text.len() / 2], "\u{feff}{}"] {
        std::fs::write(&path, broken).unwrap();
        assert_refused(dir.path(), CONFIG, &[]);
    }
    std::fs::write(&path, b"\xff\xfe{}").unwrap();
    assert_refused(dir.path(), CONFIG, &[]);

    let mistakes = [
        (json!({"model_type": "bert"}), "`bert`"),
        (json!({"model_type": 3}), "model_type"),
        (json!({"hidden_act": "mish"}), "mish"),
        (json!({"hidden_size": "12"}), "12"),
        (json!({"vocab_size": -1}), "-1"),
        (json!({"vocab_size": 1.5}), "1.5"),
        (json!({"num_attention_heads": 0}), "0"),
        (json!({"num_key_value_heads": 3}), "3"),
        (json!({"num_key_value_heads": 0}), "0"),
        (json!({"head_dim": 3}), "head_dim"),
        (json!({"rope_scaling": {"rope_type": "ntk"}}), "`ntk`"),
        (json!({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}), "low_freq_factor"),
    ];
    for (mistake, word) in mistakes {
        assert_refused(with_config(mistake).path(), CONFIG, &[word]);
    }
}

/// Sizes that no file has: refused before anything of that size is allocated, counted or built.
#[test]
fn absurd_sizes() {
    for key in [
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "max_position_embeddings",
    ] {
        for size in [0, (1 << 28) + 2, 1 << 40, 1 << 62, u64::MAX - 1] {
            assert_refused(with_config(json!({key: size})).path(), CONFIG, &[]);
        }
    }
    // Each a number that could be, together a model that could not.
    let big = 1u64 << 28;
    let dir = with_config(json!({"vocab_size": big, "hidden_size": big, "intermediate_size": big}));
    assert!(load(dir.path()).is_err());
    let dir = with_config(json!({"num_attention_heads": big, "num_key_value_heads": big, "head_dim": big}));
    assert!(load(dir.path()).is_err());
    let dir = with_config(json!({"hidden_size": big, "num_attention_heads": big, "head_dim": big}));
    assert!(load(dir.path()).is_err());
    assert!(load(with_config(json!({"num_hidden_layers": big})).path()).is_err());
    // Where only the weights can tell.
    for key in ["vocab_size", "intermediate_size", "num_hidden_layers"] {
        assert_refused(with_config(json!({key: 1000})).path(), WEIGHTS, &["config.json asks for"]);
    }
    let gpt2 = |n: u64| {
        json!({
            "model_type": "gpt2", "n_embd": n, "n_layer": 1, "n_head": 2, "n_positions": 9, "hidden_size": null,
            "num_hidden_layers": null, "num_attention_heads": null, "max_position_embeddings": null,
        })
    };
    for n in [1 << 62, u64::MAX - 1] {
        assert_refused(with_config(gpt2(n)).path(), CONFIG, &[]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// One byte anywhere, and a cut anywhere: an answer, right or wrong, but an answer.
    #[test]
    fn damage_never_panics(file in prop::sample::select(&[WEIGHTS, CONFIG][..]), place in 0.0..1.0f64,
                           head: bool, byte: u8, cut: bool) {
        let dir = folder();
        let path = dir.path().join(file);
        let mut bytes = std::fs::read(&path).unwrap();
        // Half of the damage to the header, which is what is parsed.
        let reach = if head { bytes.len().min(2000) } else { bytes.len() };
        let at = (place * reach as f64) as usize;
        let changed = cut || bytes[at] != byte;
        bytes[at] = byte;
        if cut {
            bytes.truncate(at);
        }
        std::fs::write(&path, bytes).unwrap();
        let outcome = load(dir.path());
        prop_assert!(changed || outcome.is_ok());
        if let Err(message) = outcome {
            prop_assert!(message.contains(&dir.path().display().to_string()), "no file named: {}", message);
        }
    }
}
