//! A model takes the place of another one: nothing of the old is left, nothing of others is touched.

use duel_cpu::Cpu;
use duel_model::{Family, Folder};
use duel_tests::{Case, TempDir, tiny};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Every kind of file that a model folder has had.
const OF_MODELS: [&str; 27] = [
    "model.safetensors",
    "model.fp16.safetensors",
    "model-00001-of-00002.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model-00002-of-00002.bin",
    "pytorch_model.bin.index.json",
    "adapter_model.safetensors",
    "adapter_model.bin",
    "adapter_config.json",
    "quantize_config.json",
    "quant_config.json",
    "hf_quant_config.json",
    "reward_normalization.json",
    "consolidated.00.pth",
    "tf_model.h5",
    "flax_model.msgpack",
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "additional_chat_templates/tool_use.jinja",
];

const OF_OTHERS: [&str; 8] = [
    "model-q4_k_m.gguf",
    "README.md",
    "rows.jsonl",
    "reference-0123.safetensors",
    "optimizer.pt",
    "model.py",
    "notes/model.safetensors",
    "checkpoint-5/model.safetensors",
];

fn put(dir: &Path, names: &[&str]) {
    for name in names {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("old {name}")).unwrap();
    }
}

/// Files below a folder, by their paths in it.
fn files(dir: &Path) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_string();
        if path.is_dir() {
            all.extend(files(&path).iter().map(|inner| format!("{name}/{inner}")));
        } else {
            all.insert(name);
        }
    }
    all
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

/// A whole model with its companions in `dir`.
fn stage(dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    let (b, case) = (Cpu::<f32>::new(1), Case::new(tiny(Family::Gpt2), 1));
    duel_model::save(&b, dir, &case.config, &case.upload(&b)).unwrap();
    put(dir, &["tokenizer.json", "additional_chat_templates/rag.jinja"]);
}

#[test]
fn a_model_replaces_every_file_of_another() {
    let out = TempDir::new().unwrap();
    put(out.path(), &OF_MODELS);
    put(out.path(), &OF_OTHERS);
    let staged = out.path().join("staged");
    stage(&staged);
    let new = files(&staged);
    let listed = duel_model::model_files(out.path()).unwrap();
    let replaced = duel_model::install(&staged, out.path()).unwrap();
    assert_eq!(files(out.path()), &new | &set(&OF_OTHERS));
    assert!(Folder::open(out.path()).unwrap().notes().is_empty());
    assert_eq!(listed, replaced);
    let mut names = set(&OF_MODELS);
    names.remove("additional_chat_templates/tool_use.jinja");
    names.insert("additional_chat_templates".into());
    assert_eq!(replaced.into_iter().collect::<BTreeSet<_>>(), names);
}

#[test]
fn an_empty_folder_gives_up_nothing() {
    let out = TempDir::new().unwrap();
    let staged = out.path().join("staged");
    stage(&staged);
    assert_eq!(duel_model::install(&staged, out.path()).unwrap(), [""; 0]);
    assert!(!staged.exists() && Folder::open(out.path()).is_ok());
}

/// Whatever step fails, no folder is left that loads as something else.
#[test]
fn what_cannot_be_moved_leaves_no_model_that_loads() {
    let out = TempDir::new().unwrap();
    stage(out.path());
    let staged = out.path().join("staged");
    stage(&staged);
    // A folder with something in it, where a file should go.
    fs::remove_file(out.path().join("tokenizer.json")).unwrap();
    put(out.path(), &["tokenizer.json/something"]);
    let e = duel_model::install(&staged, out.path()).unwrap_err().to_string();
    assert!(e.contains("tokenizer.json") && e.contains("cannot be moved"), "{e}");
    assert!(Folder::open(out.path()).is_err());
    assert!(staged.join("model.safetensors").exists(), "the weights come last");
}

