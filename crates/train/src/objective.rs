//! What a run trains for: the loss of its batches, and the metrics that go with it.

use crate::config::{Config, DivergenceType, IpoReduction, Method};
use duel_data::Dataset;
use duel_loss::{Divergence, Group, Needs, ResponseStats, Score, Settings, Totals, word};
use std::collections::BTreeMap;

/// The objective of a run.
#[derive(Clone, Debug)]
pub struct Objective {
    loss: duel_loss::Objective,
    /// Whether responses are compared: then their log-probabilities are metrics.
    compares: bool,
    /// Whether they have rewards, `beta` times their log-ratio.
    rewards: bool,
}

/// A group's responses, best first: what the policy says of them, and the reference's log-probabilities, none where the
/// loss needs none.
pub type Scored<'a> = (&'a [ResponseStats], &'a [f64]);

impl Objective {
    /// The objective that a configuration asks for.
    pub fn of(c: &Config) -> Self {
        match c.method {
            Method::Sft => {
                Objective { loss: duel_loss::Objective::cross_entropy(), compares: false, rewards: false }
            }
            Method::Dpo => {
                let loss = losses(c);
                Objective { rewards: loss.needs().reference, loss, compares: true }
            }
            Method::Cpo => Objective {
                loss: losses(c).and_cross_entropy(c.cpo_alpha).without_reference(),
                compares: true,
                rewards: true,
            },
        }
    }

    /// What it has to be given.
    pub fn needs(&self) -> Needs {
        self.loss.needs()
    }

    /// What the means of a batch are over.
    pub fn totals(&self, ds: &Dataset, indices: &[u32]) -> Totals {
        let mut totals = Totals::default();
        for &i in indices {
            let group = ds.group(i as usize);
            totals.add(group.responses().len(), group.scored_of_best(), 0);
        }
        totals
    }

    /// The share of `groups` in the loss of a batch of `totals`, and their metrics, added to `metrics`; returns the
    /// derivatives by each response's summed log-probability. All groups of the batch at once where
    /// [`Objective::needs`] asks for that.
    pub fn slopes(&self, groups: &[Scored<'_>], totals: Totals, metrics: &mut Metrics) -> Vec<f64> {
        let scores: Vec<Vec<Score>> = groups.iter().map(|group| scores(*group)).collect();
        let borrowed: Vec<Group<'_>> = scores.iter().map(|scores| Group::ranked(scores)).collect();
        let mut slopes = vec![0.0; scores.iter().map(Vec::len).sum()];
        metrics.loss += self.loss.slopes(&borrowed, totals, &mut slopes);
        for ((responses, _), scores) in groups.iter().zip(&scores) {
            if self.compares {
                self.compare(responses, scores, metrics);
            }
            for r in *responses {
                metrics.sum("entropy", (r.entropy, r.tokens as f64));
            }
            // As TRL has it: how well the policy predicts the response that is preferred.
            if let Some(best) = responses.first() {
                metrics.sum("mean_token_accuracy", (best.hits, best.tokens as f64));
            }
        }
        slopes
    }

    /// Metrics of every pair of a ranking.
    fn compare(&self, responses: &[ResponseStats], scores: &[Score], metrics: &mut Metrics) {
        for chosen in 0..responses.len() {
            for rejected in chosen + 1..responses.len() {
                let ((w, rw), (l, rl)) = (self.loss.worth(scores[chosen]), self.loss.worth(scores[rejected]));
                if self.rewards {
                    metrics.mean("rewards/chosen", rw, 1.0);
                    metrics.mean("rewards/rejected", rl, 1.0);
                    metrics.mean("rewards/accuracies", f64::from(u8::from(rw > rl)), 1.0);
                    metrics.mean("rewards/margins", rw - rl, 1.0);
                }
                metrics.mean("logps/chosen", w, 1.0);
                metrics.mean("logps/rejected", l, 1.0);
                let logits = |i: usize| (responses[i].mean_logit, responses[i].tokens as f64);
                metrics.sum("logits/chosen", logits(chosen));
                metrics.sum("logits/rejected", logits(rejected));
            }
        }
    }
}

/// The losses that a configuration names.
fn losses(c: &Config) -> duel_loss::Objective {
    let settings = Settings {
        beta: c.beta,
        label_smoothing: c.label_smoothing,
        ipo_per_token: c.ipo_reduction == IpoReduction::Mean,
        discopop_tau: c.discopop_tau,
        divergence: match c.f_divergence_type {
            DivergenceType::ReverseKl => Divergence::ReverseKl,
            DivergenceType::ForwardKl => Divergence::ForwardKl,
            DivergenceType::Js => Divergence::Js,
            DivergenceType::Alpha => Divergence::Alpha(c.f_alpha_divergence_coef),
        },
        simpo_gamma: c.simpo_gamma,
        alpha: c.alpha,
        unlikelihood_alpha: c.unlikelihood_alpha,
        ..Settings::default()
    };
    let weight = |i: usize| c.loss_weights.as_ref().map_or(1.0, |weights| weights.0[i]);
    let named = c.loss_type.0.iter().enumerate().filter_map(|(i, name)| Some((weight(i), word(name)?)));
    duel_loss::Objective::new(named.collect(), settings)
}

/// The statistics of the responses of the groups `indices`, group by group, with the reference's.
pub fn grouped<'a, 'r: 'a>(
    ds: &Dataset,
    indices: &[u32],
    stats: &'a [ResponseStats],
    of_reference: impl Fn(usize) -> &'r [f64],
) -> Vec<Scored<'a>> {
    let mut rest = stats;
    let group = |&i: &u32| {
        let (own, after) = rest.split_at(ds.group(i as usize).responses().len());
        rest = after;
        (own, of_reference(i as usize))
    };
    indices.iter().map(group).collect()
}

fn scores((responses, reference): Scored<'_>) -> Vec<Score> {
    let of = |i: usize| reference.get(i).copied().unwrap_or(0.0);
    let score = |(i, r): (usize, &ResponseStats)| Score {
        logp: r.logp,
        reference: of(i),
        tokens: r.tokens,
        certainty: r.certainty,
    };
    responses.iter().enumerate().map(score).collect()
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
