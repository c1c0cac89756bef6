//! Text from a model, and how far it went from its reference.

use crate::Error;
use crate::engine::{Engine, Room};
use crate::signal;
use duel_backend::{Backend, Portions};
use duel_data::{Builder, Options, Task, Truncation, Whole};
use duel_model::{Config, Generator, Keep, Sampling, Weights};

/// Prompts that are decoded at a time.
const BATCH: usize = 64;

/// Continues every prompt; returns the new tokens of each.
pub fn sample<B: Backend>(
    b: &B,
    model: &Config,
    weights: &impl Weights<B>,
    prompts: &[Vec<u32>],
    how: Sampling,
    stop: &[u32],
    mut each: impl FnMut(usize),
) -> Result<Vec<Vec<u32>>, Error> {
    if let Some(token) = prompts.iter().flatten().find(|t| **t as usize >= model.vocab) {
        return Err(Error::new(format!(
            "the tokenizer gives token {token}, the model has only {} embeddings; they do not belong together",
            model.vocab
        )));
    }
    if prompts.iter().any(Vec::is_empty) {
        return Err(Error::new(
            "the prompt is empty, and this tokenizer puts no BOS token before a text that a model could go on from; give \
             at least one token",
        ));
    }
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
    if longest >= model.max_positions {
        return Err(Error::new(format!(
            "a prompt of {longest} tokens cannot be continued: the model has {} positions; shorten it",
            model.max_positions
        )));
    }
    let room = room(model, longest, how.max_new_tokens);
    let mut generator = Generator::new(b, model, prompts.len().min(BATCH), room)?;
    let mut out = Vec::new();
    for (i, batch) in prompts.chunks(BATCH).enumerate() {
        let prompts: Vec<&[u32]> = batch.iter().map(Vec::as_slice).collect();
        let how = Sampling { seed: how.seed.wrapping_add((i as u64) << 32), ..how };
        out.extend(generator.generate(b, model, weights, &prompts, how, stop)?);
        each(batch.len());
        if signal::interrupted() {
            return Err(Error::new("stopped while sampling"));
        }
    }
    Ok(out)
}

/// Tokens that a prompt and its continuation take at most.
fn room(model: &Config, longest: usize, max_new_tokens: usize) -> usize {
    longest.saturating_add(max_new_tokens).min(model.max_positions)
}

/// Bytes that drawing samples of so many prompts takes while it lasts; with `kl`, or measuring their KL, which comes
/// after.
pub fn bytes<B: Backend>(
    portions: Portions,
    model: &Config,
    prompts: &[usize],
    max_new_tokens: usize,
    kl: bool,
) -> usize {
    let longest = prompts.iter().copied().max().unwrap_or(0);
    let (batch, room) = (prompts.len().min(BATCH), room(model, longest, max_new_tokens));
    let drawn = Generator::<B>::bytes(model, batch, room);
    // As long as any sample can be, and as many tokens as fit into a micro-batch.
    let rows = (batch * room).min(portions.tokens).max(room);
    let scored = Room::of::<B>(portions, rows, room, model.vocab);
    if kl { drawn.max(Engine::<B>::bytes(model, scored, Keep::Nothing).total()) } else { drawn }
}

/// Mean over the samples of `ln policy(y|x) - ln reference(y|x)`: an unbiased estimate of the sequence KL of the policy
/// from the reference, in nats.
pub fn sequence_kl<B: Backend>(
    b: &B,
    model: &Config,
    policy: &impl Weights<B>,
    reference: &impl Weights<B>,
    prompts: &[Vec<u32>],
    samples: &[Vec<u32>],
) -> Result<f64, Error> {
    let options = Options {
        task: Task::Sft,
        whole: Whole::default(),
        max_length: None,
        truncation: Truncation::KeepStart,
    };
    let mut builder = Builder::new(&options);
    for (i, (prompt, sample)) in prompts.iter().zip(samples).enumerate() {
        builder.push(i + 1, prompt, &[sample])?;
    }
    let ds = builder.finish()?;
    let indices: Vec<u32> = (0..ds.len() as u32).collect();
    let mut engine = Engine::new(b, model, Room::plan(b, &ds, BATCH, 0, model.vocab), Keep::Nothing)?;
    let policy = engine.score(policy, &ds, &indices, |_| true)?;
    let reference = engine.score(reference, &ds, &indices, |_| true)?;
    let total: f64 = policy.iter().zip(&reference).map(|(p, r)| p.logp - r.logp).sum();
    Ok(total / ds.len() as f64)
}
