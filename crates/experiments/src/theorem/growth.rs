//! How the policy nears the optimum as the data grows.

use super::answers::{Judge, Question, drawn};
use super::counted::{Counted, ending, loss, number};
use super::law::{Table, kl};
use super::prediction::Prediction;
use super::tabular::most_likely;
use crate::study::Study;
use duel_backend::Backend;
use duel_loss::Settings;
use duel_stats::slope;
use duel_train::Error;
use serde_json::{Value, json};

/// Up to this predicted KL, in nats, first order is taken to be all there is.
const SMALL: f64 = 0.05;

/// Answers to questions, more and more of them.
pub(super) struct Growth<'a> {
    pub name: &'static str,
    pub loss: &'static str,
    pub questions: Vec<Question>,
    pub sizes: &'a [usize],
    pub seeds: u64,
    pub replicas: u64,
}

/// What became of it.
pub(super) struct Grown {
    pub name: &'static str,
    pub prediction: Prediction,
    pub rows: Vec<Row>,
}

/// What so many answers say.
pub(super) struct Row {
    pub n: usize,
    /// What each transformer learned.
    pub learned: Vec<Learned>,
    /// KL and largest error of the implied reward of tabular optima.
    pub exact: Vec<(f64, f64)>,
    /// Draws of the answers that have no optimum.
    pub none: u64,
}

/// What a transformer learned.
pub(super) struct Learned {
    /// `KL(policy || optimum)`.
    pub kl: f64,
    /// Largest error of its implied reward.
    pub error: f64,
    /// `KL(policy || tabular optimum of the same answers)`; no number where there is none.
    pub behind: f64,
}

/// How the KL goes with n, each number with its standard deviation by the prediction.
pub(super) struct Fit {
    /// Of a line through the logarithms of KL and n; none of a single n.
    pub slope: Option<(f64, f64)>,
    /// The mean of the KL over what is predicted.
    pub ratio: (f64, f64),
}

impl Growth<'_> {
    pub(super) fn study<B: Backend>(
        &self,
        study: &mut Study,
        of: &mut Counted<'_, B>,
        steps: u64,
    ) -> Result<Grown, Error> {
        let name = self.name;
        let prediction = Prediction::of(&self.questions, &of.aim)
            .ok_or_else(|| Error::new(format!("the {name} do not hang together")))?;
        let mut rows = Vec::new();
        for &n in self.sizes {
            duel_train::say!("{n} {name}");
            let exact = study.point(&format!("{name}/{n}/exact"), || Ok(self.exact(of, n)))?;
            let numbers = |name: &str| exact[name].as_array().into_iter().flatten().filter_map(Value::as_f64);
            let mut row = Row {
                n,
                learned: Vec::new(),
                exact: numbers("kl").zip(numbers("deviation")).collect(),
                none: exact["none"].as_u64().unwrap_or(0),
            };
            for draw in 0..self.seeds {
                let found =
                    study.point(&format!("{name}/{n}/{draw}"), || self.learned(of, n, draw, steps))?;
                row.learned.push(Learned {
                    kl: number(&found, "kl"),
                    error: number(&found, "deviation"),
                    behind: number(&found, "behind"),
                });
            }
            rows.push(row);
        }
        Ok(Grown { name, prediction, rows })
    }

    /// The log-ratios at the optimum of the loss of drawn answers.
    fn optimum<B: Backend>(&self, of: &Counted<'_, B>, n: usize, draw: u64) -> Option<Table> {
        let answers = drawn(&self.questions, &of.aim.reward, Judge::Draws, n, of.seed_of(n, draw));
        let worth = most_likely(&answers, of.language.prompts(), of.language.responses())?;
        Some(worth.into_iter().map(|row| row.into_iter().map(|r| r / of.aim.beta).collect()).collect())
    }

    fn exact<B: Backend>(&self, of: &Counted<'_, B>, n: usize) -> Value {
        let all: Vec<_> = (0..self.replicas).map(|draw| self.optimum(of, n, draw)).collect();
        let found: Vec<_> = all.iter().flatten().map(|ratios| of.aim.distance(&of.policy(ratios))).collect();
        json!({
            "kl": found.iter().map(|d| d.kl).collect::<Vec<_>>(),
            "deviation": found.iter().map(|d| d.deviation).collect::<Vec<_>>(),
            "none": all.len() - found.len(),
        })
    }

    fn learned<B: Backend>(
        &self,
        of: &mut Counted<'_, B>,
        n: usize,
        draw: u64,
        steps: u64,
    ) -> Result<Value, Error> {
        let best = self.optimum(of, n, draw).map(|ratios| of.policy(&ratios));
        let answers = drawn(&self.questions, &of.aim.reward, Judge::Draws, n, of.seed_of(n, draw));
        let loss = loss(self.loss, Settings { beta: of.aim.beta, ..Settings::default() });
        let mut found = Value::Null;
        let aim = &of.aim;
        of.learner.learn(&answers, &loss, ending(steps), |now| {
            if now.step == steps {
                let mut entry = aim.distance(now.policy).json();
                entry.insert("gradient".into(), json!(now.gradient));
                entry.insert("behind".into(), json!(best.as_ref().map(|best| kl(now.policy, best))));
                found = Value::Object(entry);
            }
        })?;
        Ok(found)
    }
}

impl Grown {
    /// The fit of what transformers learned, where the prediction is small.
    pub(super) fn learned(&self) -> Option<Fit> {
        self.fit(|row| row.learned.iter().map(|l| l.kl).collect())
    }

    /// The fit of tabular optima there.
    pub(super) fn exact(&self) -> Option<Fit> {
        self.fit(|row| row.exact.iter().map(|e| e.0).collect())
    }

    fn fit(&self, of: impl Fn(&Row) -> Vec<f64>) -> Option<Fit> {
        let small = |row: &&Row| self.prediction.kl / row.n as f64 <= SMALL;
        let point = |row: &Row| of(row).into_iter().map(move |kl| (row.n as f64, kl)).collect::<Vec<_>>();
        let points: Vec<(f64, f64)> = self.rows.iter().filter(small).flat_map(point).collect();
        if points.is_empty() {
            return None;
        }
        let count = points.len() as f64;
        let relative = self.prediction.kl_deviation / self.prediction.kl;
        let ratio = points.iter().map(|p| p.1 * p.0 / self.prediction.kl).sum::<f64>() / count;
        // Of the logarithm of a gamma variable with this mean and deviation, which such sums of squares nearly are.
        let of_logarithm = (relative.powi(2) + relative.powi(4) / 2.0).sqrt();
        let logarithms: Vec<(f64, f64)> = points.iter().map(|p| (p.0.ln(), p.1.ln())).collect();
        Some(Fit {
            slope: slope(&logarithms).map(|s| (s.value, of_logarithm * s.deviation)),
            ratio: (ratio, relative / count.sqrt()),
        })
    }
}
