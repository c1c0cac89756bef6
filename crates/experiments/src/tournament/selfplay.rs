//! A world without a best response: what a reward model's reinforcement learning makes of a cycle of preferences, and
//! what self-play does.

use super::Tournament;
use super::entrant::Entrant;
use crate::cycle::{self, Cycle, KINDS};
use crate::recipe::{Named, recipe};
use crate::scene::{Scene, write_rows};
use crate::study::Study;
use crate::world::{NEW_TOKENS, Preferences, World};
use duel_backend::Backend;
use duel_data::{Files, Prompt};
use duel_judge::{Answer, Case, Judge, Opinion};
use duel_model::Folder;
use duel_model::decode::Sampling;
use duel_random::{at, fraction};
use duel_rollout::{Rollout, prompt as prompt_of};
use duel_stats::Bootstrap;
use duel_train::config::{Maybe, Method, Options};
use duel_train::reward::RewardModel;
use duel_train::{Error, checkpoint, signal};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Samples of each held-out prefix that a policy is looked at by.
const LOOKED_AT: usize = 4;
/// Samples of each prefix that are labelled, in pairs.
const LABELLED: usize = 4;
/// Samples of a kind that a policy of that kind learns.
const LEARNED: usize = 2048;
/// Pairs that nothing is learned from.
const EVAL: usize = 256;

/// What learns.
pub const LEARNERS: [(&str, Method); 3] =
    [("reward model, RLOO", Method::Rloo), ("Nash-MD", Method::NashMd), ("SPPO", Method::Sppo)];

/// How long a method learns, and how often it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Length {
    /// Steps of each method.
    pub steps: u64,
    /// Steps between looks at it.
    pub every: u64,
}

/// What the policies of a method wrote: a look every so many steps, the model before first.
pub struct Course {
    /// Of each look: how many samples of each prompt are of each kind.
    pub looks: Vec<Vec<[u32; KINDS.len()]>>,
}

/// One run of the world.
pub struct Played {
    /// Of each of [`LEARNERS`].
    pub courses: Vec<Course>,
    /// How often the reward model is right on pairs that it has not seen.
    pub accuracy: f64,
    /// Who can play a tournament: a policy for each kind, the model before, and what was learned.
    pub entrants: Vec<Entrant>,
    /// Names of those that learned by playing themselves.
    pub self_players: Vec<String>,
    /// The held-out prompts.
    pub prompts: PathBuf,
}

/// How a method is run here: as in the world of the grammar, but that a pull to the reference is no more than keeps
/// texts whole. Preferences are of a kind alone, and half a nat tells the kinds apart.
fn options(method: Method, length: Length, prompts: &Path) -> Options {
    let beta = if method == Method::Sppo { 0.3 } else { 0.05 };
    Options {
        beta: Some(beta),
        max_steps: Some(length.steps as i64),
        save_steps: Some(length.every.into()),
        save_total_limit: Some(Maybe(None)),
        // A round of self-play is short, so that there are many; who plays a mixture plays mostly itself.
        ref_model_sync_steps: (method == Method::Sppo).then_some(10),
        mixture_coef: (method == Method::NashMd).then_some(0.125),
        ..recipe(method, None, prompts)
    }
}

/// Plays the world of a seed in the folder `dir`; what was found before is read of the study.
///
/// # Errors
/// The folder cannot be written, or Ctrl-C.
pub fn play<B: Backend>(
    b: &B,
    study: &mut Study,
    dir: &Path,
    seed: u64,
    length: Length,
) -> Result<Played, Error> {
    let world = World::make(b, dir, seed)?;
    let scene = &world.scene;
    // A sample that was cut off is none to learn from: it would be learned as if it ended there.
    let texts = study.point(&format!("seed {seed} finished samples"), || {
        let drawn = scene.draw(&scene.before, &scene.learned, LABELLED, seed)?;
        let text = |sample: &duel_rollout::Sample| json!((!sample.truncated).then_some(&sample.text));
        Ok(drawn.iter().flat_map(|of| &of.samples).map(text).collect())
    })?;
    let texts: Vec<Option<String>> = serde_json::from_value(texts).map_err(damaged)?;
    let labelled = labelled(scene, dir, &texts, seed)?;
    duel_train::say!("\nreward model, of labels that the cycle draws");
    let once =
        Options { num_train_epochs: Some(1.0), ..recipe(Method::Reward, Some(&labelled), &scene.prompts) };
    let (folder, last) = world.train("reward", once, None)?;
    let accuracy = last.iter().find(|(name, _)| name == "eval_accuracy").map_or(f64::NAN, |(_, a)| *a);
    let mut learned = RewardModel::open(b, &folder, Arc::new(signal::interrupted))?;

    let before = look(b, study, scene, &format!("seed {seed} before"), &scene.model, seed)?;
    let mut entrants = vec![Entrant { name: "sft".into(), folder: scene.model.clone() }];
    let (mut courses, mut self_players) = (Vec::new(), Vec::new());
    for (name, method) in LEARNERS {
        duel_train::say!("\n{name}");
        let mut cycle = Cycle::default();
        let (called, judge): Named<'_> = match method {
            Method::Rloo => (format!("model:{}", folder.display()), &mut learned),
            _ => ("cycle".into(), &mut cycle),
        };
        let options = Options { judge: Some(Maybe(Some(called))), ..options(method, length, &scene.prompts) };
        let (trained, _) = world.train(&method.to_string(), options, Some(judge))?;
        let mut looks = vec![before.clone()];
        for step in (length.every..=length.steps).step_by(length.every as usize) {
            let folder = match step == length.steps {
                true => trained.clone(),
                false => trained.join(format!("checkpoint-{step}")),
            };
            looks.push(look(b, study, scene, &format!("seed {seed} {name} {step}"), &folder, seed)?);
        }
        // All were looked at, and the last model stays.
        for (_, path) in checkpoint::list(&trained) {
            checkpoint::remove(&path).map_err(|e| Error::new(format!("{}: {e}", path.display())))?;
        }
        let name = name.to_lowercase().replace(", ", " ");
        if method != Method::Rloo {
            self_players.push(name.clone());
        }
        entrants.push(Entrant { name, folder: trained });
        courses.push(Course { looks });
    }
    for (kind, name) in KINDS.iter().enumerate().take(3) {
        entrants
            .push(Entrant { name: format!("only {name}"), folder: specialist(&world, dir, &texts, kind)? });
    }
    Ok(Played { courses, accuracy, entrants, self_players, prompts: dir.join("prompts-held-out.jsonl") })
}

