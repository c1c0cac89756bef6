//! Files of prompts: every shape of row, what goes on with it, and what is refused.

use crate::common::{CHAT, Dir, TINY, Tiny, ids};
use duel_data::{Files, Prompt, Prompts, Result, Tokenizer};
use serde_json::{Value, json};

/// The prompts of a file of these rows.
fn prompts(rows: &[Value], tok: &Tokenizer) -> Result<Vec<Prompt>> {
    let dir = Dir::new();
    let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
    let path = dir.write("prompts.jsonl", &text);
    let mut all = Vec::new();
    Prompts { files: &Files::from(&path), tokenizer: tok, as_messages: false }.each(|prompt| {
        all.push(prompt);
        Ok(())
    })?;
    Ok(all)
}

fn chat() -> Tokenizer {
    Tiny { template: Some(CHAT), ..TINY }.build()
}

fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

fn assistant(text: &str) -> Value {
    json!({"role": "assistant", "content": text})
}

/// Whatever a row says beside its prompt, the prompt is what training would have before a response.
#[test]
fn every_shape_has_its_prompt() {
    let plain = TINY.build();
    for row in [
        json!({"prompt": "Q:"}),
        json!({"prompt": "Q:", "chosen": "yes", "rejected": "no", "margin": 2}),
        json!({"prompt": "Q:", "responses": ["a", "b"], "scores": [1, 2]}),
        json!({"prompt": "Q:", "completion": "yes", "label": false}),
    ] {
        let all = prompts(std::slice::from_ref(&row), &plain).unwrap();
        assert_eq!((all[0].row, &all[0].tokens), (1, &ids("^Q:")), "{row}");
        assert_eq!(Value::Object(all[0].columns.clone()), json!({"prompt": "Q:"}), "{row}");
    }
    let harmless = "\n\nHuman: Q\n\nAssistant:";
    let row = json!({"chosen": format!("{harmless} yes"), "rejected": format!("{harmless} no")});
    assert_eq!(prompts(&[row], &plain).unwrap()[0].columns["prompt"], harmless);
    let row = json!({"instruction": "Add", "input": "1+1", "output": "2"});
    let text = "### Instruction:\nAdd\n\n### Input:\n1+1\n\n### Response:\n";
    assert_eq!(prompts(&[row], &plain).unwrap()[0].columns["prompt"], text);

    let tok = chat();
    for row in [
        json!({"prompt": [user("Q")]}),
        json!({"messages": [user("Q")]}),
        json!({"messages": [user("Q"), assistant("y")]}),
        json!({"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "y"}]}),
        json!({"instruction": "Q"}),
        json!({"prompt": "Q", "chosen": [assistant("y")], "rejected": [assistant("n")]}),
        json!({"chosen": [user("Q"), assistant("y")], "rejected": [user("Q"), assistant("n")]}),
        json!({"prompt": [user("Q")], "completion": "y"}),
    ] {
        let all = prompts(std::slice::from_ref(&row), &tok).unwrap();
        assert_eq!(all[0].tokens, ids("u:Q$a:"), "{row}");
        assert_eq!(Value::Object(all[0].columns.clone()), json!({"prompt": [user("Q")]}), "{row}");
    }
}

/// A row with responses to the prompt, which the columns make, is read as the row was; what else it says stays.
#[test]
fn what_goes_with_a_prompt_stays() {
    let tok = chat();
    let row = json!({
        "id": 7, "answer": "42", "system": "S", "prompt": [user("Q")], "tools": [{"name": "f"}],
        "chat_template_kwargs": {"think": true}, "documents": [], "note": null
    });
    let all = prompts(&[row], &tok).unwrap();
    let want = json!({
        "prompt": [{"role": "system", "content": "S"}, user("Q")], "id": 7, "answer": "42",
        "tools": [{"name": "f"}], "chat_template_kwargs": {"think": true}
    });
    assert_eq!(Value::Object(all[0].columns.clone()), want);
    assert_eq!(prompts(&[want], &tok).unwrap()[0].tokens, all[0].tokens);
}

#[test]
fn what_has_no_prompt_is_refused_by_its_row() {
    let plain = TINY.build();
    let bare = Tiny { bos: false, ..TINY }.build();
    let refused = |row: Value, tok: &Tokenizer, part: &str| {
        let error =
            prompts(&[json!({"prompt": "Q"}), row.clone()], tok).expect_err(&row.to_string()).to_string();
        assert!(error.contains("prompts.jsonl: row 2: ") && error.contains(part), "{row}: {error}");
    };
    refused(json!({"text": "once"}), &plain, "has the columns `text`, and no prompt");
    refused(json!({}), &plain, "no prompt");
    refused(json!(["Q"]), &plain, "is a list, not an object");
    refused(json!({"prompt": 7}), &plain, "`prompt` is a number");
    refused(json!({"prompt": ""}), &bare, "without a token");
    refused(json!({"prompt": []}), &chat(), "no turn that could be answered");
    refused(json!({"messages": [assistant("y")]}), &chat(), "no turn that could be answered");
    refused(json!({"prompt": [user("Q")]}), &plain, "chat template");
    refused(json!({"prompt": "Q", "images": ["x.png"]}), &plain, "`images`");
    refused(json!({"prompt": "Q", "system": "S"}), &plain, "has `system`, but no conversation");
    refused(json!({"chosen": "yes", "rejected": "no"}), &plain, "do not show where one ends");
    let error = prompts(&[], &plain).unwrap_err().to_string();
    assert!(error.contains("prompts.jsonl: there are no rows"), "{error}");
}

/// A stream is the file from some place on; its error comes in its place and ends it, and who leaves early does not
/// hang.
#[test]
fn a_stream_goes_on_where_it_is_told_to() {
    let (dir, tok) = (Dir::new(), TINY.build());
    let good: Vec<String> =
        (0..1000).map(|i| json!({"prompt": format!("Q{}", i % 10)}).to_string()).collect();
    let path =
        dir.write("prompts.jsonl", [&good.join("\n"), "\n{\"prompt\": 1}\n", &good.join("\n")].concat());
    let files = Files::from(&path);
    let file = Prompts { files: &files, tokenizer: &tok, as_messages: false };
    let rows: Vec<Result<usize>> = file.stream(990, |all| all.map(|p| p.map(|p| p.row)).collect());
    let (last, first) = rows.split_last().unwrap();
    assert_eq!(first.iter().flatten().copied().collect::<Vec<_>>(), (991..=1000).collect::<Vec<_>>());
    assert!(last.as_ref().unwrap_err().to_string().contains("row 1001"));
    assert_eq!(file.stream(0, |all| all.take(3).count()), 3);
}
