//! The paper's figure of reward against KL: every method over what decides how far it goes, measured along training on
//! prompts that nothing was learned from, beside the curves that no method is above.

mod exact;
mod labels;
mod report;
mod sweep;
#[cfg(test)]
mod tests;

use crate::recipe::recipe;
use crate::scene::{PromptFiles, Scene, judged};
use crate::study::Study;
use crate::truth::Truth;
use crate::world::World;
use crate::written::{self, estimate};
use duel_backend::Backend;
use duel_judge::{Judge, Says, Scale};
use duel_stats::{Bootstrap, Share};
use duel_train::config::{Maybe, Method, Options};
use duel_train::content::digest;
use duel_train::reference::ModelId;
use duel_train::reward::RewardModel;
use duel_train::{Error, signal};
use exact::Exact;
use labels::Labels;
use report::{Curves, Measurement, Report};
use serde_json::{Map, Value, json};
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
    /// The prompts that are learned from: a file, or a data set whose split `train` they are.
    pub dataset: PathBuf,
    /// The prompts that are measured on: a file, or a data set whose split `test` they are.
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
    Bench { b, ask, scene: &world.scene, study: &mut study, judges, size: Size::of(ask.quick) }.run()
}

/// The study of a user's model: labels, rewards and what is measured are all the judge's scores.
///
/// # Errors
/// As [`built_in`]; or what is given cannot be read, the judge compares, or it failed.
pub fn of<B: Backend>(b: &B, ask: &Ask, given: Given<'_>) -> Result<(), Error> {
    sized(b, ask, given, Size::of(ask.quick))
}

fn sized<B: Backend>(b: &B, ask: &Ask, given: Given<'_>, size: Size) -> Result<(), Error> {
    if given.judge.says() != Says::Scores {
        return Err(Error::new(format!(
            "{} compares two samples, but here each has a reward of its own; say --judge-ask score, or name a judge that \
             scores",
            given.judge.describe()
        )));
    }
    let (learned, held_out) = (
        digest(&duel_train::split(&given.dataset, "train")?)?,
        digest(&duel_train::split(&given.eval_dataset, "test")?)?,
    );
    if learned == held_out {
        return Err(Error::new(format!(
            "{} and {} are the same prompts: what is measured would be what was learned; name others as --eval-dataset",
            given.dataset.display(),
            given.eval_dataset.display()
        )));
    }
    let mut settings = Map::new();
    settings.insert("model".into(), ModelId::of(&given.model)?.digest().into());
    settings.insert("dataset".into(), learned.into());
    settings.insert("eval_dataset".into(), held_out.into());
    settings.insert("max_completion_length".into(), given.new_tokens.into());
    settings.insert("judge".into(), given.judge.identity().into());
    let mut study = open(b, ask, settings)?;
    let prompts = PromptFiles { learned: &given.dataset, held_out: &given.eval_dataset };
    let scene = Scene::open(b, &ask.dir, ask.seed, &given.model, prompts, given.new_tokens)?;
    let judges = Judges { name: given.name, teacher: given.judge, gauge: None };
    Bench { b, ask, scene: &scene, study: &mut study, judges, size }.run()
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
    size: Size,
}

