//! A training run, from a checked configuration to a folder with the trained model.

use crate::Error;
use crate::cache::Cache;
use crate::checkpoint::{self, Checkpoint, State};
use crate::config::{Config, Maybe, Method, Resume, SaveStrategy, Scheduler, TruncationMode};
use crate::engine::{Engine, Room, parameter_bytes};
use crate::metrics::{self, MetricsWriter};
use crate::objective::{Metrics, Objective};
use crate::plot;
use crate::progress::Progress;
use crate::reference::{ModelId, Reference};
use crate::sample::{self, sequence_kl};
use crate::signal;
use duel_backend::{Acc, Backend, Dtype, Element, Real};
use duel_data::{Dataset, Group, Options, Task, Tokenizer, Truncation, order};
use duel_model::{Config as ModelConfig, Folder, Frozen, Keep, Model, Sampling, Shape};
use duel_optim::{Algorithm, Optimizer, Schedule, ScheduleKind, clip_scale};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// All steps are done; the model is in the output folder.
    Done {
        /// Metrics of the last evaluation, or of the last logged step where there is none.
        last: Vec<(String, f64)>,
        /// Seconds from the first step to the last.
        seconds: f64,
    },
    /// Ctrl-C; a checkpoint was written.
    Interrupted {
        /// The checkpoint.
        checkpoint: PathBuf,
    },
}

