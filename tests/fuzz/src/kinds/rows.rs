//! Files of rows, in every shape that `duel-data` reads.

use super::{any, file, template};
use crate::Files;
use duel_data::{Dataset, Options, Row, Task, Tokenizer, Truncation, Whole};
use duel_tests::TempDir;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::LazyLock;

/// Without a chat template, and with one.
static TOKENIZERS: LazyLock<[Tokenizer; 2]> = LazyLock::new(|| {
    let chat = template::with_template(
        "{{ bos_token }}{% if tools %}{{ tools | tojson }}{% endif %}{{ documents }}{% for m in messages %}\
         {{ m.name or m.role }} : {{ m.reasoning_content }} {{ m.tool_calls | tojson if m.tool_calls else m.content }} \
         {{ eos_token }}{% endfor %}\
         {% if add_generation_prompt %}assistant : {% endif %}",
    );
    let mut plain = chat.clone();
    plain.remove("chat_template.jinja");
    [plain, chat].map(|files| {
        let dir = TempDir::new().expect("room for a folder");
        crate::write(dir.path(), &files).expect("room for a tokenizer");
        Tokenizer::from_dir(dir.path()).expect("it is right")
    })
});

/// A file of each group of shapes, as `.jsonl` and as `.json`.
pub fn seeds() -> Vec<Files> {
    let jsonl =
        |rows: &Vec<Value>| file("rows.jsonl", rows.iter().map(|row| format!("{row}\n")).collect::<String>());
    let json = |rows: &Vec<Value>| file("rows.json", json!(rows).to_string());
    let shapes =
        [preference(), conversations(), ranking(), instructions(), supervised(), labelled(), fields()];
    shapes.iter().flat_map(|rows| [Files::from([jsonl(rows)]), Files::from([json(rows)])]).collect()
}

/// Loads the file for every task, with and without a chat template: right is what is right for one of them.
pub fn load(dir: &Path) -> Result<(), String> {
    let path = ["rows.jsonl", "rows.json"].map(|name| dir.join(name)).into_iter().find(|path| path.exists());
    let path = path.ok_or("no file of rows")?;
    let options = |task, all, truncation| {
        let whole = Whole { completions: all, conversations: all };
        Options { task, whole, max_length: Some(40), truncation }
    };
    let tasks = [
        options(Task::Sft, false, Truncation::KeepStart),
        options(Task::Sft, true, Truncation::KeepEnd),
        options(Task::Preference, false, Truncation::KeepEnd),
        options(Task::Unpaired, false, Truncation::KeepStart),
        options(Task::Reward, false, Truncation::KeepEnd),
    ];
    let mut results = Vec::new();
    for tokenizer in &*TOKENIZERS {
        for options in &tasks {
            let data = Dataset::load(&path, tokenizer, options);
            // A file of one prompt has none.
            if let Ok(data) = &data
                && let Ok(mismatched) = data.mismatched(2)
            {
                assert_eq!(mismatched.len(), data.len());
            }
            results.push(data.map(drop));
        }
    }
    any(results).map_err(|e| e.to_string())
}

/// A small data set of pairs.
pub fn pairs() -> Dataset {
    let options = Options {
        task: Task::Preference,
        whole: Whole::default(),
        max_length: None,
        truncation: Truncation::KeepStart,
    };
    let rows =
        [Row::plain("the film", [" is good", " is bad"]), Row::plain("a", [" great film", " bad film"])];
    Dataset::from_texts(rows, &TOKENIZERS[0], &options).expect("the rows are right")
}

fn say(role: &str, content: &str) -> Value {
    json!({"role": role, "content": content})
}

fn preference() -> Vec<Value> {
    vec![
        json!({"prompt": "the film", "chosen": " is good .", "rejected": " is bad ."}),
        json!({"prompt": "a </s>", "chosen": "é ▁ 👩", "rejected": " ", "score": 1.5, "note": null}),
        json!({"chosen": "\n\nHuman: hi\n\nAssistant: good", "rejected": "\n\nHuman: hi\n\nAssistant: bad"}),
        json!({"prompt": "", "chosen": "good", "rejected": "good", "margin": 0.5}),
    ]
}

