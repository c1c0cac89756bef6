//! The tokenizer of a model, wherever it lies.

use crate::Error;
use duel_data::Tokenizer;
use duel_model::tokenizer_folder;
use std::path::Path;

/// The tokenizer of the model in `folder`: that of its base where it is an adapter without one.
///
/// # Errors
/// It is missing or broken.
pub fn tokenizer(folder: &Path) -> Result<Tokenizer, Error> {
    Ok(Tokenizer::from_dir(&tokenizer_folder(folder)?)?)
}
