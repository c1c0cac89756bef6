//! The evaluation between steps: the loss on rows that are not learned, and samples.

use super::aim::Samples;
use super::examples::Examples;
use super::output::Output;
use crate::Error;
use crate::engine::Engine;
use crate::follow::Following;
use crate::objective::{Metrics, Objective};
use crate::ranks::Ranks;
use crate::report::progress::Progress;
use crate::sample::{sample, sequence_kls};
use crate::signal;
use crate::stays::Stays;
use duel_backend::Backend;
use duel_data::{Dataset, Tokenizer};
use duel_loss::Totals;
use duel_model::{Held, View, decode};
use serde_json::json;

/// What an evaluation needs.
pub struct Evaluation<B: Backend> {
    /// The groups that are scored.
    pub examples: Examples,
    /// For the KL of samples from a reference that stays; kept only when samples are drawn.
    pub reference: Option<Stays<B>>,
    /// What draws the samples, and what makes text of them, if any are wanted.
    pub sampler: Option<(decode::Engine<B>, Tokenizer)>,
}

impl<B: Backend> Evaluation<B> {
    /// The metrics of all groups by name, or `None` after Ctrl-C: half an evaluation is none. Rewards are measured by
    /// `mean_reward`, that of the batches that were learned.
    ///
    /// # Errors
    /// The device failed.
    pub fn score(
        &mut self,
        ranks: &Ranks<'_>,
        engine: &mut Engine<'_, B>,
        weights: &Held<B>,
        following: Option<&Following<B>>,
        objective: &Objective,
        mean_reward: f64,
        mut bar: Progress,
    ) -> Result<Option<Vec<(String, f64)>>, Error> {
        let indices: Vec<u32> = (0..self.examples.ds.len() as u32).collect();
        if let Some(following) = following {
            self.examples.ask(ranks, engine, &following.weights, &indices)?;
        }
        let examples = &self.examples;
        // The others are about as far.
        let advance = |n| bar.advance((n * ranks.size()) as u64);
        let Some(stats) = ranks.score(engine, weights, &examples.ds, &indices, advance)? else {
            return Ok(None);
        };
        let mut metrics = Metrics::default();
        let totals = Totals { mean_reward, ..examples.totals(ranks, engine, weights, objective, &indices)? };
        examples.slopes(objective, &indices, &stats, totals, &mut metrics);
        objective.conclude(totals, &mut metrics);
        Ok(Some(metrics.values().into_iter().map(|(name, value)| (format!("eval_{name}"), value)).collect()))
    }

    /// Continues the prompts of `samples` and writes them down; their KL where there is a reference.
    ///
    /// # Errors
    /// The device or the disk failed.
    pub fn draw(
        &mut self,
        ranks: &Ranks<'_>,
        samples: &Samples,
        engine: &Engine<'_, B>,
        weights: &Held<B>,
        following: Option<&Following<B>>,
        step: u64,
        output: &Output,
    ) -> Result<Option<f64>, Error> {
        let Samples { prompts, how } = samples;
        let Some((sampler, tokenizer)) = &mut self.sampler else { return Ok(None) };
        let (b, model) = (engine.b, &engine.model);
        let requests = samples.requests();
        let drawn = ranks.spread_unless_stopped(requests.len(), |own| {
            match sample(b, sampler, weights, &requests[own], how, tokenizer.stops(), |_| {}) {
                Err(_) if signal::interrupted() => Ok(None),
                drawn => Ok(Some(drawn?.flat().into_iter().map(|sample| sample.tokens).collect())),
            }
        })?;
        let Some(drawn) = drawn else { return Ok(None) };
        let mut lines = String::new();
        for (prompt, sample) in prompts.iter().zip(&drawn) {
            let text = |ids: &[u32]| tokenizer.decode(ids, true);
            let line = json!({"step": step, "prompt": text(prompt)?, "completion": text(sample)?});
            lines += &format!("{line}\n");
        }
        ranks.led(|| output.add_samples(&lines))?;
        let rows = prompts.iter().zip(&drawn).enumerate();
        let ds = Dataset::of_samples(rows.map(|(i, (prompt, s))| (i + 1, &prompt[..], vec![&s[..]])))?;
        let kls = |reference: &View<'_, B>| {
            let all: Vec<u32> = (0..ds.len() as u32).collect();
            ranks.spread(all.len(), |own| sequence_kls(b, model, weights, reference, &ds, &all[own]))
        };
        let kls = match (following, &self.reference) {
            (Some(moved), _) => kls(&View::of(&moved.weights))?,
            (None, Some(stays)) => kls(&stays.beside(weights))?,
            (None, None) => return Ok(None),
        };
        Ok(duel_stats::mean(&kls).map(|kl| kl.value))
    }
}
