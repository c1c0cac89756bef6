//! What a run will do: made once from the configuration, the model and the data, before any of it is done.

use super::data::Data;
use super::visits::Visits;
use crate::config::{Config, Optim, SaveStrategy, Scheduler};
use crate::engine::{Engine, Room, Scoring};
use crate::memory::Bytes;
use crate::objective::Objective;
use crate::sample;
use duel_backend::Backend;
use duel_data::Dataset;
use duel_model::decode::{self, Request, Room as SampleRoom, Sampling};
use duel_model::{Config as ModelConfig, Keep, Model, Shape};
use duel_optim::{Algorithm, Schedule, ScheduleKind};
use std::fmt;
use std::path::{Path, PathBuf};

/// The plan of a run. It prints itself.
pub struct Plan {
    /// What is learned.
    pub objective: Objective,
    /// Where the reference's log-probabilities are kept; `None`: the objective needs none.
    pub reference_cache: Option<PathBuf>,
    /// What of a group is scored.
    pub scoring: Scoring,
    /// How the reference follows the policy: after every so many steps, by what share; `None`: it stays.
    pub follow: Option<(u64, f64)>,
    /// Which groups the steps visit.
    pub visits: Visits,
    /// Room for every pass.
    pub room: Room,
    /// What a forward pass keeps for the backward pass.
    pub keep: Keep,
    /// The optimizer.
    pub algorithm: Algorithm,
    /// The learning rate of every step.
    pub schedule: Schedule,
    /// Gradients are scaled down to this norm; 0: never.
    pub max_grad_norm: f64,
    /// Steps between logged metrics.
    pub logging_steps: u64,
    /// Steps between evaluations; 0: only at the end.
    pub eval_steps: u64,
    /// Steps between checkpoints, 0: only at the end; `None`: only when interrupted.
    pub save_steps: Option<u64>,
    /// What is drawn at every evaluation.
    pub samples: Option<Samples>,
    /// The reference's weights stay: it follows the policy, or the KL of the samples is from it.
    pub keep_reference: bool,
    text: String,
}

/// Samples that an evaluation draws.
pub struct Samples {
    /// The prompts that are continued.
    pub prompts: Vec<Vec<u32>>,
    /// How.
    pub how: Sampling,
}

impl Plan {
    /// The plan of training `model` for `objective` on the groups of `data` as `config` says, on `b`.
    pub fn new<B: Backend>(
        b: &B,
        config: &Config,
        objective: Objective,
        model: &ModelConfig,
        manifest: &Model<Shape>,
        data: &Data,
    ) -> Self {
        let (ds, eval) = (&data.train, data.eval.as_ref());
        let room = |ds: &Dataset, batch| Room::plan(b, ds, batch, config.micro_batch_tokens, model.vocab);
        let scored = eval.into_iter().chain(&data.train_mismatched).chain(&data.eval_mismatched);
        let visits = Visits::of(config, ds.len());
        let needs = objective.needs();
        let train_room = match room(ds, visits.batch) {
            all if needs.prompt => all,
            all => all.for_responses(ds, visits.batch),
        };
        let samples = eval
            .filter(|_| config.generate_during_eval)
            .map(|e| Samples::of(config, model, e))
            .filter(|samples| !samples.prompts.is_empty());
        let mut plan = Plan {
            reference_cache: needs.reference.then(|| config.cache_dir.clone()),
            scoring: Scoring { tails: config.ld_alpha, prompts: needs.prompt },
            follow: config
                .sync_ref_model
                .then_some((config.ref_model_sync_steps, config.ref_model_mixup_alpha)),
            room: scored.fold(train_room, |all, ds| all.and(room(ds, config.per_device_eval_batch_size))),
            keep: match config.gradient_checkpointing {
                true => Keep::Residuals,
                false if train_room.single && B::hands_over::<B::Real, B::Acc>() => Keep::Lend,
                false => Keep::All,
            },
            algorithm: algorithm(config),
            objective,
            schedule: schedule(config, visits.total),
            visits,
            max_grad_norm: config.max_grad_norm,
            logging_steps: config.logging_steps,
            eval_steps: config.eval_steps,
            save_steps: (config.save_strategy == SaveStrategy::Steps).then_some(config.save_steps),
            keep_reference: config.sync_ref_model || samples.is_some() && needs.reference,
            samples,
            text: String::new(),
        };
        plan.text = format!(
            "model {}: {:.2} M parameters, {:?}, {} layers of width {}\n{}{}{}",
            config.model.display(),
            manifest.parameters() as f64 / 1e6,
            model.family,
            model.layers,
            model.width,
            rows("train", &config.dataset, ds),
            config
                .eval_dataset
                .as_deref()
                .zip(eval)
                .map_or(String::new(), |(path, e)| rows("eval ", path, e)),
            plan.work(b, model, manifest)
        );
        plan
    }

