//! Files of prompts, which samples are drawn of: rows of which only what comes before a response is read.

use crate::batches::{Batches, Together};
use crate::candidates::words;
use crate::encode::ASSISTANT;
use crate::files::Reading;
use crate::message::kind;
use crate::row::{self, Content, Row, common_prefix};
use crate::{
    Asked, Context, Error, Files, Message, Options, Result, Task, Tokenizer, Truncation, Whole, read,
};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::mpsc::sync_channel;

/// A prompt of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    /// Its row, from 1: the line of a `.jsonl`, the element of a `.json` array.
    pub row: usize,
    /// Its tokens, as training has them before a response; at least one.
    pub tokens: Vec<u32>,
    /// What a row with responses to it says: `prompt`, a text or a list of messages; what its chat template gets
    /// beside; and the other columns, but for those of responses.
    pub columns: Map<String, Value>,
}

impl Prompt {
    /// Its turns, each with its role; a text is one without a role.
    ///
    /// # Errors
    /// One of them has no text.
    pub fn turns(&self) -> Result<Vec<(Option<String>, String)>> {
        let wrong = |message| Error::row(None, self.row, message);
        match self.columns.get("prompt") {
            Some(Value::Array(turns)) => turns
                .iter()
                .map(|turn| {
                    let turn = Message::from_json("prompt", turn.clone()).map_err(wrong)?;
                    Ok((Some(turn.role().to_owned()), words(&turn).map_err(wrong)?))
                })
                .collect(),
            Some(Value::String(text)) => Ok(vec![(None, text.clone())]),
            _ => Ok(Vec::new()),
        }
    }

    /// The text of `tokens` that go on from it: of a text what stands behind it, of a conversation the next turn.
    ///
    /// # Errors
    /// The tokenizer has no text for them.
    pub fn continuation(&self, tokenizer: &Tokenizer, tokens: &[u32]) -> Result<String> {
        match self.columns.get("prompt") {
            Some(Value::String(_)) => tokenizer.decode_after(&self.tokens, tokens),
            _ => tokenizer.decode(tokens, true),
        }
    }
}

/// Files of prompts, and whose they are.
#[derive(Debug, Clone, Copy)]
pub struct Prompts<'a> {
    /// Rows.
    pub files: &'a Files,
    /// Of the model that is to go on from them.
    pub tokenizer: &'a Tokenizer,
    /// Texts are a user's messages, which the chat template renders.
    pub as_messages: bool,
}

/// Columns that speak of responses: samples take their place.
const OF_RESPONSES: [&str; 9] =
    ["chosen", "rejected", "responses", "scores", "completion", "completions", "output", "label", "margin"];

const SHAPES: &str = "{prompt}, {messages}, {conversations} or {instruction, input}, or a row of training";

/// Prompts that are tokenised before they are asked for.
const AHEAD: usize = 256;

impl Prompts<'_> {
    /// Hands every prompt to `each`, in order.
    ///
    /// # Errors
    /// The first row that has no prompt, by its number; that there is no row at all; or that of `each`.
    pub fn each(&self, each: impl FnMut(Prompt) -> Result<()>) -> Result<()> {
        self.after(0, None, each)
    }

    /// As [`Prompts::each`], where other processes do the same `together` with this one: each tokenises a part.
    ///
    /// # Errors
    /// As that, or another process is gone.
    pub fn each_together(
        &self,
        together: &dyn Together,
        each: impl FnMut(Prompt) -> Result<()>,
    ) -> Result<()> {
        self.after(0, Some(together), each)
    }

    fn after(
        &self,
        skip: usize,
        together: Option<&dyn Together>,
        mut each: impl FnMut(Prompt) -> Result<()>,
    ) -> Result<()> {
        let (none, reading) = ("there are no rows, and so no prompts", Reading::default());
        let work = |asked: Asked| tokens(&asked, self.tokenizer);
        std::thread::scope(|scope| {
            let mut batches = Batches::new(scope, &work, together);
            let mut take = |(row, columns), tokens: Opening| {
                let tokens = tokens.map_err(|message| reading.wrong(self.files, row, message))?;
                each(Prompt { row, tokens, columns })
            };
            let parse = |row, value| Ok((row, self.asked(value)?));
            let read = read::parsed(self.files, &reading, skip, none, parse, |(row, (asked, columns))| {
                batches.add((row, columns), asked, &mut take)
            });
            // Those before the row that could not be read.
            batches.rest(take)?;
            read
        })
    }

    /// The error that something is wrong with a prompt of the files.
    pub fn wrong(&self, prompt: &Prompt, message: impl fmt::Display) -> Error {
        Error::row(Some(self.files.name()), prompt.row, message)
    }

    /// Gives `work` the prompts after the first `skip`, which a thread of its own reads and tokenises a little ahead:
    /// however long the file is, few of them exist at a time. After an error, which is [`Prompts::each`]'s, there are
    /// no more.
    pub fn stream<T>(
        &self,
        skip: usize,
        work: impl FnOnce(&mut dyn Iterator<Item = Result<Prompt>>) -> T,
    ) -> T {
        let (give, take) = sync_channel(AHEAD);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let gone = || Error::file(self.files.name(), "reading it was stopped");
                let end = self.after(skip, None, |prompt| give.send(Ok(prompt)).map_err(|_| gone()));
                // Nobody hears it who has left.
                end.err().map(|e| give.send(Err(e)))
            });
            work(&mut take.into_iter())
        })
    }

    /// What a row asks, and the columns that its prompt keeps.
    fn asked(&self, mut value: Value) -> std::result::Result<(Asked, Map<String, Value>), String> {
        // Lines of plain text are what is to be gone on from, where training would learn them.
        let is_text = |path: &PathBuf| path.extension().is_some_and(|e| e.eq_ignore_ascii_case("txt"));
        let lines = self.files.parts().iter().all(is_text);
        if let Some(text) = value.as_object_mut().filter(|_| lines).and_then(|row| row.remove("text")) {
            value = json!({"prompt": text});
        }
        let (asked, mut columns) = asked(value, self.tokenizer.has_chat_template())?;
        let asked = match asked {
            Asked::Text(text) if self.as_messages => {
                Asked::Chat(vec![Message::new("user", &text)], Context::default())
            }
            other => other,
        };
        let said = match &asked {
            Asked::Text(prompt) => Value::String(prompt.clone()),
            Asked::Chat(turns, context) => {
                columns.extend(context.clone().into_columns());
                turns.iter().map(|m| Value::Object(m.fields().clone())).collect()
            }
        };
        columns.shift_insert(0, "prompt".into(), said);
        Ok((asked, columns))
    }
}

