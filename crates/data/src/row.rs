//! The shapes of rows that preference and instruction files come in, normalised to one of two.

use serde_json::{Map, Value};

use crate::Task;
use crate::template::Message;

/// A prompt and its responses, best first, before they are tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    /// Plain text: the model continues the prompt with a response, and EOS ends it.
    Text {
        /// `None`: each response is a whole text, and the prompt is what the texts begin with in common.
        prompt: Option<String>,
        /// The responses, best first.
        responses: Vec<String>,
    },
    /// A conversation, which the tokenizer's chat template turns into text.
    Chat {
        /// The turns before the response; never empty in rows read from files.
        prompt: Vec<Message>,
        /// The turns of each response, usually one of the assistant; best response first.
        responses: Vec<Vec<Message>>,
    },
}

impl Row {
    /// A plain-text row.
    pub fn plain<R: Into<String>>(prompt: impl Into<String>, responses: impl IntoIterator<Item = R>) -> Self {
        Row::Text { prompt: Some(prompt.into()), responses: responses.into_iter().map(Into::into).collect() }
    }
}

const SHAPES: &str = "\
    {prompt, chosen, rejected}, {chosen, rejected}, {prompt, responses: [best, ..., worst]}, \
    {conversations, chosen, rejected} or {instruction, input, chosen, rejected} for preferences; \
    {prompt, completion}, {messages}, {conversations}, {instruction, input, output} or {text} for supervised training";

/// One JSON value as a row. `Ok(None)` is an unpaired row that says it is a bad example; `chat` tells whether
/// instruction rows can go through a chat template. Messages of errors start with a verb: "row 3: " goes before.
pub(crate) fn parse(value: Value, task: Task, chat: bool) -> Result<Option<Row>, String> {
    let Value::Object(mut columns) = value else {
        return Err(format!("is {}, not an object with named columns", kind(&value)));
    };
    columns.retain(|_, v| !v.is_null());
    for key in ["tools", "history"] {
        if columns.get(key).is_some_and(|v| v != "" && v != &Value::Array(Vec::new())) {
            return Err(format!(
                "has `{key}`, which is not supported; write it into the messages or remove the column"
            ));
        }
    }
    let found = columns.keys().map(|k| format!("`{k}`")).collect::<Vec<_>>().join(", ");

    let answers: Vec<(String, Value)> = match columns.remove("responses") {
        Some(Value::Array(list)) => {
            list.into_iter().enumerate().map(|(i, v)| (format!("responses[{i}]"), v)).collect()
        }
        Some(other) => return Err(format!("`responses` is {}, not a list from best to worst", kind(&other))),
        None if columns.contains_key("chosen") || columns.contains_key("rejected") => {
            vec![require(&mut columns, "chosen")?, require(&mut columns, "rejected")?]
        }
        None => match single(&mut columns, task)? {
            Single::Dropped => return Ok(None),
            Single::Row(row) => return Ok(Some(row)),
            Single::Answer(answer) => vec![answer],
            Single::Unknown => {
                return Err(format!("has the columns {found}; none of the accepted shapes fits: {SHAPES}"));
            }
        },
    };
    let lone = answers.len() == 1;
    let prompt = prompt(&mut columns, chat)?;
    if prompt.is_none() && lone {
        return Err(format!("`prompt` is missing; the columns are {found}"));
    }
    let answers: Vec<Content> = answers
        .into_iter()
        .map(|(name, value)| match content(&name, value)? {
            answer if answer.is_empty() => {
                Err(format!("`{name}` is empty; remove the row or give it a response"))
            }
            answer => Ok(answer),
        })
        .collect::<Result<_, String>>()?;
    join(prompt, answers, &columns).map(Some)
}

/// What a row without `responses`, `chosen` and `rejected` holds.
enum Single {
    Answer((String, Value)),
    Row(Row),
    Dropped,
    Unknown,
}

fn single(columns: &mut Map<String, Value>, task: Task) -> Result<Single, String> {
    const ANSWERS: [&str; 5] = ["completion", "output", "messages", "conversations", "text"];
    let label = columns.remove("label");
    let Some(name) = ANSWERS.into_iter().find(|name| columns.contains_key(*name)) else {
        return Ok(Single::Unknown);
    };
    match (task, label) {
        (Task::Preference, Some(_)) => {
            return Err(
                "has a `label`: unpaired (KTO) rows do not fit DPO, which compares responses to the same \
                        prompt; give `chosen` and `rejected`, or train on the file with task sft"
                    .to_owned(),
            );
        }
        (Task::Preference, None) => {
            return Err(format!(
                "has one response (`{name}`), and preference training compares at least two; give `chosen` and \
                 `rejected`, or train on the file with task sft"
            ));
        }
        // Other labels (0, 1, a class name) are an ordinary column of text data, not a verdict.
        (Task::Sft, Some(Value::Bool(false))) => return Ok(Single::Dropped),
        (Task::Sft, _) => {}
    }
    let (name, value) = require(columns, name)?;
    match (name.as_str(), value) {
        ("messages" | "conversations", value) => {
            let mut turns = messages(&name, value)?;
            system(columns, &mut turns)?;
            last_turn(&name, turns).map(Single::Row)
        }
        ("text", Value::String(text)) if text.is_empty() => Err("`text` is empty; remove the row".to_owned()),
        ("text", Value::String(text)) => Ok(Single::Row(Row::plain("", [text]))),
        ("text", other) => Err(format!("`text` is {}, not a string", kind(&other))),
        (_, value) => Ok(Single::Answer((name, value))),
    }
}

