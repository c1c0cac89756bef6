//! The evaluation between steps: the loss on rows that are not learned, and samples.

use super::output::Output;
use super::plan::Samples;
use crate::Error;
use crate::engine::Engine;
use crate::objective::{Metrics, Objective, grouped};
use crate::reference::Reference;
use crate::report::progress::Progress;
use crate::sample::{sample, sequence_kl};
use crate::signal;
use duel_backend::{Backend, Real};
use duel_data::{Dataset, Tokenizer};
use duel_model::{Frozen, Model};
use serde_json::json;

/// What an evaluation needs.
pub struct Evaluation<B: Backend> {
    /// The groups that are scored.
    pub ds: Dataset,
    /// The reference's log-probabilities of them.
    pub reference: Option<Reference>,
    /// For the KL of samples; kept only when samples are drawn.
    pub reference_weights: Option<Frozen<B>>,
}

impl<B: Backend> Evaluation<B> {
    /// The metrics of all groups by name, or `None` after Ctrl-C: half an evaluation is none.
    ///
    /// # Errors
    /// The device failed.
    pub fn score(
        &self,
        engine: &mut Engine<'_, B>,
        weights: &Model<Real<B>>,
        objective: &Objective,
        mut bar: Progress,
    ) -> Result<Option<Vec<(String, f64)>>, Error> {
        let ds = &self.ds;
        let indices: Vec<u32> = (0..ds.len() as u32).collect();
        let stats = engine.score(weights, ds, &indices, |n| {
            bar.advance(n as u64);
            !signal::interrupted()
        })?;
        if signal::interrupted() {
            return Ok(None);
        }
        let mut metrics = Metrics::default();
        let of_reference = |group: usize| self.reference.as_ref().map_or(&[][..], |r| r.group(group));
        let scored = grouped(ds, &indices, &stats, of_reference);
        objective.slopes(&scored, objective.totals(ds, &indices), &mut metrics);
        Ok(Some(metrics.values().into_iter().map(|(name, value)| (format!("eval_{name}"), value)).collect()))
    }

    /// Continues the prompts of `samples` and writes them down; their KL where there is a reference.
    ///
    /// # Errors
    /// The device or the disk failed.
    pub fn draw(
        &self,
        samples: &Samples,
        engine: &Engine<'_, B>,
        weights: &Model<Real<B>>,
        tokenizer: &Tokenizer,
        step: u64,
        output: &Output,
    ) -> Result<Option<f64>, Error> {
        let Samples { prompts, how } = samples;
        if prompts.is_empty() {
            return Ok(None);
        }
        let (b, model) = (engine.b, &engine.model);
        let drawn = match sample(b, model, weights, prompts, *how, tokenizer.stops(), |_| {}) {
            Err(_) if signal::interrupted() => return Ok(None),
            drawn => drawn?,
        };
        let mut lines = String::new();
        for (prompt, sample) in prompts.iter().zip(&drawn) {
            let text = |ids: &[u32]| tokenizer.decode(ids, true);
            let line = json!({"step": step, "prompt": text(prompt)?, "completion": text(sample)?});
            lines += &format!("{line}\n");
        }
        output.add_samples(&lines)?;
        let kl = |reference| sequence_kl(b, model, weights, reference, prompts, &drawn);
        self.reference_weights.as_ref().map(kl).transpose()
    }
}
