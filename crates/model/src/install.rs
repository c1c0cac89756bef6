//! Which files of a folder are a model's, and how a model takes its place.

use crate::error::{Error, Result};
use crate::json;
use crate::names::SINGLE;
use crate::peft;
use crate::quantised;
use crate::write::{sync, write_synced};
use serde_json::{Map, Value};
use std::fs;
use std::path::{Path, PathBuf};

/// Files of a model folder besides config and weights: carried along so that what is saved can be loaded anywhere.
const COMPANIONS: [&str; 9] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    TEMPLATE,
    "generation_config.json",
    "tokenizer.model",
];

const TEMPLATE: &str = "chat_template.jinja";

/// Folder of the chat templates besides the one of [`COMPANIONS`].
const TEMPLATES: &str = "additional_chat_templates";

/// Beginnings and ends of the names of weights, in the formats that transformers, PEFT and others
/// find by themselves in a folder; an exported `.gguf` or `.onnx` beside them is the user's.
const WEIGHTS: [(&str, &str); 12] = [
    ("model", ".safetensors"),
    ("model", ".safetensors.index.json"),
    ("pytorch_model", ".bin"),
    ("pytorch_model", ".bin.index.json"),
    ("adapter_model", ".safetensors"),
    ("adapter_model", ".bin"),
    ("consolidated", ".safetensors"),
    ("consolidated", ".safetensors.index.json"),
    ("consolidated", ".pth"),
    ("tf_model", ".h5"),
    ("flax_model", ".msgpack"),
    ("flax_model", ".msgpack.index.json"),
];

/// What else a model's folder may have that decides how it is loaded, or what is made of what it says.
const OTHERS: [&str; 9] = [
    "config.json",
    "adapter_config.json",
    "chat_template.json",
    "processor_config.json",
    "preprocessor_config.json",
    "reward_normalization.json",
    "vocab.txt",
    "spiece.model",
    "tekken.json",
];

/// Folder in an output folder where a model is whole before it takes its place.
pub const STAGED: &str = "model.partial";

/// An empty folder in `out`, which may not be there yet, for a model that [`install`] will put in its place.
///
/// # Errors
/// It cannot be made.
pub fn stage(out: &Path) -> Result<PathBuf> {
    let staged = out.join(STAGED);
    let empty = || -> std::io::Result<()> {
        if staged.exists() {
            duel_disk::remove_dir_all(&staged)?;
        }
        duel_disk::create_dir_all(&staged)
    };
    empty().map_err(|e| Error::file(&staged, e))?;
    Ok(staged)
}

/// Names of the files of `from` that go with config and weights: tokenizer, chat templates, defaults for generation.
///
/// # Errors
/// One is a link to what is no part of the model: who hands on what was trained would hand that on too. The Hub's cache
/// has links to its own files.
pub fn companions(from: &Path) -> Result<Vec<String>> {
    let templates = names_in(&from.join(TEMPLATES))?.into_iter().filter(|name| name.ends_with(".jinja"));
    let names = COMPANIONS.into_iter().map(String::from).chain(templates.map(|n| format!("{TEMPLATES}/{n}")));
    let names: Vec<String> = names.filter(|name| from.join(name).exists()).collect();
    if names.is_empty() {
        return Ok(names);
    }
    let real =
        |path: &Path| path.canonicalize().map_err(|e| Error::file(path, format!("cannot be read: {e}")));
    let folder = real(from)?;
    // `REPOSITORY/snapshots/REVISION`, whose files are links into `REPOSITORY/blobs`.
    let snapshots =
        folder.ancestors().find(|folder| folder.file_name().is_some_and(|name| name == "snapshots"));
    let blobs = snapshots.map(|snapshots| snapshots.with_file_name("blobs"));
    for name in &names {
        let (path, is) = (from.join(name), real(&from.join(name))?);
        if !is.starts_with(&folder) && !blobs.as_ref().is_some_and(|blobs| is.starts_with(blobs)) {
            return Err(Error::file(
                &path,
                format!(
                    "is a link to {}, outside of the model's folder, and would be copied beside what is trained: put \
                     the file itself in its place, if that is what you want",
                    is.display()
                ),
            ));
        }
    }
    Ok(names)
}

/// Copies the [`companions`] of `from` into `to`.
///
/// # Errors
/// As [`companions`], or a file cannot be read or written.
pub fn copy_companions(from: &Path, to: &Path) -> Result<()> {
    for name in companions(from)? {
        let (source, target) = (from.join(&name), to.join(&name));
        let bytes = fs::read(&source).map_err(|e| Error::file(&source, format!("cannot be read: {e}")))?;
        if let Some(folder) = target.parent() {
            duel_disk::create_dir_all(folder)
                .map_err(|e| Error::file(folder, format!("cannot be made: {e}")))?;
        }
        write_synced(&target, &bytes)?;
    }
    Ok(())
}