/// Tokens of what is to be gone on from, or why there are none.
type Opening = std::result::Result<Vec<u32>, String>;

fn tokens(asked: &Asked, tokenizer: &Tokenizer) -> Opening {
    let (_, tokens) = asked.open(tokenizer).map_err(|e| e.to_string())?;
    match tokens.is_empty() {
        false => Ok(tokens),
        true => {
            Err("has a prompt without a token, and there is nothing that a model could go on from".to_owned())
        }
    }
}

/// The prompt of a row, and its other columns but for those of responses.
fn asked(mut value: Value, chat: bool) -> std::result::Result<(Asked, Map<String, Value>), String> {
    row::without_nulls(&mut value);
    let Value::Object(mut columns) = value else {
        return Err(format!("is {}, not an object with named columns", kind(&value)));
    };
    row::refuse(&mut columns)?;
    let has = |names: &[&str]| names.iter().any(|name| columns.contains_key(*name));
    let task = match () {
        () if has(&["chosen", "rejected", "responses"]) => Some(Task::Preference),
        () if has(&["completion", "output"]) => Some(Task::Sft),
        () => None,
    };
    let asked = match task {
        // The responses show what the prompt is: a text or a user's turn, and where it ends.
        Some(task) => {
            let (whole, truncation) = (Whole::default(), Truncation::KeepStart);
            columns.remove("label");
            let mut unused = BTreeSet::new();
            let whole_row = Value::Object(columns.clone());
            let options = Options { task, whole, max_length: None, truncation };
            let parsed = row::parse(whole_row, &options, chat, &mut unused)?;
            columns.retain(|name, _| unused.contains(name));
            parsed.ok_or("has no response that it means, and no prompt")?.0
        }
        None => alone(&mut columns, chat)?,
    };
    columns.retain(|name, _| !OF_RESPONSES.contains(&name.as_str()));
    let asked = match asked {
        Row::Text { prompt: Some(prompt), .. } => Asked::Text(prompt),
        Row::Text { prompt: None, responses } => {
            let common = common_prefix(&responses);
            let end = common.rfind(ASSISTANT).ok_or(
                "has no `prompt`, and its texts do not show where one ends (at the last \"\\n\\nAssistant:\"); give it",
            )?;
            Asked::Text(common[..end + ASSISTANT.len()].to_owned())
        }
        Row::Chat { prompt: turns, context, .. } | Row::Talk { turns, context } => {
            Asked::Chat(turns, context)
        }
    };
    Ok((asked, columns))
}

/// The prompt of a row without responses, as a row without responses.
fn alone(columns: &mut Map<String, Value>, chat: bool) -> std::result::Result<Row, String> {
    let context = row::context(columns)?;
    let found = match columns.is_empty() {
        true => "no column that says anything".to_owned(),
        false => {
            format!("the columns {}", columns.keys().map(|k| format!("`{k}`")).collect::<Vec<_>>().join(", "))
        }
    };
    let talk = !columns.contains_key("prompt");
    let asked = match row::prompt(columns, chat)? {
        None => return Err(format!("has {found}, and no prompt; a row of prompts is {SHAPES}")),
        Some(Content::Text(text)) => Row::plain(text, [""; 0]),
        Some(Content::Chat(mut turns)) => {
            // The last turn of a whole conversation is the response that it has.
            if talk && turns.last().is_some_and(|m| m.role() == "assistant") {
                turns.pop();
            }
            if turns.is_empty() {
                return Err("has no turn that could be answered; give at least one of the user".into());
            }
            Row::Talk { turns, context: Context::default() }
        }
    };
    row::finish(asked, columns, context)
}
