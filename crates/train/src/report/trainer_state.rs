//! `trainer_state.json` as transformers' trainer writes it, for those who read that: where a run stands and what it
//! logged. Nothing here is read again.

use super::metrics::{self, Record};
use crate::Error;
use duel_disk::File;
use serde::Serialize;
use serde::ser::{Error as _, SerializeSeq, Serializer};
use serde_json::Map;
use std::cell::RefCell;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Where a run stands.
#[derive(Debug, Default)]
pub struct TrainerState {
    /// Steps done, and of the whole run.
    pub steps: (u64, u64),
    /// Passes over the rows: those steps as such, and of the whole run.
    pub epochs: (f64, f64),
    /// Steps between logs, evaluations and checkpoints.
    pub every: [u64; 3],
    /// Groups in a batch, accumulation left out.
    pub batch: usize,
    /// Tokens seen.
    pub tokens: u64,
    /// Operations on them: 6 for each parameter that is no embedding, as transformers counts.
    pub flos: f64,
    /// The best metric, its step, and the folder of the best checkpoint.
    pub best: (Option<f64>, Option<u64>, Option<String>),
}

/// The file, by transformers' names.
#[derive(Serialize)]
struct Form<'a> {
    best_global_step: Option<u64>,
    best_metric: Option<f64>,
    best_model_checkpoint: Option<&'a str>,
    epoch: f64,
    eval_steps: u64,
    global_step: u64,
    is_hyper_param_search: bool,
    is_local_process_zero: bool,
    is_world_process_zero: bool,
    #[serde(serialize_with = "logged")]
    log_history: &'a Log<'a>,
    logging_steps: u64,
    max_steps: u64,
    num_input_tokens_seen: u64,
    num_train_epochs: u64,
    save_steps: u64,
    stateful_callbacks: Map<String, serde_json::Value>,
    total_flos: f64,
    train_batch_size: usize,
    trial_name: (),
    trial_params: (),
}

/// What was logged: of a long run too much to be held, so it is read record by record while the file is written.
struct Log<'a> {
    metrics: &'a Path,
    last: Option<&'a Record>,
    /// Why it could not be read.
    failed: RefCell<Option<Error>>,
}

fn logged<S: Serializer>(log: &Log<'_>, to: S) -> Result<S::Ok, S::Error> {
    let mut list = to.serialize_seq(None)?;
    for record in metrics::records(log.metrics) {
        match record {
            Ok(record) => list.serialize_element(&record)?,
            Err(e) => {
                log.failed.replace(Some(e));
                return Err(S::Error::custom("what was logged cannot be read"));
            }
        }
    }
    log.last.map_or(Ok(()), |last| list.serialize_element(last))?;
    list.end()
}

impl TrainerState {
    /// Writes the file `path`, with what is in the `metrics.jsonl` `metrics` and `last` after that, and waits until the
    /// disk has it.
    ///
    /// # Errors
    /// It cannot be written, or what was logged cannot be read.
    pub fn write(&self, path: &Path, metrics: &Path, last: Option<&Record>) -> Result<(), Error> {
        let [logging_steps, eval_steps, save_steps] = self.every;
        let (best_metric, best_global_step, checkpoint) = &self.best;
        let log = Log { metrics, last, failed: RefCell::default() };
        let form = Form {
            best_global_step: *best_global_step,
            best_metric: *best_metric,
            best_model_checkpoint: checkpoint.as_deref(),
            epoch: self.epochs.0,
            eval_steps,
            global_step: self.steps.0,
            is_hyper_param_search: false,
            is_local_process_zero: true,
            is_world_process_zero: true,
            log_history: &log,
            logging_steps,
            max_steps: self.steps.1,
            num_input_tokens_seen: self.tokens,
            num_train_epochs: self.epochs.1.ceil() as u64,
            save_steps,
            stateful_callbacks: Map::new(),
            total_flos: self.flos,
            train_batch_size: self.batch,
            trial_name: (),
            trial_params: (),
        };
        let write = || {
            let mut to = BufWriter::new(File::create(path)?);
            serde_json::to_writer_pretty(&mut to, &form)?;
            to.write_all(b"\n")?;
            to.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()
        };
        write().map_err(|e: std::io::Error| match log.failed.take() {
            Some(unread) => unread,
            None => Error::new(format!("{}: cannot be written: {e}", path.display())),
        })
    }
}
