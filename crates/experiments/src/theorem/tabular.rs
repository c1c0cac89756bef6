//! What answers say of a policy that is nothing but a table: the optimum of their loss, exactly.
//!
//! A loss of DPO's family sees a policy by its log-ratios alone, and a table can have any. So its optimum is a
//! statistician's estimate of rewards, and what a transformer is beside it is the error of its training.

use super::answers::Answer;
use super::law::Table;
use super::square::Square;
use duel_loss::softplus;
use duel_stats::connected;

/// Newton's steps that are tried; five or six are enough where there is an optimum.
const STEPS: usize = 100;

/// What Plackett and Luce's model says of answers at some rewards.
struct Likelihood {
    /// `-ln` of their likelihood.
    loss: f64,
    /// Its derivative by each reward.
    slope: Vec<f64>,
    /// Its second derivatives.
    curvature: Square,
}

impl Likelihood {
    fn of<'a>(answers: impl Iterator<Item = &'a Answer>, worth: &[f64]) -> Self {
        let n = worth.len();
        let mut all = Likelihood { loss: 0.0, slope: vec![0.0; n], curvature: Square::zero(n) };
        answers.for_each(|answer| all.add(answer, worth));
        all
    }

    /// Adds an answer: at each place the one that was taken, and the chances of those that were left.
    fn add(&mut self, answer: &Answer, worth: &[f64]) {
        let mut sum = worth[answer.order[answer.order.len() - 1]];
        for first in (0..answer.order.len() - 1).rev() {
            let left = &answer.order[first..];
            let (low, high) = (sum.min(worth[left[0]]), sum.max(worth[left[0]]));
            sum = high + softplus(low - high);
            self.loss += answer.share * (sum - worth[left[0]]);
            self.slope[left[0]] -= answer.share;
            for (place, &i) in left.iter().enumerate() {
                let p = answer.share * (worth[i] - sum).exp();
                self.slope[i] += p;
                self.curvature.add(i, i, p);
                for &j in &left[place..] {
                    let both = p * (worth[j] - sum).exp();
                    self.curvature.add(i, j, -both);
                }
            }
        }
    }
}

fn of_prompt(answers: &[Answer], prompt: usize) -> impl Iterator<Item = &Answer> + Clone {
    answers.iter().filter(move |answer| answer.prompt == prompt)
}

/// The second derivatives of the loss of these answers to one prompt at some rewards: of all answers by their chances,
/// Fisher's information of one.
pub fn information(answers: &[Answer], prompt: usize, worth: &[f64]) -> Square {
    Likelihood::of(of_prompt(answers, prompt), worth).curvature
}

/// The rewards under which the answers are most likely by Plackett and Luce's model, each prompt's with a mean of 0:
/// `beta` times the log-ratios of DPO's optimum. `None` where there are none: some responses of a prompt were never
/// beaten by the others (Ford, 1957), and DPO would drive the policy away for ever.
pub fn most_likely(answers: &[Answer], prompts: usize, responses: usize) -> Option<Table> {
    (0..prompts).map(|prompt| newton(of_prompt(answers, prompt), responses)).collect()
}

fn newton<'a>(answers: impl Iterator<Item = &'a Answer> + Clone, n: usize) -> Option<Vec<f64>> {
    if !all_are_beaten(answers.clone(), n) {
        return None;
    }
    let mut worth = vec![0.0; n];
    let mut at = Likelihood::of(answers.clone(), &worth);
    for _ in 0..STEPS {
        let step = at.curvature.factor(1.0)?.solve(&at.slope);
        // Twice what the step would take off the loss, were that a parabola.
        let decrement: f64 = step.iter().zip(&at.slope).map(|(s, g)| s * g).sum();
        let mut length = 1.0;
        loop {
            let next: Vec<f64> = worth.iter().zip(&step).map(|(w, s)| w - length * s).collect();
            let there = Likelihood::of(answers.clone(), &next);
            // Near the optimum the loss has no digits left to tell.
            if there.loss <= at.loss || decrement < 1e-12 {
                (worth, at) = (next, there);
                break;
            }
            length /= 2.0;
        }
        if decrement < 1e-24 {
            let mean = worth.iter().sum::<f64>() / n as f64;
            return Some(worth.into_iter().map(|w| w - mean).collect());
        }
    }
    None
}

/// Whether there is no set of responses of which none was ever put behind one outside it.
fn all_are_beaten<'a>(answers: impl Iterator<Item = &'a Answer>, n: usize) -> bool {
    let mut beats = vec![vec![false; n]; n];
    for answer in answers.filter(|answer| answer.share > 0.0) {
        for pair in answer.order.windows(2) {
            // What stands between two is on the way from one to the other.
            beats[pair[0]][pair[1]] = true;
        }
    }
    connected(n, |i, j| beats[i][j])
}

