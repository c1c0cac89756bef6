//! A transformer that learns from answers: duel's own model, losses and optimizer.

use super::answers::Answer;
use super::language::Language;
use super::law::{Table, normal};
use crate::gaussian::gaussian;
use duel_backend::{Acc, Backend, Real};
use duel_data::Dataset;
use duel_loss::{Group, Objective, ResponseStats, Totals};
use duel_model::{Config, Keep, Model};
use duel_optim::{Algorithm, Optimizer, Schedule};
use duel_train::engine::{Engine, Room};
use duel_train::{Error, signal};
use serde_json::json;

const ADAMW: Algorithm = Algorithm::AdamW { beta1: 0.9, beta2: 0.99, eps: 1e-12, weight_decay: 0.0 };

/// A model of a language, and what is trained of it.
pub struct Learner<'b, B: Backend> {
    engine: Engine<'b, B>,
    manifest: Model<duel_model::Shape>,
    dataset: Dataset,
    before: Model<Real<B>>,
    weights: Model<Real<B>>,
    gradients: Model<Acc<B>>,
    /// What the model says before it learns.
    pub reference: Table,
}

/// What a step leaves to be seen.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Steps done.
    pub step: u64,
    /// What the model says after so many.
    pub policy: &'a Table,
    /// Norm of the gradient there.
    pub gradient: f64,
}

impl<'b, B: Backend> Learner<'b, B> {
    /// A model with fresh weights, which has preferences of its own before it learns any.
    ///
    /// # Errors
    /// The device has no room.
    pub fn new(b: &'b B, language: &Language, seed: u64) -> Result<Self, Error> {
        // Learned positions: with rotary ones a model cannot count letters that are all the same.
        let json = json!({
            "model_type": "gpt2", "vocab_size": language.vocabulary(), "n_embd": 32, "n_inner": 64, "n_layer": 2,
            "n_head": 2, "n_positions": language.longest(), "initializer_range": 0.1, "tie_word_embeddings": false
        });
        let config = Config::from_json(json.as_object().cloned().unwrap_or_default()).map_err(Error::new)?;
        let dataset = language.dataset()?;
        let room = Room::plan(b, &dataset, dataset.len(), 0, config.vocab);
        let mut rng = fastrand::Rng::with_seed(seed);
        let manifest = Model::manifest(&config);
        let before = manifest.init(b, &config, || gaussian(&mut rng))?;
        let mut learner = Learner {
            engine: Engine::new(b, &config, room, Keep::All)?,
            weights: manifest.alloc::<B, B::Real>(b)?,
            gradients: manifest.gradients(b, Keep::All)?,
            manifest,
            dataset,
            before,
            reference: Table::new(),
        };
        learner.start_over();
        learner.reference = learner.says()?;
        Ok(learner)
    }

    /// How many parameters.
    pub fn parameters(&self) -> usize {
        self.manifest.parameters()
    }

    fn start_over(&mut self) {
        let b = self.engine.b;
        let pairs = self.weights.iter_mut().into_iter().zip(self.before.iter());
        pairs.for_each(|(to, from)| b.copy(to, from, b.len(from)));
    }

    fn groups(&self) -> Vec<u32> {
        (0..self.dataset.len() as u32).collect()
    }

    /// The log-probability of every response.
    fn says(&mut self) -> Result<Table, Error> {
        let groups = self.groups();
        let stats = self.engine.score(&self.weights, &self.dataset, &groups, |_| true)?;
        Ok(table(&stats, groups.len()))
    }

    /// Learns the answers from the reference on, all of them in every step; `see` hears of the steps `0..=total`.
    ///
    /// # Errors
    /// The device failed, a gradient is no number, or Ctrl-C.
    pub fn learn(
        &mut self,
        answers: &[Answer],
        loss: &Objective,
        schedule: Schedule,
        mut see: impl FnMut(Seen<'_>),
    ) -> Result<(), Error> {
        let b = self.engine.b;
        self.start_over();
        let shapes = self.manifest.iter().into_iter().map(|s| (s.len(), s.decays()));
        let mut optimizer = Optimizer::<B>::new(b, ADAMW, shapes.collect::<Vec<_>>())?;
        let groups = self.groups();
        let answers: Vec<Vec<&Answer>> =
            (0..groups.len()).map(|p| answers.iter().filter(|a| a.prompt == p).collect()).collect();
        for step in 0..=schedule.total {
            if signal::interrupted() {
                return Err(Error::new("stopped; run the same command to go on"));
            }
            self.gradients.iter_mut().into_iter().for_each(|g| b.zero(g));
            let reference = &self.reference;
            let of_prompt = |prompt: usize, stats: &[ResponseStats], slopes: &mut [f64]| {
                slopes_of(&answers[prompt], loss, &reference[prompt], stats, slopes)
            };
            let (weights, gradients) = (&self.weights, &mut self.gradients);
            let stats = self.engine.accumulate(weights, gradients, &self.dataset, &groups, of_prompt)?;
            let gradient = b.square_sums(&self.gradients.iter())?.iter().sum::<f64>().sqrt();
            if !gradient.is_finite() {
                return Err(Error::new(format!("step {step}: the gradient is no number; give a lower rate")));
            }
            see(Seen { step, policy: &table(&stats, groups.len()), gradient });
            if step < schedule.total {
                let rate = schedule.rate(step);
                optimizer.step(b, self.weights.iter_mut(), self.gradients.iter(), rate, 1.0);
            }
        }
        Ok(())
    }
}

/// The log-probabilities of every response. In float32 they add up to 1 but for its rounding, which would be more than
/// what is measured here.
fn table(stats: &[ResponseStats], prompts: usize) -> Table {
    let row = |row: &[ResponseStats]| normal(row.iter().map(|s| s.logp).collect());
    stats.chunks(stats.len() / prompts).map(row).collect()
}

/// The derivative of the loss of one prompt's answers by each response's log-probability.
fn slopes_of(
    answers: &[&Answer],
    loss: &Objective,
    reference: &[f64],
    stats: &[ResponseStats],
    slopes: &mut [f64],
) {
    slopes.fill(0.0);
    let scores: Vec<_> = stats.iter().zip(reference).map(|(s, f)| s.score(*f)).collect();
    let alone = Totals { groups: 1, pairs: 1, ..Totals::default() };
    let (mut of, mut own) = (Vec::new(), Vec::new());
    for answer in answers {
        of.clear();
        of.extend(answer.order.iter().map(|&i| scores[i]));
        own.resize(of.len(), 0.0);
        loss.slopes(&[Group::ranked(&of)], alone, &mut own);
        answer.order.iter().zip(&own).for_each(|(&i, d)| slopes[i] += answer.share * d);
    }
}
