//! `duel chat`: a conversation with a model.

use crate::drawing::Drawing;
use clap::Args;
use duel::device::{Chosen, Job, Machine};
use duel_backend::Backend;
use duel_data::{Context, Message, Tokenizer};
use duel_model::decode::{Dialogue, FinishReason, Sampling};
use duel_model::{Folder, Held};
use duel_train::{Error, signal};
use std::io::{BufRead, IsTerminal, Write, stderr, stdin, stdout};
use std::path::PathBuf;

/// Its arguments.
#[derive(Args)]
pub struct Chat {
    /// Folder of the model, or its name on the Hub; it has a chat template
    #[arg(long)]
    model: PathBuf,
    /// What the model is told first, as the system's message
    #[arg(long)]
    system: Option<String>,
    /// Tokens of the conversation that the model has before it, at most as many as it has positions; the oldest
    /// messages are left out where there would be more
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u32).range(2..))]
    window: u32,
    /// Sampling temperature; 0: always the likeliest token
    #[arg(long, default_value_t = 0.7)]
    temperature: f64,
    /// Longest answer in tokens
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    max_new_tokens: u32,
    #[command(flatten)]
    drawing: Drawing,
    #[command(flatten)]
    machine: Machine,
}

/// What can be said beside messages.
const HELP: &str = "\
/reset         begins anew, with the same system's message
/undo          takes back the last message and its answer
/system TEXT   what the model is told first, from here on; without TEXT: nothing
/help          these lines
/quit          ends, as the end of the input does
A line that begins with a space is a message, whatever follows.";

impl Chat {
    /// Talks until the input ends.
    ///
    /// # Errors
    /// The model cannot be read, or has no chat template; or who reads the answers is gone.
    pub fn run(&self) -> Result<(), Error> {
        signal::listen();
        let how = self.drawing.sampling(self.temperature, self.max_new_tokens, ("", 1))?;
        let path = duel_train::folder(&self.model)?;
        let folder = Folder::open(&path)?.language_model()?;
        folder.notes().iter().for_each(|note| duel_train::say!("note: {note}"));
        let tokenizer = duel_train::tokenizer(&path)?;
        if !tokenizer.has_chat_template() {
            return Err(Error::new(format!(
                "{} has no chat template, so that nothing says how it is spoken to; add a chat_template.jinja, or take \
                 duel generate",
                self.model.display()
            )));
        }
        let machine = &self.machine;
        let chosen = Chosen::of(machine.device, machine.bf16.0, machine.threads.into())?;
        chosen.run(Talk { said: self, folder: &folder, tokenizer: &tokenizer, how })
    }
}

struct Talk<'a> {
    said: &'a Chat,
    folder: &'a Folder,
    tokenizer: &'a Tokenizer,
    how: Sampling,
}

impl Job for Talk<'_> {
    type Output = ();
    fn run<B: Backend>(self, b: &B) -> Result<(), Error> {
        let (c, window) = (self.folder.config(), self.said.window as usize);
        let plan = Dialogue::<B>::plan(b.portions(), c, window);
        let weights = self.said.drawing.weights(b, self.folder, plan)?;
        let dialogue = Dialogue::new(b, c, window)?;
        let system = self.said.system.clone();
        let mut room = Room { b, weights, dialogue, talk: self, system, messages: Vec::new(), turn: 0 };
        let by_hand = stdin().is_terminal();
        if by_hand {
            duel_train::say!("{HELP}");
        }
        loop {
            if by_hand {
                eprint!("> ");
                drop(stderr().flush());
            }
            let Some(line) = next_line()? else { return Ok(()) };
            if room.hear(&line)? == Next::Ends {
                return Ok(());
            }
        }
    }
}

/// The next line without its end; `None` after the last. A signal meanwhile ends the process, since nothing is at work
/// that could be stopped.
fn next_line() -> Result<Option<String>, Error> {
    let mut line = String::new();
    signal::set_asked(true);
    let read = stdin().lock().read_line(&mut line);
    signal::set_asked(false);
    match read {
        Ok(0) => Ok(None),
        Ok(_) => Ok(Some(line.trim_end_matches(['\n', '\r']).into())),
        Err(e) => Err(Error::new(format!("standard input: {e}"))),
    }
}

#[derive(PartialEq)]
enum Next {
    GoesOn,
    Ends,
}

/// A conversation and what answers in it.
struct Room<'a, B: Backend> {
    b: &'a B,
    weights: Held<B>,
    dialogue: Dialogue<B>,
    talk: Talk<'a>,
    system: Option<String>,
    /// The user's and the model's, in turn.
    messages: Vec<Message>,
    turn: u64,
}

