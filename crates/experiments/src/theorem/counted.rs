//! A language with a model of it and a reward: what all parts of the study are about.

use super::answers::{self, Question};
use super::language::Language;
use super::law::{self, Aim, Table};
use super::learner::Learner;
use duel_backend::Backend;
use duel_loss::{Objective, Settings, word};
use duel_optim::{Schedule, ScheduleKind};
use duel_train::Error;
use serde_json::Value;

/// The price of a nat where nothing else is said.
pub(super) const BETA: f64 = 0.5;

/// Highest rate of a training that ends at its optimum.
const RATE: f64 = 5e-3;

/// A language with a model of it, and what its responses are worth.
pub struct Counted<'b, B: Backend> {
    /// What can be said.
    pub language: Language,
    /// Who learns.
    pub learner: Learner<'b, B>,
    /// What is to be learned.
    pub aim: Aim,
    seed: u64,
}

impl<'b, B: Backend> Counted<'b, B> {
    /// Three prompts with the forty responses of up to three of three letters, each with a reward of its own, even
    /// between -1 and 1; all by the seed.
    ///
    /// # Errors
    /// The device has no room.
    pub fn new(b: &'b B, seed: u64) -> Result<Self, Error> {
        let language = Language::new(3, 3, 3);
        let learner = Learner::new(b, &language, duel_random::at(&[seed, 0]))?;
        let mut rng = fastrand::Rng::with_seed(duel_random::at(&[seed, 1]));
        let mut row = || (0..language.responses()).map(|_| 2.0 * rng.f64() - 1.0).collect();
        let reward: Table = (0..language.prompts()).map(|_| row()).collect();
        let aim = Aim::new(learner.reference.clone(), reward, BETA);
        Ok(Counted { language, learner, aim, seed })
    }

    /// Every two responses of each prompt.
    pub fn pairs(&self) -> Vec<Question> {
        answers::pairs(self.language.prompts(), self.language.responses())
    }

    /// Four responses at a time, each response in six questions.
    pub fn rankings(&self) -> Vec<Question> {
        let seed = duel_random::at(&[self.seed, 2]);
        answers::rankings(self.language.prompts(), self.language.responses(), 4, 6, seed)
    }

    /// The seed of labels: of so many, and which of such draws it is.
    pub(super) fn seed_of(&self, n: usize, draw: u64) -> u64 {
        duel_random::at(&[self.seed, 3, n as u64, draw])
    }

    /// The policy whose implied rewards over `beta` are these log-ratios.
    pub(super) fn policy(&self, ratios: &Table) -> Table {
        law::tilted(&self.aim.reference, ratios)
    }
}

/// A loss of this name, told this.
pub(super) fn loss(name: &str, settings: Settings) -> Objective {
    let word = word(name).unwrap_or_else(|| panic!("{name} is a loss"));
    Objective::new(vec![(1.0, word)], Settings { ipo_per_token: false, ..settings })
}

/// A training that ends at its optimum.
pub(super) fn ending(steps: u64) -> Schedule {
    Schedule { kind: ScheduleKind::COSINE, peak: RATE, warmup: 10, total: steps }
}

/// A number of what a study found; none is no number.
pub(super) fn number(of: &Value, name: &str) -> f64 {
    of[name].as_f64().unwrap_or(f64::NAN)
}
