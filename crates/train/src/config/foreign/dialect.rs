//! Whose words a recipe is in, and what those take where it says nothing.

use super::super::steps::Steps;
use super::super::table::Options;
use super::super::values::{EvalStrategy, Maybe, Method, Names, SaveStrategy, Scheduler};
use super::Entry;
use crate::Error;
use serde::Deserialize;
use std::fmt;

/// Whose words a recipe is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// TRL's, or those of alignment-handbook, which has its defaults.
    Trl,
    /// LLaMA-Factory's.
    LlamaFactory,
    /// Axolotl's.
    Axolotl,
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Trl => "TRL",
            Self::LlamaFactory => "LLaMA-Factory",
            Self::Axolotl => "axolotl",
        })
    }
}

impl Dialect {
    /// That of the keys which no other has.
    pub fn of(entries: &[Entry]) -> Self {
        let has = |keys: &[&str]| entries.iter().any(|e| keys.contains(&e.key.as_str()));
        if has(&[
            "stage",
            "finetuning_type",
            "cutoff_len",
            "template",
            "pref_beta",
            "pref_loss",
            "lora_target",
        ]) {
            Self::LlamaFactory
        } else if has(&["base_model", "rl", "micro_batch_size", "sequence_len", "num_epochs", "adapter"]) {
            Self::Axolotl
        } else {
            Self::Trl
        }
    }

    /// What it takes where a recipe, with what was said beside it, says nothing; only what changes a number or what
    /// is kept, and is not duel's own default.
    fn defaults(self, said: &Options) -> Options {
        let method = said.method.unwrap_or(match self {
            Self::LlamaFactory | Self::Axolotl => Method::Sft,
            Self::Trl => Method::Dpo,
        });
        let mut taken = Options::default();
        if said.save_strategy != Some(SaveStrategy::No) {
            taken.save_total_limit = Some(Maybe(None));
        }
        let adapts = self.adapts(said);
        if self != Self::Trl && said.use_peft == Some(true) {
            taken.lora_dropout = Some(0.0);
        }
        match self {
            Self::Trl => {
                taken.assistant_only_loss = (method == Method::Sft).then_some(false);
                taken.shuffle = (method == Method::Kto).then_some(false);
                // Pairs are replayed, which TRL does not, by how likely the policy itself draws them; and a mixture is
                // of what both policies would draw.
                let replays = said.replay.is_some_and(|pairs| pairs > 0);
                let plain = replays || method == Method::NashMd;
                taken.temperature = (draws_pairs(method) && !plain).then_some(0.9);
            }
            Self::LlamaFactory => {
                taken.method = Some(method);
                let rank = said.lora_r.as_ref().and_then(|r| r.0).unwrap_or(8);
                if adapts {
                    taken.lora_r = Some(Maybe(Some(rank)));
                    taken.lora_alpha = Some(2.0 * rank as f64);
                    taken.lora_target_modules = Some(Maybe(Some(Names(vec!["all-linear".into()]))));
                }
                taken.learning_rate = Some(5e-5);
                taken.max_length = Some(Maybe(Some(2048)));
            }
            Self::Axolotl => {
                taken.method = Some(method);
                if said.save_strategy != Some(SaveStrategy::No) {
                    taken.save_total_limit = Some(Maybe(Some(4)));
                }
                taken.num_train_epochs = Some(1.0);
                taken.per_device_train_batch_size = Some(1);
                taken.lr_scheduler_type = Some(Scheduler::Cosine);
                taken.max_length = Some(Maybe(Some(512)));
                if said.save_strategy.is_none() && said.save_steps.is_none() {
                    taken.save_strategy = Some(SaveStrategy::Epoch);
                }
            }
        }
        taken
    }

    /// Whether adapters are trained: where that is asked for, or with LLaMA-Factory unless it is not.
    fn adapts(self, said: &Options) -> bool {
        match self {
            Self::LlamaFactory => said.use_peft != Some(false),
            Self::Trl | Self::Axolotl => said.use_peft == Some(true),
        }
    }
}

/// Whether it learns from pairs of its own samples, for which TRL has keys and defaults of their own.
fn draws_pairs(method: Method) -> bool {
    matches!(method, Method::OnlineDpo | Method::Xpo | Method::NashMd)
}

