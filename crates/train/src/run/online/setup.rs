//! From a configuration and a judge to the first step.

use super::learner::Online;
use super::prompts::{self, Sizes};
use super::world::{Reference, Spent, World};
use crate::Error;
use crate::config::{Config, Method};
use crate::engine::{Beside, Engine};
use crate::memory::{Bytes, KeptReference};
use crate::objective::Objective;
use crate::ranks::{Cut, Ranks, check_program};
use crate::run::fit;
use crate::run::outcome::Outcome;
use crate::run::output;
use crate::run::plan::Plan;
use crate::run::start::Start;
use crate::run::visits::Visits;
use crate::sample::sampling;
use duel_backend::{Backend, Element};
use duel_comm::Comm;
use duel_data::{Files, Prompt, Tokenizer};
use duel_judge::{Judge, Says};
use duel_model::{Config as ModelConfig, Folder, decode};
use duel_rollout::Sampler;
use std::time::Duration;

/// Trains as `config` says, as one of the processes that `comm` connects, on samples of the prompts of its dataset, of
/// which `judge` says what they are worth.
///
/// # Errors
/// Anything that the user must put right, in one sentence; what was written before stays.
///
/// # Panics
/// With a method that learns from the rows of its dataset: [`train`](crate::train) is for those.
pub fn train_online<B: Backend>(
    b: &B,
    comm: &dyn Comm,
    config: &Config,
    judge: &mut dyn Judge,
) -> Result<Outcome, Error> {
    comm.set_timeout(Duration::from_secs(config.ddp_timeout));
    let ranks = Ranks::new(comm);
    ranks.ended(run(b, &ranks, config, judge))
}

fn run<B: Backend>(
    b: &B,
    ranks: &Ranks<'_>,
    config: &Config,
    judge: &mut dyn Judge,
) -> Result<Outcome, Error> {
    check_program(ranks, config)?;
    assert!(config.method.is_online(), "this method has no use for a judge");
    let contests = matches!(config.method, Method::Xpo | Method::NashMd);
    if judge.says() != Says::Scores && config.num_generations == 1 && !contests {
        return Err(Error::new(format!(
            "the judge ({}) compares samples, and `num_generations = 1` gives it none to compare; give at least 2, or a \
             judge that scores",
            judge.describe()
        )));
    }
    let idle = [
        ("normalize_rewards", config.normalize_rewards),
        ("missing_eos_penalty", config.missing_eos_penalty.is_some()),
    ];
    let idle = idle.iter().find(|(_, said)| *said && judge.says() != Says::Scores);
    if let Some((key, _)) = idle {
        return Err(Error::new(format!(
            "`{key}` has no effect on what the judge ({}) says, which compares samples and gives no scores; remove it",
            judge.describe()
        )));
    }
    let lock = output::lock_if_there(ranks, &config.output_dir)?;
    let Prepared { start, tokenizer, prompts, eval, beside, plan, text, too_large, .. } =
        prepare(b, ranks, ranks.size(), config)?;
    if let Some(too_large) = too_large {
        return Err(too_large);
    }
    let (config, model) = (start.config.clone(), start.model.clone());
    let content = start.content(format!(
        "{}-{:?}-{:032x}-{}",
        start.id.digest(),
        B::Real::DTYPE,
        prompts::hash(&prompts),
        judge.identity()
    ));
    if !config.draws_as_is() {
        say!("note: samples are not drawn from the policy as it is, so that its KL is not measured by them");
    }
    if config.method == Method::Sppo && plan.visits.total < config.ref_model_sync_steps {
        say!(
            "note: the reference stays: ref_model_sync_steps = {} is more than the run has steps, and a round of sppo is so \
             many",
            config.ref_model_sync_steps
        );
    }
    start.announce(b, ranks, &(text + &format!("judge {}\n", judge.describe())), &content)?;
    let weights = start.weights(b)?;
    let reference = match config.follows() {
        Some(rule) => Reference::Follows(start.following(b, rule)?),
        None => Reference::Stays(start.stays(b, &weights)?),
    };
    let engine = Engine::with(b, &model, plan.room, plan.keep, beside)?;
    let sizes = Sizes::of(&config);
    let room = sizes.cache(prompts.iter().chain(&eval));
    let how = sampling(&config, config.max_completion_length);
    let sampler = match config.method {
        Method::NashMd => Sampler::mixing(b, &model, room, how)?,
        _ => Sampler::new(b, &model, room, how)?,
    };
    let largest = sizes.of_step(&config).largest(&prompts)?;
    let run = start.run(b, (ranks, lock), plan, engine, weights, content, |engine, weights, grads| {
        engine.rehearse(weights, grads, &largest, None)
    })?;
    let world = World {
        prompts: prompts.into(),
        eval: eval.into(),
        tokenizer,
        sampler,
        judge,
        reference,
        samples: config.num_generations,
        mixture: (config.method == Method::NashMd).then_some(config.mixture_coef),
        penalty: config.missing_eos_penalty.unwrap_or(0.0),
        normalize: config.normalize_rewards,
        own: config.draws_as_is(),
        spent: Spent::default(),
    };
    run.go(Online { objective: Objective::of(&config), config, world })
}

