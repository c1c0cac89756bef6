//! How each method is run in the world of the grammar: settings that suit a model of a million parameters.

use crate::truth::Truth;
use crate::world::{NEW_TOKENS, Preferences, World};
use duel_backend::Backend;
use duel_judge::{Judge, Scale};
use duel_train::Error;
use duel_train::config::{Maybe, Method, Options};
use std::path::{Path, PathBuf};

/// The settings of `method` on the files of a world; `preferences` for methods that learn from a file.
pub fn recipe(method: Method, preferences: Option<&Preferences>, prompts: &Path) -> Options {
    let shared = Options { method: Some(method), logging_steps: Some(20.into()), ..Options::default() };
    let Some(Preferences { ranked, pairs, eval, eval_pairs }) = preferences else {
        return online(method, Options { dataset: Some(prompts.into()), ..shared });
    };
    // A reward model learns most of what is far apart.
    let of_pairs = matches!(method, Method::Kto | Method::Reward);
    let (train, eval) = if of_pairs { (pairs, eval_pairs) } else { (ranked, eval) };
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
        num_train_epochs: Some(if method == Method::Reward { 2.0 } else { 1.0 }),
        per_device_train_batch_size: Some(if method == Method::Reward { 16 } else { 32 }),
        warmup_steps: Some(15.into()),
        ..shared
    }
}

fn online(method: Method, shared: Options) -> Options {
    // Samples in a step: of so many prompts, so many each. Rates and pulls are such that all go a few nats in as many
    // steps.
    let of = |prompts, samples: Option<usize>, beta, rate| Options {
        per_device_train_batch_size: Some(prompts),
        num_generations: samples,
        beta: Some(beta),
        learning_rate: Some(rate),
        max_completion_length: Some(NEW_TOKENS),
        max_steps: Some(60),
        warmup_steps: Some(5.into()),
        ..shared.clone()
    };
    match method {
        Method::Reinforce => of(128, None, 0.4, 5e-4),
        Method::Rloo => of(32, Some(4), 0.4, 6e-4),
        Method::Grpo => of(32, Some(4), 0.3, 6e-4),
        Method::Xpo => of(64, None, 0.2, 4e-4),
        Method::NashMd => of(128, None, 0.1, 5e-4),
        Method::Sppo => Options { ref_model_sync_steps: Some(20), ..of(32, Some(4), 0.1, 3e-4) },
        Method::Ppo => Options {
            num_ppo_epochs: Some(2),
            num_mini_batches: Some(2),
            kl_coef: Some(0.3),
            beta: None,
            ..of(128, None, 0.0, 3e-4)
        },
        _ => of(32, Some(4), 0.2, 3e-4),
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
        return Ok((world.scene.model.clone(), Vec::new()));
    }
    if !method.is_online() {
        return world.train(name, change(recipe(method, preferences, &world.scene.prompts)), None);
    }
    let options = change(recipe(method, None, &world.scene.prompts));
    let mut truth = Truth(Scale::LogOdds);
    let (called, judge) = judge.unwrap_or_else(|| ("truth".into(), &mut truth));
    world.train(name, Options { judge: Some(Maybe(Some(called))), ..options }, Some(judge))
}
