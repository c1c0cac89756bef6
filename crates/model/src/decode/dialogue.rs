//! One text that grows turn by turn.

use super::engine::Engine;
use super::request::{Completion, FinishReason, Pace, Request};
use super::room::{Plan, Room};
use super::sampling::Sampling;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::weights::Weights;
use duel_backend::{Backend, Portions, Storage};
use std::time::Instant;

/// Tokens of a prompt that go through the model at a time.
const AT_A_TIME: usize = 256;

/// Continues one text again and again. What a prompt has in common with the text before it is not computed again: its
/// keys and values are still in the cache.
pub struct Dialogue<B: Storage> {
    engine: Engine<B>,
    config: Config,
    window: usize,
    /// Whose keys and values are in the cache.
    cached: Vec<u32>,
}

impl<B: Storage> Dialogue<B> {
    /// Room for up to so many tokens, and no more than the model has positions: those of short sequences, where long
    /// ones have others, since keys in a cache do not change.
    pub fn window(c: &Config, tokens: usize) -> usize {
        let short = c.longest_short().unwrap_or(usize::MAX);
        tokens.min(c.max_positions).min(short)
    }

    fn room(window: usize) -> Room {
        let longest = window.min(AT_A_TIME);
        Room { sequences: 1, longest, prompts: longest, new_tokens: window }
    }

    /// What [`Dialogue::new`] allocates on a device of such portions.
    pub fn plan(portions: Portions, c: &Config, window: usize) -> Plan {
        Engine::<B>::plan(portions, c, Self::room(Self::window(c, window)))
    }
}

impl<B: Backend> Dialogue<B> {
    /// For texts of up to `window` tokens, or as many as [`Dialogue::window`] says.
    ///
    /// # Errors
    /// The device has no room for them, or no verbs for such a model.
    pub fn new(b: &B, c: &Config, window: usize) -> Result<Self> {
        let window = Self::window(c, window);
        let engine = Engine::new(b, c, Self::room(window))?;
        Ok(Dialogue { engine, config: c.clone(), window, cached: Vec::new() })
    }

    /// Continues `prompt` until a token of `stop` (which is kept), as many tokens as `how` allows, or the window is
    /// full. `watch` hears of each token as it is drawn, and stops the work by returning `false`. `turn` numbers the
    /// random numbers, as a request's does. The weights have to be those of every turn before.
    ///
    /// # Errors
    /// A number of `how` is out of its range, the prompt has no continuation or no room for one, the logits are not
    /// numbers, or the device failed.
    pub fn go_on(
        &mut self,
        b: &B,
        w: &impl Weights<B>,
        prompt: &[u32],
        (turn, how): (u64, &Sampling),
        stop: &[u32],
        mut watch: impl FnMut(u32) -> bool,
    ) -> Result<(Completion, Pace)> {
        how.check()?;
        let request = Request { prompt, samples: 1, id: turn };
        request.check(&self.config)?;
        if prompt.len() >= self.window {
            return Err(Error::Decoding(format!(
                "the prompt has {} tokens, and there is room for {} with what goes on from it; shorten it",
                prompt.len(),
                self.window
            )));
        }
        let (w, begun) = (w.view(), Instant::now());
        let common = self.cached.iter().zip(prompt).take_while(|(a, b)| a == b).count();
        // The last token goes through the model in any case: the first that is drawn depends on it.
        let last = prompt.len() - 1;
        self.cached.truncate(common.min(last));
        let mut pace = Pace { prompt_tokens: last - self.cached.len(), ..Pace::default() };
        while self.cached.len() < last {
            let first = self.cached.len();
            let some = &prompt[first..last.min(first + AT_A_TIME)];
            self.engine.extend(b, &w, some, first)?;
            self.cached.extend_from_slice(some);
        }
        pace.prefill = begun.elapsed();

        let mut seen = Vec::new();
        if how.repetition_penalty != 1.0 {
            seen.extend_from_slice(prompt);
            seen.sort_unstable();
            seen.dedup();
        }
        let (mut recording, mut token) = (B::Recording::default(), prompt[last]);
        let mut completion =
            Completion { tokens: Vec::new(), logps: Vec::new(), finish_reason: FinishReason::Length };
        let begun = Instant::now();
        while completion.tokens.len() < how.max_new_tokens && self.cached.len() + 1 < self.window {
            let place = [how.seed, turn, 0, completion.tokens.len() as u64];
            let row = (token, self.cached.len());
            let (drawn, logp) = self.engine.next(b, &w, row, (place, &seen), how, &mut recording)?;
            self.cached.push(token);
            completion.tokens.push(drawn);
            completion.logps.push(logp);
            if how.repetition_penalty != 1.0
                && let Err(at) = seen.binary_search(&drawn)
            {
                seen.insert(at, drawn);
            }
            token = drawn;
            let goes_on = watch(drawn);
            if stop.contains(&drawn) {
                completion.finish_reason = FinishReason::Stop;
                break;
            }
            if !goes_on {
                completion.finish_reason = FinishReason::Abort;
                break;
            }
        }
        pace.decoding = begun.elapsed();
        pace.new_tokens = completion.tokens.len();
        Ok((completion, pace))
    }
}