impl Played {
    /// The tournament of policies of the world, by its judge, in the folder `dir`: of all, or of those that did not
    /// learn by playing themselves. Returns its tables.
    ///
    /// # Errors
    /// The folder cannot be written, or Ctrl-C.
    pub fn tournament<B: Backend>(&self, b: &B, dir: &Path, seed: u64, all: bool) -> Result<String, Error> {
        let plays = |entrant: &&Entrant| all || !self.self_players.contains(&entrant.name);
        let how = Sampling { max_new_tokens: NEW_TOKENS, seed, ..Sampling::default() };
        let tournament = Tournament {
            entrants: self.entrants.iter().filter(plays).cloned().collect(),
            dataset: Files::from(&self.prompts),
            samples: LOOKED_AT,
            how,
            load_in_8bit: false,
            output_dir: dir.to_path_buf(),
        };
        tournament.play(b, &mut Cycle::default())
    }
}

/// How many of the samples of each held-out prompt are of each kind, of the model in `folder`.
fn look<B: Backend>(
    b: &B,
    study: &mut Study,
    scene: &Scene<'_, B>,
    key: &str,
    folder: &Path,
    seed: u64,
) -> Result<Vec<[u32; KINDS.len()]>, Error> {
    let found = study.point(key, || {
        let weights = duel_model::load(b, &Folder::open(folder)?)?;
        let drawn = scene.draw(&weights, &scene.held_out, LOOKED_AT, seed)?;
        let count = |of: &Rollout<'_>| {
            let mut kinds = [0u32; KINDS.len()];
            of.samples.iter().for_each(|sample| kinds[cycle::kind(&sample.text)] += 1);
            json!(kinds)
        };
        Ok(drawn.iter().map(count).collect())
    })?;
    serde_json::from_value(found).map_err(damaged)
}

/// What is in a study is not what was put there.
fn damaged(e: serde_json::Error) -> Error {
    Error::new(format!("a point of points.jsonl is damaged ({e}); remove the file"))
}

/// Pairs of finished samples of the same prompt, labelled as the cycle's probabilities draw.
fn labelled<B: Backend>(
    scene: &Scene<'_, B>,
    dir: &Path,
    texts: &[Option<String>],
    seed: u64,
) -> Result<Preferences, Error> {
    let mut rows = Vec::new();
    for (number, (pair, prompt)) in texts.chunks(2).zip(twice(&scene.learned)).enumerate() {
        let [Some(one), Some(other)] = pair else { continue };
        if one == other || one.is_empty() || other.is_empty() {
            continue;
        }
        let case = Case {
            prompt: prompt_of(&prompt.turns()?, &prompt.columns),
            answers: [one, other].map(Answer::new).to_vec(),
        };
        let asked: Vec<_> = case.pairs().collect();
        let Opinion::Said(first) = Cycle::default().compare(&asked)?[0] else { continue };
        let (chosen, rejected) = match fraction(at(&[seed, number as u64])) < first {
            true => (one, other),
            false => (other, one),
        };
        rows.push(json!({"prompt": prompt.columns["prompt"], "chosen": chosen, "rejected": rejected}));
    }
    let eval = rows.split_off(rows.len().saturating_sub(EVAL));
    let (pairs, eval_pairs) =
        (write_rows(dir.join("cycle.jsonl"), &rows)?, write_rows(dir.join("cycle-eval.jsonl"), &eval)?);
    Ok(Preferences { ranked: pairs.clone(), pairs, eval: eval_pairs.clone(), eval_pairs })
}

