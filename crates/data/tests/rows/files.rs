//! Every shape of row, every rule about boundaries and lengths, every error: with a tokenizer of one token a letter.

use crate::common::{CHAT, Dir, PREFERENCE, SFT, TINY, Tiny, UNPAIRED, ids, load, show};
use duel_data::{
    Batch, Builder, Dataset, Error, Files, Form, Options, Part, Report, Row, Seen, Tokenizer, Truncation, Use,
};

fn chat() -> Tokenizer {
    Tiny { template: Some(CHAT), ..TINY }.build()
}

/// The only group of a one-row `.jsonl`.
fn one(row: &str, tok: &Tokenizer, opt: &Options) -> Vec<String> {
    let data = load("one.jsonl", row, tok, opt).unwrap_or_else(|e| panic!("{row}: {e}"));
    assert_eq!(data.len(), 1, "{row}");
    show(data.group(0))
}

fn error(row: &str, tok: &Tokenizer, opt: &Options) -> String {
    load("file.jsonl", row, tok, opt).expect_err(row).to_string()
}

#[test]
fn plain_preferences() {
    let tok = TINY.build();
    let row = r#"{"prompt": "Q:", "chosen": "yes", "rejected": "no", "score": 3, "note": null}"#;
    assert_eq!(one(row, &tok, &PREFERENCE), ["^Q:", "yes$", "no$"]);
    assert_eq!(one(row, &tok, &SFT), ["^Q:", "yes$"]);
    let ranked = r#"{"prompt": "Q:", "responses": ["a", "c", "d"]}"#;
    assert_eq!(one(ranked, &tok, &PREFERENCE), ["^Q:", "a$", "c$", "d$"]);
    let alpaca = r#"{"instruction": "Add", "input": "1+1", "chosen": "2", "rejected": "3"}"#;
    let prompt = "^### Instruction:\nAdd\n\n### Input:\n1+1\n\n### Response:\n";
    assert_eq!(one(alpaca, &tok, &PREFERENCE), [prompt, "2$", "3$"]);
}