/// A run before anything is asked of its judge.
pub struct Prepared {
    start: Start,
    tokenizer: Tokenizer,
    prompts: Vec<Prompt>,
    eval: Vec<Prompt>,
    beside: Beside,
    /// Its plan.
    pub plan: Plan,
    /// What it allocates.
    pub bytes: Bytes,
    /// The plan for people.
    pub text: String,
    /// Why that is more than there is.
    pub too_large: Option<Error>,
}

/// Reads what `config` names, and plans.
///
/// # Errors
/// As [`train_online`] before its first step.
pub fn prepare<B: Backend>(
    b: &B,
    ranks: &Ranks<'_>,
    processes: usize,
    config: &Config,
) -> Result<Prepared, Error> {
    let (start, tokenizer) = Start::of::<B>(config)?;
    let (config, model) = (&start.config, &start.model);
    let read = |files: &Files| prompts::read(ranks, files, config, model, &tokenizer);
    let (train, eval) = config.all_files()?;
    let prompts = read(&train)?;
    let eval = eval.as_ref().map(read).transpose()?.unwrap_or_default();
    let beside = Beside { reference: true, critic: config.method == Method::Ppo };
    let planned = |config: &Config, model: &ModelConfig| {
        planned(b, config, processes, (&start.folder, model), (&prompts, &eval), beside)
    };
    let (plan, bytes, text) = planned(config, model)?;
    let too_large = fit::check(b, &start, (&bytes, plan.room.rows), |config, model| {
        let (plan, bytes, _) = planned(config, model)?;
        Ok((bytes, plan.room.rows))
    })
    .err();
    Ok(Prepared { start, tokenizer, prompts, eval, beside, plan, bytes, text, too_large })
}

/// The plan, what it allocates, and its text.
fn planned<B: Backend>(
    b: &B,
    config: &Config,
    processes: usize,
    (folder, model): (&Folder, &ModelConfig),
    (prompts, eval): (&[Prompt], &[Prompt]),
    beside: Beside,
) -> Result<(Plan, Bytes, String), Error> {
    let visits = Visits::of(config, prompts.len());
    let room = |sizes: Sizes, prompts: &[Prompt], batch| {
        sizes.room::<B>(b.portions(), prompts, batch, config.micro_batch_tokens, model.vocab)
    };
    let cut = Cut { shares: config.gradient_shares, processes };
    let learning = room(Sizes::of(config).of_step(config), prompts, (visits.batch, config.replay));
    let looking = room(Sizes { samples: 1, ..Sizes::of(config) }, eval, (visits.batch, 0));
    let plan = Plan::new::<B>(config, cut, model, visits, learning, learning.and(looking))?;
    let sampler = sampler_plan::<B>(b, config, model, prompts, eval);
    let head = if beside.critic { model.width } else { 0 };
    let value_head = head * (size_of::<B::Real>() + size_of::<B::Acc>());
    // A reference that follows the policy has weights of its own, but adapters do not go with one.
    let kept = KeptReference::of(config, true);
    let bytes =
        Bytes::of_model::<B>(folder, model, config.form(), plan.keep, (plan.algorithm, cut, head), kept)?
            .and("the value head", value_head)
            .with(Engine::<B>::bytes_with(model, plan.room, plan.keep, beside))
            .and("samples", sampler.bytes());
    let mut rows = format!("train {}: {} prompts\n", config.dataset.display(), prompts.len());
    if let Some(path) = &config.eval_dataset {
        rows += &format!("eval  {}: {} prompts\n", path.display(), eval.len());
    }
    let beside = format!(
        "      {} samples of each prompt, of up to {} tokens: {sampler}\n",
        Sizes::of(config).of_step(config).samples,
        config.max_completion_length
    );
    let text = plan.text(b, config, model, &rows, &bytes, &beside);
    Ok((plan, bytes, text))
}

fn sampler_plan<B: Backend>(
    b: &B,
    config: &Config,
    model: &ModelConfig,
    prompts: &[Prompt],
    eval: &[Prompt],
) -> decode::Plan {
    let room = Sizes::of(config).cache(prompts.iter().chain(eval));
    match config.method {
        Method::NashMd => decode::Engine::<B>::mixing_plan(b.portions(), model, room),
        _ => decode::Engine::<B>::plan(b.portions(), model, room),
    }
}
