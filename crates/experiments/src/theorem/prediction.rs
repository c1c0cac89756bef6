//! What `n` answers can say of the optimum, before any is given: the delta method.

use super::answers::{Judge, Question, endless};
use super::law::Aim;
use super::square::{Factor, Square};
use super::tabular::information;
use crate::gaussian::gaussian;

/// Draws of an estimate, for the mean of its largest error.
const DRAWS: usize = 4000;

/// How far the optimum of the loss of `n` answers is from that of endless data, to first order in `1/n`.
///
/// The most likely rewards of `n` answers have the covariance `C = I⁺ / n`, where `I` is Fisher's information of one
/// answer; DPO's policy has them over `beta` as log-ratios, and `KL(policy || optimum)` is half of what the information
/// `F = diag(p) - p pᵀ` of the optimum makes of their error. So the KL has the mean `tr(F C) / (2 beta²)` and the
/// variance `tr((F C)²) / (2 beta⁴)` of a sum of weighted squares of normal numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// `n` times the mean KL.
    pub kl: f64,
    /// `n` times the standard deviation of the KL.
    pub kl_deviation: f64,
    /// `sqrt(n)` times the mean of the largest error of an implied reward.
    pub error: f64,
    /// `sqrt(n)` times its standard deviation.
    pub error_deviation: f64,
}

impl Prediction {
    /// Of questions that are drawn evenly and answered by Plackett and Luce's model of the reward; `None` where they do
    /// not hang together.
    pub fn of(questions: &[Question], aim: &Aim) -> Option<Self> {
        let answers = endless(questions, &aim.reward, Judge::Draws);
        let factor = |prompt| information(&answers, prompt, &aim.reward[prompt]).factor(1.0);
        let factors = (0..aim.reward.len()).map(factor).collect::<Option<Vec<_>>>()?;
        let (mut mean, mut variance) = (0.0, 0.0);
        for (factor, optimum) in factors.iter().zip(&aim.optimum) {
            let (first, second) = fisher(optimum).traces(factor);
            mean += first / (2.0 * aim.beta.powi(2));
            variance += second / (2.0 * aim.beta.powi(4));
        }
        let prompts = factors.len() as f64;
        let (error, error_deviation) = largest(&factors, aim.reward[0].len());
        Some(Prediction {
            kl: mean / prompts,
            kl_deviation: variance.sqrt() / prompts,
            error,
            error_deviation,
        })
    }
}

/// `diag(p) - p pᵀ`.
fn fisher(logp: &[f64]) -> Square {
    let mut all = Square::zero(logp.len());
    for (i, a) in logp.iter().enumerate() {
        all.add(i, i, a.exp());
        logp[i..].iter().enumerate().for_each(|(j, b)| all.add(i, i + j, -(a + b).exp()));
    }
    all
}

/// Mean and standard deviation of the largest of the errors, of drawn ones.
fn largest(factors: &[Factor], responses: usize) -> (f64, f64) {
    let mut rng = fastrand::Rng::with_seed(0);
    let mut draw = || {
        let of = |factor: &Factor| {
            let error = factor.spread(&(0..responses).map(|_| gaussian(&mut rng)).collect::<Vec<_>>());
            let mean = error.iter().sum::<f64>() / responses as f64;
            error.iter().fold(0.0, |most: f64, e| most.max((e - mean).abs()))
        };
        factors.iter().map(of).fold(0.0, f64::max)
    };
    let all: Vec<f64> = (0..DRAWS).map(|_| draw()).collect();
    let mean = all.iter().sum::<f64>() / DRAWS as f64;
    let variance = all.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (DRAWS - 1) as f64;
    (mean, variance.sqrt())
}
