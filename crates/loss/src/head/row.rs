//! What the language-model head says of a scored token, and of all scored tokens of a response.

use crate::objective::Score;
use duel_backend::ResponseSums;

/// What the policy predicts on one row.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Row {
    /// Log-probability of the token that comes.
    pub logp: f64,
    /// Entropy of the prediction, in nats.
    pub entropy: f64,
    /// Mean of the logits over the vocabulary.
    pub mean_logit: f64,
    /// 1 where the token that comes was the most likely, else 0.
    pub hit: f64,
    /// `ln sum p²` over the vocabulary: the log of the chance that two draws are the same token.
    pub collision: f64,
}

/// Sums over the scored tokens of a response.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ResponseStats {
    /// Scored tokens.
    pub tokens: usize,
    /// Log-probabilities, each by the weight of its token.
    pub logp: f64,
    /// Entropies of the predictions, in nats.
    pub entropy: f64,
    /// Means of the logits over the vocabulary.
    pub mean_logit: f64,
    /// Tokens that were the most likely.
    pub hits: f64,
    /// Log-probabilities less `ln sum p²` of the predictions: how much likelier the tokens are than drawn ones, which
    /// is what WPO weighs a response by.
    pub certainty: f64,
    /// What a scalar head says of it; 0 where there is none.
    pub value: f64,
}

impl ResponseStats {
    /// As a loss takes it, beside the reference's sum of the same log-probabilities.
    pub fn score(&self, reference: f64) -> Score {
        Score { logp: self.logp, reference, tokens: self.tokens, certainty: self.certainty }
    }

    /// What a device summed over `rows` rows.
    pub fn of_sums(rows: usize, s: ResponseSums) -> Self {
        ResponseStats {
            tokens: rows,
            logp: s.logp,
            entropy: s.entropy,
            mean_logit: s.mean_logit,
            hits: s.hits,
            certainty: s.certainty,
            value: 0.0,
        }
    }

    /// The sums over `rows`, whose tokens have the weights `weights`.
    pub fn of(rows: &[Row], weights: &[f64]) -> Self {
        let mut s = ResponseStats { tokens: rows.len(), ..ResponseStats::default() };
        for (row, weight) in rows.iter().zip(weights) {
            s.logp += weight * row.logp;
            s.entropy += row.entropy;
            s.mean_logit += row.mean_logit;
            s.hits += row.hit;
            s.certainty += row.logp - row.collision;
        }
        s
    }
}