fn conversations() -> Vec<Value> {
    let share = |from: &str, value: &str| json!({"from": from, "value": value});
    let parts = json!([{"type": "text", "text": "is it"}, {"type": "text", "text": " good ?"}]);
    vec![
        json!({
            "prompt": [say("system", "be kind"), say("user", "hi")],
            "chosen": [say("assistant", "good")], "rejected": [say("assistant", "bad")],
        }),
        json!({
            "chosen": [say("user", "hi"), say("assistant", "good")],
            "rejected": [say("user", "hi"), say("assistant", "bad"), say("user", "oh"), say("assistant", "ok")],
        }),
        json!({
            "conversations": [share("system", "be kind"), share("human", "hi")],
            "chosen": share("gpt", "good"), "rejected": share("gpt", "bad"),
        }),
        json!({
            "system": "be kind", "prompt": [{"role": "user", "content": parts}],
            "chosen": "good", "rejected": [say("assistant", "bad")], "chat_template_kwargs": {"enable_thinking": false},
        }),
    ]
}

fn ranking() -> Vec<Value> {
    vec![
        json!({"prompt": "the film", "responses": [" is great", " is good", " is bad", " is bad"]}),
        json!({"prompt": [say("user", "hi")], "responses": [[say("assistant", "good")], "bad"]}),
        json!({"prompt": "the film", "responses": [" is bad", " is good", " is ok"], "scores": [-1, 2.5, 2.5]}),
        json!({"prompt": "one", "responses": ["two"]}),
    ]
}

fn instructions() -> Vec<Value> {
    vec![
        json!({"instruction": "say", "input": "it", "output": "good", "history": []}),
        json!({"instruction": "say", "input": "", "output": "good", "system": "be kind"}),
        json!({"instruction": "say", "input": null, "chosen": "good", "rejected": "bad"}),
    ]
}

fn supervised() -> Vec<Value> {
    vec![
        json!({"prompt": "the film", "completion": " is good"}),
        json!({"text": "the film is good .", "label": 1}),
        json!({"messages": [say("user", "a"), say("assistant", "b"), say("user", "c"), say("assistant", "d")]}),
        json!({"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "good"}]}),
        json!({"prompt": [say("user", "hi")], "completion": [say("assistant", "good")], "images": null}),
    ]
}

fn labelled() -> Vec<Value> {
    vec![
        json!({"prompt": "the film", "completion": " is good", "label": true}),
        json!({"prompt": [say("user", "hi")], "completion": [say("assistant", "bad")], "label": false}),
        json!({"messages": [say("user", "hi"), say("assistant", "good"), say("user", "so")], "label": 1}),
        json!({"prompt": "the film", "chosen": " is good", "rejected": " is bad"}),
    ]
}

fn fields() -> Vec<Value> {
    vec![
        json!({"messages": [
            {"role": "user", "content": "hi", "name": "alex"},
            {"role": "assistant", "content": "good", "reasoning_content": "well", "tool_calls": null},
        ]}),
        json!({"tools": [], "messages": [
            say("user", "hi"), {"role": "assistant", "content": "now", "tool_calls": []},
            {"role": "tool", "content": "{}", "tool_call_id": "1"}, say("assistant", "good"),
        ]}),
        json!({"tools": [{"function": {"name": "f"}}], "documents": "[{\"text\": \"d\"}]", "messages": [
            say("user", "hi"), {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}]},
            say("tool", "2"), {"role": "assistant", "content": "good", "weight": 1, "thinking": "well"},
            {"role": "assistant", "content": "bad", "train": false},
        ], "chat_template_kwargs": {"depth": [1, {"a": null}]}}),
    ]
}
