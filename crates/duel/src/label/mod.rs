//! `duel label`: responses in, what a judge says of them out, as rows that `duel train` reads.

mod format;
mod summary;

use crate::journal::Journal;
use crate::judges::{self, JudgeSettings};
use crate::rows::Which;
use clap::Args;
use duel::device::{Chosen, Job, Machine};
use duel_backend::Backend;
use duel_data::{Candidates, Context, Files};
use duel_judge::{Answer, Case, Judge, Reviser, Says, Tally, open, verdicts};
use duel_train::content::digest;
use duel_train::report::progress::Progress;
use duel_train::{Error, signal};
use format::{Format, Labels, Pairs, Writer};
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use summary::Summary;

/// Its arguments.
#[derive(Args)]
pub struct Label {
    /// Responses to judge, .jsonl or .json: {prompt, completions} as `duel sample` writes it, {prompt, responses}, or
    /// {prompt, chosen, rejected}; or a folder of such files, or a name on the Hub
    #[arg(long, value_name = "FILE")]
    dataset: PathBuf,
    #[command(flatten)]
    which: Which,
    /// Who judges: lexicon:FILE, program:COMMAND, http:URL, truth, model:FOLDER or cycle
    #[arg(long, value_name = "NAME")]
    judge: String,
    /// What is written; each is what `duel train` reads
    #[arg(long, value_enum, default_value = "scored")]
    format: Format,
    /// Where to; a run that was stopped continues with the same command [default: standard output]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Of pairs: which of a row's are written [default: best_worst]
    #[arg(long, value_enum)]
    pairs: Option<Pairs>,
    /// Of pairs: how they are labelled [default: deterministic]
    #[arg(long, value_enum)]
    labels: Option<Labels>,
    /// Draws labels [default: 42]
    #[arg(long)]
    seed: Option<u64>,
    /// Of unpaired rows: scores above it are good, below it bad [default: 0.5 of win rates]
    #[arg(long, allow_negative_numbers = true)]
    threshold: Option<f64>,
    /// What a response that was cut by the limit of tokens loses of its score [default: 0]
    #[arg(long)]
    missing_eos_penalty: Option<f64>,
    /// Rows that are judged at a time; a run that is killed judges no more than these again
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..=65536))]
    batch_size: u64,
    #[command(flatten)]
    settings: JudgeSettings,
    #[command(flatten)]
    machine: Machine,
}

/// Who works on the rows.
enum Worker<'a> {
    Judge(Box<dyn Judge + 'a>),
    Reviser(Box<Reviser>),
}

impl Worker<'_> {
    fn describe(&self) -> String {
        match self {
            Worker::Judge(judge) => judge.describe(),
            Worker::Reviser(reviser) => reviser.describe(),
        }
    }

    fn identity(&self) -> String {
        match self {
            Worker::Judge(judge) => judge.identity(),
            Worker::Reviser(reviser) => reviser.identity(),
        }
    }

    fn tally(&self) -> Tally {
        match self {
            Worker::Judge(judge) => judge.tally(),
            Worker::Reviser(reviser) => reviser.tally(),
        }
    }
}

impl Job for &Label {
    type Output = ();
    fn run<B: Backend>(self, b: &B) -> Result<(), Error> {
        self.label(b)
    }
}

impl Label {
    /// Judges every row.
    ///
    /// # Errors
    /// The first row that cannot be judged, or what the judge or the output came to grief over; or that it was stopped.
    pub fn run(&self) -> Result<(), Error> {
        signal::listen();
        let Machine { device, bf16, threads } = &self.machine;
        let chosen = match judges::is_model(&self.judge) {
            true => Chosen::of(*device, bf16.0, (*threads).into())?,
            false if self.machine.is_said() => {
                return Err(Error::new(format!(
                    "--device, --bf16 and --threads have no effect on the judge `{}`, but on model:FOLDER; leave them \
                     out",
                    self.judge
                )));
            }
            // None computes: no device is looked for.
            false => Chosen::Cpu { threads: 1, bf16: false },
        };
        chosen.run(self)
    }

