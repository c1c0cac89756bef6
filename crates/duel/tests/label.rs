//! `duel label`: what it writes, that `duel train` reads it, and that no end of a process costs what was judged.

mod common;
#[path = "../../judge/tests/common/server.rs"]
mod server;

use common::{
    Ended, Run, Temp, interrupt, pairs, shared_data, tiny_config, tiny_reward_config, write_lines,
    write_model,
};
use duel_experiments::grammar;
use serde_json::{Value, json};
use server::{Act, Request, Server};
use std::collections::HashSet;
use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A `duel label` command line, from `in.jsonl` to `out.jsonl` of a folder.
#[derive(Clone)]
struct Labelling {
    options: Vec<(String, String)>,
    output: PathBuf,
}

impl Labelling {
    fn new(temp: &Temp, judge: impl Display) -> Self {
        let new = Labelling { options: Vec::new(), output: temp.path("out.jsonl") };
        let output = new.output.display().to_string();
        new.set("dataset", temp.path("in.jsonl").display()).set("judge", judge).set("output", output)
    }

    fn set(mut self, key: &str, value: impl Display) -> Self {
        self.options.retain(|(k, _)| k != key);
        self.options.push((key.into(), value.to_string()));
        self
    }

    fn to(mut self, temp: &Temp, name: &str) -> Self {
        self.output = temp.path(name);
        let output = self.output.display().to_string();
        self.set("output", output)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_duel"));
        command.arg("label").args(self.options.iter().map(|(k, v)| format!("--{k}={v}")));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn go(&self) -> Ended {
        Ended::of(self.command().output().unwrap())
    }

    /// Runs to a good end: the rows that are there then, and what was said.
    fn ok(&self) -> (Vec<Value>, String) {
        let ended = self.go();
        assert_eq!(ended.code, Some(0), "{:?}:\n{}", self.options, ended.stderr);
        let text = fs::read_to_string(&self.output).unwrap();
        (text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), ended.stderr)
    }

    fn bytes(&self) -> String {
        fs::read_to_string(&self.output).unwrap()
    }
}

const PROMPTS: [&str; 2] = ["i watched this film", "we saw it"];

/// Reviews by their first words, each with `k` samples.
fn samples(rows: usize, k: usize) -> Vec<Value> {
    let mut rng = fastrand::Rng::with_seed(3);
    let row = |i: usize| {
        let completions: Vec<Value> = (0..k)
            .map(|k| {
                let review = grammar::sample_review(&mut rng);
                json!({"text": format!(" {review}"), "tokens": [k, 2], "logps": [-1.0, -0.5], "finish_reason": "stop"})
            })
            .collect();
        json!({"prompt": PROMPTS[i % 2], "completions": completions, "id": i})
    };
    (0..rows).map(row).collect()
}

fn lexicon(temp: &Temp) -> String {
    let path = temp.path("words.tsv");
    fs::write(&path, "good\t1\nfine\t0.5\nbad\t-1\nsad\t-1\n").unwrap();
    format!("lexicon:{}", path.display())
}

#[test]
fn every_format_is_what_train_reads() {
    let temp = Temp::with_model("label-train");
    write_lines(&temp.path("in.jsonl"), samples(12, 4));
    let server = Server::start(|_, request| {
        Act::Say(match request.text() {
            t if t.contains("[Critique]") => "the film was superb .".into(),
            _ => "It is not superb.".into(),
        })
    });
    for (format, judge, more, method) in [
        ("scored", "truth", None, "dpo"),
        ("pairs", "truth", None, "dpo"),
        ("pairs", "truth", Some(("pairs", "all")), "reward"),
        ("pairs", "truth", Some(("labels", "drawn")), "dpo"),
        ("best", "truth", None, "sft"),
        ("unpaired", "truth", Some(("threshold", "0")), "kto"),
        ("revisions", server.url.as_str(), Some(("judge-model", "m")), "dpo"),
    ] {
        let name = format!("{format}-{method}-{}", more.map_or("", |(key, _)| key));
        let mut run = Labelling::new(&temp, judge).set("format", format).to(&temp, &format!("{name}.jsonl"));
        if let Some((key, value)) = more {
            run = run.set(key, value);
        }
        let (rows, said) = run.ok();
        assert!(
            rows.len() >= 10 && said.contains("12 rows judged by "),
            "{name}: {} rows\n{said}",
            rows.len()
        );
        assert!(
            rows.iter().all(|row| PROMPTS.contains(&row["prompt"].as_str().unwrap()) && row["id"].is_u64())
        );
        let train = Run::new(&temp, &name).set("dataset", run.output.display()).set("max-steps", 1);
        train.set("method", method).set("per-device-train-batch-size", 4).ok();
    }
}

