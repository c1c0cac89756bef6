//! `duel theorem`: what the paper proves, on a language small enough to count.
//!
//! Every response is listed, so the optimum `pi_ref exp(r / beta) / Z` and every distance to it are exact; the policy
//! is a transformer of `duel-model`, trained by the losses of `duel-loss`. Labels are drawn by Bradley and Terry's
//! model of a known reward, or Plackett and Luce's.

pub mod answers;
pub mod best_of;
mod counted;
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
use answers::Judge;
pub use counted::Counted;
use counted::{ending, loss};
use duel_backend::Backend;
use duel_loss::Settings;
use duel_train::Error;
use growth::Growth;
use serde_json::{Map, Value, json};
use std::path::Path;

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

/// DPO on endless data, as it trains: a distance at every fifth step.
fn trace<B: Backend>(study: &mut Study, of: &mut Counted<'_, B>, steps: u64) -> Result<Value, Error> {
    study.point("endless", || {
        let answers = answers::endless(&of.pairs(), &of.aim.reward, Judge::Draws);
        let sigmoid = loss("sigmoid", Settings { beta: of.aim.beta, ..Settings::default() });
        let mut seen = Vec::new();
        let aim = &of.aim;
        of.learner.learn(&answers, &sigmoid, ending(steps), |now| {
            if now.step.is_multiple_of(5) {
                let mut entry = aim.distance(now.policy).json();
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
    duel_train::say!(
        "{} prompts, {} responses each; a transformer of {} parameters",
        counted.language.prompts(),
        counted.language.responses(),
        counted.learner.parameters()
    );
    duel_train::say!("DPO on endless data");
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
