//! Every objective against TRL's runs of it, step for step: `../shared/data/golden2/trl`. Which runs there are, on
//! which rows and with which settings, is read from the files.

use crate::common::{Run, Temp, shared_data, write_lines};
use duel_cpu::Cpu;
use duel_train::report::metrics::Record;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::{Value, json};
use std::cell::LazyCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Runs of TRL that are not ours, each with the reason. Nor are those of `dpo_chat.json`, where 24 of 40 rows are cut,
/// with GPT-2 37.
const OTHERS: &[(&str, &str)] = &[
    // TRL cuts the prompt and responses of a pair as one text each; duel keeps one token of the shared prompt and the
    // starts of the responses.
    ("keep_end", "another cut"),
    ("keep_end_ipo", "another cut"),
    ("keep_start_short", "pairs that the cut makes the same are dropped, and counted"),
    // TRL takes the mean over the tokens of each micro-batch, then over the micro-batches; duel over the whole step.
    ("grad_accum4_ipo_sft", "the cross entropy's mean is over the step"),
    ("cpo_accum4", "the cross entropy's mean is over the step"),
    ("orpo_accum4", "the cross entropy's mean is over the step"),
    ("kto_accum2", "the KL is of the step"),
    // transformers reads the last token that is not the padding: where that is EOS, the one before it.
    ("pad_is_eos", "a reward is read at the end of the response"),
    ("dft", "not a loss of duel"),
    ("label_smoothing", "not a loss of duel"),
];

/// Keys of TRL's configuration that are duel's too.
const SAME: &[&str] = &[
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "max_steps",
    "max_grad_norm",
    "loss_type",
    "loss_weights",
    "label_smoothing",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "max_length",
    "beta",
    "ld_alpha",
    "use_weighting",
    "f_divergence_type",
    "f_alpha_divergence_coef",
    "truncation_mode",
    "cpo_alpha",
    "simpo_gamma",
    "alpha",
    "desirable_weight",
    "undesirable_weight",
    "center_rewards_coefficient",
    "completion_only_loss",
    "assistant_only_loss",
    "sync_ref_model",
    "ref_model_sync_steps",
    "ref_model_mixup_alpha",
];

/// Those of `config`, with its values as duel writes them.
fn options(config: &Value, uses_smoothing: bool) -> Vec<(String, String)> {
    let text = |v: &Value| match v {
        Value::String(text) => text.clone(),
        Value::Array(list) => list
            .iter()
            .map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned))
            .collect::<Vec<_>>()
            .join(","),
        v => v.to_string(),
    };
    let ours = |key: &str| SAME.contains(&key) && (key != "label_smoothing" || uses_smoothing);
    let given = config.as_object().unwrap().iter().filter(|(key, _)| ours(key));
    given.map(|(key, value)| (key.replace('_', "-"), text(value))).collect()
}

/// Writes the rows of a run, which `about` describes in words, to `path`.
fn write_rows(data: &Path, about: &Value, path: &Path) {
    let words = about["data"].as_str().unwrap();
    let file = words.split([' ', ';', ',']).find(|word| word.ends_with(".jsonl")).unwrap();
    let file =
        Some(data.join(file)).filter(|file| file.exists()).unwrap_or(data.join("golden2/trl").join(file));
    let number = |after: &str| {
        let rest = words.split(after).nth(1).unwrap();
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        rest[..end].parse::<f64>().unwrap()
    };
    let changed = |(i, line): (usize, &str)| {
        let mut row: Value = serde_json::from_str(line).unwrap();
        if words.contains("margin = ") {
            let (share, every) = (number("margin = "), number("(row index mod ") as usize);
            row["margin"] = (share * (i % every) as f64).into();
        }
        if words.contains("(text = prompt + ' ' + chosen)") {
            let text = |key: &str| row[key].as_str().unwrap().to_owned();
            row = json!({"text": format!("{} {}", text("prompt"), text("chosen"))});
        }
        row
    };
    let all = fs::read_to_string(file).unwrap();
    let rows = about["rows"].as_u64().unwrap() as usize;
    write_lines(path, all.lines().take(rows).enumerate().map(changed));
}

