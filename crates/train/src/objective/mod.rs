//! What a run trains for: the loss of its batches, and the metrics that go with it.

mod metrics;
mod report;
mod scored;

pub use metrics::Metrics;
pub use scored::{Scored, margin};

use crate::config::{Config, DivergenceType, IpoReduction, Method};
use duel_backend::PairObjective;
use duel_data::Dataset;
use duel_loss::{Divergence, Group, Needs, Score, Settings, Totals, word};
use report::Report;

/// The objective of a run.
#[derive(Clone, Debug)]
pub struct Objective {
    loss: duel_loss::Objective,
    report: Report,
}

impl Objective {
    /// The objective that a configuration asks for.
    pub fn of(c: &Config) -> Self {
        let (loss, report) = match c.method {
            Method::Sft => (duel_loss::Objective::cross_entropy(), Report::Texts),
            Method::Cpo => {
                let loss = losses(c).and_cross_entropy(c.cpo_alpha);
                (loss, if c.cpo_alpha > 0.0 { Report::Contrast } else { Report::Pairs { rewards: true } })
            }
            Method::Orpo => (losses(c).and_language_model(1.0), Report::Odds),
            Method::Kto => (losses(c), Report::Singles),
            Method::Reward => (losses(c).and_centring(c.center_rewards_coefficient), Report::Values),
            // What learns from samples token by token has no loss here, and no pairs of which anything could be said.
            _ => {
                let loss = losses(c);
                let rewards = loss.needs().reference;
                (loss, Report::Pairs { rewards })
            }
        };
        let loss = if c.method.has_reference() { loss } else { loss.without_reference() };
        Objective { loss, report }
    }

    /// What it has to be given.
    pub fn needs(&self) -> Needs {
        self.loss.needs()
    }

    /// The objective as a device makes it, where it can: see [`duel_loss::Objective::on_device`].
    pub fn on_device(&self, totals: Totals) -> Option<PairObjective<'_>> {
        self.loss.on_device(totals)
    }

    /// What is known of a batch before it is scored: what its means are over.
    pub fn totals(&self, ds: &Dataset, indices: &[u32]) -> Totals {
        let mut totals = Totals::default();
        for &i in indices {
            let group = ds.group(i as usize);
            let prompt = group.prompt.len().saturating_sub(1);
            totals.add(group.responses().len(), group.scored_of_best(), prompt);
            totals.pairs -= group.labels().ties();
        }
        totals
    }

    /// The rewards of every response of `groups`.
    pub fn rewards(&self, groups: &[Scored<'_>]) -> Vec<f64> {
        let reward = |score: &Score| self.loss.worth(*score).1;
        groups.iter().flat_map(|g| self.scores(g).iter().map(reward).collect::<Vec<_>>()).collect()
    }

    fn scores(&self, group: &Scored<'_>) -> Vec<Score> {
        group.scores(self.report == Report::Values)
    }

    /// The share of `groups` in the loss of a batch of `totals`, and their metrics, added to `metrics`; returns the
    /// derivatives by each response's summed log-probability or value. All groups of the batch at once where
    /// [`Objective::needs`] asks for that.
    pub fn slopes(&self, groups: &[Scored<'_>], totals: Totals, metrics: &mut Metrics) -> Vec<f64> {
        let prompts = self.needs().prompt;
        let scores: Vec<Vec<Score>> = groups.iter().map(|group| self.scores(group)).collect();
        let taken: Vec<Group<'_>> =
            groups.iter().zip(&scores).map(|(group, scores)| group.group(scores, prompts)).collect();
        let mut slopes = vec![0.0; scores.iter().map(Vec::len).sum()];
        metrics.loss += self.loss.slopes(&taken, totals, &mut slopes);
        for (group, taken) in groups.iter().zip(&taken) {
            self.report.add(group, taken, &self.loss, metrics);
        }
        slopes
    }

    /// Metrics of a whole batch, after those of all its groups.
    pub fn conclude(&self, totals: Totals, metrics: &mut Metrics) {
        if self.needs().kl {
            metrics.mean("kl", totals.kl);
        }
        let of = |name| metrics.mean_of(name);
        if let (Report::Singles, Some(w), Some(l)) =
            (self.report, of("rewards/chosen"), of("rewards/rejected"))
        {
            metrics.mean("rewards/margins", w - l);
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
        use_weighting: c.use_weighting,
        simpo_gamma: c.simpo_gamma,
        alpha: c.alpha,
        unlikelihood_alpha: c.unlikelihood_alpha,
        desirable_weight: c.desirable_weight,
        undesirable_weight: c.undesirable_weight,
    };
    let weight = |i: usize| c.loss_weights.as_ref().map_or(1.0, |weights| weights.0[i]);
    let named = c.loss_type.0.iter().enumerate().filter_map(|(i, name)| Some((weight(i), word(name)?)));
    duel_loss::Objective::new(named.collect(), settings)
}
