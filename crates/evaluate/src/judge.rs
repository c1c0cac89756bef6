//! A model that rows are put to.

use crate::lines::{Lines, Of, Record};
use crate::question::Question;
use duel_backend::Backend;
use duel_comm::Alone;
use duel_data::{Dataset, Files, Tokenizer};
use duel_loss::ResponseStats;
use duel_model::{Config as ModelConfig, Folder, Keep, Model, Output};
use duel_train::cache::Cache;
use duel_train::config::{Config, Method, Options};
use duel_train::engine::{Engine, Room};
use duel_train::memory::Bytes;
use duel_train::objective::{Objective, Scored};
use duel_train::reference::{ModelId, Reference};
use duel_train::report::progress::Progress;
use duel_train::{Error, Ranks, at_revision, check_tokens, max_length, rows, signal};
use std::path::{Path, PathBuf};

/// A model that rows are put to: a policy or a reward model, as its folder says.
pub struct Judge {
    of: Of,
    path: PathBuf,
    config: Config,
}

impl Judge {
    /// The model in the folder `path`.
    ///
    /// # Errors
    /// The folder or an option is wrong.
    pub fn open(question: &Question, of: Of, path: &Path, dataset: &Path) -> Result<Self, Error> {
        let folder = Folder::open(path)?;
        folder.notes().iter().for_each(|note| duel_train::say!("note: {note}"));
        let method = match folder.config().output {
            Output::Score => Method::Reward,
            Output::Logits => Method::Dpo,
        };
        if let Some(asked) = question.options.method.filter(|asked| *asked != method) {
            return Err(Error::new(format!(
                "{}: `method = {asked}` does not fit, its folder is that of a {}; remove it, or give \
                 `method = {method}`",
                path.display(),
                if method == Method::Reward { "reward model" } else { "language model" }
            )));
        }
        let options = Options {
            model: Some(path.to_path_buf()),
            model_revision: None,
            method: Some(method),
            // What is said of evaluations is meant.
            eval_dataset: Some(Some(dataset.to_path_buf()).into()),
            ..question.options.clone()
        };
        Ok(Judge { of, path: path.to_path_buf(), config: options.resolve()? })
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How it is asked.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The files of the rows.
    ///
    /// # Errors
    /// There is no such data set or split.
    pub fn files(&self) -> Result<Files, Error> {
        let config = &self.config;
        let said = at_revision(&config.dataset, config.dataset_revision.as_deref(), "dataset_revision")?;
        let config = Config { dataset: said.clone(), eval_dataset: Some(said), ..config.clone() };
        config.eval_files()?.ok_or_else(|| Error::new("there are no rows to evaluate on"))
    }

    /// Whether it has a scalar head.
    pub fn is_reward_model(&self) -> bool {
        self.config.method == Method::Reward
    }

    /// What a difference of its rewards is multiplied by to be the log-odds of a preference.
    pub fn certainty(&self) -> f64 {
        if self.is_reward_model() { self.config.beta } else { 1.0 }
    }

    /// What it says of every row: of those that `lines` has it is not asked again.
    ///
    /// # Errors
    /// Weights, rows or the device are broken, or Ctrl-C; what was scored before stays in `lines`.
    pub fn score<B: Backend>(
        &self,
        b: &B,
        question: &Question,
        files: &Files,
        lines: &mut Lines,
    ) -> Result<(Dataset, Vec<Record>), Error> {
        let folder = Folder::open(&self.path)?;
        let model = folder.config();
        let tokenizer = duel_train::tokenizer(&self.path)?;
        let config = &self.config;
        let reference = question.reference.as_deref().filter(|_| !self.is_reward_model());
        let reference = reference
            .map(|path| Ok::<_, Error>((path, Folder::open(path)?.language_model()?)))
            .transpose()?;
        let limit = reference.iter().fold(max_length(config, model), |limit, (path, folder)| {
            let most = folder.config().max_positions;
            if most < limit {
                duel_train::say!(
                    "max_length {limit} is lowered to {most}: {} has no more positions",
                    path.display()
                );
            }
            limit.min(most)
        });
        let ds = rows(&Ranks::new(&Alone), files, config, limit, model, &tokenizer)?;
        duel_train::say!("{}: {}", files.name().display(), ds.report());
        if let Some((path, folder)) = &reference {
            check_reference(&ds, &tokenizer, path, folder.config())?;
        }
        let mut records = lines.take(self.of, &ds)?;
        let missing: Vec<u32> = (0..ds.len() as u32).filter(|&i| records[i as usize].is_none()).collect();
        if let Some(path) = lines.path() {
            let read = ds.len() - missing.len();
            duel_train::say!(
                "{}: {read} rows read from {}, {} to be scored",
                self.path.display(),
                path.display(),
                missing.len()
            );
        }
        if !missing.is_empty() {
            let reference = match &reference {
                Some((path, folder)) => Some(self.ask_reference(b, path, folder, &ds, &missing)?),
                None => None,
            };
            let room = plan(b, "model", &self.path, model, config, &ds);
            let weights = duel_model::load(b, &folder)?;
            let mut engine = Engine::new(b, model, room, Keep::Nothing)?;
            let read = (ds.len() - missing.len()) as u64;
            let mut bar = Progress::new("scores", "rows", read, ds.len() as u64);
            for micro in engine.scored_together(&ds, &missing) {
                if signal::interrupted() {
                    return Err(stopped(lines));
                }
                let stats = engine.score(&weights, &ds, micro, |_| true)?;
                let scored = self.records(&ds, micro, &stats, reference.as_ref())?;
                lines.append(&scored)?;
                for (&i, record) in micro.iter().zip(scored) {
                    records[i as usize] = Some(record);
                }
                bar.advance(micro.len() as u64);
            }
        }
        Ok((ds, records.into_iter().flatten().collect()))
    }

    fn ask_reference<B: Backend>(
        &self,
        b: &B,
        path: &Path,
        folder: &Folder,
        ds: &Dataset,
        groups: &[u32],
    ) -> Result<Reference, Error> {
        let model = folder.config();
        let cache = Cache::new(&self.config.cache_dir, &ModelId::of(path)?.on(b, ds, None));
        let room = plan(b, "reference", path, model, &self.config, ds);
        let weights = duel_model::load(b, folder)?;
        let mut engine = Engine::new(b, model, room, Keep::Nothing)?;
        Reference::of(&Ranks::new(&Alone), &mut engine, &weights, ds, groups, &cache, "rows")
    }

    fn records(
        &self,
        ds: &Dataset,
        groups: &[u32],
        stats: &[ResponseStats],
        reference: Option<&Reference>,
    ) -> Result<Vec<Record>, Error> {
        let objective = Objective::of(&self.config);
        let of_reference = |i: u32| reference.map_or(&[][..], |reference| reference.group(i));
        let record = |(&i, scored): (&u32, Scored<'_>)| {
            let list = |of: fn(&ResponseStats) -> f64| scored.stats.iter().map(of).collect::<Vec<f64>>();
            let policy = !self.is_reward_model();
            let mut record = Record {
                row: ds.group(i as usize).row,
                of: self.of,
                tokens: scored.stats.iter().map(|s| s.tokens).collect(),
                logps: policy.then(|| list(|s| s.logp)),
                ref_logps: reference.map(|reference| reference.group(i).to_vec()),
                rewards: match policy {
                    true => reference.map(|_| objective.rewards(&[scored])),
                    false => Some(list(|s| s.value)),
                },
                difference: 0.0,
            };
            let scores = record.scores();
            if let Some(bad) = scores.iter().find(|x| !x.is_finite()) {
                let (path, row) = (self.path.display(), record.row);
                return Err(Error::new(format!(
                    "{path}: gives row {row} of the data a score of {bad}; its weights are broken"
                )));
            }
            record.difference = scores[0] - scores[scores.len() - 1];
            Ok(record)
        };
        groups.iter().zip(Scored::groups(ds, groups, stats, false, of_reference)).map(record).collect()
    }
}

fn stopped(lines: &Lines) -> Error {
    Error::new(match lines.path() {
        Some(path) => format!(
            "stopped while scoring; what was scored is in {}, and the same command goes on from there",
            path.display()
        ),
        None => {
            "stopped while scoring; with --output FILE the same command would go on from there".to_owned()
        }
    })
}

/// Room for a pass, after a line about it.
fn plan<B: Backend>(
    b: &B,
    what: &str,
    path: &Path,
    model: &ModelConfig,
    config: &Config,
    ds: &Dataset,
) -> Room {
    let room = Room::plan(b, ds, config.per_device_eval_batch_size, config.micro_batch_tokens, model.vocab);
    let parameters = Model::manifest(model).parameters();
    let bytes = Bytes::default().and("weights", size_of::<B::Real>() * parameters);
    duel_train::say!(
        "{what} {}: {:.2} M parameters, {:?}; micro-batches of up to {} tokens; {}\n      to be allocated: {}",
        path.display(),
        parameters as f64 / 1e6,
        model.family,
        room.rows,
        b.describe(),
        bytes.with(Engine::<B>::bytes(model, room, Keep::Nothing))
    );
    room
}

/// The tokens of the data must be the same to the reference.
fn check_reference(
    ds: &Dataset,
    tokenizer: &Tokenizer,
    path: &Path,
    model: &ModelConfig,
) -> Result<(), Error> {
    check_tokens(ds, path, model)?;
    let other = duel_train::tokenizer(path)?;
    let mut used = ds.tokens().to_vec();
    used.sort_unstable();
    used.dedup();
    for token in used {
        let (ours, theirs) = (tokenizer.decode(&[token], false)?, other.decode(&[token], false).ok());
        if theirs.as_ref() != Some(&ours) {
            return Err(Error::new(format!(
                "{}: the reference has another vocabulary: token {token} is {ours:?} to the model and {} to it; give \
                 the model that the policy was trained from",
                path.display(),
                theirs.map_or("nothing".to_owned(), |text| format!("{text:?}"))
            )));
        }
    }
    Ok(())
}
