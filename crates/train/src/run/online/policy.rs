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
use duel_loss::policy::{Controller, Estimator, Scale, generalised, leave_one_out, relative, whiten};
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
        let lessons = self.lessons(judged, said, &mut online);
        if self.config.method == Method::Ppo {
            let kl_coef = online.kl_coef.unwrap_or(self.config.kl_coef);
            let samples =
                judged.iter().flat_map(|j| &j.rollout.samples).zip(judged.iter().flat_map(|j| &j.scores));
            let of_sample =
                samples.zip(&lessons).map(|((sample, score), lesson)| (sample, *score, &lesson.said));
            let kl = report::episodes(metrics, of_sample, kl_coef);
            if let Some(target) = self.config.target_kl {
                let mut controller = Controller { beta: kl_coef, target, horizon: self.config.kl_horizon };
                controller.observe(kl, lessons.len());
                online.kl_coef = Some(controller.beta);
            }
        }
        let norm = match lessons.iter().any(|lesson| lesson.counts) {
            true => self.update(run, ds, &lessons, metrics)?,
            false => {
                eprintln!(
                    "warning: step {}: the judge said nothing of any sample that counts; nothing was learned",
                    run.state.step + 1
                );
                0.0
            }
        };
        run.state.online = online;
        Ok(norm)
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
        let mut said = said.into_iter();
        let mut lessons = Vec::new();
        let mut rewards = Vec::new();
        // Of all rewards so far; of those of the first step where there are none before.
        let before = (online.rewards.count() > 0).then(|| online.rewards.mean());
        let all: Vec<f64> = judged.iter().flat_map(|j| j.scores.iter().flatten().copied()).collect();
        let scale = match c.scale_rewards {
            ScaleRewards::Group => Scale::Group,
            ScaleRewards::Batch => Scale::Step(report::deviation(&all)),
            ScaleRewards::None => Scale::None,
        };
        let kl_coef = online.kl_coef.unwrap_or(c.kl_coef);
        for Judged { rollout, scores, .. } in judged {
            let own: Vec<Tokens> = said.by_ref().take(scores.len()).collect();
            let ratio =
                |t: &Tokens| -> f64 { t.rows.iter().zip(&t.reference).map(|(row, f)| row.logp - f).sum() };
            let pulled: Vec<Option<f64>> = match c.method {
                Method::Grpo | Method::Ppo => scores.clone(),
                _ => scores.iter().zip(&own).map(|(r, t)| r.map(|r| r - c.beta * ratio(t))).collect(),
            };
            let earned = match c.method {
                Method::Rloo => leave_one_out(&pulled),
                Method::Grpo => relative(&pulled, scale),
                Method::NashMd => pulled.iter().map(|r| r.map_or(0.0, |r| r - 0.5)).collect(),
                _ => pulled.iter().map(|r| r.unwrap_or(0.0)).collect(),
            };
            rewards.extend(pulled.iter().flatten());
            for (((tokens, sample), score), earned) in
                own.into_iter().zip(&rollout.samples).zip(scores).zip(earned)
            {
                let n = tokens.rows.len();
                let old: Vec<f64> = tokens.rows.iter().map(|row| row.logp).collect();
                let advantages = match c.method {
                    Method::Ppo => {
                        let k = match c.kl_estimator {
                            KlEstimator::K1 => Estimator::K1,
                            KlEstimator::K3 => Estimator::K3,
                        };
                        let cost = |(l, f): (&f64, &f64)| -kl_coef * k.of(*l, *f);
                        let mut tokens: Vec<f64> = old.iter().zip(&tokens.reference).map(cost).collect();
                        tokens.resize(n, 0.0);
                        if let Some(last) = tokens.last_mut() {
                            *last += earned;
                        }
                        tokens
                    }
                    _ => vec![earned; n],
                };
                let masked = c.mask_truncated_completions && sample.truncated;
                let counts = !masked && score.is_some();
                lessons.push(Lesson { said: tokens, old, advantages, returns: Vec::new(), counts });
            }
        }
        if c.method == Method::Reinforce {
            let baseline = before.unwrap_or(rewards.iter().sum::<f64>() / rewards.len().max(1) as f64);
            let of_counting = lessons.iter_mut().filter(|lesson| lesson.counts);
            of_counting.for_each(|lesson| lesson.advantages.iter_mut().for_each(|a| *a -= baseline));
        }
        online.rewards.add(&rewards);
        if c.method == Method::Ppo {
            self.expect(&mut lessons);
        }
        lessons
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
        run.clear();
        let mut loss = Loss::new(self.config, lessons, ds.len(), mini);
        let critic = run.critic.as_mut().map(|critic| (&critic.weight, &mut critic.gradient));
        let of_group = |group: usize, rows: &[Row], values: &[f64], coefs: &mut [f64], slopes: &mut [f64]| {
            loss.add(group, (rows, values), (coefs, slopes), metrics);
        };
        run.engine.accumulate_tokens(&run.weights, &mut run.grads, critic, ds, mini, of_group)?;
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
