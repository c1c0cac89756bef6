use super::*;
use proptest::prelude::*;

/// Derivatives by central differences, of which 1e-6 of the scale is far above the error.
fn differences(at: &[f64], f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let h = 1e-6;
    (0..at.len())
        .map(|i| {
            let moved = |by: f64| {
                let mut x = at.to_vec();
                x[i] += by;
                f(&x)
            };
            (moved(h) - moved(-h)) / (2.0 * h)
        })
        .collect()
}

fn surrogates() -> impl Strategy<Value = Surrogate> {
    let ratio = prop_oneof![Just(Ratio::None), Just(Ratio::Token), Just(Ratio::Response)];
    let clip = prop_oneof![Just(Clip::NEVER), Just(Clip { low: 0.2, high: 0.28 })];
    (ratio, clip, prop_oneof![Just(0.0), 0.01..0.5]).prop_map(|(ratio, clip, beta)| Surrogate {
        ratio,
        clip,
        beta,
    })
}

proptest! {
    #[test]
    fn coefficients_are_derivatives(
        surrogate in surrogates(),
        tokens in prop::collection::vec((-4.0..-0.1f64, -0.6..0.6f64, -1.0..1.0f64, -2.0..2.0f64), 1..6),
        weight in 0.1..2.0f64,
    ) {
        let policy: Vec<f64> = tokens.iter().map(|t| t.0).collect();
        let old: Vec<f64> = tokens.iter().map(|t| t.0 - t.1).collect();
        let reference: Vec<f64> = tokens.iter().map(|t| t.0 - t.2).collect();
        // A response's ratio is of one advantage.
        let one = surrogate.ratio == Ratio::Response;
        let advantages: Vec<f64> = tokens.iter().map(|t| if one { tokens[0].3 } else { t.3 }).collect();
        let reference = if surrogate.beta == 0.0 { &[][..] } else { &reference };
        let of = |policy: &[f64]| {
            let mut coefs = vec![0.0; policy.len()];
            let sampled = Sampled { policy, old: &old, reference };
            (surrogate.slopes(sampled, &advantages, weight, &mut coefs), coefs)
        };
        // Where a ratio is within the step of an edge there is no derivative.
        let whole: f64 = tokens.iter().map(|t| t.1).sum::<f64>().exp();
        let ratios = tokens.iter().map(|t| if one { whole } else { t.1.exp() });
        let edges = [1.0 - surrogate.clip.low, 1.0 + surrogate.clip.high];
        prop_assume!(ratios.into_iter().all(|r| edges.iter().all(|edge| (r - edge).abs() > 1e-4)));
        let (_, coefs) = of(&policy);
        for (coef, d) in coefs.iter().zip(differences(&policy, |x| of(x).0.loss)) {
            prop_assert!((coef - d).abs() <= 1e-6 * (1.0 + d.abs() + whole), "{coef} {d}");
        }
    }

    #[test]
    fn values_have_their_derivative(v in -2.0..2.0f64, old in -2.0..2.0f64, g in -2.0..2.0f64) {
        let loss = ValueLoss { weight: 0.3, range: 0.2 };
        let near_an_edge = [old - 0.2, old + 0.2].iter().any(|edge| (v - edge).abs() < 1e-4);
        let near_a_tie = ((v - g).abs() - (v.clamp(old - 0.2, old + 0.2) - g).abs()).abs() < 1e-4 && v != v.clamp(old - 0.2, old + 0.2);
        prop_assume!(!near_an_edge && !near_a_tie);
        let d = differences(&[v], |x| loss.of(x[0], old, g).0)[0];
        prop_assert!((loss.of(v, old, g).1 - d).abs() < 1e-7);
    }

    /// The first time that a sample is used every ratio is 1, and PPO is REINFORCE with the same advantages.
    #[test]
    fn ppo_begins_as_reinforce(tokens in prop::collection::vec((-4.0..-0.1f64, -2.0..2.0f64), 1..6)) {
        let (policy, advantages): (Vec<f64>, Vec<f64>) = tokens.into_iter().unzip();
        let coefs = |ratio| {
            let mut coefs = vec![0.0; policy.len()];
            let sampled = Sampled { policy: &policy, old: &policy, reference: &[] };
            let surrogate = Surrogate { ratio, clip: Clip { low: 0.2, high: 0.2 }, beta: 0.0 };
            let said = surrogate.slopes(sampled, &advantages, 0.25, &mut coefs);
            assert_eq!((said.low, said.high, said.moved), (0, 0, 0.0));
            coefs
        };
        prop_assert_eq!(coefs(Ratio::None), coefs(Ratio::Token));
        prop_assert_eq!(coefs(Ratio::None), coefs(Ratio::Response));
    }

    /// Backwards in one pass as forwards by the definition, `sum_k (gamma lambda)^k d_{t+k}`.
    #[test]
    fn advantages_are_discounted_surprises(
        steps in prop::collection::vec((-1.0..1.0f64, -1.0..1.0f64), 1..8), gamma in 0.8..1.0f64, lambda in 0.0..1.0f64,
    ) {
        let (rewards, values): (Vec<f64>, Vec<f64>) = steps.into_iter().unzip();
        let (advantages, returns) = generalised(&rewards, &values, gamma, lambda);
        let surprise = |t: usize| rewards[t] + gamma * values.get(t + 1).unwrap_or(&0.0) - values[t];
        for t in 0..rewards.len() {
            let want: f64 = (t..rewards.len()).map(|k| (gamma * lambda).powi((k - t) as i32) * surprise(k)).sum();
            prop_assert!((advantages[t] - want).abs() < 1e-12);
            prop_assert!((returns[t] - want - values[t]).abs() < 1e-12);
        }
    }
}

