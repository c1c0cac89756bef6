//! A reward model of preferences, and how often it is right on those that it has not seen.

use crate::sentiment::{stage, write_rows};
use duel_backend::Backend;
use duel_train::Error;
use duel_train::config::{Maybe, Method, Options, Scheduler};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// One of so many rows is held out.
const HELD_OUT: usize = 16;

/// Trains a reward model in the folder `dir`/reward from the language model in `model`, on preference rows of which the
/// last sixteenth is held out. Returns its folder, and the share of the pairs held out on which it is right.
///
/// # Errors
/// There are too few rows, the folder cannot be written, or Ctrl-C.
pub fn reward_model<B: Backend>(
    b: &B,
    dir: &Path,
    model: &Path,
    rows: &[Value],
    seed: u64,
) -> Result<(PathBuf, f64), Error> {
    if rows.len() < HELD_OUT {
        return Err(Error::new(format!(
            "a reward model needs at least {HELD_OUT} preferences, of which one is held out; there are {}",
            rows.len()
        )));
    }
    let (rows, held_out) = rows.split_at(rows.len() - rows.len() / HELD_OUT);
    let folder = dir.join("reward");
    let options = Options {
        method: Some(Method::Reward),
        learning_rate: Some(1e-3),
        num_train_epochs: Some(2.0),
        per_device_train_batch_size: Some(16),
        warmup_steps: Some(20),
        lr_scheduler_type: Some(Scheduler::Cosine),
        eval_dataset: Some(Maybe(Some(write_rows(dir, "reward-eval.jsonl", held_out)?))),
        ..Options::default()
    };
    let last = stage(b, options, model, &write_rows(dir, "reward.jsonl", rows)?, &folder, seed)?;
    let accuracy = last.iter().find(|(name, _)| name == "eval_accuracy");
    let (_, accuracy) = accuracy.ok_or_else(|| Error::new("the reward model was not evaluated"))?;
    Ok((folder, *accuracy))
}