/// Removes the chat templates that have files of their own from a folder that is being made.
///
/// # Errors
/// One cannot be removed.
pub fn remove_templates(folder: &Path) -> Result<()> {
    let failed = |path: &Path, e| Error::file(path, format!("cannot be removed: {e}"));
    let alone = folder.join(TEMPLATE);
    if alone.exists() {
        duel_disk::remove_file(&alone).map_err(|e| failed(&alone, e))?;
    }
    let more = folder.join(TEMPLATES);
    if more.exists() {
        duel_disk::remove_dir_all(&more).map_err(|e| failed(&more, e))?;
    }
    Ok(())
}

/// Makes the model folder `dir`, which has its config, say that `stops` end a text, in the place where transformers
/// looks first: a model that learned to end by its tokenizer's token would else be cut off by another, or never. What
/// the folder says already stays as it is.
///
/// # Errors
/// `generation_config.json` or `config.json` is broken, or cannot be read or written.
pub fn write_stops(dir: &Path, stops: &[u32]) -> Result<()> {
    let object = |name: &str| -> Result<Option<Map<String, Value>>> {
        let path = dir.join(name);
        match fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map(Some).map_err(|e| json::broken(&path, &bytes, &e))
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::file(&path, format!("cannot be read: {e}"))),
        }
    };
    const GENERATION: &str = "generation_config.json";
    let config = object("config.json")?.unwrap_or_default();
    let generation = object(GENERATION)?;
    let says = generation.as_ref().unwrap_or(&config).get("eos_token_id").unwrap_or(&Value::Null);
    let listed: Vec<u64> =
        says.as_array().into_iter().flatten().chain([says]).filter_map(Value::as_u64).collect();
    if stops.iter().all(|&id| listed.contains(&id.into())) {
        return Ok(());
    }
    // Where there is no file yet, transformers would have taken these from the config.
    let mut generation = generation.unwrap_or_else(|| {
        let ids = ["bos_token_id", "pad_token_id"];
        ids.iter().filter_map(|&id| Some((id.to_owned(), config.get(id)?.clone()))).collect()
    });
    let ids = if let [one] = stops { Value::from(*one) } else { Value::from(stops) };
    generation.insert("eos_token_id".into(), ids);
    let path = dir.join(GENERATION);
    let text = serde_json::to_string_pretty(&generation).map_err(|e| Error::file(&path, e))?;
    write_synced(&path, text.as_bytes())
}

/// Names of the files of `dir` that belong to a model, the weights first.
///
/// # Errors
/// The folder cannot be read.
pub fn model_files(dir: &Path) -> Result<Vec<String>> {
    let weights = |name: &String| {
        WEIGHTS.iter().any(|(start, end)| name.strip_prefix(start).is_some_and(|rest| rest.ends_with(end)))
    };
    let lists = [&COMPANIONS[..], &OTHERS, &quantised::FILES];
    let other = |name: &String| lists.iter().any(|list| list.contains(&name.as_str()));
    let files = names_in(dir)?.into_iter().filter(|name| !dir.join(name).is_dir());
    let (mut all, rest): (Vec<String>, Vec<String>) = files.partition(weights);
    all.extend(rest.into_iter().filter(other));
    if dir.join(TEMPLATES).is_dir() {
        all.push(TEMPLATES.into());
    }
    Ok(all)
}

/// Removes every file of `dir` that belongs to a model, the weights first: what is left never loads. Returns their
/// names.
///
/// # Errors
/// A file cannot be removed.
pub fn remove_model(dir: &Path) -> Result<Vec<String>> {
    let names = model_files(dir)?;
    for name in &names {
        let path = dir.join(name);
        let removed = match path.is_dir() {
            true => duel_disk::remove_dir_all(&path),
            false => duel_disk::remove_file(&path),
        };
        removed.map_err(|e| Error::file(&path, format!("cannot be removed: {e}")))?;
    }
    Ok(names)
}

/// Moves the model of the folder `staged` to `out` and removes `staged`. A model that was in `out` is gone before, and
/// the weights come last, so that nothing ever loads that is a part of each. Returns the names of the old model's
/// files.
///
/// # Errors
/// A file cannot be removed or moved; what is not moved yet stays in `staged`.
pub fn install(staged: &Path, out: &Path) -> Result<Vec<String>> {
    let old = remove_model(out)?;
    sync(out)?;
    let mut names = names_in(staged)?;
    names.sort_by_key(|name| name == SINGLE || name == peft::WEIGHTS);
    for name in names {
        let (from, to) = (staged.join(&name), out.join(&name));
        duel_disk::rename(&from, &to)
            .map_err(|e| Error::file(&from, format!("cannot be moved to {}: {e}", to.display())))?;
    }
    sync(out)?;
    duel_disk::remove_dir(staged).map_err(|e| Error::file(staged, format!("cannot be removed: {e}")))?;
    Ok(old)
}

/// Names in a folder, sorted; none where there is no folder.
fn names_in(dir: &Path) -> Result<Vec<String>> {
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let names = fs::read_dir(dir).and_then(|entries| {
        entries
            .map(|e| Ok(e?.file_name().to_string_lossy().into_owned()))
            .collect::<std::io::Result<Vec<_>>>()
    });
    let mut names = names.map_err(|e| Error::file(dir, format!("cannot be read: {e}")))?;
    names.sort();
    Ok(names)
}
