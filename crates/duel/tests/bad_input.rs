//! What a user can get wrong, and what the machine can: each ends in one clear message, and nothing is damaged.

mod common;

use common::{
    Ended, Run, Temp, assert_same, pairs, tiny_config, tiny_reward_config, write_lines, write_model,
};
use duel_cpu::Cpu;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The run fails with one message that holds all `parts`, and leaves nothing in the output folder.
fn refused(run: &Run, parts: &[&str]) {
    let ended = run.go();
    let error = ended.error();
    for part in parts {
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
    let out = run.out();
    let left = || fs::read_dir(&out).unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>();
    assert!(!out.is_dir(), "left behind after {error}: {:?}", left());
}

/// A run on rows that are written to a file of this name.
fn with_rows(temp: &Temp, file: &str, rows: impl IntoIterator<Item = impl std::fmt::Display>) -> Run {
    write_lines(&temp.path(file), rows);
    Run::new(temp, "out").set("dataset", temp.path(file).display())
}

/// A text that is doubled in a variable: few instructions, and soon all memory.
#[test]
fn a_template_without_bounds_is_an_error() {
    let temp = Temp::with_model("unbounded");
    let doubling =
        "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}";
    fs::write(temp.path("model/chat_template.jinja"), doubling).unwrap();
    let turn = |role: &str| json!({"role": role, "content": "the film"});
    let run = with_rows(&temp, "turns.jsonl", [json!({"messages": [turn("user"), turn("assistant")]})]);
    refused(&run.set("method", "sft"), &["the chat template of", "model", "1024 MB", "look at the template"]);
}

#[test]
fn broken_rows_are_named() {
    let temp = Temp::with_model("rows");
    let with = |file: &str, row: &str| {
        let mut rows: Vec<String> = pairs(9, 1).iter().map(Value::to_string).collect();
        rows[6] = row.into();
        if file.ends_with(".json") {
            rows = vec![format!("[{}]", rows.join(",\n"))];
        }
        with_rows(&temp, file, rows)
    };
    for file in ["broken.jsonl", "broken.json"] {
        refused(&with(file, r#"{"prompt": "a", "chosen": "b", "#), &[file, "row 7", "broken JSON"]);
        refused(&with(file, r#"{"prompt": "a", "chosen": "b"}"#), &[file, "row 7", "`rejected`"]);
        refused(
            &with(file, r#"{"prompt": "a", "chosen": "", "rejected": "c"}"#),
            &[file, "row 7", "`chosen`", "empty"],
        );
        refused(
            &with(file, r#"{"prompt": "a", "chosen": 3, "rejected": "c"}"#),
            &[file, "row 7", "`chosen`"],
        );
        refused(&with(file, r#"[1, 2]"#), &[file, "row 7", "not an object"]);
    }
    refused(
        &with("label.jsonl", r#"{"prompt": "a", "completion": "b", "label": true}"#),
        &["row 7", "label"],
    );
}

#[test]
fn files_that_hold_no_usable_data_are_named() {
    let temp = Temp::with_model("files");
    let run = Run::new(&temp, "out");
    refused(&run.clone().set("max-length", 2), &["train.jsonl", "max_length", "40 rows"]);
    refused(&with_rows(&temp, "empty.jsonl", [""; 0]), &["empty.jsonl", "no rows"]);
    let same = json!({"prompt": "the film", "chosen": " is good", "rejected": " is good"});
    refused(&with_rows(&temp, "same.jsonl", [same]), &["same.jsonl", "identical"]);
    refused(&with_rows(&temp, "data.xlsx", ["a,b"]), &["data.xlsx", ".jsonl", ".json"]);
    fs::write(temp.path("latin.jsonl"), b"{\"prompt\": \"\xe9\", \"chosen\": \"a\", \"rejected\": \"b\"}\n")
        .unwrap();
    refused(&run.clone().set("dataset", temp.path("latin.jsonl").display()), &["latin.jsonl", "row 1"]);
    refused(&run.clone().set("dataset", temp.path("none.jsonl").display()), &["none.jsonl", "No such file"]);
    fs::create_dir(temp.path("folder")).unwrap();
    refused(
        &run.clone().set("dataset", temp.path("folder").display()),
        &["folder: has no file of rows (.jsonl"],
    );
    refused(
        &run.clone().set("eval-dataset", temp.path("nothing.jsonl").display()),
        &["nothing.jsonl", "No such file"],
    );
}

#[test]
fn unknown_and_contradictory_keys_are_named() {
    let temp = Temp::with_model("keys");
    let run = Run::new(&temp, "out");
    refused(&run.clone().set("learning-rat", 1), &["learning-rat"]);
    let printed = run.clone().set("learning-rat", 1).go().stderr;
    assert!(printed.contains("--learning-rate"), "{printed}");
    refused(&run.clone().set("beta", "much"), &["much", "--beta"]);
    refused(&run.clone().set("use_dora", true), &["`use_dora` is not supported", "remove it"]);
    refused(
        &run.clone().set("metric_for_best_model", "loss").set("save-steps", 1.5),
        &["1.5", "whole number"],
    );
    refused(&run.clone().set("loss-type", "sigmod"), &["sigmod", "sigmoid"]);
    refused(&run.clone().set("beta", 0), &["`beta = 0`", "above 0"]);
    refused(
        &run.clone().set("loss-type", "ipo").set("label-smoothing", 0.1),
        &["`label_smoothing`", "no effect"],
    );
    refused(&run.clone().resume().set("overwrite-output-dir", true), &["overwrite_output_dir", "keep one"]);
    refused(&run.clone().set("warmup-steps", 1).set("warmup-ratio", 0.1), &["warmup_ratio", "keep one"]);
    let mut wide = tiny_config();
    wide["intermediate_size"] = 48.into();
    write_model(&temp.path("wide"), wide);
    let against = run.clone().set("ref-model", temp.path("wide").display());
    refused(&against, &["wide", "another shape", "`ref_model`"]);
    refused(&against.set("method", "sft"), &["`ref_model`", "no loss needs a reference"]);

    let file = temp.path("run.toml");
    let toml = |text: &str| {
        fs::write(&file, text).unwrap();
        let ended = Ended::of(run.command().arg(&file).output().unwrap());
        assert!(!run.out().exists());
        ended.error().to_string() + &ended.stderr
    };
    let error = toml("learning_rat = 1e-3");
    assert!(error.contains("run.toml: unknown key `learning_rat`; did you mean `learning_rate`?"), "{error}");
    assert!(toml("seed = 1\nfp16 = true").contains("`fp16` is not supported"));
    assert!(toml("seed = \"x\"").contains("run.toml: `seed`"));
    let error = toml("seed = 1\nseed = ");
    assert!(error.contains("run.toml") && error.contains("line 2"), "{error}");
    assert!(toml("generate_during_eval = true").contains("give `eval_dataset`"));

    let recipe = temp.path("run.yaml");
    let yaml = |text: &str| {
        fs::write(&recipe, text).unwrap();
        let ended = Ended::of(run.command().arg(&recipe).output().unwrap());
        assert!(!run.out().exists());
        ended.error().to_string()
    };
    assert!(yaml("seed: 1\nbeta:\n\t- 1").contains("run.yaml: line 3: is indented by a tab"));
    assert!(yaml("seed: 1\nfp16: true").contains("run.yaml: line 2: `fp16` is not supported"));
    assert!(yaml("seed: 1\nlearning_rat: 1").contains("line 2: unknown key `learning_rat`"));
    assert!(yaml("seed: x").contains("line 1: `seed = x`"));
    assert!(yaml("env: {'A=B': c}").contains("`env`: A=B cannot be set"));
    assert!(yaml("load_best_model_at_end: true").contains("give `eval_dataset`"));

    let missing =
        Ended::of(Command::new(env!("CARGO_BIN_EXE_duel")).args(["train", "--seed", "1"]).output().unwrap());
    assert!(missing.error().contains("`model` is missing: give --model"), "{}", missing.stderr);
    let missing = run.command().arg(temp.path("no.toml")).output().unwrap();
    assert!(Ended::of(missing).error().contains("no.toml"));
}

/// Before the model is read; what takes less is named with its numbers.
#[test]
fn what_does_not_fit_the_memory_is_said_first() {
    let temp = Temp::with_model("memory");
    let said = |run: &Run| {
        let ended = Ended::of(run.command().env("DUEL_MEMORY", "1").output().unwrap());
        assert!(!run.out().is_dir() && !ended.stderr.contains("reference log-probs"), "{}", ended.stderr);
        ended.error().to_owned()
    };
    let error = said(&Run::new(&temp, "out"));
    for part in [
        "would take 0.0",
        "GB: weights 0.0",
        "and 0.00 GB of memory are free",
        "GB with gradient_checkpointing, ",
        "GB with micro_batch_tokens = ",
        "GB with lora_r = 16 and lora_target_modules = all-linear and load_in_8bit, ",
        "all-linear and load_in_4bit and gradient_checkpointing and micro_batch_tokens = ",
        "a smaller max_length",
    ] {
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
    assert!(!error.contains("(fits)"), "{error}");
    let error = said(&Run::new(&temp, "out").set("lora-r", 2).set("load-in-4bit", true));
    assert!(!error.contains("lora_r") && error.contains("in 4-bit blocks"), "{error}");
    // Enough, beside what the process itself has.
    let run = Run::new(&temp, "out").set("max-steps", 1);
    let ended = Ended::of(run.command().env("DUEL_MEMORY", (1u64 << 30).to_string()).output().unwrap());
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

#[test]
fn adapters_that_cannot_be_are_named() {
    let temp = Temp::with_model("adapters");
    let run = Run::new(&temp, "out");
    refused(&run.clone().set("lora-alpha", 3), &["`lora_alpha`", "no effect without `lora_r`"]);
    for key in ["load-in-8bit", "load-in-4bit"] {
        refused(
            &run.clone().set(key, true),
            &[&format!("`{}`", key.replace('-', "_")), "adapters", "lora_r"],
        );
    }
    refused(&run.clone().set("dtype", "bfloat16"), &["`dtype = bfloat16`", "lora_r", "`bf16`"]);
    let run = run.set("lora-r", 2);
    refused(&run.clone().set("load-in-8bit", true).set("load-in-4bit", true), &["are both set"]);
    refused(&run.clone().set("lora-r", 0), &["`lora_r = 0`", "at least 1"]);
    refused(&run.clone().set("lora-dropout", 1), &["`lora_dropout = 1`", "below 1"]);
    refused(&run.clone().set("sync-ref-model", true), &["`sync_ref_model`", "adapters"]);
    let to = |names: &str| run.clone().set("lora-target-modules", names);
    refused(
        &to("q_proj,c_attn"),
        &["`c_attn`", "q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj"],
    );
    refused(&to("lm_head"), &["`lm_head`", "modules_to_save"]);
    refused(&to(".*(q_proj"), &["`.*(q_proj`", "regular expression"]);
    refused(&to(".*none"), &["no map of the model is adapted", "q_proj"]);
    let saved = |names: &str| run.clone().set("modules-to-save", names);
    refused(&saved("embed_tokens"), &["`embed_tokens`", "the model's head is its embedding"]);
    refused(&saved("k_proj"), &["`model.layers.0.self_attn.k_proj`", "one matrix with"]);
    refused(&saved("nothing"), &["`nothing`", "no module"]);
    let adapter = run.clone().set("max-steps", 1);
    adapter.ok();
    let on = Run::new(&temp, "on").set("model", adapter.out().display());
    refused(&on.clone().set("lora-r", 2), &["has an adapter", "duel merge"]);
    refused(&on.clone().set("sync-ref-model", true), &["`sync_ref_model`", "adapters"]);
    refused(&on.set("method", "reward"), &["adapter of a language model", "merge"]);
    let merged = |model: &Path, to: &Path| {
        let args = [
            "merge".as_ref(),
            "--model".as_ref(),
            model.as_os_str(),
            "--output-dir".as_ref(),
            to.as_os_str(),
        ];
        Ended::of(Command::new(env!("CARGO_BIN_EXE_duel")).args(args).output().unwrap())
    };
    let merge = |model: &Path, to: &Path| merged(model, to).error().to_owned();
    assert!(merge(&temp.path("model"), &temp.path("merged")).contains("nothing to merge"));
    assert!(merge(&adapter.out(), &temp.path("model")).contains("holds a model already (model.safetensors)"));
    // Finite numbers whose products are not.
    let path = adapter.out().join("adapter_model.safetensors");
    let mut huge = fs::read(&path).unwrap();
    let data = 8 + u64::from_le_bytes(huge[..8].try_into().unwrap()) as usize;
    huge[data..].as_chunks_mut().0.fill(1e30f32.to_le_bytes());
    fs::write(&path, huge).unwrap();
    assert!(
        merge(&adapter.out(), &temp.path("infinite")).contains("of the merged model would not be finite")
    );
    assert!(!temp.path("infinite/model.safetensors").exists());
    // PEFT names both of what a model with a score may have.
    let scored = Run::new(&temp, "scored").set("method", "reward").set("lora-r", 2).set("max-steps", 1);
    scored.ok();
    edit_json(
        &scored.out().join("adapter_config.json"),
        "modules_to_save",
        json!(["score", "classifier", "score"]),
    );
    let ended = merged(&scored.out(), &temp.path("whole"));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

/// A copy of the tiny model with something wrong.
fn broken_model(temp: &Temp, name: &str, damage: impl FnOnce(&Path)) -> Run {
    let dir = temp.path(name);
    write_model(&dir, tiny_config());
    damage(&dir);
    Run::new(temp, "out").set("model", dir.display())
}

fn edit_config(dir: &Path, key: &str, value: Value) {
    edit_json(&dir.join("config.json"), key, value);
}

fn edit_json(path: &Path, key: &str, value: Value) {
    let mut config: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    config[key] = value;
    fs::write(path, config.to_string()).unwrap();
}

#[test]
fn broken_models_are_named() {
    let temp = Temp::with_model("models");
    refused(&Run::new(&temp, "out").set("model", temp.path("nowhere").display()), &["nowhere"]);
    let set = |name: &str, key: &str, value: Value| broken_model(&temp, name, |d| edit_config(d, key, value));
    refused(&set("mamba", "model_type", json!("mamba")), &["mamba/config.json", "`mamba`", "llama"]);
    refused(
        &set("wide", "hidden_size", json!(64)),
        &["wide/model.safetensors", "model.embed_tokens.weight", "shape"],
    );
    refused(
        &set("deep", "num_hidden_layers", json!(3)),
        &["deep/model.safetensors", "model.layers.2", "missing"],
    );
    refused(&set("few", "vocab_size", json!("many")), &["few/config.json", "many"]);

    let cut = broken_model(&temp, "cut", |d| {
        let path = d.join("model.safetensors");
        let bytes = fs::read(&path).unwrap();
        fs::write(path, &bytes[..bytes.len() - 100]).unwrap();
    });
    refused(&cut, &["cut/model.safetensors", "whole safetensors file", "again"]);

    let nan = broken_model(&temp, "nan", |d| {
        let path = d.join("model.safetensors");
        let mut bytes = fs::read(&path).unwrap();
        let end = bytes.len();
        bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
        fs::write(path, bytes).unwrap();
    });
    refused(&nan, &["nan/model.safetensors", "tensor `model.", "not finite"]);

    let mute = broken_model(&temp, "mute", |d| fs::remove_file(d.join("tokenizer.json")).unwrap());
    refused(&mute, &["mute", "tokenizer.json"]);

    // Embeddings for the first 100 tokens, and a tokenizer with more.
    let mut small = tiny_config();
    small["vocab_size"] = json!(100);
    write_model(&temp.path("small"), small);
    refused(&Run::new(&temp, "out").set("model", temp.path("small").display()), &["small", "100 embeddings"]);
}

/// Neither training on texts nor writing them is for a model that only scores.
#[test]
fn a_reward_model_has_no_words() {
    let temp = Temp::with_model("reward");
    let dir = temp.path("judge");
    write_model(&dir, tiny_reward_config());
    let parts = ["judge/config.json", "LlamaForSequenceClassification", "--method reward"];
    for method in ["sft", "dpo"] {
        refused(&Run::new(&temp, "out").set("model", dir.display()).set("method", method), &parts);
    }
    let mut generate = Command::new(env!("CARGO_BIN_EXE_duel"));
    let ended = Ended::of(
        generate.arg("generate").arg("--model").arg(&dir).args(["--prompt", "hello"]).output().unwrap(),
    );
    parts.iter().for_each(|part| assert!(ended.error().contains(part), "{}", ended.stderr));
}

#[test]
fn output_folders_are_not_overwritten_unasked() {
    let temp = Temp::with_model("output");
    let run = Run::new(&temp, "out").set("save-steps", 3);
    run.ok();
    let before = (run.file("model.safetensors"), run.file("metrics.jsonl"), run.file("duel.toml"));
    let unchanged = |run: &Run, parts: &[&str]| {
        let ended = run.go();
        parts.iter().for_each(|part| assert!(ended.error().contains(part), "`{part}`: {}", ended.error()));
        let now = ["model.safetensors", "metrics.jsonl", "duel.toml"]
            .map(|name| fs::read(temp.path("out").join(name)).unwrap());
        assert!([&before.0, &before.1, &before.2].into_iter().eq(&now), "{}", ended.error());
        assert_eq!(Run::new(&temp, "out").checkpoints(), [3, 6]);
    };
    unchanged(&run, &["out already holds a run", "--resume-from-checkpoint", "--overwrite-output-dir"]);
    unchanged(&run.clone().resume().set("beta", 0.2), &["beta was 0.1 and is now 0.2", "set them back"]);
    unchanged(&run.clone().resume().set("max-steps", 9), &["max_steps was 6 and is now 9"]);
    let from = |path: PathBuf| run.clone().set("resume-from-checkpoint", path.display());
    unchanged(&from(temp.path("model")), &["model/duel_state.json", "checkpoint folder"]);
    unchanged(&from(temp.path("nowhere")), &["nowhere"]);
    unchanged(&run.clone().set("model", temp.path("out").display()), &["out"]);
    // Another folder's checkpoint does not open this one, nor the model's.
    let other = Run::new(&temp, "other").set("save-steps", 3);
    other.ok();
    unchanged(&from(temp.path("other/checkpoint-3")), &["out already holds a run", "another --output-dir"]);
    let model = fs::read(temp.path("model/model.safetensors")).unwrap();
    let onto =
        Run::new(&temp, "model").set("resume-from-checkpoint", temp.path("other/checkpoint-3").display());
    assert!(onto.go().error().contains("is the model's own folder"));
    assert!(fs::read(temp.path("model/model.safetensors")).unwrap() == model, "the model is another one");
    // Without a checkpoint there is nothing to go on from.
    fs::create_dir(temp.path("begun")).unwrap();
    fs::write(temp.path("begun/metrics.jsonl"), "").unwrap();
    let begun = Run::new(&temp, "begun").go();
    assert!(
        begun.error().contains("the beginning of a run, without a checkpoint; give --overwrite"),
        "{}",
        begun.error()
    );
    refused(&Run::new(&temp, "fresh").resume(), &["fresh holds no checkpoint", "resume_from_checkpoint"]);

    // A checkpoint that a disk has damaged.
    for (file, part) in [
        ("optimizer.safetensors", "whole safetensors file"),
        ("model.safetensors", "whole safetensors file"),
        ("duel_state.json", "earlier checkpoint"),
        ("duel.toml", "duel.toml"),
    ] {
        let path = temp.path("out/checkpoint-6").join(file);
        let good = fs::read(&path).unwrap();
        fs::write(&path, &good[..good.len() / 2]).unwrap();
        unchanged(&run.clone().resume(), &["checkpoint-6", file, part]);
        fs::write(&path, good).unwrap();
    }
    // Other numbers of the right size: a bit that a disk has turned, another step's file.
    for file in ["optimizer.safetensors", "model.safetensors"] {
        let path = temp.path("out/checkpoint-6").join(file);
        let good = fs::read(&path).unwrap();
        let mut turned = good.clone();
        *turned.last_mut().unwrap() ^= 1;
        for bad in [turned, fs::read(temp.path("out/checkpoint-3").join(file)).unwrap()] {
            assert_eq!(bad.len(), good.len());
            fs::write(&path, bad).unwrap();
            unchanged(&run.clone().resume(), &["checkpoint-6", file, "is not what was saved"]);
        }
        fs::write(&path, good).unwrap();
    }
    run.clone().resume().ok();
    run.set("overwrite-output-dir", true).set("beta", 0.2).ok();
}

/// A prompt is computed once, and cannot be turned in both of LongRoPE's ways.
#[test]
fn responses_on_both_sides_of_a_short_context() {
    let temp = Temp::with_model("longrope");
    let mut config = common::tiny_config();
    config["rope_parameters"] = json!({"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1, 1, 1, 1],
        "long_factor": [1, 2, 3, 4], "original_max_position_embeddings": 6, "factor": 10.0});
    common::write_model(&temp.path("model"), config);
    let rows = [("a a a", "a", "a a"), ("a a a", "a a", "a a a a a a")];
    let rows = rows
        .map(|(prompt, chosen, rejected)| json!({"prompt": prompt, "chosen": chosen, "rejected": rejected}));
    common::write_lines(&temp.path("train.jsonl"), rows);
    let run = Run::new(&temp, "out");
    refused(&run, &["row 2: has a response that ends within 6 tokens", "give max_length = 6"]);
    run.set("max-length", 6).set("per-device-train-batch-size", 1).ok();
}

#[test]
fn an_output_folder_that_cannot_be_is_named_before_any_work() {
    let temp = Temp::with_model("file");
    fs::write(temp.path("out"), "a file").unwrap();
    for out in ["out", "out/deeper"] {
        let ended = Run::new(&temp, out).go();
        assert!(ended.error().contains(&format!("{out} cannot be made")), "{}", ended.error());
        assert!(!temp.path("cache").exists(), "the reference was computed for nothing");
        assert_eq!(fs::read_to_string(temp.path("out")).unwrap(), "a file");
    }
    let cache = Run::new(&temp, "other").set("cache-dir", temp.path("out").display()).go();
    assert!(cache.error().contains("set cache_dir to a folder with room"), "{}", cache.error());
}

#[test]
fn divergence_names_step_and_tensor_and_spares_checkpoints() {
    let temp = Temp::with_model("diverge");
    let run = Run::new(&temp, "out")
        .set("learning-rate", 1e30)
        .set("lr-scheduler-type", "constant_with_warmup")
        .set("warmup-steps", 1)
        .set("save-steps", 1);
    // The first step has rate 0, the second ruins the weights, the third finds out.
    let ended = run.go();
    for part in ["step 3:", "loss is", "`model.", "rows ", "lower learning_rate", "checkpoint-"] {
        assert!(ended.error().contains(part), "`{part}`: {}", ended.error());
    }
    let checkpoint = duel_model::Folder::open(&run.out().join("checkpoint-1")).unwrap();
    duel_model::load(&Cpu::<f32>::new(1), &checkpoint).unwrap();
    assert!(!run.out().join("model.safetensors").exists());
    assert_eq!(run.half_written(), Vec::<String>::new());
    assert_eq!(run.metrics().len(), 2, "the last record is that of the last good step");
}

/// A mounted file system, unmounted with the value.
struct Mount(PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        drop(Command::new("umount").arg(&self.0).status());
    }
}

#[test]
fn a_full_disk_spares_the_earlier_checkpoints() {
    let temp = Temp::with_model("full");
    fs::create_dir(temp.path("disk")).unwrap();
    let mount = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1200k", "tmpfs"])
        .arg(temp.path("disk"))
        .output();
    if !mount.is_ok_and(|m| m.status.success()) {
        // Not eprintln: the test harness would keep that to itself.
        {
            use std::io::Write as _;
            drop(writeln!(std::io::stderr(), "SKIPPED: a full disk: no file system can be mounted here"));
        }
        return;
    }
    let _mount = Mount(temp.path("disk"));
    let run = |out: &str| {
        Run::new(&temp, out).set("save-steps", 2).set("save-total-limit", "none").set("max-steps", 12)
    };
    let whole = run("whole");
    whole.ok();
    let full = run("disk/out");
    let ended = full.go();
    for part in ["the checkpoint of step", "could not be saved", "No space left on device", "is whole"] {
        assert!(ended.error().contains(part), "`{part}`: {}", ended.error());
    }
    let saved = full.checkpoints();
    assert!(!saved.is_empty() && saved.len() < 6, "the disk has a wrong size: {saved:?}");
    assert_eq!(full.half_written(), Vec::<String>::new());
    let newest = full.out().join(format!("checkpoint-{}", saved.last().unwrap()));
    let elsewhere = run("elsewhere").set("resume-from-checkpoint", newest.display());
    elsewhere.ok();
    assert_same(&whole, &elsewhere, &["model.safetensors"]);
}

#[test]
fn a_file_that_may_not_grow_spares_the_earlier_checkpoints() {
    let temp = Temp::with_model("limit");
    let run = |out: &str| Run::new(&temp, out).set("save-steps", 2).set("save-total-limit", "none");
    let whole = run("whole");
    whole.ok();
    let limited = run("limited");
    limited.ok();
    for step in [4, 6] {
        fs::remove_dir_all(limited.out().join(format!("checkpoint-{step}"))).unwrap();
    }
    // Blocks of 512 bytes: first too few for the weights, then enough for them and too few for the moments.
    let weights = limited.file("checkpoint-2/model.safetensors").len();
    for (bytes, file) in [(weights / 2, "model.safetensors"), (weights * 3 / 2, "optimizer.safetensors")] {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -f $0; exec \"$@\"", &(bytes / 512).to_string()]);
        command.arg(env!("CARGO_BIN_EXE_duel")).args(limited.clone().resume().args());
        let ended = Ended::of(command.output().unwrap());
        for part in ["the checkpoint of step 4 could not be saved", file, "checkpoint-2 is whole"] {
            assert!(ended.error().contains(part), "`{part}`: {}", ended.error());
        }
        assert_eq!(limited.checkpoints(), [2]);
        assert_eq!(limited.half_written(), Vec::<String>::new());
    }
    limited.clone().resume().ok();
    assert_same(&whole, &limited, common::RESULT);
}

/// What nobody can read ends no run; an answer that cannot be written is an error, and none of duel's own.
#[test]
#[cfg(target_os = "linux")]
fn full_disks_under_what_is_said() {
    let temp = Temp::with_model("said");
    let run =
        Run::new(&temp, "out").set("eval-dataset", temp.path("eval.jsonl").display()).set("save-steps", 3);
    let run = run.set("eval-strategy", "steps").set("eval-steps", 3).set("load-best-model-at-end", true);
    let command = |to: &str, args: &[String]| {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("exec \"$@\" {to}"), "sh", env!("CARGO_BIN_EXE_duel")]).args(args);
        command.output().unwrap()
    };
    let done = command("2>/dev/full", &run.args());
    assert!(done.status.success(), "{:?}", done.status);
    assert!(!run.file("model.safetensors").is_empty() && !run.file("train_results.json").is_empty());
    let report = |to: &str| {
        let [run, to] = ["out", to].map(|name| temp.path(name).display().to_string());
        ["report".to_owned(), run, "--output".to_owned(), to]
    };
    // It takes the place of a page, and of nothing else.
    let over = command("", &report("out/metrics.jsonl"));
    assert!(
        String::from_utf8_lossy(&over.stderr).contains("metrics.jsonl: is there already, and is no page")
    );
    for _ in 0..2 {
        assert!(command("", &report("r.html")).status.success());
    }
    let lost = command(">/dev/full", &report("r.html"));
    let said = String::from_utf8_lossy(&lost.stderr);
    assert!(
        lost.status.code() == Some(1) && said.starts_with("error: standard output: "),
        "{:?} {said}",
        lost.status
    );
}

/// Names that the cache does not have, or not whole: before anything is read, one sentence with what to do.
#[test]
fn names_that_are_not_to_be_had_are_refused() {
    let temp = Temp::with_model("names");
    let commit = common::write_hub(&temp);
    let named = Run::new(&temp, "out").set("model", "org/name").set("dataset", "org/rows");
    let wrong = |run: &Run, parts: &[&str]| {
        let ended = Ended::of(common::in_hub(run.command(), &temp).output().unwrap());
        for part in parts {
            assert!(ended.error().contains(part), "`{part}` is not in: {}", ended.error());
        }
        assert!(!run.out().exists(), "{}", ended.error());
    };
    let set = |key: &str, value: &str| named.clone().set(key, value);
    let cure = "unset it, or run `hf download ";
    wrong(&set("model", "org/other"), &["org/other: there is no such file or folder, and no model", cure]);
    wrong(
        &set("model-revision", "v2"),
        &["org/name: the cache", "has no revision v2 of it; it has main", cure],
    );
    wrong(&set("ref-model", "org/name@v2"), &["has no revision v2"]);
    wrong(&set("dataset", "org/other"), &["no dataset of that name", "org/other --repo-type dataset`"]);
    wrong(
        &set("dataset-train-split", "dev"),
        &["org/rows: its snapshot in the cache", "has no split dev; there are train, test"],
    );
    wrong(
        &set("dataset-config", "en"),
        &["org/rows: its snapshot", "has no configuration en; there are default"],
    );
    wrong(&set("data-files", "x.csv"), &["has no file x.csv"]);
    let file = temp.path("train.jsonl");
    let of_file = |key: &str, value: &str| set("dataset", file.to_str().unwrap()).set(key, value);
    wrong(&of_file("dataset-train-split", "dev"), &["train.jsonl: is one file, and has no split dev"]);
    wrong(&of_file("dataset-config", "en"), &["train.jsonl: is one file, and has no configuration"]);
    wrong(&of_file("dataset-revision", "v2"), &["`dataset_revision = v2` has no effect on", "train.jsonl"]);
    let part =
        temp.path(&format!("hub/datasets--org--rows/snapshots/{commit}/data/train-00001-of-00002.jsonl"));
    fs::write(&part, "{\"prompt\": 1}\n").unwrap();
    wrong(&named, &["data/train-00001-of-00002.jsonl: row 1: "]);
    fs::remove_file(&part).unwrap();
    wrong(&named, &["lacks part 1 of the 2 of data/train", cure]);
    let weights = temp.path(&format!("hub/models--org--name/snapshots/{commit}/model.safetensors"));
    fs::remove_file(&weights).unwrap();
    wrong(&named, &["org/name: its snapshot in the cache", "lacks model.safetensors", cure]);
    std::os::unix::fs::symlink("../../blobs/0", &weights).unwrap();
    wrong(&named, &["model.safetensors: is a link to ../../blobs/0, which is not there", cure]);
}

/// A checkpoint whose data or model is not what it was made with.
#[test]
fn changed_content_does_not_resume() {
    let temp = Temp::with_model("content");
    for (method, cut) in [("dpo", "train.jsonl"), ("sft", "train.jsonl"), ("dpo", "model/config.json")] {
        let out = format!("{method}-{}", cut.len());
        let run = Run::new(&temp, &out).set("method", method).set("max-steps", 2);
        run.ok();
        let path = temp.path(cut);
        let text = std::fs::read_to_string(&path).unwrap();
        let other =
            if cut.ends_with(".jsonl") { text.replacen(" the ", " a ", 1) } else { format!("{text} ") };
        assert_ne!(text, other);
        std::fs::write(&path, other).unwrap();
        let ended = run.clone().resume().go();
        assert!(ended.error().contains("other content"), "{}", ended.stderr);
        std::fs::write(&path, text).unwrap();
        run.resume().ok();
    }
}

/// The very last step breaks the weights: nothing of them is saved.
#[test]
fn weights_that_are_not_finite_are_not_saved() {
    let temp = Temp::with_model("notfinite");
    let run = Run::new(&temp, "out").set("max-steps", 1).set("learning-rate", 1e300);
    let ended = run.go();
    assert!(ended.error().contains("not finite"), "{}", ended.stderr);
    assert!(run.checkpoints().is_empty() && !run.out().join("model.safetensors").exists());
}

/// Clearing the output folder must not clear what the run reads.
#[test]
fn overwriting_spares_the_model() {
    let temp = Temp::with_model("spare");
    let run = Run::new(&temp, "out").set("max-steps", 1);
    run.ok();
    let model = run.out().join("checkpoint-1");
    let ended = run.clone().set("model", model.display()).set("overwrite-output-dir", true).go();
    assert!(ended.error().contains("overwrite_output_dir"), "{}", ended.stderr);
    assert!(model.join("model.safetensors").exists());
}

/// What launchers say of one process of several: the first tells people, and none leaves anything.
#[test]
fn processes_that_nothing_joins_are_refused() {
    let temp = Temp::with_model("launch");
    let run = with_rows(&temp, "pairs.jsonl", pairs(4, 1));
    let launched = |command: &mut Command, variables: &[(&str, &str)]| {
        Ended::of(command.envs(variables.iter().copied()).output().unwrap())
    };
    let report = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_duel"));
        command.args(["report", "none"]);
        command
    };
    for (by, [size, rank]) in
        [("torchrun", ["WORLD_SIZE", "RANK"]), ("mpirun", ["OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"])]
    {
        let no_engine = (run.command(), format!("{by} started 2 processes, and this duel has no MPI"));
        let for_one = (report(), format!("{by} started 2 processes of a command that is done by one"));
        // With MPI it would meet others.
        let skipped = usize::from(cfg!(feature = "mpi"));
        for (mut command, says) in [no_engine, for_one].into_iter().skip(skipped) {
            let first = launched(&mut command, &[(size, "2"), (rank, "0")]);
            assert!(first.error().contains(&says), "{}", first.stderr);
            // Of its launcher's others the first has said it by then.
            let second = launched(&mut command, &[(size, "2"), (rank, "1")]);
            assert!(second.error().starts_with(&format!("error: rank 1: {says}")), "{}", second.stderr);
        }
    }
    let half = launched(&mut run.command(), &[("WORLD_SIZE", "2")]);
    assert!(half.error().contains("WORLD_SIZE is there and RANK is not"), "{}", half.stderr);
    assert!(!run.out().is_dir());
    let alone = launched(&mut run.command(), &[("WORLD_SIZE", "1"), ("RANK", "0")]);
    assert_eq!(alone.code, Some(0), "{}", alone.stderr);
}

#[test]
fn more_threads_than_any_machine_has() {
    let temp = Temp::with_model("threads");
    let ended = Run::new(&temp, "out").set("threads", 100_000).go();
    assert!(ended.error().contains("threads"), "{}", ended.stderr);
}
