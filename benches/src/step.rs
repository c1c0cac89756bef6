//! Whole optimizer steps: which ones are measured, and the arithmetic that they cannot avoid.

use crate::models::{self, GPT2, SMOLLM2};
use crate::pair::{Batch, Pair};
use crate::verb::PAIR;
use duel_model::Config;

/// What a group of steps shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Series {
    /// The whole model.
    Whole,
    /// Longer prompts and responses, of one length.
    Tokens,
    /// Larger vocabularies.
    Vocabulary,
    /// Longer prompts for the same responses, shared and not.
    Prompt,
    /// More threads.
    Threads,
}

impl Series {
    /// As tables show it.
    pub fn name(self) -> &'static str {
        match self {
            Series::Whole => "step",
            Series::Tokens => "tokens",
            Series::Vocabulary => "vocabulary",
            Series::Prompt => "prompt",
            Series::Threads => "threads",
        }
    }
}

/// One optimizer step on one pair: gradients set to zero, loss and gradients, their norm, and AdamW.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// What it is measured for.
    pub series: Series,
    /// The model's name.
    pub model: &'static str,
    /// The model.
    pub config: Config,
    /// The pair.
    pub pair: Pair,
    /// Whether both responses share one computation of the prompt, or each carries a prompt of its own.
    pub shared: bool,
    /// Threads.
    pub threads: usize,
}

impl Case {
    /// The model, with what was changed of it and of the run.
    pub fn variant(&self) -> String {
        let mut text = self.model.to_owned();
        if self.series != Series::Whole {
            text += &format!(", {} layers, vocabulary {}", self.config.layers, self.config.vocab);
        }
        if self.series == Series::Threads {
            text += &format!(", {} thread(s)", self.threads);
        }
        if !self.shared {
            text += ", a prompt a response";
        }
        text
    }

    /// Operations of the step by [`flops`]. The same for both ways of [`Case::shared`], so that the rate that follows
    /// from it compares them.
    pub fn flops(&self) -> f64 {
        flops(&self.config, self.pair.into())
    }

    /// The case that this one is to be compared with, and what it is called.
    pub fn against(&self) -> Option<(Case, String)> {
        match self.series {
            Series::Prompt if self.shared && self.pair.prompt > 0 => {
                Some((Case { shared: false, ..self.clone() }, "a prompt a response".into()))
            }
            Series::Threads if self.threads > 1 => {
                Some((Case { threads: 1, ..self.clone() }, "one thread".into()))
            }
            _ => None,
        }
    }
}

/// Floating-point operations that a step must make: products and attention, forward and backward, the prompt once.
///
/// For `P` pairs of prompt `p` and responses `c` and `j`:
///
/// ```text
/// 6·Nb·P·(p + c + j) + 6·Nh·P·(c + j) + 3.5·a·P·[p²/2 + p·(c + j) + (c² + j²)/2]
/// ```
///
/// `Nb` are the weights of the layers' matrices and `Nh = vocab · width` those of the head, each used in three products
/// of two operations (forward, and the gradients of input and weight: the 6·N·D rule of Kaplan et al., 2020,
/// arXiv:2001.08361, section 2.1, for the rows that each is used on). `a = 4 · layers · heads · head_dim` are the
/// operations of the forward attention for one visible pair of rows; the backward makes 2.5 times as many (Dao, 2023,
/// arXiv:2307.08691, section 4.1), and half of each square is visible.
pub fn flops(c: &Config, batch: Batch) -> f64 {
    let Pair { prompt, chosen, rejected } = batch.pair;
    let (prompt, chosen, rejected) = (prompt as f64, chosen as f64, rejected as f64);
    let responses = chosen + rejected;
    let visible = prompt * prompt / 2.0 + prompt * responses + (chosen * chosen + rejected * rejected) / 2.0;
    let one = 6.0 * block_weights(c) as f64 * (prompt + responses)
        + 6.0 * head_weights(c) as f64 * responses
        + 3.5 * attention_flops(c) * visible;
    batch.pairs as f64 * one
}

/// How TRL runs a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trl {
    /// As it comes: with gradient checkpointing, and the reference model inside the step.
    Default,
    /// Without checkpointing, and with the reference's log-probabilities precomputed.
    Tuned,
}

/// Floating-point operations of a step of TRL, in the symbols of [`flops`] and with `T` the length that all sequences
/// are padded to: each of the `2·P` sequences has a prompt of its own, and the head runs on every position.
///
/// ```text
/// default  10·Nb·2·P·T + 8·Nh·2·P·T + 5.5·a·P·T²
/// tuned     6·Nb·2·P·T + 6·Nh·2·P·T + 3.5·a·P·T²
/// ```
///
/// By default the layers run forward three times, as the policy, as the reference and once more for the backward pass,
/// and the head twice.
pub fn trl_flops(c: &Config, batch: Batch, trl: Trl) -> f64 {
    let (layers, head, attention) = match trl {
        Trl::Default => (10.0, 8.0, 5.5),
        Trl::Tuned => (6.0, 6.0, 3.5),
    };
    let (pairs, length) = (batch.pairs as f64, batch.positions() as f64);
    let weights = layers * block_weights(c) as f64 + head * head_weights(c) as f64;
    weights * 2.0 * pairs * length + attention * attention_flops(c) * pairs * length * length
}

