//! What samples are learned by, token by token, and the loss of an update that learns them.

use super::report;
use crate::config::{Config, Method};
use crate::engine::Tokens;
use crate::objective::Metrics;
use duel_loss::Row;
use duel_loss::policy::{Clip, Ratio, Sampled, Surrogate, ValueLoss};

/// What a sample is learned by.
pub struct Lesson {
    /// What the policy that drew it, the reference and the critic say of each token.
    pub said: Tokens,
    /// The policy's log-probability of each token when it was drawn.
    pub old: Vec<f64>,
    /// What each token earned.
    pub advantages: Vec<f64>,
    /// What a value should have been on each; empty without a critic.
    pub returns: Vec<f64>,
    /// Whether it is learned.
    pub counts: bool,
}

/// The loss of the samples of some prompts, of one update: of policy and critic.
pub struct Loss<'l> {
    config: &'l Config,
    lessons: &'l [Lesson],
    /// Samples of each prompt.
    samples: usize,
    /// Samples of the update.
    responses: usize,
    /// Their tokens that are learned.
    tokens: usize,
    surrogate: Surrogate,
    values: ValueLoss,
    /// Of the policy, so far.
    pub policy: f64,
    /// Of the critic, so far.
    pub value: f64,
}

impl<'l> Loss<'l> {
    /// That of the prompts `mini`, of a step's `lessons` of so many `prompts`.
    pub fn new(config: &'l Config, lessons: &'l [Lesson], prompts: usize, mini: &[u32]) -> Self {
        let samples = lessons.len() / prompts;
        let of_prompt = |&g: &u32| &lessons[g as usize * samples..][..samples];
        let counting = mini.iter().flat_map(of_prompt).filter(|lesson| lesson.counts);
        Loss {
            config,
            lessons,
            samples,
            responses: mini.len() * samples,
            tokens: counting.map(|lesson| lesson.old.len()).sum(),
            surrogate: surrogate(config),
            values: ValueLoss { weight: config.vf_coef, range: config.cliprange_value },
            policy: 0.0,
            value: 0.0,
        }
    }

    /// The weight of each token of a sample of `n`.
    fn share(&self, n: usize) -> f64 {
        1.0 / match self.config.loss_type.0[0] {
            "grpo" => self.responses * n,
            "dr_grpo" => self.responses * self.config.max_completion_length,
            "dapo" | "ppo" => self.tokens,
            _ => self.responses,
        } as f64
    }

    /// Adds the samples of prompt `group`, of whose tokens the policy says `rows` and the critic `values`: their
    /// derivatives by log-probabilities to `coefs`, by values to `slopes`.
    pub fn add(
        &mut self,
        group: usize,
        (rows, values): (&[Row], &[f64]),
        (coefs, slopes): (&mut [f64], &mut [f64]),
        metrics: &mut Metrics,
    ) {
        let lessons = self.lessons;
        let mut at = 0;
        for lesson in &lessons[group * self.samples..][..self.samples] {
            let n = lesson.old.len();
            let own = at..at + n;
            at = own.end;
            if !lesson.counts {
                continue;
            }
            let share = self.share(n);
            let policy: Vec<f64> = rows[own.clone()].iter().map(|row| row.logp).collect();
            let reference = if self.surrogate.beta > 0.0 { &lesson.said.reference[..] } else { &[] };
            let tokens = Sampled { policy: &policy, old: &lesson.old, reference };
            let said = self.surrogate.slopes(tokens, &lesson.advantages, share, &mut coefs[own.clone()]);
            self.policy += said.loss;
            report::learned(metrics, &said, n);
            for (t, at) in own.enumerate().filter(|_| !values.is_empty()) {
                let (old, g) = (lesson.said.values[t], lesson.returns[t]);
                let (lost, slope, clipped) = self.values.of(values[at], old, g);
                self.value += lost * share;
                slopes[at] += slope * share;
                metrics.mean("val/clipfrac_avg", f64::from(clipped));
            }
        }
    }
}

