//! The prompts of a run, and the room that samples of them take.

use crate::Error;
use crate::config::{Config, Method};
use crate::engine::Room;
use crate::ranks::Ranks;
use crate::run::data;
use crate::sample::SEQUENCES;
use crate::signal;
use duel_backend::{Backend, Portions};
use duel_data::{Dataset, Files, Prompt, Prompts, Tokenizer};
use duel_model::Config as ModelConfig;
use duel_model::decode::{Request, Room as Cache};
use duel_rollout::{Rollout, Sample, groups};
use xxhash_rust::xxh3::Xxh3;

/// The prompts of files that `model` can go on from with samples of the length that `config` allows.
///
/// # Errors
/// A file cannot be read, a row has no prompt, or all are too long; or Ctrl-C.
pub fn read(
    ranks: &Ranks<'_>,
    files: &Files,
    config: &Config,
    model: &ModelConfig,
    tokenizer: &Tokenizer,
) -> Result<Vec<Prompt>, Error> {
    let file = Prompts { files, tokenizer, as_messages: false };
    let longest = longest_prompt(config, model);
    if longest == 0 {
        return Err(Error::new(format!(
            "`max_completion_length = {}` leaves no room for a prompt: the model has {} positions; lower it",
            config.max_completion_length, model.max_positions
        )));
    }
    if ranks.size() > 1 {
        data::same(ranks, files, config, &data::row_options(config, longest))?;
    }
    let (mut kept, mut dropped) = (Vec::new(), 0);
    file.each_together(ranks, |prompt| {
        let request = Request { prompt: &prompt.tokens, samples: 1, id: prompt.row as u64 };
        if signal::interrupted() {
            return Err(file.wrong(&prompt, "reading was stopped; nothing was trained yet"));
        }
        if prompt.tokens.len() > longest {
            dropped += 1;
            return Ok(());
        }
        request.check(model).map_err(|e| file.wrong(&prompt, e))?;
        kept.push(prompt);
        Ok(())
    })?;
    if kept.is_empty() {
        return Err(Error::new(format!(
            "{}: no prompt leaves room for `max_completion_length = {}`: each has more than {longest} tokens; lower it, or \
             raise max_length",
            files.name().display(),
            config.max_completion_length
        )));
    }
    if dropped > 0 {
        say!(
            "note: {}: {dropped} prompts of more than {longest} tokens leave no room for max_completion_length = {} and \
             are left out",
            files.name().display(),
            config.max_completion_length
        );
    }
    Ok(kept)
}

/// Tokens of the longest prompt that leaves room for a sample.
fn longest_prompt(config: &Config, model: &ModelConfig) -> usize {
    let all = config.max_length.unwrap_or(usize::MAX).min(model.max_positions);
    all.saturating_sub(config.max_completion_length)
}

/// A hash of what prompts say, and of their order.
pub fn hash(prompts: &[Prompt]) -> u128 {
    let mut hash = Xxh3::new();
    for prompt in prompts {
        prompt.tokens.iter().for_each(|token| hash.update(&token.to_le_bytes()));
        hash.update(&u32::MAX.to_le_bytes());
    }
    hash.digest128()
}

/// How many samples of each prompt a step has in its groups, and how long they may be.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Samples.
    pub samples: usize,
    /// Tokens of each.
    pub tokens: usize,
}

impl Sizes {
    /// Those of a run.
    pub fn of(config: &Config) -> Self {
        Sizes { samples: config.num_generations, tokens: config.max_completion_length }
    }

    /// With what a step compares them with.
    pub fn of_step(self, config: &Config) -> Self {
        let others = usize::from(matches!(config.method, Method::Xpo));
        Sizes { samples: self.samples + others, ..self }
    }

    /// Room for passes over the samples of any `batch` prompts, and over as many pairs beside them as are `replayed`,
    /// all of which may be of the longest prompt.
    pub fn room<B: Backend>(
        self,
        portions: Portions,
        prompts: &[Prompt],
        (batch, replayed): (usize, usize),
        budget: usize,
        vocab: usize,
    ) -> Room {
        let mut sizes: Vec<usize> = prompts.iter().map(|p| p.tokens.len()).collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        let drawn = self.samples * self.tokens;
        let longest = sizes.first().copied().unwrap_or(0);
        let fresh: usize = sizes.iter().take(batch).map(|prompt| prompt + drawn).sum();
        let most = fresh + replayed * (longest + 2 * self.tokens);
        let (largest, positions) = (longest + drawn, longest + self.tokens);
        Room::for_sizes::<B>(portions, (largest, most), positions, budget, vocab)
    }

    /// Room to draw them, many at a time.
    pub fn cache<'p>(self, prompts: impl Iterator<Item = &'p Prompt>) -> Cache {
        Cache::for_sizes(prompts.map(|p| (p.tokens.len(), self.samples)), SEQUENCES, self.tokens)
    }

    /// The largest group there can be.
    ///
    /// # Errors
    /// There is no prompt.
    pub fn largest(self, prompts: &[Prompt]) -> Result<Dataset, Error> {
        let longest = prompts.iter().max_by_key(|p| p.tokens.len());
        let longest = longest.ok_or_else(|| Error::new("there are no prompts"))?;
        let sample = Sample {
            tokens: vec![0; self.tokens],
            logps: vec![0.0; self.tokens],
            text: String::new(),
            truncated: true,
        };
        Ok(groups(&[Rollout { prompt: longest, samples: vec![sample; self.samples] }])?)
    }
}
