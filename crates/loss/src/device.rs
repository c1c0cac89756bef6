//! Objectives that a device makes itself.

use crate::objective::{Divergence, Objective, Score, Totals};
use duel_backend::{PairObjective, Rule, Side};

fn score(side: Side) -> Score {
    Score { logp: side.logp, reference: side.reference, tokens: side.rows, ..Score::default() }
}

impl Objective {
    /// The same objective for a device, in a batch of `totals`: none where it is more than one loss of pairs that
    /// kernels know.
    pub fn on_device(&self, totals: Totals) -> Option<PairObjective<'_>> {
        let (&[(weight, word)], settings) = (self.terms(), self.settings()) else { return None };
        if settings.use_weighting || settings.divergence != Divergence::ReverseKl {
            return None;
        }
        let rule = match word.name {
            "sigmoid" => Rule::Sigmoid { label_smoothing: settings.label_smoothing },
            "ipo" => Rule::Ipo { per_token: settings.ipo_per_token },
            "hinge" => Rule::Hinge,
            _ => return None,
        };
        let of = word.of_pair()?;
        let host = move |[chosen, rejected]: [Side; 2], margin| {
            let pair = of(settings, score(chosen), score(rejected), margin);
            (pair.value, [pair.d_chosen, pair.d_rejected])
        };
        let share = totals.share_of_pair(weight);
        Some(PairObjective { host: Box::new(host), rule, beta: settings.beta, share })
    }
}
