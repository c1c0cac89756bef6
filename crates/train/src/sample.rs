//! Text from a model, and how far it went from its reference.

use crate::Error;
use crate::engine::{Engine, Room};
use crate::signal;
use duel_backend::{Backend, Portions};
use duel_data::{Builder, Options, Task, Truncation, Whole};
use duel_model::decode::{self, Completion, Drawn, Request, Sampling};
use duel_model::{Config, Keep, Weights};

/// Most sequences that are decoded at a time.
pub const SEQUENCES: usize = 64;

/// Continues the prompts of `requests`; `each` hears how many completions a pass ended.
///
/// # Errors
/// As [`decode::Engine::run`], or Ctrl-C.
pub fn sample<B: Backend>(
    b: &B,
    engine: &mut decode::Engine<B>,
    weights: &impl Weights<B>,
    requests: &[Request<'_>],
    how: &Sampling,
    stop: &[u32],
    mut each: impl FnMut(usize),
) -> Result<Drawn, Error> {
    let drawn = engine.run(b, weights, requests, how, stop, |ended| {
        each(ended.len());
        !signal::interrupted()
    })?;
    if signal::interrupted() { Err(Error::new("stopped while sampling")) } else { Ok(drawn) }
}

/// Bytes that measuring the KL of a sample of each request takes while it lasts.
pub fn kl_bytes<B: Backend>(
    portions: Portions,
    model: &Config,
    requests: &[Request<'_>],
    max_new_tokens: usize,
) -> usize {
    // As long as any sample can be, and as many tokens as fit into a micro-batch.
    let longest = requests.iter().map(|r| r.prompt.len()).max().unwrap_or(0);
    let positions = longest.saturating_add(max_new_tokens).min(model.max_positions);
    let rows = (requests.len().min(SEQUENCES) * positions).min(portions.tokens).max(positions);
    Engine::<B>::bytes(model, Room::of::<B>(portions, rows, positions, model.vocab), Keep::Nothing).total()
}

/// Mean over the samples of `ln policy(y|x) - ln reference(y|x)`: an unbiased estimate of the sequence KL of the policy
/// from the reference, in nats.
pub fn sequence_kl<B: Backend>(
    b: &B,
    model: &Config,
    policy: &impl Weights<B>,
    reference: &impl Weights<B>,
    prompts: &[Vec<u32>],
    samples: &[Completion],
) -> Result<f64, Error> {
    let options = Options {
        task: Task::Sft,
        whole: Whole::default(),
        max_length: None,
        truncation: Truncation::KeepStart,
    };
    let mut builder = Builder::new(&options);
    for (i, (prompt, sample)) in prompts.iter().zip(samples).enumerate() {
        builder.push(i + 1, prompt, &[&sample.tokens])?;
    }
    let ds = builder.finish()?;
    let indices: Vec<u32> = (0..ds.len() as u32).collect();
    let mut engine = Engine::new(b, model, Room::plan(b, &ds, SEQUENCES, 0, model.vocab), Keep::Nothing)?;
    let policy = engine.score(policy, &ds, &indices, |_| true)?;
    let reference = engine.score(reference, &ds, &indices, |_| true)?;
    let total: f64 = policy.iter().zip(&reference).map(|(p, r)| p.logp - r.logp).sum();
    Ok(total / ds.len() as f64)
}