#[test]
fn companions_are_copied_and_nothing_else() {
    let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    stage(from.path());
    put(
        from.path(),
        &["chat_template.jinja", "generation_config.json", "additional_chat_templates/notes.txt"],
    );
    // What a checkpoint of ours has besides.
    put(from.path(), &["trainer_state.json", "optimizer.safetensors", "duel.toml", "metrics.jsonl"]);
    duel_model::copy_companions(from.path(), to.path()).unwrap();
    let want = [
        "tokenizer.json",
        "chat_template.jinja",
        "generation_config.json",
        "additional_chat_templates/rag.jinja",
    ];
    assert_eq!(files(to.path()), set(&want));
}

/// A link to what is no part of the model is not handed on; those of the Hub's cache are its own files.
#[cfg(unix)]
#[test]
fn links_out_of_a_folder_are_refused() {
    use std::os::unix::fs::symlink;
    let root = TempDir::new().unwrap();
    let (secret, to) = (root.path().join("secret"), root.path().join("to"));
    fs::write(&secret, "of the user").unwrap();
    let [plain, repository] = ["plain", "models--org--name"].map(|name| root.path().join(name));
    let snapshot = repository.join("snapshots/c0");
    for folder in [&plain, &snapshot, &repository.join("blobs"), &to] {
        fs::create_dir_all(folder).unwrap();
    }
    let copied = |from: &Path| duel_model::copy_companions(from, &to).map_err(|e| e.to_string());
    let refused = |from: &Path, name: &str| {
        let error = copied(from).unwrap_err();
        assert!(error.contains(name) && error.contains("outside of the model's folder"), "{error}");
        assert_eq!(files(&to), set(&[]), "something was copied");
        fs::remove_file(from.join(name)).unwrap();
    };
    symlink(&secret, plain.join("merges.txt")).unwrap();
    refused(&plain, "merges.txt");
    symlink("../../../secret", snapshot.join("tokenizer.json")).unwrap();
    refused(&snapshot, "tokenizer.json");
    fs::create_dir_all(plain.join("additional_chat_templates")).unwrap();
    symlink("../../secret", plain.join("additional_chat_templates/a.jinja")).unwrap();
    refused(&plain, "additional_chat_templates/a.jinja");

    fs::write(repository.join("blobs/1234"), "a tokenizer").unwrap();
    symlink("../../blobs/1234", snapshot.join("tokenizer.json")).unwrap();
    // The folder itself may be a link.
    symlink(&snapshot, root.path().join("named")).unwrap();
    copied(&root.path().join("named")).unwrap();
    assert_eq!(fs::read(to.join("tokenizer.json")).unwrap(), b"a tokenizer");
}

/// What ends a text stands where transformers looks first, and what was there stays.
#[test]
fn stops_are_written() {
    let said = |files: &[(&str, &str)], stops: &[u32]| {
        let dir = TempDir::new().unwrap();
        files.iter().for_each(|(name, text)| std::fs::write(dir.path().join(name), text).unwrap());
        duel_model::write_stops(dir.path(), stops).unwrap();
        let text = std::fs::read_to_string(dir.path().join("generation_config.json")).ok()?;
        serde_json::from_str::<serde_json::Value>(&text).ok()
    };
    let config = ("config.json", r#"{"eos_token_id": 2, "bos_token_id": 1, "width": 3}"#);
    // The config says it already.
    assert_eq!(said(&[config], &[2]), None);
    assert_eq!(said(&[config], &[]), None);
    let want = serde_json::json!({"bos_token_id": 1, "eos_token_id": [7, 2]});
    assert_eq!(said(&[config], &[7, 2]), Some(want));
    let generation = ("generation_config.json", r#"{"temperature": 0.6, "eos_token_id": [2, 7]}"#);
    let want = serde_json::json!({"temperature": 0.6, "eos_token_id": [2, 7]});
    assert_eq!(said(&[config, generation], &[7, 2]), Some(want));
    let want = serde_json::json!({"temperature": 0.6, "eos_token_id": 9});
    assert_eq!(said(&[config, ("generation_config.json", r#"{"temperature": 0.6}"#)], &[9]), Some(want));
}
