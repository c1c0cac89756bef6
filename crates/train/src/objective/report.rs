//! The metrics of each kind of training, by TRL's names.

use super::metrics::Metrics;
use super::scored::Scored;
use duel_loss::{Objective, ResponseStats, Score};

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
    /// Adds the metrics of a group, whose responses have these scores.
    pub fn add(self, group: &Scored<'_>, scores: &[Score], loss: &Objective, metrics: &mut Metrics) {
        match self {
            Report::Texts => {}
            Report::Pairs { rewards } => pairs(group, scores, loss, rewards, metrics),
            Report::Contrast => {
                pairs(group, scores, loss, true, metrics);
                cross_entropy(&group.stats[..1], metrics);
            }
            Report::Odds => {
                pairs(group, scores, loss, true, metrics);
                cross_entropy(&group.stats[..1], metrics);
                cross_entropy(&group.stats[scores.len()..], metrics);
                for (w, chosen) in scores.iter().enumerate() {
                    for rejected in &scores[w + 1..] {
                        let odds = chosen.log_odds() - rejected.log_odds();
                        metrics.mean("log_odds_chosen", odds);
                        // ls(odds), without overflow.
                        metrics.mean("log_odds_ratio", odds.min(0.0) - (-odds.abs()).exp().ln_1p());
                    }
                }
            }
            Report::Singles => singles(group, scores, loss, metrics),
            Report::Values => return values(scores, metrics),
        }
        for s in &group.stats[..scores.len()] {
            metrics.sum("entropy", s.entropy, s.tokens as f64);
        }
        // As TRL has it: how well the policy predicts the response that is preferred.
        if let (true, Some(best)) = (self != Report::Singles, group.stats.first()) {
            metrics.sum("mean_token_accuracy", best.hits, best.tokens as f64);
        }
    }
}

/// Metrics of every pair of a ranking.
fn pairs(group: &Scored<'_>, scores: &[Score], loss: &Objective, rewards: bool, metrics: &mut Metrics) {
    for chosen in 0..scores.len() {
        for rejected in chosen + 1..scores.len() {
            let ((w, rw), (l, rl)) = (loss.worth(scores[chosen]), loss.worth(scores[rejected]));
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
}

fn singles(group: &Scored<'_>, scores: &[Score], loss: &Objective, metrics: &mut Metrics) {
    let [reward, logp, logit] = match group.desirable() {
        true => ["rewards/chosen", "logps/chosen", "logits/chosen"],
        false => ["rewards/rejected", "logps/rejected", "logits/rejected"],
    };
    for (score, stats) in scores.iter().zip(group.stats) {
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
/// Bradley and Terry's model gives the one that it prefers.
fn values(scores: &[Score], metrics: &mut Metrics) {
    for score in scores {
        metrics.least("min_reward", score.logp);
        metrics.mean("mean_reward", score.logp);
        metrics.most("max_reward", score.logp);
    }
    for (w, chosen) in scores.iter().enumerate() {
        for rejected in &scores[w + 1..] {
            let margin = chosen.logp - rejected.logp;
            let right = margin > 0.0;
            let accuracy = f64::from(u8::from(right));
            metrics.mean("accuracy", accuracy);
            metrics.mean("margin", margin);
            metrics.calibration("calibration_error", 1.0 / (1.0 + (-margin.abs()).exp()), right);
            match chosen.tokens.cmp(&rejected.tokens) {
                std::cmp::Ordering::Greater => metrics.mean("accuracy_chosen_longer", accuracy),
                std::cmp::Ordering::Less => metrics.mean("accuracy_chosen_shorter", accuracy),
                std::cmp::Ordering::Equal => {}
            }
        }
    }
}
