//! The shapes of rows that preference and instruction files come in, normalised to one of three.

use crate::message::{MEDIA, Message, kind};
use crate::template::Context;
use crate::{Label, Options, Task, said};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// A prompt and its responses, best first, before they are tokens. Two responses of which nothing else is known are a
/// pair also where unpaired ones are wanted: there they become a good example and a bad one.
#[derive(Debug, Clone, PartialEq)]
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
        /// What else the template gets.
        context: Context,
    },
    /// A conversation of which every turn of the assistant is learned; where responses are unpaired, the last one.
    Talk {
        /// All turns.
        turns: Vec<Message>,
        /// What else the template gets.
        context: Context,
    },
}

impl Row {
    /// A plain-text row.
    pub fn plain<R: Into<String>>(prompt: impl Into<String>, responses: impl IntoIterator<Item = R>) -> Self {
        Row::Text { prompt: Some(prompt.into()), responses: responses.into_iter().map(Into::into).collect() }
    }

    /// Leaves the response that supervised training learns, with all that is before it if that is learned too
    /// (`whole`).
    pub(crate) fn keep_best(&mut self, whole: bool) {
        match self {
            // Nothing has to be found out.
            Row::Text { prompt: prompt @ None, responses } if whole => {
                *prompt = Some(String::new());
                responses.truncate(1);
            }
            Row::Text { prompt: None, .. } => {} // all texts together show where the prompt ends
            Row::Text { responses, .. } => responses.truncate(1),
            Row::Chat { responses, .. } => responses.truncate(1),
            Row::Talk { .. } => {}
        }
    }
}

const SHAPES: &str = "\
    {prompt, chosen, rejected}, {chosen, rejected}, {prompt, responses: [best, ..., worst]}, \
    {conversations, chosen, rejected} or {instruction, input, chosen, rejected} for preferences; \
    {prompt, completion, label} for unpaired training; \
    {prompt, completion}, {messages}, {conversations}, {instruction, input, output} or {text} for supervised training";

/// One JSON value as a row, and what it says of its responses. `Ok(None)` is a bad example of which supervised training
/// learns nothing; `chat` tells whether instruction rows can go through a chat template; `unused` hears the columns
/// that the row has no use for. Messages of errors start with a verb: "row 3: " goes before.
pub(crate) fn parse(
    mut value: Value,
    opt: &Options,
    chat: bool,
    unused: &mut BTreeSet<String>,
) -> Result<Option<(Row, Label)>, String> {
    let no_prompt = value.get("prompt").is_some_and(Value::is_null);
    without_nulls(&mut value);
    let Value::Object(mut columns) = value else {
        return Err(format!("is {}, not an object with named columns", kind(&value)));
    };
    if no_prompt && columns.get("chosen").or(columns.get("responses")).is_some_and(is_text) {
        return Err("`prompt` is null; remove the row, or the column where each response is a whole text that begins \
                    with its prompt"
            .to_owned());
    }
    refuse(&mut columns)?;
    let row = read(&mut columns, opt, chat)?;
    // Of a row that is left out nothing is used.
    if row.is_some() {
        unused.extend(columns.into_iter().filter(|(_, v)| !is_empty(v)).map(|(name, _)| name));
    }
    Ok(row)
}

/// Whether a response is a text, or the first of several is, and not a conversation that has its prompt in it.
fn is_text(response: &Value) -> bool {
    response.is_string() || response.get(0).is_some_and(Value::is_string)
}