#[test]
fn advantages_of_groups_are_those_of_their_definitions() {
    let rewards = [Some(1.0), Some(2.0), None, Some(6.0)];
    // Each less the mean of the other two.
    assert_eq!(leave_one_out(&rewards), [1.0 - 4.0, 2.0 - 3.5, 0.0, 6.0 - 1.5]);
    let deviation = 7.0f64.sqrt();
    let close = |a: &[f64], b: [f64; 4]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-14);
    assert!(close(&relative(&rewards, Scale::Group), [-2.0, -1.0, 0.0, 3.0].map(|a| a / (deviation + 1e-4))));
    assert_eq!(relative(&rewards, Scale::None), [-2.0, -1.0, 0.0, 3.0]);
    assert!(close(&relative(&rewards, Scale::Step(2.0)), [-2.0, -1.0, 0.0, 3.0].map(|a| a / 2.0001)));
    // Who is alone, and who is equal, learns nothing.
    for equal in [vec![Some(3.0)], vec![Some(3.0); 4], vec![None, None], vec![Some(3.0), None]] {
        assert!(
            leave_one_out(&equal).iter().chain(&relative(&equal, Scale::Group)).all(|a| *a == 0.0),
            "{equal:?}"
        );
    }
    let mut all = [1.0, 2.0, 3.0, 6.0];
    whiten(&mut all, true);
    let moments = |x: &[f64; 4]| {
        let mean = x.iter().sum::<f64>() / 4.0;
        (mean, x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 3.0)
    };
    assert!((moments(&all).0 - 3.0).abs() < 1e-12 && (moments(&all).1 - 1.0).abs() < 1e-8);
    whiten(&mut all, false);
    assert!(moments(&all).0.abs() < 1e-12);
    whiten(&mut [], false);
}

#[test]
fn the_pull_follows_the_distance() {
    let mut controller = Controller { beta: 0.2, target: 6.0, horizon: 10_000.0 };
    controller.observe(600.0, 500);
    assert!((controller.beta - 0.2 * 1.01).abs() < 1e-15);
    controller.observe(5.7, 500);
    assert!((controller.beta - 0.2 * 1.01 * (1.0 - 0.05 * 0.05)).abs() < 1e-15);
}

/// A language of two tokens out of three: all nine texts, with a reward each, and a policy that is a table of logits.
struct Language {
    logits: [[f64; 3]; 4],
}

impl Language {
    const REWARDS: [f64; 9] = [0.3, -1.0, 2.0, 0.0, 0.5, -0.7, 1.5, 0.1, -0.2];

    /// Log-probabilities of the first token, and of the second after each first one.
    fn logps(&self) -> [[f64; 3]; 4] {
        self.logits.map(|row| {
            let total = row.iter().map(|z| z.exp()).sum::<f64>().ln();
            row.map(|z| z - total)
        })
    }

    /// The probability of text `i`.
    fn probability(&self, i: usize) -> f64 {
        let logps = self.logps();
        (logps[0][i / 3] + logps[1 + i / 3][i % 3]).exp()
    }

