//! What answers a policy: prompts are asked of it, and a judge says what came.

use super::report;
use crate::Error;
use crate::follow::Following;
use crate::objective::Metrics;
use crate::ranks::Ranks;
use crate::run::steps::Run;
use crate::signal;
use crate::stays::Stays;
use duel_backend::{Backend, Real};
use duel_data::{Prompt, Tokenizer, order};
use duel_judge::{Case, Judge, Normalization, Opinion, Says, Tally, Verdict, verdicts};
use duel_model::decode::Mixture;
use duel_model::{Held, Model, View};
use duel_random::at;
use duel_rollout::{Asked, Rollout, Sample, Sampler, case, groups};
use serde_json::{Map, Value, json};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// What answers a policy.
pub struct World<'j, B: Backend> {
    /// What is asked of it.
    pub prompts: Arc<[Prompt]>,
    /// What it is evaluated by; empty: nothing.
    pub eval: Arc<[Prompt]>,
    /// Makes text of what is drawn.
    pub tokenizer: Tokenizer,
    /// Draws.
    pub sampler: Sampler<B>,
    /// Says what samples are worth.
    pub judge: &'j mut dyn Judge,
    /// What the policy is held to, or compared with.
    pub reference: Reference<B>,
    /// Samples of each prompt.
    pub samples: usize,
    /// The reference's share in what the policy's samples are compared with; `None`: it is the reference itself.
    pub mixture: Option<f64>,
    /// What a sample loses that was cut.
    pub penalty: f64,
    /// Whether scores are brought to a mean of 0 and a deviation of 1.
    pub normalize: bool,
    /// Whether samples are of the policy as it is.
    pub own: bool,
    /// Time in what the judge says, and in drawing.
    pub spent: Spent,
}

/// Seconds that steps took, by what for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    /// Drawing.
    pub sampling: f64,
    /// Waiting for the judge.
    pub judging: f64,
}

/// What a policy is held to.
pub enum Reference<B: Backend> {
    /// The model that the run began with.
    Stays(Stays<B>),
    /// What follows the policy.
    Follows(Following<B>),
}

impl<B: Backend> Reference<B> {
    /// Its weights where they have moved after so many steps.
    pub fn moved(&self, step: u64) -> Option<&Model<Real<B>>> {
        match self {
            Reference::Follows(following) => (step >= following.every).then_some(&following.weights),
            Reference::Stays(_) => None,
        }
    }

    /// Its weights now; those of the policy are `policy`.
    pub fn beside<'a>(&'a self, policy: &'a Held<B>) -> View<'a, B> {
        match self {
            Reference::Stays(stays) => stays.beside(policy),
            Reference::Follows(following) => View::of(&following.weights),
        }
    }
}

/// Who a sample is drawn by and for: each has random numbers of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The policy, to learn from.
    Policy,
    /// What the policy's sample is compared with.
    Opponent,
    /// The policy, to be looked at.
    Evaluation,
    /// The model that the run began with, for the scale of its rewards.
    Scale,
}

/// A prompt with its samples and what was said of them.
pub struct Judged<'p> {
    /// The samples.
    pub rollout: Rollout<'p>,
    /// What the judge said, as it said it.
    pub verdict: Verdict,
    /// What each sample is worth: its score, less what it loses for being cut, and normalised. `None`: unjudged.
    pub scores: Vec<Option<f64>>,
}

/// Samples of the reference that the scale of rewards is made of.
const SCALING: usize = 256;

