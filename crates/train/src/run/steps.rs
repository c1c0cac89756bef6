//! The steps of a run, one after another, with what happens between them.

use super::evaluate::Evaluation;
use super::examples::Examples;
use super::outcome::Outcome;
use super::output::Output;
use super::plan::Plan;
use super::visits::EpochOrder;
use crate::Error;
use crate::checkpoint::{Content, State};
use crate::engine::Engine;
use crate::follow::Following;
use crate::objective::Metrics;
use crate::report::metrics::MetricsWriter;
use crate::report::progress::Progress;
use crate::signal;
use duel_backend::{Acc, Backend, Real};
use duel_loss::ResponseStats;
use duel_model::{Model, Shape};
use duel_optim::{Optimizer, clip_scale};
use serde_json::{Value, json};
use std::time::Instant;

/// A run whose every buffer is allocated.
pub struct Run<'a, B: Backend> {
    pub plan: Plan,
    pub output: Output,
    /// Tokens that end a text.
    pub stops: Vec<u32>,
    pub manifest: Model<Shape>,
    pub train: Examples,
    pub eval: Option<Evaluation<B>>,
    pub following: Option<Following<B>>,
    pub engine: Engine<'a, B>,
    pub weights: Model<Real<B>>,
    pub grads: Model<Acc<B>>,
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
    pub fn go(mut self) -> Result<Outcome, Error> {
        let total = self.plan.visits.total;
        let first = self.state.step;
        let mut progress = Progress::new("training", "steps", first, total);
        let started = Instant::now();
        let mut last = Vec::new();
        let mut order = EpochOrder::default();
        let mut samples = 0;
        let mut seconds_of_steps = Vec::new();
        while self.state.step < total {
            if signal::interrupted() {
                drop(progress);
                return self.interrupted();
            }
            let batch = order.batch(&self.plan.visits, self.state.step);
            let begun = Instant::now();
            let (metrics, norm, rate) = self.step(&batch)?;
            seconds_of_steps.push(begun.elapsed().as_secs_f64());
            samples += batch.len();
            progress.step(batch.len() as u64, metrics.loss);
            self.remember(&metrics);
            let step = self.state.step;
            if due(step, self.plan.logging_steps) || step == total {
                last = self.log(norm, rate)?;
                let shown: Vec<(&str, f64)> =
                    last.iter().map(|(k, v)| (k.as_str(), *v)).filter(|(k, _)| shown(k)).collect();
                progress.logged(&shown);
            }
            if self.eval.is_some() && (due(step, self.plan.eval_steps) || step == total) {
                last = match self.evaluate(&mut progress) {
                    Ok(last) => last,
                    // What was trained is not lost with what could not be evaluated.
                    Err(e) if self.saved == Some(step) || self.save().is_ok() => {
                        let saved = self.output.checkpoints.folder(step);
                        return Err(Error::new(format!("{e}; {} is saved", saved.display())));
                    }
                    Err(e) => return Err(e),
                };
            }
            if self.plan.save_steps.is_some_and(|every| due(step, every)) {
                self.save()?;
            }
        }
        drop(progress);
        let seconds = started.elapsed().as_secs_f64();
        let results = self.results(samples, seconds, &seconds_of_steps);
        match self.plan.save_steps {
            Some(_) if self.saved != Some(total) => self.save()?,
            Some(_) => self.output.checkpoints.tidy(total),
            None => self.check_finite()?,
        }
        self.output.finish(self.engine.b, &self.engine.model, &self.weights, &self.stops, &results)?;
        Ok(Outcome::Done { last, seconds })
    }

    /// Speed of this process's part of the run, by the names of Hugging Face's trainer and its scripts, with the
    /// seconds of the reference pass and of every step, and what the device says of its memory.
    fn results(&self, samples: usize, seconds: f64, seconds_of_steps: &[f64]) -> Value {
        let mut results = json!({
            "train_runtime": seconds,
            "train_samples": samples,
            "train_samples_per_second": samples as f64 / seconds.max(f64::MIN_POSITIVE),
            "train_steps_per_second": seconds_of_steps.len() as f64 / seconds.max(f64::MIN_POSITIVE),
            "reference_runtime": self.train.reference_runtime(),
            "step_seconds": seconds_of_steps,
        });
        if let Some(peak) = self.engine.b.memory().peak {
            results["peak_device_bytes"] = json!(peak);
        }
        results
    }

    /// The gradients of the loss of the groups `batch`, and its metrics.
    fn gradients(&mut self, batch: &[u32]) -> Result<Metrics, Error> {
        let b = self.engine.b;
        for g in self.grads.iter_mut() {
            b.zero(g);
        }
        if let Some(following) = &self.following {
            self.train.ask(&mut self.engine, &following.weights, batch)?;
        }
        let (objective, train) = (&self.plan.objective, &self.train);
        let mut totals = train.totals(&mut self.engine, &self.weights, objective, batch)?;
        let mut metrics = Metrics::default();
        // A loss that compares responses of different prompts has every derivative before the first gradient.
        let mut known = Vec::new();
        if objective.needs().batch {
            let stats = self.engine.score(&self.weights, &train.ds, batch, |_| true)?;
            let scored = train.scored(objective, batch, &stats);
            if objective.needs().mean_reward {
                totals.mean_reward = self.state.rewards.add(&objective.rewards(&scored));
            }
            known = objective.slopes(&scored, totals, &mut metrics);
        }
        let pairs = objective.on_device(totals).filter(|_| self.engine.takes_pairs(&train.ds, batch));
        if let Some(pairs) = pairs {
            // Every gradient is on its way before the host is told anything.
            let (weights, grads) = (&self.weights, &mut self.grads);
            let known = |i| train.known(i);
            let stats = self.engine.accumulate_pairs(weights, grads, &train.ds, batch, &pairs, known)?;
            for group in train.scored(objective, batch, &stats) {
                objective.slopes(&[group], totals, &mut metrics);
            }
        } else {
            let mut at = 0;
            let of_group = |group: usize, stats: &[ResponseStats], slopes: &mut [f64]| {
                if known.is_empty() {
                    slopes.copy_from_slice(&train.slopes(
                        objective,
                        &[group as u32],
                        stats,
                        totals,
                        &mut metrics,
                    ));
                } else {
                    slopes.copy_from_slice(&known[at..at + stats.len()]);
                    at += stats.len();
                }
            };
            self.engine.accumulate(&self.weights, &mut self.grads, &train.ds, batch, of_group)?;
        }
        objective.conclude(totals, &mut metrics);
        Ok(metrics)
    }

    /// One optimizer step on the groups `batch`.
    fn step(&mut self, batch: &[u32]) -> Result<(Metrics, f64, f64), Error> {
        let b = self.engine.b;
        let metrics = self.gradients(batch)?;
        let squares = b.square_sums(&self.grads.iter())?;
        let norm = squares.iter().sum::<f64>().sqrt();
        if !norm.is_finite() || !metrics.loss.is_finite() {
            return Err(self.diverged(metrics.loss, &squares, batch));
        }
        let rate = self.plan.schedule.rate(self.state.step);
        let scale = clip_scale(norm, self.plan.max_grad_norm);
        self.optimizer.step(b, self.weights.iter_mut(), self.grads.iter(), rate, scale);
        self.engine.take_back(&mut self.grads);
        self.state.step += 1;
        if let Some(following) = self.following.as_mut().filter(|f| f.moves_after(self.state.step)) {
            following.follow(b, &self.weights)?;
            self.train.forget();
            self.eval.iter_mut().for_each(|eval| eval.examples.forget());
        }
        let counted = |&i: &u32| {
            let g = self.train.ds.group(i as usize);
            g.responses().map(|r| g.prompt.len() + r.len()).sum::<usize>() as u64
        };
        self.state.num_tokens += batch.iter().map(counted).sum::<u64>();
        Ok((metrics, norm, rate))
    }

    fn diverged(&self, loss: f64, squares: &[f64], batch: &[u32]) -> Error {
        let bad = squares.iter().position(|s| !s.is_finite());
        let tensor = bad.map_or("no tensor", |i| self.manifest.iter()[i].pieces[0].name.as_str());
        let rows: Vec<String> =
            batch.iter().map(|&i| self.train.ds.group(i as usize).row.to_string()).collect();
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

    fn evaluate(&mut self, progress: &mut Progress) -> Result<Vec<(String, f64)>, Error> {
        let Some(eval) = &mut self.eval else { return Ok(Vec::new()) };
        let bar = progress.sub("evaluating", "groups", eval.examples.ds.len() as u64);
        let following = self.following.as_ref();
        let mean_reward = self.state.rewards.mean();
        let objective = &self.plan.objective;
        let scored = eval.score(&mut self.engine, &self.weights, following, objective, mean_reward, bar)?;
        // After Ctrl-C: the loop saves next.
        let Some(mut all) = scored else { return Ok(Vec::new()) };
        let step = self.state.step;
        if let Some(samples) = &self.plan.samples {
            let (engine, weights, output) = (&self.engine, &self.weights, &self.output);
            let kl = eval.draw(samples, engine, weights, following, step, output)?;
            // KTO's estimate is of responses to other prompts, and has the name already.
            let taken = all.iter().any(|(name, _)| name == "eval_kl");
            let name = if taken { "eval_sample_kl" } else { "eval_kl" };
            all.extend(kl.map(|kl| (name.to_string(), kl)));
        }
        let mut record: Vec<(&str, Value)> = all.iter().map(|(k, v)| (k.as_str(), json!(v))).collect();
        record.push(("epoch", json!(self.plan.visits.epoch(step))));
        self.writer.write(step, &record)?;
        let shown: Vec<String> = all
            .iter()
            .filter(|(k, _)| shown(k.trim_start_matches("eval_")))
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

    fn save(&mut self) -> Result<(), Error> {
        self.check_finite()?;
        let moved = self.following.as_ref().filter(|f| self.state.step >= f.every);
        let content = Content {
            model: &self.engine.model,
            weights: &self.weights,
            reference: moved.map(|f| &f.weights),
            stops: &self.stops,
            optimizer: &self.optimizer,
            state: &self.state,
        };
        self.output.checkpoints.save(self.engine.b, &content)?;
        self.saved = Some(self.state.step);
        Ok(())
    }

    fn interrupted(mut self) -> Result<Outcome, Error> {
        if self.saved != Some(self.state.step) {
            self.save()?;
        }
        let checkpoint = self.output.checkpoints.folder(self.state.step);
        Ok(Outcome::Interrupted { checkpoint })
    }
}

fn due(step: u64, every: u64) -> bool {
    every > 0 && step.is_multiple_of(every)
}

/// Metrics that fit a line.
fn shown(name: &str) -> bool {
    [
        "loss",
        "grad_norm",
        "rewards/accuracies",
        "rewards/margins",
        "mean_token_accuracy",
        "kl",
        "accuracy",
        "margin",
    ]
    .contains(&name)
}