/// The adapter of a LoRA run before its first step or after its last, for the model where it lies here.
fn adapter(data: &Path, name: &str, when: &str, base: &Path, to: &Path) {
    let from = data.join("golden2/trl/lora").join(name).join(when);
    fs::create_dir_all(to).unwrap();
    fs::copy(from.join("adapter_model.safetensors"), to.join("adapter_model.safetensors")).unwrap();
    let json = fs::read_to_string(from.join("adapter_config.json")).unwrap();
    let mut json: Value = serde_json::from_str(&json).unwrap();
    json["base_model_name_or_path"] = base.to_str().unwrap().into();
    fs::write(to.join("adapter_config.json"), json.to_string()).unwrap();
}

/// The folder of a run's model, with the chat template that its description names; or of the adapter that it begins
/// with.
fn model(data: &Path, name: &str, about: &Value, temp: &Temp) -> PathBuf {
    let folder = data.join(about["model"].as_str().unwrap());
    if about.get("lora").is_some() {
        adapter(data, name, "initial", &folder, &temp.path("adapter"));
        return temp.path("adapter");
    }
    let Some((_, template)) = about["data"].as_str().unwrap().split_once("template ") else { return folder };
    let own = temp.path("model");
    fs::create_dir_all(&own).unwrap();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), own.join(entry.file_name())).unwrap();
    }
    fs::copy(data.join("golden2/trl").join(template), own.join("chat_template.jinja")).unwrap();
    own
}

/// How far a metric may be from TRL's in step `i`, given all of that step and the first one's loss; `None`: it is not
/// ours, or another mean. 2e-4 at the first step and 1e-3 at the tenth, as two implementations drift apart, of the
/// value itself, or, where it is a difference, of the larger of the two numbers.
fn tolerance(key: &str, i: usize, step: &Value, first_loss: f64, about: &Value) -> Option<f64> {
    let (trainer, config) = (about["trainer"].as_str().unwrap(), &about["config"]);
    let count = |key: &str| config[key].as_u64().unwrap_or(1);
    let accumulated = count("gradient_accumulation_steps") > 1;
    let losses = config["loss_type"].to_string();
    let size =
        |keys: &[&str]| keys.iter().filter_map(|k| step[*k].as_f64()).fold(0.0f64, |a, x| a.max(x.abs()));
    let rewards = size(&["rewards/chosen", "rewards/rejected"]);
    let relative = 2e-4 + 8e-4 * i as f64 / 9.0;
    let of = match key {
        // What TRL writes where there is no such term.
        "nll_loss" if step[key] == 0.0 => return None,
        "kl" if losses.contains("apo_zero_unpaired") => return None,
        // Without a reference there are no rewards; TRL's of alphapo are of what it makes of a mean, ours of the mean.
        _ if key.starts_with("rewards") && (losses.contains("alphapo") || losses == r#"["sft"]"#) => {
            return None;
        }
        // One pair can fall on the other side where the weights are no longer the same.
        "rewards/accuracies" | "accuracy" if i == 0 => return Some(0.0),
        "rewards/accuracies" | "accuracy" => {
            let pairs = count("per_device_train_batch_size") * count("gradient_accumulation_steps");
            return Some(1.0 / pairs as f64);
        }
        "learning_rate" | "epoch" => return Some(1e-12),
        "step" | "num_tokens" => return Some(0.0),
        // TRL's means of micro-batches are ours only where one is the step; CPO's and ORPO's are over all positions.
        "entropy"
        | "logits/chosen"
        | "logits/rejected"
        | "mean_token_accuracy"
        | "min_reward"
        | "max_reward"
            if accumulated || ["cpo", "orpo"].contains(&trainer) =>
        {
            return None;
        }
        // One token of slack, where two logits are nearly the same: a step scores more than 100 of them.
        "mean_token_accuracy" => return Some(0.01),
        // Some losses begin at 25 and fall to nearly nothing.
        "loss" => first_loss.min(1.0),
        "rewards/chosen" | "rewards/rejected" | "rewards/margins" => rewards,
        // Of log-ratios, which rewards are beta of.
        "kl" => rewards / config["beta"].as_f64().unwrap(),
        "mean_reward" | "min_reward" | "max_reward" | "margin" => size(&["min_reward", "max_reward"]),
        "log_odds_chosen" | "log_odds_ratio" => size(&["logps/chosen", "logps/rejected"]),
        "grad_norm" | "nll_loss" | "logps/chosen" | "logps/rejected" => 0.0,
        "entropy" | "logits/chosen" | "logits/rejected" => 0.0,
        other => panic!("TRL's {other} is not compared"),
    };
    Some(relative * size(&[key]).max(of))
}

