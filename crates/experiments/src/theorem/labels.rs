//! What labels other than Bradley and Terry's do, and what losses make of them.

use super::answers::{Answer, Judge, endless, smoothed};
use super::counted::{BETA, Counted, loss};
use super::law::{Aim, Table};
use super::tabular::{least_squares, most_likely};
use crate::study::Study;
use duel_backend::Backend;
use duel_loss::Settings;
use duel_optim::{Schedule, ScheduleKind};
use duel_train::Error;
use serde_json::{Value, json};

/// The rate of a training that does not end. A larger one throws the policy about once its gradients are small.
const LONG_RATE: f64 = 2e-3;

/// A loss, and labels for it.
pub(super) struct Case {
    pub name: &'static str,
    pub labels: &'static str,
    pub judge: Judge,
    pub loss: &'static str,
    pub beta: f64,
    pub smoothing: f64,
}

/// Who answers without a doubt.
pub(super) const SURE: &str = "the better one always wins";
const DRAWN: &str = "drawn by Bradley-Terry";
const ERRING: &str = "drawn, then 20 % turned round";

const fn case(
    name: &'static str,
    (labels, judge): (&'static str, Judge),
    loss: &'static str,
    beta: f64,
    smoothing: f64,
) -> Case {
    Case { name, labels, judge, loss, beta, smoothing }
}

pub(super) const CASES: [Case; 11] = [
    case("DPO, beta 0.1", (SURE, Judge::IsSure), "sigmoid", 0.1, 0.0),
    case("DPO, beta 0.5", (SURE, Judge::IsSure), "sigmoid", BETA, 0.0),
    case("DPO, beta 2", (SURE, Judge::IsSure), "sigmoid", 2.0, 0.0),
    case("robust, 10 %", (SURE, Judge::IsSure), "robust", BETA, 0.1),
    case("cDPO, 10 %", (SURE, Judge::IsSure), "sigmoid", BETA, 0.1),
    case("IPO", (SURE, Judge::IsSure), "ipo", BETA, 0.0),
    case("DPO", (DRAWN, Judge::Draws), "sigmoid", BETA, 0.0),
    case("IPO", (DRAWN, Judge::Draws), "ipo", BETA, 0.0),
    case("DPO", (ERRING, Judge::Errs(0.2)), "sigmoid", BETA, 0.0),
    case("cDPO, 20 %", (ERRING, Judge::Errs(0.2)), "sigmoid", BETA, 0.2),
    case("robust, 20 %", (ERRING, Judge::Errs(0.2)), "robust", BETA, 0.2),
];

impl Case {
    /// The log-ratios at the optimum of the loss, where it has one.
    fn optimum(&self, answers: &[Answer], prompts: usize, responses: usize) -> Option<Table> {
        let e = self.smoothing;
        let answers = match self.loss {
            "ipo" => return least_squares(answers, self.beta, prompts, responses),
            "robust" => smoothed(answers, (1.0 - e) / (1.0 - 2.0 * e), -e / (1.0 - 2.0 * e)),
            _ => smoothed(answers, 1.0 - e, e),
        };
        let worth = most_likely(&answers, prompts, responses)?;
        Some(worth.into_iter().map(|row| row.into_iter().map(|r| r / self.beta).collect()).collect())
    }

    pub(super) fn learn<B: Backend>(&self, of: &mut Counted<'_, B>, steps: u64) -> Result<Value, Error> {
        let answers = endless(&of.pairs(), &of.aim.reward, self.judge);
        let aim = Aim::new(of.aim.reference.clone(), of.aim.reward.clone(), self.beta);
        let optimum = self.optimum(&answers, of.language.prompts(), of.language.responses());
        let optimum = optimum.map(|ratios| aim.distance(&of.policy(&ratios)).json());
        let settings = Settings { beta: self.beta, label_smoothing: self.smoothing, ..Settings::default() };
        let schedule = Schedule { kind: ScheduleKind::Constant, peak: LONG_RATE, warmup: 10, total: steps };
        let mut seen = Vec::new();
        let mut next = 1;
        of.learner.learn(&answers, &loss(self.loss, settings), schedule, |now| {
            if now.step == 0 || now.step >= next || now.step == steps {
                // As far apart as the eye needs on an axis of ratios.
                next = (now.step + 1).max(now.step * 5 / 4);
                let mut entry = aim.distance(now.policy).json();
                entry.insert("step".into(), json!(now.step));
                entry.insert("best".into(), json!(chance_of_best(now.policy, &aim.reward)));
                seen.push(Value::Object(entry));
            }
        })?;
        Ok(json!({"optimum": optimum, "seen": seen}))
    }
}

/// The chance of the response with the highest reward, the mean over the prompts.
fn chance_of_best(policy: &Table, reward: &Table) -> f64 {
    let best = |row: &Vec<f64>| row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(i, _)| i);
    let of = |(p, r): (&Vec<f64>, &Vec<f64>)| best(r).map_or(0.0, |i| p[i].exp());
    policy.iter().zip(reward).map(of).sum::<f64>() / policy.len() as f64
}

/// What became of each of [`CASES`], in their order.
pub(super) fn study<B: Backend>(
    study: &mut Study,
    of: &mut Counted<'_, B>,
    steps: u64,
) -> Result<Vec<Value>, Error> {
    let mut found = Vec::new();
    for case in &CASES {
        duel_train::say!("{}: {}", case.labels, case.name);
        let key = format!("labels/{}/{}", case.labels, case.name);
        found.push(study.point(&key, || case.learn(of, steps))?);
    }
    Ok(found)
}
