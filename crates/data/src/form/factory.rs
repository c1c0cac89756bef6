//! Rows as an entry of LLaMA-Factory's `dataset_info.json` describes them.

use crate::message::kind;
use serde_json::{Map, Value, json};

/// What an entry says of columns and turns: what each is called in the file; what is not named is not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Factory {
    /// Rows are conversations (`sharegpt`, `openai`), not instructions (`alpaca`).
    talks: bool,
    /// A row is a pair.
    ranking: bool,
    columns: Vec<(String, String)>,
    /// The entry names the columns.
    named: bool,
    tags: Vec<(String, String)>,
}

const COLUMNS: [&str; 13] = [
    "prompt", "query", "response", "history", "messages", "system", "tools", "images", "videos", "audios",
    "chosen", "rejected", "kto_tag",
];

const TAGS: [&str; 7] =
    ["role_tag", "content_tag", "user_tag", "assistant_tag", "observation_tag", "function_tag", "system_tag"];

type Pairs = Vec<(String, String)>;

impl Factory {
    /// That of an entry: its `formatting`, whether it has `ranking`, its `columns` and its `tags`. As there, those that
    /// are given stand alone: what they do not name is not read.
    ///
    /// # Errors
    /// A name is none of theirs.
    pub fn new(
        formatting: &str,
        ranking: bool,
        columns: Option<Pairs>,
        tags: Option<Pairs>,
    ) -> Result<Self, String> {
        let talks = match formatting {
            "alpaca" => false,
            "sharegpt" | "openai" => true,
            _ => return Err(format!("`formatting` is {formatting}; it is alpaca, sharegpt or openai")),
        };
        let usual = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(ours, theirs)| ((*ours).to_owned(), (*theirs).to_owned())).collect()
        };
        let is_named = columns.is_some();
        let columns: Pairs = columns.unwrap_or_else(|| match talks {
            true => usual(&[("messages", "conversations")]),
            false => usual(&[("prompt", "instruction"), ("query", "input"), ("response", "output")]),
        });
        let tags: Pairs = tags.unwrap_or_else(|| match formatting {
            "openai" => usual(&[
                ("role_tag", "role"),
                ("content_tag", "content"),
                ("user_tag", "user"),
                ("assistant_tag", "assistant"),
                ("observation_tag", "tool"),
                ("system_tag", "system"),
            ]),
            _ => usual(&[
                ("role_tag", "from"),
                ("content_tag", "value"),
                ("user_tag", "human"),
                ("assistant_tag", "gpt"),
                ("observation_tag", "observation"),
                ("function_tag", "function_call"),
                ("system_tag", "system"),
            ]),
        });
        for (given, known, what) in [(&columns, &COLUMNS[..], "columns"), (&tags, &TAGS[..], "tags")] {
            if let Some((odd, _)) = given.iter().find(|(name, _)| !known.contains(&name.as_str())) {
                return Err(format!("`{what}` has `{odd}`, which is none of {}", known.join(", ")));
            }
        }
        Ok(Factory { talks, ranking, columns, named: is_named, tags })
    }

    /// The columns that the entry names: what each is, and its name in the file.
    pub(super) fn named(&self) -> &[(String, String)] {
        if self.named { &self.columns } else { &[] }
    }

    fn column(&self, name: &str) -> Option<&str> {
        named(&self.columns, name)
    }

    fn tag(&self, name: &str) -> Option<&str> {
        named(&self.tags, name)
    }

    /// A row in the columns that are read.
    pub(super) fn apply(&self, mut row: Map<String, Value>) -> Result<Map<String, Value>, String> {
        // A column that a row has not is null in the others' table.
        let mut take = |name: &str| {
            let value = self.column(name).and_then(|column| row.remove(column));
            value.filter(|value| !value.is_null())
        };
        let mut made = Map::new();
        for name in ["images", "videos", "audios", "tools"] {
            made.extend(take(name).map(|value| (name.to_owned(), value)));
        }
        let mut system = take("system");
        let turns = if self.talks {
            let messages = take("messages").ok_or_else(|| self.missing("messages"))?;
            let (opening, turns) = self.conversation(messages)?;
            system = opening.or(system);
            turns
        } else {
            let mut turns = history(take("history"))?;
            let asked: Vec<String> = ["prompt", "query"]
                .iter()
                .filter_map(|name| take(name).map(|value| text(name, value)))
                .collect::<Result<_, _>>()?;
            let asked: Vec<String> = asked.into_iter().filter(|text| !text.is_empty()).collect();
            if asked.is_empty() {
                return Err(self.missing("prompt"));
            }
            turns.push(turn("user", asked.join("\n")));
            turns
        };
        made.extend(system.filter(|system| system != "").map(|system| ("system".to_owned(), system)));
        let verdict = take("kto_tag");
        if self.ranking {
            if self.talks && turns.len() % 2 == 0 {
                return Err("does not end with the user, whom both responses of a pair answer".into());
            }
            made.insert("prompt".into(), Value::Array(turns));
            for name in ["chosen", "rejected"] {
                let value = take(name).ok_or_else(|| self.missing(name))?;
                made.insert(name.into(), self.response(name, value)?);
            }
            return Ok(made);
        }
        let mut turns = turns;
        let mut answered = true;
        if !self.talks {
            match take("response") {
                Some(value) => turns.push(turn("assistant", text("response", value)?)),
                None => answered = false,
            }
        } else if turns.len() % 2 != 0 {
            return Err("does not end with the assistant, whose last turn is the response".into());
        }
        match (answered, verdict) {
            (true, verdict) => {
                made.insert("messages".into(), Value::Array(turns));
                made.extend(verdict.map(|verdict| ("label".to_owned(), verdict)));
            }
            (false, _) => {
                made.insert("prompt".into(), Value::Array(turns));
            }
        }
        Ok(made)
    }

    fn missing(&self, name: &str) -> String {
        match self.column(name) {
            Some(column) => format!("has nothing in the column `{column}`, which its entry names as {name}"),
            None => format!("has no {name}: its entry gives columns, and {name} is not among them"),
        }
    }

    /// The system message that opens a conversation, and the turns after it, in which two take turns.
    fn conversation(&self, messages: Value) -> Result<(Option<Value>, Vec<Value>), String> {
        let Value::Array(list) = messages else {
            return Err(format!("has {} in the place of its conversation, not a list", kind(&messages)));
        };
        let mut system = None;
        let mut turns = Vec::new();
        for (i, message) in list.into_iter().enumerate() {
            let (tag, content) = self.message(message)?;
            if i == 0 && self.tag("system_tag") == Some(&tag) {
                system = Some(content);
                continue;
            }
            let role = self.role(&tag)?;
            let asks = turns.len() % 2 == 0;
            if asks == (role == "assistant") {
                return Err(format!(
                    "has a turn of `{tag}` where {} is due, and LLaMA-Factory leaves such rows out; remove it",
                    if asks { "the user" } else { "the assistant" }
                ));
            }
            turns.push(json!({"role": role, "content": content}));
        }
        Ok((system, turns))
    }

    /// Whose turn a message is, as it says, and what is said.
    fn message(&self, message: Value) -> Result<(String, Value), String> {
        let Value::Object(mut fields) = message else {
            return Err(format!("has {} in the place of a message", kind(&message)));
        };
        let mut field = |name: &str| {
            let tag = self.tag(name).ok_or_else(|| format!("`tags` do not name `{name}`"))?;
            fields.remove(tag).ok_or_else(|| format!("has a message without `{tag}`, which `{name}` names"))
        };
        Ok((text("role", field("role_tag")?)?, field("content_tag")?))
    }

    fn role(&self, tag: &str) -> Result<&'static str, String> {
        let is = |name: &str| self.tag(name) == Some(tag);
        match () {
            () if is("user_tag") => Ok("user"),
            () if is("assistant_tag") => Ok("assistant"),
            () if is("observation_tag") => Ok("tool"),
            () if is("function_tag") => Err(format!(
                "has a turn of `{tag}`, a call whose text is LLaMA-Factory's templates' alone; give `tool_calls` in \
                 messages"
            )),
            () => Err(format!("has a turn of `{tag}`, which its entry's `tags` do not name")),
        }
    }

    /// A response of a pair: a text, or one message.
    fn response(&self, name: &str, value: Value) -> Result<Value, String> {
        match value {
            Value::String(_) => Ok(value),
            Value::Object(_) => {
                let (tag, content) = self.message(value)?;
                match self.role(&tag)? {
                    "assistant" => Ok(turn_of("assistant", content)),
                    _ => Err(format!("has `{name}` of `{tag}`, which is not the assistant")),
                }
            }
            other => Err(format!("has {} as {name}, not a text or a message", kind(&other))),
        }
    }
}

