//! The kinds of files that users bring: right ones to start from, and what duel does with them.

mod model;
mod options;
mod planted;
mod rows;
mod run;
mod template;
mod tokenizer;

use crate::Files;
use duel_cpu::Cpu;
use duel_tests::TempDir;
use std::path::Path;
use std::sync::LazyLock;

/// One kind of input.
pub struct Kind {
    /// What it is called on the command line, and in the names of kept inputs.
    pub name: &'static str,
    /// Right folders.
    pub seeds: fn() -> Vec<Files>,
    /// Names of the files that are damaged, where a folder has them.
    pub damaged: &'static [&'static str],
    /// Does what duel does with such a folder. The error is what a user would be told.
    pub load: fn(&Path) -> Result<(), String>,
}

/// Every kind.
pub static KINDS: [Kind; 11] = [
    Kind { name: "config", seeds: model::configs, damaged: &["config.json"], load: model::load },
    Kind { name: "weights", seeds: model::configs, damaged: &["model.safetensors"], load: model::load },
    Kind {
        name: "shards",
        seeds: model::shards,
        damaged: &["model.safetensors.index.json", "a.safetensors", "b.safetensors"],
        load: model::load,
    },
    Kind { name: "tokenizer", seeds: tokenizer::seeds, damaged: &["tokenizer.json"], load: tokenizer::load },
    Kind {
        name: "tokenizer-config",
        seeds: tokenizer::seeds,
        damaged: &["tokenizer_config.json", "special_tokens_map.json", "generation_config.json"],
        load: tokenizer::load,
    },
    Kind {
        name: "template",
        seeds: template::seeds,
        damaged: &["chat_template.jinja"],
        load: template::load,
    },
    Kind { name: "rows", seeds: rows::seeds, damaged: &["rows.jsonl", "rows.json"], load: rows::load },
    Kind {
        name: "options",
        seeds: options::seeds,
        damaged: &["duel.toml", "recipe.yaml"],
        load: options::load,
    },
    Kind {
        name: "checkpoint",
        seeds: run::checkpoints,
        damaged: &[
            "duel_state.json",
            "duel.toml",
            "optimizer.safetensors",
            "model.safetensors",
            "reference/config.json",
            "reference/model.safetensors",
        ],
        load: run::resume,
    },
    Kind { name: "metrics", seeds: run::metrics, damaged: &["metrics.jsonl"], load: run::append },
    Kind { name: "reference", seeds: run::references, damaged: &[run::REFERENCE], load: run::score },
];

/// Not a kind of file: what a loader must never do, so that a test can see that it would be noticed.
pub static PLANTED: Kind = Kind { name: "planted", seeds: planted::seeds, damaged: &[], load: planted::load };

/// The kind of this name.
pub fn find(name: &str) -> Option<&'static Kind> {
    KINDS.iter().chain([&PLANTED]).find(|kind| kind.name == name)
}

/// The device of all kinds.
static CPU: LazyLock<Cpu<f32>> = LazyLock::new(|| Cpu::new(1));

/// What `make` leaves in a new folder.
fn made(make: impl FnOnce(&Path)) -> Files {
    let dir = TempDir::new().expect("room for a folder");
    make(dir.path());
    crate::read(dir.path()).expect("they were just written")
}

/// A file of a seed.
fn file(name: &str, text: impl Into<Vec<u8>>) -> (String, Vec<u8>) {
    (name.into(), text.into())
}

/// Right where one of several is, else the first error.
fn any<E>(results: impl IntoIterator<Item = Result<(), E>>) -> Result<(), E> {
    let mut results = results.into_iter();
    let first = results.next().unwrap_or(Ok(()));
    first.or_else(|e| if results.any(|r| r.is_ok()) { Ok(()) } else { Err(e) })
}