#[test]
fn plain_supervised() {
    let tok = TINY.build();
    assert_eq!(one(r#"{"prompt": "Q:", "completion": "yes"}"#, &tok, &SFT), ["^Q:", "yes$"]);
    assert_eq!(one(r#"{"text": "once", "label": 0}"#, &tok, &SFT), ["^", "once$"]);
    let bare = Tiny { bos: false, ..TINY }.build();
    assert_eq!(one(r#"{"text": "once"}"#, &bare, &SFT), ["", "once$"]);
    let alpaca = r#"{"instruction": "Hi", "input": "", "output": "ho"}"#;
    assert_eq!(one(alpaca, &tok, &SFT), ["^### Instruction:\nHi\n\n### Response:\n", "ho$"]);
    assert_eq!(one(alpaca, &chat(), &SFT), ["u:Hi$a:", "ho$"]);
    // Verdicts: only the good examples are learned.
    let text = "{\"prompt\": \"Q\", \"completion\": \"y\", \"label\": true}\n{\"prompt\": \"Q\", \"completion\": \"n\", \"label\": false}";
    for text in [text.to_owned(), text.replace("true", "1").replace("false", "0")] {
        let data = load("kto.jsonl", &text, &tok, &SFT).unwrap();
        assert_eq!(
            (data.report().rows, data.report().undesirable, show(data.group(0))),
            (2, 1, vec!["^Q".into(), "y$".into()])
        );
    }
    // Any other label is a column that nothing reads.
    let class = r#"{"prompt": "Q", "completion": "y", "label": 3}"#;
    let data = load("class.jsonl", class, &tok, &SFT).unwrap();
    assert!(data.report().unused.contains("label"), "{:?}", data.report());
}

#[test]
fn conversations() {
    let tok = chat();
    let want = ["u:Q$a:", "y$", "n$"];
    for row in [
        // With a prompt: as messages, as a string, and as a string that the responses repeat.
        r#"{"prompt": [{"role": "user", "content": "Q"}], "chosen": [{"role": "assistant", "content": "y"}], "rejected": {"role": "assistant", "content": "n"}}"#,
        r#"{"prompt": [{"role": "user", "content": "Q"}], "chosen": "y", "rejected": "n"}"#,
        r#"{"prompt": "Q", "chosen": [{"role": "assistant", "content": "y"}], "rejected": [{"role": "assistant", "content": "n"}]}"#,
        r#"{"prompt": "Q", "chosen": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "y"}], "rejected": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "n"}]}"#,
        r#"{"prompt": [{"role": "user", "content": "Q"}], "chosen": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "y"}], "rejected": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "n"}]}"#,
        // Without.
        r#"{"chosen": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "y"}], "rejected": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "n"}]}"#,
        r#"{"conversations": [{"from": "human", "value": "Q"}], "chosen": {"from": "gpt", "value": "y"}, "rejected": {"from": "gpt", "value": "n"}}"#,
        r#"{"instruction": "Q", "chosen": "y", "rejected": "n"}"#,
        r#"{"prompt": [{"role": "user", "content": "Q"}], "responses": ["y", [{"role": "assistant", "content": "n"}]]}"#,
    ] {
        assert_eq!(one(row, &tok, &PREFERENCE), want, "{row}");
    }
    for row in [
        r#"{"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": [{"type": "text", "value": "Q"}]}, {"role": "assistant", "content": [{"type": "text", "text": "y"}]}, {"role": "user", "content": "thanks"}]}"#,
        r#"{"conversations": [{"from": "system", "value": "S"}, {"from": "human", "value": "Q"}, {"from": "gpt", "value": "y"}]}"#,
        r#"{"system": "S", "conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "y"}]}"#,
        r#"{"system": "S", "instruction": "Q", "output": "y"}"#,
        r#"{"prompt": [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}], "completion": [{"role": "assistant", "content": "y"}]}"#,
    ] {
        assert_eq!(one(row, &tok, &SFT), ["s:S$u:Q$a:", "y$"], "{row}");
    }
    // All earlier turns are context, also where one conversation ends before the other.
    let row = r#"{"chosen": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "y"}], "rejected": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "y"}, {"role": "user", "content": "R"}, {"role": "assistant", "content": "n"}]}"#;
    assert_eq!(one(row, &tok, &PREFERENCE), ["u:Q$a:", "y$", "y$u:R$a:n$"]);
}

#[test]
fn implicit_prompts() {
    let tok = TINY.build();
    let hh = r#"{"chosen": "\n\nHuman: Q?\n\nAssistant: It is 1.", "rejected": "\n\nHuman: Q?\n\nAssistant: It is 2."}"#;
    assert_eq!(one(hh, &tok, &PREFERENCE), ["^\n\nHuman: Q?\n\nAssistant:", " It is 1.$", " It is 2.$"]);
    let turns = r#"{"chosen": "\n\nHuman: Q?\n\nAssistant: 1\n\nHuman: R?\n\nAssistant: It", "rejected": "\n\nHuman: Q?\n\nAssistant: 1\n\nHuman: R?\n\nAssistant:"}"#;
    let prompt = "^\n\nHuman: Q?\n\nAssistant: 1\n\nHuman: R?\n\nAssistant:";
    assert_eq!(one(turns, &tok, &PREFERENCE), [prompt, " It$", "$"]); // HH has answers of nothing
    // "xa" is common text but not common tokens: "ab" is one token, and the boundary is never inside it.
    let merged = r#"{"chosen": "xab", "rejected": "xac"}"#;
    assert_eq!(one(merged, &tok, &PREFERENCE), ["^x", "@$", "ac$"]);
    // One text starts the other, EOS included.
    let nested = r#"{"chosen": "xy</s>", "rejected": "xy</s>z</s>"}"#;
    assert_eq!(one(nested, &tok, &PREFERENCE), ["^xy", "$", "$z$"]);
    assert_eq!(one(r#"{"chosen": "good", "rejected": "bad"}"#, &tok, &PREFERENCE), ["^", "good$", "bad$"]);
    // Identical whole texts have no boundary, for either task.
    let same = "{\"chosen\": \"same\", \"rejected\": \"same\"}\n{\"chosen\": \"xy\", \"rejected\": \"xz\"}";
    for (opt, want) in [(PREFERENCE, vec!["^x", "y$", "z$"]), (SFT, vec!["^x", "y$"])] {
        let data = load("same.jsonl", same, &tok, &opt).unwrap();
        assert_eq!((data.len(), data.report().identical, data.group(0).row), (1, 1, 2));
        assert_eq!(show(data.group(0)), want);
    }
}

#[test]
fn boundaries() {
    let tok = TINY.build();
    let data =
        load("b.jsonl", r#"{"prompt": "xa", "chosen": "bc", "rejected": "d"}"#, &tok, &PREFERENCE).unwrap();
    assert_eq!(show(data.group(0)), ["^x", "@c$", "ad$"]);
    assert_eq!(data.report().boundary_moved, 1);
    let line = data.report().to_string();
    assert!(line.contains("1 groups with the prompt boundary moved") && !line.contains("dropped"), "{line}");
    let data =
        load("b.jsonl", r#"{"prompt": "x", "chosen": "ab", "rejected": "d"}"#, &tok, &PREFERENCE).unwrap();
    assert_eq!(data.report().boundary_moved, 0);
}

#[test]
fn one_bos_and_one_eos() {
    let row = r#"{"prompt": "<s>Q", "chosen": "y</s>", "rejected": "n"}"#;
    for appends_eos in [false, true] {
        let tok = Tiny { appends_eos, ..TINY }.build();
        let data = load("e.jsonl", row, &tok, &PREFERENCE).unwrap();
        assert_eq!(show(data.group(0)), ["^Q", "y$", "n$"]);
        assert_eq!(data.report().boundary_moved, 0);
    }
    let bare = Tiny { bos: false, ..TINY }.build();
    assert_eq!(one(row, &bare, &PREFERENCE), ["^Q", "y$", "n$"]);
    let none =
        Tiny { eos: None, template: Some("{% for m in messages %}{{ m.content }}{% endfor %}"), ..TINY }
            .build();
    assert!(error(row, &none, &PREFERENCE).contains("row 1: needs an EOS token"));
    let talk = r#"{"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "y"}]}"#;
    assert_eq!(one(talk, &none, &SFT), ["Q", "y"]);
}

#[test]
fn lengths() {
    let tok = TINY.build();
    let rows = "{\"prompt\": \"123\", \"chosen\": \"vwxyz\", \"rejected\": \"n\"}\n\
                {\"prompt\": \"1234567\", \"chosen\": \"y\", \"rejected\": \"n\"}\n\
                {\"prompt\": \"1\", \"chosen\": \"y\", \"rejected\": \"n\"}\n";
    let at = |max, truncation| {
        load("l.jsonl", rows, &tok, &Options { max_length: Some(max), truncation, ..PREFERENCE }).unwrap()
    };
    let start = at(8, Truncation::KeepStart);
    assert_eq!(show(start.group(0)), ["^123", "vwxy", "n$"]);
    assert_eq!(show(start.group(1)), ["^1", "y$", "n$"]);
    let want = Report {
        rows: 3,
        groups: 2,
        responses: 4,
        tokens: 16,
        longest: 8,
        prompt_too_long: 1,
        truncated: 1,
        ..Report::default()
    };
    assert_eq!(*start.report(), want);
    let end = at(8, Truncation::KeepEnd);
    assert_eq!(show(end.group(0)), ["23", "vwxyz$", "n$"]);
    assert_eq!((end.report().truncated, end.report().longest), (1, 8));
    let end = at(5, Truncation::KeepEnd);
    assert_eq!(show(end.group(0)), ["3", "vwxy", "n$"]);
    assert_eq!(at(10, Truncation::KeepStart).report().truncated, 0);
    // Long responses that differ only past the cut are identical.
    let opt = Options { max_length: Some(4), ..PREFERENCE };
    let e = error(r#"{"prompt": "1", "chosen": "abcx", "rejected": "abcy"}"#, &tok, &opt);
    assert!(
        e.contains("no row is left to train on: 1 rows")
            && e.contains("1 rows dropped: the responses are identical"),
        "{e}"
    );
}

#[test]
fn duplicates() {
    let tok = TINY.build();
    let rows = "{\"prompt\": \"Q\", \"responses\": [\"a\", \"c\", \"a\", \"d\"]}\n{\"prompt\": \"Q\", \"responses\": [\"a\", \"a\"]}";
    let data = load("d.jsonl", rows, &tok, &PREFERENCE).unwrap();
    assert_eq!(show(data.group(0)), ["^Q", "a$", "c$", "d$"]);
    assert_eq!((data.len(), data.report().duplicates, data.report().identical), (1, 1, 1));
}

/// A column that nothing uses is named once.
#[test]
fn unused_columns_are_named() {
    let tok = TINY.build();
    let rows = "{\"prompt\": \"Q\", \"chosen\": \"y\", \"rejected\": \"n\", \"score\": 1, \"weight\": 1, \"train\": true}\n\
                {\"prompt\": \"Q\", \"chosen\": \"y\", \"rejected\": \"n\", \"functions\": [1], \"tags\": [], \"note\": null}";
    let data = load("u.jsonl", rows, &tok, &PREFERENCE).unwrap();
    let line = data.report().to_string();
    assert!(line.ends_with("; columns not used: `functions`, `score`"), "{line}");
}

#[test]
fn rows_keep_their_numbers_and_order() {
    let tok = TINY.build();
    let count = 2500; // more than are tokenised together
    let lines: Vec<String> =
        (0..count).map(|i| format!("{{\"prompt\": \"{i}\", \"completion\": \"x{i}\"}}")).collect();
    // Blank lines, a byte-order mark and Windows line ends: rows are lines of a .jsonl ...
    let data = load("n.jsonl", format!("\u{feff}{}\r\n", lines.join("\r\n\r\n")), &tok, &SFT).unwrap();
    assert_eq!(data.len(), count);
    for (i, group) in data.groups().enumerate() {
        assert_eq!((group.row, show(group)), (2 * i + 1, vec![format!("^{i}"), format!("x{i}$")]));
    }
    // ... and elements of a .json.
    let array = load("n.json", format!(" [{}]\n", lines.join(",\n\n")), &tok, &SFT).unwrap();
    assert_eq!(array.tokens(), data.tokens());
    assert!(array.groups().enumerate().all(|(i, g)| g.row == i + 1));
    assert_eq!(data.max_token(), ids("x")[0]);
}

#[test]
fn errors_of_rows() {
    let tok = chat();
    let good = r#"{"prompt": "Q", "chosen": "y", "rejected": "n"}"#;
    for (bad, what) in [
        (r#"{"prompt": "Q", "chosen": "", "rejected": "n"}"#, "`chosen` is empty; "),
        (r#"{"prompt": "Q", "chosen": [], "rejected": "n"}"#, "`chosen` is empty; "),
        (
            r#"{"prompt": "Q", "chosen": "y", "rejected": [{"role": "assistant", "content": ""}]}"#,
            "`rejected` is empty; ",
        ),
        (r#"{"prompt": "Q", "responses": ["y", ""]}"#, "`responses[1]` is empty; "),
        (r#"{"prompt": "Q", "chosen": "y"}"#, "`rejected` is missing"),
        (r#"{"prompt": null, "chosen": "y", "rejected": "n"}"#, "`prompt` is null; remove the row"),
        (r#"{"prompt": null, "responses": ["y", "n"]}"#, "`prompt` is null; remove the row"),
        (r#"{"prompt": "Q", "chosen": "y", "rejected": 3}"#, "`rejected` is a number"),
        (r#"{"prompt": {"text": "Q"}, "chosen": "y", "rejected": "n"}"#, "`prompt` has no text `role`"),
        (r#"{"prompt": [], "chosen": "y", "rejected": "n"}"#, "`prompt` is an empty list"),
        (r#"{"prompt": ["Q"], "chosen": "y", "rejected": "n"}"#, "`prompt[0]` is a string, not a message"),
        (
            r#"{"prompt": [{"role": "user", "content": null}], "chosen": "y", "rejected": "n"}"#,
            "`prompt[0]` has no `content`, or null",
        ),
        (
            r#"{"prompt": [{"role": "user", "content": [{"type": "image"}]}], "chosen": "y", "rejected": "n"}"#,
            "only text is supported",
        ),
        (
            r#"{"prompt": [{"role": "user", "content": "Q", "tool_calls": [1]}], "chosen": "y", "rejected": "n"}"#,
            "`tool_calls`",
        ),
        (
            r#"{"conversations": [{"from": "alien", "value": "Q"}], "chosen": "y", "rejected": "n"}"#,
            "`alien`",
        ),
        (
            r#"{"question": "Q", "chosen": "y", "rejected": "n"}"#,
            "if one of `question` is the prompt, rename it",
        ),
        (
            r#"{"chosen": [{"role": "assistant", "content": "y"}], "rejected": [{"role": "assistant", "content": "n"}]}"#,
            "give `prompt`",
        ),
        (r#"{"prompt": "Q", "responses": "y"}"#, "`responses` is a string"),
        (r#"{"prompt": "Q", "responses": ["y"]}"#, "has 1 response(s)"),
        (r#"{"prompt": "Q", "responses": []}"#, "has 0 response(s)"),
        (r#"{"prompt": "Q", "completion": "y"}"#, "has one response (`completion`)"),
        (r#"{"messages": []}"#, "has one response (`messages`)"),
        (r#"{"prompt": "Q", "completion": "y", "label": true}"#, "unpaired (KTO)"),
        (
            r#"{"question": "Q", "answer": "y"}"#,
            "has the columns `question`, `answer`; none of the accepted shapes fits: {prompt, chosen, rejected}",
        ),
        (r#"{"prompt": "Q", "chosen": "y", "rejected": "n", "tools": [{}]}"#, "has `tools`"),
        (r#"["Q", "y", "n"]"#, "is a list, not an object"),
        (
            r#"{"prompt": "Q", "chosen": "y" "rejected": "n"}"#,
            "is broken JSON: expected `,` or `}` (column 31)",
        ),
        ("{\"prompt\": \"\u{0}\"}", "is broken JSON"),
    ] {
        let e = error(&format!("{good}\n\n{bad}\n"), &tok, &PREFERENCE);
        assert!(e.contains("file.jsonl: row 3: ") && e.contains(what), "{bad}: {e}");
    }
    for (bad, what) in [
        (r#"{"prompt": "Q", "completion": ""}"#, "`completion` is empty; "),
        (r#"{"completion": "y"}"#, "`prompt` is missing; the columns are `completion`"),
        (r#"{"text": ""}"#, "`text` is empty"),
        (r#"{"text": ["y"]}"#, "`text` is a list"),
        (r#"{"instruction": 3, "output": "y"}"#, "`instruction` is a number"),
        (r#"{"messages": [{"role": "user", "content": "Q"}]}"#, "no assistant turn"),
        (r#"{"messages": [{"role": "assistant", "content": "y"}]}"#, "needs a turn before it"),
        (
            r#"{"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": ""}]}"#,
            "`messages` is empty in its last",
        ),
        (r#"{"messages": "Q"}"#, "`messages` is a string, not a list"),
    ] {
        let e = error(bad, &tok, &SFT);
        assert!(e.contains("file.jsonl: row 1: ") && e.contains(what), "{bad}: {e}");
    }
    let e = error(
        r#"{"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "y"}]}"#,
        &TINY.build(),
        &SFT,
    );
    assert!(e.contains("file.jsonl: row 1: the tokenizer has no chat template"), "{e}");
    let strict = Tiny { template: Some("{{ raise_exception('only poems') }}"), ..TINY }.build();
    assert!(error(r#"{"instruction": "Q", "output": "y"}"#, &strict, &SFT).contains("only poems"));
}

#[test]
fn errors_of_files() {
    let tok = TINY.build();
    let row = r#"{"prompt": "Q", "chosen": "y", "rejected": "n"}"#;
    let lines = format!("{row}\n{row}\n");
    for (name, text, what) in [
        ("f.yaml", "a,b", "f.yaml: is none of .jsonl"),
        (
            "f.json",
            lines.as_str(),
            "f.json: holds objects, not an array; name a file with one object per line .jsonl",
        ),
        (
            "f.jsonl",
            "[\n{}\n]",
            "f.jsonl: row 1: starts a JSON array; name a file that holds one array .json",
        ),
        ("f.json", "\"text\"", "f.json: is not an array of objects"),
        ("f.json", "", "f.json: is not an array of objects"),
        ("f.json", "[]", "f.json: there are no rows to train on"),
        ("f.jsonl", "\n\n", "f.jsonl: there are no rows to train on"),
        (
            "f.json",
            &format!("[{row}, {row}, {{\"prompt\" 3}}]"),
            "f.json: row 3: is broken JSON: expected `:`",
        ),
        ("f.json", &format!("[{row}, {row}"), "f.json: row 3: is broken JSON: EOF"),
        (
            "f.json",
            &format!("[{row}, {{\"prompt\": 3, \"chosen\": \"y\", \"rejected\": \"n\"}}]"),
            "f.json: row 2: `prompt` is a number",
        ),
        ("f.json", &format!("[{row}] {row}"), "broken JSON: trailing characters"),
        // What a file is that is none of these, and what to do with it.
        (
            "f.json",
            &format!("{{\"v\": 1, \"data\": [{row}]}}"),
            "the rows lie under `data`; the file must be the array itself",
        ),
        (
            "f.jsonl",
            &format!("{{\"v\": 1, \"data\": [{row}]}}"),
            "f.jsonl: row 1: is no row: the rows lie under `data`",
        ),
        (
            "f.json",
            "{\n  \"prompt\": \"Q\"\n}",
            "holds one object, not an array of objects: put [ and ] around it",
        ),
        (
            "f.jsonl",
            "{\n  \"prompt\": \"Q\"\n}",
            "row 1: is broken JSON: it ends in the middle; a .jsonl has one whole object in each line",
        ),
        (
            "f.jsonl",
            &format!("{row}\n{{\"prompt\": NaN}}"),
            "row 2: is broken JSON: NaN and Infinity are no JSON",
        ),
        ("f.jsonl", "{\"prompt\": -Infinity}", "NaN and Infinity are no JSON"),
        (
            "f.json",
            &format!("[{row},\n{row},\n  {{\"prompt\": NaN}}]"),
            "row 3: is broken JSON: NaN and Infinity are no JSON",
        ),
        ("f.jsonl", "{'prompt': 'Q'}", "that is Python, not JSON"),
        ("f.jsonl", "{\"prompt\": None}", "that is Python, not JSON"),
        ("f.jsonl", "{}", "row 1: has no columns; a row is {prompt, chosen, rejected}"),
        ("f.jsonl", "<!DOCTYPE html>", "is a web page or XML"),
        ("f.json", "version https://git-lfs.github.com/spec/v1\noid sha256:1", "is a Git LFS pointer"),
    ] {
        let e = load(name, text, &tok, &PREFERENCE).expect_err(text).to_string();
        assert!(e.contains(what), "{text}: {e}");
    }
    let utf16 = |swap: bool, mark: bool| -> Vec<u8> {
        let units = mark.then_some(0xFEFF).into_iter().chain(row.encode_utf16());
        units.flat_map(|u| if swap { u.to_be_bytes() } else { u.to_le_bytes() }).collect()
    };
    for (bytes, what) in [
        (utf16(false, true), "is UTF-16"),
        (utf16(true, true), "is UTF-16"),
        (utf16(false, false), "is UTF-16"),
        (utf16(true, false), "is UTF-16"),
        (b"\x1f\x8b\x08\0".to_vec(), "is compressed"),
        (b"PAR1\x15".to_vec(), "is a Parquet file"),
        (b"{\"prompt\": \"caf\xe9\"}".to_vec(), "row 1: is not UTF-8 (byte 16 of the line)"),
    ] {
        let e = load("f.jsonl", &bytes, &tok, &PREFERENCE).unwrap_err().to_string();
        assert!(e.contains(what), "{bytes:?}: {e}");
    }
    let missing = Dataset::load("nowhere.jsonl", &tok, &PREFERENCE).unwrap_err();
    assert!(missing.to_string().starts_with("nowhere.jsonl: "), "{missing}");
}

/// How far it is can be watched, and the work be stopped.
#[test]
fn loading_is_watched() {
    let (dir, tok) = (Dir::new(), TINY.build());
    let row = format!("{{\"prompt\": \"Q\", \"completion\": \"{}\"}}\n", "y".repeat(500));
    let path = dir.write("long.jsonl", row.repeat(1000));
    let mut heard = Vec::new();
    let data = Dataset::load_watched(&Files::from(&path), &tok, &SFT, None, &mut |at| {
        heard.push(at);
        true
    });
    assert_eq!(data.unwrap().len(), 1000);
    assert!(heard.len() > 2 && heard.is_sorted_by(|a, b| a.bytes < b.bytes && a.rows <= b.rows), "{heard:?}");
    assert!(heard.iter().all(|at| at.total == 1000 * row.len() as u64 && at.bytes <= at.total));
    let stopped = Dataset::load_watched(&Files::from(&path), &tok, &SFT, None, &mut |_| false).unwrap_err();
    assert!(stopped.to_string().contains("was stopped"));
}

#[test]
fn rows_from_memory() {
    let tok = TINY.build();
    let rows = || [Row::plain("Q:", ["y", "n"]), Row::plain("R:", ["1", "2"])];
    let data = Dataset::from_texts(rows(), &tok, &PREFERENCE).unwrap();
    assert_eq!(show(data.group(1)), ["^R:", "1$", "2$"]);
    let e = Dataset::from_texts(rows().into_iter().chain([Row::plain("S", ["y", ""])]), &tok, &PREFERENCE);
    assert_eq!(e.unwrap_err().to_string(), "row 3: response 2 is empty");
    assert!(matches!(Dataset::from_texts([], &tok, &SFT), Err(Error::Empty { file: None, .. })));

    let mut builder = Builder::new(&PREFERENCE);
    assert_eq!(
        builder.push(4, &[1], &[&[2], &[]]).unwrap_err().to_string(),
        "row 4: response 2 has no tokens"
    );
    assert!(builder.push(5, &[1], &[&[2]]).is_err());
    builder.push(6, &[], &[&[7], &[8, 9]]).unwrap();
    let data = builder.finish().unwrap();
    assert_eq!((data.report().rows, data.max_token()), (1, 9));
    // An empty prompt has no segment.
    let batch = Batch::new(&data, &[0]);
    assert_eq!((batch.segments.len(), batch.groups[0].responses.clone()), (2, 0..2));
}

/// What becomes of the tokens of a row's only group: `.` context, `+` scored, `x` cut off.
fn uses(row: &str, tok: &Tokenizer, opt: &Options) -> Vec<String> {
    let seen = Seen::of(1, serde_json::from_str(row).unwrap(), tok, opt);
    assert_eq!(seen.refused, None, "{row}");
    let mark = |part: &Part| -> String {
        let mark = |of: &Use| match of {
            Use::Context => '.',
            Use::Scored => '+',
            Use::Cut => 'x',
        };
        part.uses.iter().map(mark).collect()
    };
    let parts = seen.parts();
    parts.iter().flat_map(|(prompt, rest)| std::iter::once(prompt).chain(rest)).map(mark).collect()
}

#[test]
fn what_becomes_of_every_token_is_seen() {
    let (tok, talks) = (TINY.build(), chat());
    let cut = |max_length, truncation, opt| Options { max_length: Some(max_length), truncation, ..opt };
    let pair = r#"{"prompt": "Q:", "chosen": "yes", "rejected": "no"}"#;
    assert_eq!(uses(pair, &tok, &PREFERENCE), ["...", "++++", "+++"]);
    assert_eq!(uses(pair, &tok, &cut(6, Truncation::KeepStart, PREFERENCE)), ["...", "+++x", "+++"]);
    assert_eq!(uses(pair, &tok, &cut(6, Truncation::KeepEnd, PREFERENCE)), ["x..", "++++", "+++"]);
    assert_eq!(uses(pair, &tok, &cut(4, Truncation::KeepEnd, PREFERENCE)), ["xx.", "+++x", "+++"]);
    assert_eq!(uses(pair, &tok, &cut(3, Truncation::KeepStart, PREFERENCE)), ["xxx", "xxxx", "xxx"]);
    assert_eq!(uses(pair, &tok, &UNPAIRED), ["...", "++++", "...", "+++"]);
    // The same once they are cut: one of three is left out.
    let ranked = r#"{"prompt": "Q:", "responses": ["yes", "yet", "no"]}"#;
    assert_eq!(
        uses(ranked, &tok, &cut(5, Truncation::KeepStart, PREFERENCE)),
        ["...", "++xx", "++xx", "++x"]
    );
    // Nothing is before the first token of a text without a prompt.
    let bare = Tiny { bos: false, ..TINY }.build();
    assert_eq!(uses(r#"{"text": "once"}"#, &bare, &SFT), ["", ".++++"]);
    // Turns of others are read; a window at the end begins within the first turn.
    let talk = r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
                   {"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}]}"#;
    assert_eq!(uses(talk, &talks, &SFT), ["......", "++......++"]);
    assert_eq!(uses(talk, &talks, &cut(9, Truncation::KeepEnd, SFT)), ["xxxxxx", "x.......++"]);
}

#[test]
fn rows_are_seen_one_by_one() {
    let tok = TINY.build();
    let rows = r#"{"prompt": "Q", "chosen": "y", "rejected": "n", "source": "s"}
                  {"prompt": "Q", "chosen": "", "rejected": "n"}

                  {"prompt": "Q", "chosen": "y", "rejected": "y"}
                  {"prompt": "Q", "chosen": "abcd", "rejected": "n"}"#;
    let dir = Dir::new();
    let path = dir.write("rows.jsonl", rows);
    let opt = Options { max_length: Some(3), ..PREFERENCE };
    let mut all = Vec::new();
    Seen::each(&Files::from(&path), &tok, &opt, 1, |seen, _| {
        all.push(seen);
        true
    })
    .unwrap();
    assert_eq!(all.iter().map(|seen| seen.row).collect::<Vec<_>>(), [1, 2, 4, 5]);
    assert!(all[1].refused.as_ref().is_some_and(|why| why.starts_with("`chosen` is empty")));
    assert!(all[2].kept.is_none() && all[2].whole.is_none());
    let mut report = Report::default();
    all.iter().for_each(|seen| report.add(&seen.report));
    let clean: String = rows.lines().filter(|line| !line.contains("\"\"") && !line.is_empty()).collect();
    let clean = clean.replace("}  ", "}\n");
    assert_eq!(&report, load("rows.jsonl", clean, &tok, &opt).unwrap().report());
    // From a row on, and no further than is asked for.
    let mut first = None;
    Seen::each(&Files::from(&path), &tok, &opt, 3, |seen, _| {
        first = Some(seen.row);
        false
    })
    .unwrap();
    assert_eq!(first, Some(4));
    // Columns by other names: the row that lacks one is refused as it lies, and those behind it are seen.
    let rows = r#"{"q": "Q", "chosen": "y", "rejected": "n"}
                  {"chosen": "y", "rejected": "n"}
                  {"q": "Q", "chosen": "z", "rejected": "n"}"#;
    let path = dir.write("named.jsonl", rows);
    let named = Files::from(&path).in_form(Form::Named("prompt=q".parse().unwrap()));
    let mut all = Vec::new();
    Seen::each(&named, &tok, &PREFERENCE, 1, |seen, _| {
        all.push(seen);
        true
    })
    .unwrap();
    assert!(all[0].kept.is_some() && all[2].kept.is_some());
    assert!(all[1].refused.as_ref().is_some_and(|why| why.contains("`q`")), "{:?}", all[1].refused);
    assert_eq!(all[1].columns["chosen"], "y");
}

#[test]
fn every_token_has_a_piece() {
    let tok = TINY.build();
    assert_eq!(tok.pieces(&ids("^a b$")).unwrap(), ["<s>", "a", " ", "b", "</s>"]);
    assert_eq!(tok.pieces(&[4, 9999]).unwrap(), ["ab", "<9999>"]);
}