/// Trains as `config` says.
///
/// # Errors
/// Anything that the user must put right, in one sentence; what was written before stays.
pub fn train<B: Backend>(b: &B, config: &Config) -> Result<Outcome, Error> {
    // What the backend computes in decides the bits, so the run's own configuration names it.
    let config = &Config { bf16: Maybe(Some(B::Real::DTYPE == Dtype::Bf16)), ..config.clone() };
    let resume = checkpoint_to_resume(config)?;
    let checkpoint = resume.as_deref().map(|path| Checkpoint::open(path, config)).transpose()?;
    if checkpoint.is_none() {
        check_output_dir(config)?;
    }
    let folder = Folder::open(&config.model)?;
    folder.notes().iter().for_each(|note| eprintln!("note: {note}"));
    let model = folder.config();
    let tokenizer = Tokenizer::from_dir(&config.model)?;
    let max_length = max_length(config, model);
    let load = |path: &Path| load_data(config, model, &tokenizer, path, max_length);
    let ds = load(&config.dataset)?;
    let eval = config.eval_dataset.0.as_deref().map(load).transpose()?;

    let manifest = Model::manifest(model);
    let plan = |ds: &Dataset, batch| Room::plan(b, ds, batch, config.micro_batch_tokens, model.vocab);
    let train_room = plan(&ds, config.batch_size());
    let room = eval.iter().fold(train_room, |room, e| room.and(plan(e, config.per_device_eval_batch_size)));
    let keep = if config.gradient_checkpointing { Keep::Residuals } else { Keep::All };
    let algorithm = algorithm(config);
    let steps = Steps::of(config, &ds);
    let keep_reference = config.generate_during_eval && config.method == Method::Dpo;
    print_plan::<B>(
        b,
        config,
        model,
        &manifest,
        &ds,
        eval.as_ref(),
        room,
        keep,
        algorithm,
        &steps,
        keep_reference,
    );

    let id = ModelId::of(&config.model)?;
    let content = id.with::<B>(&ds);
    if let Some(c) = checkpoint.as_ref().filter(|c| c.state.content != content) {
        return Err(Error::new(format!(
            "{} was made with other content of {} or {}; bring the files back, or start anew in another output_dir",
            c.path.display(),
            config.model.display(),
            config.dataset.display()
        )));
    }
    let mut weights = duel_model::load(b, &folder)?;
    let mut engine = Engine::new(b, model, room, keep)?;
    let references = match config.method {
        Method::Sft => None,
        Method::Dpo => {
            let mut of = |ds: &Dataset, groups: &[u32]| {
                let cache = Cache::new(&config.cache_dir, &id.on(b, ds));
                Reference::of(&mut engine, &weights, ds, groups, &cache)
            };
            let from = checkpoint.as_ref().map_or(0, |c| c.state.step);
            let trained = of(&ds, &steps.visited(config, ds.len(), from))?;
            let mut evaluated = |eval: &Dataset| of(eval, &steps.evaluated(eval.len(), from));
            Some((trained, eval.as_ref().map(&mut evaluated).transpose()?))
        }
    };
    let reference_weights = if keep_reference { Some(duel_model::load_frozen(b, &folder)?) } else { None };
    let mut grads = manifest.alloc::<B, B::Acc>(b)?;
    let shapes = manifest.iter().into_iter().map(|s| (s.len(), s.decays()));
    let mut optimizer = Optimizer::new(b, algorithm, shapes)?;
    if Optimizer::<B>::needs_masters() {
        optimizer = optimizer.with_masters(duel_model::load_masters(b, &folder)?);
    }
    let mut state = State { content, ..State::default() };
    if let Some(c) = &checkpoint {
        drop(weights); // there may not be room for both
        weights = duel_model::load(b, &c.model_of(model)?)?;
        c.restore(b, &mut optimizer)?;
        state = c.state.clone();
        eprintln!("continuing after step {} of {}", state.step, c.path.display());
    }
    if B::REHEARSES {
        engine.rehearse(&weights, &mut grads, &ds)?;
        if let Some(peak) = b.memory().peak {
            eprintln!(
                "      {:.2} GB were in use at most, the largest micro-batch included",
                peak as f64 / 1e9
            );
        }
    }
    prepare_output_dir(config)?;
    let resumed = checkpoint.as_ref().map(|_| state.step);
    let writer = MetricsWriter::open(&config.output_dir.join("metrics.jsonl"), resumed)?;
    let samples = config.output_dir.join("samples.jsonl");
    if resumed.is_some() && samples.exists() {
        // Those from after the checkpoint are about to be drawn again.
        MetricsWriter::open(&samples, resumed)?;
    }
    let in_place = |c: &Checkpoint| {
        let own = checkpoint::folder(&config.output_dir, c.state.step);
        fs::canonicalize(own).ok() == fs::canonicalize(&c.path).ok()
    };
    let saved = checkpoint.filter(in_place).map(|c| c.state.step);
    let (reference, eval_reference) = references.map_or((None, None), |(r, e)| (Some(r), e));
    Run {
        config,
        objective: Objective::of(config),
        tokenizer,
        manifest,
        ds,
        eval: eval.map(|ds| Eval { ds, reference: eval_reference, reference_weights }),
        reference,
        engine,
        weights,
        grads,
        optimizer,
        schedule: steps.schedule(config),
        steps,
        writer,
        state,
        saved,
    }
    .go()
}

/// What an evaluation needs.
struct Eval<B: Backend> {
    ds: Dataset,
    reference: Option<Reference>,
    /// For the KL of samples; kept only when samples are drawn.
    reference_weights: Option<Frozen<B>>,
}

/// A run whose every buffer is allocated.
struct Run<'a, B: Backend> {
    config: &'a Config,
    objective: Objective,
    tokenizer: Tokenizer,
    manifest: Model<Shape>,
    ds: Dataset,
    eval: Option<Eval<B>>,
    reference: Option<Reference>,
    engine: Engine<'a, B>,
    weights: Model<Real<B>>,
    grads: Model<Acc<B>>,
    optimizer: Optimizer<B>,
    schedule: Schedule,
    steps: Steps,
    writer: MetricsWriter,
    state: State,
    /// Step of the newest checkpoint in the output folder that is this run's. It is never written a second time: while
    /// a checkpoint is replaced, a crash would lose it.
    saved: Option<u64>,
}

