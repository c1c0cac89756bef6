//! Whole runs on a real model against TRL's metrics of the same runs, step for step.

mod common;

use common::{Run, Temp, shared_data, write_lines};
use duel_data::{Dataset, Options, Task, Tokenizer, Truncation, Whole};
use duel_train::report::{events, metrics, trackers};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

fn matches_trl(loss: &str) {
    let Some(data) = shared_data(&format!("parity with TRL, {loss}")) else { return };
    let golden = fs::read_to_string(data.join("golden/trl_stories260k_polite.json")).unwrap();
    let golden: Value = serde_json::from_str(&golden).unwrap();
    let golden = golden[loss].as_array().unwrap();

    let temp = Temp::new(&format!("parity-{loss}"));
    let rows = fs::read_to_string(data.join("preference/rasbt_polite_pairs.jsonl")).unwrap();
    let (train, model) = (temp.path("train.jsonl"), data.join("models/stories260k"));
    write_lines(&train, rows.lines().take(80));
    let run = Run::new(&temp, "out")
        .set("model", model.display())
        .set("max-length", 256)
        .set("lr-scheduler-type", "constant")
        .set("shuffle", false)
        .set("loss-type", loss)
        .set("max-steps", golden.len())
        .set("threads", 2);
    run.ok();

    let options = Options {
        task: Task::Preference,
        whole: Whole::default(),
        max_length: Some(256),
        truncation: Truncation::KeepStart,
    };
    let ds = Dataset::load(&train, &Tokenizer::from_dir(&model).unwrap(), &options).unwrap();
    let chosen: Vec<usize> = ds.groups().map(|g| g.responses().next().unwrap().len()).collect();

    let records = run.metrics();
    assert_eq!((records.len(), golden.len()), (10, 10));
    let mut wrong = Vec::new();
    for (i, (ours, theirs)) in records.iter().zip(golden).enumerate() {
        for (key, want) in theirs.as_object().unwrap() {
            let want = want.as_f64().unwrap();
            let got = ours.get(key).and_then(Value::as_f64).unwrap_or(f64::NAN);
            let tolerance = match key.as_str() {
                "loss" => 2e-4 * want.abs().max(1.0),
                "grad_norm" => 0.01 * want,
                "logps/chosen" | "logps/rejected" => 0.05,
                // One pair of eight can fall on the other side only where its margin is nearly 0.
                "rewards/accuracies" => 0.0,
                "rewards/chosen" | "rewards/rejected" | "rewards/margins" => 1e-3 * want.abs().max(1.0),
                "entropy" | "logits/chosen" | "logits/rejected" => 1e-3,
                // One token of slack, where two logits are nearly the same.
                "mean_token_accuracy" => 1.001 / chosen[8 * i..8 * i + 8].iter().sum::<usize>() as f64,
                "learning_rate" => 1e-12,
                "num_tokens" | "step" | "epoch" => 0.0,
                other => panic!("TRL's {other} is not compared"),
            };
            let within = (got - want).abs() <= tolerance;
            if !within {
                wrong.push(format!("step {} {key}: {got}, TRL has {want}", i + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// TRL's own arguments, as a recipe and on a command line: what they say is done, and the losses are TRL's.
#[test]
fn trls_arguments_run_as_they_are() {
    let Some(data) = shared_data("parity with TRL, its own arguments") else { return };
    let golden = fs::read_to_string(data.join("golden2/trl/dpo_options.json")).unwrap();
    let golden: Value = serde_json::from_str(&golden).unwrap();
    let temp = Temp::new("parity-recipe");
    let rows = fs::read_to_string(data.join("preference/rasbt_polite_pairs.jsonl")).unwrap();
    write_lines(&temp.path("train.jsonl"), rows.lines().take(80));
    let model = data.join("models/stories260k");
    for name in ["warmup_cosine", "sigmoid_sft"] {
        let config = golden["run_args"][name]["config"].as_object().unwrap();
        let (recipe, line) = (format!("{name}-recipe"), format!("{name}-line"));
        // What a script of TRL has beside: the model, the rows, where to write, and what changes no number.
        let arguments = |out: &str| {
            let beside = json!({
                "model_name_or_path": model,
                "dataset_name": temp.path("train.jsonl"),
                "dataset_train_split": "train",
                "output_dir": temp.path(out),
                "torch_dtype": "float32",
                "use_cpu": true,
                "save_strategy": "no",
                "eval_strategy": "no",
                "report_to": ["wandb"],
                "run_name": name,
                "optim": "adamw_torch_fused",
                "label_smoothing_factor": 0.0,
                "remove_unused_columns": false,
            });
            let all = beside.as_object().unwrap().iter().chain(config);
            all.map(|(key, value)| (key.clone(), value.clone())).collect::<Vec<_>>()
        };
        let duel = |args: &[String]| {
            let output = Command::new(env!("CARGO_BIN_EXE_duel")).args(args).output().unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(output.status.success(), "{args:?}: {said}");
            said
        };
        // YAML has JSON's values, and texts without quotes.
        let file = temp.path(&format!("{name}.yaml"));
        let env = format!("env:\n  XDG_CACHE_HOME: {}", temp.path("cache").display());
        let lines = arguments(&recipe).into_iter().map(|(key, value)| format!("{key}: {value}"));
        write_lines(&file, std::iter::once(env).chain(lines));
        let said = duel(&["dpo".into(), "--config".into(), file.display().to_string()]);
        assert!(said.contains("note: left out: `dtype`: "), "{said}");
        assert!(temp.path("cache/duel").is_dir(), "the environment of the recipe was not set");

        let text = |value: &Value| value.as_str().map_or(value.to_string(), str::to_owned);
        let mut args =
            vec!["dpo".to_owned(), "--cache_dir".into(), temp.path("cache/duel").display().to_string()];
        for (key, value) in arguments(&line) {
            args.push(format!("--{key}"));
            args.extend(value.as_array().map_or(vec![text(&value)], |all| all.iter().map(text).collect()));
        }
        duel(&args);

        let of =
            |dir: &str| duel_train::report::metrics::read(&temp.path(dir).join("metrics.jsonl")).unwrap();
        assert_eq!(of(&recipe), of(&line), "{name}");
        let theirs = golden[name].as_array().unwrap();
        assert_eq!(of(&recipe).len(), theirs.len());
        for (ours, theirs) in of(&recipe).iter().zip(theirs).take(4) {
            for key in ["loss", "learning_rate"] {
                let (got, want) = (ours[key].as_f64().unwrap(), theirs[key].as_f64().unwrap());
                assert!(
                    (got - want).abs() <= 2e-4 * want.abs().max(1e-2),
                    "{name} {key}: {got}, TRL has {want}"
                );
            }
        }
    }
}

/// What public recipes of DPO have, from model to seed; the command line names rows, and what would be too much here.
const RECIPE: &str = "
model_name_or_path: MODEL
torch_dtype: bfloat16
attn_implementation: flash_attention_2
dataset_mixer:
  org/preferences_binarized: 1.0
dataset_splits:
- train_prefs
- test_prefs
preprocessing_num_workers: 12
bf16: false
beta: 0.05
do_eval: true
evaluation_strategy: steps
eval_steps: 2
gradient_accumulation_steps: 2
gradient_checkpointing: true
gradient_checkpointing_kwargs:
  use_reentrant: False
hub_model_id: some-dpo-full
learning_rate: 5.0e-4
log_level: info
logging_steps: 1
lr_scheduler_type: cosine
max_length: 48
num_train_epochs: 1
optim: adamw_torch
output_dir: OUT
per_device_train_batch_size: 4
per_device_eval_batch_size: 8
push_to_hub: false
save_strategy: 'steps'
save_steps: 2
save_total_limit: 1
load_best_model_at_end: true
seed: 42
warmup_ratio: 0.1
report_to: [tensorboard, wandb]
";

/// The event file of a run says what its metrics say: to our own reader, and to TensorBoard where python3, or the
/// program that DUEL_PYTHON names, has it.
fn events_are_the_metrics(out: &Path) {
    let [file] = &trackers::event_files(out)[..] else { panic!("one event file") };
    let mut told: Vec<(String, i64, f64)> = Vec::new();
    for event in events::read(&fs::read(file).unwrap()) {
        if let events::What::Scalars(scalars) = event.what {
            told.extend(scalars.into_iter().map(|(tag, number)| (tag, event.step, f64::from(number))));
        }
    }
    let mut logged: Vec<(String, i64, f64)> = Vec::new();
    for record in metrics::read(&out.join("metrics.jsonl")).unwrap() {
        let evaluation = metrics::is_evaluation(&record);
        for (name, value) in
            record.iter().filter(|(name, _)| *name != "step" && !(evaluation && *name == "epoch"))
        {
            let tag =
                name.strip_prefix("eval_").map_or(format!("train/{name}"), |rest| format!("eval/{rest}"));
            let number = value.as_f64().unwrap() as f32;
            logged.push((tag, record["step"].as_i64().unwrap(), f64::from(number)));
        }
    }
    assert!(logged.len() > 20 && told == logged, "{told:?}\n{logged:?}");
    const READER: &str = "import json, sys\n\
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator\n\
        all = EventAccumulator(sys.argv[1])\n\
        all.Reload()\n\
        print(json.dumps([[t, e.step, e.value] for t in all.Tags()['scalars'] for e in all.Scalars(t)]))";
    let python = std::env::var("DUEL_PYTHON").unwrap_or_else(|_| "python3".into());
    let read = Command::new(&python).args(["-c", READER]).arg(file.parent().unwrap()).output();
    let Some(read) = read.ok().filter(|read| read.status.success()) else {
        // Not eprintln: the test harness would keep that to itself.
        let what = "SKIPPED: TensorBoard is not installed for";
        drop(writeln!(std::io::stderr(), "{what} {python} (DUEL_PYTHON names another)"));
        return;
    };
    let mut theirs: Vec<(String, i64, f64)> = serde_json::from_slice(&read.stdout).unwrap();
    let order = |a: &(String, i64, f64), b: &(String, i64, f64)| (&a.0, a.1).cmp(&(&b.0, b.1));
    theirs.sort_by(order);
    logged.sort_by(order);
    assert_eq!(theirs, logged);
}

#[test]
fn a_recipe_as_the_public_ones_runs_to_its_end() {
    let temp = Temp::with_model("recipe");
    let path = |name: &str| temp.path(name).display().to_string();
    let recipe = RECIPE.replace("MODEL", &path("model")).replace("OUT", &path("out"));
    fs::write(temp.path("recipe.yaml"), recipe).unwrap();
    let duel = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_duel"));
        command.env("HF_HUB_OFFLINE", "1").env("HF_HUB_CACHE", temp.path("hub"));
        let output = command.args(args).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap() + &String::from_utf8(output.stdout).unwrap();
        (output.status.success(), said)
    };
    let (done, said) = duel(&["train", &path("recipe.yaml"), "--device", "cpu"]);
    assert!(!done && said.contains("org/preferences_binarized") && said.contains("HF_HUB_OFFLINE"), "{said}");
    let (train, eval, cache) = (path("train.jsonl"), path("eval.jsonl"), path("cache"));
    let rows = ["--dataset", &train, "--eval-dataset", &eval, "--cache-dir", &cache, "--device", "cpu"];
    let (done, said) = duel(&[&["dpo", "--config", &path("recipe.yaml")], &rows[..]].concat());
    assert!(done, "{said}");
    assert!(said.contains("note: left out: `report_to = wandb`: "), "{said}");
    events_are_the_metrics(&temp.path("out"));
    let json = |name: &str| -> Value {
        serde_json::from_slice(&fs::read(temp.path("out").join(name)).unwrap()).unwrap()
    };
    let state = json("trainer_state.json");
    let history = state["log_history"].as_array().unwrap();
    let evaluated: Vec<u64> = history
        .iter()
        .filter(|log| log.get("eval_loss").is_some())
        .filter_map(|log| log["step"].as_u64())
        .collect();
    assert_eq!((state["global_step"].as_u64(), evaluated), (Some(5), vec![2, 4, 5]));
    assert!((history[0]["loss"].as_f64().unwrap() - std::f64::consts::LN_2).abs() < 1e-15);
    let losses: Vec<f64> = history.iter().filter_map(|log| log.get("loss")?.as_f64()).collect();
    let mean = losses.iter().sum::<f64>() / losses.len() as f64;
    let last = history.last().unwrap();
    assert!((last["train_loss"].as_f64().unwrap() - mean).abs() < 1e-12, "{last} {mean}");
    assert!(last["train_runtime"].is_number() && last["total_flos"].as_f64() > Some(0.0), "{last}");
    let all = json("all_results.json");
    assert_eq!((&all["train_loss"], &all["epoch"]), (&last["train_loss"], &1.0.into()));
    assert_eq!(all["eval_loss"], json("eval_results.json")["eval_loss"]);
    let best = format!("checkpoint-{}/trainer_state.json", state["best_global_step"]);
    assert_eq!(json(&best)["best_metric"], state["best_metric"]);

    // Imported, it is the same run.
    let (done, toml) = duel(&["import", &path("recipe.yaml")]);
    assert!(done && toml.contains("org/preferences_binarized") && toml.contains("train_prefs"), "{toml}");
    fs::write(temp.path("imported.toml"), toml).unwrap();
    let (imported, again) = (path("imported.toml"), path("again"));
    let (done, said) = duel(&[&["train", &imported, "--output-dir", &again], &rows[..]].concat());
    assert!(done, "{said}");
    let weights = |out: &str| fs::read(temp.path(out).join("model.safetensors")).unwrap();
    assert!(weights("out") == weights("again"), "an imported recipe is another run");
}

#[test]
fn sigmoid_matches_trl() {
    matches_trl("sigmoid");
}

#[test]
fn ipo_matches_trl() {
    matches_trl("ipo");
}

#[test]
fn hinge_matches_trl() {
    matches_trl("hinge");
}
