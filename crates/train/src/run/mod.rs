//! A training run, from a checked configuration to a folder with the trained model.

mod data;
mod evaluate;
mod examples;
mod outcome;
mod output;
mod plan;
mod steps;
mod visits;

use crate::Error;
use crate::checkpoint::{Checkpoint, State};
use crate::config::{Config, Method};
use crate::engine::Engine;
use crate::follow::Following;
use crate::objective::Objective;
use crate::reference::ModelId;
use data::Data;
pub use data::{check_vocabulary, max_length, rows};
use duel_backend::{Backend, Dtype, Element};
use duel_data::Tokenizer;
use duel_loss::Totals;
use duel_model::{Folder, Model, decode};
use duel_optim::Optimizer;
use evaluate::Evaluation;
use examples::Examples;
pub use outcome::Outcome;
use output::Output;
use plan::Plan;
use steps::Run;

/// Trains as `config` says.
///
/// # Errors
/// Anything that the user must put right, in one sentence; what was written before stays.
pub fn train<B: Backend>(b: &B, config: &Config) -> Result<Outcome, Error> {
    // What the backend computes in decides the bits, so the run's own configuration names it.
    let config = &Config { bf16: Some(B::Real::DTYPE == Dtype::Bf16), ..config.clone() };
    let checkpoint = output::to_resume(config)?.map(|path| Checkpoint::open(&path, config)).transpose()?;
    if checkpoint.is_none() {
        output::check(config)?;
    }
    let folder = Folder::open(&config.model)?;
    let folder = match config.method {
        Method::Reward => folder.with_score(config.seed),
        _ => folder.language_model()?,
    };
    folder.notes().iter().for_each(|note| eprintln!("note: {note}"));
    let model = folder.config();
    let tokenizer = Tokenizer::from_dir(&config.model)?;
    let objective = Objective::of(config);
    let data = Data::load(config, objective.needs(), model, &tokenizer)?;
    let manifest = Model::manifest(model);
    let plan = Plan::new(b, config, objective, model, &manifest, &data);
    eprint!("{plan}");
    // Of no use any more where nothing is sampled, and millions of bytes.
    let stops = tokenizer.stops().to_vec();
    let tokenizer = plan.samples.is_some().then_some(tokenizer);
    if checkpoint.is_none() {
        output::announce(config)?;
    }

    let id = ModelId::of(&config.model)?;
    let content = id.with::<B>(&data.train);
    if let Some(checkpoint) = &checkpoint {
        check_content(checkpoint, &content, config)?;
    }
    let mut weights = duel_model::load(b, &folder)?;
    let mut engine = Engine::new(b, model, plan.room, plan.keep)?;
    engine.score_as(plan.scoring);
    let from = checkpoint.as_ref().map_or(0, |c| c.state.step);
    // One that follows the policy is asked step by step after it has moved.
    let fixed = plan.follow.map_or(u64::MAX, |(every, _)| every);
    let mut examples = |data, groups: &[u32]| Examples::new(&mut engine, &weights, &plan, &id, data, groups);
    let visited = plan.visits.visited(from, fixed);
    let train = examples((data.train, data.train_mismatched), &visited)?;
    let eval = match data.eval {
        None => None,
        Some(ds) => {
            let evaluated = if from < fixed { plan.visits.evaluated(ds.len(), from) } else { Vec::new() };
            Some(Evaluation {
                examples: examples((ds, data.eval_mismatched), &evaluated)?,
                reference_weights: (plan.keep_reference && plan.follow.is_none())
                    .then(|| duel_model::load_frozen(b, &folder))
                    .transpose()?,
                sampler: match plan.samples.as_ref().zip(tokenizer) {
                    Some((samples, tokenizer)) => {
                        Some((decode::Engine::new(b, model, samples.room())?, tokenizer))
                    }
                    None => None,
                },
            })
        }
    };
    let following = match plan.follow {
        None => None,
        Some((every, share)) => {
            let moved = checkpoint.as_ref().filter(|_| from >= every);
            let weights = match moved {
                Some(checkpoint) => duel_model::load(b, &checkpoint.reference_of(model)?)?,
                None => duel_model::load(b, &folder)?,
            };
            Some(Following { weights, every, share })
        }
    };
    let masters =
        Optimizer::<B>::needs_masters().then(|| duel_model::load_masters(b, &folder)).transpose()?;
    let model = &model.clone();
    // Its files are mapped: what was read of them would stay in this process's memory beside all that follows.
    drop(folder);
    let mut grads = manifest.gradients(b, plan.keep)?;
    let shapes = manifest.iter().into_iter().map(|s| (s.len(), s.decays()));
    let mut optimizer = Optimizer::new(b, plan.algorithm, shapes)?;
    if let Some(masters) = masters {
        optimizer = optimizer.with_masters(masters);
    }
    let mut state = State { content, ..State::default() };
    if let Some(c) = &checkpoint {
        drop(weights); // there may not be room for both
        weights = duel_model::load(b, &c.model_of(model)?)?;
        c.restore(b, &mut optimizer)?;
        state = c.state.clone();
        eprintln!("continuing after step {} of {}", state.step, c.path.display());
    }
    b.rehearse(|| -> Result<(), Error> {
        let pairs = plan.objective.on_device(Totals::default());
        engine.rehearse(&weights, &mut grads, &train.ds, pairs)?;
        print_peak(b);
        Ok(())
    })?;
    let output = Output::prepare(config)?;
    let writer = output.metrics(checkpoint.as_ref().map(|_| state.step))?;
    let saved = checkpoint.filter(|c| output.holds(c)).map(|c| c.state.step);
    Run {
        plan,
        output,
        stops,
        manifest,
        train,
        eval,
        following,
        engine,
        weights,
        grads,
        optimizer,
        writer,
        state,
        saved,
    }
    .go()
}

/// A checkpoint continues only what it was made with.
fn check_content(checkpoint: &Checkpoint, content: &str, config: &Config) -> Result<(), Error> {
    if checkpoint.state.content == content {
        return Ok(());
    }
    Err(Error::new(format!(
        "{} was made with other content of {} or {}; bring the files back, or start anew in another output_dir",
        checkpoint.path.display(),
        config.model.display(),
        config.dataset.display()
    )))
}

/// What the largest micro-batch needed.
fn print_peak<B: Backend>(b: &B) {
    if let Some(peak) = b.memory().peak {
        eprintln!("      {:.2} GB were in use at most, the largest micro-batch included", peak as f64 / 1e9);
    }
}
