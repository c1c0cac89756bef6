//! Rows as axolotl's kinds of data sets for DPO make texts of them, whose form is hard-wired there.

use crate::message::kind as kind_of;
use serde_json::{Map, Value};

/// A kind of data set, by axolotl's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Axolotl {
    /// `chatml.NAME` or `llama3.NAME`.
    Turns {
        /// Which turns.
        wire: Wire,
        /// Which columns.
        kind: Kind,
    },
    /// `user_defined.default`: fields, and a format for each, in which `{prompt}`, `{system}`, `{chosen}` and
    /// `{rejected}` stand for them, and `{{` and `}}` for braces.
    Formats {
        /// The columns of prompt, system message and responses.
        fields: [String; 4],
        /// The formats of prompt and responses.
        formats: [String; 3],
    },
}

/// How turns are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// `<|im_start|>user`.
    ChatMl,
    /// `<|start_header_id|>user<|end_header_id|>`.
    Llama3,
}

/// Which columns hold what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The first of some that is there.
    Default,
    /// Columns of texts.
    Texts {
        /// The prompt's.
        prompt: &'static str,
        /// Those of the responses.
        responses: [&'static str; 2],
    },
    /// A text, and conversations whose second message is the response.
    Ultra,
    /// Conversations of two messages: the prompt and the response.
    Chat,
}

const PAIR: [&str; 2] = ["chosen", "rejected"];

const fn texts(prompt: &'static str, responses: [&'static str; 2]) -> Kind {
    Kind::Texts { prompt, responses }
}

const KINDS: [(&str, Kind); 7] = [
    ("default", Kind::Default),
    ("argilla", texts("instruction", ["chosen_response", "rejected_response"])),
    ("argilla_chat", Kind::Chat),
    ("icr", texts("input", PAIR)),
    ("intel", texts("question", PAIR)),
    ("prompt_pairs", texts("prompt", PAIR)),
    ("ultra", Kind::Ultra),
];

impl Axolotl {
    /// That of a `type` of axolotl's which is `chatml.NAME` or `llama3.NAME`.
    ///
    /// # Errors
    /// It is another.
    pub fn named(name: &str) -> Result<Self, String> {
        let (wire, of) = name.split_once('.').unwrap_or((name, "default"));
        let wire = match wire {
            "chatml" => Some(Wire::ChatMl),
            "llama3" => Some(Wire::Llama3),
            _ => None,
        };
        let kind = KINDS.iter().find(|(known, _)| *known == of).map(|(_, kind)| *kind);
        match wire.zip(kind) {
            Some((wire, kind)) => Ok(Axolotl::Turns { wire, kind }),
            None => Err(format!(
                "`type = {name}` is not read; of axolotl's kinds chatml.NAME and llama3.NAME are, of {}, \
                 chat_template.default, chat_template.argilla_chat and user_defined.default",
                KINDS.map(|(name, _)| name).join(", ")
            )),
        }
    }

    /// A row of texts.
    pub(super) fn apply(&self, mut row: Map<String, Value>) -> Result<Map<String, Value>, String> {
        let [prompt, chosen, rejected] = match self {
            Axolotl::Turns { wire, kind } => wire.write(*kind, &row)?,
            Axolotl::Formats { fields, formats } => {
                let [prompt, system, responses @ ..] = fields;
                let system = if formats[0].contains("{system}") { optional(&row, system)? } else { None };
                let asked = [("prompt", text(&row, prompt)?), ("system", system.unwrap_or_default())];
                let mut made = [filled(&formats[0], &asked)?, String::new(), String::new()];
                for (i, (field, name)) in responses.iter().zip(PAIR).enumerate() {
                    made[i + 1] = filled(&formats[i + 1], &[(name, text(&row, field)?)])?;
                }
                made
            }
        };
        row.retain(|name, _| name != "system");
        for (name, value) in [("prompt", prompt), ("chosen", chosen), ("rejected", rejected)] {
            row.insert(name.into(), value.into());
        }
        Ok(row)
    }
}

