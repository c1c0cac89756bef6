//! What is asked for, and what comes of it.

use crate::config::Config;
use crate::error::{Error, Result};
use std::fmt;
use std::time::Duration;

/// A prompt, and how many continuations of it are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Its tokens; at least one. A prompt that stands in two requests is computed twice.
    pub prompt: &'a [u32],
    /// Continuations that are drawn of it.
    pub samples: usize,
    /// Number of the prompt: what is drawn depends on the seed, this and the number of the sample, not on what else is
    /// asked for. Two requests of one number draw the same random numbers.
    pub id: u64,
}

impl<'a> Request<'a> {
    /// One continuation of each prompt, numbered as they stand.
    pub fn each<T: AsRef<[u32]>>(prompts: &'a [T]) -> Vec<Self> {
        Self::repeated(prompts, 1)
    }

    /// So many continuations of each prompt, numbered as they stand.
    pub fn repeated<T: AsRef<[u32]>>(prompts: &'a [T], samples: usize) -> Vec<Self> {
        let prompts = prompts.iter().zip(0..);
        prompts.map(|(prompt, id)| Request { prompt: prompt.as_ref(), samples, id }).collect()
    }

    /// Whether a model of this shape can go on from the prompt.
    ///
    /// # Errors
    /// Why it has no continuation of it.
    pub fn check(&self, c: &Config) -> Result<()> {
        let (id, len) = (self.id, self.prompt.len());
        let wrong = if len == 0 {
            format!(
                "prompt {id} is empty, and there is nothing that a model could go on from; give at least one token"
            )
        } else if len >= c.max_positions {
            format!(
                "prompt {id}, of {len} tokens, cannot be continued: the model has {} positions; shorten it",
                c.max_positions
            )
        } else if let Some(token) = self.prompt.iter().find(|&&t| t as usize >= c.vocab) {
            format!(
                "prompt {id} has token {token}, the model only {} embeddings; its tokenizer is not the model's",
                c.vocab
            )
        } else {
            return Ok(());
        };
        Err(Error::Decoding(wrong))
    }

    /// Whether the prompt and `new` tokens have their positions in one way: keys that are in a cache do not change any
    /// more.
    ///
    /// # Errors
    /// Where that changes between them.
    pub(crate) fn check_length(&self, c: &Config, new: usize) -> Result<()> {
        let (id, len) = (self.id, self.prompt.len());
        match c.longest_short() {
            Some(n) if len <= n && n < len + new && n < c.max_positions => Err(Error::Decoding(format!(
                "prompt {id}, of {len} tokens, and {new} new ones pass the {n} up to which this model has the positions \
                 of short sequences (longrope); ask for at most {}",
                n - len
            ))),
            _ => Ok(()),
        }
    }
}

/// Why a continuation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// With a token that was to end it, which it has.
    Stop,
    /// It is as long as it may be, or the model has no position for more.
    Length,
    /// The work was stopped before; it may be empty.
    Abort,
}

/// A continuation.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// The tokens that were drawn.
    pub tokens: Vec<u32>,
    /// Log-probability of each under the distribution that it was drawn from, before its filters: the softmax over the
    /// whole vocabulary of the penalised logits over the temperature (1 where that is 0).
    pub logps: Vec<f64>,
    /// Why it ends.
    pub finish_reason: FinishReason,
}

/// A completion that ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Place of its request in the list.
    pub request: usize,
    /// Its number among the samples of the request.
    pub sample: usize,
    /// The completion.
    pub completion: Completion,
}

/// What was done, and how long it took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pace {
    /// Tokens of prompts that went through the packed pass: all but the last of each.
    pub prompt_tokens: usize,
    /// Time in it.
    pub prefill: Duration,
    /// Tokens that were drawn.
    pub new_tokens: usize,
    /// Time in passes that drew them.
    pub decoding: Duration,
}

impl fmt::Display for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = |tokens: usize, time: Duration| tokens as f64 / time.as_secs_f64().max(1e-9);
        if self.prompt_tokens > 0 {
            let rate = rate(self.prompt_tokens, self.prefill);
            write!(f, "{} tokens of prompts, {rate:.0} a second; ", self.prompt_tokens)?;
        }
        write!(f, "{} tokens drawn, {:.1} a second", self.new_tokens, rate(self.new_tokens, self.decoding))
    }
}

/// What became of a list of requests.
#[derive(Clone, Debug)]
pub struct Drawn {
    /// The completions of each request, in order.
    pub completions: Vec<Vec<Completion>>,
    /// How long it took.
    pub pace: Pace,
}

impl Drawn {
    /// The completions of all requests in one list.
    pub fn flat(self) -> Vec<Completion> {
        self.completions.into_iter().flatten().collect()
    }
}
