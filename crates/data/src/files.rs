//! Files that are one data set.

use crate::{Error, Form, Result, read};
use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};

/// Files whose rows are read one file after the other, and numbered through: one file, the parts of a data set, or
/// several data sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    name: PathBuf,
    parts: Vec<PathBuf>,
    /// How rows stand in each of them.
    forms: Vec<Form>,
    /// Which rows are read, of all in order; `None`: all.
    keep: Option<Vec<bool>>,
}

impl Files {
    /// Those of a data set that is called `name`, in order.
    pub fn new(name: impl Into<PathBuf>, parts: Vec<PathBuf>) -> Self {
        Files { name: name.into(), forms: vec![Form::default(); parts.len()], parts, keep: None }
    }

    /// The same with rows that stand so in all of them.
    pub fn in_form(mut self, form: Form) -> Self {
        self.forms.fill(form);
        self
    }

    /// Those of several data sets one after the other, by a name of their own.
    ///
    /// # Errors
    /// Some of the rows of one are read, and another cannot be.
    pub fn joined(name: impl Into<PathBuf>, all: Vec<Files>) -> Result<Self> {
        let mut joined = Files::new(name, Vec::new());
        let some = all.iter().any(|files| files.keep.is_some());
        let mut keep = Vec::new();
        for files in all {
            if some {
                match files.keep {
                    Some(of) => keep.extend(of),
                    None => keep.resize(keep.len() + files.count()?, true),
                }
            }
            joined.parts.extend(files.parts);
            joined.forms.extend(files.forms);
        }
        joined.keep = some.then_some(keep);
        Ok(joined)
    }

    /// Of the rows that are read, those that `keeps` says by their number from 0, of `count` in all.
    pub fn keeping(mut self, count: usize, keeps: impl Fn(usize) -> bool) -> Self {
        let mut keep = self.keep.take().unwrap_or_else(|| vec![true; count]);
        for (row, kept) in keep.iter_mut().filter(|kept| **kept).enumerate() {
            *kept = keeps(row);
        }
        self.keep = Some(keep);
        self
    }

    /// How many rows are read of them.
    ///
    /// # Errors
    /// One cannot be read.
    pub fn count(&self) -> Result<usize> {
        if let Some(keep) = &self.keep {
            return Ok(keep.iter().filter(|kept| **kept).count());
        }
        let mut count = 0;
        // In any form they are as many.
        let plain = Files::new(&self.name, self.parts.clone());
        read::rows(&plain, &Reading::default(), &mut |_, _| {
            count += 1;
            Ok(())
        })?;
        Ok(count)
    }

    /// What decides what is read beside the content of the files; `None`: nothing does.
    pub fn reading(&self) -> Option<String> {
        let plain = self.keep.is_none() && self.forms.iter().all(Form::is_plain);
        let keep = self.keep.iter().flatten().map(|kept| if *kept { '1' } else { '0' });
        (!plain).then(|| format!("{:?} {}", self.forms, keep.collect::<String>()))
    }

    pub(crate) fn form(&self, part: usize) -> &Form {
        &self.forms[part]
    }

    /// Whether the row of this number from 0, of all in order, is read.
    pub(crate) fn keeps(&self, row: usize) -> bool {
        self.keep.as_ref().is_none_or(|keep| keep.get(row) == Some(&true))
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
        Files::new(path.clone(), vec![path])
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