impl<B: Backend> Run<'_, B> {
    fn go(mut self) -> Result<Outcome, Error> {
        let total = self.steps.total;
        let first = self.state.step;
        let mut progress = Progress::new("training", "steps", first, total);
        let started = Instant::now();
        let mut last = Vec::new();
        let mut plan = EpochOrder::default();
        let mut samples = 0;
        let mut seconds_of_steps = Vec::new();
        while self.state.step < total {
            if signal::interrupted() {
                drop(progress);
                return self.interrupted();
            }
            let batch = plan.batch(self.config, self.ds.len(), &self.steps, self.state.step);
            let begun = Instant::now();
            let (metrics, norm, rate) = self.step(&batch)?;
            seconds_of_steps.push(begun.elapsed().as_secs_f64());
            samples += batch.len();
            progress.step(batch.len() as u64, metrics.loss);
            self.remember(&metrics);
            let step = self.state.step;
            if due(step, self.config.logging_steps) || step == total {
                last = self.log(norm, rate)?;
                let shown: Vec<(&str, f64)> =
                    last.iter().map(|(k, v)| (k.as_str(), *v)).filter(|(k, _)| shown(k)).collect();
                progress.logged(&shown);
            }
            if self.eval.is_some() && (due(step, self.config.eval_steps) || step == total) {
                last = match self.evaluate(&mut progress) {
                    Ok(last) => last,
                    // What was trained is not lost with what could not be evaluated.
                    Err(e) if self.saved == Some(step) || self.save().is_ok() => {
                        let saved = checkpoint::folder(&self.config.output_dir, step);
                        return Err(Error::new(format!("{e}; {} is saved", saved.display())));
                    }
                    Err(e) => return Err(e),
                };
            }
            if self.config.save_strategy == SaveStrategy::Steps && due(step, self.config.save_steps) {
                self.save()?;
            }
        }
        drop(progress);
        let seconds = started.elapsed().as_secs_f64();
        let results = self.results(samples, seconds, &seconds_of_steps);
        match self.config.save_strategy {
            SaveStrategy::Steps if self.saved != Some(total) => self.save()?,
            SaveStrategy::Steps => {}
            SaveStrategy::No => self.check_finite()?,
        }
        self.finish(&results)?;
        Ok(Outcome::Done { last, seconds })
    }

    /// Speed of this process's part of the run, by the names of Hugging Face's trainer and its scripts, with the seconds
    /// of the reference pass and of every step, and what the device says of its memory.
    fn results(&self, samples: usize, seconds: f64, seconds_of_steps: &[f64]) -> Value {
        let mut results = json!({
            "train_runtime": seconds,
            "train_samples": samples,
            "train_samples_per_second": samples as f64 / seconds.max(f64::MIN_POSITIVE),
            "train_steps_per_second": seconds_of_steps.len() as f64 / seconds.max(f64::MIN_POSITIVE),
            "reference_runtime": self.reference.as_ref().map_or(0.0, |r| r.runtime),
            "step_seconds": seconds_of_steps,
        });
        if let Some(peak) = self.engine.b.memory().peak {
            results["peak_device_bytes"] = json!(peak);
        }
        results
    }

    /// One optimizer step on the groups `batch`.
    fn step(&mut self, batch: &[u32]) -> Result<(Metrics, f64, f64), Error> {
        let b = self.engine.b;
        for g in self.grads.iter_mut() {
            b.zero(g);
        }
        let weight = self.objective.weight(&self.ds, batch);
        let mut metrics = Metrics::default();
        let (objective, reference) = (self.objective, self.reference.as_ref());
        self.engine.accumulate(
            &self.weights,
            &mut self.grads,
            &self.ds,
            batch,
            |group, responses, coefs| {
                let reference = reference.map_or(&[][..], |r| r.group(group));
                objective.group(weight, responses, reference, &mut metrics, Some(coefs));
            },
        )?;
        let squares = b.square_sums(&self.grads.iter())?;
        let norm = squares.iter().sum::<f64>().sqrt();
        if !norm.is_finite() || !metrics.loss.is_finite() {
            return Err(self.diverged(metrics.loss, &squares, batch));
        }
        let rate = self.schedule.rate(self.state.step);
        let scale = clip_scale(norm, self.config.max_grad_norm);
        self.optimizer.step(b, self.weights.iter_mut(), self.grads.iter(), rate, scale);
        self.state.step += 1;
        let counted = |&i: &u32| {
            let g = self.ds.group(i as usize);
            g.responses().map(|r| g.prompt.len() + r.len()).sum::<usize>() as u64
        };
        self.state.num_tokens += batch.iter().map(counted).sum::<u64>();
        Ok((metrics, norm, rate))
    }

    fn diverged(&self, loss: f64, squares: &[f64], batch: &[u32]) -> Error {
        let bad = squares.iter().position(|s| !s.is_finite());
        let tensor = bad.map_or("no tensor", |i| self.manifest.iter()[i].pieces[0].name.as_str());
        let rows: Vec<String> = batch.iter().map(|&i| self.ds.group(i as usize).row.to_string()).collect();
        let kept = checkpoint::list(&self.config.output_dir).pop();
        Error::new(format!(
            "step {}: the loss is {loss} and the first gradient that is not finite is that of `{tensor}` (rows {}); \
             lower learning_rate or max_grad_norm, or look at these rows; {}",
            self.state.step + 1,
            rows.join(", "),
            kept.map_or("no checkpoint was written yet".into(), |(_, p)| format!(
                "{} is from before",
                p.display()
            ))
        ))
    }

    fn remember(&mut self, metrics: &Metrics) {
        let (sums, n) = &mut self.state.window;
        *n += 1;
        for (name, value) in metrics.values() {
            match sums.iter_mut().find(|(k, _)| *k == name) {
                Some((_, sum)) => *sum += value,
                None => sums.push((name, value)),
            }
        }
    }

    /// Writes the means since the last log.
    fn log(&mut self, norm: f64, rate: f64) -> Result<Vec<(String, f64)>, Error> {
        let (sums, n) = std::mem::take(&mut self.state.window);
        let mut all: Vec<(String, f64)> =
            sums.into_iter().map(|(k, sum)| (k, sum / n.max(1) as f64)).collect();
        all.insert(1.min(all.len()), ("grad_norm".into(), norm));
        all.insert(2.min(all.len()), ("learning_rate".into(), rate));
        let mut record: Vec<(&str, Value)> = all.iter().map(|(k, v)| (k.as_str(), json!(v))).collect();
        record.push(("num_tokens", json!(self.state.num_tokens)));
        record.push(("epoch", json!(self.steps.epoch(self.state.step))));
        self.writer.write(self.state.step, &record)?;
        Ok(all)
    }

    fn evaluate(&mut self, progress: &mut Progress) -> Result<Vec<(String, f64)>, Error> {
        let Some(eval) = &self.eval else { return Ok(Vec::new()) };
        let indices: Vec<u32> = (0..eval.ds.len() as u32).collect();
        let weight = self.objective.weight(&eval.ds, &indices);
        let mut bar = progress.sub("evaluating", "groups", eval.ds.len() as u64);
        let stats = self.engine.score(&self.weights, &eval.ds, &indices, |n| {
            bar.advance(n as u64);
            !signal::interrupted()
        })?;
        drop(bar);
        if signal::interrupted() {
            // Half an evaluation is none; the loop saves next.
            return Ok(Vec::new());
        }
        let mut metrics = Metrics::default();
        let mut at = 0;
        for i in 0..eval.ds.len() {
            let k = eval.ds.group(i).responses().len();
            let reference = eval.reference.as_ref().map_or(&[][..], |r| r.group(i));
            self.objective.group(weight, &stats[at..at + k], reference, &mut metrics, None);
            at += k;
        }
        let mut all: Vec<(String, f64)> =
            metrics.values().into_iter().map(|(k, v)| (format!("eval_{k}"), v)).collect();
        if self.config.generate_during_eval {
            all.extend(self.draw_samples(eval)?.map(|kl| ("eval_kl".to_string(), kl)));
        }
        let mut record: Vec<(&str, Value)> = all.iter().map(|(k, v)| (k.as_str(), json!(v))).collect();
        record.push(("epoch", json!(self.steps.epoch(self.state.step))));
        self.writer.write(self.state.step, &record)?;
        let shown: Vec<String> = all
            .iter()
            .filter(|(k, _)| shown(k.trim_start_matches("eval_")))
            .map(|(k, v)| format!("{k} {v:.4}"))
            .collect();
        progress.println(&format!("step {}: {}", self.state.step, shown.join("  ")));
        Ok(all)
    }

    /// Samples for the first evaluation prompts into `samples.jsonl`; their KL where there is a reference.
    fn draw_samples(&self, eval: &Eval<B>) -> Result<Option<f64>, Error> {
        let (b, c) = (self.engine.b, self.config);
        let model = &self.engine.model;
        let prompts: Vec<Vec<u32>> = sampled(&eval.ds, c, model).map(|g| g.prompt.to_vec()).collect();
        if prompts.is_empty() {
            return Ok(None);
        }
        let how = Sampling {
            max_new_tokens: c.max_new_tokens,
            temperature: c.temperature,
            top_k: c.top_k,
            top_p: c.top_p,
            seed: c.seed,
        };
        let samples =
            match sample::sample(b, model, &self.weights, &prompts, how, self.tokenizer.stops(), |_| {}) {
                Err(_) if signal::interrupted() => return Ok(None),
                samples => samples?,
            };
        let mut lines = String::new();
        for (prompt, sample) in prompts.iter().zip(&samples) {
            let text = |ids: &[u32]| self.tokenizer.decode(ids, true);
            let line = json!({"step": self.state.step, "prompt": text(prompt)?, "completion": text(sample)?});
            lines += &format!("{line}\n");
        }
        let path = c.output_dir.join("samples.jsonl");
        let file = fs::OpenOptions::new().create(true).append(true).open(&path);
        file.and_then(|mut f| std::io::Write::write_all(&mut f, lines.as_bytes()))
            .map_err(|e| Error::new(format!("{}: cannot be written: {e}", path.display())))?;
        match &eval.reference_weights {
            Some(reference) => Ok(Some(sequence_kl(b, model, &self.weights, reference, &prompts, &samples)?)),
            None => Ok(None),
        }
    }

    /// Nothing that is saved holds anything but numbers.
    fn check_finite(&self) -> Result<(), Error> {
        if let Some(tensor) = duel_model::first_not_finite(self.engine.b, &self.manifest, &self.weights)? {
            let kept = checkpoint::list(&self.config.output_dir).pop();
            return Err(Error::new(format!(
                "step {} made `{tensor}` not finite, nothing was saved; lower learning_rate; {}",
                self.state.step,
                kept.map_or("no checkpoint was written yet".into(), |(_, p)| format!(
                    "{} is from before",
                    p.display()
                ))
            )));
        }
        Ok(())
    }

    fn save(&mut self) -> Result<(), Error> {
        self.check_finite()?;
        checkpoint::save(
            self.engine.b,
            self.config,
            &self.engine.model,
            &self.weights,
            self.tokenizer.stops(),
            &self.optimizer,
            &self.state,
        )?;
        self.saved = Some(self.state.step);
        Ok(())
    }

    fn interrupted(mut self) -> Result<Outcome, Error> {
        if self.saved != Some(self.state.step) {
            self.save()?;
        }
        let checkpoint = checkpoint::folder(&self.config.output_dir, self.state.step);
        Ok(Outcome::Interrupted { checkpoint })
    }

    /// The trained model as a folder that transformers loads, the plot, and the run's speed.
    fn finish(self, results: &Value) -> Result<(), Error> {
        let out = &self.config.output_dir;
        let staged = out.join(STAGED);
        let failed = |e: std::io::Error| Error::new(format!("{}: {e}", staged.display()));
        if staged.exists() {
            fs::remove_dir_all(&staged).map_err(failed)?;
        }
        fs::create_dir_all(&staged).map_err(failed)?;
        duel_model::save(self.engine.b, &staged, &self.engine.model, &self.weights)?;
        duel_model::copy_companions(&self.config.model, &staged)?;
        duel_model::write_stops(&staged, self.tokenizer.stops())?;
        let old = duel_model::install(&staged, out)?;
        if !old.is_empty() {
            eprintln!("note: {} held a model, which was replaced: {}", out.display(), old.join(", "));
        }
        let speed = out.join("train_results.json");
        fs::write(&speed, format!("{results:#}\n"))
            .map_err(|e| Error::new(format!("{}: cannot be written: {e}", speed.display())))?;
        plot::write_svg(&out.join("metrics.svg"), &metrics::read(&out.join("metrics.jsonl"))?)
    }
}

