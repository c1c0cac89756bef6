//! Files that are one data set.

use crate::Error;
use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};

/// Files whose rows are read one file after the other, and numbered through: one file, or the parts of a data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    name: PathBuf,
    parts: Vec<PathBuf>,
}

impl Files {
    /// Those of a data set that is called `name`, in order.
    pub fn new(name: impl Into<PathBuf>, parts: Vec<PathBuf>) -> Self {
        Files { name: name.into(), parts }
    }

    /// How they are called together: the one file, or the name of the data set.
    pub fn name(&self) -> &Path {
        &self.name
    }

    /// Each of them, in order.
    pub fn parts(&self) -> &[PathBuf] {
        &self.parts
    }

    /// Their bytes, of those that are there.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| std::fs::metadata(part).map_or(0, |m| m.len())).sum()
    }
}

impl<P: AsRef<Path> + ?Sized> From<&P> for Files {
    fn from(path: &P) -> Self {
        let path = path.as_ref().to_path_buf();
        Files { name: path.clone(), parts: vec![path] }
    }
}

/// How far they are read.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    /// Bytes.
    pub bytes: Cell<u64>,
    /// How many rows there were before each file that was begun.
    starts: RefCell<Vec<usize>>,
}

impl Reading {
    /// A file begins after so many rows.
    pub fn begin(&self, rows: usize) {
        self.starts.borrow_mut().push(rows);
    }

    /// The error of a row by its number in all files, which names its file and its number there.
    pub fn wrong(&self, files: &Files, row: usize, message: impl std::fmt::Display) -> Error {
        let starts = self.starts.borrow();
        let at = starts.partition_point(|start| *start < row).saturating_sub(1);
        let start = starts.get(at).copied().unwrap_or_default();
        Error::row(files.parts.get(at).map(PathBuf::as_path), row - start, message)
    }
}
