//! Files of prompts with responses that are to be judged: samples, and rows whose responses were judged before.

use crate::files::Reading;
use crate::message::kind;
use crate::row::{self, Row};
use crate::{Files, Label, Message, Options, Result, Task, Truncation, Whole, read};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// A prompt and responses to it, before they are judged.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidates {
    /// Its row, from 1: the line of a `.jsonl`, the element of a `.json` array.
    pub row: usize,
    /// What the responses answer: a text, or a list of messages. `None`: the responses are whole texts.
    pub prompt: Option<Value>,
    /// Its turns; a text is one without a role.
    pub turns: Vec<(Option<String>, String)>,
    /// In the order of the row, but for those that are empty.
    pub responses: Vec<Candidate>,
    /// How many samples say nothing, which no row can hold as a response.
    pub empty: usize,
    /// What the row says of them already: their order, which is theirs here, best first; scores too, perhaps.
    pub known: Option<Label>,
    /// The other columns, but for scores, margins and labels.
    pub columns: Map<String, Value>,
}

/// A response that is to be judged.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// As rows have it: a text, or a list of messages.
    pub said: Value,
    /// Its text alone.
    pub text: String,
    /// Its tokens, where the row has them; else empty.
    pub tokens: Vec<u32>,
    /// Whether it was cut by a limit of tokens; `None` where the row does not say.
    pub truncated: Option<bool>,
}

/// What comes beside a conversation, and belongs to it.
const CONTEXT: [&str; 3] = ["tools", "documents", "chat_template_kwargs"];

/// What older verdicts are called, which the new ones replace.
const VERDICTS: [&str; 4] = ["scores", "margin", "judge", "label"];

const SHAPES: &str = "{prompt, completions: [{text, finish_reason}, ...]} as `duel sample` writes it, {prompt, \
                      responses: [...]} or {prompt, chosen, rejected}";

impl Candidates {
    /// Hands every row of files to `each`, in order; few of them exist at a time.
    ///
    /// # Errors
    /// The first row that is none, by its number; that there is no row at all; or that of `each`.
    pub fn each(files: &Files, each: impl FnMut(Self) -> Result<()>) -> Result<()> {
        Self::after(files, 0, each)
    }

    /// [`Candidates::each`] of the rows after the first `skip`, which are not read again.
    ///
    /// # Errors
    /// As [`Candidates::each`].
    pub fn after(files: &Files, skip: usize, each: impl FnMut(Self) -> Result<()>) -> Result<()> {
        let none = format!("there are no rows to judge; a row is {SHAPES}");
        read::parsed(files, &Reading::default(), skip, &none, Self::read, each)
    }

    /// One row. Messages of errors start with a verb: "row 3: " goes before.
    fn read(row: usize, value: Value) -> std::result::Result<Self, String> {
        let Value::Object(mut given) = value else {
            return Err(format!("is {}, not an object with named columns", kind(&value)));
        };
        let mut sampled =
            given.remove("completions").filter(|v| !v.is_null()).map(completions).transpose()?;
        let mut empty = 0;
        if let Some(samples) = &mut sampled {
            let other =
                ["responses", "chosen", "rejected", "scores"].into_iter().find(|k| given.contains_key(*k));
            if let Some(other) = other {
                return Err(format!("has `completions` and `{other}`; keep one"));
            }
            empty = samples.len();
            samples.retain(|sample| !sample.text.is_empty());
            empty -= samples.len();
            given.insert("responses".into(), samples.iter().map(|c| json!(c.text)).collect());
        } else if !["responses", "chosen", "rejected"].iter().any(|k| given.contains_key(*k)) {
            let found = given.keys().map(|k| format!("`{k}`")).collect::<Vec<_>>().join(", ");
            return Err(format!("has the columns {found}, and no responses to judge; a row is {SHAPES}"));
        }
        let ordered = ["scores", "chosen"].iter().any(|k| given.get(*k).is_some_and(|v| !v.is_null()));
        let (task, whole, truncation) = (Task::Preference, Whole::default(), Truncation::KeepStart);
        let options = Options { task, whole, max_length: None, truncation };
        let mut unused = BTreeSet::new();
        let parsed = row::parse(Value::Object(given.clone()), &options, true, &mut unused)?;
        let (parsed, label) = parsed.ok_or("has no responses to judge")?;
        given.retain(|name, _| unused.contains(name) || CONTEXT.contains(&name.as_str()));
        given.retain(|name, value| !VERDICTS.contains(&name.as_str()) && !value.is_null());
        let (prompt, turns, mut responses) = said(parsed)?;
        if responses.len() + empty == 0 {
            return Err("has no responses to judge: their list is empty".to_owned());
        }
        for (response, sample) in responses.iter_mut().zip(sampled.into_iter().flatten()) {
            (response.tokens, response.truncated) = (sample.tokens, sample.truncated);
        }
        let known = ordered.then_some(label);
        Ok(Candidates { row, prompt, turns, responses, empty, known, columns: given })
    }
}

