//! What a loss is given and what it gives back.

use std::f64::consts::LN_2;

/// What a loss knows of one response.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Score {
    /// Sum of the policy's log-probabilities over the response's tokens.
    pub logp: f64,
    /// The same of the reference; 0 where there is none.
    pub reference: f64,
    /// Tokens in the sums.
    pub tokens: usize,
    /// Sum of the log-probabilities less `ln sum p²` of each prediction: how much likelier the tokens are than drawn
    /// ones.
    pub certainty: f64,
}

impl Score {
    /// The log-ratio `u`.
    pub fn log_ratio(&self) -> f64 {
        self.logp - self.reference
    }

    /// The log-odds of its mean log-probability a token, which ORPO compares.
    pub fn log_odds(&self) -> f64 {
        log_odds(self.logp * self.per_token()).0
    }

    /// How much likelier a token of it is than one that the policy draws: WPO's weight of a response (Zhou et al.,
    /// 2024, equation 5), which has no gradient.
    pub(super) fn likelihood(&self) -> f64 {
        (self.certainty * self.per_token()).exp()
    }

    /// One over the number of tokens.
    pub(super) fn per_token(&self) -> f64 {
        1.0 / self.tokens.max(1) as f64
    }
}

/// What a loss knows of a prompt and its responses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Group<'a> {
    /// The responses, best first.
    pub responses: &'a [Score],
    /// The prompt as a text of its own, where [`Needs::prompt`](super::Needs::prompt) asks for it.
    pub prompt: Option<Score>,
    /// By how much the reward of the chosen response should be larger than that of the rejected one; 0 where the row
    /// says nothing.
    pub margin: f64,
    /// A score of each response, where its row has any: two of the same are no pair.
    pub scores: &'a [f64],
    /// Whether a response without another one is a good example.
    pub desirable: bool,
}

impl<'a> Group<'a> {
    /// Responses of which nothing is known but their order.
    pub fn ranked(responses: &'a [Score]) -> Self {
        Group { responses, prompt: None, margin: 0.0, scores: &[], desirable: true }
    }

    /// Places of the chosen and the rejected response of every pair.
    pub fn pairs(&self) -> impl Iterator<Item = (usize, usize)> + use<'a> {
        let (n, scores) = (self.responses.len(), self.scores);
        let tied = move |w: usize, l: usize| scores.get(w).is_some_and(|score| scores.get(l) == Some(score));
        let all = (0..n).flat_map(move |w| (w + 1..n).map(move |l| (w, l)));
        all.filter(move |&(w, l)| !tied(w, l))
    }
}

/// What is known of a whole batch, however it is cut into micro-batches: what its means are over, and what rewards are
/// measured by.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    /// Groups.
    pub groups: usize,
    /// Pairs of responses to one prompt.
    pub pairs: usize,
    /// Scored tokens of the best responses.
    pub tokens: usize,
    /// Scored tokens of the prompts.
    pub prompt_tokens: usize,
    /// Mean log-ratio of responses to prompts that are not theirs, at least 0: KTO's estimate of the divergence of the
    /// policy from the reference.
    pub kl: f64,
    /// Mean of every reward so far, those of this batch among them.
    pub mean_reward: f64,
}

impl Totals {
    /// Adds a group of so many responses, no two of them tied, the best of which has so many scored tokens, and its
    /// prompt so many.
    pub fn add(&mut self, responses: usize, tokens: usize, prompt_tokens: usize) {
        self.groups += 1;
        self.pairs += responses * responses.saturating_sub(1) / 2;
        self.tokens += tokens;
        self.prompt_tokens += prompt_tokens;
    }

    /// What a pair counts in the mean over all pairs, `weight` times.
    pub(crate) fn share_of_pair(&self, weight: f64) -> f64 {
        share(weight, self.pairs)
    }
}

/// `weight` times the share of one in a mean over `n`.
pub(super) fn share(weight: f64, n: usize) -> f64 {
    weight / n.max(1) as f64
}

/// Loss of a pair, and its derivatives by the two sums of log-probabilities.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairLoss {
    /// The loss.
    pub value: f64,
    /// Derivative by the chosen response's `logp`.
    pub d_chosen: f64,
    /// Derivative by the rejected response's `logp`.
    pub d_rejected: f64,
}

/// The divergence that holds the policy to its reference, by what it makes of a log-ratio (f-DPO: Wang et al., 2024;
/// the constants, which matter where a score is divided by a length, are TRL's).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Divergence {
    /// `u`: DPO's own.
    ReverseKl,
    /// `1 - e^-u`.
    ForwardKl,
    /// `ln 2 + ls(u)`: Jensen-Shannon.
    Js,
    /// `(e^((a-1)u) - 1) / (a-1)`.
    Alpha(f64),
}

impl Divergence {
    /// The score of a log-ratio, and its derivative.
    pub fn score(self, u: f64) -> (f64, f64) {
        match self {
            Divergence::ReverseKl => (u, 1.0),
            Divergence::ForwardKl => (-(-u).exp_m1(), (-u).exp()),
            Divergence::Js => (LN_2 - softplus(-u), logistic(-u)),
            Divergence::Alpha(a) => (((a - 1.0) * u).exp_m1() / (a - 1.0), ((a - 1.0) * u).exp()),
        }
    }
}

/// The log-odds of a mean log-probability, and the derivative. A certain response has no odds: it is taken to be as
/// near to certain as a number can say.
pub(super) fn log_odds(a: f64) -> (f64, f64) {
    let a = a.min(-f64::EPSILON);
    // ln(1 - e^a) by what loses nothing: near 0 the difference is small, far from it the power is.
    let rest = if a > -LN_2 { (-a.exp_m1()).ln() } else { (-a.exp()).ln_1p() };
    (a - rest, -1.0 / a.exp_m1())
}

/// `ln(1 + e^x)` without overflow; `ls(z) = -softplus(-z)`.
pub fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// `1 / (1 + e^-x)` without overflow.
pub fn logistic(x: f64) -> f64 {
    if x >= 0.0 {
        1.0 / (1.0 + (-x).exp())
    } else {
        let e = x.exp();
        e / (1.0 + e)
    }
}