/// Takes what a row is made of out of its columns.
fn read(columns: &mut Map<String, Value>, opt: &Options, chat: bool) -> Result<Option<(Row, Label)>, String> {
    let context = context(columns)?;
    let margin = said::margin(columns, opt.task)?;
    let found = columns.keys().map(|k| format!("`{k}`")).collect::<Vec<_>>().join(", ");

    let (answers, label) = match several(columns, opt.task)? {
        Some(several) => several,
        None => match single(columns, opt)? {
            Single::Dropped => return Ok(None),
            Single::Answer(answer, label) => (vec![answer], label),
            Single::Text(text) => {
                let row = finish(Row::plain("", [text]), columns, context)?;
                return Ok(Some((row, Label::default())));
            }
            Single::Talk(turns, label) => {
                let row = finish(Row::Talk { turns, context: Context::default() }, columns, context)?;
                return Ok(Some((row, label)));
            }
            Single::Unknown if columns.is_empty() => {
                return Err(format!("has no columns; a row is {SHAPES}"));
            }
            Single::Unknown => {
                if let Some(list) = wrapped(columns) {
                    return Err(format!("is no row: the rows lie under `{list}`; {UNWRAP}"));
                }
                return Err(format!("has the columns {found}; none of the accepted shapes fits: {SHAPES}"));
            }
        },
    };
    let label = match (margin, label) {
        (None, label) => label,
        (Some(_), Label::Scored(_)) => return Err("has `margin` and `scores`; keep one".to_owned()),
        (margin, _) if answers.len() == 2 => Label::Ranked { margin },
        (Some(_), _) => {
            return Err(format!(
                "has a `margin` and {} responses; a margin is between two: remove it, or give `scores`",
                answers.len()
            ));
        }
    };
    let lone = answers.len() == 1;
    let prompt = prompt(columns, chat)?;
    if prompt.is_none() && lone {
        return Err(format!("`prompt` is missing; the columns are {found}"));
    }
    let answers: Vec<Content> =
        answers.into_iter().map(|(name, value)| answer(&name, value)).collect::<Result<_, String>>()?;
    let row = join(prompt, answers, columns)?;
    Ok(Some((finish(row, columns, context)?, label)))
}

/// A response before it is read: how errors call it, and its value.
type Answer = (String, Value);

/// Takes the responses of a row that has several, best first, and what it says of them.
fn several(columns: &mut Map<String, Value>, task: Task) -> Result<Option<(Vec<Answer>, Label)>, String> {
    let ranking = match columns.remove("responses") {
        Some(_) if task == Task::Unpaired => {
            return Err(
                "has `responses`: a ranking says which is better, not which are good, as unpaired training needs; give \
                 each response a row {prompt, completion, label}, or train on the file with --method dpo"
                    .to_owned(),
            );
        }
        Some(Value::Array(list)) => list,
        Some(other) => return Err(format!("`responses` is {}, not a list from best to worst", kind(&other))),
        None if columns.contains_key("chosen") || columns.contains_key("rejected") => {
            if task == Task::Unpaired && columns.contains_key("label") {
                return Err(
                    "has a `label` beside `chosen` and `rejected`, which say what is good; remove it"
                        .to_owned(),
                );
            }
            let pair = vec![require(columns, "chosen")?, require(columns, "rejected")?];
            return Ok(Some((pair, Label::default())));
        }
        None => return Ok(None),
    };
    let answers = ranking.into_iter().enumerate().map(|(i, v)| (format!("responses[{i}]"), v));
    let Some(scores) = said::scores(columns, answers.len())? else {
        return Ok(Some((answers.collect(), Label::default())));
    };
    let mut scored: Vec<(f64, Answer)> = scores.into_iter().zip(answers).collect();
    scored.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    let (scores, answers) = scored.into_iter().unzip();
    Ok(Some((answers, Label::Scored(scores))))
}

/// What to do with a file whose rows lie in a list inside an object.
pub(crate) const UNWRAP: &str =
    "the file must be the array itself, [{...}, {...}] in a .json, or one row a line in a .jsonl";

/// Where in an object that is no row the rows lie: the longest list of objects in it, or in an object in it.
pub(crate) fn wrapped(columns: &Map<String, Value>) -> Option<String> {
    let lists = |columns: &Map<String, Value>, at: &str| -> Vec<(usize, String)> {
        let list = |(name, v): (&String, &Value)| {
            let list = v.as_array().filter(|list| list.iter().any(Value::is_object))?;
            Some((list.len(), format!("{at}{name}")))
        };
        columns.iter().filter_map(list).collect()
    };
    let mut all = lists(columns, "");
    for (name, value) in columns {
        all.extend(value.as_object().map(|inner| lists(inner, &format!("{name}."))).unwrap_or_default());
    }
    all.into_iter().max_by_key(|(len, _)| *len).map(|(_, name)| name)
}

