//! `duel sample`: completions of the prompts of a file, as JSON lines.

use crate::drawing::Drawing;
use crate::journal::{Counted, Journal};
use crate::rows::Which;
use crate::writers::{Writer, Writers};
use clap::Args;
use duel::device::{Chosen, Job, Machine};
use duel_backend::Backend;
use duel_data::{Prompt, Prompts};
use duel_model::Folder;
use duel_model::decode::{Completion, Ended, FinishReason, Request, Room, Sampling};
use duel_random::mix;
use duel_train::report::progress::Progress;
use duel_train::sample::{SEQUENCES, said};
use duel_train::{Error, signal};
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::time::Instant;

/// Its arguments.
#[derive(Args)]
pub struct Sample {
    /// Folder of the model, or its name on the Hub: org/name or org/name@revision
    #[arg(long, required_unless_present = "mixture", conflicts_with = "mixture")]
    pub model: Option<PathBuf>,
    /// File of a mixture in the place of a model, as duel tournament leaves it (tournament.json): each sample is drawn
    /// by one of its policies, which the line names
    #[arg(long, value_name = "FILE")]
    pub mixture: Option<PathBuf>,
    /// File of prompts (.jsonl, .json, .csv, .tsv, .parquet): {prompt} as a text or messages; of rows of training the
    /// prompts are taken; or of plain text (.txt), a prompt a line; or a folder of such files, or a name on the Hub
    #[arg(long)]
    pub dataset: PathBuf,
    #[command(flatten)]
    pub which: Which,
    /// Treat texts as a user's messages
    #[arg(long)]
    pub chat: bool,
    /// File of the completions (.jsonl); the same command goes on with it where it was stopped. Left out: standard
    /// output
    #[arg(long)]
    pub output: Option<PathBuf>,
    /// Completions of each prompt
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub num_generations: u32,
    /// Sampling temperature; 0: always the likeliest token
    #[arg(long, default_value_t = 1.0)]
    pub temperature: f64,
    /// Longest continuation in tokens
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_new_tokens: u32,
    #[command(flatten)]
    pub drawing: Drawing,
    #[command(flatten)]
    pub machine: Machine,
}

impl Sample {
    /// Writes the completions.
    ///
    /// # Errors
    /// What the user must put right; or that it was stopped, and how to go on.
    pub fn run(&self) -> Result<(), Error> {
        signal::listen();
        let how = self.drawing.sampling(
            self.temperature,
            self.max_new_tokens,
            ("--num-generations", self.num_generations),
        )?;
        let writers = match (&self.model, &self.mixture) {
            (Some(folder), _) => Writers::model(folder)?,
            (None, Some(file)) => Writers::mixture(file)?,
            (None, None) => return Err(Error::new("give --model FOLDER or --mixture FILE")),
        };
        let files = self.which.files(&self.dataset)?;
        let tokenizer = &writers.all[0].tokenizer;
        let file = Prompts { files: &files, tokenizer, as_messages: self.chat };
        let survey = Survey::of(&file, &writers)?;
        let machine = &self.machine;
        let chosen = Chosen::of(machine.device, machine.bf16.0, machine.threads.into())?;
        let work = Work { said: self, writers: &writers, file, survey: &survey, how };
        let done = chosen.run(work)?;
        if done.prompts < survey.prompts {
            let goes_on = match &self.output {
                Some(path) => format!("{} has them, and the same command goes on with it", path.display()),
                None => "a command with --output FILE can be gone on with".into(),
            };
            let (prompts, of) = (done.prompts, survey.prompts);
            return Err(Error::new(format!("stopped after {prompts} of {of} prompts; {goes_on}")));
        }
        duel_train::say!("{}", done.summary());
        Ok(())
    }
}

/// What a file of prompts holds.
#[derive(Default)]
struct Survey {
    prompts: usize,
    /// Lengths of the longest, as many as can be in the cache at a time.
    lengths: Vec<usize>,
    /// Of all prompts, as tokens and as they are said.
    hash: u64,
}

impl Survey {
    /// Reads the file through for every writer: what cannot be gone on from is known before anything is drawn.
    fn of(file: &Prompts<'_>, writers: &Writers) -> Result<Self, Error> {
        let of =
            |writer: &Writer| Survey::by(&Prompts { tokenizer: &writer.tokenizer, ..*file }, &writer.folder);
        let mut all = writers.all.iter().map(of).collect::<Result<Vec<_>, Error>>()?;
        match all.iter().position(|survey| survey.hash != all[0].hash) {
            None => Ok(all.swap_remove(0)),
            Some(other) => Err(Error::new(format!(
                "{}: {} and {} make other tokens of its prompts; a mixture is of policies with one tokenizer",
                file.files.name().display(),
                writers.name(0).unwrap_or_default(),
                writers.name(other).unwrap_or_default()
            ))),
        }
    }