/// Scores 1.5, 0.5, 0.5 and -1; then two of 1, one of them cut; then one alone.
fn rows() -> Vec<Value> {
    vec![
        json!({"prompt": "p", "responses": ["good fine", "fine", "so fine", "bad"], "scores": [4, 3, 3, 5]}),
        json!({"prompt": "q", "completions": [
            {"text": "good", "finish_reason": "stop"}, {"text": "so good", "finish_reason": "length"}, {"text": ""}
        ]}),
        json!({"prompt": "r", "completions": [{"text": "sad", "finish_reason": "stop"}]}),
        json!({"prompt": "s", "chosen": "good", "rejected": "bad"}),
    ]
}

#[test]
fn what_is_written_follows_from_the_scores() {
    let temp = Temp::new("label-formats");
    write_lines(&temp.path("in.jsonl"), rows());
    let judge = lexicon(&temp);
    let run = |name: &str| Labelling::new(&temp, &judge).to(&temp, name);
    // The first row comes best first by the scores that it had.
    let (scored, said) = run("scored").ok();
    assert_eq!(
        scored,
        [
            json!({
                "prompt": "p", "responses": ["bad", "good fine", "fine", "so fine"],
                "scores": [-1.0, 1.5, 0.5, 0.5], "judge": judge
            }),
            json!({"prompt": "q", "responses": ["good", "so good"], "scores": [1.0, 1.0], "judge": judge}),
            json!({"prompt": "s", "responses": ["good", "bad"], "scores": [1.0, -1.0], "judge": judge}),
        ]
    );
    // Nine scores, of which the sum is 2.5 and that of the squares 8.75. Of the first row's five known pairs three are
    // wrong, of the last row's one none.
    assert!(
        said.contains("4 rows judged by the lexicon") && said.contains("3 written; scores 0.2778 +- 1.0035"),
        "{said}"
    );
    assert!(said.contains("1 rows without anything to write; 1 empty responses left out"), "{said}");
    assert!(said.contains("agreement with the input's order 50.0 % of 6 pairs"), "{said}");

    let (pairs, said) = run("pairs").set("format", "pairs").ok();
    assert_eq!(
        pairs,
        [
            json!({"prompt": "p", "chosen": "good fine", "rejected": "bad", "margin": 2.5}),
            json!({"prompt": "s", "chosen": "good", "rejected": "bad", "margin": 2.0}),
        ]
    );
    assert!(said.contains("1 ties left out"), "{said}");
    let (all, said) =
        run("all").set("format", "pairs").set("pairs", "all").set("missing-eos-penalty", 0.25).ok();
    let margins: Vec<f64> = all.iter().map(|row| row["margin"].as_f64().unwrap()).collect();
    assert_eq!(margins, [2.5, 1.5, 1.5, 1.0, 1.0, 0.25, 2.0]);
    assert_eq!((&all[5]["chosen"], &all[5]["rejected"]), (&json!("good"), &json!("so good")));
    assert!(said.contains("1 ties left out") && said.contains("1 truncated responses penalised"), "{said}");
    // The penalty is no part of what the judge says.
    assert!(said.contains("scores 0.2778"), "{said}");

    let (best, said) = run("best").set("format", "best").ok();
    let completions: Vec<&Value> = best.iter().map(|row| &row["completion"]).collect();
    assert_eq!(completions, ["good fine", "good", "sad", "good"]);
    assert!(said.contains("1 ties"), "{said}");
    let (unpaired, said) = run("unpaired").set("format", "unpaired").set("threshold", 0.5).ok();
    let labels: Vec<bool> = unpaired.iter().map(|row| row["label"].as_bool().unwrap()).collect();
    assert_eq!(labels, [false, true, true, true, false, true, false]);
    assert!(said.contains("2 ties left out"), "{said}");

    let to_stdout = Command::new(env!("CARGO_BIN_EXE_duel"))
        .args(["label", "--judge", &judge, "--dataset"])
        .arg(temp.path("in.jsonl"))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(to_stdout.stdout).unwrap(), run("scored").bytes());
}

#[test]
fn labels_are_drawn_with_the_probability_that_scores_say() {
    let temp = Temp::new("label-drawn");
    let row = |i: usize| json!({"prompt": format!("p{i}"), "responses": ["good", "fine", "fine"]});
    write_lines(&temp.path("in.jsonl"), (0..2000).map(row));
    let run = Labelling::new(&temp, lexicon(&temp))
        .set("format", "pairs")
        .set("pairs", "all")
        .set("labels", "drawn");
    let (rows, said) = run.ok();
    // The same twice says nothing, whatever is drawn.
    assert_eq!(rows.len(), 4000);
    assert!(
        said.contains("2000 ties left out") && rows.iter().all(|row| row.get("margin").is_none()),
        "{said}"
    );
    let won = rows.iter().filter(|row| row["chosen"] == "good").count() as f64 / 4000.0;
    // sigmoid(1/2) = 0.6225 with a standard error of 0.0077.
    assert!((won - 0.6225).abs() < 4.0 * 0.0077, "{won}");
    let again = run.clone().to(&temp, "again");
    again.ok();
    assert_eq!(again.bytes(), run.bytes());
    let other = run.clone().set("seed", 7).to(&temp, "other");
    other.ok();
    assert_ne!(other.bytes(), run.bytes());
}