/// Whether an object holds rows as columns: lists of the same length that are no lists of objects.
pub(crate) fn is_columnar(columns: &Map<String, Value>) -> bool {
    let lengths: Vec<Option<usize>> = columns.values().map(|v| v.as_array().map(Vec::len)).collect();
    lengths.first().is_some_and(|first| first.is_some() && lengths.iter().all(|len| len == first))
}

/// Null means absent, at every depth; in a list it keeps its place.
pub(crate) fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, v| !v.is_null());
            fields.values_mut().for_each(without_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::String(text) => matches!(text.trim(), "" | "[]" | "{}"),
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

/// Columns that mean something which training here cannot give.
pub(crate) fn refuse(columns: &mut Map<String, Value>) -> Result<(), String> {
    let given = |key: &str| columns.get(key).is_some_and(|v| !is_empty(v));
    if given("history") {
        return Err(
            "has `history`, which is not supported; write it into the messages or remove the column".into()
        );
    }
    if let Some(media) = MEDIA.iter().find(|key| given(key)) {
        return Err(format!(
            "has `{media}`, and the models trained here read text alone; remove the column or the row"
        ));
    }
    let weight = columns.get("weight").filter(|w| w.is_number() && w.as_f64() != Some(1.0));
    if let Some(weight) = weight {
        return Err(format!(
            "has a `weight` of {weight}, and rows are not weighted; repeat or remove rows, or remove the column"
        ));
    }
    if columns.get("train") == Some(&Value::Bool(false)) {
        return Err("has `train` set to false; remove the row, or the column".into());
    }
    // What is left of the two says that the row counts as any other.
    columns.retain(|name, v| !(name == "weight" && v.is_number() || name == "train" && v.is_boolean()));
    Ok(())
}

/// What the row gives its chat template beside messages.
pub(crate) fn context(columns: &mut Map<String, Value>) -> Result<Context, String> {
    let list = |name: &str, value: Option<Value>| match value.map(|v| from_text(name, v)).transpose()? {
        None => Ok(Vec::new()),
        Some(Value::Array(list)) => list.into_iter().map(|v| from_text(name, v)).collect(),
        Some(other) => Err(format!("`{name}` is {}, not a list", kind(&other))),
    };
    let tools = list("tools", columns.remove("tools"))?;
    let documents = list("documents", columns.remove("documents"))?;
    let name = "chat_template_kwargs";
    let kwargs = match columns.remove(name).map(|v| from_text(name, v)).transpose()? {
        None => Map::new(),
        Some(Value::Object(kwargs)) => kwargs,
        Some(other) => return Err(format!("`{name}` is {}, not an object", kind(&other))),
    };
    if let Some(ours) = ["messages", "add_generation_prompt"].iter().find(|key| kwargs.contains_key(**key)) {
        return Err(format!("`{name}` sets `{ours}`, which is not the row's to set; remove it"));
    }
    Ok(Context { tools, documents, kwargs })
}

/// A value, or the JSON text that stands for it where a column must be text; an empty text is an empty list.
fn from_text(name: &str, value: Value) -> Result<Value, String> {
    match value {
        Value::String(text) if text.trim().is_empty() => Ok(Value::Array(Vec::new())),
        Value::String(text) => serde_json::from_str(&text)
            .map(|mut value| {
                without_nulls(&mut value);
                value
            })
            .map_err(|e| format!("`{name}` is a text that is no JSON: {e}")),
        value => Ok(value),
    }
}

/// Gives a row what else its columns say: the system message and the template's context, or an error where there is no
/// conversation to take them.
pub(crate) fn finish(mut row: Row, columns: &mut Map<String, Value>, given: Context) -> Result<Row, String> {
    let system = match columns.remove("system").map(|v| string("system", v)).transpose()? {
        Some(text) if !text.is_empty() => Some(text),
        _ => None,
    };
    match &mut row {
        Row::Text { .. } => {
            let column = match given.columns().next() {
                Some(column) => column,
                None if system.is_some() => "system",
                None => return Ok(row),
            };
            return Err(format!(
                "has `{column}`, but no conversation that could take it; give messages and a model with a chat \
                 template, or remove the column"
            ));
        }
        Row::Chat { prompt: turns, context, .. } | Row::Talk { turns, context } => {
            if let Some(text) = system {
                open_with(turns, Message::new("system", text))?;
            }
            *context = given;
        }
    }
    Ok(row)
}

/// A `system` column opens a conversation that does not open with a system message itself.
fn open_with(turns: &mut Vec<Message>, system: Message) -> Result<(), String> {
    match turns.first() {
        Some(first) if first == &system => {}
        Some(first) if ["system", "developer"].contains(&first.role()) => {
            return Err(format!(
                "has `system`, and its conversation opens with another {} message; keep one",
                first.role()
            ));
        }
        _ => turns.insert(0, system),
    }
    Ok(())
}

/// What a row without `responses`, `chosen` and `rejected` holds.
enum Single {
    Answer(Answer, Label),
    Text(String),
    Talk(Vec<Message>, Label),
    Dropped,
    Unknown,
}

fn single(columns: &mut Map<String, Value>, opt: &Options) -> Result<Single, String> {
    const ANSWERS: [&str; 5] = ["completion", "output", "messages", "conversations", "text"];
    let label = columns.remove("label");
    let Some(name) = ANSWERS.into_iter().find(|name| columns.contains_key(*name)) else {
        return Ok(Single::Unknown);
    };
    let label = match (opt.task, label) {
        (Task::Preference | Task::Reward, Some(_)) => {
            return Err(
                "has a `label`: unpaired (KTO) rows do not fit a method that compares responses to the same \
                        prompt; train on the file with --method kto, or give `chosen` and `rejected`"
                    .to_owned(),
            );
        }
        (Task::Preference | Task::Reward, None) => {
            return Err(format!(
                "has one response (`{name}`), and preference training compares at least two; give `chosen` and \
                 `rejected`, or train on the file with --method sft"
            ));
        }
        (Task::Unpaired, label) => said::label(label)?,
        (Task::Sft, Some(label)) => {
            // Numbers and names are an ordinary column of text data, but a verdict on a completion.
            let verdict = label.is_boolean() || name == "completion";
            match said::verdict(&label).filter(|_| verdict) {
                Some(true) => {}
                Some(false) => return Ok(Single::Dropped),
                None => _ = columns.insert("label".to_owned(), label),
            }
            Label::default()
        }
        (Task::Sft, None) => Label::default(),
    };
    let (name, value) = require(columns, name)?;
    match (name.as_str(), value) {
        ("messages" | "conversations", value) => {
            let turns = messages(&name, value)?;
            learnable(&name, &turns, opt)?;
            Ok(Single::Talk(turns, label))
        }
        ("text", _) if opt.task == Task::Unpaired => Err(
            "has a `text`, which does not show where its response begins; give {prompt, completion, label}"
                .to_owned(),
        ),
        ("text", Value::String(text)) if text.is_empty() => Err("`text` is empty; remove the row".to_owned()),
        ("text", Value::String(text)) => Ok(Single::Text(text)),
        ("text", other) => Err(format!("`text` is {}, not a string", kind(&other))),
        (_, value) => Ok(Single::Answer((name, value), label)),
    }
}

/// Whether a conversation has something to learn: at least one turn of the assistant, after another turn, the last of
/// which says something. Where all of it is learned, any turn will do, and none can be left out.
fn learnable(name: &str, turns: &[Message], opt: &Options) -> Result<(), String> {
    if opt.conversations_whole() {
        return match turns.iter().all(Message::learned) {
            true if turns.is_empty() => Err(format!("`{name}` is empty; remove the row")),
            true => Ok(()),
            false => Err(format!(
                "`{name}` has a turn that is marked as not learned, and here every token is; unmark it, or learn \
                 the turns of the assistant alone"
            )),
        };
    }
    let Some(last) = turns.iter().rposition(|m| m.role() == "assistant") else {
        return Err(format!("`{name}` has no assistant turn to learn"));
    };
    if last == 0 {
        return Err(format!("`{name}` starts with the assistant turn to learn; it needs a turn before it"));
    }
    if turns[last].is_empty() {
        return Err(format!(
            "`{name}` is empty in its last assistant turn; remove the row or give it a response"
        ));
    }
    if opt.task == Task::Unpaired && !turns[last].learned() {
        return Err(format!(
            "`{name}` marks its last assistant turn as not learned, which is what its `label` is about; remove one"
        ));
    }
    Ok(())
}

/// The prompt, where the row has a column for it.
pub(crate) fn prompt(columns: &mut Map<String, Value>, chat: bool) -> Result<Option<Content>, String> {
    let list = ["conversations", "messages"].into_iter().find(|k| columns.contains_key(*k));
    if let Some(value) = columns.remove("prompt") {
        return content("prompt", value).map(Some);
    }
    if let Some(name) = list {
        return Ok(Some(Content::Chat(messages(name, require(columns, name)?.1)?)));
    }
    let Some(value) = columns.remove("instruction") else { return Ok(None) };
    let instruction = string("instruction", value)?;
    let input = columns.remove("input").map_or(Ok(String::new()), |v| string("input", v))?;
    Ok(Some(match (chat, input.is_empty()) {
        (true, true) => Content::Chat(vec![Message::new("user", instruction)]),
        (true, false) => Content::Chat(vec![Message::new("user", format!("{instruction}\n{input}"))]),
        (false, true) => Content::Text(format!("### Instruction:\n{instruction}\n\n### Response:\n")),
        (false, false) => Content::Text(format!(
            "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
        )),
    }))
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
        Some(Content::Text(text)) if responses.iter().any(|r| r[0].role() != "assistant") => {
            let says = |m: &Message| {
                m.fields()
                    .get("content")
                    .and_then(Value::as_str)
                    .is_some_and(|said| said.trim() == text.trim())
            };
            if !responses[0].iter().any(says) {
                return Err(
                    "has a `prompt` that none of its messages says; remove it, or put it into them".into()
                );
            }
            None
        }
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
    Ok(Row::Chat { prompt, responses, context: Context::default() })
}

/// The longest text that all `texts` begin with.
pub(crate) fn common_prefix<T: AsRef<str>>(texts: &[T]) -> &str {
    let Some((first, rest)) = texts.split_first() else { return "" };
    let first = first.as_ref();
    let mut len = first.len();
    for text in rest {
        len = first.bytes().zip(text.as_ref().bytes()).take(len).take_while(|(a, b)| a == b).count();
    }
    while !first.is_char_boundary(len) {
        len -= 1;
    }
    &first[..len]
}

/// What a column says.
pub(crate) enum Content {
    Text(String),
    Chat(Vec<Message>),
}

impl Content {
    /// The text of a `Text`; a `Chat` has none.
    pub(crate) fn text(self) -> String {
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

/// A response: it says something, and all of it is learned.
fn answer(name: &str, value: Value) -> Result<Content, String> {
    let answer = content(name, value)?;
    let empty = match &answer {
        Content::Text(text) => text.is_empty(),
        Content::Chat(turns) => turns.iter().all(Message::is_empty),
    };
    if empty {
        return Err(format!("`{name}` is empty; remove the row or give it a response"));
    }
    match &answer {
        Content::Chat(turns) if turns.iter().any(|m| m.role() == "assistant" && !m.learned()) => {
            Err(format!(
                "`{name}` has a turn that is marked as not learned, which only {{messages}} rows can have; move it to the prompt"
            ))
        }
        _ => Ok(answer),
    }
}

fn content(name: &str, value: Value) -> Result<Content, String> {
    match value {
        Value::String(text) => Ok(Content::Text(text)),
        Value::Array(_) => messages(name, value).map(Content::Chat),
        Value::Object(_) => Ok(Content::Chat(vec![Message::from_json(name, value)?])),
        other => Err(format!("`{name}` is {}, not a string, a message or a list of messages", kind(&other))),
    }
}

fn messages(name: &str, value: Value) -> Result<Vec<Message>, String> {
    match value {
        Value::Array(list) => list
            .into_iter()
            .enumerate()
            .map(|(i, v)| Message::from_json(&format!("{name}[{i}]"), v))
            .collect(),
        other => Err(format!("`{name}` is {}, not a list of messages", kind(&other))),
    }
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
