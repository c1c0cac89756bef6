//! `duel generate`: a text continued.

use clap::Args;
use duel::device::{Chosen, Job, Machine};
use duel_backend::Backend;
use duel_data::{Context, Message, Tokenizer};
use duel_model::{Folder, Sampling};
use duel_train::Error;
use duel_train::sample::sample;
use std::path::PathBuf;

/// Its arguments.
#[derive(Args)]
pub struct Generate {
    /// Folder of the model
    #[arg(long)]
    model: PathBuf,
    /// Text to continue; through the chat template, as the user's message, with --chat
    #[arg(long, allow_hyphen_values = true)]
    prompt: String,
    /// Treat the prompt as a user's message
    #[arg(long)]
    chat: bool,
    /// Longest continuation in tokens
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    max_new_tokens: u32,
    /// Sampling temperature; 0: always the likeliest token
    #[arg(long, default_value_t = 0.0)]
    temperature: f64,
    /// Sample among this many likeliest tokens; 0: all
    #[arg(long, default_value_t = 0)]
    top_k: usize,
    /// Sample among the likeliest tokens that together have this probability
    #[arg(long, default_value_t = 1.0)]
    top_p: f64,
    /// Seed of the sampling
    #[arg(long, default_value_t = 42)]
    seed: u64,
    #[command(flatten)]
    machine: Machine,
}

struct Generation<'a> {
    folder: &'a Folder,
    prompt: Vec<u32>,
    how: Sampling,
    stop: Vec<u32>,
}

impl Job for Generation<'_> {
    type Output = Vec<u32>;
    fn run<B: Backend>(self, b: &B) -> Result<Vec<u32>, Error> {
        eprintln!("{}", b.describe());
        let weights = duel_model::load_frozen(b, self.folder)?;
        let out = sample(b, self.folder.config(), &weights, &[self.prompt], self.how, &self.stop, |_| {})?;
        Ok(out.into_iter().flatten().collect())
    }
}

impl Generate {
    /// Prints the continuation.
    pub fn run(&self) -> Result<(), Error> {
        let folder = Folder::open(&self.model)?.language_model()?;
        folder.notes().iter().for_each(|note| eprintln!("note: {note}"));
        let tokenizer = Tokenizer::from_dir(&self.model)?;
        let prompt = if self.chat {
            if !tokenizer.has_chat_template() {
                return Err(Error::new(format!(
                    "{} has no chat template, which --chat needs; leave --chat out, or add a chat_template.jinja",
                    self.model.display()
                )));
            }
            let chat = tokenizer.chat(&[Message::new("user", &self.prompt)], true, &Context::default())?;
            if chat.text.is_empty() {
                return Err(Error::new(format!(
                    "the chat template of {} makes no text of the prompt; leave --chat out",
                    self.model.display()
                )));
            }
            tokenizer.encode(&chat.text, false)?
        } else {
            tokenizer.encode_prompt(&self.prompt)?
        };
        let how = Sampling {
            max_new_tokens: self.max_new_tokens as usize,
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            seed: self.seed,
        };
        if !(how.temperature >= 0.0 && how.top_p > 0.0 && how.top_p <= 1.0) {
            return Err(Error::new("--temperature must be 0 or above, --top-p above 0 and at most 1"));
        }
        let stop = tokenizer.stops().to_vec();
        let machine = &self.machine;
        let chosen = Chosen::of(machine.device, machine.bf16.0, machine.threads.into())?;
        let out = chosen.run(Generation { folder: &folder, prompt, how, stop })?;
        println!("{}", tokenizer.decode(&out, true)?);
        Ok(())
    }
}