/// Weights of the head's matrix.
fn head_weights(c: &Config) -> usize {
    c.vocab * c.width
}

/// Operations of the forward attention of all layers for one visible pair of rows.
fn attention_flops(c: &Config) -> f64 {
    (4 * c.layers * c.heads.q_width()) as f64
}

/// Weights of the layers' matrices.
fn block_weights(c: &Config) -> usize {
    let attention = c.heads.qkv_width() * c.width + c.width * c.heads.q_width();
    c.layers * (attention + (c.up_width() + c.mlp_width) * c.width)
}

/// Every step that is measured on a machine of `cores` cores.
pub fn cases(cores: usize) -> Vec<Case> {
    let whole = |model, config| Case {
        series: Series::Whole,
        model,
        config,
        pair: PAIR,
        shared: true,
        threads: cores,
    };
    let cut = |series, vocab, prompt, response| {
        let pair = Pair::even(prompt, response);
        Case { series, pair, ..whole(SMOLLM2, models::six_layers(vocab)) }
    };
    let vocab = models::smollm2().vocab;
    let mut all = vec![whole(SMOLLM2, models::smollm2()), whole(GPT2, models::gpt2())];
    all.extend([64, 128, 256, 512, 1024].map(|n| cut(Series::Tokens, vocab, n, n)));
    all.extend([8, 16, 32, 64, 128].map(|k| cut(Series::Vocabulary, k * 1024, 128, 128)));
    // What is quoted of a prompt, four responses long, and of threads is measured on the whole model.
    let uncut = |series, prompt, response| {
        let pair = Pair::even(prompt, response);
        Case { series, pair, ..whole(SMOLLM2, models::smollm2()) }
    };
    for prompt in [0, 128, 256, 512, 1024] {
        let shared = match prompt {
            512 => uncut(Series::Prompt, prompt, 128),
            _ => cut(Series::Prompt, vocab, prompt, 128),
        };
        let alone = shared.against().map(|(case, _)| case);
        all.push(shared);
        all.extend(alone);
    }
    let powers = std::iter::successors(Some(1), |n| Some(2 * n)).take_while(|&n| n < cores);
    all.extend(powers.chain([cores]).map(|threads| Case { threads, ..uncut(Series::Threads, 256, 128) }));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verb::{Call, Precision, Work, step_calls};
    use duel_cpu::Cpu;

    /// The formula against the verbs that a step calls, each with its own count. The formula takes half of each square
    /// as visible, which leaves out half of the diagonal.
    #[test]
    fn the_formula_is_the_sum_of_the_verbs() {
        for case in cases(2).iter().filter(|c| c.shared) {
            let flops = |call: &Call| match call.verb.work(Precision::of::<Cpu>()) {
                Work::Flops(n) => n as f64 * call.in_step,
                Work::Bytes(_) => 0.0,
            };
            let verbs: f64 = step_calls(case.model, &case.config, case.pair.into()).iter().map(flops).sum();
            let width = (case.config.layers * case.config.heads.q_width()) as f64;
            let diagonals = 3.5 * 4.0 * width * case.pair.rows() as f64 / 2.0;
            assert_eq!(case.flops() + diagonals, verbs, "{} {}", case.variant(), case.pair);
        }
    }

    /// Worked by hand for Llama-3.2-1B: 8 pairs padded to 1024 tokens.
    #[test]
    fn operations_of_both_trainers() {
        let tera = |flops: f64| (flops * 1e-11).round() / 10.0;
        let llama = models::llama();
        for (prompt, chosen, rejected, ours) in [(512, 512, 384, 80.0), (768, 256, 192, 65.0)] {
            let batch = Batch { pairs: 8, pair: Pair { prompt, chosen, rejected } };
            assert_eq!(tera(flops(&llama, batch)), ours);
            assert_eq!(tera(trl_flops(&llama, batch, Trl::Default)), 199.9);
            assert_eq!(tera(trl_flops(&llama, batch, Trl::Tuned)), 125.3);
        }
    }

    #[test]
    fn every_case_has_a_name_of_its_own() {
        let all = cases(6);
        let mut names: Vec<_> =
            all.iter().map(|c| (c.series.name(), c.variant(), c.pair.to_string())).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all.len());
        assert_eq!(
            all.iter().filter(|c| c.series == Series::Threads).map(|c| c.threads).collect::<Vec<_>>(),
            [1, 2, 4, 6]
        );
    }

    /// Parameter counts of the published models.
    #[test]
    fn the_shapes_are_the_models() {
        let parameters = |c: &Config| duel_model::Model::manifest(c).parameters();
        assert_eq!(parameters(&models::smollm2()), 134_515_008);
        assert_eq!(parameters(&models::gpt2()), 124_439_808);
        assert_eq!(parameters(&models::qwen3()), 596_049_920);
        assert_eq!(parameters(&models::llama()), 1_235_814_400);
        assert_eq!(parameters(&models::qwen2()), 494_032_768);
    }
}
