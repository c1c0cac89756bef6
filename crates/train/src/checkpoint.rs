//! Checkpoints: a folder that is there as a whole or not at all.

use crate::Error;
use crate::config::{Config, Options};
use crate::content::feed;
use crate::critic::Critic;
use crate::ranks::{Ranks, Updater};
use crate::replay::Replay;
use crate::report::trainer_state::TrainerState;
use crate::run::Best;
use duel_backend::{Backend, Real};
use duel_judge::Normalization;
use duel_model::{FileDtype, Folder, Held, Model, Weights};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::Xxh3;

const STATE: &str = "duel_state.json";
/// The same as transformers has it, for others to read.
const TRAINER_STATE: &str = "trainer_state.json";
const CONFIG: &str = "duel.toml";
/// The value head of PPO.
const CRITIC: &str = "value_head.safetensors";
/// Folder of the reference, where it follows the policy.
const REFERENCE: &str = "reference";

/// Ends of the names of folders that are being written and removed.
const PARTIAL: &str = "partial";
const GONE: &str = "gone";

/// Where a run stands, besides weights and moments.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Steps done.
    pub step: u64,
    /// Updates of the weights: one a step, unless a step learns from its samples several times.
    pub updates: u64,
    /// Identity of the model that the run started from and of its data.
    pub content: String,
    /// Tokens seen, as TRL counts them: prompt and response for every response.
    pub num_tokens: u64,
    /// Metrics of the steps since the last logged one: name, sum, and in how many steps.
    pub window: Vec<(String, f64, u64)>,
    /// The losses of all steps.
    pub loss: Running,
    /// The evaluation after these steps was due and was stopped: it comes first when the run goes on.
    pub unevaluated: bool,
    /// Which evaluation is the best so far.
    pub best: Best,
    /// The rewards of all steps, where a loss measures others by their mean.
    pub rewards: Running,
    /// Of a run that learns from its own samples.
    pub online: Online,
}

/// The file of a state: with the sizes and sums of the files of tensors beside it, each by its path in the folder.
#[derive(Serialize, Deserialize)]
struct Stored<S> {
    #[serde(flatten)]
    state: S,
    /// Checkpoints of earlier versions have none.
    #[serde(default)]
    sums: BTreeMap<String, (u64, String)>,
}

/// What a run that learns from its own samples carries from step to step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Online {
    /// What samples earned so far.
    pub rewards: Running,
    /// PPO's price of a nat, where it follows a target.
    pub kl_coef: Option<f64>,
    /// What scores are brought to one scale by.
    pub scale: Option<Normalization>,
    /// Pairs of earlier steps.
    pub replay: Replay,
}

/// A mean that goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Running {
    sum: f64,
    n: u64,
}

impl Running {
    /// Adds `values` and returns the mean with them.
    pub fn add(&mut self, values: &[f64]) -> f64 {
        self.sum += values.iter().sum::<f64>();
        self.n += values.len() as u64;
        self.mean()
    }

    /// How many values there were.
    pub fn count(&self) -> u64 {
        self.n
    }

    /// The mean; 0 of nothing.
    pub fn mean(&self) -> f64 {
        self.sum / self.n.max(1) as f64
    }
}

/// What a checkpoint holds.
pub struct Content<'a, B: Backend> {
    /// The model.
    pub model: &'a duel_model::Config,
    /// Its weights.
    pub weights: &'a Held<B>,
    /// What it expects, where it learns that too.
    pub critic: Option<&'a Critic<B>>,
    /// The reference's, where it is no longer the model that the run started from.
    pub reference: Option<&'a Model<Real<B>>>,
    /// Tokens that end a text.
    pub stops: &'a [u32],
    /// The optimizer's state: each process writes what it has of it.
    pub updater: &'a Updater<B>,
    /// Where the run stands.
    pub state: &'a State,
    /// The same as transformers says it, and the file of what was logged.
    pub trainer_state: (&'a TrainerState, &'a Path),
}

/// The model that a run began with, on disk.
pub struct Origin {
    /// Where its tokenizer lies.
    companions: PathBuf,
    /// What adapters are for.
    base: PathBuf,
}