/// Splits a conversation before its last assistant turn; what follows that turn is nothing to learn from.
fn last_turn(name: &str, mut turns: Vec<Message>) -> Result<Row, String> {
    let Some(last) = turns.iter().rposition(|m| m.role == "assistant") else {
        return Err(format!("`{name}` has no assistant turn to learn"));
    };
    if last == 0 {
        return Err(format!("`{name}` starts with the assistant turn to learn; it needs a turn before it"));
    }
    turns.truncate(last + 1);
    let response = turns.split_off(last);
    if response[0].content.is_empty() {
        return Err(format!(
            "`{name}` is empty in its last assistant turn; remove the row or give it a response"
        ));
    }
    Ok(Row::Chat { prompt: turns, responses: vec![response] })
}

/// The prompt, where the row has a column for it.
fn prompt(columns: &mut Map<String, Value>, chat: bool) -> Result<Option<Content>, String> {
    let list = ["conversations", "messages"].into_iter().find(|k| columns.contains_key(*k));
    let mut prompt = if let Some(value) = columns.remove("prompt") {
        content("prompt", value)?
    } else if let Some(name) = list {
        Content::Chat(messages(name, require(columns, name)?.1)?)
    } else if let Some(value) = columns.remove("instruction") {
        let instruction = string("instruction", value)?;
        let input = columns.remove("input").map_or(Ok(String::new()), |v| string("input", v))?;
        match (chat, input.is_empty()) {
            (true, true) => Content::Chat(vec![Message::new("user", instruction)]),
            (true, false) => Content::Chat(vec![Message::new("user", format!("{instruction}\n{input}"))]),
            (false, true) => Content::Text(format!("### Instruction:\n{instruction}\n\n### Response:\n")),
            (false, false) => Content::Text(format!(
                "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
            )),
        }
    } else {
        return Ok(None);
    };
    if let Content::Chat(turns) = &mut prompt {
        system(columns, turns)?;
    }
    Ok(Some(prompt))
}

/// A `system` column opens a conversation that does not open with a system message itself.
fn system(columns: &mut Map<String, Value>, turns: &mut Vec<Message>) -> Result<(), String> {
    if let Some(value) = columns.remove("system") {
        let text = string("system", value)?;
        if !text.is_empty() && turns.first().is_none_or(|m| m.role != "system") {
            turns.insert(0, Message::new("system", text));
        }
    }
    Ok(())
}

/// Joins prompt and answers to a row; `rest` are the columns that nothing has used.
fn join(prompt: Option<Content>, answers: Vec<Content>, rest: &Map<String, Value>) -> Result<Row, String> {
    let talks = |c: &Content| matches!(c, Content::Chat(_));
    if !answers.iter().any(talks) && !prompt.as_ref().is_some_and(talks) {
        let responses: Vec<String> = answers.into_iter().map(Content::text).collect();
        let prompt = prompt.map(Content::text);
        if prompt.is_none() && common_prefix(&responses).is_empty() {
            // Texts that begin differently and another text beside them: most likely a prompt by another name.
            let others = rest.iter().filter(|(_, v)| v.is_string()).map(|(k, _)| format!("`{k}`"));
            let others = others.collect::<Vec<_>>().join(", ");
            if !others.is_empty() {
                return Err(format!(
                    "has no `prompt`, and its texts begin differently; if one of {others} is the prompt, rename it"
                ));
            }
        }
        return Ok(Row::Text { prompt, responses });
    }

    let mut responses: Vec<Vec<Message>> = answers.into_iter().map(|a| a.turns("assistant")).collect();
    let given = match prompt {
        // A string beside message lists that open with the user is a copy of what they open with.
        Some(Content::Text(_)) if responses.iter().any(|r| r[0].role != "assistant") => None,
        Some(other) => Some(other.turns("user")),
        None => None,
    };
    let prompt = match given {
        Some(prompt) if prompt.is_empty() => return Err("`prompt` is an empty list".to_owned()),
        Some(prompt) => {
            // Some files repeat the prompt in front of every response.
            if responses.iter().all(|r| r.len() > prompt.len() && r.starts_with(&prompt)) {
                responses.iter_mut().for_each(|r| drop(r.drain(..prompt.len())));
            }
            prompt
        }
        None => {
            let longest = responses.iter().map(|r| r.len() - 1).min().unwrap_or(0);
            let first = responses[0].clone();
            let shared = (0..longest).take_while(|&i| responses.iter().all(|r| r[i] == first[i])).count();
            if shared == 0 {
                return Err(
                    "has no `prompt` messages, and its conversations do not begin alike; give `prompt`"
                        .to_owned(),
                );
            }
            responses.iter_mut().for_each(|r| drop(r.drain(..shared)));
            first[..shared].to_vec()
        }
    };
    Ok(Row::Chat { prompt, responses })
}

