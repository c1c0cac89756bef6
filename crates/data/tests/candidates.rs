//! Files of responses that are to be judged: every shape of row, what stays of it, and what is refused.

mod common;

use common::Dir;
use duel_data::{Candidates, Label, Result};
use serde_json::{Value, json};

/// The rows of a file of these.
fn candidates(rows: &[Value]) -> Result<Vec<Candidates>> {
    let dir = Dir::new();
    let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
    let path = dir.write("samples.jsonl", &text);
    let mut all = Vec::new();
    Candidates::each(&path, |row| {
        all.push(row);
        Ok(())
    })?;
    Ok(all)
}

fn texts(row: &Candidates) -> Vec<&str> {
    row.responses.iter().map(|r| r.text.as_str()).collect()
}

#[test]
fn every_shape_has_its_responses() {
    let turn = |role: &str, text: &str| json!({"role": role, "content": text});
    let answer = |text: &str| turn("assistant", text);
    let rows = [
        json!({"prompt": "Q", "completions": [
            {"text": "a", "tokens": [5, 2], "logps": [-0.5, -0.1], "finish_reason": "stop"},
            {"text": "", "finish_reason": "stop"},
            {"text": "b", "finish_reason": "length"}
        ], "id": 7}),
        json!({"prompt": "Q", "responses": ["b", "a"]}),
        json!({"prompt": "Q", "responses": ["b", "a"], "scores": [1, 2], "judge": "old"}),
        json!({"prompt": "Q", "chosen": "a", "rejected": "b", "margin": 2}),
        json!({"chosen": "Q a", "rejected": "Q b"}),
        json!({"prompt": [turn("user", "Q")], "chosen": [answer("a")], "rejected": "b", "tools": [{"name": "f"}]}),
        json!({"chosen": [turn("user", "Q"), answer("a")], "rejected": [turn("user", "Q"), answer("b")], "system": "S"}),
    ];
    let all = candidates(&rows).unwrap();
    assert_eq!(all.iter().map(|r| r.row).collect::<Vec<_>>(), (1..=rows.len()).collect::<Vec<_>>());
    let [sampled, plain, scored, pair, whole, chat, system] = &all[..] else { panic!() };

    assert_eq!((texts(sampled), sampled.empty, &sampled.known), (vec!["a", "b"], 1, &None));
    assert_eq!(sampled.responses[0].tokens, [5, 2]);
    assert_eq!([0, 1].map(|i| sampled.responses[i].truncated), [Some(false), Some(true)]);
    assert_eq!(Value::Object(sampled.columns.clone()), json!({"id": 7}));
    assert_eq!(
        (sampled.prompt.clone(), &sampled.turns[..]),
        (Some(json!("Q")), &[(None, "Q".to_owned())][..])
    );

    assert_eq!((texts(plain), &plain.known, plain.responses[0].truncated), (vec!["b", "a"], &None, None));
    assert_eq!((texts(scored), &scored.known), (vec!["a", "b"], &Some(Label::Scored(vec![2.0, 1.0]))));
    assert!(scored.columns.is_empty(), "old verdicts go: {:?}", scored.columns);
    assert_eq!((texts(pair), &pair.known), (vec!["a", "b"], &Some(Label::Ranked { margin: Some(2.0) })));
    assert!(pair.columns.is_empty());
    assert_eq!((texts(whole), &whole.prompt, whole.turns.len()), (vec!["Q a", "Q b"], &None, 0));

    assert_eq!((texts(chat), chat.turns[0].clone()), (vec!["a", "b"], (Some("user".into()), "Q".into())));
    assert_eq!(chat.responses[1].said, json!([answer("b")]));
    assert_eq!(Value::Object(chat.columns.clone()), json!({"tools": [{"name": "f"}]}));
    assert_eq!(system.prompt, Some(json!([turn("system", "S"), turn("user", "Q")])));
}

#[test]
fn what_cannot_be_judged_is_an_error_that_names_it() {
    let call = json!({"role": "assistant", "tool_calls": [{"name": "f"}]});
    for (row, expected) in [
        (json!({"prompt": "Q"}), "row 1: has the columns `prompt`, and no responses to judge"),
        (json!({"prompt": "Q", "responses": []}), "has no responses to judge: their list is empty"),
        (json!({"prompt": "Q", "completions": "a"}), "`completions` is a string, not a list"),
        (json!({"prompt": "Q", "completions": ["a"]}), "`completions[0]` is a string, not {text"),
        (json!({"prompt": "Q", "completions": [{"tokens": [1]}]}), "`completions[0]` has no `text`"),
        (
            json!({"prompt": "Q", "completions": [{"text": "a", "finish_reason": "error"}]}),
            "finish_reason` is \"error\"",
        ),
        (
            json!({"prompt": "Q", "completions": [{"text": "a", "tokens": ["x"]}]}),
            "`completions[0].tokens` is no list",
        ),
        (
            json!({"prompt": "Q", "completions": [{"text": "a"}], "chosen": "b"}),
            "has `completions` and `chosen`; keep one",
        ),
        (json!({"prompt": "Q", "responses": ["a", "b"], "scores": [1]}), "has 1 `scores` for 2 `responses`"),
        (json!({"prompt": [{"role": "user", "content": "Q"}], "responses": [[call], "b"]}), "without text"),
        (json!(["a"]), "starts a JSON array"),
    ] {
        let error = candidates(std::slice::from_ref(&row)).unwrap_err().to_string();
        assert!(error.contains("samples.jsonl: ") && error.contains(expected), "{row}: {error}");
    }
    assert!(candidates(&[]).unwrap_err().to_string().contains("there are no rows to judge"));
}