/// Groups of an evaluation whose prompts are continued.
fn sampled<'d>(ds: &'d Dataset, c: &Config, model: &ModelConfig) -> impl Iterator<Item = Group<'d>> {
    let positions = model.max_positions;
    ds.groups().filter(move |g| (1..positions).contains(&g.prompt.len())).take(c.num_eval_samples)
}

fn due(step: u64, every: u64) -> bool {
    every > 0 && step.is_multiple_of(every)
}

/// Metrics that fit a line.
fn shown(name: &str) -> bool {
    ["loss", "grad_norm", "rewards/accuracies", "rewards/margins", "mean_token_accuracy", "kl"]
        .contains(&name)
}

/// The order of one epoch's groups, kept while it lasts.
#[derive(Default)]
struct EpochOrder {
    epoch: Option<u64>,
    order: Vec<u32>,
}

impl EpochOrder {
    /// The groups of `len` that the step after `step` visits.
    fn batch(&mut self, c: &Config, len: usize, steps: &Steps, step: u64) -> Vec<u32> {
        let (epoch, at) = (step / steps.per_epoch, step % steps.per_epoch);
        if self.epoch != Some(epoch) {
            self.order = order(len, c.seed, epoch, c.shuffle);
            self.epoch = Some(epoch);
        }
        let from = at as usize * c.batch_size();
        self.order[from..len.min(from + c.batch_size())].to_vec()
    }
}