fn named<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs.iter().find(|(ours, _)| ours == name).map(|(_, theirs)| theirs.as_str())
}

fn turn(role: &str, content: String) -> Value {
    turn_of(role, content.into())
}

fn turn_of(role: &str, content: Value) -> Value {
    json!({"role": role, "content": content})
}

fn text(name: &str, value: Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(format!("has {} as its {name}, not a text", kind(&other))),
    }
}

/// Pairs of a question and an answer as turns.
fn history(value: Option<Value>) -> Result<Vec<Value>, String> {
    let wrong = || "has a history that is no list of pairs [question, answer]".to_owned();
    let Some(value) = value else { return Ok(Vec::new()) };
    let mut turns = Vec::new();
    for pair in value.as_array().ok_or_else(wrong)? {
        match pair.as_array().map(Vec::as_slice) {
            Some([Value::String(asked), Value::String(said)]) => {
                turns.push(turn("user", asked.clone()));
                turns.push(turn("assistant", said.clone()));
            }
            _ => return Err(wrong()),
        }
    }
    Ok(turns)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(said: &[(&str, &str)]) -> Option<Pairs> {
        Some(said.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect())
    }

    fn made(factory: &Factory, row: Value) -> Result<Value, String> {
        let Value::Object(row) = row else { panic!("no row") };
        factory.apply(row).map(Value::Object)
    }

    #[test]
    fn instructions() {
        let plain = Factory::new("alpaca", false, None, None).unwrap();
        let row = json!({"instruction": "Add", "input": "1+1", "output": "2", "system": "S"});
        let talk = json!([{"role": "user", "content": "Add\n1+1"}, {"role": "assistant", "content": "2"}]);
        assert_eq!(made(&plain, row.clone()).unwrap(), json!({"messages": talk}));
        // What `columns` does not name is not read: neither the input nor the system message.
        let some = pairs(&[("prompt", "instruction"), ("response", "output")]);
        let some = Factory::new("alpaca", false, some, None).unwrap();
        let got = made(&some, row).unwrap();
        assert_eq!(got["messages"][0]["content"], "Add");
        let ranked =
            pairs(&[("prompt", "q"), ("system", "s"), ("history", "h"), ("chosen", "c"), ("rejected", "r")]);
        let ranked = Factory::new("alpaca", true, ranked, None).unwrap();
        let got =
            made(&ranked, json!({"q": "Q", "s": "S", "h": [["a", "b"]], "c": "y", "r": "n", "query": "?"}))
                .unwrap();
        let asked = json!([
            {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "Q"}
        ]);
        assert_eq!(got, json!({"system": "S", "prompt": asked, "chosen": "y", "rejected": "n"}));
        let kto = pairs(&[("prompt", "instruction"), ("response", "output"), ("kto_tag", "label")]);
        let kto = Factory::new("alpaca", false, kto, None).unwrap();
        let got = made(&kto, json!({"instruction": "Q", "output": "y", "label": false})).unwrap();
        assert_eq!((&got["label"], &got["messages"][1]["content"]), (&json!(false), &json!("y")));
    }

    #[test]
    fn conversations() {
        let plain = Factory::new(
            "sharegpt",
            true,
            pairs(&[("messages", "conversations"), ("chosen", "c"), ("rejected", "r")]),
            None,
        );
        let row = json!({
            "conversations": [{"from": "system", "value": "S"}, {"from": "human", "value": "Q"}],
            "c": {"from": "gpt", "value": "y"}, "r": {"from": "gpt", "value": "n"},
        });
        let got = made(&plain.unwrap(), row).unwrap();
        let say = |text: &str| json!({"role": "assistant", "content": text});
        let asked = json!([{"role": "user", "content": "Q"}]);
        assert_eq!(got, json!({"system": "S", "prompt": asked, "chosen": say("y"), "rejected": say("n")}));
        let tags =
            pairs(&[("role_tag", "who"), ("content_tag", "says"), ("user_tag", "u"), ("assistant_tag", "a")]);
        let tagged = Factory::new("sharegpt", false, pairs(&[("messages", "talk")]), tags).unwrap();
        let talk = |tags: &[&str]| -> Value {
            let turns: Vec<Value> = tags.iter().map(|tag| json!({"who": tag, "says": "x"})).collect();
            json!({"talk": turns})
        };
        let got = made(&tagged, talk(&["u", "a"])).unwrap();
        assert_eq!(got["messages"][1], say("x"));
        let error = |tags: &[&str]| made(&tagged, talk(tags)).unwrap_err();
        assert!(error(&["a", "u"]).contains("a turn of `a` where the user is due"));
        // A tag that is not named is off, that of the system too.
        assert!(
            error(&["system", "u", "a"]).contains("a turn of `system`, which its entry's `tags` do not name")
        );
        assert!(error(&["u"]).contains("does not end with the assistant"));
    }

    #[test]
    fn mistakes_are_named() {
        let e = Factory::new("alpaca", false, pairs(&[("promt", "x")]), None).unwrap_err();
        assert!(e.starts_with("`columns` has `promt`"), "{e}");
        assert!(
            Factory::new("parquet", false, None, None).unwrap_err().contains("alpaca, sharegpt or openai")
        );
        let ranked = Factory::new("alpaca", true, pairs(&[("prompt", "q"), ("chosen", "c")]), None).unwrap();
        let e = made(&ranked, json!({"q": "Q", "c": "y"})).unwrap_err();
        assert_eq!(e, "has no rejected: its entry gives columns, and rejected is not among them");
        let e = made(&ranked, json!({"q": "Q"})).unwrap_err();
        assert_eq!(e, "has nothing in the column `c`, which its entry names as chosen");
    }
}
