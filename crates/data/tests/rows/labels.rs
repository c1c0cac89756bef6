//! What rows say of their responses, and what the tasks make of it: with a tokenizer of one token a letter.

use crate::common::{CHAT, PREFERENCE, REWARD, SFT, TINY, Tiny, UNPAIRED, WHOLE, load, show};
use duel_data::{Builder, Dataset, Label, Labels, Options, Row, Tokenizer, Truncation};

/// The groups of a `.jsonl`, each with its labels.
fn groups(rows: &str, tok: &Tokenizer, opt: &Options) -> Vec<(Vec<String>, String)> {
    let data = load("rows.jsonl", rows, tok, opt).unwrap_or_else(|e| panic!("{rows}: {e}"));
    data.groups().map(|g| (show(g), said(g.labels()))).collect()
}

/// Labels in short.
fn said(labels: Labels<'_>) -> String {
    match labels {
        Labels::Ranked { margin: None } => "ranked".to_owned(),
        Labels::Ranked { margin: Some(margin) } => format!("by {margin}"),
        Labels::Scored(scores) => format!("{scores:?}"),
        Labels::Unpaired { desirable } => if desirable { "good" } else { "bad" }.to_owned(),
    }
}

fn group(parts: &[&str], said: &str) -> (Vec<String>, String) {
    (parts.iter().map(|&p| p.to_owned()).collect(), said.to_owned())
}

fn error(row: &str, opt: &Options) -> String {
    let tok = Tiny { template: Some(CHAT), ..TINY }.build();
    load("file.jsonl", row, &tok, opt).expect_err(row).to_string()
}

