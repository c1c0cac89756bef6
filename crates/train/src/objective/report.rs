//! The metrics of each kind of training, by TRL's names.

use super::metrics::Metrics;
use super::scored::Scored;
use duel_loss::{Group, Objective, ResponseStats, logistic, softplus};

/// What is reported of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// How well responses are predicted.
    Texts,
    /// How responses to a prompt compare, by log-probabilities and, where they have any, by rewards.
    Pairs {
        /// Whether they have rewards, `beta` times their log-ratio.
        rewards: bool,
    },
    /// The same without a reference, with the cross entropy of the best.
    Contrast,
    /// The same by odds, with the cross entropy of the best and of its prompt: ORPO.
    Odds,
    /// Rewards of desirable responses and of others.
    Singles,
    /// How a reward model compares responses.
    Values,
}

impl Report {
    /// Adds the metrics of a group that a loss takes as `taken`.
    pub fn add(self, group: &Scored<'_>, taken: &Group<'_>, loss: &Objective, metrics: &mut Metrics) {
        let responses = taken.responses.len();
        match self {
            Report::Texts => {}
            Report::Pairs { rewards } => pairs(group, taken, loss, rewards, metrics),
            Report::Contrast => {
                pairs(group, taken, loss, true, metrics);
                cross_entropy(&group.stats[..1], metrics);
            }
            Report::Odds => {
                pairs(group, taken, loss, true, metrics);
                cross_entropy(&group.stats[..1], metrics);
                cross_entropy(&group.stats[responses..], metrics);
                for (chosen, rejected) in taken.pairs() {
                    let odds = taken.responses[chosen].log_odds() - taken.responses[rejected].log_odds();
                    metrics.mean("log_odds_chosen", odds);
                    metrics.mean("log_odds_ratio", -softplus(-odds));
                }
            }
            Report::Singles => singles(group, taken, loss, metrics),
            Report::Values => return values(taken, loss, metrics),
        }
        for s in &group.stats[..responses] {
            metrics.sum("entropy", s.entropy, s.tokens as f64);
        }
        // As TRL has it: how well the policy predicts the response that is preferred.
        if let (true, Some(best)) = (self != Report::Singles, group.stats.first()) {
            metrics.sum("mean_token_accuracy", best.hits, best.tokens as f64);
        }
    }
}

/// Metrics of every pair of a ranking.
fn pairs(group: &Scored<'_>, taken: &Group<'_>, loss: &Objective, rewards: bool, metrics: &mut Metrics) {
    for (chosen, rejected) in taken.pairs() {
        let (w, rw) = loss.worth(taken.responses[chosen]);
        let (l, rl) = loss.worth(taken.responses[rejected]);
        if rewards {
            metrics.mean("rewards/chosen", rw);
            metrics.mean("rewards/rejected", rl);
            metrics.mean("rewards/accuracies", f64::from(u8::from(rw > rl)));
            metrics.mean("rewards/margins", rw - rl);
        }
        metrics.mean("logps/chosen", w);
        metrics.mean("logps/rejected", l);
        logits("logits/chosen", &group.stats[chosen], metrics);
        logits("logits/rejected", &group.stats[rejected], metrics);
    }
}

fn singles(group: &Scored<'_>, taken: &Group<'_>, loss: &Objective, metrics: &mut Metrics) {
    let [reward, logp, logit] = match taken.desirable {
        true => ["rewards/chosen", "logps/chosen", "logits/chosen"],
        false => ["rewards/rejected", "logps/rejected", "logits/rejected"],
    };
    for (score, stats) in taken.responses.iter().zip(group.stats) {
        let (worth, beta_u) = loss.worth(*score);
        metrics.mean(reward, beta_u);
        metrics.mean(logp, worth);
        logits(logit, stats, metrics);
    }
}

fn cross_entropy(texts: &[ResponseStats], metrics: &mut Metrics) {
    for s in texts {
        metrics.sum("nll_loss", -s.logp, s.tokens as f64);
    }
}

fn logits(name: &'static str, stats: &ResponseStats, metrics: &mut Metrics) {
    metrics.sum(name, stats.mean_logit, stats.tokens as f64);
}

/// Metrics of every pair of a ranking by its values; how certain a reward model is of a pair is the probability that
/// Bradley and Terry's model, which the loss is of, gives the one that it prefers.
fn values(taken: &Group<'_>, loss: &Objective, metrics: &mut Metrics) {
    for score in taken.responses {
        metrics.least("min_reward", score.logp);
        metrics.mean("mean_reward", score.logp);
        metrics.most("max_reward", score.logp);
    }
    for (chosen, rejected) in taken.pairs() {
        let (chosen, rejected) = (taken.responses[chosen], taken.responses[rejected]);
        let right = chosen.logp > rejected.logp;
        let accuracy = f64::from(u8::from(right));
        metrics.mean("accuracy", accuracy);
        metrics.mean("margin", chosen.logp - rejected.logp);
        let margin = loss.worth(chosen).1 - loss.worth(rejected).1;
        metrics.calibration("calibration_error", logistic(margin.abs()), right);
        match chosen.tokens.cmp(&rejected.tokens) {
            std::cmp::Ordering::Greater => metrics.mean("accuracy_chosen_longer", accuracy),
            std::cmp::Ordering::Less => metrics.mean("accuracy_chosen_shorter", accuracy),
            std::cmp::Ordering::Equal => {}
        }
    }
}
