//! Configuration files.

use super::file;
use crate::Files;
use duel_train::config::Options;
use std::path::Path;

const SHORT: &str = "model = 'model'\ndataset = \"rows.jsonl\"\ncache-dir = '.'\n";

const MORE: &str = "# all kinds of values
learning-rate = 1e-5
beta = 0.2
loss_type = 'ipo'
max_length = 'none'
eval_dataset = 'held-out.jsonl'
num_train_epochs = 1
warmup_steps = 0.1
device = 'cuda:1'
resume_from_checkpoint = true
";

const RECIPE: &str = "# anchors, lists, tables and words
model_name_or_path: model
dataset: rows.jsonl
lr_scheduler_type: cosine_with_min_lr
lr_scheduler_kwargs: &kwargs {min_lr_rate: 0.1}
learning_rate: 5e-7
loss_type: [sigmoid, 'sft']
loss_weights:
- 1.0
- 5.0e-1
max_length: null
shuffle: off
warmup_ratio: 0.1
cache_dir: .
";

/// A short one, a longer one, one as a run writes it, and a recipe.
pub fn seeds() -> Vec<Files> {
    let whole = Options::parse(SHORT).and_then(Options::resolve).and_then(|config| config.to_toml());
    let texts = [SHORT.into(), [SHORT, MORE].concat(), whole.expect("the short one is right")];
    let mut all = texts.map(|text| Files::from([file("duel.toml", text)])).to_vec();
    all.push(Files::from([file("recipe.yaml", RECIPE)]));
    all
}

/// Reads and checks a file. What a run would then write must say the same.
pub fn load(dir: &Path) -> Result<(), String> {
    let said = |e: duel_train::Error| e.to_string();
    let recipe = dir.join("recipe.yaml");
    let path = if recipe.exists() { recipe } else { dir.join("duel.toml") };
    let config = Options::read(&path).and_then(Options::resolve).map_err(said)?;
    let written = config.to_toml().map_err(said)?;
    let again = Options::parse(&written).and_then(Options::resolve);
    assert_eq!(again.as_ref(), Ok(&config), "what a run writes is read back");
    Ok(())
}
