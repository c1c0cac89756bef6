//! Questions which of some responses is best, and answers by a reward.

use super::law::Table;
use duel_loss::{logistic, softplus};

/// Responses to a prompt that are to be put in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// The prompt's number.
    pub prompt: usize,
    /// The responses' numbers.
    pub asked: Vec<usize>,
}

/// An order that was given.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The prompt's number.
    pub prompt: usize,
    /// The responses' numbers, best first.
    pub order: Vec<usize>,
    /// What share of all answers it is. Losses are linear in it: a million answers cost as much as these.
    pub share: f64,
}

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Judge {
    /// Draws the best by `exp(reward)`, then the best of the rest: Bradley and Terry's model of two, Plackett and
    /// Luce's of more.
    Draws,
    /// The same, and then turns this share of the orders of two around.
    Errs(f64),
    /// The higher reward always wins.
    IsSure,
}

/// Every two responses of each prompt.
pub fn pairs(prompts: usize, responses: usize) -> Vec<Question> {
    let two = move |i: usize| (i + 1..responses).map(move |j| vec![i, j]);
    let of = move |prompt| (0..responses).flat_map(two).map(move |asked| Question { prompt, asked });
    (0..prompts).flat_map(of).collect()
}

/// Questions of `size` responses, such that each of a prompt's responses is in `each` of them, in an order that the
/// seed says.
///
/// # Panics
/// When `size` does not divide the number of responses.
pub fn rankings(prompts: usize, responses: usize, size: usize, each: usize, seed: u64) -> Vec<Question> {
    assert!(responses.is_multiple_of(size), "every response in as many questions");
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut all = Vec::new();
    for prompt in 0..prompts {
        for _ in 0..each {
            let mut shuffled: Vec<usize> = (0..responses).collect();
            rng.shuffle(&mut shuffled);
            let asked = shuffled.chunks(size).map(<[usize]>::to_vec);
            all.extend(asked.map(|asked| Question { prompt, asked }));
        }
    }
    all
}

impl Question {
    /// Every order, with its chance.
    fn orders(&self, reward: &Table, judge: Judge) -> Vec<(Vec<usize>, f64)> {
        let reward = &reward[self.prompt];
        match (judge, self.asked.as_slice()) {
            (Judge::IsSure, asked) => {
                let mut order = asked.to_vec();
                order.sort_by(|a, b| reward[*b].total_cmp(&reward[*a]));
                vec![(order, 1.0)]
            }
            (Judge::Errs(share), &[a, b]) => {
                let p = logistic(reward[a] - reward[b]);
                let p = p + share * (1.0 - 2.0 * p);
                vec![(vec![a, b], p), (vec![b, a], 1.0 - p)]
            }
            (Judge::Errs(_), _) => panic!("orders of more than two have no other way round"),
            (Judge::Draws, asked) => {
                let chance = |order: &Vec<usize>| (-surprise(order, reward)).exp();
                permutations(asked).into_iter().map(|order| (order.clone(), chance(&order))).collect()
            }
        }
    }
}

/// `-ln` of the chance of an order under Plackett and Luce's model (Rafailov et al., 2023, equation 18).
fn surprise(order: &[usize], worth: &[f64]) -> f64 {
    let mut sum = f64::NEG_INFINITY;
    let mut all = 0.0;
    for &i in order.iter().rev() {
        let (low, high) = (sum.min(worth[i]), sum.max(worth[i]));
        sum = if low == f64::NEG_INFINITY { high } else { high + softplus(low - high) };
        all += sum - worth[i];
    }
    all
}

fn permutations(of: &[usize]) -> Vec<Vec<usize>> {
    let rest = |i: usize| [&of[..i], &of[i + 1..]].concat();
    match of {
        [] => vec![Vec::new()],
        _ => (0..of.len())
            .flat_map(|i| permutations(&rest(i)).into_iter().map(move |p| [&[of[i]][..], &p].concat()))
            .collect(),
    }
}

/// What endless data says: every order by its chance, each question as often.
pub fn endless(questions: &[Question], reward: &Table, judge: Judge) -> Vec<Answer> {
    let each = 1.0 / questions.len() as f64;
    let of = |q: &Question| {
        let answer = |(order, chance)| Answer { prompt: q.prompt, order, share: each * chance };
        q.orders(reward, judge).into_iter().map(answer).collect::<Vec<_>>()
    };
    questions.iter().flat_map(of).collect()
}

