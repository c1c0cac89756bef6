//! What a run trains for: the loss of a group, and the metrics that go with it.

use crate::config::{Config, IpoReduction, LossType, Method};
use duel_data::Dataset;
use duel_loss::{Preference, ResponseStats, Score};
use std::collections::BTreeMap;

/// The objective of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Objective {
    /// Cross entropy, the mean over the batch's scored tokens.
    Sft,
    /// A preference loss, the mean over the batch's pairs. A group of K ranked responses has K(K-1)/2 pairs.
    Preference {
        /// The pair loss.
        loss: Preference,
        /// Its strength.
        beta: f64,
    },
}

impl Objective {
    /// The objective that a configuration asks for.
    pub fn of(c: &Config) -> Self {
        match c.method {
            Method::Sft => Objective::Sft,
            Method::Dpo => Objective::Preference {
                beta: c.beta,
                loss: match c.loss_type {
                    LossType::Sigmoid => Preference::Sigmoid { label_smoothing: c.label_smoothing },
                    LossType::Ipo => Preference::Ipo { per_token: c.ipo_reduction == IpoReduction::Mean },
                    LossType::Hinge => Preference::Hinge,
                },
            },
        }
    }

    /// What the batch's loss is a mean over: scored tokens or pairs.
    pub fn weight(&self, ds: &Dataset, indices: &[u32]) -> f64 {
        let group = |&i: &u32| {
            let g = ds.group(i as usize);
            match self {
                Objective::Sft => g.scored() as f64,
                Objective::Preference { .. } => {
                    let k = g.responses().len();
                    (k * (k - 1) / 2) as f64
                }
            }
        };
        indices.iter().map(group).sum::<f64>().max(1.0)
    }

    /// Loss and metrics of one group, added to `metrics`; with `coefs` also the derivatives by each response's
    /// summed log-probability. `weight` is that of the whole batch.
    pub fn group(
        &self,
        weight: f64,
        responses: &[ResponseStats],
        reference: &[f64],
        metrics: &mut Metrics,
        coefs: Option<&mut [f64]>,
    ) {
        let mut slopes = vec![0.0; responses.len()];
        match *self {
            Objective::Sft => {
                for (r, slope) in responses.iter().zip(&mut slopes) {
                    metrics.loss -= r.logp / weight;
                    *slope = -1.0 / weight;
                }
            }
            Objective::Preference { loss, beta } => {
                let score = |i: usize| Score {
                    logp: responses[i].logp,
                    reference: reference[i],
                    tokens: responses[i].tokens,
                };
                for chosen in 0..responses.len() {
                    for rejected in chosen + 1..responses.len() {
                        let (w, l) = (score(chosen), score(rejected));
                        let pair = loss.pair(beta, w, l);
                        metrics.loss += pair.value / weight;
                        slopes[chosen] += pair.d_chosen / weight;
                        slopes[rejected] += pair.d_rejected / weight;
                        let (rw, rl) = (beta * w.log_ratio(), beta * l.log_ratio());
                        metrics.mean("rewards/chosen", rw, 1.0);
                        metrics.mean("rewards/rejected", rl, 1.0);
                        metrics.mean("rewards/accuracies", f64::from(u8::from(rw > rl)), 1.0);
                        metrics.mean("rewards/margins", rw - rl, 1.0);
                        metrics.mean("logps/chosen", w.logp, 1.0);
                        metrics.mean("logps/rejected", l.logp, 1.0);
                        let logits = |i: usize| (responses[i].mean_logit, responses[i].tokens as f64);
                        metrics.sum("logits/chosen", logits(chosen));
                        metrics.sum("logits/rejected", logits(rejected));
                    }
                }
            }
        }
        for r in responses {
            metrics.sum("entropy", (r.entropy, r.tokens as f64));
        }
        // As TRL has it: how well the policy predicts the response that is preferred.
        if let Some(best) = responses.first() {
            metrics.sum("mean_token_accuracy", (best.hits, best.tokens as f64));
        }
        if let Some(coefs) = coefs {
            coefs.copy_from_slice(&slopes);
        }
    }
}

/// Loss and weighted means over a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    /// The batch's loss.
    pub loss: f64,
    sums: BTreeMap<&'static str, (f64, f64)>,
}

impl Metrics {
    fn mean(&mut self, name: &'static str, value: f64, weight: f64) {
        self.sum(name, (value * weight, weight));
    }

    fn sum(&mut self, name: &'static str, (value, weight): (f64, f64)) {
        let s = self.sums.entry(name).or_default();
        s.0 += value;
        s.1 += weight;
    }

    /// Every metric by name, the loss first.
    pub fn values(&self) -> Vec<(String, f64)> {
        let means = self.sums.iter().map(|(name, (sum, weight))| (name.to_string(), sum / weight.max(1.0)));
        std::iter::once(("loss".to_string(), self.loss)).chain(means).collect()
    }
}
