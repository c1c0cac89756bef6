//! Pairs that a judge makes of samples, learned as pairs of a file are.

use super::world::{Judged, Reference};
use crate::Error;
use crate::config::{Config, Method};
use crate::engine::Tokens;
use crate::objective::{Metrics, Objective, Scored};
use crate::replay::{Past, Response, weights};
use crate::run::steps::Run;
use duel_backend::Backend;
use duel_data::{Dataset, Labels};
use duel_judge::{Opinion, win_rates};
use duel_loss::ResponseStats;
use std::ops::Range;

/// What learns from pairs of samples.
pub struct Pairs<'c, B: Backend> {
    /// How.
    pub config: &'c Config,
    /// What is learned of a pair.
    pub objective: &'c Objective,
    /// What the policy is held to.
    pub reference: &'c Reference<B>,
}

/// A pair that is learned in a step.
struct Pair {
    past: Past,
    /// The reference's log-probabilities, of the chosen and the rejected response.
    reference: [f64; 2],
    /// What sppo aims at: how much likelier each wins than not.
    lead: [f64; 2],
    /// Which of the two the reference drew; of xpo.
    drawn_by_reference: Option<usize>,
    /// How much it counts.
    weight: f64,
}

impl Pair {
    /// Of sppo: the loss, `1/2 (u - lead/beta)^2` of both responses, and its derivatives.
    fn aim(&self, stats: &[ResponseStats], beta: f64, slopes: &mut [f64], metrics: &mut Metrics) -> f64 {
        let ratio = [0, 1].map(|i| stats[i].logp - self.reference[i]);
        let miss = [0, 1].map(|i| ratio[i] - self.lead[i] / beta);
        slopes.copy_from_slice(&miss);
        metrics.mean("rewards/chosen", beta * ratio[0]);
        metrics.mean("rewards/rejected", beta * ratio[1]);
        metrics.mean("rewards/margins", beta * (ratio[0] - ratio[1]));
        metrics.mean("rewards/accuracies", f64::from(ratio[0] > ratio[1]));
        miss.iter().map(|m| m * m / 2.0).sum()
    }
}

/// The pairs as groups.
fn dataset<'p>(pairs: impl Iterator<Item = &'p Past>) -> Result<Dataset, Error> {
    let row =
        |past: &'p Past| (past.row, &past.prompt[..], vec![&past.chosen.tokens[..], &past.rejected.tokens]);
    Ok(Dataset::of_samples(pairs.map(row))?)
}

/// Places of the best and the worst of numbers, of what is judged.
fn ends(values: &[Option<f64>]) -> Option<(usize, usize)> {
    let judged = || values.iter().enumerate().filter_map(|(i, v)| Some((i, (*v)?)));
    // The first of equal ones.
    let best = judged().reduce(|a, b| if b.1 > a.1 { b } else { a })?;
    let worst = judged().reduce(|a, b| if b.1 < a.1 { b } else { a })?;
    (best.1 > worst.1).then_some((best.0, worst.0))
}

/// The mean win rate of each sample over all; scores win as Bradley and Terry have it.
fn rates(judged: &Judged<'_>) -> Vec<Option<f64>> {
    let n = judged.scores.len();
    let pairs = (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j)));
    let wins: Vec<Opinion> = pairs.map(|(i, j)| judged.verdict.wins(i, j, true)).collect();
    win_rates(&wins, n).iter().map(Opinion::said).collect()
}

