//! What every run will do: made once from the configuration and the data, before any of it is done.

use super::best::Choice;
use super::visits::Visits;
use super::when::When;
use crate::Error;
use crate::config::{Config, EvalStrategy, LoggingStrategy, Optim, SaveStrategy, Scheduler};
use crate::engine::Room;
use crate::memory::Bytes;
use crate::ranks::{Cut, most_under_way};
use duel_backend::Backend;
use duel_model::{Config as ModelConfig, Form, Keep, Model, Shape};
use duel_optim::{Algorithm, Schedule};

/// The plan of a run.
pub struct Plan {
    /// What the steps visit.
    pub visits: Visits,
    /// How steps and parameters are shared out.
    pub cut: Cut,
    /// Room for every pass.
    pub room: Room,
    /// What a forward pass keeps for the backward pass.
    pub keep: Keep,
    /// What weights are held in that are not trained.
    pub form: Form,
    /// What decides which inputs of adapters are dropped in training; `None`: none are.
    pub drops: Option<u64>,
    /// The optimizer.
    pub algorithm: Algorithm,
    /// The learning rate of every step.
    pub schedule: Schedule,
    /// Gradients are scaled down to this norm; 0: never.
    pub max_grad_norm: f64,
    /// Passes over the rows that are asked for.
    pub epochs: f64,
    /// When metrics are logged.
    pub logging: When,
    /// Whether those of the first step are in any case.
    pub logging_first_step: bool,
    /// When the model is evaluated.
    pub evaluating: When,
    /// Whether it is before the first step.
    pub eval_on_start: bool,
    /// When checkpoints are written, but for those of Ctrl-C.
    pub saving: When,
    /// Groups of a batch whose gradient is accumulated at a time, as transformers has it.
    pub per_device: usize,
    /// Which evaluation is the best; `None`: none is asked for.
    pub choice: Option<Choice>,
}

impl Plan {
    /// That of `visits`, with room for passes that learn and, in all, for every pass.
    ///
    /// # Errors
    /// The schedule has not what is asked of it.
    pub fn new<B: Backend>(
        config: &Config,
        cut: Cut,
        model: &ModelConfig,
        visits: Visits,
        learning: Room,
        room: Room,
    ) -> Result<Self, Error> {
        let single = learning.single && model.lora.is_none();
        let lends = single && B::hands_over::<B::Real, B::Acc>();
        let relays = single && cut.shares > 1 && B::hands_over::<B::Acc, B::Acc>();
        let eval_steps = config.eval_steps.unwrap_or(config.logging_steps);
        Ok(Plan {
            cut,
            room,
            keep: match config.gradient_checkpointing {
                true if relays => Keep::Relay,
                true => Keep::Residuals,
                false if lends => Keep::Lend,
                false => Keep::All,
            },
            form: config.form(),
            drops: model.lora.as_ref().filter(|lora| lora.settings.dropout > 0.0).map(|_| config.seed),
            algorithm: algorithm(config),
            schedule: schedule(config, visits.total)?,
            max_grad_norm: config.max_grad_norm,
            epochs: match config.max_steps {
                -1 => config.num_train_epochs,
                _ => visits.epoch(visits.total),
            },
            logging: match config.logging_strategy {
                LoggingStrategy::No => When::Never,
                LoggingStrategy::Epoch => When::Epoch,
                LoggingStrategy::Steps => When::every(config.logging_steps.of(visits.total)),
            },
            logging_first_step: config.logging_first_step,
            evaluating: match config.eval_strategy {
                EvalStrategy::No => When::Never,
                EvalStrategy::End => When::End,
                EvalStrategy::Epoch => When::Epoch,
                EvalStrategy::Steps => When::every(eval_steps.of(visits.total)),
            },
            eval_on_start: config.eval_on_start,
            saving: match config.save_strategy {
                SaveStrategy::No => When::Never,
                SaveStrategy::Epoch => When::Epoch,
                SaveStrategy::Best => When::Better,
                SaveStrategy::Steps => When::every(config.save_steps.of(visits.total)),
            },
            per_device: config.per_device_train_batch_size,
            choice: Choice::of(config),
            visits,
        })
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
        let sent = match self.cut.processes {
            1 => String::new(),
            n => {
                let bytes = self.cut.sent(trained, size_of::<B::Acc>(), size_of::<B::Real>());
                let on_the_way = most_under_way(self.cut, trained, size_of::<B::Acc>());
                let [sent, on_the_way] = [bytes, on_the_way].map(|bytes| bytes as f64 / 1e6);
                format!(
                    "      {} shares on {n} processes: rank 0 sends {sent:.1} MB a step; up to {on_the_way:.1} MB lie on \
                     the host meanwhile\n",
                    self.cut.shares
                )
            }
        };
        let trained = match model.lora {
            Some(_) => format!(" ({:.2} M are trained, in adapters)", trained as f64 / 1e6),
            None => String::new(),
        };
        format!(
            "model {}: {:.2} M parameters{trained}, {:?}, {} layers of width {}\n{rows}\
             plan  {} steps of {} groups, micro-batches of up to {} tokens; {}\n      to be allocated: {bytes}{before}\n{sent}{beside}",
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

fn schedule(c: &Config, total: u64) -> Result<Schedule, Error> {
    let warmup = match c.lr_scheduler_type {
        Scheduler::Constant => 0,
        _ => c.warmup_steps.of(total),
    };
    Ok(Schedule { kind: c.schedule_kind()?, peak: c.learning_rate, warmup, total })
}
