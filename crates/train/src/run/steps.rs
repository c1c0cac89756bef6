//! The steps of a run, one after another, with what happens between them.

use super::best::Best;
use super::outcome::Outcome;
use super::output::{ALL_RESULTS, EVAL_RESULTS, Output, RESULTS};
use super::plan::Plan;
use super::visits::EpochOrder;
use super::when::When;
use crate::Error;
use crate::checkpoint::{self, Content, State};
use crate::critic::Critic;
use crate::engine::Engine;
use crate::objective::Metrics;
use crate::ranks::{Ranks, Updater, Wire};
use crate::report::metrics::{self, Record};
use crate::report::progress::Progress;
use crate::report::trackers::Trackers;
use crate::report::trainer_state::TrainerState;
use crate::signal;
use duel_backend::{Backend, Real};
use duel_model::{Held, Model, Shape, Trained};
use duel_optim::clip_scale;
use duel_random::at;
use serde_json::{Map, Value, json};
use std::ops::Range;
use std::time::Instant;

/// Steps whose seconds are kept.
const TIMED: usize = 1000;

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
    ///
    /// # Errors
    /// A rank is lost.
    fn results(&self, ranks: &Ranks<'_>, results: &mut Map<String, Value>) -> Result<(), Error>;

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
    /// The processes that make it.
    pub ranks: &'a Ranks<'a>,
    pub plan: Plan,
    pub output: Output,
    /// Tokens that end a text.
    pub stops: Vec<u32>,
    pub manifest: Model<Shape>,
    pub engine: Engine<'a, B>,
    pub weights: Held<B>,
    pub grads: Trained<B>,
    pub critic: Option<Critic<B>>,
    pub updater: Updater<B>,
    /// What metrics are written to, by the process that writes.
    pub trackers: Option<Trackers>,
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
        // Rows that an evaluation was due on may not be given any more.
        self.state.unevaluated &= learner.evaluates();
        if first == 0 && self.plan.eval_on_start || self.state.unevaluated {
            // Before the first step there is nothing that could be the best.
            let (said, better) = self.evaluate(&mut learner, &mut progress)?;
            if self.state.unevaluated {
                return self.interrupted(&learner);
            }
            last = said;
            if first > 0
                && self.plan.saving.due(first, &self.plan.visits, better)
                && self.saved != Some(first)
            {
                self.save(&learner)?;
            }
        }
        while self.state.step < total && !self.gives_up() {
            let batch = order.batch(&self.plan.visits, self.state.step);
            let begun = Instant::now();
            let done = match self.ranks.any(signal::interrupted())? {
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
            if seconds_of_steps.len() < TIMED {
                seconds_of_steps.push(begun.elapsed().as_secs_f64());
            }
            samples += batch.len();
            let values = metrics.values();
            let value = |name: &&'static str| {
                values
                    .iter()
                    .find(|(known, _)| known != "loss" && known == name)
                    .map(|(_, value)| (*name, *value))
            };
            let curves: Vec<_> = learner.shown().iter().filter_map(value).collect();
            progress.step((counted, learner.counted()), metrics.loss, &curves);
            self.remember(&metrics);
            self.state.loss.add(&[metrics.loss]);
            let step = self.state.step;
            let shown = |name: &str| learner.shown().contains(&name);
            let first_step = step == 1 && self.plan.logging_first_step;
            if first_step || self.plan.logging.due(step, &self.plan.visits, false) {
                last = self.log(norm, rate)?;
                let fits: Vec<(&str, f64)> =
                    last.iter().map(|(k, v)| (k.as_str(), *v)).filter(|(k, _)| shown(k)).collect();
                progress.logged(&fits);
            }
            let mut better = false;
            if learner.evaluates() && self.plan.evaluating.due(step, &self.plan.visits, false) {
                (last, better) = match self.evaluate(&mut learner, &mut progress) {
                    Ok(said) => said,
                    Err(e) => return Err(self.kept(e, &learner)),
                };
                if self.state.unevaluated {
                    drop(progress);
                    return self.interrupted(&learner);
                }
            }
            if self.plan.saving.due(step, &self.plan.visits, better) && self.saved != Some(step) {
                self.save(&learner)?;
            }
        }
        if self.state.step < total {
            let Best { metric, step, .. } = &self.state.best;
            let metric = metric.map_or(String::new(), |metric| format!(" ({metric:.4})"));
            progress.println(&format!(
                "stopped early after step {}: no evaluation was better than that after step {step}{metric}",
                self.state.step
            ));
        }
        drop(progress);
        let seconds = started.elapsed().as_secs_f64();
        let results =
            self.results(&learner, samples, seconds, (self.state.step - first, &seconds_of_steps))?;
        match self.plan.saving {
            When::Never | When::Better => self.check_finite()?,
            _ if self.saved != Some(self.state.step) => self.save(&learner)?,
            _ => {}
        }
        let ranks = self.ranks;
        let ended = if ranks.leads() { self.finish(results) } else { Ok(()) };
        ranks.agree(ended)?;
        Ok(Outcome::Done { last, seconds })
    }

    /// Leaves the trained model, or the best one, and what is known of the run.
    fn finish(self, results: Map<String, Value>) -> Result<(), Error> {
        if self.plan.saving != When::Never {
            self.output.checkpoints.tidy(&self.state);
        }
        let best = self.state.best.checkpoint.filter(|_| self.plan.choice.as_ref().is_some_and(|c| c.loads));
        let standing = self.trainer_state();
        let (files, last) = self.result_files(results, best.map(|(step, _)| step), &self.output.history()?);
        let form = self.plan.form;
        // What is no longer needed makes room for the best model.
        let Run { output, stops, engine, mut weights, state, grads, critic, updater, .. } = self;
        if let Some((step, metric)) = best.filter(|(step, _)| *step != state.step) {
            drop((weights, grads, critic, updater));
            let path = output.checkpoints.folder(step);
            let folder = checkpoint::open(&path, &engine.model)?;
            weights = duel_model::load_policy(engine.b, &folder, &engine.model, form)?;
            say!("the best model is left, {} ({metric:.4})", path.display());
        }
        output.finish(engine.b, &engine.model, &weights, &stops, &files, (&standing, &last))
    }

    /// `train_results.json` and its like, as the scripts of transformers write them, and the record that they log
    /// last.
    fn result_files(
        &self,
        results: Map<String, Value>,
        best: Option<u64>,
        history: &[Record],
    ) -> (Vec<(&'static str, Value)>, Record) {
        let mut all: Map<String, Value> = results.clone();
        all.remove("step_seconds");
        let is_that = |record: &&Record| best.is_none_or(|step| metrics::step_of(record) == Some(step));
        let evaluation = history.iter().filter(|record| metrics::is_evaluation(record)).rfind(is_that);
        let mut files = vec![(RESULTS, results.into())];
        if let Some(evaluation) = evaluation {
            let said = evaluation.clone().into_iter().filter(|(name, _)| name != "step");
            let said: Map<String, Value> = said.collect();
            // The run's own epoch stays.
            all.extend(said.clone().into_iter().filter(|(name, _)| name != "epoch"));
            files.push((EVAL_RESULTS, said.into()));
        }
        let names = [
            "train_runtime",
            "train_samples_per_second",
            "train_steps_per_second",
            "total_flos",
            "train_loss",
        ];
        let known = names.iter().filter_map(|name| Some((name.to_string(), all.get(*name)?.clone())));
        let step = [("epoch", all["epoch"].clone()), ("step", json!(self.state.step))];
        let last = known.chain(step.map(|(name, value)| (name.to_string(), value))).collect();
        files.push((ALL_RESULTS, all.into()));
        (files, last)
    }

    /// Where it stands, in transformers' words.
    fn trainer_state(&self) -> TrainerState {
        let State { step, num_tokens, best, .. } = &self.state;
        let visits = &self.plan.visits;
        let steps = |when| match when {
            When::Every(steps) => steps,
            When::Epoch => visits.per_epoch,
            When::Never | When::End | When::Better => visits.total,
        };
        TrainerState {
            steps: (*step, visits.total),
            epochs: (visits.epoch(*step), self.plan.epochs),
            every: [self.plan.logging, self.plan.evaluating, self.plan.saving].map(steps),
            batch: self.plan.per_device,
            tokens: *num_tokens,
            flos: self.flos(),
            best: (
                best.metric,
                best.metric.map(|_| best.step),
                best.checkpoint.map(|(step, _)| self.output.checkpoints.folder(step).display().to_string()),
            ),
        }
    }

    /// Operations so far, as transformers estimates them.
    fn flos(&self) -> f64 {
        let Model { embed, positions, .. } = &self.manifest;
        let embeddings = embed.len() + positions.as_ref().map_or(0, Shape::len);
        6.0 * self.state.num_tokens as f64 * (self.manifest.parameters() - embeddings) as f64
    }

    /// Whether there were enough evaluations in vain.
    fn gives_up(&self) -> bool {
        self.plan.choice.as_ref().is_some_and(|choice| choice.gives_up(&self.state.best))
    }

    /// Speed of this process's part of the run, by the names of Hugging Face's trainer and its scripts, with the
    /// seconds of its first steps, what the learner has to say, and what the device says of its memory.
    fn results(
        &self,
        learner: &impl Learner<B>,
        samples: usize,
        seconds: f64,
        (made, seconds_of_steps): (u64, &[f64]),
    ) -> Result<Map<String, Value>, Error> {
        let mut results = Map::new();
        let mut say = |name: &str, value: Value| results.insert(name.into(), value);
        say("train_runtime", json!(seconds));
        say("train_samples", json!(samples));
        say("train_samples_per_second", json!(samples as f64 / seconds.max(f64::MIN_POSITIVE)));
        say("train_steps_per_second", json!(made as f64 / seconds.max(f64::MIN_POSITIVE)));
        say("train_loss", json!(self.state.loss.mean()));
        say("epoch", json!(self.plan.visits.epoch(self.state.step)));
        say("total_flos", json!(self.flos()));
        say("step_seconds", json!(seconds_of_steps));
        if self.ranks.size() > 1 {
            say("processes", json!(self.ranks.size()));
            say("sent_bytes", json!(self.ranks.sent()));
        }
        if let Some(peak) = self.engine.b.memory().peak {
            say("peak_device_bytes", json!(peak));
        }
        learner.results(self.ranks, &mut results)?;
        Ok(results)
    }

    /// Sets all gradients to 0.
    pub fn clear(&mut self) {
        let b = self.engine.b;
        let critic = self.critic.iter_mut().map(|critic| &mut critic.gradient);
        self.grads.list_mut().into_iter().chain(critic).for_each(|g| b.zero(g));
    }

    /// The gradient of a batch of `n` things, shared out: `pass` adds that of some of them in a row, and says what all
    /// processes have to know of each. Returns it of all, in order.
    ///
    /// # Errors
    /// Those of `pass`, or a process is lost.
    pub fn learn<T: Wire>(
        &mut self,
        n: usize,
        mut pass: impl FnMut(&mut Self, Range<usize>) -> Result<Vec<T>, Error>,
    ) -> Result<Vec<T>, Error> {
        let (ranks, cut) = (self.ranks, self.plan.cut);
        if cut.shares == 1 {
            self.clear();
            return pass(self, 0..n);
        }
        let b = self.engine.b;
        self.updater.clear(b);
        let mut said = Vec::new();
        for round in 0..cut.rounds() {
            let share = |rank: usize| match round * cut.processes + rank {
                which if which < cut.shares => cut.share(n, which),
                _ => 0..0,
            };
            let has: Vec<bool> = (0..cut.processes).map(|rank| !share(rank).is_empty()).collect();
            self.updater.begin_round(has);
            let mine = share(ranks.rank());
            let mut grads = None;
            if mine.is_empty() {
                said.push(Vec::new());
            } else {
                self.clear();
                said.push(pass(self, mine)?);
                let mut list = self.grads.list();
                list.extend(self.critic.iter().map(|critic| &critic.gradient));
                grads = Some(list);
            }
            self.updater.add(b, ranks, grads.as_deref())?;
            self.engine.take_back(&mut self.grads);
        }
        let mut said: Vec<_> = ranks.all(said)?.into_iter().map(Vec::into_iter).collect();
        let in_order =
            (0..cut.rounds()).flat_map(|_| said.iter_mut().filter_map(Iterator::next).collect::<Vec<_>>());
        Ok(in_order.flatten().collect())
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
        let squares = self.updater.squares(b, self.ranks, &grads)?;
        let norm = squares.iter().map(|(_, square)| square).sum::<f64>().sqrt();
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
        self.updater.step(b, self.ranks, weights, grads, (rate, scale))?;
        self.state.updates += 1;
        self.engine.take_back(&mut self.grads);
        Ok(norm)
    }

    fn diverged(&self, loss: f64, squares: &[(usize, f64)], rows: &[usize]) -> Error {
        let bad = squares.iter().find(|(_, square)| !square.is_finite()).map(|(parameter, _)| *parameter);
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
        self.write(&record)?;
        Ok(all)
    }

    /// Writes metrics of this step down.
    fn write(&mut self, record: &[(&str, Value)]) -> Result<(), Error> {
        let step = self.state.step;
        let written = self.trackers.as_mut().map_or(Ok(()), |trackers| trackers.write(step, record));
        self.ranks.agree(written)
    }

    /// Evaluates after these steps: the metrics, and whether they are better than all before. After Ctrl-C there are
    /// none, and the state says that they are due, as it does after an error.
    fn evaluate(
        &mut self,
        learner: &mut impl Learner<B>,
        progress: &mut Progress,
    ) -> Result<(Vec<(String, f64)>, bool), Error> {
        let step = self.state.step;
        // Until it is over, whatever becomes of it.
        self.state.unevaluated = step > 0;
        let all = learner.evaluate(self, progress)?;
        if all.is_empty() {
            return Ok((all, false));
        }
        let mut record: Vec<(&str, Value)> = all.iter().map(|(k, v)| (k.as_str(), json!(v))).collect();
        record.push(("epoch", json!(self.plan.visits.epoch(step))));
        self.write(&record)?;
        let shown: Vec<String> = all
            .iter()
            .filter(|(k, _)| learner.shown().contains(&k.trim_start_matches("eval_")))
            .map(|(k, v)| format!("{k} {v:.4}"))
            .collect();
        progress.println(&format!("step {step}: {}", shown.join("  ")));
        let Some(choice) = self.plan.choice.as_ref().filter(|_| step > 0) else {
            self.state.unevaluated = false;
            return Ok((all, false));
        };
        let best = &mut self.state.best;
        let better = choice.compare(best, step, &all)?;
        self.state.unevaluated = false;
        if self.plan.saving.due(step, &self.plan.visits, better) {
            choice.saved(best, step, &all);
        }
        Ok((all, better))
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
            updater: &self.updater,
            state: &self.state,
            trainer_state: (&self.trainer_state(), &self.output.metrics()),
        };
        self.output.checkpoints.save(self.engine.b, self.ranks, &content)?;
        self.saved = Some(self.state.step);
        Ok(())
    }

    /// The error `e` with what was trained saved: it is not lost with what could not be judged or evaluated.
    fn kept(mut self, e: Error, learner: &impl Learner<B>) -> Error {
        // All processes save together: what went wrong on one alone is not known to the others.
        if self.ranks.size() > 1 && !e.is_of_judge()
            || self.saved != Some(self.state.step) && self.save(learner).is_err()
        {
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