/// The log-ratios of IPO's optimum of summed scores, each prompt's with a mean of 0: least squares of `1 / (2 beta)` a
/// pair. `None` where a prompt's pairs do not hang together.
pub fn least_squares(answers: &[Answer], beta: f64, prompts: usize, responses: usize) -> Option<Table> {
    let prompt = |prompt| {
        let mut curvature = Square::zero(responses);
        let mut slope = vec![0.0; responses];
        for answer in of_prompt(answers, prompt) {
            let &[w, l] = answer.order.as_slice() else { panic!("a loss of pairs") };
            curvature.add(w, w, answer.share);
            curvature.add(l, l, answer.share);
            curvature.add(w, l, -answer.share);
            slope[w] += answer.share / (2.0 * beta);
            slope[l] -= answer.share / (2.0 * beta);
        }
        let ratios = curvature.factor(1.0)?.solve(&slope);
        let mean = ratios.iter().sum::<f64>() / responses as f64;
        Some(ratios.into_iter().map(|u| u - mean).collect())
    };
    (0..prompts).map(prompt).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::theorem::answers::{Judge, drawn, endless, pairs, rankings};
    use duel_loss::{Group, Objective, Score, Settings, Totals, word};

    fn rewards(prompts: usize, responses: usize) -> Table {
        let mut rng = fastrand::Rng::with_seed(4);
        let row = |_| {
            let row: Vec<f64> = (0..responses).map(|_| 2.0 * rng.f64() - 1.0).collect();
            let mean = row.iter().sum::<f64>() / responses as f64;
            row.into_iter().map(|r| r - mean).collect()
        };
        (0..prompts).map(row).collect()
    }

    /// Section 5.1 of the paper: with every answer by its chance the estimate is the reward, whether of pairs or of
    /// rankings.
    #[test]
    fn endless_data_says_the_reward() {
        let reward = rewards(2, 8);
        for questions in [pairs(2, 8), rankings(2, 8, 4, 5, 1)] {
            let answers = endless(&questions, &reward, Judge::Draws);
            let found = most_likely(&answers, 2, 8).unwrap();
            for (found, reward) in found.iter().flatten().zip(reward.iter().flatten()) {
                assert!((found - reward).abs() < 1e-12);
            }
        }
    }

    /// The losses that transformers are trained by have no slope at what is said to be their optimum.
    #[test]
    fn the_trainers_losses_are_flat_there() {
        let (n, beta) = (8, 0.4);
        let reward = rewards(1, n);
        let two = pairs(1, n);
        let ranked = rankings(1, n, 4, 9, 1);
        let likely = |answers: &[Answer]| most_likely(answers, 1, n).map(|v| scaled(&v, 1.0 / beta));
        let squares = |answers: &[Answer]| least_squares(answers, beta, 1, n);
        type Optimum<'a> = &'a dyn Fn(&[Answer]) -> Option<Table>;
        let cases: [(&str, &[_], Optimum<'_>); 3] =
            [("sigmoid", &two, &likely), ("plackett_luce", &ranked, &likely), ("ipo", &two, &squares)];
        for (name, questions, optimum) in cases {
            let answers = drawn(questions, &reward, Judge::Draws, 5000, 2);
            let ratios = optimum(&answers).unwrap();
            let settings = Settings { beta, ipo_per_token: false, ..Settings::default() };
            let loss = Objective::new(vec![(1.0, word(name).unwrap())], settings);
            let mut slope = vec![0.0; n];
            for answer in &answers {
                let score = |&i: &usize| Score { logp: ratios[0][i], tokens: 1, ..Score::default() };
                let scores: Vec<Score> = answer.order.iter().map(score).collect();
                let totals = Totals { groups: 1, pairs: 1, ..Totals::default() };
                let mut own = vec![0.0; scores.len()];
                loss.slopes(&[Group::ranked(&scores)], totals, &mut own);
                answer.order.iter().zip(own).for_each(|(&i, d)| slope[i] += answer.share * d);
            }
            assert!(slope.iter().all(|d| d.abs() < 1e-13), "{name}: {slope:?}");
        }
    }

    fn scaled(table: &Table, by: f64) -> Table {
        table.iter().map(|row| row.iter().map(|x| by * x).collect()).collect()
    }

    #[test]
    fn who_is_never_beaten_has_no_reward() {
        let answer = |order: &[usize]| Answer { prompt: 0, order: order.to_vec(), share: 0.25 };
        let mut answers = vec![answer(&[0, 1, 2]), answer(&[0, 2, 1])];
        assert!(most_likely(&answers, 1, 3).is_none());
        answers.push(answer(&[1, 0]));
        assert!(most_likely(&answers, 1, 3).is_some());
        assert!(most_likely(&answers, 1, 4).is_none(), "of the fourth nothing is said");
        let reward = rewards(1, 5);
        assert!(most_likely(&endless(&pairs(1, 5), &reward, Judge::IsSure), 1, 5).is_none());
    }
}
