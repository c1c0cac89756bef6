//! Policy gradients: each token of a sample by what it earned.

use super::lesson::{Lesson, Loss};
use super::report;
use super::world::Judged;
use crate::Error;
use crate::checkpoint::Online;
use crate::config::{Config, KlEstimator, Method, ScaleRewards};
use crate::engine::Tokens;
use crate::objective::Metrics;
use crate::run::steps::Run;
use duel_backend::Backend;
use duel_data::{Dataset, order};
use duel_loss::Row;
use duel_loss::policy::{
    Controller, Estimator, Scale, deviation, generalised, leave_one_out, relative, whiten,
};
use duel_random::at;

/// What learns from samples token by token.
pub struct Policy<'c> {
    /// How.
    pub config: &'c Config,
}

impl Policy<'_> {
    /// Learns from the samples of a step, of which `said` tells. Returns the norm of the last gradient.
    ///
    /// # Errors
    /// The device failed, or a gradient is no number.
    pub fn learn<B: Backend>(
        &self,
        run: &mut Run<'_, B>,
        ds: &Dataset,
        judged: &[Judged<'_>],
        said: Vec<Tokens>,
        metrics: &mut Metrics,
    ) -> Result<f64, Error> {
        let mut online = run.state.online.clone();
        let kl_coef = online.kl_coef.unwrap_or(self.config.kl_coef);
        let lessons = self.lessons(judged, said, &mut online);
        if self.config.method == Method::Ppo {
            let scores = judged.iter().flat_map(|j| &j.scores);
            let samples = judged.iter().flat_map(|j| &j.rollout.samples).zip(scores).zip(&lessons);
            let samples = samples.map(|((sample, score), lesson)| (sample, *score, &lesson.said));
            let kl = report::episodes(metrics, samples, kl_coef, self.estimator());
            if let Some(target) = self.config.target_kl {
                let mut controller = Controller { beta: kl_coef, target, horizon: self.config.kl_horizon };
                controller.observe(kl, lessons.len());
                online.kl_coef = Some(controller.beta);
            }
        }
        let norm = match self.lesson_of_nothing(judged, &lessons) {
            None => self.update(run, ds, &lessons, metrics)?,
            Some(why) => {
                say!("warning: step {}: {why}; nothing was learned", run.state.step + 1);
                0.0
            }
        };
        run.state.online = online;
        Ok(norm)
    }

    /// Why there is nothing to learn, if so: an update by a gradient of 0 would still move what has momentum.
    fn lesson_of_nothing(&self, judged: &[Judged<'_>], lessons: &[Lesson]) -> Option<&'static str> {
        let counting = || lessons.iter().filter(|lesson| lesson.counts);
        let alike = |j: &Judged<'_>| {
            j.scores.iter().flatten().min_by(|a, b| a.total_cmp(b))
                == j.scores.iter().flatten().max_by(|a, b| a.total_cmp(b))
        };
        let pulled = self.config.method == Method::Grpo && self.config.beta > 0.0;
        if counting().next().is_none() {
            return Some("the judge said nothing of any sample that counts");
        }
        match self.config.method {
            Method::Rloo | Method::Grpo if !pulled && judged.iter().all(alike) => {
                Some("the judge gives all samples of a prompt the same score")
            }
            _ => None,
        }
    }

    fn estimator(&self) -> Estimator {
        match self.config.kl_estimator {
            KlEstimator::K1 => Estimator::K1,
            KlEstimator::K3 => Estimator::K3,
        }
    }

    /// How often the samples of a step are learned, and in how many updates each time.
    fn rounds(&self) -> (usize, usize) {
        let c = self.config;
        match c.method {
            Method::Ppo => (c.num_ppo_epochs, c.num_mini_batches),
            _ => (c.num_iterations, 1),
        }
    }

    /// What each sample earned, beyond what was to be expected.
    fn lessons(&self, judged: &[Judged<'_>], said: Vec<Tokens>, online: &mut Online) -> Vec<Lesson> {
        let c = self.config;
        let all: Vec<f64> = judged.iter().flat_map(|j| j.scores.iter().flatten().copied()).collect();
        let scale = match c.scale_rewards {
            ScaleRewards::Group => Scale::Group,
            ScaleRewards::Batch => Scale::Step(deviation(&all)),
            ScaleRewards::None => Scale::None,
        };
        let kl_coef = online.kl_coef.unwrap_or(c.kl_coef);
        let (mut lessons, mut rewards) = (Vec::new(), Vec::new());
        let mut said = said.into_iter();
        for Judged { rollout, scores, .. } in judged {
            let own: Vec<Tokens> = said.by_ref().take(scores.len()).collect();
            let worth = self.worth(scores, &own);
            rewards.extend(worth.iter().flatten());
            let samples = own.into_iter().zip(&rollout.samples).zip(scores);
            for (((said, sample), score), earned) in samples.zip(self.earned(&worth, scale)) {
                let old: Vec<f64> = said.rows.iter().map(|row| row.logp).collect();
                let advantages = match c.method {
                    Method::Ppo => self.priced(&old, &said.reference, earned, kl_coef),
                    _ => vec![earned; old.len()],
                };
                let masked = c.mask_truncated_completions && sample.truncated;
                let counts = !masked && score.is_some();
                lessons.push(Lesson { said, old, advantages, returns: Vec::new(), counts });
            }
        }
        // Of all rewards before; of those of this step where there are none.
        let of_step = rewards.iter().sum::<f64>() / rewards.len().max(1) as f64;
        let baseline = if online.rewards.count() > 0 { online.rewards.mean() } else { of_step };
        online.rewards.add(&rewards);
        match c.method {
            Method::Reinforce => {
                let counting = lessons.iter_mut().filter(|lesson| lesson.counts);
                counting.flat_map(|lesson| &mut lesson.advantages).for_each(|a| *a -= baseline);
            }
            Method::Ppo => self.expect(&mut lessons),
            _ => {}
        }
        lessons
    }

    /// What the samples of a prompt are worth; where the pull to the reference is part of that, less its price.
    fn worth(&self, scores: &[Option<f64>], said: &[Tokens]) -> Vec<Option<f64>> {
        let ratio = |t: &Tokens| t.rows.iter().zip(&t.reference).map(|(row, f)| row.logp - f).sum::<f64>();
        match self.config.method {
            Method::Grpo | Method::Ppo => scores.to_vec(),
            _ => scores.iter().zip(said).map(|(r, t)| r.map(|r| r - self.config.beta * ratio(t))).collect(),
        }
    }

    /// What they earned beyond the others of their prompt.
    fn earned(&self, worth: &[Option<f64>], scale: Scale) -> Vec<f64> {
        let above = |expected: f64| worth.iter().map(|r| r.map_or(0.0, |r| r - expected)).collect();
        match self.config.method {
            Method::Rloo => leave_one_out(worth),
            Method::Grpo => relative(worth, scale),
            Method::NashMd => above(0.5),
            _ => above(0.0),
        }
    }

    /// Of PPO: the reward of each token, which is what it costs, and at the end what the sample is worth.
    fn priced(&self, old: &[f64], reference: &[f64], worth: f64, kl_coef: f64) -> Vec<f64> {
        let estimator = self.estimator();
        let cost = |(l, f): (&f64, &f64)| -kl_coef * estimator.of(*l, *f);
        let mut rewards: Vec<f64> = old.iter().zip(reference).map(cost).collect();
        rewards.iter_mut().last().into_iter().for_each(|last| *last += worth);
        rewards
    }

    /// Of PPO: turns what tokens earned into advantages over what was expected.
    fn expect(&self, lessons: &mut [Lesson]) {
        let c = self.config;
        let white = |lessons: &mut [Lesson], keep_mean: bool| {
            let counting = || lessons.iter().filter(|lesson| lesson.counts);
            let mut all: Vec<f64> = counting().flat_map(|lesson| lesson.advantages.iter().copied()).collect();
            whiten(&mut all, keep_mean);
            let mut all = all.into_iter();
            for lesson in lessons.iter_mut().filter(|lesson| lesson.counts) {
                lesson.advantages.iter_mut().zip(&mut all).for_each(|(a, white)| *a = white);
            }
        };
        if c.whiten_rewards {
            white(lessons, true);
        }
        for lesson in lessons.iter_mut() {
            (lesson.advantages, lesson.returns) =
                generalised(&lesson.advantages, &lesson.said.values, c.gamma, c.lam);
        }
        white(lessons, false);
    }

    /// The gradients of the samples of the prompts `mini`, and their loss.
    fn gradients<B: Backend>(
        &self,
        run: &mut Run<'_, B>,
        ds: &Dataset,
        mini: &[u32],
        lessons: &[Lesson],
        metrics: &mut Metrics,
    ) -> Result<f64, Error> {
        let loss = || Loss::new(self.config, lessons, ds.len(), mini);
        let said = run.learn(mini.len(), |run, share| {
            let (mut loss, mut said) = (loss(), Vec::new());
            let critic = run.critic.as_mut().map(|critic| (&critic.weight, &mut critic.gradient));
            let of_group =
                |group: usize, rows: &[Row], values: &[f64], coefs: &mut [f64], slopes: &mut [f64]| {
                    said.push((rows.to_vec(), values.to_vec()));
                    loss.add(group, (rows, values), (coefs, slopes), &mut Metrics::default());
                };
            let grads = &mut run.updater.sending(run.ranks, &mut run.grads);
            run.engine.accumulate_tokens(&run.weights, grads, critic, ds, &mini[share], of_group)?;
            Ok(said)
        })?;
        let mut loss = loss();
        for (group, (rows, values)) in mini.iter().zip(&said) {
            let (mut coefs, mut slopes) = (vec![0.0; rows.len()], vec![0.0; values.len()]);
            loss.add(*group as usize, (rows, values), (&mut coefs, &mut slopes), metrics);
        }
        if self.config.method == Method::Ppo {
            metrics.mean("loss/policy_avg", loss.policy);
            metrics.mean("loss/value_avg", loss.value);
        }
        Ok(loss.policy + loss.value)
    }

    /// Learns the lessons of a step; its loss is the mean over its updates. With the norm of the last gradient.
    fn update<B: Backend>(
        &self,
        run: &mut Run<'_, B>,
        ds: &Dataset,
        lessons: &[Lesson],
        metrics: &mut Metrics,
    ) -> Result<f64, Error> {
        let (rounds, parts) = self.rounds();
        let (mut norm, mut losses) = (0.0, Vec::new());
        for round in 0..rounds {
            let place = at(&[self.config.seed, run.state.step]);
            let groups = order(ds.len(), place, round as u64, parts > 1);
            for mini in groups.chunks(ds.len().div_ceil(parts)) {
                let loss = self.gradients(run, ds, mini, lessons, metrics)?;
                norm = run.update(loss, || mini.iter().map(|&g| ds.group(g as usize).row).collect())?;
                losses.push(loss);
            }
        }
        metrics.loss = losses.iter().sum::<f64>() / losses.len().max(1) as f64;
        Ok(norm)
    }
}
