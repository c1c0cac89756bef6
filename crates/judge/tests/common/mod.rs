//! What the tests share: temporary folders, a judge that is never stopped.
#![allow(dead_code)] // every test crate compiles its own copy and uses a part of it

use duel_judge::Stop;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A folder that goes with the value.
pub struct Temp(PathBuf);

impl Temp {
    pub fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("duel-judge-{name}-{}", std::process::id()));
        drop(fs::remove_dir_all(&dir));
        fs::create_dir_all(&dir).unwrap();
        Temp(dir)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        fs::write(self.path(name), text).unwrap();
        self.path(name)
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Nobody asks for an end.
pub fn never() -> Stop {
    Arc::new(|| false)
}

/// The data beside the project; says so where it is absent.
pub fn shared_data(test: &str) -> Option<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    if !dir.is_dir() {
        // Not eprintln: the test harness would keep that to itself.
        {
            use std::io::Write as _;
            drop(writeln!(std::io::stderr(), "SKIPPED: {test}: ../shared/data is not here"));
        }
        return None;
    }
    Some(dir)
}