    /// Adds the gradient by the logits that coefficients of a text's two tokens have.
    fn add(&self, i: usize, coefs: &[f64], gradient: &mut [[f64; 3]; 4]) {
        let logps = self.logps();
        for (row, token, coef) in [(0, i / 3, coefs[0]), (1 + i / 3, i % 3, coefs[1])] {
            for v in 0..3 {
                gradient[row][v] += coef * (f64::from(u8::from(v == token)) - logps[row][v].exp());
            }
        }
    }

    fn draw(&self, at: f64) -> usize {
        let mut left = at;
        (0..9)
            .find(|&i| {
                left -= self.probability(i);
                left < 0.0
            })
            .unwrap_or(8)
    }
}

/// The mean of RLOO's gradients over many groups of samples is the gradient of the expected reward, within four of its
/// own standard errors.
#[test]
fn rloo_is_unbiased() {
    let language =
        Language { logits: [[0.2, -0.5, 0.4], [1.0, 0.0, -0.3], [-0.2, 0.3, 0.8], [0.1, 0.9, -1.1]] };
    let mut exact = [[0.0; 3]; 4];
    for (i, reward) in Language::REWARDS.iter().enumerate() {
        let weight = -language.probability(i) * reward;
        language.add(i, &[weight; 2], &mut exact);
    }
    let (groups, samples) = (40_000u64, 4u64);
    let surrogate = Surrogate { ratio: Ratio::Response, clip: Clip::NEVER, beta: 0.0 };
    let (mut sum, mut squares) = ([[0.0; 3]; 4], [[0.0; 3]; 4]);
    let mut state = 7u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    for _ in 0..groups {
        let texts: Vec<usize> = (0..samples).map(|_| language.draw(uniform())).collect();
        let rewards: Vec<Option<f64>> = texts.iter().map(|&i| Some(Language::REWARDS[i])).collect();
        let mut gradient = [[0.0; 3]; 4];
        for (&i, advantage) in texts.iter().zip(leave_one_out(&rewards)) {
            let logps = language.logps();
            let policy = [logps[0][i / 3], logps[1 + i / 3][i % 3]];
            let sampled = Sampled { policy: &policy, old: &policy, reference: &[] };
            let mut coefs = [0.0; 2];
            surrogate.slopes(sampled, &[advantage; 2], 1.0 / samples as f64, &mut coefs);
            language.add(i, &coefs, &mut gradient);
        }
        for (row, own) in gradient.iter().enumerate() {
            for (v, g) in own.iter().enumerate() {
                sum[row][v] += g;
                squares[row][v] += g * g;
            }
        }
    }
    let n = groups as f64;
    for row in 0..4 {
        for v in 0..3 {
            let mean = sum[row][v] / n;
            let error = ((squares[row][v] / n - mean * mean) / n).sqrt();
            assert!(
                (mean - exact[row][v]).abs() < 4.0 * error,
                "{row} {v}: {mean} +- {error}, {}",
                exact[row][v]
            );
            assert!(error < 0.01, "the bars are narrow enough to see a bias: {error}");
        }
    }
}

/// The means of the unbiased estimators over the policy are the divergence, and the derivative of the term in the loss
/// is its gradient.
#[test]
fn estimators_of_kl_are_right_on_average() {
    let (p, q) = ([0.5f64, 0.2, 0.3], [0.25f64, 0.6, 0.15]);
    let exact: f64 = p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum();
    let mean =
        |estimator: Estimator| p.iter().zip(&q).map(|(p, q)| p * estimator.of(p.ln(), q.ln())).sum::<f64>();
    assert!((mean(Estimator::K1) - exact).abs() < 1e-15);
    assert!((mean(Estimator::K3) - exact).abs() < 1e-15);
    assert!((mean(Estimator::K2) - exact).abs() > 1e-3, "k2 is biased");
    // By the logits: d KL / d z_v = p_v (ln p_v/q_v - KL); by coefficients, of tokens drawn from the policy.
    let surrogate = Surrogate { ratio: Ratio::Token, clip: Clip::NEVER, beta: 1.0 };
    let mut gradient = [0.0; 3];
    for token in 0..3 {
        let l = [p[token].ln()];
        let sampled = Sampled { policy: &l, old: &l, reference: &[q[token].ln()] };
        let mut coef = [0.0];
        surrogate.slopes(sampled, &[0.0], p[token], &mut coef);
        for v in 0..3 {
            gradient[v] += coef[0] * (f64::from(u8::from(v == token)) - p[v]);
        }
    }
    for v in 0..3 {
        assert!((gradient[v] - p[v] * ((p[v] / q[v]).ln() - exact)).abs() < 1e-15);
    }
}
