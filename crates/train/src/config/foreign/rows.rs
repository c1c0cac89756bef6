//! Which rows a recipe is about. What names of theirs mean in files is decided here and nowhere else.

use super::super::table::Options;
use crate::Error;

impl Options {
    /// Makes files of the keys that say which rows a recipe reads, unless files are named beside it.
    ///
    /// # Errors
    /// They name no file that is here.
    pub(in super::super) fn settle_rows(&mut self) -> Result<(), Error> {
        let rows = std::mem::take(&mut self.recipe.rows);
        if self.dataset.is_some() {
            let beside = rows
                .into_iter()
                .map(|e| (e.key, "the rows are those of the files that are named".to_owned()));
            self.recipe.idle.extend(beside);
            return Ok(());
        }
        match rows.first() {
            None => Ok(()),
            Some(entry) => Err(Error::new(format!(
                "`{} = {}` is not read yet: rows are of one dataset here; give --dataset FILE or NAME and, to evaluate, \
                 --eval-dataset FILE",
                entry.key, entry.value
            ))),
        }
    }
}
