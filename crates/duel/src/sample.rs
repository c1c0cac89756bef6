//! `duel sample`: completions of the prompts of a file, as JSON lines.

use crate::drawing::Drawing;
use crate::journal::{Counted, Journal};
use clap::Args;
use duel::device::{Chosen, Job, Machine};
use duel_backend::Backend;
use duel_data::{Prompt, Prompts, Tokenizer};
use duel_model::Folder;
use duel_model::decode::{Completion, Ended, FinishReason, Request, Room, Sampling};
use duel_random::mix;
use duel_train::reference::ModelId;
use duel_train::report::progress::Progress;
use duel_train::sample::SEQUENCES;
use duel_train::{Error, signal};
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::time::Instant;

/// Its arguments.
#[derive(Args)]
pub struct Sample {
    /// Folder of the model
    #[arg(long)]
    model: PathBuf,
    /// File of prompts (.jsonl, .json): {prompt} as a text or messages; of rows of training the prompts are taken
    #[arg(long)]
    dataset: PathBuf,
    /// File of the completions (.jsonl); the same command goes on with it where it was stopped. Left out: standard
    /// output
    #[arg(long)]
    output: Option<PathBuf>,
    /// Completions of each prompt
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    num_generations: u32,
    /// Sampling temperature; 0: always the likeliest token
    #[arg(long, default_value_t = 1.0)]
    temperature: f64,
    #[command(flatten)]
    drawing: Drawing,
    #[command(flatten)]
    machine: Machine,
}

impl Sample {
    /// Writes the completions.
    ///
    /// # Errors
    /// What the user must put right; or that it was stopped, and how to go on.
    pub fn run(&self) -> Result<(), Error> {
        signal::listen();
        let how = self.drawing.sampling(self.temperature, ("--num-generations", self.num_generations))?;
        let folder = Folder::open(&self.model)?.language_model()?;
        folder.notes().iter().for_each(|note| eprintln!("note: {note}"));
        let tokenizer = Tokenizer::from_dir(&self.model)?;
        let file = Prompts { path: &self.dataset, tokenizer: &tokenizer };
        let survey = Survey::of(&file, &folder)?;
        let machine = &self.machine;
        let chosen = Chosen::of(machine.device, machine.bf16.0, machine.threads.into())?;
        let work = Work { said: self, folder: &folder, file, survey: &survey, how };
        let done = chosen.run(work)?;
        if done.prompts < survey.prompts {
            let goes_on = match &self.output {
                Some(path) => format!("{} has them, and the same command goes on with it", path.display()),
                None => "a command with --output FILE can be gone on with".into(),
            };
            let (prompts, of) = (done.prompts, survey.prompts);
            return Err(Error::new(format!("stopped after {prompts} of {of} prompts; {goes_on}")));
        }
        eprintln!("{}", done.summary());
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
    /// Reads the file through: what cannot be gone on from is known before anything is drawn.
    fn of(file: &Prompts<'_>, folder: &Folder) -> Result<Self, Error> {
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
    folder: &'a Folder,
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
        let Work { said, folder, file, survey, how } = &self;
        let samples = said.num_generations as usize;
        let mut journal = Journal::<Drawn>::open(said.output.as_deref(), "sample", &self.identity(b)?)?;
        let sizes = survey.lengths.iter().map(|&len| (len, samples));
        let room = Room::for_sizes(sizes, SEQUENCES, how.max_new_tokens);
        let (weights, mut engine) = said.drawing.engine(b, folder, room)?;
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
                let requests = portion.iter().zip(first..);
                let requests: Vec<_> =
                    requests.map(|(p, id)| Request { prompt: &p.tokens, samples, id }).collect();
                let mut waiting = Waiting::of(&portion, samples);
                let mut failed = None;
                engine.run(b, &weights, &requests, how, file.tokenizer.stops(), |ended| {
                    waiting.put(ended);
                    while let Some((prompt, completions)) = waiting.next() {
                        drawn.add(&completions);
                        let line = line(file.tokenizer, prompt, &completions);
                        failed = line.and_then(|line| journal.add(1, &format!("{line}\n"), &drawn)).err();
                        if failed.is_some() {
                            return false;
                        }
                        progress.advance(1);
                    }
                    !signal::interrupted()
                })?;
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
        let how = &self.how;
        let all = [
            ("command", json!("sample")),
            ("model", json!(ModelId::of(&self.said.model)?.digest())),
            ("device", json!(b.identity())),
            ("prompts", json!(format!("{:016x}", self.survey.hash))),
            ("load_in_8bit", json!(self.said.drawing.load_in_8bit)),
            ("num_generations", json!(self.said.num_generations)),
            ("max_new_tokens", json!(how.max_new_tokens)),
            ("temperature", json!(how.temperature)),
            ("top_k", json!(how.top_k)),
            ("top_p", json!(how.top_p)),
            ("min_p", json!(how.min_p)),
            ("repetition_penalty", json!(how.repetition_penalty)),
            ("seed", json!(how.seed)),
        ];
        Ok(all.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    }
}

/// Completions of some prompts, until all of a prompt and of those before it have ended.
struct Waiting<'a> {
    prompts: &'a [Prompt],
    completions: Vec<Vec<Option<Completion>>>,
    next: usize,
}

impl<'a> Waiting<'a> {
    fn of(prompts: &'a [Prompt], samples: usize) -> Self {
        Waiting { prompts, completions: vec![vec![None; samples]; prompts.len()], next: 0 }
    }

    fn put(&mut self, ended: &[Ended]) {
        for e in ended {
            self.completions[e.request][e.sample] = Some(e.completion.clone());
        }
    }

    fn next(&mut self) -> Option<(&'a Prompt, Vec<Completion>)> {
        let completions =
            self.completions.get_mut(self.next).filter(|all| all.iter().all(Option::is_some))?;
        let prompt = &self.prompts[self.next];
        self.next += 1;
        Some((prompt, std::mem::take(completions).into_iter().flatten().collect()))
    }
}

/// A prompt as its row says it, and what it was continued with.
fn line(tokenizer: &Tokenizer, prompt: &Prompt, completions: &[Completion]) -> Result<Value, Error> {
    let completion = |c: &Completion| {
        let text = prompt.continuation(tokenizer, &c.tokens)?;
        let finish_reason = match c.finish_reason {
            FinishReason::Stop => "stop",
            FinishReason::Length | FinishReason::Abort => "length",
        };
        Ok(json!({"text": text, "tokens": c.tokens, "logps": c.logps, "finish_reason": finish_reason}))
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
    fn add(&mut self, completions: &[Completion]) {
        self.completions += completions.len() as u64;
        self.tokens += completions.iter().map(|c| c.tokens.len() as u64).sum::<u64>();
        self.cut += completions.iter().filter(|c| c.finish_reason == FinishReason::Length).count() as u64;
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
