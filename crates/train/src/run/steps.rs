//! The steps of a run, one after another, with what happens between them.

use super::outcome::Outcome;
use super::output::Output;
use super::plan::Plan;
use super::visits::EpochOrder;
use crate::Error;
use crate::checkpoint::{Content, State};
use crate::critic::Critic;
use crate::engine::Engine;
use crate::objective::Metrics;
use crate::report::metrics::MetricsWriter;
use crate::report::progress::Progress;
use crate::signal;
use duel_backend::{Backend, Real};
use duel_model::{Held, Model, Shape, Trained};
use duel_optim::{Optimizer, clip_scale};
use duel_random::at;
use serde_json::{Map, Value, json};
use std::time::Instant;

/// What a run learns from.
pub trait Learner<B: Backend> {
    /// Makes the step on `batch`, numbers of what the plan's visits count. `None`: Ctrl-C, before anything changed.
    ///
    /// # Errors
    /// Anything that the user must put right.
    fn step(&mut self, run: &mut Run<'_, B>, batch: &[u32]) -> Result<Option<Step>, Error>;

    /// Whether there is something to evaluate on.
    fn evaluates(&self) -> bool;

    /// The metrics of an evaluation; nothing after Ctrl-C.
    ///
    /// # Errors
    /// As [`Learner::step`].
    fn evaluate(
        &mut self,
        run: &mut Run<'_, B>,
        progress: &mut Progress,
    ) -> Result<Vec<(String, f64)>, Error>;

    /// The reference's weights after so many steps, where they are no longer those that the run began with.
    fn moved_reference(&self, step: u64) -> Option<&Model<Real<B>>>;

    /// Adds what it has to say of its speed.
    fn results(&self, results: &mut Map<String, Value>);

    /// What the pace is said in.
    fn counted(&self) -> &'static str;

    /// Metrics that fit a line.
    fn shown(&self) -> &'static [&'static str];
}

/// What a step was.
pub struct Step {
    /// Its loss and metrics.
    pub metrics: Metrics,
    /// The norm of its last gradient.
    pub norm: f64,
    /// Tokens that it learned from.
    pub tokens: u64,
    /// What is counted of it, by the name that [`Learner::counted`] has for them.
    pub counted: u64,
}

/// A run whose every buffer is allocated.
pub struct Run<'a, B: Backend> {
    pub plan: Plan,
    pub output: Output,
    /// Tokens that end a text.
    pub stops: Vec<u32>,
    pub manifest: Model<Shape>,
    pub engine: Engine<'a, B>,
    pub weights: Held<B>,
    pub grads: Trained<B>,
    pub critic: Option<Critic<B>>,
    pub optimizer: Optimizer<B>,
    pub writer: MetricsWriter,
    pub state: State,
    /// Step of the newest checkpoint in the output folder that is this run's. It is never written a second time: while
    /// a checkpoint is replaced, a crash would lose it.
    pub saved: Option<u64>,
}