    fn by(file: &Prompts<'_>, folder: &Folder) -> Result<Self, Error> {
        let mut survey = Survey::default();
        file.each(|prompt| {
            let request = Request { prompt: &prompt.tokens, samples: 1, id: survey.prompts as u64 };
            let wrong = request.check(folder.config()).err().map(|e| e.to_string());
            let stopped = signal::interrupted().then(|| "reading was stopped; nothing was drawn yet".into());
            survey.add(&prompt);
            wrong.or(stopped).map_or(Ok(()), |why| Err(file.wrong(&prompt, why)))
        })?;
        survey.keep_longest();
        Ok(survey)
    }

    fn add(&mut self, prompt: &Prompt) {
        self.prompts += 1;
        self.lengths.push(prompt.tokens.len());
        if self.lengths.len() >= 8 * SEQUENCES {
            self.keep_longest();
        }
        let said = Value::Object(prompt.columns.clone()).to_string();
        let parts = prompt.tokens.iter().map(|&token| token.into()).chain(said.bytes().map(u64::from));
        self.hash = parts.fold(mix(self.hash), |hash, part| mix(hash ^ part));
    }

    fn keep_longest(&mut self) {
        self.lengths.sort_unstable_by(|a, b| b.cmp(a));
        self.lengths.truncate(2 * SEQUENCES);
    }
}

struct Work<'a> {
    said: &'a Sample,
    writers: &'a Writers,
    file: Prompts<'a>,
    survey: &'a Survey,
    how: Sampling,
}

/// Prompts that the engine has at a time: as many as fill it this often. Between two portions it runs empty, which
/// costs the last samples of each a part of their company.
const FILLS: usize = 16;

impl Job for Work<'_> {
    type Output = Done;
    fn run<B: Backend>(self, b: &B) -> Result<Done, Error> {
        let Work { said, writers, file, survey, how } = &self;
        let samples = said.num_generations as usize;
        let mut journal = Journal::<Drawn>::open(said.output.as_deref(), "sample", &self.identity(b)?)?;
        let sizes = survey.lengths.iter().map(|&len| (len, samples));
        let room = Room::for_sizes(sizes, SEQUENCES, how.max_new_tokens);
        let mut desks = Vec::new();
        for (i, writer) in writers.all.iter().enumerate() {
            let (weights, engine) = said.drawing.engine(b, &writer.folder, room)?;
            desks.push((weights, engine, writers.sampling(i, *how), writer.tokenizer.stops()));
        }
        let (before, mut drawn) = (journal.done, journal.before);
        let (begun, drawn_before) = (Instant::now(), drawn.tokens);
        let mut progress = Progress::new("sampling", "prompts", before, survey.prompts as u64);
        file.stream(before as usize, |prompts| {
            while !signal::interrupted() {
                let portion = prompts.take((FILLS * SEQUENCES).div_ceil(samples));
                let portion = portion.collect::<Result<Vec<_>, _>>()?;
                if portion.is_empty() {
                    break;
                }
                let first = journal.done;
                let mut waiting = Waiting::of(&portion, samples);
                let mut failed = None;
                for (i, (weights, engine, how, stops)) in desks.iter_mut().enumerate() {
                    let own = Own::of(&portion, first, samples, |id, sample| {
                        writers.of(self.how.seed, id, sample) == i
                    });
                    engine.run(b, weights, &own.requests, how, stops, |ended| {
                        ended.iter().for_each(|e| waiting.put(own.samples[e.request][e.sample], i, e));
                        while let Some((prompt, completions)) = waiting.next() {
                            drawn.add(&completions);
                            let line = line(writers, prompt, &completions);
                            failed = line.and_then(|line| journal.add(1, &format!("{line}\n"), &drawn)).err();
                            if failed.is_some() {
                                return false;
                            }
                            progress.advance(1);
                        }
                        !signal::interrupted()
                    })?;
                    if failed.is_some() || signal::interrupted() {
                        break;
                    }
                }
                if let Some(e) = failed {
                    return Err(e);
                }
            }
            Ok(())
        })?;
        let rate = (drawn.tokens - drawn_before) as f64 / begun.elapsed().as_secs_f64().max(1e-9);
        Ok(Done { prompts: journal.done as usize, drawn, rate })
    }
}

impl Work<'_> {
    /// What the lines depend on.
    fn identity<B: Backend>(&self, b: &B) -> Result<Map<String, Value>, Error> {
        let all = [
            ("command", json!("sample")),
            ("model", self.writers.identity()?),
            ("device", json!(b.identity())),
            ("prompts", json!(format!("{:016x}", self.survey.hash))),
            ("load_in_8bit", json!(self.said.drawing.load_in_8bit)),
            ("num_generations", json!(self.said.num_generations)),
        ];
        let all = all.into_iter().chain(said(&self.how));
        Ok(all.map(|(key, value)| (key.to_owned(), value)).collect())
    }
}