/// The metrics of a run in double precision.
fn steps_in_double(run: &Run, temp: &Temp) -> Vec<Record> {
    let double = run.clone().set("output-dir", temp.path("double").display());
    duel_train::train(&Cpu::<f64>::new(2), &duel_comm::Alone, &double.config()).unwrap();
    double.metrics()
}

fn matches(data: &Path, file: &str, golden: &Value, name: &str) -> Vec<String> {
    let about = &golden["run_args"][name];
    let config = &about["config"];
    let temp = Temp::new(&format!("objective-{file}-{name}"));
    write_rows(data, about, &temp.path("train.jsonl"));
    // TRL leaves the smoothing of these losses out; of `sigmoid` against the formula.
    let losses = config["loss_type"].to_string();
    let smoothed =
        ["exo_pair", "robust", "aot"].iter().any(|loss| losses.contains(loss)) || about["trainer"] == "cpo";
    let mut run = Run::new(&temp, "out")
        .set("model", model(data, name, about, &temp).display())
        .set("method", about["trainer"].as_str().unwrap())
        .set("shuffle", false)
        .set("save-strategy", "no")
        .set("threads", 2);
    if about["note"].as_str().is_some_and(|note| note.contains("given as ref_model")) {
        run = run.set("ref-model", data.join(about["model"].as_str().unwrap()).display());
    }
    if about["trainer"] == "sft" && config.get("assistant_only_loss").is_none() {
        // TRL's own default.
        run = run.set("assistant-only-loss", false);
    }
    for (key, value) in options(config, smoothed) {
        run = run.set(&key, value);
    }
    run.ok();
    let exact = LazyCell::new(|| steps_in_double(&run, &temp));
    let mut wrong = Vec::new();
    if about.get("lora").is_some() {
        LazyCell::force(&exact);
        let rate = config["learning_rate"].as_f64().unwrap();
        wrong.extend(same_adapter(data, name, rate, &run, &temp.path("double")));
    }

    let (ours, theirs) = (run.metrics(), golden[name].as_array().unwrap());
    if ours.len() != theirs.len() {
        wrong.push(format!("{name}: {} steps, TRL has {}", ours.len(), theirs.len()));
    }
    let noise = &golden["noise_sdpa_vs_eager"][name];
    let first = |key: &str| golden[name][0][key].as_f64().unwrap();
    for (i, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        for (key, want) in theirs.as_object().unwrap() {
            let want = want.as_f64().unwrap();
            let Some(tolerance) = tolerance(key, i, theirs, first("loss"), about) else { continue };
            let Some(got) = ours.get(key).and_then(Value::as_f64) else {
                wrong.push(format!("{name} step {}: no {key}", i + 1));
                continue;
            };
            // Or ten times what two attention implementations of TRL's own differ by.
            let mut bound = tolerance.max(10.0 * noise[key][i].as_f64().unwrap_or(0.0));
            if key == "grad_norm" {
                // A loss that has nothing left to learn has a gradient that is the exponential of its rewards.
                bound = bound.max(1e-5 * first(key));
            }
            let off = (got - want).abs();
            // TRL computes the prompt of a pair twice, and in float32 the two gradients of it cancel where duel's never
            // come to be; Adam gives what is left a whole step, and a steep loss amplifies it. After the first step
            // both may therefore differ by some bounds, if duel's is within its bound of the run in double precision
            // and TRL's is farther from that; or by two, if each is within one of that run.
            // Steps of adapters are larger: where TRL's rounding alone takes it out of its bound of that run, duel must
            // not be farther from it.
            let excused = |exact: f64| {
                let (ours, theirs) = ((got - exact).abs(), (want - exact).abs());
                let drifted = about.get("lora").is_some() && theirs > bound && ours <= theirs;
                i > 0
                    && off <= 10.0 * bound
                    && (drifted || ours <= bound && (ours < theirs || theirs <= bound))
            };
            if off > bound && !exact[i][key].as_f64().is_some_and(excused) {
                wrong.push(format!(
                    "{name} step {} {key}: {got}, TRL has {want}, off by {:.1} bounds; in double precision {}",
                    i + 1,
                    off / bound,
                    exact[i][key]
                ));
            }
        }
    }
    wrong
}

/// The shapes and numbers of an adapter's tensors, by name.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<f64>)>;