impl<B: Backend> Bench<'_, '_, '_, B> {
    fn run(mut self) -> Result<(), Error> {
        let labels = Labels::of(&self.ask.dir);
        let (scene, seed, size) = (self.scene, self.ask.seed, self.size);
        duel_train::say!("\nlabels of the model's own samples");
        let labelled =
            self.study.point("labels", || labels.write(scene, self.judges.teacher, size.pairs(), seed))?;
        duel_train::say!("\n{} samples of each held-out prompt, for the exact curves", size.exact);
        let exact = self.study.point("exact", || curves(scene, &mut self.judges, size.exact, seed))?;
        let before = self.measure("SFT", &scene.model.clone())?;
        // Who knows the truth measures what the methods are only told of.
        let truth = self.judges.gauge.is_some();
        let asked = Asked { prompts: &scene.prompts, new_tokens: scene.new_tokens, truth };
        let runs = sweep::runs(size, &labels, &asked, &self.ask.seeds, self.ask.rate)?;
        let mut unjudged = count(&exact) + count(&before);
        let mut points = Vec::new();
        for (i, run) in runs.iter().enumerate() {
            self.train(&format!("{} of {}", i + 1, runs.len()), run, &labels)?;
            for &step in &run.steps {
                let key = run.key(step);
                let found = self.study.point(&key, || Err(Error::new("it was measured")))?;
                unjudged += count(&found);
                points.push(Measurement::of(run, step, &found).ok_or_else(|| damaged(&self.ask.dir, &key))?);
            }
        }
        let settings = json!({
            "seed": seed, "seeds": self.ask.seeds, "quick": self.ask.quick, "labels": labelled, "unjudged": unjudged,
        });
        let report = Report {
            machine: self.b.describe(),
            settings,
            judge: self.judges.gauge().describe(),
            methods: sweep::methods(asked.truth).collect(),
            before: estimate(&before["reward"]),
            curves: read(&exact).ok_or_else(|| damaged(&self.ask.dir, "exact"))?,
            samples: size.exact,
            points,
        };
        report.write(&self.ask.dir)
    }

    /// Makes a run and measures it, where that was not done; what it leaves is then of no use.
    fn train(&mut self, which: &str, run: &Run, labels: &Labels) -> Result<(), Error> {
        let scene = self.scene;
        if !run.steps.iter().all(|step| self.study.has(&run.key(*step))) {
            duel_train::say!("\n{which}: {}", run.folder());
            let folder = match run.judged {
                Judged::Not => scene.train(&run.folder(), run.options.clone(), None)?.0,
                Judged::Teacher => {
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
                self.measure(&run.key(step), &folder.join(format!("checkpoint-{step}")))?;
            }
        }
        let left = self.ask.dir.join(run.folder());
        let failed = |e| Error::new(format!("{}: cannot be removed: {e}", left.display()));
        if left.exists() { duel_disk::remove_dir_all(&left).map_err(failed) } else { Ok(()) }
    }

    /// The folder of a reward model that learned the drawn labels.
    fn reward_model(&self, labels: &Labels) -> Result<PathBuf, Error> {
        let files = labels.files(false);
        let options = recipe(Method::Reward, Some(&files), &self.scene.prompts);
        let rate = options.learning_rate.map(|of| of * self.ask.rate);
        let options = Options { learning_rate: rate, seed: Some(self.ask.seed), ..options };
        Ok(self.scene.train("reward", options, None)?.0)
    }

    /// Mean reward and KL of the model in `folder`, with intervals over prompts, and those of every prompt.
    fn measure(&mut self, key: &str, folder: &Path) -> Result<Value, Error> {
        let (scene, gauge, each) = (self.scene, self.judges.gauge(), self.size.each);
        let found = self.study.point(key, || {
            let (drawn, kls) = scene.answers(folder, each)?;
            let rewards = judged(gauge, &drawn)?.concat();
            // A sample that is not judged is no sample: its KL is not counted either.
            let kls: Vec<_> = kls.iter().zip(&rewards).map(|(kl, reward)| reward.map(|_| *kl)).collect();
            let unjudged = rewards.iter().filter(|reward| reward.is_none()).count();
            let column = |values: &[Option<f64>]| -> Vec<Share> {
                let share = |of: &[Option<f64>]| {
                    let mut share = Share::default();
                    of.iter().flatten().for_each(|value| share.add(*value));
                    share
                };
                values.chunks(each).map(share).collect()
            };
            let columns = [column(&rewards), column(&kls)];
            let means = Bootstrap::new(self.ask.seed).means(&[&columns[0], &columns[1]]);
            let [reward, kl] = [means[0], means[1]].map(|e| e.as_ref().map(written::number));
            let [rewards, kls] = columns.map(|of| of.iter().map(rounded).collect::<Vec<_>>());
            Ok(json!({"reward": reward, "kl": kl, "rewards": rewards, "kls": kls, "unjudged": unjudged}))
        })?;
        duel_train::say!("{key}: reward {:.3} at {:.2} nats", number(&found["reward"]), number(&found["kl"]));
        Ok(found)
    }
}

/// The mean of a prompt's samples, to a millionth, which is far below what is shown; `None` where none was judged.
fn rounded(share: &Share) -> Option<f64> {
    (share.n > 0.0).then(|| (share.sum / share.n * 1e6).round() / 1e6)
}

/// How many samples of a point were not judged.
fn count(found: &Value) -> u64 {
    found["unjudged"].as_u64().unwrap_or(0)
}

fn damaged(dir: &Path, key: &str) -> Error {
    Error::new(format!("{}: the point {key} of points.jsonl is damaged; name another folder", dir.display()))
}

fn number(estimate: &Value) -> f64 {
    estimate["value"].as_f64().unwrap_or(f64::NAN)
}

/// The curves of a study's point; `None` where it is damaged.
fn read(found: &Value) -> Option<Curves> {
    let list = |found: &Value| found.as_array()?.iter().map(Exact::from_json).collect::<Option<Vec<_>>>();
    let aimed = &found["aimed"];
    Some(Curves {
        optimum: list(&found["optimum"])?,
        aimed: if aimed.is_null() { None } else { Some(list(aimed)?) },
        best_of: list(&found["best_of"])?,
    })
}

/// The curves, from samples of the model before.
fn curves<B: Backend>(
    scene: &Scene<'_, B>,
    judges: &mut Judges<'_>,
    each: usize,
    seed: u64,
) -> Result<Value, Error> {
    // Other numbers than those that models are measured with.
    let drawn = scene.draw(&scene.before, &scene.held_out, each, seed.wrapping_add(1))?;
    let told = judged(judges.teacher, &drawn)?;
    let measured = judges.gauge.as_mut().map(|gauge| judged(&mut **gauge, &drawn)).transpose()?;
    let both = |(told, measured): (&Vec<Option<f64>>, &Vec<Option<f64>>)| -> (Vec<f64>, Vec<f64>) {
        told.iter().zip(measured).filter_map(|(told, measured)| (*told).zip(*measured)).unzip()
    };
    let known: Vec<_> = told.iter().zip(measured.as_ref().unwrap_or(&told)).map(both).collect();
    let unjudged = drawn.len() * each - known.iter().map(|(told, _)| told.len()).sum::<usize>();
    // Of few samples a prompt's curves are known badly, and the best of n is of no more than the fewest.
    let (told, rewards): (Vec<_>, Vec<_>) =
        known.into_iter().filter(|(told, _)| 2 * told.len() > each).unzip();
    let aimed = measured.is_some().then(|| exact::optimum(&told, &rewards, seed));
    let json = |curve: &[Exact]| curve.iter().map(Exact::json).collect::<Vec<_>>();
    Ok(json!({
        "optimum": json(&exact::optimum(&rewards, &rewards, seed)), "aimed": aimed.as_deref().map(json),
        "best_of": json(&exact::best_of(&rewards, seed)), "unjudged": unjudged,
    }))
}