impl Origin {
    /// That of the folder `path`.
    ///
    /// # Errors
    /// It is that of an adapter and broken.
    pub fn of(path: &Path) -> Result<Self, Error> {
        let base = duel_model::base_folder(path)?.unwrap_or_else(|| path.to_path_buf());
        Ok(Origin { companions: duel_model::tokenizer_folder(path)?, base })
    }

    /// Writes a model with what goes with it, in numbers of that type: its adapters alone where it has some, which
    /// stay as they are.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save<B: Backend>(
        &self,
        b: &B,
        dir: &Path,
        model: &duel_model::Config,
        weights: &impl Weights<B>,
        stops: &[u32],
        dtype: FileDtype,
    ) -> Result<(), Error> {
        match model.lora {
            Some(_) => duel_model::save_adapter(b, dir, model, weights, &self.base)?,
            None => duel_model::save_as(b, dir, model, weights, dtype)?,
        }
        duel_model::copy_companions(&self.companions, dir)?;
        Ok(duel_model::write_stops(dir, stops)?)
    }
}

/// How the model was rounded that the adapter in the folder `path` was trained beside, as the configuration says that
/// its run left there: it is for that one, and beside the model in the files it says something else.
pub fn base_was(path: &Path) -> Option<&'static str> {
    Options::read(&path.join(CONFIG)).ok()?.resolve().ok()?.form().rounding()
}

/// The configuration of the run that wrote the checkpoint `path`.
///
/// # Errors
/// It is damaged.
pub fn saved(path: &Path) -> Result<Config, Error> {
    Options::read_whole(&path.join(CONFIG))?.resolve()
}

/// Checkpoints of a run, oldest first.
pub fn list(output_dir: &Path) -> Vec<(u64, PathBuf)> {
    let mut all: Vec<(u64, PathBuf)> = fs::read_dir(output_dir)
        .into_iter()
        .flatten()
        .filter_map(|e| {
            let path = e.ok()?.path();
            let step = path.file_name()?.to_str()?.strip_prefix("checkpoint-")?.parse().ok()?;
            Some((step, path))
        })
        .collect();
    all.sort();
    all
}

/// Folders of checkpoints whose writing or removal was cut off.
pub fn half_written(output_dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(output_dir).into_iter().flatten().filter_map(|e| Some(e.ok()?.path()));
    let half = |path: &PathBuf| {
        let (step, end) = path.file_name()?.to_str()?.strip_prefix("checkpoint-")?.split_once('.')?;
        step.parse::<u64>().ok().filter(|_| [PARTIAL, GONE].contains(&end))
    };
    entries.filter(|path| half(path).is_some()).collect()
}

/// Removes a checkpoint: first its name, so that nobody takes a part of it for one.
///
/// # Errors
/// It cannot be removed.
pub fn remove(path: &Path) -> std::io::Result<()> {
    let gone = path.with_extension(GONE);
    if gone.exists() {
        duel_disk::remove_dir_all(&gone)?;
    }
    duel_disk::rename(path, &gone)?;
    duel_disk::remove_dir_all(&gone)
}

/// The checkpoints that a run writes.
pub struct Checkpoints {
    dir: PathBuf,
    /// The model that the run started from: what lies beside its weights goes along.
    pub model: Origin,
    config: String,
    limit: Option<usize>,
}

impl Checkpoints {
    /// Those of a run that does what `config` says.
    ///
    /// # Errors
    /// A path is not UTF-8.
    pub fn of(config: &Config) -> Result<Self, Error> {
        Ok(Checkpoints {
            dir: config.output_dir.clone(),
            model: Origin::of(&crate::folder(&config.model)?)?,
            config: config.to_go_on().to_toml()?,
            limit: config.save_total_limit,
        })
    }

    /// The folder of the checkpoint of a step.
    pub fn folder(&self, step: u64) -> PathBuf {
        self.dir.join(format!("checkpoint-{step}"))
    }

    /// The folder of the newest that is there.
    pub fn newest(&self) -> Option<PathBuf> {
        list(&self.dir).pop().map(|(_, path)| path)
    }

