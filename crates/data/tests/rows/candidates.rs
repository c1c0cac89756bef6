//! Responses that are to be judged: every shape of row, what stays of it, what is refused, and which tokens are read.

use crate::common::{CHAT, Dir, PREFERENCE, REWARD, TINY, Tiny, ids};
use duel_data::{
    Answered, Asked, Builder, Candidates, Context, Dataset, Drawn, Files, Label, Message, Options, Result,
    Row, Truncation,
};
use serde_json::{Value, json};

/// The rows of a file of these.
fn candidates(rows: &[Value]) -> Result<Vec<Candidates>> {
    let dir = Dir::new();
    let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
    let path = dir.write("samples.jsonl", &text);
    let mut all = Vec::new();
    Candidates::each(&Files::from(&path), |row| {
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

/// A response of a text, whose tokens are those of `tokens`.
fn drawn<'a>(text: &'a str, tokens: &'a [u32], truncated: bool) -> Drawn<'a> {
    Drawn { text, tokens, truncated }
}

/// What follows the prompt of each response.
fn read(asked: &Asked, responses: &[Drawn<'_>], tok: &Tiny<'_>) -> Answered {
    asked.answered(responses, &tok.build()).unwrap()
}

#[test]
fn tokens_are_read_as_they_were_drawn() {
    let asked = Asked::Text("Q".into());
    // Two tokens where the tokenizer has one for the text.
    let (apart, cut) = (ids("ab$"), ids("ab"));
    let all =
        read(&asked, &[drawn("ab", &apart, false), drawn("ab", &cut, true), drawn("ab", &[], false)], &TINY);
    assert_eq!(all.prompt, ids("^Q"));
    assert_eq!(all.responses, [ids("ab$"), ids("ab"), vec![4, 2]]);
    assert_eq!(all.encoded_again, 0);
    let cut = read(&asked, &[drawn("ab", &[], true), drawn("", &[], true), drawn("", &[], false)], &TINY);
    assert_eq!((cut.responses, cut.encoded_again), (vec![vec![4], vec![], ids("$")], 0));

    // Another text, an end that is none here, and numbers of a larger vocabulary.
    let (other, endless, large) = (ids("ba$"), ids("ab"), [7000, 7001, 2]);
    let again = [&other[..], &endless, &large].map(|tokens| drawn("ab", tokens, false));
    let again = read(&asked, &again, &TINY);
    assert_eq!((again.responses, again.encoded_again), (vec![vec![4, 2]; 3], 3));

    // Encoded together a prompt and its response merge; drawn tokens do not.
    let (asked, b) = (Asked::Text("a".into()), ids("b$"));
    let all = read(&asked, &[drawn("b", &[], false), drawn("b", &b, false)], &TINY);
    assert_eq!((all.prompt, all.responses), (ids("^"), vec![vec![4, 2], ids("ab$")]));
}

/// Without tokens a response is read as in a row of training, however texts and turns end.
#[test]
fn texts_are_read_as_in_training() {
    let lines = &*CHAT.replace("{{ eos_token }}", "{{ eos_token }}\n");
    for tok in [TINY, Tiny { appends_eos: true, ..TINY }, Tiny { template: Some(lines), ..TINY }] {
        let turns = vec![Message::new("user", "Q")];
        let answers = ["ab", "c"];
        let (asked, row) = match tok.template {
            None => (Asked::Text("Q".into()), Row::plain("Q", answers)),
            Some(_) => {
                let responses = answers.map(|text| vec![Message::new("assistant", text)]).to_vec();
                let row = Row::Chat { prompt: turns.clone(), responses, context: Context::default() };
                (Asked::Chat(turns, Context::default()), row)
            }
        };
        let ds = Dataset::from_texts([row], &tok.build(), &REWARD).unwrap();
        let all = read(&asked, &answers.map(|text| drawn(text, &[], false)), &tok);
        assert_eq!(
            (&all.prompt[..], &all.responses[..]),
            (ds.group(0).prompt, &ds.group(0).responses().map(<[u32]>::to_vec).collect::<Vec<_>>()[..])
        );
        // What a template writes after a turn follows the tokens that were drawn; nothing follows a turn that was cut.
        let (ended, cut) = (ids("ab$"), ids("ab"));
        let all = read(&asked, &[drawn("ab", &ended, false), drawn("ab", &cut, true)], &tok);
        let end = if tok.template.is_some() { "ab$\n" } else { "ab$" };
        assert_eq!((&all.responses, all.encoded_again), (&vec![ids(end), ids("ab")], 0));
    }
    let asked = Asked::Text("Q".into());
    let endless = Tiny { eos: None, ..TINY }.build();
    let error = asked.answered(&[drawn("a", &[], false)], &endless).unwrap_err();
    assert!(error.contains("needs an EOS token"), "{error}");
    let error = Asked::Chat(Vec::new(), Context::default()).answered(&[], &TINY.build()).unwrap_err();
    assert!(error.contains("no chat template"), "{error}");
}

#[test]
fn every_response_that_is_to_be_judged_is_kept() {
    let options = Options { max_length: Some(4), truncation: Truncation::KeepEnd, ..REWARD };
    let mut builder = Builder::new(&options);
    builder.push_every(1, &[1, 5, 6], &[&[7], &[7], &[8, 9]]).unwrap();
    builder.push_every(2, &[1, 5], &[&[7]]).unwrap();
    let error = builder.push_every(3, &[1, 5], &[&[7], &[]]).unwrap_err().to_string();
    assert_eq!(error, "row 3: response 2 has no tokens");
    let ds = builder.finish().unwrap();
    assert_eq!(ds.report().truncated, 1);
    let group = ds.group(0);
    assert_eq!(group.prompt, [5, 6], "its start goes");
    assert_eq!(group.responses().collect::<Vec<_>>(), [&[7][..], &[7], &[8, 9]]);
    assert_eq!((ds.group(1).prompt, ds.group(1).responses().len()), (&[1, 5][..], 1));
    // Those that are compared are not.
    let mut builder = Builder::new(&PREFERENCE);
    builder.push(1, &[1], &[&[7], &[7], &[8]]).unwrap();
    assert_eq!(builder.finish().unwrap().group(0).responses().len(), 2);
}