#[test]
fn what_is_unjudged_is_left_out_and_counted() {
    let temp = Temp::new("label-unjudged");
    let script = r#"read hello; echo '{"protocol": "duel-judge", "version": 1, "tasks": ["compare"]}'
        while read line; do
            id=${line#*\"id\":}; id=${id%%,*}
            case "$line" in
                *odd*) echo "{\"id\": $id, \"error\": \"too odd\"}" ;;
                *'"low","high"'*) echo "{\"id\": $id, \"preference\": 0.1}" ;;
                *) echo "{\"id\": $id, \"preference\": 0.5}" ;;
            esac
        done"#;
    fs::write(temp.path("judge.sh"), script).unwrap();
    write_lines(
        &temp.path("in.jsonl"),
        [
            json!({"prompt": "p", "responses": ["low", "high", "odd"]}),
            json!({"prompt": "q", "responses": ["odd", "low"]}),
            json!({"prompt": "r", "responses": ["low", "mid"]}),
        ],
    );
    let judge = format!("program:sh '{}'", temp.path("judge.sh").display());
    let run = |name: &str| Labelling::new(&temp, &judge).to(&temp, name);
    let (scored, said) = run("scored").ok();
    assert_eq!(
        scored,
        [
            json!({"prompt": "p", "responses": ["low", "high"], "scores": [0.3, 0.7], "judge": judge}),
            json!({"prompt": "r", "responses": ["low", "mid"], "scores": [0.5, 0.5], "judge": judge}),
        ]
    );
    assert!(said.contains("3 unjudged and left out (the first: too odd)"), "{said}");
    let (pairs, said) = run("pairs").set("format", "pairs").set("pairs", "all").ok();
    assert_eq!(pairs, [json!({"prompt": "p", "chosen": "high", "rejected": "low"})]);
    assert!(said.contains("1 ties left out") && said.contains("5 requests"), "{said}");
}

