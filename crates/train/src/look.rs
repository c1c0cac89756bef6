//! The rows of a run, looked at one by one before there is a run.

use crate::Error;
use crate::config::{Config, Method};
use crate::report::progress::Progress;
use crate::run::{check_rows, folder, max_length, row_options};
use crate::signal;
use duel_data::{Files, Options, Seen, Tokenizer};
use duel_model::{Config as ModelConfig, Folder};

/// What reads the rows of a run as the run would.
pub struct Look<'c> {
    config: &'c Config,
    model: ModelConfig,
    /// Of the model.
    pub tokenizer: Tokenizer,
    /// How rows become groups.
    pub options: Options,
}

impl<'c> Look<'c> {
    /// Opens the model that `config` names; its weights are not read.
    ///
    /// # Errors
    /// It is missing or damaged, or the method draws its responses itself.
    pub fn open(config: &'c Config) -> Result<Self, Error> {
        if config.method.is_online() {
            return Err(Error::new(format!(
                "`method = {}` draws its responses itself: of its rows it reads the prompts alone; give the method that \
                 the rows are for, as --method dpo",
                config.method
            )));
        }
        let folder = Folder::open(&folder(&config.model)?)?;
        let folder = if config.method == Method::Reward { folder } else { folder.language_model()? };
        let model = folder.config().clone();
        let tokenizer = crate::tokenizer(&config.model)?;
        let options = row_options(config, max_length(config, &model));
        Ok(Look { config, model, tokenizer, options })
    }

    /// The most tokens that the model can read.
    pub fn positions(&self) -> usize {
        self.model.max_positions
    }

    /// Hands the rows of files to `each`, those from row `from` on, until that returns `false`. What a run would
    /// refuse is refused.
    ///
    /// # Errors
    /// A file cannot be read, or Ctrl-C.
    pub fn each(&self, files: &Files, from: usize, mut each: impl FnMut(Seen) -> bool) -> Result<(), Error> {
        let mut progress = Progress::reading("reading", files.bytes());
        let mut done = 0;
        Seen::each(files, &self.tokenizer, &self.options, from, |mut seen, bytes| {
            progress.advance(bytes - done);
            done = bytes;
            if let Some(ds) = &seen.kept
                && let Err(e) = check_rows(ds, files.name(), self.config, &self.model)
            {
                seen.refused = Some(e.to_string());
            }
            !signal::interrupted() && each(seen)
        })?;
        match signal::interrupted() {
            true => Err(Error::new(format!("stopped while reading {}", files.name().display()))),
            false => Ok(()),
        }
    }
}