/// The samples of some prompts that one writer draws.
struct Own<'a> {
    requests: Vec<Request<'a>>,
    /// Of each request: which prompt of the portion, and which of its samples.
    samples: Vec<Vec<(usize, usize)>>,
}

impl<'a> Own<'a> {
    /// Of prompts that are numbered from `first` on, those of which `is_own` says so.
    fn of(portion: &'a [Prompt], first: u64, samples: usize, is_own: impl Fn(u64, usize) -> bool) -> Self {
        let mut own = Own { requests: Vec::new(), samples: Vec::new() };
        for ((at, prompt), id) in portion.iter().enumerate().zip(first..) {
            let places: Vec<_> = (0..samples).filter(|&s| is_own(id, s)).map(|s| (at, s)).collect();
            if !places.is_empty() {
                own.requests.push(Request { prompt: &prompt.tokens, samples: places.len(), id });
                own.samples.push(places);
            }
        }
        own
    }
}

/// A completion and who wrote it.
type Written = (usize, Completion);

/// Completions of some prompts, until all of a prompt and of those before it have ended.
struct Waiting<'a> {
    prompts: &'a [Prompt],
    completions: Vec<Vec<Option<Written>>>,
    next: usize,
}

impl<'a> Waiting<'a> {
    fn of(prompts: &'a [Prompt], samples: usize) -> Self {
        Waiting { prompts, completions: vec![vec![None; samples]; prompts.len()], next: 0 }
    }

    fn put(&mut self, (prompt, sample): (usize, usize), writer: usize, ended: &Ended) {
        self.completions[prompt][sample] = Some((writer, ended.completion.clone()));
    }

    fn next(&mut self) -> Option<(&'a Prompt, Vec<Written>)> {
        let completions =
            self.completions.get_mut(self.next).filter(|all| all.iter().all(Option::is_some))?;
        let prompt = &self.prompts[self.next];
        self.next += 1;
        Some((prompt, std::mem::take(completions).into_iter().flatten().collect()))
    }
}

/// A prompt as its row says it, and what it was continued with.
fn line(writers: &Writers, prompt: &Prompt, completions: &[Written]) -> Result<Value, Error> {
    let completion = |(writer, c): &Written| {
        let text = prompt.continuation(&writers.all[*writer].tokenizer, &c.tokens)?;
        let finish_reason = match c.finish_reason {
            FinishReason::Stop => "stop",
            FinishReason::Length | FinishReason::Abort => "length",
        };
        let mut said =
            json!({"text": text, "tokens": c.tokens, "logps": c.logps, "finish_reason": finish_reason});
        if let Some(name) = writers.name(*writer) {
            said["policy"] = json!(name);
        }
        Ok(said)
    };
    let completions: Vec<Value> = completions.iter().map(completion).collect::<Result<_, Error>>()?;
    let mut line = prompt.columns.clone();
    line.insert("completions".into(), completions.into());
    Ok(line.into())
}

/// What was counted of the completions.
#[derive(Clone, Copy, Default)]
struct Drawn {
    completions: u64,
    tokens: u64,
    /// Those that did not end by themselves.
    cut: u64,
}

impl Drawn {
    fn add(&mut self, completions: &[Written]) {
        let all = || completions.iter().map(|(_, completion)| completion);
        self.completions += completions.len() as u64;
        self.tokens += all().map(|c| c.tokens.len() as u64).sum::<u64>();
        self.cut += all().filter(|c| c.finish_reason == FinishReason::Length).count() as u64;
    }
}

impl Counted for Drawn {
    fn to_json(&self) -> Value {
        json!({"completions": self.completions, "tokens": self.tokens, "cut": self.cut})
    }

    fn from_json(value: &Value) -> Option<Self> {
        let count = |name: &str| value[name].as_u64();
        Some(Drawn { completions: count("completions")?, tokens: count("tokens")?, cut: count("cut")? })
    }
}

/// What was done: all, but for the rate, which is this process's.
struct Done {
    prompts: usize,
    drawn: Drawn,
    /// Tokens a second.
    rate: f64,
}

impl Done {
    fn summary(&self) -> String {
        let Drawn { completions, tokens, cut } = self.drawn;
        let share = |part: u64| part as f64 / completions.max(1) as f64;
        let rate = match self.rate {
            0.0 => "; all were there already".into(),
            rate => format!("; {rate:.1} tokens a second"),
        };
        format!(
            "{completions} completions of {:.1} tokens on average, {:.1} % cut off by max_new_tokens{rate}",
            share(tokens),
            100.0 * share(cut),
        )
    }
}