/// The scores of every row.
fn scores(rows: &[Value]) -> Vec<Vec<f64>> {
    let of = |row: &Value| row["scores"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    rows.iter().map(of).collect()
}

/// The scores that transformers gives the texts of the reference data, which end without EOS: as texts and as tokens.
#[test]
fn a_reward_model_scores_as_transformers_does() {
    let Some(data) = shared_data("a_reward_model_scores_as_transformers_does") else { return };
    for name in ["seqcls_llama", "seqcls_gpt2"] {
        let (folder, temp) = (data.join("golden2").join(name), Temp::new(&format!("label-{name}")));
        let expected: Value =
            serde_json::from_slice(&fs::read(folder.join("expected.json")).unwrap()).unwrap();
        let (texts, ids) = (expected["texts"].as_array().unwrap(), expected["ids"].as_array().unwrap());
        let sample = |i: usize, tokens: &[Value]| json!({"text": texts[i], "tokens": tokens, "finish_reason": "length"});
        let completions = |of: &dyn Fn(usize) -> Value| (0..texts.len()).map(of).collect::<Vec<Value>>();
        // The BOS, where there is one, is the prompt's.
        let begin = usize::from(ids[0][0] == 1 && ids[1][0] == 1);
        let tokens = |i: usize| &ids[i].as_array().unwrap()[begin..];
        write_lines(
            &temp.path("in.jsonl"),
            [
                json!({"prompt": "", "completions": completions(&|i| sample(i, &[]))}),
                json!({"prompt": "", "completions": completions(&|i| sample(i, tokens(i)))}),
            ],
        );
        let (rows, said) =
            Labelling::new(&temp, format!("model:{}", folder.display())).set("device", "cpu").ok();
        let got = scores(&rows);
        assert_eq!(got[0], got[1], "{name}");
        assert!(!said.contains("encoded again"), "{said}");
        let want = expected["logits"].as_array().unwrap();
        assert_eq!(got[0].len(), want.len());
        for (got, want) in got[0].iter().zip(want) {
            // The bound of the values that the model gives these tokens, in tests/tests/models/golden_score.rs.
            let want = want.as_f64().unwrap();
            assert!(
                (got - want).abs() <= 1e-5 * (1.0 + want.abs()),
                "{name}: {got}, and transformers says {want}"
            );
        }
    }
}

/// A judge that was trained here says what an evaluation of it says, whatever the threads, and of tokens what it says
/// of their text; an answer that is cut has another end.
#[test]
fn a_reward_model_that_was_trained_judges() {
    let temp = Temp::with_model("label-model");
    let run = Run::new(&temp, "judge").set("method", "reward");
    run.ok();
    write_lines(&temp.path("in.jsonl"), pairs(10, 2));
    let label = |name: &str| {
        let judge = format!("model:{}", temp.path("judge").display());
        Labelling::new(&temp, judge).set("device", "cpu").set("threads", 1).to(&temp, name)
    };
    let (rows, said) = label("pairs").ok();
    let eval = Command::new(env!("CARGO_BIN_EXE_duel"))
        .args(["eval", "--device=cpu", "--threads=1"])
        .args(
            ["model", "dataset", "output"]
                .iter()
                .zip(["judge", "eval.jsonl", "said.jsonl"])
                .map(|(key, name)| format!("--{key}={}", temp.path(name).display())),
        )
        .output()
        .unwrap();
    assert!(eval.status.success(), "{}", String::from_utf8_lossy(&eval.stderr));
    let lines = fs::read_to_string(temp.path("said.jsonl")).unwrap();
    let lines = lines.lines().skip(1).map(|line| serde_json::from_str(line).unwrap());
    let evaluated: Vec<Value> = lines.map(|line: Value| json!({"scores": line["rewards"]})).collect();
    assert_eq!(scores(&rows), scores(&evaluated));
    assert!(said.contains("agreement with the input's order") && !said.contains("cut"), "{said}");
    for more in [("threads", "2"), ("batch-size", "3")] {
        let other = label(more.0).set(more.0, more.1);
        other.ok();
        assert_eq!(other.bytes(), label("pairs").bytes(), "{more:?}");
    }

    // The same text as it is, with its tokens, with those of another text, and without an end.
    let vocabulary = grammar::vocabulary();
    let id = |word: &str| vocabulary.iter().position(|w| *w == word).unwrap() + 3;
    let [the, film, was] = ["the", "film", "was"].map(id);
    let said =
        |tokens: Value, why: &str| json!({"text": " the film was", "tokens": tokens, "finish_reason": why});
    let completions = [
        said(json!([]), "stop"),
        said(json!([the, film, was, 2]), "stop"),
        said(json!([film, the, was, 2]), "stop"),
        said(json!([the, film, was]), "length"),
        said(json!([]), "length"),
    ];
    write_lines(
        &temp.path("in.jsonl"),
        [json!({"prompt": "i watched this film", "completions": completions})],
    );
    let (rows, said) = label("tokens").ok();
    let [text, tokens, wrong, cut, cut_text] = scores(&rows)[0][..] else { panic!("{rows:?}") };
    assert_eq!((text, cut), (tokens, cut_text));
    assert_eq!(text, wrong);
    assert_ne!(text, cut);
    assert!(said.contains("1 responses whose tokens are another tokenizer's encoded again"), "{said}");
}

/// A reward model that has learned who is better says so of rows that it has not seen.
#[test]
fn a_reward_model_judges_as_it_learned() {
    let temp = Temp::with_model("label-learned");
    let mut rng = fastrand::Rng::with_seed(5);
    let (good, bad) = (["superb", "great", "moving"], ["dreadful", "dull", "boring"]);
    let row = |_| {
        let said = [rng.choice(&good), rng.choice(&bad)].map(|word| format!(" was {} .", word.unwrap()));
        json!({"prompt": format!("the {}", rng.choice(["film", "plot"]).unwrap()), "chosen": said[0], "rejected": said[1]})
    };
    let rows: Vec<Value> = (0..800).map(row).collect();
    let (learned, held_out) = rows.split_at(750);
    write_lines(&temp.path("train.jsonl"), learned);
    write_lines(&temp.path("in.jsonl"), held_out);
    let run = Run::new(&temp, "judge").set("method", "reward").set("max-steps", 80);
    run.set("per-device-train-batch-size", 16).ok();
    let judge = format!("model:{}", temp.path("judge").display());
    let (_, said) = Labelling::new(&temp, judge).set("device", "cpu").ok();
    assert!(said.contains("agreement with the input's order 100.0 % of 50 pairs"), "{said}");
}

/// The model has 64 positions.
#[test]
fn what_is_too_long_for_a_reward_model_loses_its_prompts_start() {
    let temp = Temp::new("label-long");
    write_model(&temp.path("judge"), tiny_reward_config());
    let words = |n: usize| " the film was good".repeat(n);
    let row = |prompt: String, responses: [String; 2]| json!({"prompt": prompt, "responses": responses});
    write_lines(
        &temp.path("in.jsonl"),
        [
            // Of 4 * 20 + 1 tokens there is room for 64 - 4 * 3 - 1.
            row(words(20), [words(3), words(2)]),
            row(words(1), [words(16), words(2)]),
            row(words(1), [words(3), words(2)]),
            row(words(1), [words(16), words(17)]),
        ],
    );
    let run = Labelling::new(&temp, format!("model:{}", temp.path("judge").display())).set("device", "cpu");
    let (rows, said) = run.set("format", "pairs").set("pairs", "all").ok();
    assert_eq!(rows.len(), 2, "{said}");
    assert!(
        said.contains("4 rows judged by the reward model ") && said.contains("1 prompts cut at their start"),
        "{said}"
    );
    let why = format!("its 65 tokens are more than the 64 positions of {}", temp.path("judge").display());
    assert!(said.contains(&format!("3 unjudged and left out (the first: {why})")), "{said}");
}

#[test]
fn a_reward_model_normalises_where_its_folder_says_so() {
    let temp = Temp::with_model("label-normal");
    Run::new(&temp, "judge").set("method", "reward").set("max-steps", 1).ok();
    write_lines(&temp.path("in.jsonl"), pairs(4, 2));
    let judge = format!("model:{}", temp.path("judge").display());
    let run = Labelling::new(&temp, judge).set("device", "cpu");
    let raw = scores(&run.ok().0);
    let file = temp.path("judge").join("reward_normalization.json");
    fs::write(&file, r#"{"gain": 2.5, "bias": -0.75, "samples": 256}"#).unwrap();
    let other = run.go().error().to_owned();
    assert!(other.contains("was begun with another judge") && other.contains("2.5"), "{other}");
    let normal = scores(&run.clone().to(&temp, "normal").ok().0);
    let expected: Vec<Vec<f64>> =
        raw.iter().map(|row| row.iter().map(|r| 2.5 * r - 0.75).collect()).collect();
    assert_eq!(normal, expected);
    // Another model in the folder has other rewards.
    Run::new(&temp, "judge")
        .set("method", "reward")
        .set("max-steps", 1)
        .set("overwrite-output-dir", true)
        .ok();
    assert!(!file.exists());
}

#[test]
fn a_folder_that_is_no_reward_model_is_one_error() {
    let temp = Temp::with_model("label-folders");
    write_lines(&temp.path("in.jsonl"), pairs(2, 2));
    let error = |name: &str| {
        let judge = format!("model:{}", temp.path(name).display());
        Labelling::new(&temp, judge).set("device", "cpu").go().error().to_owned()
    };
    let begins = |error: &str, name: &str, parts: &[&str]| {
        let start = format!("error: {}", temp.path(name).display());
        assert!(error.starts_with(&start) && parts.iter().all(|part| error.contains(part)), "{error}");
    };
    begins(&error("model"), "model", &["without a head that gives scores", "--method reward"]);
    begins(&error("nothing"), "nothing", &[]);

    let scoring = |change: &dyn Fn(&mut Value)| {
        let mut config = tiny_config();
        config["architectures"] = json!(["LlamaForSequenceClassification"]);
        change(&mut config);
        write_model(&temp.path("judge"), config);
    };
    scoring(&|_| {});
    let config = temp.path("judge").join("config.json");
    let read: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    let mut two = read.clone();
    two["id2label"] = json!({"0": "bad", "1": "good"});
    fs::write(&config, two.to_string()).unwrap();
    begins(&error("judge"), "judge", &["`id2label` gives the LlamaForSequenceClassification 2 labels"]);
    // A tokenizer of more words than there are embeddings.
    scoring(&|config| config["vocab_size"] = json!(8));
    begins(&error("judge"), "judge", &["the model has only 8 embeddings", "do not belong together"]);
    scoring(&|_| {});
    fs::write(temp.path("judge").join("reward_normalization.json"), "{}").unwrap();
    begins(&error("judge"), "judge/reward_normalization.json", &["is broken (missing field `gain`"]);
    fs::remove_file(temp.path("judge").join("reward_normalization.json")).unwrap();
    broken_score(&temp.path("judge").join("model.safetensors"));
    begins(&error("judge"), "judge", &["gives an answer a reward of", "its weights are broken"]);

    let error = Labelling::new(&temp, "truth").set("device", "cpu").go().error().to_owned();
    assert!(error.contains("--device, --bf16 and --threads have no effect on the judge `truth`"), "{error}");
}

/// Makes the weights of the head the largest that there are.
fn broken_score(path: &Path) {
    let bytes = fs::read(path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let head = tensors.tensor("score.weight").unwrap();
    let at = head.data().as_ptr() as usize - bytes.as_ptr() as usize;
    let (count, mut bytes) = (head.data().len() / 4, bytes.clone());
    for i in 0..count {
        // Products with hidden states of a size near 1, added up: more than there are numbers for.
        bytes[at + 4 * i..at + 4 * i + 4].copy_from_slice(&f32::MAX.to_le_bytes());
    }
    fs::write(path, bytes).unwrap();
}

/// Says that the answer with the larger number is better.
fn larger(request: &Request) -> Act {
    let number = |label: &str| -> u64 {
        let at = request.text().find(label).unwrap() + label.len();
        request.text()[at..].split_whitespace().next().unwrap().parse().unwrap()
    };
    let first = number("[Answer A]") > number("[Answer B]");
    Act::Say(format!("Verdict: {}", if first { "A" } else { "B" }))
}

fn numbered(temp: &Temp, rows: usize) {
    let row = |i: usize| json!({"prompt": format!("p{i}"), "responses": [(7 * i % 5).to_string(), "9", "6"]});
    write_lines(&temp.path("in.jsonl"), (0..rows).map(row));
}

/// Waits until it is so.
fn until(what: &str, mut so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < Duration::from_secs(120), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn killed_and_resumed_it_asks_for_no_answer_again() {
    let temp = Temp::new("label-killed");
    numbered(&temp, 12);
    let hangs = Arc::new(AtomicBool::new(true));
    let flag = hangs.clone();
    // Three pairs of a row in two orders each: the 34th question is in the sixth row, the third batch of two.
    let server = Server::start(move |number, request| match number {
        33 if flag.load(Ordering::Relaxed) => Act::Hang(Duration::from_secs(600)),
        _ => larger(request),
    });
    let run = Labelling::new(&temp, &server.url)
        .set("judge-model", "m")
        .set("judge-concurrency", 1)
        .set("batch-size", 2);
    let run = run.set("format", "pairs");
    let mut child = run.command().spawn().unwrap();
    let cache = temp.path("out.jsonl.answers");
    let lines = || fs::read_to_string(&cache).map_or(0, |text| text.lines().count());
    until("33 answers are kept", || lines() == 33 && server.asked().len() == 34);
    // Another one is told that the output is being written.
    let error = run.go().error().to_owned();
    assert!(error.contains("another `duel label` is writing it"), "{error}");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(run.bytes().lines().count(), 4, "two batches are whole");

    hangs.store(false, Ordering::Relaxed);
    let (rows, said) = run.ok();
    assert_eq!(rows.len(), 12);
    let asked = server.asked();
    let distinct: HashSet<String> = asked.iter().map(|r| r.body.to_string()).collect();
    assert_eq!((asked.len(), distinct.len()), (12 * 6 + 1, 12 * 6), "only the one that was not answered");
    // Two batches were whole; of the third nine answers were kept, and what it had counted went with it.
    assert!(said.contains("63 requests, 9 answers from the cache"), "{said}");
    assert!(
        said.contains("12 rows judged by m at") && said.contains("the answer shown first won 50.0 %"),
        "{said}"
    );

    // Once more there is nothing to do; undisturbed it is the same.
    let before = run.bytes();
    run.ok();
    assert_eq!((server.asked().len(), run.bytes()), (12 * 6 + 1, before.clone()));
    let whole = run.clone().to(&temp, "whole.jsonl");
    whole.ok();
    assert_eq!(whole.bytes(), before);
}

#[test]
fn an_interrupted_one_says_how_to_go_on() {
    let temp = Temp::new("label-interrupted");
    numbered(&temp, 4);
    let hangs = Arc::new(AtomicBool::new(true));
    let flag = hangs.clone();
    let server = Server::start(move |number, request| match number {
        8 if flag.load(Ordering::Relaxed) => Act::Hang(Duration::from_secs(600)),
        _ => larger(request),
    });
    let run = Labelling::new(&temp, &server.url)
        .set("judge-model", "m")
        .set("judge-concurrency", 1)
        .set("batch-size", 1);
    let child = run.command().spawn().unwrap();
    until("it hangs", || server.asked().len() == 9);
    interrupt(&child);
    let ended = Ended::of(child.wait_with_output().unwrap());
    assert_eq!(ended.code, Some(130), "{}", ended.stderr);
    assert!(ended.stderr.contains("stopped; the same command continues"), "{}", ended.stderr);
    hangs.store(false, Ordering::Relaxed);
    assert_eq!(run.ok().0.len(), 4);
    assert_eq!(server.asked().len(), 4 * 6 + 1);
}

#[test]
fn files_torn_anywhere_are_made_whole() {
    let temp = Temp::new("label-torn");
    write_lines(&temp.path("in.jsonl"), samples(6, 2));
    let run = Labelling::new(&temp, "truth").set("batch-size", 2);
    run.ok();
    let journal = temp.path("out.jsonl.journal");
    let (output, record) = (fs::read(&run.output).unwrap(), fs::read(&journal).unwrap());
    for part in 0..=12 {
        let cut = |bytes: &[u8]| bytes[..bytes.len() * part / 12].to_vec();
        // The journal ahead of the output, as after a crash of the machine; and behind it, as after a kill.
        let first = record.iter().position(|b| *b == b'\n').unwrap() + 1;
        let behind = [&record[..first], &cut(&record[first..])].concat();
        for (output, record) in [(cut(&output), record.clone()), (output.clone(), behind)] {
            fs::write(&run.output, output).unwrap();
            fs::write(&journal, record).unwrap();
            let (rows, said) = run.ok();
            assert!(fs::read(&run.output).unwrap() == output_of(&temp, &run), "part {part}");
            assert!(rows.len() == 6 && said.contains("6 rows judged"), "part {part}: {said}");
        }
    }
    assert_eq!(fs::read(&run.output).unwrap(), output);
}

/// What an undisturbed run writes.
fn output_of(temp: &Temp, run: &Labelling) -> Vec<u8> {
    let whole = run.clone().to(temp, "whole.jsonl");
    if !whole.output.exists() {
        whole.ok();
    }
    fs::read(&whole.output).unwrap()
}

#[test]
fn another_judge_or_file_is_an_error() {
    let temp = Temp::new("label-other");
    write_lines(&temp.path("in.jsonl"), samples(4, 2));
    let run = Labelling::new(&temp, "truth");
    // One that came to nothing binds nobody.
    let greeting = r#"{"protocol": "duel-judge", "version": 1, "tasks": ["score"]}"#;
    let leaves = format!("program:sh -c \"read hello; echo '{}'\"", greeting.replace('"', r#"\""#));
    let error = run.clone().set("judge", leaves).go().error().to_owned();
    assert!(error.contains("left before an answer (0 of 4 are there) came"), "{error}");
    run.ok();
    let error = |run: Labelling| run.go().error().to_owned();
    let other = error(run.clone().set("judge", lexicon(&temp)));
    assert!(
        other.contains("out.jsonl: was begun with another judge (\"truth LogOdds\", now \"lexicon"),
        "{other}"
    );
    assert!(error(run.clone().set("judge-scale", "probability")).contains("another judge"));
    assert!(error(run.clone().set("format", "pairs")).contains("was begun with another format"));
    assert!(error(run.clone().set("missing-eos-penalty", 1)).contains("another choice of --pairs"));
    write_lines(&temp.path("in.jsonl"), samples(5, 2));
    assert!(error(run.clone()).contains("was begun with another dataset"));
    fs::write(temp.path("mine.jsonl"), "{}\n").unwrap();
    let mine = error(run.to(&temp, "mine.jsonl"));
    assert!(
        mine.contains("mine.jsonl: is there already, and no `duel label` that could be continued"),
        "{mine}"
    );
    assert_eq!(fs::read_to_string(temp.path("mine.jsonl")).unwrap(), "{}\n");
}

#[test]
fn what_is_wrong_is_one_error_before_a_question_is_asked() {
    let temp = Temp::new("label-wrong");
    let server = Server::start(|_, request| larger(request));
    let error = |rows: &[Value], judge: &str, said: &[(&str, &str)]| {
        write_lines(&temp.path("in.jsonl"), rows);
        let run = said.iter().fold(Labelling::new(&temp, judge), |run, (key, value)| run.set(key, value));
        run.go().error().to_owned()
    };
    let good = json!({"prompt": "p", "responses": ["1", "2"]});
    let (url, model) = (server.url.as_str(), ("judge-model", "m"));
    let broken = error(&[good.clone(), json!({"prompt": "p"})], url, &[model]);
    assert!(
        broken.contains("in.jsonl: row 2: has the columns `prompt`, and no responses to judge"),
        "{broken}"
    );
    assert!(error(&[], url, &[model]).contains("in.jsonl: there are no rows to judge"));
    assert_eq!(server.asked().len(), 0);

    let row = std::slice::from_ref(&good);
    for (judge, said, expected) in [
        (
            "oracle",
            vec![],
            "no judge `oracle`; a judge is one of lexicon:FILE, program:COMMAND, http:URL, truth, model:FOLDER",
        ),
        (url, vec![], "needs `judge_model`"),
        ("truth", vec![("judge-timeout", "3")], "`judge_timeout` has no effect on the judge `truth`"),
        ("truth", vec![("pairs", "all")], "--pairs has an effect only with --format pairs"),
        ("truth", vec![("seed", "1"), ("format", "pairs")], "--seed has an effect only with --labels drawn"),
        ("truth", vec![("threshold", "1")], "--threshold has an effect only with --format unpaired"),
        ("truth", vec![("format", "unpaired")], "--format unpaired needs --threshold"),
        ("truth", vec![("format", "revisions")], "needs a judge that writes, http:URL, and `truth` is none"),
        (
            url,
            vec![model, ("missing-eos-penalty", "1")],
            "--missing-eos-penalty has an effect only of a judge that gives",
        ),
        ("truth", vec![("missing-eos-penalty", "-1")], "--missing-eos-penalty is at least 0"),
    ] {
        let error = error(row, judge, &said);
        assert!(error.contains(expected), "{error}");
    }
    let texts = json!({"chosen": "Q a", "rejected": "Q b"});
    assert!(
        error(&[texts], "truth", &[]).contains("row 1: has no `prompt`, which only pairs can be without")
    );

    fs::write(
        temp.path("nan.sh"),
        r#"read hello; echo '{"protocol": "duel-judge", "version": 1, "tasks": ["score"]}'
        read line; echo '{"id": 0, "scores": [NaN, 1]}'; cat > /dev/null"#,
    )
    .unwrap();
    let nan = error(row, &format!("program:sh '{}'", temp.path("nan.sh").display()), &[]);
    assert!(nan.contains("is wrong in its line 2, which is no JSON, which has no NaN"), "{nan}");
}

/// The paper's experiments from their raw rows to a trained model, by the configurations that are shipped, which say
/// everything but where files are, how many steps there are and how long a row may be.
#[test]
fn the_papers_experiments_run_from_end_to_end() {
    let paper = Path::new(env!("CARGO_MANIFEST_DIR")).join("../experiments/paper");
    let temp = Temp::with_model("label-paper");
    let mut rng = fastrand::Rng::with_seed(11);
    let mut review = || grammar::sample_review(&mut rng);
    let learn = |config: &str, name: &str, from: &str, rows: &Path| {
        let run = Run::new(&temp, &format!("{name}-{config}"));
        let run =
            run.set("model", temp.path(from).display()).set("dataset", rows.display()).set("max-steps", 1);
        let run = run.set("max-length", 64).set("per-device-train-batch-size", 2);
        let mut command = Command::new(env!("CARGO_BIN_EXE_duel"));
        let sft = ["train".to_owned(), "--method=sft".to_owned()];
        match name {
            "sft" => command.args(sft),
            _ => command.arg("train").arg(paper.join(format!("{config}.toml"))),
        };
        // What the configuration says of rates and of the optimizer stays.
        command.args(run.args().iter().skip(1).filter(|arg| !arg.starts_with("--learning-rate=")));
        let ended = Ended::of(command.output().unwrap());
        assert_eq!(ended.code, Some(0), "{config}, {name}:\n{}", ended.stderr);
        assert!(run.out().join("model.safetensors").is_file(), "{config}, {name}");
        run.out().strip_prefix(temp.path("")).unwrap().to_str().unwrap().to_owned()
    };

    // Reviews; samples of what has learned them, every pair of each prompt's in the order of a classifier.
    let texts = temp.path("imdb.jsonl");
    write_lines(&texts, (0..8).map(|_| json!({"text": review()})));
    let sft = learn("sentiment", "sft", "model", &texts);
    write_lines(&temp.path("prefixes.jsonl"), PROMPTS.map(|prompt| json!({"prompt": prompt})));
    let mut sample = Command::new(env!("CARGO_BIN_EXE_duel"));
    sample.arg("sample").args(["--num-generations=4", "--max-new-tokens=8"]);
    sample.arg(format!("--model={}", temp.path(&sft).display()));
    sample.arg(format!("--dataset={}", temp.path("prefixes.jsonl").display()));
    let ended =
        Ended::of(sample.arg(format!("--output={}", temp.path("in.jsonl").display())).output().unwrap());
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let pairs = Labelling::new(&temp, "truth").set("format", "pairs").set("pairs", "all");
    assert!(pairs.ok().0.len() > 2, "more than the best and the worst of each");
    learn("sentiment", "dpo", &sft, &pairs.output);

    // Posts with a summary, and two summaries of which one was chosen.
    let (rows, chosen) = (temp.path("tldr.jsonl"), temp.path("tldr-pairs.jsonl"));
    let post = |text: &str| format!("{text} TL;DR:");
    write_lines(
        &rows,
        (0..4).map(|_| json!({"prompt": post(&review()), "completion": format!(" {}", review())})),
    );
    let row =
        |_| json!({"prompt": post(&review()), "chosen": format!(" {}", review()), "rejected": " the film ."});
    write_lines(&chosen, (0..4).map(row));
    let sft = learn("summary", "sft", "model", &rows);
    learn("summary", "dpo", &sft, &chosen);

    // Dialogues, of which the last answer differs.
    let dialogues = temp.path("hh.jsonl");
    let row = |_| {
        let before = format!(
            "\n\nHuman: {}\n\nAssistant: {}\n\nHuman: {}\n\nAssistant:",
            "is it good ?", "it is .", "why ?"
        );
        json!({"chosen": format!("{before} {}", review()), "rejected": format!("{before} the film .")})
    };
    write_lines(&dialogues, (0..4).map(row));
    let sft = learn("dialogue", "sft", "model", &dialogues);
    learn("dialogue", "dpo", &sft, &dialogues);

    // The rubrics are what a judge is asked.
    let asked = Server::start(|_, request| {
        let text = request.text();
        assert!(text.contains("[Summary A]") || text.contains("[Dialogue so far]"), "{text}");
        Act::Say("Verdict: A".into())
    });
    for rubric in ["summary.txt", "dialogue.txt"] {
        let run =
            Labelling::new(&temp, &asked.url).set("judge-model", "m").to(&temp, &format!("{rubric}.jsonl"));
        let (rows, said) = run.set("judge-rubric", paper.join(rubric).display()).ok();
        // The first of a pair wins in both orders: a tie.
        let ties = |row: &Value| row["scores"].as_array().unwrap().iter().all(|score| score == 0.5);
        assert!(rows.len() == 2 && rows.iter().all(ties), "{rows:?}\n{said}");
    }
}