#[test]
fn margins() {
    let tok = TINY.build();
    let rows = r#"{"prompt": "Q", "chosen": "y", "rejected": "n", "margin": 0.5}
                  {"prompt": "Q", "chosen": "y", "rejected": "n"}
                  {"prompt": "Q", "responses": ["y", "n"], "margin": -2}
                  {"prompt": "Q", "chosen": "y", "rejected": "n", "margin": null}"#;
    let parts = ["^Q", "y$", "n$"];
    let want = ["by 0.5", "ranked", "by -2", "ranked"].map(|said| group(&parts, said));
    for opt in [PREFERENCE, REWARD] {
        assert_eq!(groups(rows, &tok, &opt), want);
    }
    let line = load("rows.jsonl", rows, &tok, &PREFERENCE).unwrap().report().to_string();
    assert!(line.contains("; 2 pairs have a margin") && !line.contains("not used"), "{line}");
    let supervised = load("rows.jsonl", rows, &tok, &SFT).unwrap();
    assert!(supervised.groups().all(|g| g.labels() == Labels::Ranked { margin: None }));
    assert!(supervised.report().to_string().ends_with("columns not used: `margin`"));

    for (row, opt, what) in [
        (
            r#"{"prompt": "Q", "chosen": "y", "rejected": "n", "margin": "1"}"#,
            PREFERENCE,
            "`margin` is a string",
        ),
        (r#"{"prompt": "Q", "responses": ["x", "y", "z"], "margin": 1}"#, REWARD, "`margin` and 3 responses"),
        (
            r#"{"prompt": "Q", "responses": ["x", "y"], "scores": [2, 1], "margin": 1}"#,
            PREFERENCE,
            "has `margin` and `scores`; keep one",
        ),
        (
            r#"{"prompt": "Q", "chosen": "y", "rejected": "n", "margin": 1}"#,
            UNPAIRED,
            "has a `margin`, which unpaired training cannot use",
        ),
        (
            r#"{"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "y"}], "label": 1, "margin": 1}"#,
            UNPAIRED,
            "has a `margin`, which unpaired training cannot use",
        ),
    ] {
        let e = error(row, &opt);
        assert!(e.contains("file.jsonl: row 1: ") && e.contains(what), "{row}: {e}");
    }
}

#[test]
fn scores() {
    let tok = TINY.build();
    let rows = r#"{"prompt": "Q", "responses": ["c", "d", "e"], "scores": [1, 3, -0.5]}
                  {"prompt": "Q", "responses": ["c", "c", "d"], "scores": [2, 1, 0]}
                  {"prompt": "Q", "responses": ["c", "d", "e", "f"], "scores": [1, 2, 1, 2]}
                  {"prompt": "Q", "responses": ["c", "d"], "scores": [4, 4]}
                  {"prompt": "Q", "responses": ["c", "d"]}"#;
    let want = [
        group(&["^Q", "d$", "c$", "e$"], "[3.0, 1.0, -0.5]"),
        // Nothing that has a score is dropped for being the same, ...
        group(&["^Q", "c$", "c$", "d$"], "[2.0, 1.0, 0.0]"),
        // ... nor for having the score of another.
        group(&["^Q", "d$", "f$", "c$", "e$"], "[2.0, 2.0, 1.0, 1.0]"),
        group(&["^Q", "c$", "d$"], "ranked"),
    ];
    for opt in [PREFERENCE, REWARD] {
        assert_eq!(groups(rows, &tok, &opt), want);
        let data = load("rows.jsonl", rows, &tok, &opt).unwrap();
        let report = data.report();
        assert_eq!((report.scored, report.tied, report.unranked), (3, 2, 1));
        assert_eq!((report.rows, report.groups, report.responses, report.duplicates), (5, 4, 12, 0));
        let line = report.to_string();
        for what in [
            "; 3 groups have scores",
            "; 1 rows dropped: all scores are the same",
            "; 2 pairs left out of the comparisons: both have the same score",
        ] {
            assert!(line.contains(what), "{line}");
        }
    }
    assert_eq!(groups(rows, &tok, &SFT)[0], group(&["^Q", "d$"], "ranked"));
    for (scores, what) in [
        ("[1]", "has 1 `scores` for 2 `responses`"),
        ("[1, null]", "`scores[1]` is null, not a number"),
        ("[1, \"2\"]", "`scores[1]` is a string, not a number"),
        ("2", "`scores` is a number, not a list"),
    ] {
        let row = format!(r#"{{"prompt": "Q", "responses": ["c", "d"], "scores": {scores}}}"#);
        let e = error(&row, &PREFERENCE);
        assert!(e.contains("file.jsonl: row 1: ") && e.contains(what), "{row}: {e}");
    }
}

#[test]
fn unpaired_rows() {
    let tok = Tiny { template: Some(CHAT), ..TINY }.build();
    let rows = r#"{"prompt": "Q", "completion": "y", "label": true}
                  {"prompt": "Q", "completion": "n", "label": 0}
                  {"instruction": "Q", "output": "y", "label": 1.0}
                  {"prompt": [{"role": "user", "content": "Q"}], "completion": [{"role": "assistant", "content": "n"}], "label": false}
                  {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "y"}, {"role": "user", "content": "R"}, {"role": "assistant", "content": "n"}, {"role": "user", "content": "S"}], "label": false}"#;
    let want = [
        group(&["^Q", "y$"], "good"),
        group(&["^Q", "n$"], "bad"),
        group(&["u:Q$a:", "y$"], "good"),
        group(&["u:Q$a:", "n$"], "bad"),
        group(&["u:Q$a:y$u:R$a:", "n$"], "bad"),
    ];
    assert_eq!(groups(rows, &tok, &UNPAIRED), want);
    let data = load("rows.jsonl", rows, &tok, &UNPAIRED).unwrap();
    assert_eq!((data.report().good, data.report().bad, data.report().turns_after), (2, 3, 1));
    assert!(data.report().to_string().contains("; 2 desirable, 3 undesirable"));
    for (row, what) in [
        (r#"{"prompt": "Q", "completion": "y"}"#, "has no `label`; unpaired training needs true (1)"),
        (r#"{"prompt": "Q", "completion": "y", "label": "good"}"#, "`label` is a string; "),
        (r#"{"prompt": "Q", "completion": "y", "label": 2}"#, "`label` is 2; "),
        (r#"{"completion": "y", "label": true}"#, "`prompt` is missing"),
        (r#"{"prompt": "Q", "completion": "", "label": false}"#, "`completion` is empty"),
        (r#"{"text": "y", "label": true}"#, "does not show where its response begins"),
        (r#"{"prompt": "Q", "responses": ["y", "n"]}"#, "a ranking says which is better, not which are good"),
        (
            r#"{"prompt": "Q", "chosen": "y", "rejected": "n", "label": true}"#,
            "has a `label` beside `chosen` and `rejected`",
        ),
        (
            r#"{"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "y", "weight": 0}], "label": true}"#,
            "marks its last assistant turn as not learned",
        ),
        (r#"{"messages": [{"role": "user", "content": "Q"}], "label": true}"#, "has no assistant turn"),
    ] {
        let e = error(row, &UNPAIRED);
        assert!(e.contains("file.jsonl: row 1: ") && e.contains(what), "{row}: {e}");
    }
    for opt in [PREFERENCE, REWARD] {
        let e = error(r#"{"prompt": "Q", "completion": "y", "label": true}"#, &opt);
        assert!(e.contains("unpaired (KTO) rows") && e.contains("--method kto"), "{e}");
    }
}

/// A pair is a good and a bad example: all good ones come first, and each side has its own boundary.
#[test]
fn pairs_are_unpaired() {
    let tok = TINY.build();
    let rows = r#"{"prompt": "xa", "chosen": "bc", "rejected": "d"}
                  {"prompt": "Q", "completion": "n", "label": false}
                  {"prompt": "R", "chosen": "y", "rejected": "y"}
                  {"chosen": "\n\nHuman: Q\n\nAssistant: y", "rejected": "\n\nHuman: Q\n\nAssistant:"}
                  {"chosen": "xab", "rejected": "xac"}"#;
    let human = "^\n\nHuman: Q\n\nAssistant:";
    let want = [
        group(&["^x", "@c$"], "good"),
        group(&["^Q", "n$"], "bad"),
        group(&["^R", "y$"], "good"),
        group(&[human, " y$"], "good"),
        group(&["^x", "@$"], "good"),
        group(&["^xa", "d$"], "bad"),
        group(&["^R", "y$"], "bad"),
        group(&[human, "$"], "bad"),
        group(&["^x", "ac$"], "bad"),
    ];
    assert_eq!(groups(rows, &tok, &UNPAIRED), want);
    let data = load("rows.jsonl", rows, &tok, &UNPAIRED).unwrap();
    assert_eq!(data.groups().map(|g| g.row).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 1, 3, 4, 5]);
    assert_eq!((data.report().rows, data.report().groups, data.report().boundary_moved), (9, 9, 1));
    let chat = Tiny { template: Some(CHAT), ..TINY }.build();
    let row = r#"{"chosen": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "y"}], "rejected": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "n"}]}"#;
    let want = [group(&["u:Q$a:", "y$"], "good"), group(&["u:Q$a:", "n$"], "bad")];
    assert_eq!(groups(row, &chat, &UNPAIRED), want);
    // A side that goes on with another turn does not take the generation prompt from the other one.
    let row = r#"{"prompt": [{"role": "user", "content": "Q"}], "chosen": "y", "rejected": [{"role": "user", "content": "R"}, {"role": "assistant", "content": "n"}]}"#;
    let want = [group(&["u:Q$a:", "y$"], "good"), group(&["u:Q$", "u:R$a:n$"], "bad")];
    assert_eq!(groups(row, &chat, &UNPAIRED), want);
    // From memory as from files.
    let data =
        Dataset::from_texts([Row::plain("Q", ["y", "n"]), Row::plain("R", ["y", "n"])], &tok, &UNPAIRED);
    let data = data.unwrap();
    assert_eq!(data.groups().map(|g| said(g.labels())).collect::<Vec<_>>(), ["good", "good", "bad", "bad"]);
    let e = Dataset::from_texts([Row::plain("Q", ["x", "y", "z"])], &tok, &UNPAIRED).unwrap_err();
    assert!(e.to_string().starts_with("row 1: has 3 response(s) that no label calls good or bad"), "{e}");
}

#[test]
fn lengths_of_unpaired_rows() {
    let tok = TINY.build();
    let rows = r#"{"prompt": "123", "completion": "vwxyz", "label": true}
                  {"prompt": "1234567", "completion": "y", "label": true}"#;
    let at = |truncation| groups(rows, &tok, &Options { max_length: Some(8), truncation, ..UNPAIRED });
    assert_eq!(at(Truncation::KeepStart), [group(&["^123", "vwxy"], "good")]);
    assert_eq!(at(Truncation::KeepEnd), [group(&["23", "vwxyz$"], "good")]);
}

/// A reward is read at the end of a response, which stays or the row goes.
#[test]
fn lengths_of_rewards() {
    let tok = TINY.build();
    let rows = r#"{"prompt": "12", "chosen": "vwxyz", "rejected": "n"}
                  {"prompt": "1", "chosen": "y", "rejected": "vwxyz"}
                  {"prompt": "1", "responses": ["y", "n", "tuvwxyz"]}
                  {"prompt": "1234567", "chosen": "y", "rejected": "n"}"#;
    let at = |max, truncation| {
        let data =
            load("r.jsonl", rows, &tok, &Options { max_length: Some(max), truncation, ..REWARD }).unwrap();
        let report = data.report();
        (
            data.groups().map(show).collect::<Vec<_>>(),
            report.too_long,
            report.truncated,
            report.prompt_too_long,
        )
    };
    let second = vec!["^1", "y$", "vwxyz$"];
    assert_eq!(at(8, Truncation::KeepStart), (owned(&[&second]), 3, 0, 0));
    let all =
        [vec!["12", "vwxyz$", "n$"], second, vec!["", "y$", "n$", "tuvwxyz$"], vec!["234567", "y$", "n$"]];
    assert_eq!(at(8, Truncation::KeepEnd), (owned(&all.iter().collect::<Vec<_>>()), 0, 3, 0));
    assert_eq!(at(7, Truncation::KeepEnd).1, 1);
    let line = load("r.jsonl", rows, &tok, &Options { max_length: Some(8), ..REWARD }).unwrap();
    assert!(line.report().to_string().contains("; 3 rows dropped: longer than max_length"));
}

fn owned(groups: &[&Vec<&str>]) -> Vec<Vec<String>> {
    groups.iter().map(|g| g.iter().map(|&p| p.to_owned()).collect()).collect()
}

#[test]
fn whole_sequences() {
    let tok = Tiny { template: Some(CHAT), ..TINY }.build();
    let talk = r#"{"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}, {"role": "assistant", "content": "y"}, {"role": "user", "content": "R"}]}"#;
    for (row, want) in [
        (r#"{"prompt": "xa", "completion": "by"}"#, "^x@y$"),
        (r#"{"text": "once"}"#, "^once$"),
        (r#"{"chosen": "xy", "rejected": "xz"}"#, "^xy$"),
        (r#"{"prompt": [{"role": "user", "content": "Q"}], "completion": "y"}"#, "u:Q$a:y$"),
        (talk, "s:S$u:Q$a:y$u:R$"),
        (r#"{"messages": [{"role": "user", "content": "Q"}]}"#, "u:Q$"),
    ] {
        assert_eq!(groups(row, &tok, &WHOLE), [group(&["", want], "ranked")], "{row}");
    }
    let data = load("w.jsonl", talk, &tok, &WHOLE).unwrap();
    let group = data.group(0);
    assert_eq!((group.given().count(), group.scored_of_best()), (0, group.tokens() - 1));
    for (truncation, want) in [(Truncation::KeepStart, "s:S$u:Q$"), (Truncation::KeepEnd, "a:y$u:R$")] {
        let data =
            load("w.jsonl", talk, &tok, &Options { max_length: Some(8), truncation, ..WHOLE }).unwrap();
        assert_eq!((show(data.group(0)), data.report().truncated), (vec![String::new(), want.to_owned()], 1));
    }
    let e = error(talk.replace("\"R\"", "\"R\", \"train\": false").as_str(), &WHOLE);
    assert!(e.contains("has a turn that is marked as not learned, and here every token is"), "{e}");
    let e = error(talk, &Options { max_length: Some(1), ..WHOLE });
    assert!(e.contains("the prompt alone fills max_length"), "{e}");
}

#[test]
fn labels_of_tokens() {
    let mut builder = Builder::new(&UNPAIRED);
    let good = Labels::Unpaired { desirable: true };
    builder.push_labelled(1, &[1], &[&[2]], good).unwrap();
    for (e, what) in [
        (builder.push(2, &[1], &[&[2]]), "that no label calls good or bad"),
        (builder.push_labelled(2, &[1], &[&[2], &[3]], good), "has 2 response(s)"),
    ] {
        let e = e.unwrap_err().to_string();
        assert!(e.starts_with("row 2: ") && e.contains(what), "{e}");
    }
    assert_eq!(builder.finish().unwrap().group(0).labels(), good);

    let mut builder = Builder::new(&PREFERENCE);
    let pair: [&[u32]; 2] = [&[2], &[3]];
    for (labels, what) in [
        (good, "the label of an unpaired response"),
        (Labels::Scored(&[1.0]), "has 1 scores for 2 responses"),
        (Labels::Scored(&[1.0, 2.0]), "best first"),
        (Labels::Scored(&[1.0, f64::NAN]), "not finite"),
        (Labels::Ranked { margin: Some(f64::INFINITY) }, "not finite"),
    ] {
        let e = builder.push_labelled(7, &[1], &pair, labels).unwrap_err().to_string();
        assert!(e.starts_with("row 7: ") && e.contains(what), "{e}");
    }
    builder.push_labelled(7, &[1], &pair, Labels::Scored(&[2.0, 1.0])).unwrap();
    builder.push(8, &[1], &pair).unwrap();
    builder.push_labelled(9, &[1], &pair, Labels::Ranked { margin: Some(0.25) }).unwrap();
    let data = builder.finish().unwrap();
    let all: Vec<_> = data.groups().map(|g| said(g.labels())).collect();
    assert_eq!(all, ["[2.0, 1.0]", "ranked", "by 0.25"]);

    // Supervised training learns nothing of a bad example.
    let tok = TINY.build();
    let rows = [true, false].map(|desirable| (Row::plain("Q", ["y"]), Label::Unpaired { desirable }));
    let data = Dataset::from_labelled(rows, &tok, &SFT).unwrap();
    assert_eq!((data.len(), data.report().undesirable), (1, 1));
}
