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
warmup_ratio = 0.1
device = 'cuda:1'
resume_from_checkpoint = true
";

/// A short one, a longer one, and one as a run writes it.
pub fn seeds() -> Vec<Files> {
    let whole = Options::parse(SHORT).and_then(Options::resolve).and_then(|config| config.to_toml());
    let texts = [SHORT.into(), [SHORT, MORE].concat(), whole.expect("the short one is right")];
    texts.map(|text| Files::from([file("duel.toml", text)])).to_vec()
}

/// Reads and checks a file. What a run would then write must say the same.
pub fn load(dir: &Path) -> Result<(), String> {
    let said = |e: duel_train::Error| e.to_string();
    let config = Options::read(&dir.join("duel.toml")).and_then(Options::resolve).map_err(said)?;
    let written = config.to_toml().map_err(said)?;
    let again = Options::parse(&written).and_then(Options::resolve);
    assert_eq!(again.as_ref(), Ok(&config), "what a run writes is read back");
    Ok(())
}
