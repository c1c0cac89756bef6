//! `duel generate`: texts continued.

use crate::drawing::Drawing;
use crate::rows::Which;
use crate::sample::Sample;
use clap::Args;
use duel::device::{Chosen, Job, Machine};
use duel_backend::Backend;
use duel_data::{Context, Message, Tokenizer};
use duel_model::Folder;
use duel_model::decode::{Completion, Drawn, Request, Room, Sampling};
use duel_train::Error;
use duel_train::sample::{SEQUENCES, sample};
use std::io::IsTerminal;
use std::path::PathBuf;

/// Its arguments.
#[derive(Args)]
pub struct Generate {
    /// Folder of the model, or its name on the Hub: org/name or org/name@revision
    #[arg(long)]
    model: PathBuf,
    /// Text to continue, or several; through the chat template, as the user's message, with --chat
    #[arg(
        long = "prompt",
        value_name = "PROMPT",
        required_unless_present = "input",
        allow_hyphen_values = true
    )]
    prompts: Vec<String>,
    /// File of prompts in their place, as duel sample takes it: a line each (.txt), or rows of {prompt} (.jsonl, .json,
    /// .csv, .tsv, .parquet); the continuations are JSON lines
    #[arg(long, value_name = "FILE", conflicts_with_all = ["prompts", "logprobs"])]
    input: Option<PathBuf>,
    /// File of the continuations of --input (.jsonl); the same command goes on with it where it was stopped. Left out:
    /// standard output
    #[arg(long, value_name = "FILE", requires = "input")]
    output: Option<PathBuf>,
    /// Treat each prompt as a user's message
    #[arg(long)]
    chat: bool,
    /// Continuations of each prompt
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    num_return_sequences: u32,
    /// Sampling temperature; 0: always the likeliest token
    #[arg(long, default_value_t = 0.0)]
    temperature: f64,
    /// Longest continuation in tokens
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    max_new_tokens: u32,
    #[command(flatten)]
    drawing: Drawing,
    /// Print a line for each token, its log-probability and then its text, in the place of the text
    #[arg(long)]
    logprobs: bool,
    #[command(flatten)]
    machine: Machine,
}

struct Generation<'a> {
    folder: &'a Folder,
    requests: &'a [Request<'a>],
    how: Sampling,
    stop: &'a [u32],
    drawing: &'a Drawing,
}

impl Job for Generation<'_> {
    type Output = Drawn;
    fn run<B: Backend>(self, b: &B) -> Result<Drawn, Error> {
        let room = Room::of(self.requests.iter().copied(), SEQUENCES, self.how.max_new_tokens);
        let (weights, mut engine) = self.drawing.engine(b, self.folder, room)?;
        let drawn = sample(b, &mut engine, &weights, self.requests, &self.how, self.stop, |_| {})?;
        // For who watches: it differs from run to run, and scripts compare what is printed.
        if std::io::stderr().is_terminal() {
            duel_train::say!("{}", drawn.pace);
        }
        Ok(drawn)
    }
}

impl Generate {
    /// Prints the continuations.
    ///
    /// # Errors
    /// What the user must put right; or that it was stopped.
    pub fn run(self) -> Result<(), Error> {
        let how = self.drawing.sampling(
            self.temperature,
            self.max_new_tokens,
            ("--num-return-sequences", self.num_return_sequences),
        )?;
        if let Some(input) = self.input {
            // The file may be longer than memory, and the work may be gone on with: that is sampling.
            let sampled = Sample {
                model: Some(self.model),
                mixture: None,
                dataset: input,
                which: Which::default(),
                chat: self.chat,
                output: self.output,
                num_generations: self.num_return_sequences,
                temperature: self.temperature,
                max_new_tokens: self.max_new_tokens,
                drawing: self.drawing,
                machine: self.machine,
            };
            return sampled.run();
        }
        let path = duel_train::folder(&self.model)?;
        let folder = Folder::open(&path)?.language_model()?;
        folder.notes().iter().for_each(|note| duel_train::say!("note: {note}"));
        let tokenizer = duel_train::tokenizer(&path)?;
        let tokens = |prompt: &String| self.tokens(&tokenizer, prompt);
        let prompts = self.prompts.iter().map(tokens).collect::<Result<Vec<_>, _>>()?;
        let requests = Request::repeated(&prompts, self.num_return_sequences as usize);
        let machine = &self.machine;
        let chosen = Chosen::of(machine.device, machine.bf16.0, machine.threads.into())?;
        let stop = tokenizer.stops();
        let drawing = &self.drawing;
        let drawn = chosen.run(Generation { folder: &folder, requests: &requests, how, stop, drawing })?;
        let several = prompts.len() * self.num_return_sequences as usize > 1;
        for (prompt, completions) in drawn.completions.iter().enumerate() {
            for (sample, completion) in completions.iter().enumerate() {
                if several {
                    println!("== prompt {prompt}, sample {sample}");
                }
                self.print(&tokenizer, completion)?;
            }
        }
        Ok(())
    }

    fn tokens(&self, tokenizer: &Tokenizer, prompt: &str) -> Result<Vec<u32>, Error> {
        if !self.chat {
            let tokens = tokenizer.encode_prompt(prompt)?;
            if tokens.is_empty() {
                return Err(Error::new(
                    "the prompt is empty, and this tokenizer puts no BOS token before a text that a model could go on \
                     from; give at least one token",
                ));
            }
            return Ok(tokens);
        }
        if !tokenizer.has_chat_template() {
            return Err(Error::new(format!(
                "{} has no chat template, which --chat needs; leave --chat out, or add a chat_template.jinja",
                self.model.display()
            )));
        }
        let chat = tokenizer.chat(&[Message::new("user", prompt)], true, &Context::default())?;
        if chat.text.is_empty() {
            return Err(Error::new(format!(
                "the chat template of {} makes no text of the prompt; leave --chat out",
                self.model.display()
            )));
        }
        Ok(tokenizer.encode(&chat.text, false)?)
    }

    fn print(&self, tokenizer: &Tokenizer, completion: &Completion) -> Result<(), Error> {
        if !self.logprobs {
            println!("{}", tokenizer.decode(&completion.tokens, true)?);
            return Ok(());
        }
        for (&token, logp) in completion.tokens.iter().zip(&completion.logps) {
            println!("{logp:.4}\t{:?}", tokenizer.decode(&[token], false)?);
        }
        Ok(())
    }
}
