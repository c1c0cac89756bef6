//! What is logged of samples, by TRL's names.

use super::world::Judged;
use crate::engine::Tokens;
use crate::objective::Metrics;
use duel_loss::policy::{Estimator, Said, deviation};
use duel_rollout::Sample;

/// Of the samples of a step and what they are worth: of the first `own` of each prompt.
pub fn judged(metrics: &mut Metrics, all: &[Judged<'_>], own: usize) {
    for Judged { rollout, scores, .. } in all {
        let (samples, scores) = (&rollout.samples[..own], &scores[..own]);
        let said: Vec<f64> = scores.iter().flatten().copied().collect();
        said.iter().for_each(|score| metrics.mean("reward", *score));
        scores.iter().for_each(|score| metrics.mean("unjudged", f64::from(score.is_none())));
        if said.len() > 1 {
            let deviation = deviation(&said);
            metrics.mean("reward_std", deviation);
            metrics.mean("frac_reward_zero_std", f64::from(deviation == 0.0));
        }
        samples.iter().for_each(|sample| length(metrics, sample));
    }
}

fn length(metrics: &mut Metrics, sample: &Sample) {
    let tokens = sample.tokens.len() as f64;
    metrics.mean("completions/mean_length", tokens);
    metrics.least("completions/min_length", tokens);
    metrics.most("completions/max_length", tokens);
    metrics.mean("completions/clipped_ratio", f64::from(sample.truncated));
    if !sample.truncated {
        metrics.mean("completions/mean_terminated_length", tokens);
    }
}

/// Of what policy and reference say of the samples; where these are the policy's `own`, the KL a token, exact and by
/// its estimates, and of whole samples.
pub fn said<'a>(metrics: &mut Metrics, all: impl IntoIterator<Item = &'a Tokens>, own: bool) {
    for Tokens { rows, reference, kl, .. } in all {
        let n = rows.len() as f64;
        metrics.sum("entropy", rows.iter().map(|row| row.entropy).sum(), n);
        if !own {
            continue;
        }
        let by = |estimator: Estimator| {
            rows.iter().zip(reference).map(|(row, f)| estimator.of(row.logp, *f)).sum::<f64>()
        };
        metrics.sum("kl", kl.iter().sum(), n);
        metrics.sum("kl_k1", by(Estimator::K1), n);
        metrics.sum("kl_k3", by(Estimator::K3), n);
        metrics.mean("sequence_kl", kl.iter().sum());
    }
}

/// Of a sample of `n` tokens, once it was learned.
pub fn learned(metrics: &mut Metrics, said: &Said, n: usize) {
    let (low, high, n) = (said.low as f64, said.high as f64, n as f64);
    metrics.sum("clip_ratio/low_mean", low, n);
    metrics.sum("clip_ratio/high_mean", high, n);
    metrics.sum("clip_ratio/region_mean", low + high, n);
    metrics.sum("policy/approxkl_avg", said.moved, n);
    metrics.sum("val/ratio", said.ratio, n);
}

/// Of PPO's samples: their scores, and what they are worth when the KL from the reference has its price. Returns the
/// mean of the summed log-ratios of a sample.
pub fn episodes<'a>(
    metrics: &mut Metrics,
    all: impl Iterator<Item = (&'a Sample, Option<f64>, &'a Tokens)>,
    kl_coef: f64,
    estimator: Estimator,
) -> f64 {
    let (mut sum, mut n) = (0.0, 0.0);
    for (sample, score, Tokens { rows, reference, .. }) in all {
        let by = |e: Estimator| rows.iter().zip(reference).map(|(row, f)| e.of(row.logp, *f)).sum::<f64>();
        let (kl, price) = (by(Estimator::K1), kl_coef * by(estimator));
        metrics.mean("objective/kl", kl);
        metrics.mean("objective/non_score_reward", -price);
        metrics.mean("objective/entropy", rows.iter().map(|row| -row.logp).sum());
        if let Some(score) = score {
            metrics.mean("objective/scores", score);
            metrics.mean("objective/rlhf_reward", score - price);
        }
        metrics.mean("val/num_eos_tokens", f64::from(!sample.truncated));
        (sum, n) = (sum + kl, n + 1.0);
    }
    metrics.mean("objective/kl_coef", kl_coef);
    sum / f64::max(n, 1.0)
}
