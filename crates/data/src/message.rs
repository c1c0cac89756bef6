//! One turn of a conversation, with every field that a chat template may read.

use serde_json::{Map, Value};

/// One turn of a conversation: a JSON object of which `role` and `content` are known here and everything else
/// (`name`, `reasoning_content`, `tool_calls`, ...) is the chat template's business.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    fields: Map<String, Value>,
    learned: bool,
}

/// Fields of datasets that say whether supervised training learns a turn.
const FLAGS: [&str; 5] = ["weight", "train", "training", "train_on_turn", "loss"];

/// Fields that hold what no text model reads.
pub(crate) const MEDIA: [&str; 6] = ["image", "images", "audio", "audios", "video", "videos"];

/// Fields of which a turn may consist alone.
const SPEAKING: [&str; 5] = ["tool_calls", "function_call", "reasoning_content", "thinking", "reasoning"];

/// Names under which a turn's reasoning is found; templates read the first, some the second.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

impl Message {
    /// A turn of `role` that says `content`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        let fields = [("role", role.into()), ("content", content.into())];
        Message {
            fields: fields.into_iter().map(|(k, v)| (k.to_owned(), Value::String(v))).collect(),
            learned: true,
        }
    }

    /// Reads `{role, content}` or ShareGPT's `{from, value}`; `name` is how errors call it. Fields that are null must
    /// be gone already.
    ///
    /// # Errors
    /// What is wrong, in words that start with the name.
    pub fn from_json(name: &str, value: Value) -> Result<Self, String> {
        let Value::Object(mut fields) = value else {
            return Err(format!("`{name}` is {}, not a message {{role, content}}", kind(&value)));
        };
        let said = match (fields.get("role"), fields.get("from")) {
            (Some(Value::String(_)), _) => "content",
            (None, Some(Value::String(from))) => {
                let role = role_of(name, from)?;
                fields.insert("from".into(), role.into());
                fields = renamed(fields, &[("from", "role"), ("value", "content")]);
                "value"
            }
            _ => {
                return Err(format!(
                    "`{name}` has no text `role` (or `from`); a message is {{role, content}}"
                ));
            }
        };
        let learned = flags(name, &mut fields)?;
        if let Some(media) = MEDIA.iter().find(|key| fields.contains_key(**key)) {
            return Err(format!("`{name}` has `{media}`; only text is supported"));
        }
        let speaks = SPEAKING.iter().any(|key| fields.contains_key(*key));
        match fields.get_mut("content") {
            Some(Value::String(_)) => {}
            Some(Value::Array(parts)) => parts.iter_mut().try_for_each(|p| {
                *p = part(name, p.take())?;
                Ok::<(), String>(())
            })?,
            Some(other) => return Err(format!("`{name}` has {} as its `{said}`, not a string", kind(other))),
            None if speaks => {}
            None => return Err(format!("`{name}` has no `{said}`, or null; a message is {{role, content}}")),
        }
        Ok(Message { fields, learned })
    }

    /// Who speaks: `system`, `user`, `assistant` or whatever else the model's template knows.
    pub fn role(&self) -> &str {
        self.fields.get("role").and_then(Value::as_str).unwrap_or_default()
    }

    /// What it says, its parts one after another; `None` where it has something else in the place of a text.
    pub fn text(&self) -> Option<String> {
        match self.fields.get("content")? {
            Value::String(text) => Some(text.clone()),
            Value::Array(parts) => Some(parts.iter().filter_map(|p| p["text"].as_str()).collect()),
            _ => None,
        }
    }

    /// Every field, in the order of the file.
    pub fn fields(&self) -> &Map<String, Value> {
        &self.fields
    }

    /// Whether supervised training learns this turn, if it is the assistant's: unless its `weight` is 0 or its `train`
    /// false.
    pub fn learned(&self) -> bool {
        self.learned
    }

    /// Whether it says nothing: no text, and no field that could stand for it.
    pub(crate) fn is_empty(&self) -> bool {
        let silent = match self.fields.get("content") {
            Some(Value::Array(parts)) => parts.iter().all(|p| p["text"] == ""),
            content => content.is_none_or(|text| text == ""),
        };
        silent && !SPEAKING.iter().any(|key| self.fields.contains_key(*key))
    }

    /// The fields as a template sees them: reasoning under the names that templates read, as transformers passes it.
    pub(crate) fn view(&self) -> Map<String, Value> {
        let mut fields = self.fields.clone();
        if let Some(reasoning) = REASONING.iter().find_map(|key| fields.get(*key)).cloned() {
            fields.entry("thinking").or_insert_with(|| reasoning.clone());
            fields.insert(REASONING[0].into(), reasoning);
        }
        fields
    }

    /// The message without one of its fields; the names of reasoning are one.
    pub(crate) fn without(&self, name: &str) -> Self {
        let mut message = self.clone();
        let same = |key: &str| key == name || REASONING.contains(&key) && REASONING.contains(&name);
        message.fields.retain(|key, _| !same(key));
        message
    }
}

/// The same fields in the same order, some by other names.
fn renamed(fields: Map<String, Value>, names: &[(&str, &str)]) -> Map<String, Value> {
    let name = |key: String| match names.iter().find(|(from, _)| *from == key) {
        Some((_, to)) => (*to).to_owned(),
        None => key,
    };
    fields.into_iter().map(|(key, value)| (name(key), value)).collect()
}

/// The role that a ShareGPT `from` stands for.
fn role_of(name: &str, from: &str) -> Result<&'static str, String> {
    match from {
        "human" | "user" => Ok("user"),
        "gpt" | "assistant" | "chatgpt" | "bing" | "bard" | "model" => Ok("assistant"),
        "system" => Ok("system"),
        "observation" | "tool" | "function_response" => Ok("tool"),
        _ => Err(format!(
            "`{name}` is from `{from}`, which is none of human, user, gpt, assistant, chatgpt, bing, bard, model, \
             system, tool, observation, function_response"
        )),
    }
}

/// Takes the flags out of a message; whether it is learned.
fn flags(name: &str, fields: &mut Map<String, Value>) -> Result<bool, String> {
    let mut learned = true;
    for flag in FLAGS {
        let says = match fields.shift_remove(flag) {
            None => continue,
            Some(Value::Bool(yes)) => yes,
            Some(Value::Number(n)) if n.as_f64() == Some(0.0) => false,
            Some(Value::Number(n)) if n.as_f64() == Some(1.0) => true,
            Some(other) => {
                return Err(format!(
                    "`{name}` has {other} as its `{flag}`; a turn is learned (1, true) or not (0, false)"
                ));
            }
        };
        learned &= says;
    }
    match fields.contains_key("train_detail") {
        true => Err(format!("`{name}` has `train_detail`, which is not supported; split the turn")),
        false => Ok(learned),
    }
}

/// One part of a message's content: a text, or `{type: "text", text}`, with `value` for `text` in some files.
fn part(name: &str, value: Value) -> Result<Value, String> {
    let text = match value {
        Value::String(text) => Some(text),
        Value::Object(mut fields) if fields.get("type").is_none_or(|t| t == "text") => {
            ["text", "value"].iter().find_map(|key| match fields.remove(*key) {
                Some(Value::String(text)) => Some(text),
                _ => None,
            })
        }
        _ => None,
    };
    match text {
        Some(text) => Ok(serde_json::json!({"type": "text", "text": text})),
        None => Err(format!(
            "`{name}` has a content part that is not {{type: \"text\", text}} with a text; only text is supported"
        )),
    }
}

/// A value's type in words.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
