//! Preferences among samples of the model before, which every method that learns from a file learns from.

use crate::scene::{Scene, judged, write_rows};
use crate::world::Preferences;
use duel_backend::Backend;
use duel_judge::Judge;
use duel_random::{at, fraction};
use duel_train::Error;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Samples a prompt, two of which are a pair.
const SAMPLES: usize = 4;
/// Pairs that nothing is learned from.
const EVAL: usize = 128;
/// Pairs without which no method learns anything worth measuring.
const FEWEST: usize = 20;

/// Pairs that nothing can be learned from, and why.
#[derive(Default)]
struct LeftOut {
    /// One of the two did not come to its end.
    cut: usize,
    /// One of the two is empty, which is no response.
    empty: usize,
    /// The judge did not say what one of the two is worth.
    unjudged: usize,
    /// Equal rewards say nothing about which is better.
    equal: usize,
}

impl LeftOut {
    /// In words, with the limit of tokens that cuts; empty where nothing was left out.
    fn describe(&self, new_tokens: usize) -> String {
        let reasons = [
            (self.cut, format!("cut at the limit of {new_tokens} tokens")),
            (self.empty, "with an empty response".to_owned()),
            (self.unjudged, "that the judge does not judge".to_owned()),
            (self.equal, "of equal rewards".to_owned()),
        ];
        let some = reasons.into_iter().filter(|(n, _)| *n > 0);
        some.map(|(n, why)| format!("{n} {why}")).collect::<Vec<_>>().join(", ")
    }
}

/// Files of the same pairs.
pub struct Labels {
    /// Labelled by a draw: the first wins with probability `sigmoid(r_1 - r_2)`, as Bradley and Terry have it.
    pub drawn: PathBuf,
    /// The better one always wins.
    pub sure: PathBuf,
    /// Responses that won a draw, to learn as they are.
    pub chosen: PathBuf,
    /// Drawn ones that nothing is learned from.
    pub eval: PathBuf,
}

impl Labels {
    /// Where they lie in a study's folder.
    pub fn of(dir: &Path) -> Self {
        let file = |name: &str| dir.join(name);
        Labels {
            drawn: file("pairs-drawn.jsonl"),
            sure: file("pairs-sure.jsonl"),
            chosen: file("chosen.jsonl"),
            eval: file("pairs-eval.jsonl"),
        }
    }

    /// As a recipe has them, by a draw or not.
    pub fn files(&self, sure: bool) -> Preferences {
        let train = if sure { &self.sure } else { &self.drawn };
        Preferences {
            ranked: train.clone(),
            pairs: train.clone(),
            eval: self.eval.clone(),
            eval_pairs: self.eval.clone(),
        }
    }

    /// Draws the samples and writes the files; returns what there is to say of them. Up to `most` pairs are there to
    /// be learned from, which every method has: of more, who goes over them several times would see more.
    ///
    /// # Errors
    /// There are too few pairs to learn from, the judge failed, a file cannot be written, or Ctrl-C.
    pub fn write<B: Backend>(
        &self,
        scene: &Scene<'_, B>,
        judge: &mut dyn Judge,
        most: usize,
        seed: u64,
    ) -> Result<Value, Error> {
        // A twentieth more, in the place of those that are left out.
        let prompts = ((most + EVAL) * 21 / 20).div_ceil(SAMPLES / 2).min(scene.learned.len());
        let drawn = scene.draw(&scene.before, &scene.learned[..prompts], SAMPLES, seed)?;
        let rewards = judged(judge, &drawn)?;
        let [mut by_draw, mut sure, mut chosen] = [const { Vec::new() }; 3];
        let (mut flipped, mut left_out) = (0, LeftOut::default());
        for (i, (rollout, rewards)) in drawn.iter().zip(&rewards).enumerate() {
            let prompt = &rollout.prompt.columns["prompt"];
            for (j, (two, r)) in rollout.samples.chunks_exact(2).zip(rewards.chunks_exact(2)).enumerate() {
                let rewards = match *r {
                    // What was cut would be learned as if it ended there.
                    _ if two.iter().any(|sample| sample.truncated) => Err(&mut left_out.cut),
                    _ if two.iter().any(|sample| sample.text.is_empty()) => Err(&mut left_out.empty),
                    [Some(a), Some(b)] if a == b => Err(&mut left_out.equal),
                    [Some(a), Some(b)] => Ok([a, b]),
                    _ => Err(&mut left_out.unjudged),
                };
                let r = match rewards {
                    Ok(r) => r,
                    Err(count) => {
                        *count += 1;
                        continue;
                    }
                };
                let [a, b] = [&two[0].text, &two[1].text];
                let pair = |first: bool| {
                    let (chosen, rejected) = if first { (a, b) } else { (b, a) };
                    json!({"prompt": prompt, "chosen": chosen, "rejected": rejected})
                };
                let first = 1.0 / (1.0 + (r[1] - r[0]).exp());
                let wins = fraction(at(&[seed, i as u64, j as u64])) < first;
                flipped += usize::from(wins != (r[0] > r[1]));
                chosen.push(json!({"prompt": prompt, "completion": if wins { a } else { b }}));
                by_draw.push(pair(wins));
                sure.push(pair(r[0] > r[1]));
            }
        }
        let why = left_out.describe(scene.new_tokens);
        if by_draw.len() < FEWEST {
            let why = if why.is_empty() { "there are few prompts" } else { &why };
            return Err(Error::new(format!(
                "{} of {} pairs of samples can be learned from, too few ({why}); name more prompts, allow longer samples \
                 (--max-completion-length), or name a judge that tells them apart",
                by_draw.len(),
                drawn.len() * SAMPLES / 2
            )));
        }
        if !why.is_empty() {
            duel_train::say!("pairs left out: {why}");
        }
        let all = by_draw.len();
        let eval = by_draw.split_off(all - EVAL.min(all / 10));
        by_draw.truncate(most);
        sure.truncate(by_draw.len());
        chosen.truncate(by_draw.len());
        let written =
            [(&self.drawn, &by_draw), (&self.sure, &sure), (&self.chosen, &chosen), (&self.eval, &eval)];
        for (path, rows) in written {
            write_rows(path.clone(), rows)?;
        }
        Ok(json!({
            "pairs": by_draw.len(), "share_flipped": flipped as f64 / all as f64, "left_out": why,
        }))
    }
}
