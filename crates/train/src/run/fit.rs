//! Whether a run fits the memory that there is, said before anything of the model is read; and what would make it fit.

use crate::Error;
use crate::config::{Config, Names, SaveDtype};
use crate::memory::{Bytes, gigabytes};
use crate::run::start::Start;
use duel_backend::Backend;
use duel_model::Config as ModelConfig;

/// Rank of the adapters that are proposed.
const RANK: usize = 16;
/// The keys of weights in blocks.
const EIGHT: &str = "load_in_8bit";
const FOUR: &str = "load_in_4bit";

/// Settings that may take less memory than those of a run, and how a user says them.
struct Change {
    said: String,
    config: Config,
}

/// Checks that `bytes`, which the run allocates in micro-batches of up to `rows` tokens, are there. `with` says what it
/// would allocate with other settings, and how large a micro-batch would be.
///
/// # Errors
/// They are not: where they go, and what takes less, with its numbers.
pub fn check<B: Backend>(
    b: &B,
    start: &Start,
    (bytes, rows): (&Bytes, usize),
    with: impl Fn(&Config, &ModelConfig) -> Result<(Bytes, usize), Error>,
) -> Result<(), Error> {
    let Some(free) = b.memory().free.filter(|free| bytes.total() as u64 > *free) else { return Ok(()) };
    let least = Config { micro_batch_tokens: 1, ..start.config.clone() };
    let least = with(&least, &start.model)?.1;
    let mut said = Vec::new();
    for Change { said: keys, config } in changes::<B>(start, (least < rows).then_some(least)) {
        // A model that cannot be adapted so is none that could be proposed.
        let Ok(model) = start.model_of(&config) else { continue };
        let total = with(&config, &model)?.0.total() as u64;
        if total < bytes.total() as u64 {
            said.push(format!(
                "{} with {keys}{}",
                gigabytes(total),
                if total <= free { " (fits)" } else { "" }
            ));
        }
    }
    let would = if said.is_empty() { String::new() } else { format!("it would take {}; ", said.join(", ")) };
    Err(Error::new(format!(
        "the run would take {bytes}, and {} of memory are free; {would}a smaller {} takes less too",
        gigabytes(free),
        if start.config.method.is_online() {
            "max_completion_length or num_generations"
        } else {
            "max_length"
        }
    )))
}

/// What may take less: each alone, and at last together. `micro_batch` is the smallest there can be.
fn changes<B: Backend>(start: &Start, micro_batch: Option<usize>) -> Vec<Change> {
    let now = &start.config;
    let has_adapters = start.model.lora.is_some();
    let may_have = B::ADAPTS && now.check_adapters(true, 0.0).is_ok() && now.save_dtype == SaveDtype::Source;
    // What is usually adapted is not known of every family.
    let lora =
        (may_have && !has_adapters).then(|| format!("lora_r = {RANK} and lora_target_modules = all-linear"));
    let blocks = (may_have || has_adapters) && B::READS_BLOCKS;
    let checkpointing = (!now.gradient_checkpointing).then(|| "gradient_checkpointing".to_owned());
    let smaller = micro_batch.map(|n| format!("micro_batch_tokens = {n}"));
    // With whichever of these are said.
    let change = |lora: &Option<String>,
                  bits: Option<&str>,
                  checkpointing: &Option<String>,
                  smaller: &Option<String>| {
        let mut config = now.clone();
        if lora.is_some() {
            config.lora_r = Some(RANK);
            config.lora_target_modules = Some(Names(vec!["all-linear".into()]));
        }
        if bits.is_some() {
            (config.load_in_8bit, config.load_in_4bit) = (bits == Some(EIGHT), bits == Some(FOUR));
        }
        config.gradient_checkpointing |= checkpointing.is_some();
        config.micro_batch_tokens = smaller.as_ref().and(micro_batch).unwrap_or(now.micro_batch_tokens);
        let bits = bits.map(str::to_owned);
        let said: Vec<&str> =
            [lora, &bits, checkpointing, smaller].into_iter().flatten().map(String::as_str).collect();
        Change { said: said.join(" and "), config }
    };
    let mut all = vec![
        change(&None, None, &checkpointing, &None),
        change(&None, None, &None, &smaller),
        change(&lora, None, &None, &None),
    ];
    if blocks {
        all.push(change(&lora, Some(EIGHT), &None, &None));
        all.push(change(&lora, Some(FOUR), &None, &None));
    }
    let together = change(&lora, blocks.then_some(FOUR), &checkpointing, &smaller);
    if all.iter().all(|one| one.said != together.said) {
        all.push(together);
    }
    all
}