    fn label<B: Backend>(&self, b: &B) -> Result<(), Error> {
        let mut worker = self.worker(b)?;
        let writer = self.writer(&worker)?;
        // The whole file is checked before the first row is judged, which may cost money.
        let files = self.which.files(&self.dataset)?;
        let (hash, rows) = looked_through(&files, self.format)?;
        let made_of = self.made_of(&worker, &writer, &hash);
        let mut journal = Journal::<Summary>::open(self.output.as_deref(), "label", &made_of)?;
        let (done, mut summary) = (journal.done, std::mem::take(&mut journal.before));
        let before = summary.tally;
        let mut progress = Progress::new("labelling", "rows", done, rows);
        let mut work = |batch: &mut Vec<Candidates>| -> Result<(), Error> {
            if signal::interrupted() {
                return Err(stopped(self.output.is_some()));
            }
            let (n, cases) = (batch.len() as u64, batch.iter().map(case).collect::<Vec<_>>());
            let failed = |e| match e {
                duel_judge::Error::Stopped => stopped(self.output.is_some()),
                e => e.into(),
            };
            let mut lines = String::new();
            match &mut worker {
                Worker::Judge(judge) => {
                    let verdicts = verdicts(judge.as_mut(), &cases).map_err(failed)?;
                    for (row, verdict) in batch.iter().zip(verdicts) {
                        lines += &writer.rows(row, verdict, &mut summary);
                    }
                }
                Worker::Reviser(reviser) => {
                    for (row, revised) in batch.iter().zip(reviser.revise(&cases).map_err(failed)?) {
                        let texts: Vec<_> = revised.into_iter().map(|r| r.map(|r| r.text)).collect();
                        lines += &format::revisions(row, &texts, &mut summary);
                    }
                }
            }
            summary.rows += n;
            summary.empty += batch.iter().map(|row| row.empty as u64).sum::<u64>();
            summary.tally = before;
            summary.tally += worker.tally();
            journal.add(n, &lines, &summary)?;
            batch.clear();
            progress.advance(n);
            Ok(())
        };
        in_batches(&files, done, self.batch_size as usize, &mut work)?;
        drop(progress);
        if writer.penalty > 0.0 && summary.truncated == 0 && summary.endless > 0 {
            duel_train::say!(
                "note: no row says `finish_reason`: \"length\", and so missing_eos_penalty had no effect"
            );
        }
        duel_train::say!("{}", summary.line(&worker.describe()));
        Ok(())
    }