/// The longest text that all `texts` begin with.
pub(crate) fn common_prefix(texts: &[String]) -> &str {
    let Some((first, rest)) = texts.split_first() else { return "" };
    let mut len = first.len();
    for text in rest {
        len = first.bytes().zip(text.bytes()).take(len).take_while(|(a, b)| a == b).count();
    }
    while !first.is_char_boundary(len) {
        len -= 1;
    }
    &first[..len]
}

enum Content {
    Text(String),
    Chat(Vec<Message>),
}

impl Content {
    fn is_empty(&self) -> bool {
        match self {
            Content::Text(text) => text.is_empty(),
            Content::Chat(turns) => turns.iter().all(|m| m.content.is_empty()),
        }
    }

    /// The text of a `Text`; a `Chat` has none.
    fn text(self) -> String {
        match self {
            Content::Text(text) => text,
            Content::Chat(_) => String::new(),
        }
    }

    /// Turns; a string is what `role` says.
    fn turns(self, role: &str) -> Vec<Message> {
        match self {
            Content::Text(text) => vec![Message::new(role, text)],
            Content::Chat(turns) => turns,
        }
    }
}

fn content(name: &str, value: Value) -> Result<Content, String> {
    match value {
        Value::String(text) => Ok(Content::Text(text)),
        Value::Array(_) => messages(name, value).map(Content::Chat),
        Value::Object(_) => Ok(Content::Chat(vec![message(name, value)?])),
        other => Err(format!("`{name}` is {}, not a string, a message or a list of messages", kind(&other))),
    }
}

fn messages(name: &str, value: Value) -> Result<Vec<Message>, String> {
    match value {
        Value::Array(list) => {
            list.into_iter().enumerate().map(|(i, v)| message(&format!("{name}[{i}]"), v)).collect()
        }
        other => Err(format!("`{name}` is {}, not a list of messages", kind(&other))),
    }
}

/// `{role, content}`, or ShareGPT's `{from, value}`.
fn message(name: &str, value: Value) -> Result<Message, String> {
    let Value::Object(mut fields) = value else {
        return Err(format!("`{name}` is {}, not a message {{role, content}}", kind(&value)));
    };
    if fields.get("tool_calls").is_some_and(|v| !v.is_null() && v != &Value::Array(Vec::new())) {
        return Err(format!("`{name}` has `tool_calls`, which are not supported"));
    }
    let (role, said) = match (fields.remove("role"), fields.remove("from")) {
        (Some(Value::String(role)), _) => (role, "content"),
        (None, Some(Value::String(from))) => match from.as_str() {
            "human" | "user" => ("user".to_owned(), "value"),
            "gpt" | "assistant" | "chatgpt" => ("assistant".to_owned(), "value"),
            "system" => (from, "value"),
            _ => {
                return Err(format!(
                    "`{name}` is from `{from}`, which is none of human, user, gpt, assistant, chatgpt, system"
                ));
            }
        },
        _ => return Err(format!("`{name}` has no text `role` (or `from`); a message is {{role, content}}")),
    };
    let content = match fields.remove(said) {
        Some(Value::String(text)) => text,
        Some(Value::Array(parts)) => parts.into_iter().map(|p| part(name, p)).collect::<Result<_, _>>()?,
        Some(other) => return Err(format!("`{name}` has {} as its `{said}`, not a string", kind(&other))),
        None => return Err(format!("`{name}` has no `{said}`; a message is {{role, content}}")),
    };
    Ok(Message { role, content })
}

/// One part of a message's content: `{type: "text", text}`, with `value` for `text` in some files.
fn part(name: &str, value: Value) -> Result<String, String> {
    if value.get("type").is_none_or(|t| t == "text") {
        for key in ["text", "value"] {
            if let Some(Value::String(text)) = value.get(key) {
                return Ok(text.clone());
            }
        }
    }
    Err(format!("`{name}` has a content part that is not {{type: \"text\", text}}; only text is supported"))
}

fn require(columns: &mut Map<String, Value>, name: &str) -> Result<(String, Value), String> {
    match columns.remove(name) {
        Some(value) => Ok((name.to_owned(), value)),
        None => Err(format!("`{name}` is missing")),
    }
}

fn string(name: &str, value: Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(format!("`{name}` is {}, not a string", kind(&other))),
    }
}

/// A value's type in words.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
