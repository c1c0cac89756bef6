//! Runs of an experiment, each in a folder of its own: one that was done before is read, one that was begun goes on.

use crate::study::{Mark, Stage};
use duel_backend::Backend;
use duel_comm::Alone;
use duel_judge::Judge;
use duel_train::config::{Config, Resume};
use duel_train::content::digest;
use duel_train::reference::ModelId;
use duel_train::report::metrics::{self, Record};
use duel_train::{Error, Outcome, checkpoint, folder, train, train_online};

/// Does the run that `config` asks for, or what is left of it, and returns its last metrics. The run's judge is
/// `judge`, where its method has one.
///
/// # Errors
/// The folder cannot be written, the judge failed, or Ctrl-C.
pub fn run<B: Backend>(
    b: &B,
    config: Config,
    judge: Option<&mut dyn Judge>,
) -> Result<Vec<(String, f64)>, Error> {
    let output = &config.output_dir;
    let (rows, eval) = config.all_files()?;
    let files =
        [Some(&rows), eval.as_ref()].into_iter().flatten().map(digest).collect::<Result<Vec<_>, _>>()?;
    let judged = judge.as_ref().map_or(String::new(), |judge| judge.identity());
    let model = ModelId::of(&folder(&config.model)?)?.digest();
    let of = [model, files.join(" "), judged, b.identity(), config.to_toml()?].join("\n");
    let mark = Mark::of(output.join("made.json"), of);
    let failed = |e: std::io::Error| Error::new(format!("{}: {e}", output.display()));
    if mark.stage() == Stage::Nothing {
        if output.exists() {
            duel_disk::remove_dir_all(output).map_err(failed)?;
        }
        duel_disk::create_dir_all(output).map_err(failed)?;
        mark.begin()?;
    }
    if mark.stage() == Stage::Begun {
        let whole = !checkpoint::list(output).is_empty();
        let resume_from_checkpoint = if whole { Resume::Newest } else { Resume::Off };
        // Without a checkpoint, what was written belongs to steps that are made again.
        let config = Config { resume_from_checkpoint, overwrite_output_dir: !whole, ..config.clone() };
        let outcome = match judge {
            Some(judge) => train_online(b, &Alone, &config, judge)?,
            None => train(b, &Alone, &config)?,
        };
        if let Outcome::Interrupted { .. } = outcome {
            return Err(Error::new("stopped; the same command goes on from here"));
        }
        mark.finish()?;
    }
    Ok(last(&metrics::read(&output.join("metrics.jsonl"))?))
}

/// What the last evaluation found, or the last logged step where there is none.
fn last(records: &[Record]) -> Vec<(String, f64)> {
    let evaluates = |record: &&Record| record.keys().any(|name| name.starts_with("eval_"));
    let record = records.iter().rev().find(evaluates).or(records.last());
    let numbers = record.into_iter().flatten().filter_map(|(name, v)| Some((name.clone(), v.as_f64()?)));
    numbers.collect()
}
