//! Preferences among samples of the model before, which every method that learns from a file learns from.

use crate::scene::{Scene, scores, write_rows};
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

    /// Draws the samples and writes the files; returns what there is to say of them.
    ///
    /// # Errors
    /// The judge failed, a file cannot be written, or Ctrl-C.
    pub fn write<B: Backend>(
        &self,
        scene: &Scene<'_, B>,
        judge: &mut dyn Judge,
        seed: u64,
    ) -> Result<Value, Error> {
        let drawn = scene.draw(&scene.before, &scene.learned, SAMPLES, seed)?;
        let rewards = scores(judge, &drawn)?;
        let [mut by_draw, mut sure, mut chosen] = [const { Vec::new() }; 3];
        let mut flipped = 0;
        for (i, (rollout, rewards)) in drawn.iter().zip(&rewards).enumerate() {
            let prompt = &rollout.prompt.columns["prompt"];
            for (j, (texts, r)) in rollout.samples.chunks_exact(2).zip(rewards.chunks_exact(2)).enumerate() {
                let [a, b] = [&texts[0].text, &texts[1].text];
                // Equal rewards say nothing about which is better, and an empty response is none.
                if r[0] == r[1] || a.is_empty() || b.is_empty() {
                    continue;
                }
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
        let all = by_draw.len();
        let eval = by_draw.split_off(all - EVAL.min(all / 10));
        sure.truncate(by_draw.len());
        chosen.truncate(by_draw.len());
        let written =
            [(&self.drawn, &by_draw), (&self.sure, &sure), (&self.chosen, &chosen), (&self.eval, &eval)];
        for (path, rows) in written {
            write_rows(path.clone(), rows)?;
        }
        Ok(json!({"pairs": by_draw.len(), "share_flipped": flipped as f64 / all.max(1) as f64}))
    }
}