impl Wire {
    /// Prompt and responses of a row.
    fn write(self, kind: Kind, row: &Map<String, Value>) -> Result<[String; 3], String> {
        let first = |names: &[&'static str]| {
            let there = names.iter().find(|name| row.contains_key(**name));
            there.copied().unwrap_or(names[names.len() - 1])
        };
        let second = |name: &str| spoken(row, name, 1);
        let (asked, chosen, rejected) = match kind {
            Kind::Default => (
                text(row, first(&["prompt", "input", "question", "instruction"]))?,
                text(row, first(&["chosen", "chosen_response"]))?,
                text(row, first(&["rejected", "rejected_response"]))?,
            ),
            Kind::Texts { prompt, responses: [chosen, rejected] } => {
                (text(row, prompt)?, text(row, chosen)?, text(row, rejected)?)
            }
            Kind::Ultra => (text(row, "prompt")?, second("chosen")?, second("rejected")?),
            Kind::Chat => (spoken(row, "chosen", 0)?, second("chosen")?, second("rejected")?),
        };
        let system = match kind {
            Kind::Chat => None,
            _ => optional(row, "system")?.filter(|system| !system.is_empty()),
        };
        let (open, end) = match self {
            Wire::ChatMl => ("<|im_start|>assistant\n", "<|im_end|>"),
            Wire::Llama3 => ("<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"),
        };
        let turn = |role: &str, text: &str| match self {
            Wire::ChatMl => format!("<|im_start|>{role}\n{text}<|im_end|>\n"),
            Wire::Llama3 => format!("<|start_header_id|>{role}<|end_header_id|>\n\n{text}<|eot_id|>"),
        };
        let opening = system.map_or(String::new(), |system| turn("system", &system));
        let prompt = opening + &turn("user", &asked) + open;
        Ok([prompt, chosen + end, rejected + end])
    }
}

/// A format of Python's with texts in the place of their names.
fn filled(format: &str, texts: &[(&str, String)]) -> Result<String, String> {
    let (mut made, mut rest) = (String::new(), format);
    while let Some(at) = rest.find(['{', '}']) {
        made += &rest[..at];
        let (brace, behind) = rest[at..].split_at(1);
        if let Some(behind) = behind.strip_prefix(brace) {
            made += brace;
            rest = behind;
            continue;
        }
        let named = if brace == "{" { behind.split_once('}') } else { None };
        let known = |(name, behind)| Some((texts.iter().find(|(known, _)| *known == name)?, behind));
        let Some(((_, text), behind)) = named.and_then(known) else {
            let names: Vec<String> = texts.iter().map(|(name, _)| format!("{{{name}}}")).collect();
            return Err(format!(
                "has the format `{}`, in which a brace is none of {}; write {{{{ or }}}} for a brace itself",
                format.escape_debug(),
                names.join(", ")
            ));
        };
        made += text;
        rest = behind;
    }
    Ok(made + rest)
}

/// The text in a column that may be without one.
fn optional(row: &Map<String, Value>, name: &str) -> Result<Option<String>, String> {
    match row.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => Err(format!("has {} in the column `{name}`, not a text", kind_of(other))),
    }
}

fn text(row: &Map<String, Value>, name: &str) -> Result<String, String> {
    optional(row, name)?.ok_or_else(|| format!("has nothing in the column `{name}`, which its `type` reads"))
}

