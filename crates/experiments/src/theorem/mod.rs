//! `duel theorem`: what the paper proves, on a language small enough to count.
//!
//! Every response is listed, so the optimum `pi_ref exp(r / beta) / Z` and every distance to it are exact; the policy is
//! a transformer of `duel-model`, trained by the losses of `duel-loss`. Labels are drawn by Bradley and Terry's model of
//! a known reward, or Plackett and Luce's.

pub mod answers;
pub mod best_of;
mod growth;
mod labels;
pub mod language;
pub mod law;
pub mod learner;
pub mod prediction;
mod report;
mod square;
pub mod tabular;

use crate::study::Study;
use answers::{Judge, Question};
use duel_backend::Backend;
use duel_loss::{Objective, Settings as LossSettings, word};
use duel_optim::{Schedule, ScheduleKind};
use duel_train::Error;
use growth::Growth;
use language::Language;
use law::{Aim, Distance, Table};
use learner::Learner;
use serde_json::{Map, Value, json};
use std::path::Path;

/// The price of a nat where nothing else is said.
const BETA: f64 = 0.5;

/// Highest rate of training.
const RATE: f64 = 5e-3;

/// How much is studied.
#[derive(Clone, Debug)]
pub struct Extent {
    /// Numbers of labelled pairs.
    pub pairs: Vec<usize>,
    /// Numbers of rankings.
    pub rankings: Vec<usize>,
    /// Transformers that are trained for each.
    pub seeds: u64,
    /// Tabular optima that are computed for each.
    pub replicas: u64,
    /// Steps of a training that ends at its optimum.
    pub steps: u64,
    /// Steps of a training that may have none.
    pub long: u64,
}

impl Extent {
    /// All of it: some minutes.
    pub fn whole() -> Self {
        Extent {
            pairs: vec![100, 1000, 10_000, 100_000, 1_000_000],
            rankings: vec![1000, 10_000, 100_000, 1_000_000],
            seeds: 8,
            replicas: 200,
            steps: 300,
            long: 1000,
        }
    }

    /// Enough to see it: half a minute.
    pub fn quick() -> Self {
        Extent {
            pairs: vec![1000, 10_000, 100_000],
            rankings: vec![10_000],
            seeds: 2,
            replicas: 50,
            steps: 200,
            long: 100,
        }
    }

    fn json(&self) -> Value {
        json!({
            "pairs": self.pairs, "rankings": self.rankings, "seeds": self.seeds, "replicas": self.replicas,
            "steps": self.steps, "long": self.long,
        })
    }
}

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
    fn seed_of(&self, n: usize, draw: u64) -> u64 {
        duel_random::at(&[self.seed, 3, n as u64, draw])
    }

    /// The policy whose implied rewards over `beta` are these log-ratios.
    fn policy(&self, ratios: &Table) -> Table {
        law::tilted(&self.aim.reference, ratios)
    }
}

/// A loss of this name, told this.
fn loss(name: &str, settings: LossSettings) -> Objective {
    let word = word(name).unwrap_or_else(|| panic!("{name} is a loss"));
    Objective::new(vec![(1.0, word)], LossSettings { ipo_per_token: false, ..settings })
}

/// A training that ends at its optimum.
fn ending(steps: u64) -> Schedule {
    Schedule { kind: ScheduleKind::Cosine, peak: RATE, warmup: 10, total: steps }
}

/// A distance as a study keeps it.
fn json_of(d: &Distance) -> Map<String, Value> {
    let entries = [
        ("kl", d.kl),
        ("reverse", d.reverse),
        ("variation", d.variation),
        ("gap", d.gap),
        ("drift", d.drift),
        ("reward", d.reward),
        ("deviation", d.deviation),
    ];
    entries.into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect()
}

/// A number of what a study found; none is no number.
fn number(of: &Value, name: &str) -> f64 {
    of[name].as_f64().unwrap_or(f64::NAN)
}

/// DPO on endless data, as it trains: a distance at every fifth step.
fn trace<B: Backend>(study: &mut Study, of: &mut Counted<'_, B>, steps: u64) -> Result<Value, Error> {
    study.point("endless", || {
        let answers = answers::endless(&of.pairs(), &of.aim.reward, Judge::Draws);
        let sigmoid = loss("sigmoid", LossSettings { beta: of.aim.beta, ..LossSettings::default() });
        let mut seen = Vec::new();
        let aim = &of.aim;
        of.learner.learn(&answers, &sigmoid, ending(steps), |now| {
            if now.step.is_multiple_of(5) {
                let mut entry = json_of(&aim.distance(now.policy));
                entry.insert("step".into(), json!(now.step));
                entry.insert("gradient".into(), json!(now.gradient));
                seen.push(Value::Object(entry));
            }
        })?;
        Ok(Value::Array(seen))
    })
}

/// Studies it all in `dir`, which is gone on with where a killed command left it; prints the tables, and leaves
/// `theorem.md`, `theorem.svg`, `theorem.csv` and `theorem.json` there.
///
/// # Errors
/// The folder is of another study or cannot be written, or Ctrl-C.
pub fn run<B: Backend>(b: &B, dir: &Path, seed: u64, extent: &Extent) -> Result<(), Error> {
    let settings = json!({"study": "theorem", "seed": seed, "device": b.identity(), "extent": extent.json()});
    let mut study = Study::open(dir, settings.as_object().unwrap_or(&Map::new()))?;
    let mut counted = Counted::new(b, seed)?;
    eprintln!(
        "{} prompts, {} responses each; a transformer of {} parameters",
        counted.language.prompts(),
        counted.language.responses(),
        counted.learner.parameters()
    );
    eprintln!("DPO on endless data");
    let trace = trace(&mut study, &mut counted, extent.steps)?;
    let (pairs, rankings) = (counted.pairs(), counted.rankings());
    let kinds = [
        ("pairs", "sigmoid", pairs, &extent.pairs),
        ("rankings", "plackett_luce", rankings, &extent.rankings),
    ];
    let mut growths = Vec::new();
    for (name, loss, questions, sizes) in kinds {
        let growth = Growth { name, loss, questions, sizes, seeds: extent.seeds, replicas: extent.replicas };
        growths.push(growth.study(&mut study, &mut counted, extent.steps)?);
    }
    let cases = labels::study(&mut study, &mut counted, extent.long)?;
    let report = report::Report { aim: &counted.aim, trace, growths, cases };
    report.write(dir, &b.describe(), seed)
}

#[cfg(test)]
mod tests;
