//! The paper's figure of reward against KL: every method over what decides how far it goes, measured along training on
//! prompts that nothing was learned from, beside the curves that no method is above.

mod exact;
mod labels;
mod report;
mod sweep;

use crate::recipe::recipe;
use crate::scene::{PromptFiles, Scene, scores};
use crate::study::Study;
use crate::truth::Truth;
use crate::world::World;
use duel_backend::Backend;
use duel_judge::{Judge, Scale};
use duel_stats::{Bootstrap, Share};
use duel_train::config::{Maybe, Method, Options};
use duel_train::content::digest;
use duel_train::reference::ModelId;
use duel_train::reward::RewardModel;
use duel_train::{Error, signal};
use exact::{Exact, estimate_json};
use labels::Labels;
use report::{Measurement, Report};
use serde_json::{Map, Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use sweep::{Asked, Judged, Run, Size};

/// What is asked for.
pub struct Ask {
    /// Folder of the study.
    pub dir: PathBuf,
    /// Seed of the labels, of what is measured, and of the built-in world.
    pub seed: u64,
    /// Seeds of training: each run is made with each.
    pub seeds: Vec<u64>,
    /// A few settings, briefly.
    pub quick: bool,
    /// What the recipes' learning rates, which suit the built-in model, are multiplied by.
    pub rate: f64,
}

/// A user's own model, prompts and judge.
pub struct Given<'j> {
    /// Folder of the model that everything begins with.
    pub model: PathBuf,
    /// File of the prompts that are learned from.
    pub dataset: PathBuf,
    /// File of the prompts that are measured on.
    pub eval_dataset: PathBuf,
    /// Longest sample in tokens.
    pub new_tokens: usize,
    /// The judge's name.
    pub name: String,
    /// Says what samples are worth.
    pub judge: &'j mut dyn Judge,
}

/// Who says what samples are worth.
struct Judges<'j> {
    name: String,
    /// What labels are drawn by and methods that draw are told.
    teacher: &'j mut dyn Judge,
    /// What is measured, where that is another.
    gauge: Option<&'j mut dyn Judge>,
}

impl<'j> Judges<'j> {
    fn gauge<'s>(&'s mut self) -> &'s mut (dyn Judge + 'j) {
        match &mut self.gauge {
            Some(gauge) => &mut **gauge,
            None => &mut *self.teacher,
        }
    }
}

/// The study in the built-in world: labels and rewards are the log-odds of the grammar's truth, its probability is what
/// is measured.
///
/// # Errors
/// The folder is of another study or cannot be written, or Ctrl-C: the same command goes on.
pub fn built_in<B: Backend>(b: &B, ask: &Ask) -> Result<(), Error> {
    let mut study = open(b, ask, Map::new())?;
    let world = World::make(b, &ask.dir, ask.seed)?;
    let (mut teacher, mut gauge) = (Truth(Scale::LogOdds), Truth(Scale::Probability));
    let judges = Judges { name: "truth".into(), teacher: &mut teacher, gauge: Some(&mut gauge) };
    Bench { b, ask, scene: &world.scene, study: &mut study, judges }.run()
}

/// The study of a user's model: labels, rewards and what is measured are all the judge's scores.
///
/// # Errors
/// As [`built_in`]; or what is given cannot be read, or the judge failed.
pub fn of<B: Backend>(b: &B, ask: &Ask, given: Given<'_>) -> Result<(), Error> {
    let mut settings = Map::new();
    settings.insert("model".into(), ModelId::of(&given.model)?.digest().into());
    settings.insert("dataset".into(), digest(&given.dataset)?.into());
    settings.insert("eval_dataset".into(), digest(&given.eval_dataset)?.into());
    settings.insert("max_completion_length".into(), given.new_tokens.into());
    settings.insert("judge".into(), given.judge.identity().into());
    let mut study = open(b, ask, settings)?;
    let prompts = PromptFiles { learned: &given.dataset, held_out: &given.eval_dataset };
    let scene = Scene::open(b, &ask.dir, ask.seed, &given.model, prompts, given.new_tokens)?;
    let judges = Judges { name: given.name, teacher: given.judge, gauge: None };
    Bench { b, ask, scene: &scene, study: &mut study, judges }.run()
}

fn open<B: Backend>(b: &B, ask: &Ask, more: Map<String, Value>) -> Result<Study, Error> {
    let all = [
        ("command", json!("frontier")),
        ("numbers", json!(b.identity())),
        ("seed", json!(ask.seed)),
        ("seeds", json!(ask.seeds)),
        ("quick", json!(ask.quick)),
        ("learning_rate_factor", json!(ask.rate)),
    ];
    let named = all.into_iter().map(|(name, value)| (name.to_owned(), value));
    Study::open(&ask.dir, &named.chain(more).collect())
}

struct Bench<'s, 'b, 'j, B: Backend> {
    b: &'s B,
    ask: &'s Ask,
    scene: &'s Scene<'b, B>,
    study: &'s mut Study,
    judges: Judges<'j>,
}

