//! A step on own samples: they are drawn, judged, read by the models that learn from them, and learned.

use super::pairs::Pairs;
use super::policy::Policy;
use super::report;
use super::world::{Judged, World};
use crate::Error;
use crate::config::{Config, Method};
use crate::objective::{Metrics, Objective};
use crate::ranks::Ranks;
use crate::report::progress::Progress;
use crate::run::steps::{Learner, Run, Step};
use duel_backend::{Backend, Real};
use duel_data::Group;
use duel_model::Model;
use duel_rollout::groups;
use serde_json::{Map, Value};
use std::ops::Range;

/// What learns from the policy's own samples.
pub struct Online<'j, B: Backend> {
    /// How.
    pub config: Config,
    /// What is learned of a pair, of methods that draw pairs.
    pub objective: Objective,
    /// What it draws from, and who judges.
    pub world: World<'j, B>,
}

/// Of contests what the policy's samples are worth: the probability that each is better than the other; scores win as
/// Bradley and Terry have it.
fn wins(mut contests: Vec<Judged<'_>>) -> Vec<Judged<'_>> {
    for judged in &mut contests {
        judged.scores = vec![judged.verdict.wins(0, 1, true).said()];
        judged.rollout.samples.truncate(1);
    }
    contests
}

impl<B: Backend> Learner<B> for Online<'_, B> {
    fn step(&mut self, run: &mut Run<'_, B>, batch: &[u32]) -> Result<Option<Step>, Error> {
        let (config, world) = (&self.config, &mut self.world);
        let prompts = world.prompts.clone();
        let drawn = match config.method {
            Method::Xpo => world.contest(run, &prompts, batch)?,
            Method::NashMd => world.contest(run, &prompts, batch)?.map(wins),
            _ => world.judged(run, &prompts, batch)?,
        };
        let Some(judged) = drawn else { return Ok(None) };
        let ds = groups(judged.iter().map(|j| &j.rollout))?;
        let all: Vec<u32> = (0..ds.len() as u32).collect();
        let reference = &world.reference;
        let critic = run.critic.as_ref().map(|critic| &critic.weight);
        let beside = reference.beside(&run.weights);
        let (engine, weights) = (&mut run.engine, &run.weights);
        let own = |own: Range<usize>| engine.survey(weights, &beside, critic, &ds, &all[own]);
        let said = run.ranks.spread(all.len(), own)?;
        let mut metrics = Metrics::default();
        // What the policy is compared with says nothing of it.
        let own = world.samples;
        report::judged(&mut metrics, &judged, own);
        report::said(
            &mut metrics,
            said.chunks(ds.group(0).responses().len()).flat_map(|k| &k[..own]),
            world.own,
        );
        let counted = said.len() as u64;
        let norm = match config.method.draws_pairs() {
            true => {
                let pairs = Pairs { config, objective: &self.objective, reference };
                pairs.learn(run, &judged, &said, &mut metrics)?
            }
            false => Policy { config }.learn(run, &ds, &judged, said, &mut metrics)?,
        };
        world.follow(run)?;
        let tokens = |g: Group<'_>| g.responses().map(|r| (g.prompt.len() + r.len()) as u64).sum::<u64>();
        Ok(Some(Step { metrics, norm, tokens: ds.groups().map(tokens).sum(), counted }))
    }

    fn evaluates(&self) -> bool {
        !self.world.eval.is_empty()
    }

    fn evaluate(&mut self, run: &mut Run<'_, B>, _: &mut Progress) -> Result<Vec<(String, f64)>, Error> {
        self.world.evaluate(run)
    }

    fn moved_reference(&self, step: u64) -> Option<&Model<Real<B>>> {
        self.world.reference.moved(step)
    }

    fn results(&self, ranks: &Ranks<'_>, results: &mut Map<String, Value>) -> Result<(), Error> {
        self.world.results(ranks, results)
    }

    fn counted(&self) -> &'static str {
        "samples"
    }

    fn shown(&self) -> &'static [&'static str] {
        &["loss", "grad_norm", "reward", "kl", "sequence_kl", "rewards/accuracies", "rewards/margins"]
    }
}
