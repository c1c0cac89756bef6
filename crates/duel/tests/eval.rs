//! `duel eval`: its numbers are those that a run logs, it goes on where it was ended, and errors name what is wrong.
//! `duel inspect`, `audit` and `plan` look at a run before there is one.

mod common;

use common::{Ended, Run, Temp, interrupt, pairs, tiny_config, write_lines, write_model};
use duel_experiments::grammar;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// A `duel eval` command line.
struct Eval(Vec<String>);

impl Eval {
    fn new(temp: &Temp, model: &str) -> Self {
        Eval(vec!["eval".into(), "--format=json".into(), "--device=cpu".into()])
            .set("model", temp.path(model).display())
            .set("cache-dir", temp.path("cache").display())
            .set("dataset", temp.path("eval.jsonl").display())
            .set("threads", 1)
    }

    fn set(mut self, key: &str, value: impl std::fmt::Display) -> Self {
        self.0.retain(|flag| !flag.starts_with(&format!("--{key}=")));
        self.0.push(format!("--{key}={value}"));
        self
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_duel"));
        command.args(&self.0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn ok(&self) -> Value {
        let output = self.command().output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{:?}:\n{stderr}", self.0);
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn error(&self) -> String {
        Ended::of(self.command().output().unwrap()).error().to_owned()
    }
}

/// The model's numbers of an answer.
fn first(answer: &Value) -> &Value {
    &answer["models"][0]
}

/// Sums are of the same f64 numbers in another order: 10 to 30 of up to 1000.
fn assert_near(got: &Value, want: f64, what: &str) {
    let got = got.as_f64().unwrap_or_else(|| panic!("{what}: {got}"));
    assert!((got - want).abs() <= 1e-12 * (1.0 + want.abs()), "{what}: {got}, and a run logs {want}");
}

fn last(run: &Run, metric: &str) -> f64 {
    *run.metric(metric).last().unwrap_or_else(|| panic!("a run logs no {metric}"))
}

/// The tiny model with one word more.
fn other_tokenizer(dir: &Path) {
    write_model(dir, tiny_config());
    let path = dir.join("tokenizer.json");
    let text = fs::read_to_string(&path).unwrap();
    let word = grammar::vocabulary().into_iter().find(|w| w.len() > 4).unwrap();
    let changed = text.replace(&format!("\"{word}\""), &format!("\"{word}x\""));
    assert_ne!(changed, text);
    fs::write(path, changed).unwrap();
}

#[test]
fn policies_have_the_numbers_that_a_run_logs() {
    let temp = Temp::with_model("eval-policy");
    let run = Run::new(&temp, "out").set("beta", 0.3).set("eval-dataset", temp.path("eval.jsonl").display());
    run.ok();
    let eval = Eval::new(&temp, "out").set("ref-model", temp.path("model").display()).set("beta", 0.3);
    let answer = eval.ok();
    let figures = &first(&answer)["figures"];
    for (ours, theirs) in [
        (&figures["rewards"]["accuracy"], "eval_rewards/accuracies"),
        (&figures["rewards"]["margin"], "eval_rewards/margins"),
        (&figures["rewards"]["chosen"], "eval_rewards/chosen"),
        (&figures["rewards"]["rejected"], "eval_rewards/rejected"),
        (&figures["logps"]["chosen"], "eval_logps/chosen"),
        (&figures["logps"]["rejected"], "eval_logps/rejected"),
    ] {
        assert_near(&ours["value"], last(&run, theirs), theirs);
    }
    // Two rows begin alike.
    assert_eq!(
        (&first(&answer)["rows"]["prompts"], &first(&answer)["accuracy_interval"]),
        (&json!(9), &json!("bootstrap"))
    );
    assert_eq!(first(&answer)["rows"]["pairs"], 10);

    // Against itself every reward is 0: nothing is preferred.
    let itself = Eval::new(&temp, "model").set("ref-model", temp.path("model").display()).ok();
    let rewards = &first(&itself)["figures"]["rewards"];
    assert_eq!((&rewards["ties"], &rewards["margin"]["value"]), (&json!(10), &json!(0.0)));
    assert_eq!(rewards["accuracy"]["value"], 0.0);

    // Without a reference: whole responses and tokens.
    let alone = Eval::new(&temp, "out").ok();
    let alone = first(&alone);
    assert_eq!(alone["by"], "logps");
    assert_near(&alone["figures"]["logps"]["chosen"]["value"], last(&run, "eval_logps/chosen"), "logps");
    let mean = alone["figures"]["logps_per_token"]["chosen"]["value"].as_f64().unwrap();
    assert!((-20.0..0.0).contains(&mean), "{mean}");
    assert_eq!(alone["calibration"], Value::Null);
}

#[test]
fn reward_models_have_the_numbers_that_a_run_logs() {
    let temp = Temp::with_model("eval-reward");
    let run =
        Run::new(&temp, "out").set("method", "reward").set("eval-dataset", temp.path("eval.jsonl").display());
    run.ok();
    let answer = Eval::new(&temp, "out").set("method", "reward").ok();
    let model = first(&answer);
    for (ours, theirs) in [
        (&model["figures"]["rewards"]["accuracy"]["value"], "eval_accuracy"),
        (&model["figures"]["rewards"]["margin"]["value"], "eval_margin"),
        (&model["min"], "eval_min_reward"),
        (&model["mean"], "eval_mean_reward"),
        (&model["max"], "eval_max_reward"),
        (&model["calibration"]["error"], "eval_calibration_error"),
    ] {
        assert_near(ours, last(&run, theirs), theirs);
    }
    // Pairs by length are all pairs, and the table of certainty too.
    let pairs =
        |list: &Value| list.as_array().unwrap().iter().map(|x| x["pairs"].as_u64().unwrap()).sum::<u64>();
    assert_eq!((pairs(&model["by_length"]), pairs(&model["calibration"]["bins"])), (10, 10));

    let error = Eval::new(&temp, "out").set("ref-model", temp.path("model").display()).error();
    assert!(error.contains("has no effect") && error.contains("is a reward model"), "{error}");
    let error = Eval::new(&temp, "out").set("method", "dpo").error();
    assert!(error.contains("its folder is that of a reward model"), "{error}");
    let error = Eval::new(&temp, "model").set("method", "reward").error();
    assert!(error.contains("its folder is that of a language model"), "{error}");
}

/// Rankings, scores with ties, identical responses, and two rows of one prompt.
#[test]
fn rankings_ties_and_prompts_are_counted() {
    let temp = Temp::with_model("eval-rankings");
    let mut texts = pairs(8, 5).into_iter().map(|pair| pair["chosen"].clone());
    let mut next = || texts.next().unwrap();
    let prompt = pairs(1, 6)[0]["prompt"].clone();
    let (a, b, c, d) = (next(), next(), next(), next());
    let rows = [
        json!({"prompt": prompt, "responses": [a, b, c]}),
        json!({"prompt": prompt, "responses": [a, b, d], "scores": [1.0, 1.0, 0.0]}),
        json!({"prompt": "", "chosen": a, "rejected": a}),
        json!({"prompt": "", "chosen": next(), "rejected": next()}),
    ];
    write_lines(&temp.path("eval.jsonl"), rows);
    let output = temp.path("rows.jsonl");
    let answer = Eval::new(&temp, "model").set("output", output.display()).ok();
    let model = first(&answer);
    let counts = |name: &str| model["rows"][name].as_u64().unwrap();
    assert_eq!(["read", "scored", "prompts", "pairs"].map(counts), [4, 3, 2, 6]);
    assert_eq!(["identical", "tied", "truncated"].map(counts), [1, 1, 0]);
    assert_eq!(model["accuracy_interval"], "bootstrap");
    assert_eq!(model["kendall"]["rows"], 2);

    // From the file of the rows: accuracy of the six pairs, and tau of the first.
    let text = fs::read_to_string(output).unwrap();
    let rows: Vec<Value> = text.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect();
    let logps = |row: usize, i: usize| rows[row]["logps"][i].as_f64().unwrap();
    let right = |row: usize, w: usize, l: usize| f64::from(u8::from(logps(row, w) > logps(row, l)));
    let first_row = [right(0, 0, 1), right(0, 0, 2), right(0, 1, 2)];
    let all: f64 = first_row.iter().sum::<f64>() + right(1, 0, 2) + right(1, 1, 2) + right(2, 0, 1);
    assert_near(&model["figures"]["logps"]["accuracy"]["value"], all / 6.0, "accuracy");
    let tau = |agreed: f64, pairs: f64| 2.0 * agreed - pairs;
    let second = tau(right(1, 0, 2) + right(1, 1, 2), 2.0) / 6.0_f64.sqrt();
    let want = (tau(first_row.iter().sum(), 3.0) / 3.0 + second) / 2.0;
    assert_near(&model["kendall"]["tau_b"]["value"], want, "tau");
    let difference = rows[0]["difference"].as_f64().unwrap();
    assert_eq!(difference, logps(0, 0) - logps(0, 2));
}

#[test]
fn what_was_ended_goes_on_with_the_same_bits() {
    let temp = Temp::with_model("eval-resume");
    let output = temp.path("rows.jsonl");
    let eval = || {
        let eval = Eval::new(&temp, "model").set("versus", temp.path("model").display());
        eval.set("output", output.display()).set("micro-batch-tokens", 100)
    };
    let answer = eval().ok();
    let whole = fs::read(&output).unwrap();
    assert_eq!(whole.iter().filter(|byte| **byte == b'\n').count(), 21);
    // Torn anywhere: in the first line, in a row, between rows, in the second model's.
    for kept in [10, whole.len() / 4, whole.len() / 2 + 7, whole.len() - 1, whole.len()] {
        fs::write(&output, &whole[..kept]).unwrap();
        assert_eq!(eval().set("threads", 2).ok(), answer, "after {kept} bytes");
        assert!(fs::read(&output).unwrap() == whole, "after {kept} bytes");
    }
    // A model is as good as itself.
    let difference = &answer["difference"];
    assert_eq!(difference["accuracy"], json!({"value": 0.0, "interval": [0.0, 0.0]}));
    assert_eq!((&difference["pairs"], &difference["apart"]), (&json!(10), &json!(0)));

    // Another model, file or setting is named.
    write_model(&temp.path("other"), {
        let mut config = tiny_config();
        config["num_hidden_layers"] = json!(1);
        config
    });
    let before = |eval: Eval, key: &str| {
        let error = eval.error();
        assert!(error.contains(&format!("another `{key}`: ")), "{error}");
        assert!(fs::read(&output).unwrap() == whole, "the file was touched");
    };
    before(eval().set("model", temp.path("other").display()), "model");
    before(eval().set("versus", temp.path("other").display()), "versus");
    before(eval().set("ref-model", temp.path("other").display()), "ref_model");
    before(eval().set("dataset", temp.path("train.jsonl").display()), "dataset");
    before(eval().set("max-length", 40), "max_length");
    fs::write(&output, "notes\n").unwrap();
    assert!(eval().error().contains("was not written by `duel eval`"));
    assert_eq!(fs::read(&output).unwrap(), b"notes\n");
}

#[test]
fn ctrl_c_keeps_what_was_scored() {
    let temp = Temp::with_model("eval-interrupt");
    let output = temp.path("rows.jsonl");
    let rows = pairs(4000, 3);
    write_lines(&temp.path("eval.jsonl"), rows);
    let eval = Eval::new(&temp, "model").set("output", output.display()).set("micro-batch-tokens", 60);
    let child = eval.command().spawn().unwrap();
    let lines = || fs::read(&output).map_or(0, |bytes| bytes.iter().filter(|byte| **byte == b'\n').count());
    while lines() < 3 {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    interrupt(&child);
    let ended = Ended::of(child.wait_with_output().unwrap());
    assert_eq!(ended.code, Some(130), "{}", ended.stderr);
    assert!(ended.stderr.contains("the same command goes on from there"), "{}", ended.stderr);
    let kept = fs::read(&output).unwrap();
    assert!((3..4001).contains(&lines()), "{}", lines());
    eval.ok();
    assert!(fs::read(&output).unwrap().starts_with(&kept), "rows were scored again");
    assert_eq!(lines(), 4001);
}

#[test]
fn wrong_input_is_one_error() {
    let temp = Temp::with_model("eval-wrong");
    let eval = || Eval::new(&temp, "model");
    let reference = |name: &str| eval().set("ref-model", temp.path(name).display());

    fs::write(temp.path("empty.jsonl"), "").unwrap();
    let error = eval().set("dataset", temp.path("empty.jsonl").display()).error();
    assert!(error.contains("empty.jsonl"), "{error}");
    let error = eval().set("dataset", temp.path("none.jsonl").display()).error();
    assert!(error.contains("none.jsonl"), "{error}");
    let error = eval().set("beta", 0.2).error();
    assert!(error.contains("`beta` has no effect without a reference"), "{error}");

    other_tokenizer(&temp.path("words"));
    let error = reference("words").error();
    assert!(error.contains("the reference has another vocabulary: token"), "{error}");

    write_model(&temp.path("mute"), tiny_config());
    fs::remove_file(temp.path("mute").join("tokenizer.json")).unwrap();
    let error = Eval::new(&temp, "mute").error();
    assert!(error.contains("mute") && error.contains("tokenizer.json"), "{error}");
    let error = reference("mute").error();
    assert!(error.contains("mute") && error.contains("tokenizer.json"), "{error}");

    write_model(&temp.path("nan"), tiny_config());
    let weights = temp.path("nan").join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&weights, bytes).unwrap();
    for error in [Eval::new(&temp, "nan").error(), reference("nan").error()] {
        assert!(error.contains("not finite") && error.contains("model.safetensors"), "{error}");
    }
}

#[test]
fn text_says_what_the_numbers_are() {
    let temp = Temp::with_model("eval-text");
    let eval = Eval::new(&temp, "model").set("format", "text");
    let output = eval.set("versus", temp.path("model").display()).command().output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for line in [
        "10 pairs of 9 prompts",
        "logps: log-probabilities of whole responses, in nats",
        "logps_per_token: their means over the tokens",
        "by length, chosen less rejected in tokens, of logps",
        "the first less the second, paired by prompt",
        "  accuracy  0.0000 [0.0000, 0.0000]",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

/// What a command says of the run `run`, with its exit code; nothing was written.
fn looked(command: &str, run: &Run, flags: &[&str]) -> (Option<i32>, String) {
    let args = run.args();
    let output =
        Command::new(env!("CARGO_BIN_EXE_duel")).arg(command).args(&args[1..]).args(flags).output().unwrap();
    assert!(!run.out().exists() && !Path::new(run.get("cache-dir")).exists(), "{command} wrote something");
    let said = String::from_utf8(output.stdout).unwrap();
    (output.status.code(), if said.is_empty() { String::from_utf8(output.stderr).unwrap() } else { said })
}

#[test]
fn rows_are_shown_as_a_run_sees_them() {
    let temp = Temp::with_model("inspect");
    let run = Run::new(&temp, "out").set("max-length", 12);
    let (code, said) = looked("inspect", &run, &["--row=3", "--rows=2", "--format=json"]);
    assert_eq!(code, Some(0), "{said}");
    let rows: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!([&rows[0]["row"], &rows[1]["row"]], [&json!(3), &json!(4)]);
    let uses = |part: &Value| -> Vec<String> {
        part["tokens"].as_array().unwrap().iter().map(|t| t["use"].as_str().unwrap().to_owned()).collect()
    };
    let [prompt, chosen, rejected] = &rows[0]["parts"].as_array().unwrap()[..] else { panic!("{said}") };
    assert!(uses(prompt).iter().all(|of| of == "context"));
    // What is left has 12 tokens, and the rest is cut.
    for part in [chosen, rejected] {
        let uses = uses(part);
        let kept = 12 - prompt["tokens"].as_array().unwrap().len();
        assert!(
            uses.iter().enumerate().all(|(i, of)| of == if i < kept { "scored" } else { "cut off" }),
            "{part}"
        );
    }
    // Without a terminal the marks are words.
    let (code, text) = looked("inspect", &run, &["--ids"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("    context | ") && text.contains("    cut off | ") && !text.contains('\x1b'),
        "{text}"
    );
    assert!(text.contains("=1|"), "the number of the first token: {text}");
    let (code, said) = looked("inspect", &run, &["--row=41"]);
    assert!(code == Some(1) && said.contains("there is no row 41 or after it"), "{said}");
}

#[test]
fn files_are_audited() {
    let temp = Temp::with_model("audit");
    let row = |prompt: &str, chosen: &str, rejected: &str| json!({"prompt": prompt, "chosen": chosen, "rejected": rejected});
    let mut train = pairs(40, 1);
    train[4] = train[3].clone();
    train[5] =
        json!({"prompt": train[2]["prompt"], "chosen": train[2]["rejected"], "rejected": train[2]["chosen"]});
    train[6]["chosen"] = train[6]["rejected"].clone();
    train[7]["chosen"] = "".into();
    train[8]["note"] = "caf\u{C3}\u{A9}".into(); // a column that nobody uses
    write_lines(&temp.path("train.jsonl"), &train);
    write_lines(&temp.path("eval.jsonl"), [train[9].clone(), row("The film was", " gr\u{FFFD}at", " bad")]);
    let run =
        Run::new(&temp, "out").set("eval-dataset", temp.path("eval.jsonl").display()).set("max-length", 12);
    let (code, said) = looked("audit", &run, &["--format=json"]);
    assert_eq!(code, Some(3), "{said}");
    let found: Value = serde_json::from_str(&said).unwrap();
    let [of_train, of_eval] = &found["files"].as_array().unwrap()[..] else { panic!("{said}") };
    assert_eq!((&of_train["rows"], &of_train["refused"][0]["first"]), (&json!(40), &json!([8])));
    assert_eq!(of_train["identical"], json!({"count": 1, "first": [7]}));
    assert_eq!(of_train["characters"]["mojibake"]["count"], 0);
    assert_eq!(of_eval["characters"]["replacement"]["first"][0]["row"], 2);
    let rows = |name: &str| -> Vec<Value> {
        let pairs = found[name]["first"].as_array().unwrap().iter();
        pairs.map(|pair| json!([pair[0]["row"], pair[1]["row"]])).collect()
    };
    assert_eq!(
        (rows("copies"), rows("contradictions"), rows("leaked")),
        (vec![json!([4, 5])], vec![json!([3, 6])], vec![json!([10, 1])])
    );
    // 38 pairs of the training file, of which rows of one cut are one less.
    assert_eq!((&of_train["prompt"]["count"], &of_train["pairs"]), (&json!(38), &json!(38)));
    let above = of_train["at"]["12"]["above"].as_u64().unwrap();
    assert!(
        above > 0
            && above
                == of_train["truncated"].as_u64().unwrap()
                    + of_train["dropped"]["the prompt alone fills max_length"].as_u64().unwrap()
    );
    let (_, text) = looked("audit", &run, &[]);
    for line in [
        "copies of rows: 1\n",
        "contradictions: the same responses the other way round: 1\n",
        "to be put right: 1 rows",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    write_lines(&temp.path("train.jsonl"), pairs(40, 1));
    let (code, text) = looked("audit", &Run::new(&temp, "out"), &[]);
    assert!(code == Some(0) && text.contains("nothing that has to be put right was found"), "{text}");
}

#[test]
fn a_plan_is_what_a_run_does() {
    let temp = Temp::with_model("plan");
    let run = Run::new(&temp, "out")
        .set("eval-dataset", temp.path("eval.jsonl").display())
        .set("eval-strategy", "epoch")
        .set("num-train-epochs", 2)
        .set("max-steps", -1);
    let (code, said) = looked("plan", &run, &["--format=json"]);
    assert_eq!(code, Some(0), "{said}");
    let plan: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&plan["steps"], &plan["time"]["evaluations"]), (&json!(10), &json!(2)));
    let tokens = |name: &str| plan["tokens_of_an_epoch"][name].as_u64().unwrap();
    assert!(tokens("computed") < tokens("prompts_repeated") && tokens("prompts_repeated") < tokens("padded"));
    assert_eq!(plan["time"]["measured_seconds"].as_array().unwrap().len(), 5);
    assert!(plan["time"]["seconds"].as_f64().unwrap() > 0.0);
    let sum: u64 = plan["bytes"].as_object().unwrap().values().map(|bytes| bytes.as_u64().unwrap()).sum();
    assert_eq!(plan["bytes_in_all"], sum);
    let (_, text) = looked("plan", &run, &[]);
    // A run says the same of what it allocates.
    let planned = text.lines().find(|line| line.contains("to be allocated")).unwrap();
    let planned = planned.split(", beside").next().unwrap();
    assert!(run.ok().contains(planned), "{planned}");
    let online = Run::new(&temp, "online")
        .set("method", "rloo")
        .set("judge", "lexicon:nowhere.tsv")
        .set("max-completion-length", 8);
    let args = online.args();
    let output = Command::new(env!("CARGO_BIN_EXE_duel")).arg("plan").args(&args[1..]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("is not measured: steps would ask the judge"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Of several processes the first one's, which is less the more there are.
#[test]
fn a_plan_is_of_as_many_processes_as_are_asked_for() {
    let temp = Temp::with_model("plan-processes");
    let run = Run::new(&temp, "out").set("gradient-shares", 4);
    let planned = |processes: &str| {
        let (code, said) = looked("plan", &run, &["--format=json", "--processes", processes]);
        assert_eq!(code, Some(0), "{said}");
        serde_json::from_str::<Value>(&said).unwrap()
    };
    let (one, four) = (planned("1"), planned("4"));
    assert_eq!((&one["processes"], &four["processes"]), (&json!(1), &json!(4)));
    let moments = |plan: &Value| plan["bytes"]["moments"].as_u64().unwrap();
    assert!(moments(&four).abs_diff(moments(&one) / 4) <= 16, "{} of {}", moments(&four), moments(&one));
    assert!(!one["time"].is_null() && four["time"].is_null());
    let (_, text) = looked("plan", &run, &["--processes=4"]);
    for part in ["4 shares on 4 processes: rank 0 sends", "lie on the host", "measured of one process alone"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let (code, said) = looked("plan", &run, &["--processes=5"]);
    assert!(code == Some(1) && said.contains("`gradient_shares = 4` is less than the 5 processes"), "{said}");
}