    /// Writes a checkpoint beside the finished ones and gives it its name last, then removes those beyond the limit.
    /// Whatever happens meanwhile, the checkpoints before it stay.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save<B: Backend>(&self, b: &B, ranks: &Ranks<'_>, content: &Content<'_, B>) -> Result<(), Error> {
        let Content { model, weights, critic, reference, stops, updater, state, trainer_state } = content;
        let done = self.folder(state.step);
        let partial = done.with_extension(PARTIAL);
        let failed = |e: std::io::Error| Error::new(format!("{}: {e}", partial.display()));
        let make = || -> Result<(), Error> {
            if partial.exists() {
                duel_disk::remove_dir_all(&partial).map_err(failed)?;
            }
            duel_disk::create_dir_all(&partial).map_err(failed)
        };
        let updates = || -> Result<(), Error> {
            if !partial.is_dir() {
                return Err(Error::new(format!(
                    "{} is not there; put output_dir where all processes have the same folder",
                    partial.display()
                )));
            }
            let mut files = updater.files().into_iter();
            Ok(files.try_for_each(|(name, state)| duel_model::save_flat(b, &partial.join(name), &state))?)
        };
        let all_else = || -> Result<(), Error> {
            self.model.save(b, &partial, model, *weights, stops, FileDtype::of::<B::Real>())?;
            if let Some(reference) = reference {
                let folder = partial.join(REFERENCE);
                duel_disk::create_dir_all(&folder).map_err(failed)?;
                duel_model::save(b, &folder, model, *reference)?;
            }
            if let Some(critic) = critic {
                critic.save(b, &partial.join(CRITIC))?;
            }
            let (standing, logged) = trainer_state;
            standing.write(&partial.join(TRAINER_STATE), logged, None)?;
            Ok(duel_model::write_synced(&partial.join(CONFIG), self.config.as_bytes())?)
        };
        let name = || -> Result<(), Error> {
            // Now that all processes have written theirs.
            let stored = Stored { state: *state, sums: sums(&partial)? };
            let text = serde_json::to_string(&stored).map_err(|e| Error::new(e.to_string()))?;
            duel_model::write_synced(&partial.join(STATE), text.as_bytes())?;
            if done.exists() {
                remove(&done).map_err(failed)?;
            }
            duel_disk::rename(&partial, &done).map_err(failed)
        };
        let write = || -> Result<(), Error> {
            ranks.led(make)?;
            ranks.agree(if ranks.leads() { all_else().and_then(|()| updates()) } else { updates() })?;
            ranks.led(name)
        };
        write().map_err(|e| {
            // What is half-written only takes the room that is missing.
            if ranks.leads() {
                drop(duel_disk::remove_dir_all(&partial));
            }
            let kept = self.newest();
            let kept =
                kept.map_or("there is no earlier checkpoint".into(), |p| format!("{} is whole", p.display()));
            Error::new(format!("the checkpoint of step {} could not be saved: {e}; {kept}", state.step))
        })?;
        if ranks.leads() {
            self.tidy(state);
        }
        Ok(())
    }

    /// Removes those before the step of `state` that are beyond the limit, oldest first, and never the best: after a
    /// checkpoint, or where a process was killed between the two.
    pub fn tidy(&self, state: &State) {
        let best = state.best.checkpoint.map(|(step, _)| step);
        let all = list(&self.dir);
        let beyond = all.len().saturating_sub(self.limit.unwrap_or(usize::MAX));
        let old = all.iter().filter(|(step, _)| *step < state.step && Some(*step) != best);
        for (_, old) in old.take(beyond) {
            // One that cannot be removed costs room, nothing else.
            drop(remove(old));
        }
    }
}

/// A checkpoint that a run continues from.
pub struct Checkpoint {
    /// Its folder, which is also a model folder.
    pub path: PathBuf,
    /// Where the run stood.
    pub state: State,
}