impl<B: Backend> Pairs<'_, B> {
    /// Learns from the samples of a step, of which `said` tells. Returns the norm of the gradient.
    ///
    /// # Errors
    /// The device failed, or a gradient is no number.
    pub fn learn(
        &self,
        run: &mut Run<'_, B>,
        judged: &[Judged<'_>],
        mut said: &[Tokens],
        metrics: &mut Metrics,
    ) -> Result<f64, Error> {
        let mut pairs = Vec::new();
        for judged in judged {
            let (own, others) = said.split_at(judged.rollout.samples.len());
            said = others;
            let pair = self.pair(judged, own, run);
            let compared = judged.scores.iter().flatten().count() > 1;
            metrics.mean("tied", f64::from(compared && pair.is_none()));
            pairs.extend(pair);
        }
        if self.config.replay > 0 {
            let old = self.replayed(run, metrics)?;
            run.state.online.replay.keep(pairs.iter().map(|pair| pair.past.clone()));
            pairs.extend(old);
        }
        if pairs.is_empty() {
            say!(
                "warning: step {}: no prompt has two samples that count and that the judge told apart; nothing was learned",
                run.state.step + 1
            );
            return Ok(0.0);
        }
        let ds = dataset(pairs.iter().map(|pair| &pair.past))?;
        self.gradients(run, &ds, &pairs, judged.len(), metrics)?;
        run.update(metrics.loss, || pairs.iter().map(|pair| pair.past.row).collect())
    }

    /// The pair of a group of samples, of which `said` tells; `None` where no two differ.
    fn pair(&self, judged: &Judged<'_>, said: &[Tokens], run: &Run<'_, B>) -> Option<Pair> {
        let c = self.config;
        let Judged { rollout, scores, .. } = judged;
        let soft = c.method == Method::Sppo;
        let worth = if soft { rates(judged) } else { scores.clone() };
        let keep = |(i, score): (usize, &Option<f64>)| {
            score.filter(|_| !(c.mask_truncated_completions && rollout.samples[i].truncated))
        };
        let worth: Vec<Option<f64>> = worth.iter().enumerate().map(keep).collect();
        let (best, worst) = ends(&worth)?;
        let response = |i: usize| {
            let sample = &rollout.samples[i];
            Response {
                tokens: sample.tokens.clone(),
                logp: said[i].rows.iter().map(|row| row.logp).sum(),
                score: worth[i].unwrap_or(0.0),
            }
        };
        let (chosen, rejected) = (response(best), response(worst));
        if chosen.tokens == rejected.tokens {
            return None;
        }
        let of_reference = |i: usize| said[i].reference.iter().sum();
        Some(Pair {
            reference: [of_reference(best), of_reference(worst)],
            lead: if soft { [chosen.score - 0.5, rejected.score - 0.5] } else { [0.0; 2] },
            drawn_by_reference: (c.method == Method::Xpo).then(|| usize::from(best == 0)),
            weight: 1.0,
            past: Past {
                step: run.state.step,
                row: rollout.prompt.row,
                prompt: rollout.prompt.tokens.clone(),
                chosen,
                rejected,
            },
        })
    }

    /// Pairs of earlier steps, each with what the reference says of it and how much it counts now.
    fn replayed(&self, run: &mut Run<'_, B>, metrics: &mut Metrics) -> Result<Vec<Pair>, Error> {
        let c = self.config;
        let step = run.state.step;
        let drawn = run.state.online.replay.draw(c.replay, step, c.replay_max_age, c.seed);
        if drawn.is_empty() {
            return Ok(Vec::new());
        }
        let ds = dataset(drawn.iter())?;
        let all: Vec<u32> = (0..ds.len() as u32).collect();
        let (engine, policy) = (&mut run.engine, &run.weights);
        let own = |own: Range<usize>| engine.score(policy, &ds, &all[own], |_| true);
        let now = run.ranks.spread(all.len(), own)?;
        let reference = self.reference.beside(policy);
        let own = |own: Range<usize>| engine.score(&reference, &ds, &all[own], |_| true);
        let reference = run.ranks.spread(all.len(), own)?;
        let moved = |(past, now): (&Past, &[ResponseStats])| {
            (now[0].logp - past.chosen.logp) + (now[1].logp - past.rejected.logp)
        };
        let ratios: Vec<f64> = drawn.iter().zip(now.chunks(2)).map(moved).collect();
        let counts = weights(&ratios, c.replay_clip);
        let squares: f64 = counts.iter().map(|w| w * w).sum();
        metrics.mean("replay/pairs", drawn.len() as f64);
        metrics.mean("replay/effective", counts.iter().sum::<f64>().powi(2) / squares.max(f64::MIN_POSITIVE));
        for (past, ratio) in drawn.iter().zip(&ratios) {
            metrics.mean("replay/age", (step - past.step) as f64);
            metrics.mean("replay/moved", ratio.abs());
            metrics.mean("replay/clipped", f64::from(ratio.exp() > c.replay_clip));
        }
        let pair = |(i, past): (usize, Past)| Pair {
            reference: [0, 1].map(|j| reference[2 * i + j].logp),
            lead: match c.method {
                Method::Sppo => [past.chosen.score - 0.5, past.rejected.score - 0.5],
                _ => [0.0; 2],
            },
            drawn_by_reference: None,
            weight: counts[i],
            past,
        };
        Ok(drawn.into_iter().enumerate().map(pair).collect())
    }

    /// The gradients of the pairs, and what is to be logged of them.
    fn gradients(
        &self,
        run: &mut Run<'_, B>,
        ds: &Dataset,
        pairs: &[Pair],
        prompts: usize,
        metrics: &mut Metrics,
    ) -> Result<(), Error> {
        let c = self.config;
        let all: Vec<u32> = (0..ds.len() as u32).collect();
        let totals = self.objective.totals(ds, &all);
        let share = 1.0 / pairs.len() as f64;
        let soft = c.loss_type.0 == ["sppo"];
        let of_group = |group: usize, stats: &[ResponseStats], slopes: &mut [f64], metrics: &mut Metrics| {
            let pair = &pairs[group];
            let before = metrics.loss;
            if soft {
                metrics.loss += share * pair.aim(stats, c.beta, slopes, metrics);
                slopes.iter_mut().for_each(|slope| *slope *= share);
            } else {
                let labels = Labels::Ranked { margin: None };
                let scored = Scored { stats, reference: &pair.reference, labels };
                slopes.copy_from_slice(&self.objective.slopes(&[scored], totals, metrics));
            }
            metrics.loss = before + pair.weight * (metrics.loss - before);
            slopes.iter_mut().for_each(|slope| *slope *= pair.weight);
            if let Some(i) = pair.drawn_by_reference {
                let share = c.alpha / prompts as f64;
                metrics.loss += share * stats[i].logp;
                slopes[i] += share;
            }
        };
        let stats = run.learn(all.len(), |run, share| {
            let own = |group: usize, stats: &[ResponseStats], slopes: &mut [f64]| {
                of_group(group, stats, slopes, &mut Metrics::default());
            };
            let grads = &mut run.updater.sending(run.ranks, &mut run.grads);
            run.engine.accumulate(&run.weights, grads, ds, &all[share], own)
        })?;
        for (group, stats) in stats.chunks(2).enumerate() {
            of_group(group, stats, &mut [0.0; 2], metrics);
        }
        self.objective.conclude(totals, metrics);
        Ok(())
    }
}