/// How many steps there are.
struct Steps {
    per_epoch: u64,
    total: u64,
}

impl Steps {
    fn of(c: &Config, ds: &Dataset) -> Self {
        let per_epoch = ds.len().div_ceil(c.batch_size()) as u64;
        let total = match u64::try_from(c.max_steps) {
            Ok(steps) => steps,
            Err(_) => ((c.num_train_epochs * per_epoch as f64).ceil() as u64).max(1),
        };
        Steps { per_epoch, total }
    }

    /// The groups of `len` that the steps after step `from` visit, each once, in the order of their first visits.
    fn visited(&self, c: &Config, len: usize, from: u64) -> Vec<u32> {
        let mut plan = EpochOrder::default();
        let mut seen = vec![false; len];
        let mut visited = Vec::new();
        for step in from..self.total {
            let batch = plan.batch(c, len, self, step);
            visited.extend(batch.into_iter().filter(|&i| !std::mem::replace(&mut seen[i as usize], true)));
            if visited.len() == len {
                break;
            }
        }
        visited
    }

    /// The groups of an evaluation set of `len` that are scored after step `from`: all, unless no step is left.
    fn evaluated(&self, len: usize, from: u64) -> Vec<u32> {
        if from < self.total { (0..len as u32).collect() } else { Vec::new() }
    }

