//! What is known of groups once they are scored.

use duel_data::{Dataset, Labels};
use duel_loss::{Group, ResponseStats, Score};

/// A group: what the policy says of it, what the reference does, and what its row says.
#[derive(Clone, Copy, Debug)]
pub struct Scored<'a> {
    /// Of each response, best first, and of the prompt after them where that is scored.
    pub stats: &'a [ResponseStats],
    /// The reference's log-probability of each response; empty where the loss needs none.
    pub reference: &'a [f64],
    /// What the row says.
    pub labels: Labels<'a>,
}

impl<'a> Scored<'a> {
    /// The groups `indices` of `ds`, given the statistics of them all, and the reference's of each.
    pub fn groups<'r: 'a>(
        ds: &'a Dataset,
        indices: &[u32],
        stats: &'a [ResponseStats],
        prompts: bool,
        of_reference: impl Fn(u32) -> &'r [f64],
    ) -> Vec<Self> {
        let mut rest = stats;
        let group = |&i: &u32| {
            let group = ds.group(i as usize);
            let (own, after) = rest.split_at(group.responses().len() + usize::from(prompts));
            rest = after;
            Scored { stats: own, reference: of_reference(i), labels: group.labels() }
        };
        indices.iter().map(group).collect()
    }

    /// As a loss takes its parts: by log-probabilities, or by values where there is a scalar head.
    pub(super) fn scores(&self, by_value: bool) -> Vec<Score> {
        let of = |i: usize| self.reference.get(i).copied().unwrap_or(0.0);
        let score = |(i, s): (usize, &ResponseStats)| match by_value {
            true => Score { logp: s.value, ..s.score(of(i)) },
            false => s.score(of(i)),
        };
        self.stats.iter().enumerate().map(score).collect()
    }

    /// As a loss takes it.
    pub(super) fn group<'s>(&self, scores: &'s [Score], prompt: bool) -> Group<'s>
    where
        'a: 's,
    {
        let (responses, prompts) = scores.split_at(scores.len() - usize::from(prompt));
        Group {
            responses,
            prompt: prompts.first().copied(),
            margin: margin(self.labels),
            scores: match self.labels {
                Labels::Scored(scores) => scores,
                Labels::Ranked { .. } | Labels::Unpaired { .. } => &[],
            },
            desirable: !matches!(self.labels, Labels::Unpaired { desirable: false }),
        }
    }
}

/// By how much the row says that the chosen response should be better.
pub fn margin(labels: Labels<'_>) -> f64 {
    match labels {
        Labels::Ranked { margin } => margin.unwrap_or(0.0),
        Labels::Scored(_) | Labels::Unpaired { .. } => 0.0,
    }
}