/// What message `at` of a conversation says.
fn spoken(row: &Map<String, Value>, name: &str, at: usize) -> Result<String, String> {
    let message = row.get(name).and_then(|list| list.get(at)).and_then(|message| message.get("content"));
    match message {
        Some(Value::String(text)) => Ok(text.clone()),
        _ => Err(format!(
            "has no message {} with a text in the column `{name}`, which its `type` reads",
            at + 1
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn made(kind: &Axolotl, row: Value) -> Result<[String; 3], String> {
        let Value::Object(row) = row else { panic!("no row") };
        let row = kind.apply(row)?;
        Ok(["prompt", "chosen", "rejected"].map(|name| row[name].as_str().unwrap().to_owned()))
    }

    /// As axolotl's `prompt_strategies/dpo` writes them.
    #[test]
    fn texts_are_axolotls() {
        let of = |name: &str, row: Value| made(&Axolotl::named(name).unwrap(), row).unwrap();
        let intel = json!({"system": "S", "question": "Q", "chosen": "y", "rejected": "n"});
        assert_eq!(
            of("chatml.intel", intel.clone()),
            [
                "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n",
                "y<|im_end|>",
                "n<|im_end|>"
            ]
        );
        assert_eq!(
            of("llama3.intel", json!({"system": "", "question": "Q", "chosen": "y", "rejected": "n"})),
            [
                "<|start_header_id|>user<|end_header_id|>\n\nQ<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
                "y<|eot_id|>",
                "n<|eot_id|>"
            ]
        );
        let asks = "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n";
        let talk =
            |text: &str| json!([{"role": "user", "content": "Q"}, {"role": "assistant", "content": text}]);
        for (name, row) in [
            ("argilla", json!({"instruction": "Q", "chosen_response": "y", "rejected_response": "n"})),
            ("argilla_chat", json!({"chosen": talk("y"), "rejected": talk("n")})),
            ("icr", json!({"input": "Q", "chosen": "y", "rejected": "n"})),
            ("prompt_pairs", json!({"prompt": "Q", "chosen": "y", "rejected": "n"})),
            ("ultra", json!({"prompt": "Q", "chosen": talk("y"), "rejected": talk("n")})),
            ("default", json!({"question": "Q", "chosen": "y", "rejected_response": "n"})),
        ] {
            assert_eq!(
                of(&format!("chatml.{name}"), row)[..],
                [asks, "y<|im_end|>", "n<|im_end|>"],
                "{name}"
            );
        }
        let said = |of: [&str; 3]| of.map(str::to_owned);
        let fields = ["q", "system", "chosen", "rejected"].map(str::to_owned);
        let own =
            Axolotl::Formats { fields, formats: said(["<{system}|{prompt}>", "{chosen}!", "{rejected}"]) };
        let got = made(&own, json!({"q": "Q", "system": "S", "chosen": "y", "rejected": "n"})).unwrap();
        assert_eq!(got, said(["<S|Q>", "y!", "n"]));
        // What stands in a row is not read as a format.
        let row = json!({"q": "{system} }", "system": "{prompt}", "chosen": "{chosen}", "rejected": "{x}"});
        assert_eq!(made(&own, row).unwrap(), said(["<{prompt}|{system} }>", "{chosen}!", "{x}"]));
    }

    /// Each is what Python's `str.format` makes of it.
    #[test]
    fn formats_are_pythons() {
        let of = |format: &str| filled(format, &[("prompt", "{Q}".into()), ("system", "S".into())]);
        for (format, made) in [
            ("{{prompt}} {prompt}", "{prompt} {Q}"),
            ("{{{prompt}}}{system}", "{{Q}}S"),
            ("é{{}}", "é{}"),
            ("", ""),
        ] {
            assert_eq!(of(format).as_deref(), Ok(made));
        }
        for format in ["{prompt", "prompt}", "{{prompt}", "{input}", "{}", "{ prompt }"] {
            let e = of(format).unwrap_err();
            let named =
                format!("has the format `{format}`, in which a brace is none of {{prompt}}, {{system}}; ");
            assert!(e.starts_with(&named) && e.ends_with("write {{ or }} for a brace itself"), "{e}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for name in ["zephyr.nectar", "chatml.other", "alpaca"] {
            assert!(Axolotl::named(name).unwrap_err().starts_with(&format!("`type = {name}` is not read")));
        }
        let e = made(&Axolotl::named("chatml.icr").unwrap(), json!({"chosen": "y", "rejected": "n"}));
        assert_eq!(e.unwrap_err(), "has nothing in the column `input`, which its `type` reads");
        let e = made(&Axolotl::named("chatml.ultra").unwrap(), json!({"prompt": "Q", "chosen": "y"}));
        assert!(e.unwrap_err().contains("no message 2 with a text in the column `chosen`"));
    }
}