    fn epoch(&self, step: u64) -> f64 {
        step as f64 / self.per_epoch as f64
    }

    fn schedule(&self, c: &Config) -> Schedule {
        let warmup = match c.lr_scheduler_type {
            Scheduler::Constant => 0,
            _ if c.warmup_steps > 0 => c.warmup_steps,
            _ => (c.warmup_ratio * self.total as f64).ceil() as u64,
        };
        let kind = match c.lr_scheduler_type {
            Scheduler::Linear => ScheduleKind::Linear,
            Scheduler::Cosine => ScheduleKind::Cosine,
            Scheduler::Constant | Scheduler::ConstantWithWarmup => ScheduleKind::Constant,
        };
        Schedule { kind, peak: c.learning_rate, warmup, total: self.total }
    }
}

fn algorithm(c: &Config) -> Algorithm {
    match c.optim {
        crate::config::Optim::Adamw => Algorithm::AdamW {
            beta1: c.adam_beta1,
            beta2: c.adam_beta2,
            eps: c.adam_epsilon,
            weight_decay: c.weight_decay,
        },
        crate::config::Optim::Rmsprop => {
            Algorithm::Rmsprop { alpha: c.rmsprop_alpha, eps: c.adam_epsilon, weight_decay: c.weight_decay }
        }
    }
}