    fn worker<'a, B: Backend>(&self, b: &'a B) -> Result<Worker<'a>, Error> {
        let JudgeSettings(settings) = &self.settings;
        let settings = match &self.output {
            Some(output) => judges::kept(settings, &self.judge, || {
                Ok(PathBuf::from(format!("{}.answers", output.display())))
            })?,
            None => settings.clone(),
        };
        if self.format != Format::Revisions {
            let judge = open(&self.judge, &settings, &judges::makers(b), &judges::stop())?;
            return Ok(Worker::Judge(judge));
        }
        let url = match self.judge.split_once(':') {
            Some(("http", url)) if !url.starts_with("//") => url,
            Some(("http" | "https", _)) => &self.judge,
            _ => {
                return Err(Error::new(format!(
                    "the format revisions needs a judge that writes, http:URL, and `{}` is none",
                    self.judge
                )));
            }
        };
        Ok(Worker::Reviser(Box::new(Reviser::new(url, &settings, judges::stop())?)))
    }

    /// What is written, if all that is said of it has an effect.
    fn writer(&self, worker: &Worker<'_>) -> Result<Writer, Error> {
        let scores = matches!(worker, Worker::Judge(judge) if judge.says() == Says::Scores);
        let (pairs, drawn) = (self.format == Format::Pairs, self.labels == Some(Labels::Drawn));
        let idle = [
            ("--pairs", self.pairs.is_some() && !pairs, "with --format pairs"),
            ("--labels", self.labels.is_some() && !pairs, "with --format pairs"),
            ("--seed", self.seed.is_some() && !drawn, "with --labels drawn"),
            (
                "--threshold",
                self.threshold.is_some() && self.format != Format::Unpaired,
                "with --format unpaired",
            ),
            (
                "--missing-eos-penalty",
                self.missing_eos_penalty.is_some() && !scores,
                "of a judge that gives scores",
            ),
        ];
        if let Some((flag, _, only)) = idle.iter().find(|(_, idle, _)| *idle) {
            return Err(Error::new(format!("{flag} has an effect only {only}; leave it out")));
        }
        if self.threshold.is_none() && self.format == Format::Unpaired && scores {
            return Err(Error::new(
                "--format unpaired needs --threshold: the score above which a response is good; 0 of log-odds",
            ));
        }
        let penalty = self.missing_eos_penalty.unwrap_or(0.0);
        let threshold = self.threshold.unwrap_or(0.5);
        if !(0.0..=1e9).contains(&penalty) || !threshold.is_finite() {
            return Err(Error::new("--missing-eos-penalty is at least 0, and --threshold a finite number"));
        }
        Ok(Writer {
            format: self.format,
            pairs: self.pairs.unwrap_or_default(),
            labels: self.labels.unwrap_or_default(),
            seed: self.seed.unwrap_or(42),
            threshold,
            penalty,
            judge: self.judge.clone(),
        })
    }

    /// What decides the output, by names that a user knows.
    fn made_of(&self, worker: &Worker<'_>, writer: &Writer, hash: &str) -> Map<String, Value> {
        let how =
            format!("{:?}", (writer.pairs, writer.labels, writer.seed, writer.threshold, writer.penalty));
        let all = [
            ("dataset", json!(hash)),
            ("judge", json!(worker.identity())),
            ("format", json!(format!("{:?}", self.format))),
            ("choice of --pairs, --labels, --seed, --threshold and --missing-eos-penalty", json!(how)),
        ];
        all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

fn stopped(resumable: bool) -> Error {
    Error::new(match resumable {
        true => "stopped; the same command continues",
        false => "stopped; with --output the same command would continue",
    })
}

/// A row as judges have it.
fn case(row: &Candidates) -> Case {
    let answer = |r: &duel_data::Candidate| Answer {
        text: r.text.clone(),
        tokens: r.tokens.clone(),
        truncated: r.truncated == Some(true),
    };
    Case {
        prompt: duel_rollout::prompt(&row.turns, &row.columns),
        answers: row.responses.iter().map(answer).collect(),
    }
}

/// A hash of the files, and how many rows they have; each can be judged, and written in this format.
fn looked_through(files: &Files, format: Format) -> Result<(String, u64), Error> {
    let mut rows = 0;
    let mut unseen = false;
    Candidates::each(files, |row| {
        rows += 1;
        unseen |= Context::COLUMNS.iter().any(|name| row.columns.contains_key(*name));
        let alone = matches!(format, Format::Best | Format::Unpaired | Format::Scored);
        match row.prompt.is_none() && alone {
            true => Err(duel_data::Error::Row {
                file: Some(files.name().to_owned()),
                row: row.row,
                message: "has no `prompt`, which only pairs can be without; give it, or use --format pairs"
                    .into(),
            }),
            false => Ok(()),
        }
    })?;
    if unseen {
        duel_train::say!(
            "note: judges but reward models are not shown {}; they stay in the rows",
            Context::COLUMNS.map(|name| format!("`{name}`")).join(", ")
        );
    }
    Ok((digest(files)?, rows))
}

/// Hands `work` the rows after the first `done`, so many at a time. It empties what it is given.
fn in_batches(
    files: &Files,
    done: u64,
    size: usize,
    work: &mut dyn FnMut(&mut Vec<Candidates>) -> Result<(), Error>,
) -> Result<(), Error> {
    let (mut batch, mut failed) = (Vec::with_capacity(size), None);
    let read = Candidates::after(files, done as usize, |row| {
        batch.push(row);
        if batch.len() < size {
            return Ok(());
        }
        work(&mut batch).map_err(|e| {
            failed = Some(e);
            // Ends the reading; `failed` is the error.
            duel_data::Error::Data(String::new())
        })
    });
    if let Some(failed) = failed {
        return Err(failed);
    }
    read?;
    match batch.is_empty() {
        true => Ok(()),
        false => work(&mut batch),
    }
}
