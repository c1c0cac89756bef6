//! The groups of a file, and what a loss has to know of them beside what the policy says.

use super::aim::Aim;
use crate::Error;
use crate::cache::Cache;
use crate::engine::Engine;
use crate::objective::{Metrics, Objective, Scored, margin};
use crate::ranks::Ranks;
use crate::reference::{ModelId, Reference};
use duel_backend::Backend;
use duel_data::Dataset;
use duel_loss::{Known, ResponseStats, Totals};
use duel_model::Weights;

/// The groups of a file, and what a loss has to know of them beside what the policy says.
pub struct Examples {
    /// The groups.
    pub ds: Dataset,
    /// The reference's log-probabilities of them; `None`: no loss needs them.
    pub reference: Option<Reference>,
    /// Each prompt with the response to another one, where a loss measures rewards by such.
    mismatched: Option<Mismatched>,
}

struct Mismatched {
    ds: Dataset,
    reference: Reference,
}

impl Examples {
    /// Reads or computes what the reference says of `groups`.
    ///
    /// # Errors
    /// As [`Reference::of`].
    pub fn new<B: Backend>(
        ranks: &Ranks<'_>,
        engine: &mut Engine<'_, B>,
        weights: &impl Weights<B>,
        aim: &Aim,
        id: &ModelId,
        (ds, mismatched): (Dataset, Option<Dataset>),
        groups: &[u32],
    ) -> Result<Self, Error> {
        let Some(dir) = &aim.reference_cache else {
            return Ok(Examples { ds, reference: None, mismatched: None });
        };
        let mut of = |ds: &Dataset, what: &str| {
            let cache = Cache::new(dir, &id.on(engine.b, ds, aim.scoring.tails));
            Reference::of(ranks, engine, weights, ds, groups, &cache, what)
        };
        let reference = Some(of(&ds, "groups")?);
        let mismatched = match mismatched {
            None => None,
            Some(ds) => Some(Mismatched { reference: of(&ds, "prompts with responses to others")?, ds }),
        };
        Ok(Examples { ds, reference, mismatched })
    }

    /// Lets another reference say what it has not said yet of `groups`.
    ///
    /// # Errors
    /// As [`Reference::of`].
    pub fn ask<B: Backend>(
        &mut self,
        ranks: &Ranks<'_>,
        engine: &mut Engine<'_, B>,
        weights: &impl Weights<B>,
        groups: &[u32],
    ) -> Result<(), Error> {
        if let Some(reference) = &mut self.reference {
            reference.complete(ranks, engine, weights, &self.ds, groups)?;
        }
        if let Some(Mismatched { ds, reference }) = &mut self.mismatched {
            reference.complete(ranks, engine, weights, ds, groups)?;
        }
        Ok(())
    }

    /// Forgets what the reference said: it is another one now.
    pub fn forget(&mut self) {
        self.reference.iter_mut().for_each(Reference::forget);
        self.mismatched.iter_mut().for_each(|m| m.reference.forget());
    }

    /// Seconds that computing what the reference says took.
    pub fn reference_runtime(&self) -> f64 {
        let mismatched = self.mismatched.iter().map(|m| &m.reference);
        self.reference.iter().chain(mismatched).fold(0.0, |all, r| all + r.runtime)
    }

    /// What is known of the batch `groups` before its responses are scored. The mean reward is not: it is that of the
    /// batches before.
    ///
    /// # Errors
    /// The device failed.
    pub fn totals<B: Backend>(
        &self,
        ranks: &Ranks<'_>,
        engine: &mut Engine<'_, B>,
        weights: &impl Weights<B>,
        objective: &Objective,
        groups: &[u32],
    ) -> Result<Totals, Error> {
        let mut totals = objective.totals(&self.ds, groups);
        if let Some(Mismatched { ds, reference }) = &self.mismatched {
            let stats =
                ranks.spread(groups.len(), |own| engine.score(weights, ds, &groups[own], |_| true))?;
            let of_reference = groups.iter().map(|&i| reference.group(i)[0]);
            let sum: f64 = stats.iter().zip(of_reference).map(|(s, reference)| s.logp - reference).sum();
            totals.kl = (sum / groups.len().max(1) as f64).max(0.0);
        }
        Ok(totals)
    }

    /// What is known of group `i` before the policy says anything of it.
    pub fn known(&self, i: u32) -> Known<'_> {
        let margin = margin(self.ds.group(i as usize).labels());
        Known { reference: self.of_reference(i), margin }
    }

    fn of_reference(&self, i: u32) -> &[f64] {
        self.reference.as_ref().map_or(&[][..], |r| r.group(i))
    }

    /// The batch `groups` with `stats`, what the policy says of all that is scored of it.
    pub fn scored<'a>(
        &'a self,
        objective: &Objective,
        groups: &[u32],
        stats: &'a [ResponseStats],
    ) -> Vec<Scored<'a>> {
        Scored::groups(&self.ds, groups, stats, objective.needs().prompt, |i| self.of_reference(i))
    }

    /// The loss and metrics of the batch `groups`, whose statistics are `stats`, and the derivatives.
    pub fn slopes(
        &self,
        objective: &Objective,
        groups: &[u32],
        stats: &[ResponseStats],
        totals: Totals,
        metrics: &mut Metrics,
    ) -> Vec<f64> {
        objective.slopes(&self.scored(objective, groups, stats), totals, metrics)
    }
}