impl<B: Backend> World<'_, B> {
    /// So many samples of each of the prompts `batch`, of the policy or of what it is compared with. `None`: Ctrl-C.
    fn draw<'p>(
        &mut self,
        run: &Run<'_, B>,
        prompts: &'p [Prompt],
        batch: &[u32],
        role: Role,
        samples: usize,
    ) -> Result<Option<Vec<Rollout<'p>>>, Error> {
        let step = if role == Role::Evaluation { 0 } else { run.state.step };
        // Below 2^53, so that whoever writes it down as a number keeps it.
        let id = |i: u32| at(&[role as u64, step, u64::from(i)]) >> 11;
        let asked: Vec<_> =
            batch.iter().map(|&i| Asked { prompt: &prompts[i as usize], id: id(i) }).collect();
        let begun = Instant::now();
        let go_on = |_| !signal::interrupted();
        let (b, tokenizer) = (run.engine.b, &self.tokenizer);
        let (sampler, reference) = (&mut self.sampler, self.reference.beside(&run.weights));
        let drawn = run.ranks.spread_unless_stopped(asked.len(), |own| {
            let asked = &asked[own];
            let drawn = match (role, self.mixture) {
                _ if asked.is_empty() => Some(Vec::new()),
                (Role::Opponent, Some(coef)) => {
                    let mixture = Mixture { reference: &reference, coef };
                    sampler.draw_mixed(b, &run.weights, mixture, tokenizer, asked, samples, go_on)?
                }
                (Role::Opponent, None) => sampler.draw(b, &reference, tokenizer, asked, samples, go_on)?,
                _ => sampler.draw(b, &run.weights, tokenizer, asked, samples, go_on)?,
            };
            Ok(drawn.map(|drawn| drawn.into_iter().map(|rollout| rollout.samples).collect::<Vec<_>>()))
        })?;
        let drawn = drawn.map(|drawn| {
            let rollout =
                |(asked, samples): (&Asked<'p>, Vec<Sample>)| Rollout { prompt: asked.prompt, samples };
            asked.iter().zip(drawn).map(rollout).collect()
        });
        self.spent.sampling += begun.elapsed().as_secs_f64();
        Ok(drawn)
    }

    /// What the judge says of them. `None`: Ctrl-C.
    fn judge<'p>(
        &mut self,
        ranks: &Ranks<'_>,
        rollouts: Vec<Rollout<'p>>,
        scale: Option<Normalization>,
    ) -> Result<Option<Vec<Judged<'p>>>, Error> {
        let begun = Instant::now();
        let cases = rollouts.iter().map(case).collect::<Result<Vec<_>, _>>()?;
        let computes = self.judge.computes();
        let mut ask = |cases: &[Case]| match verdicts(self.judge, cases) {
            Err(duel_judge::Error::Stopped) => Ok(None),
            verdicts => Ok(Some(verdicts?)),
        };
        // Who is asked is asked once, by one; and all know the answers.
        let said = match computes {
            true => ranks.spread_unless_stopped(cases.len(), |own| ask(&cases[own])),
            false => ranks.led(|| ask(&cases)),
        }?;
        let Some(verdicts) = said else { return Ok(None) };
        self.spent.judging += begun.elapsed().as_secs_f64();
        let judged = |(rollout, verdict): (Rollout<'p>, Verdict)| {
            let score = |(sample, opinion): (&Sample, &Opinion)| {
                let lost = if sample.truncated { self.penalty } else { 0.0 };
                opinion.said().map(|score| scale.map_or(score, |scale| scale.apply(score)) - lost)
            };
            let scores = rollout.samples.iter().zip(&verdict.scores).map(score).collect();
            Judged { rollout, verdict, scores }
        };
        Ok(Some(rollouts.into_iter().zip(verdicts).map(judged).collect()))
    }

    /// The samples of a step, and what they are worth. The scale of rewards is made before the first, of samples of
    /// the model that the run begins with. `None`: Ctrl-C.
    ///
    /// # Errors
    /// The device or the judge failed; or all samples that a scale is made of are worth the same.
    pub fn judged<'p>(
        &mut self,
        run: &mut Run<'_, B>,
        prompts: &'p [Prompt],
        batch: &[u32],
    ) -> Result<Option<Vec<Judged<'p>>>, Error> {
        if self.normalize && run.state.online.scale.is_none() {
            let n = prompts.len().min(SCALING);
            // Of all the file: its beginning may be of one kind.
            let mut some = order(prompts.len(), at(&[Role::Scale as u64]), 0, true);
            some.truncate(n);
            let Some(drawn) = self.draw(run, prompts, &some, Role::Scale, SCALING.div_ceil(n))? else {
                return Ok(None);
            };
            let Some(judged) = self.judge(run.ranks, drawn, None)? else { return Ok(None) };
            let said = judged.iter().flat_map(|j| &j.verdict.scores).filter_map(Opinion::said);
            let scale = Normalization::of(&said.collect::<Vec<_>>())?;
            say!(
                "rewards: {} r {:+}, of {} samples of the model before the first step",
                scale.gain,
                scale.bias,
                scale.samples
            );
            run.state.online.scale = Some(scale);
        }
        let scale = run.state.online.scale;
        match self.draw(run, prompts, batch, Role::Policy, self.samples)? {
            Some(drawn) => self.judge(run.ranks, drawn, scale),
            None => Ok(None),
        }
    }

    /// A sample of the policy and one of what it is compared with, judged together. `None`: Ctrl-C.
    ///
    /// # Errors
    /// The device or the judge failed.
    pub fn contest<'p>(
        &mut self,
        run: &Run<'_, B>,
        prompts: &'p [Prompt],
        batch: &[u32],
    ) -> Result<Option<Vec<Judged<'p>>>, Error> {
        let Some(mut drawn) = self.draw(run, prompts, batch, Role::Policy, 1)? else { return Ok(None) };
        let Some(others) = self.draw(run, prompts, batch, Role::Opponent, 1)? else { return Ok(None) };
        drawn.iter_mut().zip(others).for_each(|(own, other)| own.samples.extend(other.samples));
        self.judge(run.ranks, drawn, None)
    }

    /// Lets a reference that follows the policy follow it after this step.
    ///
    /// # Errors
    /// The device failed.
    pub fn follow(&mut self, run: &Run<'_, B>) -> Result<(), Error> {
        match &mut self.reference {
            Reference::Follows(following) if following.moves_after(run.state.step + 1) => {
                following.follow(run.engine.b, &run.weights)
            }
            _ => Ok(()),
        }
    }

    /// What a sample of each evaluation prompt is worth, and how far the policy is from its reference. Nothing after
    /// Ctrl-C.
    ///
    /// # Errors
    /// The device or the judge failed.
    pub fn evaluate(&mut self, run: &mut Run<'_, B>) -> Result<Vec<(String, f64)>, Error> {
        let prompts = self.eval.clone();
        let mut metrics = Metrics::default();
        let all: Vec<u32> = (0..prompts.len() as u32).collect();
        for some in all.chunks(SCALING) {
            let Some(drawn) = self.draw(run, &prompts, some, Role::Evaluation, 1)? else {
                return Ok(Vec::new());
            };
            let Some(judged) = self.judge(run.ranks, drawn, run.state.online.scale)? else {
                return Ok(Vec::new());
            };
            report::judged(&mut metrics, &judged, 1);
            let ds = groups(judged.iter().map(|j| &j.rollout))?;
            let groups: Vec<u32> = (0..ds.len() as u32).collect();
            let reference = self.reference.beside(&run.weights);
            let (engine, weights) = (&mut run.engine, &run.weights);
            let own = |own: Range<usize>| engine.survey(weights, &reference, None, &ds, &groups[own]);
            let said = run.ranks.spread(groups.len(), own)?;
            report::said(&mut metrics, &said, self.own);
        }
        // One sample alone is nothing to a judge that compares.
        let compares = self.judge.says() != Says::Scores;
        let said = |name: &str| name != "loss" && !(compares && name == "reward");
        let named = metrics.values().into_iter().filter(|(name, _)| said(name));
        Ok(named.map(|(name, value)| (format!("eval_{name}"), value)).collect())
    }

    /// Adds what steps spent their time on, and what the judge counted.
    ///
    /// # Errors
    /// A rank is lost.
    pub fn results(&self, ranks: &Ranks<'_>, results: &mut Map<String, Value>) -> Result<(), Error> {
        let mut tally = Tally::default();
        ranks.all(self.judge.tally())?.into_iter().for_each(|of_rank| tally += of_rank);
        let all = [
            ("sampling_runtime", json!(self.spent.sampling)),
            ("judge_runtime", json!(self.spent.judging)),
            ("judge_requests", json!(tally.requests)),
            ("judge_cached", json!(tally.cached)),
            ("judge_tokens", json!(tally.tokens)),
            ("judge_both_orders", json!(tally.both_orders)),
            ("judge_disagreed", json!(tally.disagreed)),
        ];
        results.extend(all.into_iter().map(|(name, value)| (name.to_owned(), value)));
        Ok(())
    }
}