impl<B: Backend> Run<'_, B> {
    /// Makes all steps that are left.
    ///
    /// # Errors
    /// Anything that the user must put right; what was written before stays.
    pub fn go(mut self, mut learner: impl Learner<B>) -> Result<Outcome, Error> {
        let total = self.plan.visits.total;
        let first = self.state.step;
        let mut progress = Progress::new("training", "steps", first, total);
        let started = Instant::now();
        let mut last = Vec::new();
        let mut order = EpochOrder::default();
        let mut samples = 0;
        let mut seconds_of_steps = Vec::new();
        if first == 0 && self.plan.eval_on_start {
            self.evaluate(&mut learner, &mut progress)?;
        }
        while self.state.step < total {
            let batch = order.batch(&self.plan.visits, self.state.step);
            let begun = Instant::now();
            let done = match signal::interrupted() {
                true => None,
                false => match learner.step(&mut self, &batch) {
                    Err(e) if e.is_of_judge() && self.state.step > first => {
                        return Err(self.kept(e, &learner));
                    }
                    done => done?,
                },
            };
            let Some(Step { metrics, norm, tokens, counted }) = done else {
                drop(progress);
                return self.interrupted(&learner);
            };
            let rate = self.plan.schedule.rate(self.state.step);
            self.state.step += 1;
            self.state.num_tokens += tokens;
            seconds_of_steps.push(begun.elapsed().as_secs_f64());
            samples += batch.len();
            progress.step((counted, learner.counted()), metrics.loss);
            self.remember(&metrics);
            let step = self.state.step;
            let shown = |name: &str| learner.shown().contains(&name);
            if due(step, self.plan.logging_steps) || step == total {
                last = self.log(norm, rate)?;
                let fits: Vec<(&str, f64)> =
                    last.iter().map(|(k, v)| (k.as_str(), *v)).filter(|(k, _)| shown(k)).collect();
                progress.logged(&fits);
            }
            if learner.evaluates() && (due(step, self.plan.eval_steps) || step == total) {
                last = match self.evaluate(&mut learner, &mut progress) {
                    Ok(last) => last,
                    Err(e) => return Err(self.kept(e, &learner)),
                };
            }
            if self.plan.save_steps.is_some_and(|every| due(step, every)) {
                self.save(&learner)?;
            }
        }
        drop(progress);
        let seconds = started.elapsed().as_secs_f64();
        let results = self.results(&learner, samples, seconds, &seconds_of_steps);
        match self.plan.save_steps {
            Some(_) if self.saved != Some(total) => self.save(&learner)?,
            Some(_) => self.output.checkpoints.tidy(total),
            None => self.check_finite()?,
        }
        self.output.finish(self.engine.b, &self.engine.model, &self.weights, &self.stops, &results)?;
        Ok(Outcome::Done { last, seconds })
    }

    /// Speed of this process's part of the run, by the names of Hugging Face's trainer and its scripts, with the
    /// seconds of every step, what the learner has to say, and what the device says of its memory.
    fn results(
        &self,
        learner: &impl Learner<B>,
        samples: usize,
        seconds: f64,
        seconds_of_steps: &[f64],
    ) -> Value {
        let mut results = Map::new();
        let mut say = |name: &str, value: Value| results.insert(name.into(), value);
        say("train_runtime", json!(seconds));
        say("train_samples", json!(samples));
        say("train_samples_per_second", json!(samples as f64 / seconds.max(f64::MIN_POSITIVE)));
        let steps = seconds_of_steps.len() as f64;
        say("train_steps_per_second", json!(steps / seconds.max(f64::MIN_POSITIVE)));
        say("step_seconds", json!(seconds_of_steps));
        if let Some(peak) = self.engine.b.memory().peak {
            say("peak_device_bytes", json!(peak));
        }
        learner.results(&mut results);
        results.into()
    }

    /// Sets all gradients to 0.
    pub fn clear(&mut self) {
        let b = self.engine.b;
        let critic = self.critic.iter_mut().map(|critic| &mut critic.gradient);
        self.grads.list_mut().into_iter().chain(critic).for_each(|g| b.zero(g));
    }

    /// Lets adapters drop inputs of the passes that make the next gradient, or with `false` of none.
    pub fn drop_inputs(&mut self, drops: bool) {
        let seed = self.plan.drops.filter(|_| drops).map(|seed| at(&[seed, self.state.updates]));
        self.engine.drop_by(seed);
    }

    /// Updates the weights by the gradients, and returns their norm. `rows` are those that the gradients are of, for
    /// an error's sake.
    ///
    /// # Errors
    /// The loss or a gradient is no number: nothing was changed.
    pub fn update(&mut self, loss: f64, rows: impl Fn() -> Vec<usize>) -> Result<f64, Error> {
        let b = self.engine.b;
        let mut grads = self.grads.list();
        grads.extend(self.critic.iter().map(|critic| &critic.gradient));
        let squares = b.square_sums(&grads)?;
        let norm = squares.iter().sum::<f64>().sqrt();
        if !norm.is_finite() || !loss.is_finite() {
            return Err(self.diverged(loss, &squares, &rows()));
        }
        let rate = self.plan.schedule.rate(self.state.step);
        let scale = clip_scale(norm, self.plan.max_grad_norm);
        let (mut weights, mut grads) = (self.weights.trained_mut(&self.grads), self.grads.list());
        if let Some(Critic { weight, gradient }) = &mut self.critic {
            weights.push(weight);
            grads.push(gradient);
        }
        self.optimizer.step(b, weights, grads, rate, scale);
        self.state.updates += 1;
        self.engine.take_back(&mut self.grads);
        Ok(norm)
    }

    fn diverged(&self, loss: f64, squares: &[f64], rows: &[usize]) -> Error {
        let bad = squares.iter().position(|s| !s.is_finite());
        let manifest = self.grads.of(self.manifest.as_ref());
        let name = |i: usize| manifest.get(i).map_or("the value head", |s| s.pieces[0].name.as_str());
        let tensor = bad.map_or("no tensor", name);
        let rows: Vec<String> = rows.iter().map(usize::to_string).collect();
        let kept = self.output.checkpoints.newest();
        Error::new(format!(
            "step {}: the loss is {loss} and the first gradient that is not finite is that of `{tensor}` (rows {}); \
             lower learning_rate or max_grad_norm, or look at these rows; {}",
            self.state.step + 1,
            rows.join(", "),
            kept.map_or("no checkpoint was written yet".into(), |p| format!(
                "{} is from before",
                p.display()
            ))
        ))
    }

    fn remember(&mut self, metrics: &Metrics) {
        for (name, value) in metrics.values() {
            let window = &mut self.state.window;
            match window.iter_mut().find(|(k, ..)| *k == name) {
                Some((_, sum, n)) => {
                    *sum += value;
                    *n += 1;
                }
                None => window.push((name, value, 1)),
            }
        }
    }

    /// Writes the means since the last log.
    fn log(&mut self, norm: f64, rate: f64) -> Result<Vec<(String, f64)>, Error> {
        let window = std::mem::take(&mut self.state.window);
        let mut all: Vec<(String, f64)> =
            window.into_iter().map(|(k, sum, n)| (k, sum / n.max(1) as f64)).collect();
        all.insert(1.min(all.len()), ("grad_norm".into(), norm));
        all.insert(2.min(all.len()), ("learning_rate".into(), rate));
        let mut record: Vec<(&str, Value)> = all.iter().map(|(k, v)| (k.as_str(), json!(v))).collect();
        record.push(("num_tokens", json!(self.state.num_tokens)));
        record.push(("epoch", json!(self.plan.visits.epoch(self.state.step))));
        self.writer.write(self.state.step, &record)?;
        Ok(all)
    }

    fn evaluate(
        &mut self,
        learner: &mut impl Learner<B>,
        progress: &mut Progress,
    ) -> Result<Vec<(String, f64)>, Error> {
        let all = learner.evaluate(self, progress)?;
        // After Ctrl-C: the loop saves next.
        if all.is_empty() {
            return Ok(all);
        }
        let step = self.state.step;
        let mut record: Vec<(&str, Value)> = all.iter().map(|(k, v)| (k.as_str(), json!(v))).collect();
        record.push(("epoch", json!(self.plan.visits.epoch(step))));
        self.writer.write(step, &record)?;
        let shown: Vec<String> = all
            .iter()
            .filter(|(k, _)| learner.shown().contains(&k.trim_start_matches("eval_")))
            .map(|(k, v)| format!("{k} {v:.4}"))
            .collect();
        progress.println(&format!("step {step}: {}", shown.join("  ")));
        Ok(all)
    }

    /// Nothing that is saved holds anything but numbers.
    fn check_finite(&self) -> Result<(), Error> {
        if let Some(tensor) = duel_model::first_not_finite(self.engine.b, &self.manifest, &self.weights)? {
            let kept = self.output.checkpoints.newest();
            return Err(Error::new(format!(
                "step {} made `{tensor}` not finite, nothing was saved; lower learning_rate; {}",
                self.state.step,
                kept.map_or("no checkpoint was written yet".into(), |p| format!(
                    "{} is from before",
                    p.display()
                ))
            )));
        }
        Ok(())
    }

    fn save(&mut self, learner: &impl Learner<B>) -> Result<(), Error> {
        self.check_finite()?;
        let content = Content {
            model: &self.engine.model,
            weights: &self.weights,
            critic: self.critic.as_ref(),
            reference: learner.moved_reference(self.state.step),
            stops: &self.stops,
            optimizer: &self.optimizer,
            state: &self.state,
        };
        self.output.checkpoints.save(self.engine.b, &content)?;
        self.saved = Some(self.state.step);
        Ok(())
    }

    /// The error `e` with what was trained saved: it is not lost with what could not be judged or evaluated.
    fn kept(mut self, e: Error, learner: &impl Learner<B>) -> Error {
        if self.saved != Some(self.state.step) && self.save(learner).is_err() {
            return e;
        }
        Error::new(format!("{e}; {} is saved", self.output.checkpoints.folder(self.state.step).display()))
    }

    fn interrupted(mut self, learner: &impl Learner<B>) -> Result<Outcome, Error> {
        if self.saved != Some(self.state.step) {
            self.save(learner)?;
        }
        let checkpoint = self.output.checkpoints.folder(self.state.step);
        Ok(Outcome::Interrupted { checkpoint })
    }
}

fn due(step: u64, every: u64) -> bool {
    every > 0 && step.is_multiple_of(every)
}