/// Folder in the output folder where the model is whole before it takes its place.
const STAGED: &str = "model.partial";

fn checkpoint_to_resume(c: &Config) -> Result<Option<PathBuf>, Error> {
    match &c.resume_from_checkpoint {
        Resume::Off => Ok(None),
        Resume::Path(path) => Ok(Some(path.clone())),
        Resume::Newest => match checkpoint::list(&c.output_dir).pop() {
            Some((_, path)) => Ok(Some(path)),
            None => Err(Error::new(format!(
                "{} holds no checkpoint to resume from; leave resume_from_checkpoint out to start",
                c.output_dir.display()
            ))),
        },
    }
}

/// A fresh run needs a folder without a run in it.
fn check_output_dir(c: &Config) -> Result<(), Error> {
    let out = &c.output_dir;
    if fs::canonicalize(out).ok().is_some_and(|o| fs::canonicalize(&c.model).ok() == Some(o)) {
        return Err(Error::new(format!(
            "output_dir {} is the model's own folder; choose another",
            out.display()
        )));
    }
    if let Some(file) = out.ancestors().find(|p| p.exists()).filter(|p| !p.is_dir()) {
        return Err(Error::new(format!(
            "output_dir {} cannot be made: {} is a file; choose another",
            out.display(),
            file.display()
        )));
    }
    let root = fs::canonicalize(out).ok();
    let inside = |path: &Path| {
        root.as_ref().is_some_and(|root| fs::canonicalize(path).is_ok_and(|p| p.starts_with(root)))
    };
    let reads = [Some(&c.model), Some(&c.dataset), c.eval_dataset.0.as_ref()];
    if c.overwrite_output_dir && reads.into_iter().flatten().any(|path| inside(path)) {
        return Err(Error::new(format!(
            "overwrite_output_dir would delete in {}, where the model or a dataset lies; choose another output_dir",
            out.display()
        )));
    }
    let used = ["metrics.jsonl", "samples.jsonl"].iter().any(|name| out.join(name).exists())
        || !checkpoint::list(out).is_empty();
    if used && !c.overwrite_output_dir {
        return Err(Error::new(format!(
            "{} already holds a run; give --resume-from-checkpoint to continue it, --overwrite-output-dir to replace \
             it, or another --output-dir",
            out.display()
        )));
    }
    Ok(())
}

fn prepare_output_dir(c: &Config) -> Result<(), Error> {
    let out = &c.output_dir;
    let failed = |e: std::io::Error| Error::new(format!("{}: cannot be written: {e}", out.display()));
    fs::create_dir_all(out).map_err(failed)?;
    if c.overwrite_output_dir {
        remove_run(out).map_err(failed)?;
        duel_model::remove_model(out)?;
    }
    // Written so that `duel train duel.toml --resume-from-checkpoint` continues.
    let config = Config { overwrite_output_dir: false, resume_from_checkpoint: Resume::Off, ..c.clone() };
    Ok(duel_model::write_synced(&out.join("duel.toml"), config.to_toml()?.as_bytes())?)
}

/// Removes what an earlier run left besides its model, and nothing else.
fn remove_run(out: &Path) -> std::io::Result<()> {
    for (_, old) in checkpoint::list(out) {
        fs::remove_dir_all(old)?;
    }
    for half in checkpoint::half_written(out).into_iter().chain([out.join(STAGED)]) {
        if half.exists() {
            fs::remove_dir_all(half)?;
        }
    }
    let files = ["metrics.jsonl", "metrics.svg", "samples.jsonl", "train_results.json", "duel.toml"];
    for file in files.map(|name| out.join(name)) {
        if file.exists() {
            fs::remove_file(file)?;
        }
    }
    Ok(())
}