impl<B: Backend> Bench<'_, '_, '_, B> {
    fn run(mut self) -> Result<(), Error> {
        let size = if self.ask.quick { Size::QUICK } else { Size::WHOLE };
        let labels = Labels::of(&self.ask.dir);
        let (scene, seed) = (self.scene, self.ask.seed);
        eprintln!("\nlabels of the model's own samples");
        let labelled = self.study.point("labels", || labels.write(scene, self.judges.teacher, seed))?;
        eprintln!("\n{} samples of each held-out prompt, for the exact curves", size.exact);
        let exact = self.study.point("exact", || curves(scene, self.judges.gauge(), size.exact, seed))?;
        let before = self.measure("SFT", &scene.model.clone(), size)?;
        let asked = Asked { prompts: &scene.prompts, new_tokens: scene.new_tokens };
        let runs = sweep::runs(size, &labels, &asked, &self.ask.seeds, self.ask.rate)?;
        let mut points = Vec::new();
        for (i, run) in runs.iter().enumerate() {
            self.train(&format!("{} of {}", i + 1, runs.len()), run, &labels, size)?;
            for &step in &run.steps {
                let found = self.study.point(&run.key(step), || Err(Error::new("it was measured")))?;
                points.extend(Measurement::of(run, step, &found));
            }
        }
        let report = Report {
            machine: self.b.describe(),
            settings: json!({"seed": seed, "seeds": self.ask.seeds, "quick": self.ask.quick, "labels": labelled}),
            judge: self.judges.gauge().describe(),
            before: exact::estimate_from(&before["reward"]),
            optimum: list(&exact["optimum"]),
            best_of: list(&exact["best_of"]),
            samples: size.exact,
            points,
        };
        report.write(&self.ask.dir)
    }

    /// Makes a run and measures it, where that was not done; what it leaves is then of no use.
    fn train(&mut self, which: &str, run: &Run, labels: &Labels, size: Size) -> Result<(), Error> {
        let scene = self.scene;
        if !run.steps.iter().all(|step| self.study.has(&run.key(*step))) {
            eprintln!("\n{which}: {}", run.folder());
            let folder = match run.judged {
                Judged::Not => scene.train(&run.folder(), run.options.clone(), None)?.0,
                Judged::Truth => {
                    let judge = Some(Maybe(Some(self.judges.name.clone())));
                    let options = Options { judge, ..run.options.clone() };
                    scene.train(&run.folder(), options, Some(self.judges.teacher))?.0
                }
                Judged::Learned => {
                    let folder = self.reward_model(labels)?;
                    let judge = Some(Maybe(Some(format!("model:{}", folder.display()))));
                    let options = Options { judge, ..run.options.clone() };
                    let mut judge = RewardModel::open(self.b, &folder, Arc::new(signal::interrupted))?;
                    scene.train(&run.folder(), options, Some(&mut judge))?.0
                }
            };
            for &step in &run.steps {
                self.measure(&run.key(step), &folder.join(format!("checkpoint-{step}")), size)?;
            }
        }
        let left = self.ask.dir.join(run.folder());
        let failed = |e| Error::new(format!("{}: cannot be removed: {e}", left.display()));
        if left.exists() { fs::remove_dir_all(&left).map_err(failed) } else { Ok(()) }
    }

    /// The folder of a reward model that learned the drawn labels.
    fn reward_model(&self, labels: &Labels) -> Result<PathBuf, Error> {
        let files = labels.files(false);
        let options = recipe(Method::Reward, Some(&files), &self.scene.prompts);
        let rate = options.learning_rate.map(|of| of * self.ask.rate);
        let options = Options { learning_rate: rate, seed: Some(self.ask.seed), ..options };
        Ok(self.scene.train("reward", options, None)?.0)
    }

    /// Mean reward and KL of the model in `folder`, with intervals over prompts.
    fn measure(&mut self, key: &str, folder: &Path, size: Size) -> Result<Value, Error> {
        let (scene, gauge) = (self.scene, self.judges.gauge());
        let found = self.study.point(key, || {
            let measured = scene.measure(folder, size.each, gauge)?;
            let column = |values: &[f64]| -> Vec<Share> {
                let share = |of: &[f64]| Share { sum: of.iter().sum(), n: of.len() as f64 };
                values.chunks(size.each).map(share).collect()
            };
            let means =
                Bootstrap::new(self.ask.seed).means(&[&column(&measured.rewards), &column(&measured.kls)]);
            let [reward, kl] = [means[0], means[1]].map(|e| e.as_ref().map(estimate_json));
            Ok(json!({"reward": reward, "kl": kl}))
        })?;
        eprintln!("{key}: reward {:.3} at {:.2} nats", number(&found["reward"]), number(&found["kl"]));
        Ok(found)
    }
}

fn number(estimate: &Value) -> f64 {
    estimate["value"].as_f64().unwrap_or(f64::NAN)
}

fn list(found: &Value) -> Vec<Exact> {
    found.as_array().into_iter().flatten().filter_map(Exact::from_json).collect()
}

/// The curves, from samples of the model before.
fn curves<B: Backend>(
    scene: &Scene<'_, B>,
    judge: &mut dyn Judge,
    each: usize,
    seed: u64,
) -> Result<Value, Error> {
    // Other numbers than those that models are measured with.
    let drawn = scene.draw(&scene.before, &scene.held_out, each, seed.wrapping_add(1))?;
    let rewards = scores(judge, &drawn)?;
    let json = |curve: Vec<Exact>| curve.iter().map(Exact::json).collect::<Vec<_>>();
    Ok(json!({
        "optimum": json(exact::optimum(&rewards, seed)), "best_of": json(exact::best_of(&rewards, seed)),
    }))
}