/// Every prompt as often as it has pairs.
fn twice(prompts: &[Prompt]) -> impl Iterator<Item = &Prompt> {
    prompts.iter().flat_map(|prompt| [prompt; LABELLED / 2])
}

/// A model that has learned those of its own finished samples that are of one kind.
fn specialist<B: Backend>(
    world: &World<'_, B>,
    dir: &Path,
    texts: &[Option<String>],
    kind: usize,
) -> Result<PathBuf, Error> {
    let name = KINDS[kind];
    duel_train::say!("\nonly {name}");
    let prompts = world.scene.learned.iter().flat_map(|prompt| [prompt; LABELLED]);
    let finished = prompts.zip(texts).filter_map(|(prompt, text)| Some((prompt, text.as_ref()?)));
    let own = finished.filter(|(_, text)| cycle::kind(text) == kind).take(LEARNED);
    let rows: Vec<Value> =
        own.map(|(prompt, text)| json!({"prompt": prompt.columns["prompt"], "completion": text})).collect();
    let options = Options {
        method: Some(Method::Sft),
        dataset: Some(write_rows(dir.join(format!("only-{name}.jsonl")), &rows)?),
        learning_rate: Some(1e-3),
        num_train_epochs: Some(2.0),
        per_device_train_batch_size: Some(32),
        warmup_steps: Some(5.into()),
        ..Options::default()
    };
    Ok(world.train(&format!("only-{name}"), options, None)?.0)
}

/// Shares of the kinds in what was written, each prompt so often.
pub fn shares(look: &[[u32; KINDS.len()]], times: impl Fn(usize) -> u32) -> Vec<f64> {
    let mut sums = [0.0; KINDS.len()];
    for (prompt, kinds) in look.iter().enumerate() {
        sums.iter_mut().zip(kinds).for_each(|(sum, n)| *sum += f64::from(times(prompt) * n));
    }
    let all: f64 = sums.iter().sum();
    sums.iter().map(|sum| sum / all).collect()
}

impl Course {
    /// The mean of the shares of all looks up to one: those of the mixture of all these policies.
    fn average(&self, look: usize, times: impl Fn(usize) -> u32) -> Vec<f64> {
        let all: Vec<Vec<f64>> = self.looks[..=look].iter().map(|look| shares(look, &times)).collect();
        (0..KINDS.len()).map(|kind| all.iter().map(|s| s[kind]).sum::<f64>() / all.len() as f64).collect()
    }

    /// What the best kind has of the policy after each look, or of the mixture of all up to it: exact for these shares.
    pub fn exploited(&self, averaged: bool, times: &dyn Fn(usize) -> u32) -> Vec<f64> {
        let game = cycle::wins();
        let of = |look: usize| match averaged {
            true => self.average(look, times),
            false => shares(&self.looks[look], times),
        };
        (0..self.looks.len()).map(|look| game.exploitability(&of(look))).collect()
    }
}

/// The mean over several runs of what the best kind has, after each look, with the interval over prompts.
pub fn exploitability(runs: &[&Course], averaged: bool, seed: u64) -> Vec<duel_stats::Estimate> {
    let prompts = runs[0].looks[0].len();
    let mean = |times: &dyn Fn(usize) -> u32| {
        let all: Vec<Vec<f64>> = runs.iter().map(|run| run.exploited(averaged, times)).collect();
        (0..all[0].len()).map(|look| all.iter().map(|e| e[look]).sum::<f64>() / all.len() as f64).collect()
    };
    let value: Vec<f64> = mean(&|_| 1);
    let drawn: Vec<Vec<f64>> =
        Bootstrap::new(seed).with_replicates(1000).replicates(prompts, |counts| mean(&|i| counts[i]));
    let bounds = |look: usize| duel_stats::interval(drawn.iter().map(|of| of[look]).collect());
    value
        .iter()
        .enumerate()
        .map(|(look, value)| duel_stats::Estimate { value: *value, interval: bounds(look) })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: of one of each kind, people have (.8 - .4)/3; of craft alone, writing has .2.
    #[test]
    fn the_average_is_a_mixture() {
        let path = Course { looks: vec![vec![[1, 1, 1, 0]], vec![[0, 0, 3, 0]]] };
        let close = |got: Vec<f64>, want: [f64; 2]| {
            assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-12), "{got:?}");
        };
        close(path.exploited(false, &|_| 1), [0.4 / 3.0, 0.2]);
        // (1/6, 1/6, 2/3): writing has 1/6 (-.8) + 2/3 .2 = 0, craft 1/6 .4 - 1/6 .2 = 1/30, people .8/6 - .8/3.
        close(path.exploited(true, &|_| 1), [0.4 / 3.0, 1.0 / 30.0]);
        let both = exploitability(&[&path, &path], true, 1);
        assert_eq!(both[1].interval, Some((both[1].value, both[1].value)));
    }
}
