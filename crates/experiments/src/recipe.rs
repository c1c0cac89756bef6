//! How each method is run in the world of the grammar: settings that suit a model of a million parameters.

use crate::truth::Truth;
use crate::world::{NEW_TOKENS, Preferences, World};
use duel_backend::Backend;
use duel_judge::{Judge, Scale};
use duel_train::Error;
use duel_train::config::{Losses, Maybe, Method, Options};
use std::path::PathBuf;

/// Prompts in a step of a method that draws for itself.
const PROMPTS: usize = 32;

/// The settings of `method` on the files of a world; `preferences` for methods that learn from a file.
pub fn recipe(method: Method, preferences: Option<&Preferences>, prompts: PathBuf) -> Options {
    let shared = Options { method: Some(method), logging_steps: Some(20), ..Options::default() };
    let Some(Preferences { ranked, pairs, eval, eval_pairs }) = preferences else {
        return online(method, Options { dataset: Some(prompts), ..shared });
    };
    let (train, eval) = if method == Method::Kto { (pairs, eval_pairs) } else { (ranked, eval) };
    let (beta, rate) = match method {
        Method::Reward => (None, 1e-3),
        Method::Cpo => (Some(0.1), 1e-4),
        Method::Orpo => (Some(0.5), 5e-4),
        _ => (Some(0.1), 3e-4),
    };
    Options {
        dataset: Some(train.clone()),
        eval_dataset: Some(Maybe(Some(eval.clone()))),
        beta,
        learning_rate: Some(rate),
        num_train_epochs: Some(1.0),
        per_device_train_batch_size: Some(32),
        warmup_steps: Some(15),
        ..shared
    }
}

fn online(method: Method, shared: Options) -> Options {
    let all = Options {
        per_device_train_batch_size: Some(PROMPTS),
        max_completion_length: Some(NEW_TOKENS),
        max_steps: Some(90),
        warmup_steps: Some(5),
        learning_rate: Some(3e-4),
        ..shared
    };
    match method {
        Method::Rloo => Options { num_generations: Some(4), beta: Some(0.2), ..all },
        Method::Grpo => {
            Options { num_generations: Some(4), beta: Some(0.05), learning_rate: Some(5e-4), ..all }
        }
        Method::Reinforce => {
            Options { per_device_train_batch_size: Some(4 * PROMPTS), beta: Some(0.2), ..all }
        }
        Method::Ppo => Options {
            per_device_train_batch_size: Some(4 * PROMPTS),
            num_ppo_epochs: Some(2),
            num_mini_batches: Some(2),
            kl_coef: Some(0.1),
            ..all
        },
        Method::OnlineDpo => Options { num_generations: Some(4), beta: Some(0.1), ..all },
        Method::Xpo => Options { per_device_train_batch_size: Some(2 * PROMPTS), beta: Some(0.1), ..all },
        Method::NashMd => Options { per_device_train_batch_size: Some(4 * PROMPTS), beta: Some(0.05), ..all },
        Method::Sppo => Options {
            num_generations: Some(4),
            beta: Some(0.05),
            ref_model_sync_steps: Some(30),
            loss_type: Some("sppo".parse::<Losses>().unwrap_or_else(|e| panic!("{e}"))),
            ..all
        },
        _ => all,
    }
}

/// What a run of one method left: the model's folder, and the last metrics.
pub type Left = (PathBuf, Vec<(String, f64)>);

/// A judge by its name in a configuration.
pub type Named<'j> = (String, &'j mut dyn Judge);

/// Runs `method` as its recipe says, with `change` made to it; methods that draw for themselves are judged by `judge`,
/// or the truth.
///
/// # Errors
/// As [`World::train`].
pub fn run<B: Backend>(
    world: &World<'_, B>,
    preferences: Option<&Preferences>,
    method: Method,
    name: &str,
    judge: Option<Named<'_>>,
    change: impl FnOnce(Options) -> Options,
) -> Result<Left, Error> {
    if method == Method::Sft {
        return Ok((world.sft.clone(), Vec::new()));
    }
    if !method.is_online() {
        return world.train(name, change(recipe(method, preferences, world.prompts()?)), None);
    }
    let options = change(recipe(method, None, world.prompts()?));
    let mut truth = Truth(Scale::LogOdds);
    let (called, judge) = judge.unwrap_or_else(|| ("truth".into(), &mut truth));
    world.train(name, Options { judge: Some(Maybe(Some(called))), ..options }, Some(judge))
}
