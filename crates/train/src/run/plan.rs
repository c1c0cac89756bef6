//! What every run will do: made once from the configuration and the data, before any of it is done.

use super::visits::Visits;
use crate::config::{Config, Optim, SaveStrategy, Scheduler};
use crate::engine::Room;
use crate::memory::Bytes;
use duel_backend::Backend;
use duel_model::{Config as ModelConfig, Keep, Model, Shape};
use duel_optim::{Algorithm, Schedule, ScheduleKind};

/// The plan of a run.
pub struct Plan {
    /// What the steps visit.
    pub visits: Visits,
    /// Room for every pass.
    pub room: Room,
    /// What a forward pass keeps for the backward pass.
    pub keep: Keep,
    /// What decides which inputs of adapters are dropped in training; `None`: none are.
    pub drops: Option<u64>,
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
    /// Whether there is one before the first step.
    pub eval_on_start: bool,
    /// Steps between checkpoints, 0: only at the end; `None`: only when interrupted.
    pub save_steps: Option<u64>,
}

impl Plan {
    /// That of `visits`, with room for passes that learn and, in all, for every pass.
    pub fn new<B: Backend>(
        config: &Config,
        model: &ModelConfig,
        visits: Visits,
        learning: Room,
        room: Room,
    ) -> Self {
        let lends = learning.single && model.lora.is_none() && B::hands_over::<B::Real, B::Acc>();
        Plan {
            room,
            keep: match config.gradient_checkpointing {
                true => Keep::Residuals,
                false if lends => Keep::Lend,
                false => Keep::All,
            },
            drops: model.lora.as_ref().filter(|lora| lora.settings.dropout > 0.0).map(|_| config.seed),
            algorithm: algorithm(config),
            schedule: schedule(config, visits.total),
            visits,
            max_grad_norm: config.max_grad_norm,
            logging_steps: config.logging_steps,
            eval_steps: config.eval_steps,
            eval_on_start: config.eval_on_start,
            save_steps: (config.save_strategy == SaveStrategy::Steps).then_some(config.save_steps),
        }
    }

    /// The plan for people: the model, `rows` that it learns from, what is allocated, and what is to be said `beside`.
    pub fn text<B: Backend>(
        &self,
        b: &B,
        config: &Config,
        model: &ModelConfig,
        rows: &str,
        bytes: &Bytes,
        beside: &str,
    ) -> String {
        // On the host the program, its tokenizer and its rows are there already.
        let before =
            b.memory().used.map_or(String::new(), |used| format!(", beside {:.2} GB now", used as f64 / 1e9));
        let manifest = Model::manifest(model);
        let trained: usize = manifest.iter().into_iter().filter(|s| model.trains(s)).map(Shape::len).sum();
        let trained = match model.lora {
            Some(_) => format!(" ({:.2} M are trained, in adapters)", trained as f64 / 1e6),
            None => String::new(),
        };
        format!(
            "model {}: {:.2} M parameters{trained}, {:?}, {} layers of width {}\n{rows}\
             plan  {} steps of {} groups, micro-batches of up to {} tokens; {}\n      to be allocated: {bytes}{before}\n{beside}",
            config.model.display(),
            manifest.parameters() as f64 / 1e6,
            model.family,
            model.layers,
            model.width,
            self.visits.total,
            self.visits.batch,
            self.room.rows,
            b.describe()
        )
    }
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