impl<B: Backend> Room<'_, B> {
    /// Does what a line says.
    fn hear(&mut self, line: &str) -> Result<Next, Error> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            _ if line.trim().is_empty() => {}
            "/quit" | "/exit" => return Ok(Next::Ends),
            "/help" => duel_train::say!("{HELP}"),
            "/reset" => {
                self.messages.clear();
                duel_train::say!("the conversation begins anew");
            }
            "/undo" if self.messages.is_empty() => duel_train::say!("there is nothing to take back"),
            "/undo" => {
                self.messages.truncate(self.messages.len() - 2);
                duel_train::say!("the last message and its answer are taken back");
            }
            "/system" => {
                self.system = Some(rest.trim().to_owned()).filter(|text| !text.is_empty());
                let is = if self.system.is_some() { "is another one" } else { "is gone" };
                duel_train::say!("the system's message {is} from here on");
            }
            word if word.starts_with('/') => duel_train::say!("there is no {word}; /help says what there is"),
            _ => {
                let before = self.messages.clone();
                self.messages.push(Message::new("user", line.strip_prefix(' ').unwrap_or(line)));
                // What cannot be answered is said, and the conversation is as before.
                match self.fitting() {
                    Ok(prompt) => self.answer(&prompt)?,
                    Err(e) => {
                        self.messages = before;
                        duel_train::say!("error: {e}");
                    }
                }
            }
        }
        Ok(Next::GoesOn)
    }

    /// The conversation as the template has it, up to where the model goes on.
    fn prompt(&self) -> Result<Vec<u32>, Error> {
        let system = self.system.iter().map(|text| Message::new("system", text));
        let all: Vec<Message> = system.chain(self.messages.iter().cloned()).collect();
        let tokenizer = self.talk.tokenizer;
        Ok(tokenizer.encode(&tokenizer.chat(&all, true, &Context::default())?.text, false)?)
    }

    /// The same without the oldest messages, where there would be no room for an answer.
    fn fitting(&mut self) -> Result<Vec<u32>, Error> {
        let window = Dialogue::<B>::window(self.talk.folder.config(), self.talk.said.window as usize);
        // An answer as long as is asked for, or half of the window.
        let most = window - self.talk.how.max_new_tokens.min(window / 2);
        let (mut prompt, mut left_out) = (self.prompt()?, 0);
        while prompt.len() > most && self.messages.len() > 2 {
            self.messages.drain(..2);
            left_out += 2;
            prompt = self.prompt()?;
        }
        if prompt.len() >= window {
            return Err(Error::new(format!(
                "the message has {} tokens with what stands around it, and the window is {window}; shorten it, or give a \
                 larger --window",
                prompt.len()
            )));
        }
        if left_out > 0 {
            duel_train::say!(
                "note: the window of {window} tokens is full; the oldest {left_out} messages are left out from here on"
            );
        }
        Ok(prompt)
    }

    /// Prints an answer as it comes, and keeps it.
    fn answer(&mut self, prompt: &[u32]) -> Result<(), Error> {
        let Talk { tokenizer, how, .. } = &self.talk;
        let (mut stream, mut text, mut failed) = (tokenizer.stream(), String::new(), None);
        let mut say = |piece: String| {
            text += &piece;
            let mut out = stdout().lock();
            out.write_all(piece.as_bytes()).and_then(|()| out.flush())
        };
        let turn = (self.turn, how);
        let (answer, pace) =
            self.dialogue.go_on(self.b, &self.weights, prompt, turn, tokenizer.stops(), |token| {
                let said = stream.push(token).map_err(Error::from);
                let said = said.and_then(|piece| say(piece).map_err(|e| unheard(&e)));
                failed = said.err();
                failed.is_none() && !signal::interrupted()
            })?;
        if let Some(e) = failed {
            return Err(e);
        }
        say(stream.finish()? + "\n").map_err(|e| unheard(&e))?;
        text.pop();
        self.turn += 1;
        self.messages.push(Message::new("assistant", &text));
        match answer.finish_reason {
            FinishReason::Stop => {}
            FinishReason::Abort => {
                signal::set_asked(false);
                duel_train::say!("(stopped; what was said stays in the conversation)");
            }
            FinishReason::Length if answer.tokens.len() == how.max_new_tokens => {
                duel_train::say!(
                    "(cut off after {} tokens; --max-new-tokens allows more)",
                    answer.tokens.len()
                );
            }
            FinishReason::Length => duel_train::say!("(cut off: the window is full)"),
        }
        // For who watches: it differs from run to run.
        if stderr().is_terminal() {
            duel_train::say!("{pace}");
        }
        Ok(())
    }
}

fn unheard(e: &std::io::Error) -> Error {
    Error::new(format!("standard output: {e}"))
}