/// The configured length, but no longer than the model can go.
fn max_length(c: &Config, model: &ModelConfig) -> usize {
    match c.max_length.0 {
        Some(n) if n <= model.max_positions => n,
        asked => {
            let asked = asked.map_or("none".to_string(), |n| n.to_string());
            eprintln!(
                "max_length {asked} is lowered to {}: the model has no more positions",
                model.max_positions
            );
            model.max_positions
        }
    }
}

fn load_data(
    c: &Config,
    model: &ModelConfig,
    tokenizer: &Tokenizer,
    path: &Path,
    max_length: usize,
) -> Result<Dataset, Error> {
    let options = Options {
        task: if c.method == Method::Sft { Task::Sft } else { Task::Preference },
        max_length: Some(max_length),
        truncation: match c.truncation_mode {
            TruncationMode::KeepStart => Truncation::KeepStart,
            TruncationMode::KeepEnd => Truncation::KeepEnd,
        },
    };
    let mut progress: Option<(Progress, u64)> = None;
    let loaded = Dataset::load_watched(path, tokenizer, &options, &mut |at| {
        let (bar, done) = progress.get_or_insert_with(|| (Progress::reading("tokenising", at.total), 0));
        bar.advance(at.bytes - *done);
        *done = at.bytes;
        !signal::interrupted()
    });
    drop(progress);
    let ds = match loaded {
        Err(_) if signal::interrupted() => {
            return Err(Error::new(format!(
                "stopped while reading {}; nothing was trained yet",
                path.display()
            )));
        }
        loaded => loaded?,
    };
    if ds.max_token() as usize >= model.vocab {
        return Err(Error::new(format!(
            "{}: the tokenizer gives token {}, the model has only {} embeddings; they do not belong together",
            c.model.display(),
            ds.max_token(),
            model.vocab
        )));
    }
    Ok(ds)
}

/// What will happen, before it does.
fn print_plan<B: Backend>(
    b: &B,
    c: &Config,
    model: &ModelConfig,
    manifest: &Model<Shape>,
    ds: &Dataset,
    eval: Option<&Dataset>,
    room: Room,
    keep: Keep,
    algorithm: Algorithm,
    steps: &Steps,
    keep_reference: bool,
) {
    let n = manifest.parameters();
    let bytes = n * parameter_bytes::<B>(algorithm, keep_reference) + Engine::<B>::bytes(model, room, keep);
    eprintln!(
        "model {}: {:.2} M parameters, {:?}, {} layers of width {}",
        c.model.display(),
        n as f64 / 1e6,
        model.family,
        model.layers,
        model.width
    );
    eprintln!("train {}: {}", c.dataset.display(), ds.report());
    if let (Some(path), Some(eval)) = (&c.eval_dataset.0, eval) {
        eprintln!("eval  {}: {}", path.display(), eval.report());
    }
    eprintln!(
        "plan  {} steps of {} groups, micro-batches of up to {} tokens, {:.2} GB to be allocated; {}",
        steps.total,
        c.batch_size(),
        room.rows,
        bytes as f64 / 1e9,
        b.describe()
    );
    if let (true, Some(eval)) = (c.generate_during_eval, eval) {
        let prompts: Vec<usize> = sampled(eval, c, model).map(|g| g.prompt.len()).collect();
        let samples = sample::bytes::<B>(b.portions(), model, &prompts, c.max_new_tokens, keep_reference);
        eprintln!("      up to {:.2} GB more while samples are drawn", samples as f64 / 1e9);
    }
    if let Some(free) = b.memory().free.map(|free| free as f64).filter(|free| bytes as f64 > *free) {
        eprintln!(
            "      only {:.2} GB of memory are free: lower max_length, per_device_train_batch_size or \
             micro_batch_tokens, or set gradient_checkpointing",
            free / 1e9
        );
    }
}