    /// What will be done and the memory that it takes.
    fn work<B: Backend>(&self, b: &B, model: &ModelConfig, manifest: &Model<Shape>) -> String {
        let sampler = |samples: &Samples| decode::Engine::<B>::plan(b.portions(), model, samples.room());
        let sampler = self.samples.as_ref().map(sampler);
        let bytes = Bytes::of_parameters::<B>(manifest, self.keep, self.algorithm, self.keep_reference)
            .with(Engine::<B>::bytes(model, self.room, self.keep))
            .and("samples", sampler.map_or(0, |plan| plan.bytes()));
        // On the host the program, its tokenizer and its rows are there already.
        let before =
            b.memory().used.map_or(String::new(), |used| format!(", beside {:.2} GB now", used as f64 / 1e9));
        let mut text = format!(
            "plan  {} steps of {} groups, micro-batches of up to {} tokens; {}\n      to be allocated: {bytes}{before}\n",
            self.visits.total,
            self.visits.batch,
            self.room.rows,
            b.describe()
        );
        let bytes = bytes.total();
        if let Some((samples, plan)) = self.samples.as_ref().zip(sampler) {
            text += &format!("      samples: {plan}\n");
            if self.keep_reference {
                let new = samples.how.max_new_tokens;
                let bytes = sample::kl_bytes::<B>(b.portions(), model, &samples.requests(), new);
                text +=
                    &format!("      up to {:.2} GB more while their KL is measured\n", bytes as f64 / 1e9);
            }
        }
        if let Some(free) = b.memory().free.map(|free| free as f64).filter(|free| bytes as f64 > *free) {
            text += &format!(
                "      only {:.2} GB of memory are free: lower max_length, per_device_train_batch_size or \
                 micro_batch_tokens, or set gradient_checkpointing\n",
                free / 1e9
            );
        }
        text
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Samples {
    /// One of each prompt.
    pub fn requests(&self) -> Vec<Request<'_>> {
        Request::each(&self.prompts)
    }

    /// Room to draw them.
    pub fn room(&self) -> SampleRoom {
        SampleRoom::of(self.requests(), sample::SEQUENCES, self.how.max_new_tokens)
    }

    fn of(c: &Config, model: &ModelConfig, eval: &Dataset) -> Self {
        let continued = eval.groups().filter(|g| (1..model.max_positions).contains(&g.prompt.len()));
        Samples {
            prompts: continued.take(c.num_eval_samples).map(|g| g.prompt.to_vec()).collect(),
            how: Sampling {
                max_new_tokens: c.max_new_tokens,
                temperature: c.temperature,
                top_k: c.top_k,
                top_p: c.top_p,
                min_p: c.min_p,
                repetition_penalty: c.repetition_penalty,
                seed: c.seed,
            },
        }
    }
}

fn rows(what: &str, path: &Path, ds: &Dataset) -> String {
    format!("{what} {}: {}\n", path.display(), ds.report())
}

fn algorithm(c: &Config) -> Algorithm {
    match c.optim {
        Optim::Adamw => Algorithm::AdamW {
            beta1: c.adam_beta1,
            beta2: c.adam_beta2,
            eps: c.adam_epsilon,
            weight_decay: c.weight_decay,
        },
        Optim::Rmsprop => {
            Algorithm::Rmsprop { alpha: c.rmsprop_alpha, eps: c.adam_epsilon, weight_decay: c.weight_decay }
        }
    }
}

fn schedule(c: &Config, total: u64) -> Schedule {
    let warmup = match c.lr_scheduler_type {
        Scheduler::Constant => 0,
        _ if c.warmup_steps > 0 => c.warmup_steps,
        _ => (c.warmup_ratio * total as f64).ceil() as u64,
    };
    let kind = match c.lr_scheduler_type {
        Scheduler::Linear => ScheduleKind::Linear,
        Scheduler::Cosine => ScheduleKind::Cosine,
        Scheduler::Constant | Scheduler::ConstantWithWarmup => ScheduleKind::Constant,
    };
    Schedule { kind, peak: c.learning_rate, warmup, total }
}
