//! The folder that a run writes: whether it may, and what it leaves there.

use crate::Error;
use crate::checkpoint::{self, Checkpoint, Checkpoints};
use crate::config::{Config, ReportTo, Resume};
use crate::ranks::Ranks;
use crate::report::metrics::{self, MetricsWriter, Record};
use crate::report::plot;
use crate::report::trackers::{self, Resumed, Trackers};
use crate::report::trainer_state::TrainerState;
use duel_backend::Backend;
use duel_disk::{File, Lock};
use duel_model::{Config as ModelConfig, FileDtype, Weights};
use serde_json::Value;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

const METRICS: &str = "metrics.jsonl";
const SAMPLES: &str = "samples.jsonl";
const PLOT: &str = "metrics.svg";
/// Speed and loss of training.
pub const RESULTS: &str = "train_results.json";
/// The last evaluation, or that of the best model where that is left.
pub const EVAL_RESULTS: &str = "eval_results.json";
/// Both.
pub const ALL_RESULTS: &str = "all_results.json";
/// What was logged, as transformers has it.
pub const TRAINER_STATE: &str = "trainer_state.json";
const CONFIG: &str = "duel.toml";
/// Who writes the folder, while that lives.
const LOCK: &str = "duel.lock";

/// The folder that a run will write, for itself alone, where it is there already.
///
/// # Errors
/// It cannot be written, or another process writes it.
pub fn lock_if_there(ranks: &Ranks<'_>, out: &Path) -> Result<Option<Lock>, Error> {
    Ok(ranks.kept(|| out.is_dir().then(|| lock(out)).transpose())?.flatten())
}

fn lock(out: &Path) -> Result<Lock, Error> {
    let lock = Lock::take(&out.join(LOCK)).map_err(|e| match e.kind() {
        ErrorKind::WouldBlock => Error::new(format!(
            "{} is being written by another run ({e}); wait for it, end it, or choose another output_dir",
            out.display()
        )),
        _ => Error::new(format!("{}: cannot be written: {e}", out.display())),
    })?;
    if !lock.is_sure() {
        say!(
            "note: {} is on a file system without locks: see to it that no second run writes there",
            out.display()
        );
    }
    Ok(lock)
}

/// The checkpoint that a run continues from.
///
/// # Errors
/// The newest is asked for and there is none.
pub fn to_resume(c: &Config) -> Result<Option<PathBuf>, Error> {
    match &c.resume_from_checkpoint {
        Resume::Off => Ok(None),
        Resume::Path(path) => Ok(Some(path.clone())),
        Resume::Newest => match checkpoint::list(&c.output_dir).pop() {
            Some((_, path)) => Ok(Some(path)),
            None => Err(Error::new(format!(
                "{} holds no checkpoint to resume from; leave resume_from_checkpoint out to start",
                c.output_dir.display()
            ))),
        },
    }
}

/// Whether the checkpoint that a run continues from, if any, lies in its output folder: then it may have that.
pub fn goes_on(c: &Config) -> bool {
    let of = |path: &Path| fs::canonicalize(path).ok();
    match &c.resume_from_checkpoint {
        Resume::Off => false,
        Resume::Newest => true,
        Resume::Path(path) => {
            let within = of(path).and_then(|path| path.parent().map(Path::to_path_buf));
            within.is_some() && within == of(&c.output_dir)
        }
    }
}

