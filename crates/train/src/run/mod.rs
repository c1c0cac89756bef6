//! A training run, from a checked configuration to a folder with the trained model.

mod aim;
mod best;
mod data;
mod evaluate;
mod examples;
mod fit;
mod forecast;
mod names;
mod offline;
mod online;
mod outcome;
mod output;
mod plan;
mod start;
mod steps;
mod visits;
mod when;

use crate::Error;
use crate::config::Config;
use crate::engine::Engine;
use crate::objective::Objective;
use crate::ranks::{Ranks, check_program};
use crate::stays::Stays;
use aim::Aim;
pub use best::Best;
use data::Data;
pub(crate) use data::{check_rows, row_options};
pub use data::{check_tokens, max_length, rows};
use duel_backend::Backend;
use duel_comm::Comm;
use duel_loss::Totals;
use duel_model::{Config as ModelConfig, decode};
use evaluate::Evaluation;
use examples::Examples;
pub use forecast::{Forecast, Time, Tokens, forecast};
pub use names::{at_revision, files, folder, split};
use offline::Offline;
pub use online::train_online;
pub use outcome::Outcome;
use start::Start;
use std::time::Duration;

/// Trains as `config` says, as one of the processes that `comm` connects, on the rows of its dataset.
///
/// # Errors
/// Anything that the user must put right, in one sentence; what was written before stays.
///
/// # Panics
/// With a method that learns from its own samples: [`train_online`] is for those.
pub fn train<B: Backend>(b: &B, comm: &dyn Comm, config: &Config) -> Result<Outcome, Error> {
    comm.set_timeout(Duration::from_secs(config.ddp_timeout));
    let ranks = Ranks::new(comm);
    ranks.ended(run(b, &ranks, config))
}

fn run<B: Backend>(b: &B, ranks: &Ranks<'_>, config: &Config) -> Result<Outcome, Error> {
    check_program(ranks, config)?;
    assert!(!config.method.is_online(), "a judge is needed");
    let lock = output::lock_if_there(ranks, &config.output_dir)?;
    let (start, tokenizer) = Start::of::<B>(config)?;
    let (config, model) = (&start.config, &start.model);
    let data = Data::load(ranks, config, Objective::of(config).needs(), model, &tokenizer)?;
    let planned = |config: &Config, model: &ModelConfig| {
        aim::plan(b, config, ranks.size(), (&start.folder, model), &data)
    };
    let (plan, aim, bytes, text) = planned(config, model)?;
    fit::check(b, &start, (&bytes, plan.room.rows), |config, model| {
        let (plan, _, bytes, _) = planned(config, model)?;
        Ok((bytes, plan.room.rows))
    })?;
    // Of no use any more where nothing is sampled, and millions of bytes.
    let tokenizer = aim.samples.is_some().then_some(tokenizer);
    let content = start.content(start.id.with::<B>(&data.train));
    start.announce(b, ranks, &text, &content)?;
    // Unless another reference is named, the policy begins as it: one copy of the weights is both.
    let other = start.other_reference(b)?;
    let is_other = other.is_some();
    let reference = other.map_or_else(|| start.weights(b), Ok)?;
    let mut engine = Engine::new(b, model, plan.room, plan.keep)?;
    engine.score_as(aim.scoring);
    let from = start.from();
    // One that follows the policy is asked step by step after it has moved.
    let fixed = aim.follow.map_or(u64::MAX, |(every, _)| every);
    let mut examples = |data, groups: &[u32]| {
        Examples::new(ranks, &mut engine, &reference, &aim, start.reference_id(), data, groups)
    };
    let visited = plan.visits.visited(from, fixed);
    let train = examples((data.train, data.train_mismatched), &visited)?;
    let mut eval = match data.eval {
        None => None,
        Some(ds) => {
            let due = start.is_unevaluated();
            let evaluated =
                if from < fixed { plan.visits.evaluated(ds.len(), from, due) } else { Vec::new() };
            Some(Evaluation {
                examples: examples((ds, data.eval_mismatched), &evaluated)?,
                reference: None,
                sampler: match aim.samples.as_ref().zip(tokenizer) {
                    Some((samples, tokenizer)) => {
                        Some((decode::Engine::new(b, model, samples.room())?, tokenizer))
                    }
                    None => None,
                },
            })
        }
    };
    let kept = eval.as_mut().filter(|_| aim.keep_reference && aim.follow.is_none());
    let weights = match (is_other, kept) {
        (true, Some(eval)) => {
            eval.reference = Some(Stays::Apart(reference));
            start.weights(b)?
        }
        (true, None) => {
            drop(reference); // there may not be room for both
            start.weights(b)?
        }
        (false, kept) => {
            if let Some(eval) = kept {
                eval.reference = Some(start.stays(b, &reference)?);
            }
            reference
        }
    };
    let following = aim.follow.map(|rule| start.following(b, rule)).transpose()?;
    let run = start.run(b, (ranks, lock), plan, engine, weights, content, |engine, weights, grads| {
        engine.rehearse(weights, grads, &train.ds, aim.objective.on_device(Totals::default()))
    })?;
    let Aim { objective, samples, .. } = aim;
    run.go(Offline { objective, train, eval, following, samples })
}