/// The loss of a method.
fn surrogate(c: &Config) -> Surrogate {
    let ratios = Clip { low: c.epsilon, high: c.epsilon_high.unwrap_or(c.epsilon) };
    let by = |ratio, clip, beta| Surrogate { ratio, clip, beta };
    match c.method {
        Method::Rloo => by(Ratio::Response, ratios, 0.0),
        Method::Grpo => by(Ratio::Token, ratios, c.beta),
        Method::Ppo => by(Ratio::Token, Clip { low: c.cliprange, high: c.cliprange }, 0.0),
        // One update a step: the policy is still the one that drew.
        _ => by(Ratio::None, Clip::NEVER, 0.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Options;
    use crate::critic::Critic;
    use crate::engine::{Beside, Engine, Room};
    use duel_backend::Storage;
    use duel_cpu::Cpu;
    use duel_data::{Builder, Dataset, Task, Truncation, Whole};
    use duel_model::{Keep, Model};

    const VOCAB: u32 = 11;

    /// Numbers that look random, from -1 to 1.
    fn numbers(seed: u64) -> impl FnMut() -> f64 {
        let mut at = 0;
        move || {
            at += 1;
            duel_random::at(&[seed, at]) as f64 / 2f64.powi(63) - 1.0
        }
    }

    /// Three prompts with two samples each, one of them of a single token.
    fn samples() -> Dataset {
        let (task, whole, truncation) = (Task::Preference, Whole::default(), Truncation::KeepStart);
        let mut builder = Builder::new(&duel_data::Options { task, whole, max_length: None, truncation });
        let mut random = numbers(1);
        let mut tokens =
            |n: usize| -> Vec<u32> { (0..n).map(|_| ((random() + 1.0) * 5.4) as u32 % VOCAB).collect() };
        for (row, lengths) in [[3, 4], [1, 5], [2, 2]].into_iter().enumerate() {
            let (prompt, one, other) = (tokens(row + 2), tokens(lengths[0]), tokens(lengths[1]));
            builder.push_every(row + 1, &prompt, &[&one, &other]).unwrap();
        }
        builder.finish().unwrap()
    }

    /// The gradient of the loss through model and critic against central differences, for a policy that has moved away
    /// from the one that drew, so that some tokens are clipped and some are not.
    ///
    /// The bound: two step widths give two quotients whose difference is three quarters of the wider one's truncation
    /// error, which bounds that of their extrapolation; and each loss is rounded a few hundred times.
    fn gradient_is_a_derivative(method: &str, more: &str) {
        let text = format!("model = 'm'\ndataset = 'd'\nmethod = '{method}'\njudge = 'truth'\n{more}");
        let config = Options::parse(&text).unwrap().resolve().unwrap();
        let b = Cpu::<f64>::new(1);
        let json = serde_json::json!({
            "model_type": "llama", "vocab_size": VOCAB, "hidden_size": 8, "intermediate_size": 10, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4, "max_position_embeddings": 32,
            "rms_norm_eps": 1e-5, "tie_word_embeddings": true, "initializer_range": 0.5
        });
        let model = duel_model::Config::from_json(json.as_object().unwrap().clone()).unwrap();
        let manifest = Model::manifest(&model);
        let of = |seed| manifest.init(&b, &model, numbers(seed)).unwrap();
        let (drew, reference) = (of(2), of(3));
        let ds = samples();
        let all: Vec<u32> = (0..ds.len() as u32).collect();
        let ppo = method == "ppo";
        let beside = Beside { reference: true, critic: ppo };
        // Two micro-batches.
        let room = Room::plan(&b, &ds, ds.len(), 24, model.vocab);
        let mut engine = Engine::with(&b, &model, room, Keep::All, beside).unwrap();
        let mut critic = ppo.then(|| Critic::<Cpu<f64>>::new(&b, model.width).unwrap());
        let mut random = numbers(4);
        if let Some(critic) = &mut critic {
            critic.weight.iter_mut().for_each(|x| *x = 0.5 * random());
        }
        let values = critic.as_ref().map(|critic| &critic.weight);
        let said = engine.survey(&drew, &reference, values, &ds, &all).unwrap();
        let lesson = |(i, said): (usize, Tokens)| {
            let n = said.rows.len();
            let one = random();
            Lesson {
                old: said.rows.iter().map(|row| row.logp).collect(),
                // A response's ratio is of one advantage.
                advantages: (0..n).map(|_| if method == "rloo" { one } else { random() }).collect(),
                returns: said.values.iter().map(|v| v + 2.0 * random()).collect(),
                // One is not judged.
                counts: i != 4,
                said,
            }
        };
        let lessons: Vec<Lesson> = said.into_iter().enumerate().map(lesson).collect();

        let mut weights = drew;
        let mut parameters = weights.iter_mut();
        parameters.extend(critic.iter_mut().map(|critic| &mut critic.weight));
        parameters.into_iter().for_each(|p| p.iter_mut().for_each(|x| *x += 0.05 * random()));

        let mut grads = manifest.gradients(&b, Keep::All).unwrap();
        let mut metrics = Metrics::default();
        let mut pass = |weights: &Model<Vec<f64>>, critic: &mut Option<Critic<Cpu<f64>>>| {
            let mut loss = Loss::new(&config, &lessons, ds.len(), &all);
            let values = critic.as_mut().map(|critic| (&critic.weight, &mut critic.gradient));
            grads.iter_mut().into_iter().for_each(|g| b.zero(g));
            metrics = Metrics::default();
            let of = |group: usize, rows: &[Row], values: &[f64], coefs: &mut [f64], slopes: &mut [f64]| {
                loss.add(group, (rows, values), (coefs, slopes), &mut metrics);
            };
            engine.accumulate_tokens(weights, &mut grads, values, &ds, &all, of).unwrap();
            (loss.policy + loss.value, grads.iter().into_iter().cloned().collect::<Vec<_>>(), metrics.clone())
        };
        let (_, mut claimed, metrics) = pass(&weights, &mut critic);
        if let Some(critic) = &mut critic {
            claimed.push(critic.gradient.clone());
        }
        let share = |name: &str| metrics.values().into_iter().find(|(n, _)| n == name).unwrap().1;
        let clips: &[&str] = match method {
            "reinforce" => &[],
            "ppo" => &["clip_ratio/region_mean", "val/clipfrac_avg"],
            _ => &["clip_ratio/region_mean"],
        };
        for clip in clips {
            assert!((0.05..0.95).contains(&share(clip)), "{method}: {clip} {}", share(clip));
        }

        for (which, claimed) in claimed.iter().enumerate() {
            for probe in 0..5 {
                let i = duel_random::at(&[5, which as u64, probe]) as usize % claimed.len();
                let mut quotient = |step: f64| {
                    let mut at = |by: f64| {
                        let mut parameters = weights.iter_mut();
                        parameters.extend(critic.iter_mut().map(|critic| &mut critic.weight));
                        let was = std::mem::replace(&mut parameters[which][i], f64::NAN);
                        parameters[which][i] = was + by;
                        let loss = pass(&weights, &mut critic).0;
                        let mut parameters = weights.iter_mut();
                        parameters.extend(critic.iter_mut().map(|critic| &mut critic.weight));
                        parameters[which][i] = was;
                        loss
                    };
                    (at(step) - at(-step)) / (2.0 * step)
                };
                let (wide, narrow) = (quotient(1e-4), quotient(5e-5));
                let slope = narrow + (narrow - wide) / 3.0;
                let bound = (narrow - wide).abs() + 500.0 * f64::EPSILON / 5e-5;
                assert!(bound < 1e-5, "{method}: {which} {i}: a bound of {bound:e} would be no test");
                let error = (slope - claimed[i]).abs();
                assert!(error <= bound, "{method}: {which} {i}: {} is {slope}, by {error:e}", claimed[i]);
            }
        }
    }

    #[test]
    fn gradients_are_derivatives_through_model_and_critic() {
        gradient_is_a_derivative("reinforce", "num_generations = 2");
        gradient_is_a_derivative("rloo", "epsilon = 0.4");
        for loss in ["grpo", "dapo", "dr_grpo"] {
            let more = format!("num_generations = 2\nbeta = 0.3\nloss_type = '{loss}'\nepsilon_high = 0.3");
            gradient_is_a_derivative("grpo", &more);
        }
        gradient_is_a_derivative("ppo", "num_generations = 2\nvf_coef = 0.7");
    }
}
