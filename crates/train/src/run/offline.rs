//! Learning from the groups of a file.

use super::aim::Samples;
use super::evaluate::Evaluation;
use super::examples::Examples;
use super::steps::{Learner, Run, Step};
use crate::Error;
use crate::follow::Following;
use crate::objective::{Metrics, Objective};
use crate::ranks::Ranks;
use crate::report::progress::Progress;
use duel_backend::{Backend, Real};
use duel_loss::ResponseStats;
use duel_model::Model;
use serde_json::{Map, Value, json};
use std::ops::Range;

/// What learns from the groups of a file.
pub struct Offline<B: Backend> {
    pub objective: Objective,
    pub train: Examples,
    pub eval: Option<Evaluation<B>>,
    pub following: Option<Following<B>>,
    /// What an evaluation draws.
    pub samples: Option<Samples>,
}

impl<B: Backend> Offline<B> {
    /// The gradients of the loss of the groups `batch`, and its metrics.
    fn gradients(&mut self, run: &mut Run<'_, B>, batch: &[u32]) -> Result<Metrics, Error> {
        let ranks = run.ranks;
        if let Some(following) = &self.following {
            self.train.ask(ranks, &mut run.engine, &following.weights, batch)?;
        }
        let (objective, train) = (&self.objective, &self.train);
        let mut totals = train.totals(ranks, &mut run.engine, &run.weights, objective, batch)?;
        let mut metrics = Metrics::default();
        // A loss that compares responses of different prompts has every derivative before the first gradient.
        let mut known = Vec::new();
        if objective.needs().batch {
            let (engine, weights) = (&mut run.engine, &run.weights);
            let own = |own: Range<usize>| engine.score(weights, &train.ds, &batch[own], |_| true);
            let stats = ranks.spread(batch.len(), own)?;
            let scored = train.scored(objective, batch, &stats);
            if objective.needs().mean_reward {
                totals.mean_reward = run.state.rewards.add(&objective.rewards(&scored));
            }
            known = objective.slopes(&scored, totals, &mut metrics);
        }
        let mut rest = &known[..];
        let mut of_group = |&i: &u32| rest.split_off(..run.engine.parts(&train.ds, i)).unwrap_or_default();
        let known: Vec<&[f64]> =
            if known.is_empty() { Vec::new() } else { batch.iter().map(&mut of_group).collect() };
        let stats = run.learn(batch.len(), |run, share| {
            let groups = &batch[share.clone()];
            let (weights, grads) = (&run.weights, &mut run.updater.sending(run.ranks, &mut run.grads));
            // Every gradient is on its way before the host is told anything.
            let pairs = objective.on_device(totals).filter(|_| run.engine.takes_pairs(&train.ds, groups));
            if let Some(pairs) = pairs {
                let known = |i| train.known(i);
                return run.engine.accumulate_pairs(weights, grads, &train.ds, groups, &pairs, known);
            }
            let mut known = known.get(share).unwrap_or_default().iter();
            let of_group = |group: usize, stats: &[ResponseStats], slopes: &mut [f64]| match known.next() {
                Some(known) => slopes.copy_from_slice(known),
                None => {
                    let (groups, metrics) = (&[group as u32], &mut Metrics::default());
                    slopes.copy_from_slice(&train.slopes(objective, groups, stats, totals, metrics));
                }
            };
            run.engine.accumulate(weights, grads, &train.ds, groups, of_group)
        })?;
        if known.is_empty() {
            for group in train.scored(objective, batch, &stats) {
                objective.slopes(&[group], totals, &mut metrics);
            }
        }
        objective.conclude(totals, &mut metrics);
        Ok(metrics)
    }
}

impl<B: Backend> Learner<B> for Offline<B> {
    fn step(&mut self, run: &mut Run<'_, B>, batch: &[u32]) -> Result<Option<Step>, Error> {
        run.drop_inputs(true);
        let metrics = self.gradients(run, batch);
        run.drop_inputs(false);
        let metrics = metrics?;
        let ds = &self.train.ds;
        let norm = run.update(metrics.loss, || batch.iter().map(|&i| ds.group(i as usize).row).collect())?;
        if let Some(following) = self.following.as_mut().filter(|f| f.moves_after(run.state.step + 1)) {
            following.follow(run.engine.b, &run.weights)?;
            self.train.forget();
            self.eval.iter_mut().for_each(|eval| eval.examples.forget());
        }
        let counted = |&i: &u32| {
            let g = self.train.ds.group(i as usize);
            g.responses().map(|r| g.prompt.len() + r.len()).sum::<usize>() as u64
        };
        let tokens = batch.iter().map(counted).sum();
        Ok(Some(Step { metrics, norm, tokens, counted: batch.len() as u64 }))
    }

    fn evaluates(&self) -> bool {
        self.eval.is_some()
    }

    fn evaluate(
        &mut self,
        run: &mut Run<'_, B>,
        progress: &mut Progress,
    ) -> Result<Vec<(String, f64)>, Error> {
        let Some(eval) = &mut self.eval else { return Ok(Vec::new()) };
        let bar = progress.sub("evaluating", "groups", eval.examples.ds.len() as u64);
        let following = self.following.as_ref();
        let mean_reward = run.state.rewards.mean();
        let (engine, weights) = (&mut run.engine, &run.weights);
        let scored = eval.score(run.ranks, engine, weights, following, &self.objective, mean_reward, bar)?;
        let Some(mut all) = scored else { return Ok(Vec::new()) };
        if let Some(samples) = &self.samples {
            let kl =
                eval.draw(run.ranks, samples, engine, weights, following, run.state.step, &run.output)?;
            // KTO's estimate is of responses to other prompts, and has the name already.
            let taken = all.iter().any(|(name, _)| name == "eval_kl");
            let name = if taken { "eval_sample_kl" } else { "eval_kl" };
            all.extend(kl.map(|kl| (name.to_string(), kl)));
        }
        Ok(all)
    }

    fn moved_reference(&self, step: u64) -> Option<&Model<Real<B>>> {
        self.following.as_ref().filter(|f| step >= f.every).map(|f| &f.weights)
    }

    fn results(&self, _: &Ranks<'_>, results: &mut Map<String, Value>) -> Result<(), Error> {
        results.insert("reference_runtime".into(), json!(self.train.reference_runtime()));
        Ok(())
    }

    fn counted(&self) -> &'static str {
        "pairs"
    }

    fn shown(&self) -> &'static [&'static str] {
        &[
            "loss",
            "grad_norm",
            "rewards/accuracies",
            "rewards/margins",
            "mean_token_accuracy",
            "kl",
            "accuracy",
            "margin",
        ]
    }
}
