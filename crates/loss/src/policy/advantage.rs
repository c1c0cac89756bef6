//! Advantages: what a response, or a token of it, earned beyond what was to be expected.

/// What the rewards of a group are divided by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scale {
    /// Nothing (Dr. GRPO, Liu et al., 2025): the deviation overweights prompts that are easy or hard.
    None,
    /// The deviation of the group's rewards.
    Group,
    /// This deviation, of the rewards of a whole step.
    Step(f64),
}

/// Added to a deviation before it divides, as TRL does.
const LEAST: f64 = 1e-4;

/// RLOO (Ahmadian et al., 2024): of each reward, what it is above the mean of the others. A response that was not
/// judged has none, and is in nobody's mean; where it alone was judged it has 0.
pub fn leave_one_out(rewards: &[Option<f64>]) -> Vec<f64> {
    let (n, mean, _) = moments(rewards);
    let share = if n > 1 { n as f64 / (n - 1) as f64 } else { 0.0 };
    rewards.iter().map(|r| r.map_or(0.0, |r| share * (r - mean))).collect()
}

/// GRPO (Shao et al., 2024): rewards above their group's mean, by `scale`. A response that was not judged has 0.
pub fn relative(rewards: &[Option<f64>], scale: Scale) -> Vec<f64> {
    let (_, mean, deviation) = moments(rewards);
    let by = match scale {
        Scale::None => 1.0,
        Scale::Group => deviation + LEAST,
        Scale::Step(deviation) => deviation + LEAST,
    };
    rewards.iter().map(|r| r.map_or(0.0, |r| (r - mean) / by)).collect()
}

/// How many rewards there are, their mean, and their deviation.
fn moments(rewards: &[Option<f64>]) -> (usize, f64, f64) {
    let judged: Vec<f64> = rewards.iter().flatten().copied().collect();
    (judged.len(), mean(&judged), deviation(&judged))
}

fn mean(all: &[f64]) -> f64 {
    all.iter().sum::<f64>() / all.len().max(1) as f64
}

/// With n - 1.
fn variance(all: &[f64]) -> f64 {
    let mean = mean(all);
    all.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / all.len().saturating_sub(1).max(1) as f64
}

/// The deviation of numbers, with n - 1; 0 of fewer than two.
pub fn deviation(all: &[f64]) -> f64 {
    variance(all).sqrt()
}

/// Generalised advantage estimation (Schulman et al., 2016) over the tokens of a response: `rewards[t]` is what token
/// `t` earns, `values[t]` what was expected on the row that predicts it, and after the last token nothing is. Returns
/// advantages and returns, which are an advantage and its value.
///
/// # Panics
/// When there are not as many values as rewards.
pub fn generalised(rewards: &[f64], values: &[f64], gamma: f64, lambda: f64) -> (Vec<f64>, Vec<f64>) {
    assert_eq!(rewards.len(), values.len(), "a value for each token");
    let mut advantages = vec![0.0; rewards.len()];
    let (mut next_value, mut next) = (0.0, 0.0);
    for (t, advantage) in advantages.iter_mut().enumerate().rev() {
        let surprise = rewards[t] + gamma * next_value - values[t];
        *advantage = surprise + gamma * lambda * next;
        (next_value, next) = (values[t], *advantage);
    }
    let returns = advantages.iter().zip(values).map(|(a, v)| a + v).collect();
    (advantages, returns)
}

/// Divides by the deviation of all (with n - 1), over every token of a step; to a mean of 0 unless `keep_mean`.
pub fn whiten(all: &mut [f64], keep_mean: bool) {
    let mean = mean(all);
    let by = (variance(all) + 1e-8).sqrt();
    let back = if keep_mean { mean } else { 0.0 };
    all.iter_mut().for_each(|x| *x = (*x - mean) / by + back);
}
