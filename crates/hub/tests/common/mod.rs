//! A cache to test with, in a folder that goes with the value.
#![allow(dead_code)] // every test crate compiles its own copy and uses a part of it

use duel_hub::{Found, Hub, Rows};
use std::fs;
use std::path::{Path, PathBuf};

/// A folder that goes with the value.
pub struct Temp(pub PathBuf);

impl Temp {
    pub fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("duel-hub-{name}-{}", std::process::id()));
        drop(fs::remove_dir_all(&dir));
        fs::create_dir_all(&dir).unwrap();
        Temp(dir.canonicalize().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file, with the folders that it is in.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// The commit of forty times this digit.
pub fn commit(digit: char) -> String {
    digit.to_string().repeat(40)
}

/// The files of a small model.
pub const MODEL: [&str; 4] = ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"];

/// What a hub says of a model, as text.
pub fn model(hub: &Hub, said: &str) -> Result<Found<PathBuf>, String> {
    hub.model(Path::new(said)).map_err(|e| e.to_string())
}

/// The files of a split, by their names.
pub fn dataset(hub: &Hub, said: &str, split: &str) -> Result<Vec<String>, String> {
    let asked = Rows { name: said.into(), split: split.into(), ..Rows::default() };
    let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    hub.dataset(&asked).map(|found| found.at.iter().map(name).collect()).map_err(|e| e.to_string())
}