/// Whether a run may have its folder, if nothing of it [lies there](goes_on) already.
///
/// # Errors
/// It cannot be made, is in use by the run itself, or holds another run.
pub fn check(c: &Config) -> Result<(), Error> {
    let out = &c.output_dir;
    let models = models(c)?;
    let same =
        |path: &PathBuf| fs::canonicalize(out).is_ok_and(|o| fs::canonicalize(path).is_ok_and(|p| p == o));
    if let Some((whose, _)) = models.iter().find(|(_, path)| same(path)) {
        return Err(Error::new(format!(
            "output_dir {} is {whose} own folder; choose another",
            out.display()
        )));
    }
    if let Some(file) = out.ancestors().find(|p| p.exists()).filter(|p| !p.is_dir()) {
        return Err(Error::new(format!(
            "output_dir {} cannot be made: {} is a file; choose another",
            out.display(),
            file.display()
        )));
    }
    let root = fs::canonicalize(out).ok();
    let inside = |path: &Path| {
        root.as_ref().is_some_and(|root| fs::canonicalize(path).is_ok_and(|p| p.starts_with(root)))
    };
    let rows = [Some(&c.dataset), c.eval_dataset.as_ref()];
    let mixtures = c.datasets.iter().chain(&c.eval_datasets);
    let entries = mixtures.flat_map(|all| &all.0).map(|entry| &entry.path);
    let mut reads = models.iter().map(|(_, path)| path).chain(rows.into_iter().flatten()).chain(entries);
    if c.overwrite_output_dir && reads.any(|path| inside(path)) {
        return Err(Error::new(format!(
            "overwrite_output_dir would delete in {}, where a model or a dataset lies; choose another output_dir",
            out.display()
        )));
    }
    let stands = !checkpoint::list(out).is_empty();
    let used = stands || [METRICS, SAMPLES].iter().any(|name| out.join(name).exists());
    if used && !c.overwrite_output_dir {
        let (what, way) = match stands {
            true => ("a run", "--resume-from-checkpoint to continue it, "),
            false => ("the beginning of a run, without a checkpoint", ""),
        };
        return Err(Error::new(format!(
            "{} already holds {what}; give {way}--overwrite-output-dir to replace it, or another --output-dir",
            out.display()
        )));
    }
    Ok(())
}

/// The folders of models that a run reads, and whose they are: an adapter's is of two.
///
/// # Errors
/// An adapter does not name its base.
fn models(c: &Config) -> Result<Vec<(&'static str, PathBuf)>, Error> {
    let mut all = Vec::new();
    for (whose, path) in [("the model's", Some(&c.model)), ("the reference's", c.ref_model.as_ref())] {
        let Some(path) = path.map(|said| super::folder(said)).transpose()? else { continue };
        all.extend(duel_model::base_folder(&path)?.map(|base| ("the adapter's base's", base)));
        all.push((whose, path));
    }
    Ok(all)
}

/// Names a model in the output folder that the trained one will replace, before any time is spent.
///
/// # Errors
/// The folder cannot be read.
pub fn announce(c: &Config) -> Result<(), Error> {
    const SHOWN: usize = 3;
    let names = duel_model::model_files(&c.output_dir)?;
    if !names.is_empty() && !c.overwrite_output_dir {
        let more = if names.len() > SHOWN { ", ..." } else { "" };
        let shown = names[..names.len().min(SHOWN)].join(", ");
        say!(
            "note: {} holds another model ({shown}{more}); the trained one will take its place",
            c.output_dir.display()
        );
    }
    Ok(())
}

/// The folder of a run, ready to be written.
pub struct Output {
    dir: PathBuf,
    /// What keeps other runs out of it, on the rank that writes.
    lock: Option<Lock>,
    /// Type of the trained model's numbers.
    dtype: FileDtype,
    /// The checkpoints in it.
    pub checkpoints: Checkpoints,
}

impl Output {
    /// That of the run that `c` asks for. The trained model's numbers will be of `dtype`. `lock` is its lock, where the
    /// folder was there when the run began.
    ///
    /// # Errors
    /// A path is not UTF-8.
    pub fn of(c: &Config, dtype: FileDtype, lock: Option<Lock>) -> Result<Self, Error> {
        Ok(Output { dir: c.output_dir.clone(), lock, dtype, checkpoints: Checkpoints::of(c)? })
    }

