//! Text from a model, and how far it went from its reference.

use crate::Error;
use crate::config::Config as RunConfig;
use crate::engine::{Beside, Engine, Room};
use crate::signal;
use duel_backend::{Backend, Portions};
use duel_data::Dataset;
use duel_model::decode::{self, Drawn, Request, Sampling};
use duel_model::{Config, Keep, Weights};
use serde_json::{Value, json};

/// What the KL of samples is measured with.
const COMPARED: Beside = Beside { reference: true, critic: false };

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

/// How a run draws, up to so many tokens.
pub fn sampling(c: &RunConfig, max_new_tokens: usize) -> Sampling {
    Sampling {
        max_new_tokens,
        temperature: c.temperature,
        top_k: c.top_k,
        top_p: c.top_p,
        min_p: c.min_p,
        repetition_penalty: c.repetition_penalty,
        seed: c.seed,
    }
}

/// What draws, by the names of its options: what samples depend on beside their model and prompts.
pub fn said(how: &Sampling) -> [(&'static str, Value); 7] {
    [
        ("max_new_tokens", json!(how.max_new_tokens)),
        ("temperature", json!(how.temperature)),
        ("top_k", json!(how.top_k)),
        ("top_p", json!(how.top_p)),
        ("min_p", json!(how.min_p)),
        ("repetition_penalty", json!(how.repetition_penalty)),
        ("seed", json!(how.seed)),
    ]
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
    let room = Room::of::<B>(portions, rows, positions, model.vocab);
    Engine::<B>::bytes_with(model, room, Keep::Nothing, COMPARED).total()
}

/// The KL of the policy from the reference over each response of `groups` of `ds`, in nats: of every token's prediction
/// exactly, over the whole vocabulary, summed over the response's own prefixes. Its mean over samples of the policy is
/// the KL of the distributions of texts, without bias, and varies less than that of `ln policy(y|x) - ln
/// reference(y|x)`.
///
/// # Errors
/// The device failed.
pub fn sequence_kls<B: Backend>(
    b: &B,
    model: &Config,
    policy: &impl Weights<B>,
    reference: &impl Weights<B>,
    ds: &Dataset,
    groups: &[u32],
) -> Result<Vec<f64>, Error> {
    let room = Room::plan(b, ds, SEQUENCES, 0, model.vocab);
    let mut engine = Engine::with(b, model, room, Keep::Nothing, COMPARED)?;
    let said = engine.survey(policy, reference, None, ds, groups)?;
    Ok(said.iter().map(|tokens| tokens.kl.iter().sum()).collect())
}