/// `n` answers, each to a question that is drawn evenly; the same ones are one with a larger share.
pub fn drawn(questions: &[Question], reward: &Table, judge: Judge, n: usize, seed: u64) -> Vec<Answer> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let orders: Vec<_> = questions.iter().map(|q| q.orders(reward, judge)).collect();
    let mut counts: Vec<Vec<u32>> = orders.iter().map(|orders| vec![0; orders.len()]).collect();
    for _ in 0..n {
        let question = rng.usize(..questions.len());
        let mut left = rng.f64();
        let order = orders[question].iter().position(|(_, chance)| {
            left -= chance;
            left < 0.0
        });
        // Chances add up to 1 but for a rounding.
        counts[question][order.unwrap_or(0)] += 1;
    }
    let given = questions.iter().zip(orders).zip(counts).flat_map(|((q, orders), counts)| {
        let share = move |count: u32| f64::from(count) / n as f64;
        orders
            .into_iter()
            .zip(counts)
            .filter(|(_, count)| *count > 0)
            .map(move |((order, _), count)| Answer { prompt: q.prompt, order, share: share(count) })
    });
    given.collect()
}

/// The answers whose plain loss is the smoothed loss of these: the other way round as well, each by its weight.
pub fn smoothed(answers: &[Answer], as_given: f64, turned: f64) -> Vec<Answer> {
    let both = |a: &Answer| {
        let order: Vec<usize> = a.order.iter().rev().copied().collect();
        [Answer { share: as_given * a.share, ..a.clone() }, Answer { order, share: turned * a.share, ..*a }]
    };
    answers.iter().flat_map(both).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chances_are_plackett_and_luces() {
        let reward = vec![vec![0.3, -1.0, 0.7, 0.1]];
        let question = Question { prompt: 0, asked: vec![2, 0, 1] };
        let orders = question.orders(&reward, Judge::Draws);
        assert_eq!(orders.len(), 6);
        assert!((orders.iter().map(|(_, p)| p).sum::<f64>() - 1.0).abs() < 1e-15);
        let e = |i: usize| reward[0][i].exp();
        for (order, p) in &orders {
            let [a, b, c] = order[..] else { panic!("{order:?}") };
            let want = e(a) / (e(a) + e(b) + e(c)) * e(b) / (e(b) + e(c));
            assert!((p - want).abs() < 1e-15);
        }
        let sure = question.orders(&reward, Judge::IsSure);
        assert_eq!(sure, [(vec![2, 0, 1], 1.0)]);
        let pair = Question { prompt: 0, asked: vec![0, 1] };
        let erring = pair.orders(&reward, Judge::Errs(0.2));
        assert!((erring[0].1 - (0.8 * logistic(1.3) + 0.2 * logistic(-1.3))).abs() < 1e-15);
    }

    /// Shares of many draws are the chances, within five standard deviations of the least likely to be so.
    #[test]
    fn draws_are_what_is_expected() {
        let reward = vec![vec![0.3, -1.0, 0.7, 0.1], vec![0.0, 0.5, -0.5, 1.0]];
        for questions in [pairs(2, 4), rankings(2, 4, 4, 1, 3)] {
            let n = 200_000;
            let given = drawn(&questions, &reward, Judge::Draws, n, 7);
            let all = endless(&questions, &reward, Judge::Draws);
            assert_eq!(given.len(), all.len());
            for (got, want) in given.iter().zip(&all) {
                assert_eq!((got.prompt, &got.order), (want.prompt, &want.order));
                let deviation = (want.share / n as f64).sqrt();
                assert!((got.share - want.share).abs() < 5.0 * deviation, "{got:?} {want:?}");
            }
        }
    }

    #[test]
    fn every_response_is_asked_as_often() {
        let questions = rankings(3, 8, 4, 5, 1);
        assert_eq!(questions.len(), 3 * 2 * 5);
        for prompt in 0..3 {
            for response in 0..8 {
                let asked = |q: &&Question| q.prompt == prompt && q.asked.contains(&response);
                assert_eq!(questions.iter().filter(asked).count(), 5);
            }
        }
    }
}
