//! A policy's samples.

use crate::Result;
use duel_backend::Backend;
use duel_data::{Builder, Dataset, Options, Prompt, Task, Tokenizer, Truncation, Whole};
use duel_model::decode::{Completion, Drawn, Ended, Engine, FinishReason, Mixture, Request, Room, Sampling};
use duel_model::{Config, Weights};

/// A prompt that samples are wanted of.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'p> {
    /// The prompt.
    pub prompt: &'p Prompt,
    /// What is drawn depends on this, the seed and the number of the sample: another number for each time that the
    /// prompt is asked.
    pub id: u64,
}

/// A response that was drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Its tokens, with the one that ended it; at least one.
    pub tokens: Vec<u32>,
    /// Log-probability of each, under the distribution that it was drawn from.
    pub logps: Vec<f64>,
    /// Its text.
    pub text: String,
    /// Whether the limit of tokens cut it before it came to an end.
    pub truncated: bool,
}

/// A prompt and what was drawn of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Rollout<'p> {
    /// The prompt.
    pub prompt: &'p Prompt,
    /// Its samples, in the order of their numbers.
    pub samples: Vec<Sample>,
}

/// Draws samples; its buffers are allocated once, for any weights of the model.
pub struct Sampler<B: Backend> {
    engine: Engine<B>,
    how: Sampling,
}

impl<B: Backend> Sampler<B> {
    /// One for models of this shape.
    ///
    /// # Errors
    /// The device has no room.
    pub fn new(b: &B, model: &Config, room: Room, how: Sampling) -> Result<Self> {
        Ok(Sampler { engine: Engine::new(b, model, room)?, how })
    }

    /// The same with the room that [`Sampler::draw_mixed`] needs.
    ///
    /// # Errors
    /// The device has no room.
    pub fn mixing(b: &B, model: &Config, room: Room, how: Sampling) -> Result<Self> {
        Ok(Sampler { engine: Engine::mixing(b, model, room)?, how })
    }

    /// So many samples of each prompt, computed once, of the model `weights`. `watch` hears after every pass how many
    /// samples ended in it, and stops the work by returning `false`: then there is nothing.
    ///
    /// # Errors
    /// As [`Engine::run`]; or the tokenizer has no text for what was drawn.
    ///
    /// # Panics
    /// As [`Engine::run`].
    pub fn draw<'p>(
        &mut self,
        b: &B,
        weights: &impl Weights<B>,
        tokenizer: &Tokenizer,
        asked: &[Asked<'p>],
        samples: usize,
        watch: impl FnMut(usize) -> bool,
    ) -> Result<Option<Vec<Rollout<'p>>>> {
        let (requests, stops) = (requests(asked, samples), tokenizer.stops());
        let (engine, how) = (&mut self.engine, &self.how);
        let drawn = whole(watch, |watch| engine.run(b, weights, &requests, how, stops, watch))?;
        drawn.map(|drawn| rollouts(tokenizer, asked, drawn)).transpose()
    }

    /// [`Sampler::draw`] of the mixture of two models.
    ///
    /// # Errors
    /// As [`Engine::run_mixed`]; or the tokenizer has no text for what was drawn.
    ///
    /// # Panics
    /// As [`Engine::run_mixed`].
    pub fn draw_mixed<'p>(
        &mut self,
        b: &B,
        weights: &impl Weights<B>,
        mixture: Mixture<'_, impl Weights<B>>,
        tokenizer: &Tokenizer,
        asked: &[Asked<'p>],
        samples: usize,
        watch: impl FnMut(usize) -> bool,
    ) -> Result<Option<Vec<Rollout<'p>>>> {
        let (requests, stops) = (requests(asked, samples), tokenizer.stops());
        let (engine, how) = (&mut self.engine, &self.how);
        let drawn =
            whole(watch, |watch| engine.run_mixed(b, weights, mixture, &requests, how, stops, watch))?;
        drawn.map(|drawn| rollouts(tokenizer, asked, drawn)).transpose()
    }
}

fn requests<'a>(asked: &'a [Asked<'_>], samples: usize) -> Vec<Request<'a>> {
    asked.iter().map(|a| Request { prompt: &a.prompt.tokens, samples, id: a.id }).collect()
}

/// What `run` draws, unless `watch` stopped it.
fn whole(
    mut watch: impl FnMut(usize) -> bool,
    run: impl FnOnce(&mut dyn FnMut(&[Ended]) -> bool) -> duel_model::Result<Drawn>,
) -> Result<Option<Drawn>> {
    let mut whole = true;
    let drawn = run(&mut |ended| {
        whole &= watch(ended.len());
        whole
    })?;
    Ok(whole.then_some(drawn))
}

fn rollouts<'p>(tokenizer: &Tokenizer, asked: &[Asked<'p>], drawn: Drawn) -> Result<Vec<Rollout<'p>>> {
    let rollout = |(a, completions): (&Asked<'p>, Vec<Completion>)| {
        let sample = |c: Completion| {
            Ok(Sample {
                text: a.prompt.continuation(tokenizer, &c.tokens)?,
                truncated: c.finish_reason == FinishReason::Length,
                tokens: c.tokens,
                logps: c.logps,
            })
        };
        let samples = completions.into_iter().map(sample).collect::<Result<_>>()?;
        Ok(Rollout { prompt: a.prompt, samples })
    };
    asked.iter().zip(drawn.completions).map(rollout).collect()
}

/// The rollouts as groups, in order: nothing after them knows that they were drawn.
///
/// # Errors
/// There is none.
pub fn groups<'r, 'p: 'r>(rollouts: impl IntoIterator<Item = &'r Rollout<'p>>) -> Result<Dataset> {
    let (task, whole, truncation) = (Task::Preference, Whole::default(), Truncation::KeepStart);
    let mut builder = Builder::new(&Options { task, whole, max_length: None, truncation });
    for Rollout { prompt, samples } in rollouts {
        let tokens: Vec<&[u32]> = samples.iter().map(|s| &s.tokens[..]).collect();
        builder.push_every(prompt.row, &prompt.tokens, &tokens)?;
    }
    Ok(builder.finish()?)
}
