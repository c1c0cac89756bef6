//! The rows that a run reads.

use crate::Error;
use crate::config::{Config, Method, TruncationMode};
use crate::report::progress::Progress;
use crate::signal;
use duel_data::{Dataset, Options, Task, Tokenizer, Truncation};
use duel_model::Config as ModelConfig;
use std::path::Path;

/// The groups of a run.
pub struct Data {
    /// Those that it learns from.
    pub train: Dataset,
    /// Those that it is judged by.
    pub eval: Option<Dataset>,
}

impl Data {
    /// Reads the files that `config` names, as long as `model` can go.
    ///
    /// # Errors
    /// A file cannot be read, its rows do not fit the method or the model, or Ctrl-C.
    pub fn load(config: &Config, model: &ModelConfig, tokenizer: &Tokenizer) -> Result<Self, Error> {
        let options = options(config, model);
        let load = |path: &Path| {
            let ds = read(path, tokenizer, &options)?;
            check_vocabulary(&ds, config, model).map(|()| ds)
        };
        Ok(Data {
            train: load(&config.dataset)?,
            eval: config.eval_dataset.as_deref().map(load).transpose()?,
        })
    }
}

fn options(c: &Config, model: &ModelConfig) -> Options {
    Options {
        task: if c.method == Method::Sft { Task::Sft } else { Task::Preference },
        whole: false,
        max_length: Some(max_length(c, model)),
        truncation: match c.truncation_mode {
            TruncationMode::KeepStart => Truncation::KeepStart,
            TruncationMode::KeepEnd => Truncation::KeepEnd,
        },
    }
}

/// The configured length, but no longer than the model can go.
fn max_length(c: &Config, model: &ModelConfig) -> usize {
    match c.max_length {
        Some(n) if n <= model.max_positions => n,
        asked => {
            let asked = asked.map_or("none".to_string(), |n| n.to_string());
            eprintln!(
                "max_length {asked} is lowered to {}: the model has no more positions",
                model.max_positions
            );
            model.max_positions
        }
    }
}

fn read(path: &Path, tokenizer: &Tokenizer, options: &Options) -> Result<Dataset, Error> {
    let mut progress: Option<(Progress, u64)> = None;
    let loaded = Dataset::load_watched(path, tokenizer, options, &mut |at| {
        let (bar, done) = progress.get_or_insert_with(|| (Progress::reading("tokenising", at.total), 0));
        bar.advance(at.bytes - *done);
        *done = at.bytes;
        !signal::interrupted()
    });
    drop(progress);
    match loaded {
        Err(_) if signal::interrupted() => {
            Err(Error::new(format!("stopped while reading {}; nothing was trained yet", path.display())))
        }
        loaded => Ok(loaded?),
    }
}

fn check_vocabulary(ds: &Dataset, c: &Config, model: &ModelConfig) -> Result<(), Error> {
    if (ds.max_token() as usize) < model.vocab {
        return Ok(());
    }
    Err(Error::new(format!(
        "{}: the tokenizer gives token {}, the model has only {} embeddings; they do not belong together",
        c.model.display(),
        ds.max_token(),
        model.vocab
    )))
}