impl Checkpoint {
    /// Opens the checkpoint `path`.
    ///
    /// # Errors
    /// It is not a checkpoint, or one of a run that `config` does not continue.
    pub fn open(path: &Path, config: &Config) -> Result<Self, Error> {
        let file = path.join(STATE);
        let text = fs::read_to_string(&file).map_err(|e| {
            Error::new(format!(
                "{}: cannot be read ({e}); resume_from_checkpoint needs a checkpoint folder",
                file.display()
            ))
        })?;
        let Stored { state, sums } = serde_json::from_str(&text).map_err(|e| {
            Error::new(format!("{}: is damaged ({e}); use an earlier checkpoint", file.display()))
        })?;
        let saved = saved(path)?;
        let differences = config.differences(&saved)?;
        if !differences.is_empty() {
            let all: Vec<String> = differences.iter().map(ToString::to_string).collect();
            return Err(Error::new(format!(
                "{} cannot be continued with other settings: {}; set them back, or start anew in another output_dir",
                path.display(),
                all.join("; ")
            )));
        }
        for (name, saved) in &sums {
            let file = path.join(name);
            // What is missing or cut off is told by what reads it.
            if size(&file) == saved.0 && sum(&file)? != *saved {
                return Err(Error::new(format!(
                    "{}: is not what was saved: it is damaged, or of another checkpoint; use an earlier one",
                    file.display()
                )));
            }
        }
        Ok(Checkpoint { path: path.to_path_buf(), state })
    }

    /// The weights of a run of `model`.
    ///
    /// # Errors
    /// The folder is damaged, or holds another model.
    pub fn model_of(&self, model: &duel_model::Config) -> Result<Folder, Error> {
        open(&self.path, model)
    }

    /// The weights of a reference that has followed a run of `model`.
    ///
    /// # Errors
    /// As [`Checkpoint::model_of`].
    pub fn reference_of(&self, model: &duel_model::Config) -> Result<Folder, Error> {
        let path = self.path.join(REFERENCE);
        open(&path, model).map_err(|e| {
            Error::new(format!("{e}; {} is damaged: use an earlier checkpoint", self.path.display()))
        })
    }

    /// Fills the optimizer's state, and a critic.
    ///
    /// # Errors
    /// A file is missing or damaged.
    pub fn restore<B: Backend>(
        &self,
        b: &B,
        updater: &mut Updater<B>,
        critic: Option<&mut Critic<B>>,
    ) -> Result<(), Error> {
        if let Some(critic) = critic {
            critic.load(b, &self.path.join(CRITIC))?;
        }
        updater.restore(self.state.updates, |name, state| {
            Ok(duel_model::load_flat(b, &self.path.join(name), state)?)
        })
    }
}

/// Sizes and sums of the files of tensors in a checkpoint's folder and in the one within.
fn sums(folder: &Path) -> Result<BTreeMap<String, (u64, String)>, Error> {
    let mut all = BTreeMap::new();
    for within in ["", REFERENCE] {
        let Ok(entries) = fs::read_dir(folder.join(within)) else { continue };
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path.file_name().map(|name| Path::new(within).join(name)).unwrap_or_default();
            if name.extension().is_some_and(|of| of == "safetensors") {
                all.insert(name.to_string_lossy().into_owned(), sum(&path)?);
            }
        }
    }
    Ok(all)
}

/// The size of a file, and the sum of its bytes.
fn sum(path: &Path) -> Result<(u64, String), Error> {
    let mut hash = Xxh3::new();
    feed(&mut hash, path)?;
    Ok((size(path), format!("{:032x}", hash.digest128())))
}

/// Bytes of a file; none where there is none.
fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |of| of.len())
}

/// The folder `path` of a checkpoint, which holds a run's `model`.
///
/// # Errors
/// It is damaged, or holds another model.
pub fn open(path: &Path, model: &duel_model::Config) -> Result<Folder, Error> {
    let folder = Folder::open(path)?;
    if !folder.adapted().unwrap_or(folder.config()).is_like(model) {
        return Err(Error::new(format!(
            "{}: config.json is not that of this run's model; use an earlier checkpoint",
            path.display()
        )));
    }
    Ok(folder)
}
