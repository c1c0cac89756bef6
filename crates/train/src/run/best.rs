//! Which evaluation is the best, and when there have been enough that were not.

use crate::Error;
use crate::config::Config;
use serde::{Deserialize, Serialize};

/// How evaluations are compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// The metric, with `eval_` before it.
    metric: String,
    greater: bool,
    /// Whether the best model is left at the end.
    pub loads: bool,
    patience: Option<u64>,
    threshold: f64,
}

/// The best evaluation so far, as it is carried from step to step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// What it is the best by, and whether more of that is better.
    pub by: Option<(String, bool)>,
    /// Its metric; `None` before the first.
    pub metric: Option<f64>,
    /// The step that it was after.
    pub step: u64,
    /// The best of those whose step has a checkpoint: the step, and its metric.
    pub checkpoint: Option<(u64, f64)>,
    /// Evaluations in a row that were not better, or not by enough.
    pub in_vain: u64,
}

impl Choice {
    /// That of `config`; `None`: no evaluation is compared with another.
    pub fn of(config: &Config) -> Option<Self> {
        let metric = config.metric_for_best_model.as_str();
        config.chooses().then(|| Choice {
            metric: format!("eval_{}", metric.strip_prefix("eval_").unwrap_or(metric)),
            greater: config.greater_is_better,
            loads: config.load_best_model_at_end,
            patience: config.early_stopping_patience,
            threshold: config.early_stopping_threshold,
        })
    }

    /// Begins, or goes on with `best`: what was the best by another metric, or the other way around, is none.
    pub fn begin(&self, best: &mut Best) {
        let by = Some((self.metric.clone(), self.greater));
        if best.by != by {
            *best = Best { by, ..Best::default() };
        }
    }

    /// Takes the evaluation after `step` into `best`, and says whether it is better than all before. As in
    /// transformers, patience is with the best by any margin, and ends where none was better by the threshold.
    ///
    /// # Errors
    /// The metric is none of the evaluation's.
    pub fn compare(&self, best: &mut Best, step: u64, metrics: &[(String, f64)]) -> Result<bool, Error> {
        let Some((_, value)) = metrics.iter().find(|(name, _)| *name == self.metric) else {
            let names: Vec<&str> = metrics.iter().map(|(name, _)| name.as_str()).collect();
            return Err(Error::new(format!(
                "`metric_for_best_model`: an evaluation has no {}; it has {}",
                self.metric,
                names.join(", ")
            )));
        };
        let beats = |other: f64| if self.greater { *value > other } else { *value < other };
        let enough = |other: f64| beats(other) && (value - other).abs() > self.threshold;
        best.in_vain = if best.metric.is_none_or(enough) { 0 } else { best.in_vain + 1 };
        let better = value.is_finite() && best.metric.is_none_or(beats);
        if better {
            (best.metric, best.step) = (Some(*value), step);
        }
        Ok(better)
    }

    /// Takes note that the evaluation after `step`, which had this metric, goes with a checkpoint.
    pub fn saved(&self, best: &mut Best, step: u64, metrics: &[(String, f64)]) {
        let value =
            metrics.iter().find(|(name, _)| *name == self.metric).map_or(f64::NAN, |(_, value)| *value);
        let beats = |(_, other): (u64, f64)| if self.greater { value > other } else { value < other };
        if value.is_finite() && best.checkpoint.is_none_or(beats) {
            best.checkpoint = Some((step, value));
        }
    }

    /// Whether there were as many evaluations in vain as may be.
    pub fn gives_up(&self, best: &Best) -> bool {
        self.patience.is_some_and(|patience| best.in_vain >= patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(greater: bool, threshold: f64) -> Choice {
        Choice { metric: "eval_m".into(), greater, loads: true, patience: Some(2), threshold }
    }

    /// What is better, and what is given up at, of metrics one after another.
    fn run(choice: &Choice, values: &[f64]) -> (Vec<bool>, Option<usize>, Best) {
        let mut best = Best::default();
        choice.begin(&mut best);
        let (mut better, mut end) = (Vec::new(), None);
        for (i, value) in values.iter().enumerate() {
            better.push(choice.compare(&mut best, i as u64 + 1, &[("eval_m".into(), *value)]).unwrap());
            end = end.or_else(|| choice.gives_up(&best).then_some(i));
        }
        (better, end, best)
    }

    #[test]
    fn the_best_is_kept_and_patience_ends() {
        let (better, end, best) = run(&choice(false, 0.0), &[3.0, 2.0, 2.0, 2.5, 1.0]);
        assert_eq!((better, end), (vec![true, true, false, false, true], Some(3)));
        assert_eq!((best.metric, best.step, best.in_vain), (Some(1.0), 5, 0));
        let (better, end, _) = run(&choice(true, 0.0), &[0.1, 0.2, f64::NAN, 0.1]);
        assert_eq!((better, end), (vec![true, true, false, false], Some(3)));
        // What is better by less than the threshold is the best, and in vain all the same.
        let (better, end, best) = run(&choice(true, 0.5), &[1.0, 1.25, 1.5]);
        assert_eq!((better, end, best.metric), (vec![true, true, true], Some(2), Some(1.5)));
        // A run that goes on by another metric, or the other way around, begins anew.
        let mut other = best;
        let back = choice(false, 0.0);
        back.begin(&mut other);
        assert!(!back.gives_up(&other));
        assert!(back.compare(&mut other, 9, &[("eval_m".into(), 7.0)]).unwrap());
        assert_eq!((other.metric, other.step, other.in_vain), (Some(7.0), 9, 0));
        let error = choice(true, 0.0).compare(&mut Best::default(), 1, &[("eval_loss".into(), 1.0)]);
        assert!(error.unwrap_err().to_string().contains("no eval_m; it has eval_loss"));
    }

    #[test]
    fn the_best_of_those_with_checkpoints_is_left() {
        let mut best = Best::default();
        let smaller = choice(false, 0.0);
        for (step, value) in [(2, 3.0), (4, 2.0), (6, 2.5), (8, f64::NAN)] {
            smaller.saved(&mut best, step, &[("eval_m".into(), value)]);
        }
        assert_eq!(best.checkpoint, Some((4, 2.0)));
    }
}