impl Options {
    /// Batches in prompts: TRL's GRPO and RLOO count completions, `num_generations` of each prompt.
    ///
    /// # Errors
    /// A step has no whole number of prompts, which TRL refuses too.
    fn count_prompts(&mut self) -> Result<(), Error> {
        if !matches!(self.method, Some(Method::Grpo | Method::Rloo)) {
            return Ok(());
        }
        let config = self.clone().with_defaults()?;
        let (batch, of_prompt) = (config.per_device_train_batch_size, config.num_generations.max(1));
        let completions = batch * config.gradient_accumulation_steps;
        if !completions.is_multiple_of(of_prompt) {
            return Err(Error::new(format!(
                "a step has {completions} completions (`per_device_train_batch_size` times \
                 `gradient_accumulation_steps`), of which `num_generations = {of_prompt}` are of each prompt: make the \
                 one a multiple of the other"
            )));
        }
        // Batches that have a part of a prompt's completions each are as many as there are prompts.
        let (prompts, batches) = match batch.is_multiple_of(of_prompt) {
            true => (batch / of_prompt, config.gradient_accumulation_steps),
            false => (1, completions / of_prompt),
        };
        self.per_device_train_batch_size = Some(prompts);
        self.gradient_accumulation_steps = Some(batches);
        Ok(())
    }

    /// What a recipe leaves to whoever's words it is in, in keys of duel: the defaults, the rows, what is counted an
    /// epoch. A key that has no effect is left out, with a note, as no number depends on it.
    ///
    /// # Errors
    /// Its rows are not to be had here, or it asks for what contradicts itself.
    pub fn settle(mut self) -> Result<Self, Error> {
        let dialect = self.recipe.dialect.take();
        let per_epoch = std::mem::take(&mut self.recipe.per_epoch);
        self.settle_rows(dialect)?;
        self.settle_evaluation(dialect);
        let axolotls = dialect == Some(Dialect::Axolotl);
        let epochs = self.num_train_epochs.unwrap_or(if axolotls { 1.0 } else { 3.0 });
        for (key, times) in per_epoch {
            let share = 1.0 / (times * epochs);
            let every = (times > 0.0).then_some(if share < 1.0 { Steps::Share(share) } else { Steps::Of(0) });
            match key {
                "evals_per_epoch" => {
                    self.eval_steps = self.eval_steps.or(every.map(|every| Maybe(Some(every))))
                }
                _ => self.save_steps = self.save_steps.or(every),
            }
        }
        let Some(dialect) = dialect else { return Ok(self) };
        // Theirs is to evaluate only where that is asked for; rows that are named beside the recipe ask for it.
        let named = self.test_split_size.is_some()
            || self.eval_dataset.as_ref().is_some_and(|rows| rows.0.is_some())
            || self.eval_datasets.as_ref().is_some_and(|rows| rows.0.is_some());
        if !named && self.eval_strategy.is_some_and(|strategy| strategy != EvalStrategy::No) {
            return Err(Error::new(
                "`eval_strategy` asks for an evaluation, and there are no rows for it: give --eval-dataset FILE, or \
                 --eval-strategy no",
            ));
        }
        // A rank that is left blank is the default one.
        let rank = self.lora_r.take().filter(|rank| rank.0.is_some());
        if dialect.adapts(&self) {
            self.lora_r = rank;
        } else if rank.is_some() {
            self.recipe.idle.push(("lora_r".into(), "adapters are not asked for".into()));
        }
        if dialect == Dialect::Trl && self.method.is_some_and(draws_pairs) {
            let longest = match self.generate_during_eval {
                Some(true) => self.max_new_tokens,
                _ => self.max_new_tokens.take(),
            };
            self.max_completion_length = self.max_completion_length.or(longest);
        }
        let defaults = dialect.defaults(&self);
        let mut settled = self.or(defaults);
        if dialect == Dialect::Trl {
            settled.count_prompts()?;
        }
        // What is left out may have been all that gave another key its effect.
        loop {
            let config = settled.clone().with_defaults()?;
            let mut idle: Vec<_> = settled.without_effect(&config)?;
            // Theirs is a type of all weights. Here those that are trained have the one that is computed in.
            if settled.dtype.is_some() && config.lora().is_none() {
                idle.push(("dtype", "where all weights are trained, in float32 or as bf16 says"));
            }
            if idle.is_empty() {
                return Ok(settled);
            }
            let mut table = settled.table()?;
            let (judging, mut recipe) = (settled.judging, settled.recipe);
            for (key, reason) in idle {
                table.remove(key);
                recipe.idle.push((key.into(), format!("it has no effect {reason}")));
            }
            let kept = Self::deserialize(table).map_err(|e| Error::new(e.message().to_owned()))?;
            settled = Self { judging, recipe, ..kept };
        }
    }
}
