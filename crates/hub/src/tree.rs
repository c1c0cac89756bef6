//! The files of a repository at a commit, wherever they are: in the cache, on the Hub, or in a folder of the user's.

use crate::cache::below;
use crate::error::{Error, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// Files by their paths from the root on.
pub(crate) trait Tree {
    /// Those that there are, in order.
    fn paths(&self) -> &[String];

    /// One of them on disk.
    ///
    /// # Errors
    /// It cannot be had.
    fn file(&mut self, path: &str) -> Result<PathBuf>;

    /// The error that it is not as it should be: `what`, a clause about it.
    fn wrong(&self, what: &str) -> Error;

    /// Whether there is such a file.
    fn has(&self, path: &str) -> bool {
        self.paths().iter().any(|there| there == path)
    }

    /// The text of one of them.
    ///
    /// # Errors
    /// It cannot be had, or is no text.
    fn text(&mut self, path: &str) -> Result<String> {
        let file = self.file(path)?;
        fs::read_to_string(&file).map_err(|e| Error::file(&file, format!("cannot be read: {e}")))
    }
}

/// A folder on disk.
pub(crate) struct Local {
    folder: PathBuf,
    paths: Vec<String>,
    /// What is said of it before what is wrong.
    called: String,
    /// What is said after it.
    cure: String,
}

impl Local {
    /// A folder, and what errors say of it before and behind what is wrong.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn open(folder: &Path, called: String, cure: String) -> Result<Self> {
        Ok(Local { folder: folder.to_owned(), paths: below(folder)?, called, cure })
    }
}

impl Tree for Local {
    fn paths(&self) -> &[String] {
        &self.paths
    }

    fn file(&mut self, path: &str) -> Result<PathBuf> {
        let file = self.folder.join(path);
        if fs::metadata(&file).is_ok() {
            return Ok(file);
        }
        match fs::read_link(&file) {
            Ok(to) => Err(Error::file(
                &file,
                format!(
                    "is a link to {}, which is not there: the cache is damaged{}",
                    to.display(),
                    self.cure
                ),
            )),
            Err(_) => Err(self.wrong(&format!("lacks {path}"))),
        }
    }

    fn wrong(&self, what: &str) -> Error {
        Error::new(format!("{} {what}{}", self.called, self.cure))
    }
}