/// A prompt as rows have it, its turns, and the responses.
type Said = (Option<Value>, Vec<(Option<String>, String)>, Vec<Candidate>);

fn said(row: Row) -> std::result::Result<Said, String> {
    let candidate = |said, text| Candidate { said, text, tokens: Vec::new(), truncated: None };
    match row {
        Row::Text { prompt, responses } => {
            let turns = prompt.iter().map(|text| (None, text.clone())).collect();
            let responses = responses.into_iter().map(|text| candidate(json!(text), text)).collect();
            Ok((prompt.map(Value::String), turns, responses))
        }
        Row::Chat { prompt, responses, .. } => {
            let turn = |m: &Message| Ok((Some(m.role().to_owned()), words(m)?));
            let turns = prompt.iter().map(turn).collect::<std::result::Result<_, String>>()?;
            let responses = responses.iter().map(|turns| match &turns[..] {
                [answer] => Ok(candidate(listed(turns), words(answer)?)),
                several => Err(format!(
                    "has a response of {} messages, and one is judged; put the others into the prompt",
                    several.len()
                )),
            });
            let responses = responses.collect::<std::result::Result<_, String>>()?;
            Ok((Some(listed(&prompt)), turns, responses))
        }
        Row::Talk { .. } => Err(format!("is a conversation without responses to judge; a row is {SHAPES}")),
    }
}

fn listed(turns: &[Message]) -> Value {
    turns.iter().map(|m| Value::Object(m.fields().clone())).collect()
}

/// What a message says, where that is text alone.
pub(crate) fn words(message: &Message) -> std::result::Result<String, String> {
    message.text().ok_or_else(|| {
        format!(
            "has a message of `{}` without text (a call of a tool, for one), which no judge could read; leave it out, \
             or write it into the text",
            message.role()
        )
    })
}

/// The completions of a row of `duel sample`.
fn completions(value: Value) -> std::result::Result<Vec<Candidate>, String> {
    let Value::Array(list) = value else {
        return Err(format!("`completions` is {}, not a list", kind(&value)));
    };
    list.into_iter().enumerate().map(|(i, value)| completion(&format!("completions[{i}]"), value)).collect()
}

fn completion(name: &str, value: Value) -> std::result::Result<Candidate, String> {
    let Value::Object(fields) = value else {
        return Err(format!("`{name}` is {}, not {{text, tokens, finish_reason}}", kind(&value)));
    };
    let text = match fields.get("text") {
        Some(Value::String(text)) => text.clone(),
        Some(other) => return Err(format!("`{name}.text` is {}, not a string", kind(other))),
        None => return Err(format!("`{name}` has no `text`")),
    };
    let truncated = match fields.get("finish_reason") {
        None | Some(Value::Null) => None,
        Some(Value::String(why)) if why == "stop" => Some(false),
        Some(Value::String(why)) if why == "length" => Some(true),
        Some(other) => {
            return Err(format!(
                "`{name}.finish_reason` is {other}, which is neither \"stop\" nor \"length\""
            ));
        }
    };
    let tokens = match fields.get("tokens") {
        None | Some(Value::Null) => Vec::new(),
        Some(tokens) => serde_json::from_value(tokens.clone())
            .map_err(|_| format!("`{name}.tokens` is no list of the numbers of tokens"))?,
    };
    Ok(Candidate { said: json!(text), text, tokens, truncated })
}
