//! A policy's samples.

use crate::Result;
use duel_backend::Backend;
use duel_data::{Dataset, Prompt, Tokenizer};
use duel_model::decode::{Completion, Drawn, Ended, Engine, FinishReason, Mixture, Request, Room, Sampling};
use duel_model::{Config, Weights};

/// A prompt that samples are wanted of.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'p> {
    /// The prompt.
    pub prompt: &'p Prompt,
    /// What is drawn depends on this, the seed and the number of the sample: another number for each time that the
    /// prompt is asked.
    pub id: u64,
}

/// A response that was drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Its tokens, with the one that ended it; at least one.
    pub tokens: Vec<u32>,
    /// Log-probability of each, under the distribution that it was drawn from.
    pub logps: Vec<f64>,
    /// Its text.
    pub text: String,
    /// Whether the limit of tokens cut it before it came to an end.
    pub truncated: bool,
}

/// A prompt and what was drawn of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Rollout<'p> {
    /// The prompt.
    pub prompt: &'p Prompt,
    /// Its samples, in the order of their numbers.
    pub samples: Vec<Sample>,
}

/// Draws samples; its buffers are allocated once, for any weights of the model.
pub struct Sampler<B: Backend> {
    engine: Engine<B>,
    how: Sampling,
}

impl<B: Backend> Sampler<B> {
    /// One for models of this shape.
    ///
    /// # Errors
    /// The device has no room.
    pub fn new(b: &B, model: &Config, room: Room, how: Sampling) -> Result<Self> {
        Ok(Sampler { engine: Engine::new(b, model, room)?, how })
    }

    /// The same with the room that [`Sampler::draw_mixed`] needs.
    ///
    /// # Errors
    /// The device has no room.
    pub fn mixing(b: &B, model: &Config, room: Room, how: Sampling) -> Result<Self> {
        Ok(Sampler { engine: Engine::mixing(b, model, room)?, how })
    }

    /// So many samples of each prompt, computed once, of the model `weights`. `watch` hears after every pass how many
    /// samples ended in it, and stops the work by returning `false`: then there is nothing.
    ///
    /// # Errors
    /// As [`Engine::run`]; or the tokenizer has no text for what was drawn.
    ///
    /// # Panics
    /// As [`Engine::run`].
    pub fn draw<'p>(
        &mut self,
        b: &B,
        weights: &impl Weights<B>,
        tokenizer: &Tokenizer,
        asked: &[Asked<'p>],
        samples: usize,
        watch: impl FnMut(usize) -> bool,
    ) -> Result<Option<Vec<Rollout<'p>>>> {
        let Sampler { engine, how } = self;
        rollouts(tokenizer, asked, samples, watch, |requests, watch| {
            engine.run(b, weights, requests, how, tokenizer.stops(), watch)
        })
    }

    /// [`Sampler::draw`] of the mixture of two models.
    ///
    /// # Errors
    /// As [`Engine::run_mixed`]; or the tokenizer has no text for what was drawn.
    ///
    /// # Panics
    /// As [`Engine::run_mixed`].
    pub fn draw_mixed<'p>(
        &mut self,
        b: &B,
        weights: &impl Weights<B>,
        mixture: Mixture<'_, impl Weights<B>>,
        tokenizer: &Tokenizer,
        asked: &[Asked<'p>],
        samples: usize,
        watch: impl FnMut(usize) -> bool,
    ) -> Result<Option<Vec<Rollout<'p>>>> {
        let Sampler { engine, how } = self;
        rollouts(tokenizer, asked, samples, watch, |requests, watch| {
            engine.run_mixed(b, weights, mixture, requests, how, tokenizer.stops(), watch)
        })
    }
}