    /// Makes the folder, without what an earlier run left if that is to be overwritten.
    ///
    /// # Errors
    /// It cannot be written, or another run has begun in it meanwhile.
    pub fn prepare(&mut self, c: &Config) -> Result<(), Error> {
        let out = &self.dir;
        let failed = |e: std::io::Error| Error::new(format!("{}: cannot be written: {e}", out.display()));
        duel_disk::create_dir_all(out).map_err(failed)?;
        if self.lock.is_none() {
            self.lock = Some(lock(out)?);
            if !goes_on(c) {
                check(c)?;
            }
        }
        if c.overwrite_output_dir {
            remove_run(out).map_err(failed)?;
            duel_model::remove_model(out)?;
        }
        // What a run that was killed was writing, or removing, is of no use to anybody.
        for half in checkpoint::half_written(out) {
            duel_disk::remove_dir_all(&half).map_err(failed)?;
        }
        Ok(duel_model::write_synced(&out.join(CONFIG), c.to_go_on().to_toml()?.as_bytes())?)
    }

    /// Opens what metrics are written to; those, and the samples, from after the step that a run continues from are
    /// about to be made again, and so, where that is said beside it, is the evaluation after that step.
    ///
    /// # Errors
    /// They cannot be read or written.
    pub fn trackers(&self, report_to: ReportTo, resumed: Resumed) -> Result<Trackers, Error> {
        let samples = self.dir.join(SAMPLES);
        if let Some((step, unevaluated)) = resumed.filter(|_| samples.exists()) {
            MetricsWriter::open(&samples, Some(step), unevaluated)?;
        }
        Trackers::open(&self.dir, report_to, resumed)
    }

    /// What was logged so far.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn history(&self) -> Result<Vec<Record>, Error> {
        metrics::read(&self.metrics())
    }

    /// The file of that.
    pub fn metrics(&self) -> PathBuf {
        self.dir.join(METRICS)
    }

    /// Whether a checkpoint is one of this folder's.
    pub fn holds(&self, c: &Checkpoint) -> bool {
        let own = self.checkpoints.folder(c.state.step);
        fs::canonicalize(own).ok() == fs::canonicalize(&c.path).ok()
    }

    /// Appends lines to the samples.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn add_samples(&self, lines: &str) -> Result<(), Error> {
        let path = self.dir.join(SAMPLES);
        let file = File::append(&path);
        file.and_then(|mut f| f.write_all(lines.as_bytes()))
            .map_err(|e| Error::new(format!("{}: cannot be written: {e}", path.display())))
    }

    /// The trained model as a folder that transformers loads, the plot, and the files of JSON that go with it; where
    /// the run stands, with what is said last of it.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn finish<B: Backend>(
        &self,
        b: &B,
        model: &ModelConfig,
        weights: &impl Weights<B>,
        stops: &[u32],
        results: &[(&str, Value)],
        (standing, last): (&TrainerState, &Record),
    ) -> Result<(), Error> {
        let out = &self.dir;
        let staged = duel_model::stage(out)?;
        self.checkpoints.model.save(b, &staged, model, weights, stops, self.dtype)?;
        let old = duel_model::install(&staged, out)?;
        if !old.is_empty() {
            say!("note: {} held a model, which was replaced: {}", out.display(), old.join(", "));
        }
        for (name, json) in results {
            let path = out.join(name);
            duel_disk::write(&path, format!("{json:#}\n").as_bytes())
                .map_err(|e| Error::new(format!("{}: cannot be written: {e}", path.display())))?;
        }
        standing.write(&out.join(TRAINER_STATE), &self.metrics(), Some(last))?;
        plot::write_svg(&out.join(PLOT), &self.history()?)
    }
}

/// Removes what an earlier run left besides its model, and nothing else.
fn remove_run(out: &Path) -> std::io::Result<()> {
    for (_, old) in checkpoint::list(out) {
        checkpoint::remove(&old)?;
    }
    let half = out.join(duel_model::STAGED);
    if half.exists() {
        duel_disk::remove_dir_all(&half)?;
    }
    trackers::remove(out)?;
    let files = [PLOT, SAMPLES, RESULTS, EVAL_RESULTS, ALL_RESULTS, TRAINER_STATE, CONFIG];
    for file in files.map(|name| out.join(name)) {
        if file.exists() {
            duel_disk::remove_file(&file)?;
        }
    }
    Ok(())
}