/// The adapter in a folder.
fn tensors(folder: &Path) -> Tensors {
    let file = folder.join("adapter_model.safetensors");
    let bytes = fs::read(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let numbers = |tensor: &TensorView<'_>| -> Vec<f64> {
        let bytes = tensor.data();
        match tensor.dtype() {
            Dtype::F64 => bytes.chunks_exact(8).map(|x| f64::from_le_bytes(x.try_into().unwrap())).collect(),
            Dtype::F32 => {
                bytes.chunks_exact(4).map(|x| f32::from_le_bytes(x.try_into().unwrap()).into()).collect()
            }
            other => panic!("{}: {other:?}", file.display()),
        }
    };
    let all = SafeTensors::deserialize(&bytes).unwrap();
    all.iter().map(|(name, tensor)| (name.into(), (tensor.shape().to_vec(), numbers(&tensor)))).collect()
}

/// Norm of the difference of two adapters of the same tensors.
fn apart(a: &Tensors, b: &Tensors) -> f64 {
    let numbers = a.values().zip(b.values()).flat_map(|((_, a), (_, b))| a.iter().zip(b));
    numbers.map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
}

/// Whether a run left the tensors that PEFT's did, by name and shape, and the same numbers: no farther from the run in
/// double precision, in the folder `double`, than twice what PEFT's are. That is 1e-7 of their norm, or 1e-3 where `B`
/// begins as zeros: `A` has no gradient then but what rounding leaves, of which Adam makes a whole step. So far, a step
/// of every element, the two may be from each other at most: another factor or rate would be several.
fn same_adapter(data: &Path, name: &str, rate: f64, run: &Run, double: &Path) -> Option<String> {
    let theirs = tensors(&data.join("golden2/trl/lora").join(name).join("final"));
    let (ours, exact) = (tensors(&run.out()), tensors(double));
    let shapes = |all: &Tensors| -> Vec<(String, Vec<usize>)> {
        all.iter().map(|(name, (shape, _))| (name.clone(), shape.clone())).collect()
    };
    assert_eq!(shapes(&ours), shapes(&theirs), "{name}");
    assert_eq!(shapes(&exact), shapes(&theirs), "{name}");
    let count: usize = theirs.values().map(|(_, numbers)| numbers.len()).sum();
    let norm = theirs.values().flat_map(|(_, numbers)| numbers).map(|x| x * x).sum::<f64>().sqrt();
    // Each is rounded to single precision once more when it is saved.
    let rounding = f64::from(f32::EPSILON) * norm;
    let [ours_off, theirs_off, off] =
        [(&ours, &exact), (&theirs, &exact), (&ours, &theirs)].map(|(a, b)| apart(a, b));
    let wrong = ours_off > 2.0 * theirs_off + rounding || off > rate * (count as f64).sqrt();
    wrong.then(|| {
        format!(
            "{name}: of its norm the adapter is {:e} from double precision, PEFT's {:e}, and {:e} from PEFT's",
            ours_off / norm,
            theirs_off / norm,
            off / norm
        )
    })
}

fn all_match(file: &str) {
    let Some(data) = shared_data(&format!("parity with TRL, {file}")) else { return };
    let golden = fs::read_to_string(data.join(format!("golden2/trl/{file}.json"))).unwrap();
    let golden: Value = serde_json::from_str(&golden).unwrap();
    let names = golden["run_args"].as_object().unwrap().keys();
    let (mut tried, mut wrong) = (0, Vec::new());
    for name in names.filter(|name| !OTHERS.iter().any(|(other, _)| other == name)) {
        wrong.extend(matches(&data, file, &golden, name));
        tried += 1;
    }
    assert!(tried > 0 && wrong.is_empty(), "{file}, {tried} runs:\n{}", wrong.join("\n"));
}

#[test]
fn pair_losses() {
    all_match("dpo_losses");
}

#[test]
fn options_of_dpo() {
    all_match("dpo_options");
}

#[test]
fn another_family() {
    all_match("dpo_qwen3");
}

#[test]
fn losses_without_a_reference() {
    all_match("cpo_orpo");
}

#[test]
fn single_responses() {
    all_match("kto");
}

#[test]
fn reward_models() {
    all_match("reward");
}

#[test]
fn adapters() {
    all_match("lora");
}

#[test]
fn supervised() {
    all_match("sft");
}
