//! Chat templates.

use super::{any, file};
use crate::Files;
use duel_data::{Context, Dataset, Message, Options, Row, Task, Tokenizer, Truncation, Whole};
use duel_experiments::grammar;
use serde_json::json;
use std::path::Path;

const TEMPLATES: [&str; 6] = [
    include_str!("templates/generation.jinja"),
    include_str!("templates/marks.jinja"),
    include_str!("templates/headers.jinja"),
    include_str!("templates/brackets.jinja"),
    include_str!("templates/tools.jinja"),
    include_str!("templates/thoughts.jinja"),
];

/// The grammar's tokenizer with each template.
pub fn seeds() -> Vec<Files> {
    TEMPLATES.map(with_template).to_vec()
}

/// A tokenizer's folder with this template.
pub fn with_template(template: &str) -> Files {
    let (tokenizer, config) = grammar::tokenizer_files();
    Files::from([
        file("tokenizer.json", tokenizer),
        file("tokenizer_config.json", config),
        file("chat_template.jinja", template),
    ])
}

/// Compiles the template and renders conversations with it, which are its choice; those of rows on other threads, whose
/// stacks are smaller.
pub fn load(dir: &Path) -> Result<(), String> {
    let tokenizer = Tokenizer::from_dir(dir).map_err(|e| e.to_string())?;
    let turn = |role: &str, content: &str| Message::new(role, content);
    let asked = [turn("user", "is it good ?")];
    let long = [
        turn("system", "be kind"),
        turn("user", "a <b> & 'c'\n"),
        turn("assistant", "<think>\nwell\n</think>\n\né {{ x }}"),
        turn("tool", "{\"a\": [1]}"),
        turn("user", ""),
    ];
    let answer = |content: &str| vec![turn("assistant", content)];
    let mut results = Vec::new();
    let tools =
        json!({"tools": [{"type": "function", "function": {"name": "f"}}], "documents": [{"text": "d"}]});
    let list = |name: &str| tools[name].as_array().cloned().unwrap_or_default();
    let given = Context { tools: list("tools"), documents: list("documents"), ..Context::default() };
    for (messages, context) in
        [(&asked[..], Context::default()), (&long, given), (&long[..3], Context::default())]
    {
        results.extend([true, false].map(|generate| tokenizer.chat(messages, generate, &context).map(drop)));
        let pair = Row::Chat {
            prompt: messages.to_vec(),
            responses: vec![answer("good"), answer("bad")],
            context: context.clone(),
        };
        let talk = Row::Talk { turns: [messages, &answer("good")].concat(), context };
        for (row, task) in [(pair, Task::Preference), (talk, Task::Sft)] {
            let options = Options {
                task,
                whole: Whole::default(),
                max_length: None,
                truncation: Truncation::KeepStart,
            };
            results.push(Dataset::from_texts([row], &tokenizer, &options).map(drop));
        }
    }
    any(results).map_err(|e| e.to_string())
}