/// What `run` draws of the prompts, so many samples each, unless `watch` stopped it.
fn rollouts<'p>(
    tokenizer: &Tokenizer,
    asked: &[Asked<'p>],
    samples: usize,
    mut watch: impl FnMut(usize) -> bool,
    run: impl FnOnce(&[Request<'_>], &mut dyn FnMut(&[Ended]) -> bool) -> duel_model::Result<Drawn>,
) -> Result<Option<Vec<Rollout<'p>>>> {
    let request = |a: &Asked<'p>| Request { prompt: &a.prompt.tokens, samples, id: a.id };
    let requests: Vec<Request<'_>> = asked.iter().map(request).collect();
    let mut whole = true;
    let drawn = run(&requests, &mut |ended| {
        whole &= watch(ended.len());
        whole
    })?;
    if !whole {
        return Ok(None);
    }
    let rollout = |(a, completions): (&Asked<'p>, Vec<Completion>)| {
        let sample = |c: Completion| {
            Ok(Sample {
                text: a.prompt.continuation(tokenizer, &c.tokens)?,
                truncated: c.finish_reason == FinishReason::Length,
                tokens: c.tokens,
                logps: c.logps,
            })
        };
        let samples = completions.into_iter().map(sample).collect::<Result<_>>()?;
        Ok(Rollout { prompt: a.prompt, samples })
    };
    asked.iter().zip(drawn.completions).map(rollout).collect::<Result<_>>().map(Some)
}

/// The rollouts as groups, in order: nothing after them knows that they were drawn.
///
/// # Errors
/// There is none, or one without a token.
pub fn groups<'r, 'p: 'r>(rollouts: impl IntoIterator<Item = &'r Rollout<'p>>) -> Result<Dataset> {
    let row = |r: &'r Rollout<'p>| {
        (r.prompt.row, &r.prompt.tokens[..], r.samples.iter().map(|s| &s.tokens[..]).collect())
    };
    Ok(Dataset::of_samples(rollouts.into_iter().map(row))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use duel_cpu::Cpu;
    use duel_model::Model;
    use serde_json::json;
    use std::fs;

    const WORDS: u32 = 9;

    /// Nine words `w0` to `w8`, of which the last ends a text.
    fn tokenizer() -> Tokenizer {
        let vocab: serde_json::Map<_, _> = (0..WORDS).map(|i| (format!("w{i}"), json!(i))).collect();
        let end = json!({
            "id": WORDS - 1, "content": "w8", "special": true, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false
        });
        let json = json!({
            "version": "1.0", "added_tokens": [end], "pre_tokenizer": {"type": "WhitespaceSplit"},
            "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "w0"}
        });
        let dir = std::env::temp_dir().join(format!("duel-rollout-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("tokenizer.json"), json.to_string()).unwrap();
        fs::write(dir.join("tokenizer_config.json"), json!({"eos_token": "w8"}).to_string()).unwrap();
        let tokenizer = Tokenizer::from_dir(&dir).unwrap();
        fs::remove_dir_all(dir).unwrap();
        tokenizer
    }

    fn prompt(row: usize, tokens: &[u32]) -> Prompt {
        let text: Vec<String> = tokens.iter().map(|t| format!("w{t}")).collect();
        let columns = json!({"prompt": text.join(" ")}).as_object().unwrap().clone();
        Prompt { row, tokens: tokens.to_vec(), columns }
    }

    /// Whatever else is asked, in whatever order and room: what is drawn of a prompt follows from its number.
    #[test]
    fn a_sample_depends_on_its_number_alone() {
        let json = json!({
            "model_type": "llama", "vocab_size": WORDS, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
            "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4, "max_position_embeddings": 32,
            "rms_norm_eps": 1e-5, "tie_word_embeddings": false, "initializer_range": 0.5
        });
        let model = Config::from_json(json.as_object().unwrap().clone()).unwrap();
        let (b, tokenizer) = (Cpu::<f32>::new(1), tokenizer());
        let mut at = 0.0f64;
        let weights = Model::manifest(&model).init(&b, &model, || {
            at += 1.0;
            (at * 7.3).sin()
        });
        let weights = weights.unwrap();
        let prompts = [prompt(1, &[1, 2, 3]), prompt(2, &[4]), prompt(3, &[1, 2, 3])];
        let how = Sampling { max_new_tokens: 7, ..Sampling::default() };
        let draw = |asked: &[Asked<'_>], samples: usize, sequences: usize| {
            let room = Room { sequences, longest: 3, prompts: 7, new_tokens: 7 };
            let mut sampler = Sampler::new(&b, &model, room, how).unwrap();
            let drawn = sampler.draw(&b, &weights, &tokenizer, asked, samples, |_| true).unwrap().unwrap();
            drawn.into_iter().map(|rollout| rollout.samples).collect::<Vec<_>>()
        };
        let asked: Vec<Asked<'_>> =
            prompts.iter().zip([70, 5, 9]).map(|(prompt, id)| Asked { prompt, id }).collect();
        let all = draw(&asked, 4, 12);
        assert_ne!(all[0], all[2], "the same prompt under two numbers");
        for (asked, samples) in asked.iter().zip(&all) {
            assert_eq!(draw(&[*asked], 4, 1)[0][..], samples[..]);
            assert_eq!(draw(&[*asked], 2, 2)[0][..], samples[..2]);
        }
        let swapped = Asked { prompt: &prompts[2], ..asked[0] };
        assert_eq!(
            draw(&[asked[1], swapped], 4, 3),
            [all[1].clone(), all[0].clone()],
            "the words are the same"
        );
        for sample in all.iter().flatten() {
            assert_eq!(sample.tokens.len(), sample.logps.len());
            assert_eq!(sample.truncated, sample.tokens.last() != Some(&(WORDS - 1)));
            assert_eq!(
                sample.text.split_whitespace().count(),
                sample.tokens.len() - usize::from(!sample.truncated)
            );
        }
        assert!(all.iter().flatten().any(|s| s.truncated) && all.iter().flatten().any(|s| !s.truncated));
        let mut sampler =
            Sampler::new(&b, &model, Room { sequences: 1, longest: 3, prompts: 3, new_tokens: 7 }, how)
                .unwrap();
        assert_eq!(
            sampler.draw(&b, &weights, &tokenizer, &asked, 1, |_| false).unwrap(),
            None,
            "it was stopped"
        );
    }

    /// A policy that is sure of itself says the same twice; both count.
    #[test]
    fn equal_samples_are_all_in_their_group() {
        let sample = |tokens: &[u32]| Sample {
            tokens: tokens.to_vec(),
            logps: vec![-1.0; tokens.len()],
            text: String::new(),
            truncated: false,
        };
        let prompts = [prompt(4, &[1, 2]), prompt(7, &[3])];
        let rollouts = [
            Rollout { prompt: &prompts[0], samples: vec![sample(&[5, 8]), sample(&[8]), sample(&[5, 8])] },
            Rollout { prompt: &prompts[1], samples: vec![sample(&[8]); 2] },
        ];
        let ds = groups(&rollouts).unwrap();
        assert_eq!(ds.len(), 2);
        for (group, rollout) in ds.groups().zip(&rollouts) {
            assert_eq!((group.row, group.prompt), (rollout.prompt.row, &rollout.prompt.tokens[..]));
            let tokens: Vec<&[u32]> = rollout.samples.iter().map(|sample| &sample.tokens[..]).collect();
            assert_eq!(group.responses().collect::<Vec<_>>(), tokens);
        }
    }
}
