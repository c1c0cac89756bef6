//! Pairs of earlier steps, kept to be learned again. A label does not age; what the policy would draw does.

use duel_random::at;
use serde::{Deserialize, Serialize};

/// A pair that was drawn and judged, with all that it takes to learn from it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Past {
    /// The step that drew it.
    pub step: u64,
    /// The row of its prompt.
    pub row: usize,
    /// The prompt.
    pub prompt: Vec<u32>,
    /// The better response.
    pub chosen: Response,
    /// The other.
    pub rejected: Response,
}

/// A response of a pair.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// Its log-probability under the policy of its step.
    pub logp: f64,
    /// What it was worth.
    pub score: f64,
}

/// The pairs, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Replay(Vec<Past>);

impl Replay {
    /// Forgets those of more than `age` steps before `step`, then draws up to `n` different ones of the rest, by `seed`
    /// and the step.
    pub fn draw(&mut self, n: usize, step: u64, age: u64, seed: u64) -> Vec<Past> {
        self.0.retain(|past| step - past.step <= age);
        let mut places: Vec<usize> = (0..self.0.len()).collect();
        places.sort_by_key(|&i| at(&[seed, step, i as u64]));
        places.truncate(n);
        // In the order of their age, so that sums have an order.
        places.sort_unstable();
        places.into_iter().map(|i| self.0[i].clone()).collect()
    }

    /// Keeps pairs.
    pub fn keep(&mut self, pairs: impl IntoIterator<Item = Past>) {
        self.0.extend(pairs);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// How much pairs count that another policy drew: `min(clip, exp x)` of the log-ratio `x` of the policy now and the one
/// that drew it, over their mean, so that replayed pairs count as much together as fresh ones.
pub fn weights(ratios: &[f64], clip: f64) -> Vec<f64> {
    let raw: Vec<f64> = ratios.iter().map(|x| x.exp().min(clip)).collect();
    let mean = raw.iter().sum::<f64>() / raw.len().max(1) as f64;
    // All far from the policy: nothing can be said of them.
    raw.into_iter().map(|w| if mean > 0.0 { w / mean } else { 0.0 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn past(step: u64) -> Past {
        let response = Response { tokens: vec![1], logp: -1.0, score: 0.0 };
        let (chosen, rejected) = (response.clone(), response);
        Past { step, row: step as usize, prompt: vec![1], chosen, rejected }
    }

    #[test]
    fn the_old_are_forgotten_and_the_others_drawn_once() {
        let mut replay = Replay::default();
        replay.keep((0..10).map(past));
        let drawn = replay.draw(4, 10, 6, 42);
        assert_eq!(replay.len(), 6);
        assert!(drawn.windows(2).all(|w| w[0].step < w[1].step) && drawn.iter().all(|p| p.step >= 4));
        assert_eq!(drawn, replay.clone().draw(4, 10, 6, 42));
        assert_ne!(drawn, replay.clone().draw(4, 11, 7, 42));
        assert_eq!(replay.draw(9, 10, 6, 42).len(), 6);
        assert!(replay.draw(9, 100, 6, 42).is_empty() && replay.is_empty());
    }

    #[test]
    fn weights_are_clipped_and_of_mean_one() {
        let w = weights(&[0.0, 5.0, -(2f64.ln())], 1.0);
        let want = [1.2, 1.2, 0.6];
        assert!(w.iter().zip(want).all(|(w, want)| (w - want).abs() < 1e-12), "{w:?}");
        assert_eq!(weights(&[-2000.0], 1.0), [0.0]);
        assert!(weights(&[], 1.0).is_empty());
    }
}
