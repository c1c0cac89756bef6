//! Which rows a recipe is about. What names of theirs mean in files is decided here and nowhere else.

use super::super::said::Said;
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
        let is_default = |key: &str, value: &Said| {
            matches!(
                (key, value.text().as_str()),
                ("dataset_train_split", "train") | ("dataset_test_split", "test")
            )
        };
        let mut file = None;
        for entry in &rows {
            match entry.key.as_str() {
                "dataset_name" => file = Some(entry.value.text()),
                key if is_default(key, &entry.value) => {}
                _ => return Err(unread(&format!("`{} = {}`", entry.key, entry.value))),
            }
        }
        let Some(file) = file else { return Ok(()) };
        if !std::path::Path::new(&file).is_file() {
            return Err(unread(&format!("`dataset_name = {file}`")));
        }
        self.dataset = Some(file.into());
        Ok(())
    }
}

fn unread(what: &str) -> Error {
    Error::new(format!(
        "{what} is not read yet: rows are files here; give --dataset FILE and, to evaluate, --eval-dataset FILE"
    ))
}
