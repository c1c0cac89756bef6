//! What the integration tests share: temporary folders, a tiny model with data, and the `duel` binary.
#![allow(dead_code)] // every test crate compiles its own copy and uses a part of it

use duel_cpu::Cpu;
use duel_experiments::grammar;
use duel_model::Model;
use duel_train::checkpoint;
use duel_train::config::{Config, KEYS, Options};
use duel_train::report::metrics;
use serde_json::{Value, json};
use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// A folder that goes with the value.
pub struct Temp(PathBuf);

impl Temp {
    pub fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("duel-test-{name}-{}", std::process::id()));
        drop(fs::remove_dir_all(&dir));
        fs::create_dir_all(&dir).unwrap();
        Temp(dir)
    }

    /// A folder with `model/`, `train.jsonl` (40 pairs) and `eval.jsonl` (10 pairs).
    pub fn with_model(name: &str) -> Self {
        let temp = Temp::new(name);
        write_model(&temp.path("model"), tiny_config());
        write_pairs(&temp.path("train.jsonl"), 40, 1);
        write_pairs(&temp.path("eval.jsonl"), 10, 2);
        temp
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Deterministic standard normal numbers.
fn normal(seed: u64) -> impl FnMut() -> f64 {
    let mut rng = fastrand::Rng::with_seed(seed);
    move || (-2.0 * (1.0 - rng.f64()).ln()).sqrt() * (std::f64::consts::TAU * rng.f64()).cos()
}

/// `config.json` of a Llama small enough to train in milliseconds, for the grammar's tokenizer.
pub fn tiny_config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": grammar::vocabulary().len() + 3,
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 8, "hidden_act": "silu", "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": true, "initializer_range": 0.1,
        "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float32"
    })
}

/// The same with a scalar head.
pub fn tiny_reward_config() -> Value {
    let mut config = tiny_config();
    config["architectures"] = json!(["LlamaForSequenceClassification"]);
    config["num_labels"] = json!(1);
    config
}

/// A model folder with random weights.
pub fn write_model(dir: &Path, config: Value) {
    fs::create_dir_all(dir).unwrap();
    let (tokenizer, tokenizer_config) = grammar::tokenizer_files();
    fs::write(dir.join("tokenizer.json"), tokenizer).unwrap();
    fs::write(dir.join("tokenizer_config.json"), tokenizer_config).unwrap();
    let config = duel_model::Config::from_json(config.as_object().unwrap().clone()).unwrap();
    let cpu = Cpu::<f32>::new(1);
    let weights = Model::manifest(&config).init(&cpu, &config, normal(7)).unwrap();
    duel_model::save(&cpu, dir, &config, &weights).unwrap();
}

/// Pairs of reviews with a common prefix as their prompt.
pub fn pairs(n: usize, seed: u64) -> Vec<Value> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut review = || grammar::sample_review(&mut rng);
    let pair = |_| {
        let (chosen, rejected) = (review(), review());
        let (prompt, chosen) = chosen.split_at(chosen.match_indices(' ').nth(3).unwrap().0);
        json!({"prompt": prompt, "chosen": chosen, "rejected": format!(" {rejected}")})
    };
    (0..n).map(pair).collect()
}

pub fn write_pairs(path: &Path, n: usize, seed: u64) {
    write_lines(path, pairs(n, seed));
}

pub fn write_lines(path: &Path, lines: impl IntoIterator<Item = impl Display>) {
    fs::write(path, lines.into_iter().map(|l| format!("{l}\n")).collect::<String>()).unwrap();
}

/// Hugging Face's cache in the folder `hub` of `temp`, by the names of whose repositories its model and its rows go
/// too:
/// `org/name`, and `org/rows`, of which the training rows are in two parts. Returns the commit of both.
pub fn write_hub(temp: &Temp) -> String {
    let commit = "c0".repeat(20);
    let put = |repository: &str, path: &str, content: &[u8]| {
        let file = temp.path(&format!("hub/{repository}/snapshots/{commit}/{path}"));
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, content).unwrap();
        let refs = temp.path(&format!("hub/{repository}/refs"));
        fs::create_dir_all(&refs).unwrap();
        fs::write(refs.join("main"), &commit).unwrap();
    };
    for entry in fs::read_dir(temp.path("model")).unwrap() {
        let path = entry.unwrap().path();
        put("models--org--name", path.file_name().unwrap().to_str().unwrap(), &fs::read(&path).unwrap());
    }
    let lines = fs::read_to_string(temp.path("train.jsonl")).unwrap();
    let half = lines.match_indices('\n').nth(lines.lines().count() / 2 - 1).unwrap().0 + 1;
    let eval = fs::read_to_string(temp.path("eval.jsonl")).unwrap();
    for (part, text) in [
        ("train-00000-of-00002", &lines[..half]),
        ("train-00001-of-00002", &lines[half..]),
        ("test-00000-of-00001", &eval),
    ] {
        put("datasets--org--rows", &format!("data/{part}.jsonl"), text.as_bytes());
    }
    commit
}

/// A command that has the cache of [`write_hub`] and nothing else.
pub fn in_hub(mut command: Command, temp: &Temp) -> Command {
    command.env("HF_HUB_CACHE", temp.path("hub")).env("HF_HUB_OFFLINE", "1");
    command
}

/// A `duel train` command line.
#[derive(Clone)]
pub struct Run {
    options: Vec<(String, String)>,
}

impl Run {
    /// 6 steps of 8 pairs with the model and data of `temp`, into `temp`'s folder `out`, one thread.
    pub fn new(temp: &Temp, out: &str) -> Self {
        Run { options: Vec::new() }
            .set("model", temp.path("model").display())
            .set("dataset", temp.path("train.jsonl").display())
            .set("output-dir", temp.path(out).display())
            .set("cache-dir", temp.path("cache").display())
            .set("learning-rate", 1e-3)
            .set("logging-steps", 1)
            .set("max-steps", 6)
            .set("threads", 1)
    }

    pub fn set(mut self, key: &str, value: impl Display) -> Self {
        self.options.retain(|(k, _)| k != key);
        self.options.push((key.into(), value.to_string()));
        self
    }

    pub fn forget(&mut self, key: &str) {
        self.options.retain(|(k, _)| k != key);
    }

    pub fn options(&self) -> &[(String, String)] {
        &self.options
    }

    pub fn resume(self) -> Self {
        self.set("resume-from-checkpoint", true)
    }

    /// The value of an option that was set.
    pub fn get(&self, key: &str) -> &str {
        &self.options.iter().find(|(k, _)| k == key).unwrap().1
    }

    pub fn out(&self) -> PathBuf {
        self.get("output-dir").into()
    }

    pub fn args(&self) -> Vec<String> {
        let options = self.options.iter().map(|(k, v)| format!("--{k}={v}"));
        std::iter::once("train".to_string()).chain(options).collect()
    }

    /// What it says, for a run without the binary.
    pub fn config(&self) -> Config {
        let mut options = Options::default();
        for (key, value) in &self.options {
            let key =
                KEYS.iter().find(|known| known.flag() == *key).unwrap_or_else(|| panic!("no key {key}"));
            options = key.read(value).unwrap().or(options);
        }
        options.resolve().unwrap()
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_duel"));
        command.args(self.args()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn go(&self) -> Ended {
        Ended::of(self.command().output().unwrap())
    }

    /// Runs to a good end; returns what was printed.
    pub fn ok(&self) -> String {
        let ended = self.go();
        assert_eq!(ended.code, Some(0), "{:?}:\n{}", self.args(), ended.stderr);
        ended.stderr
    }

    /// Bytes of a file of the finished run.
    pub fn file(&self, name: &str) -> Vec<u8> {
        let path = self.out().join(name);
        fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// Records of the finished run.
    pub fn metrics(&self) -> Vec<metrics::Record> {
        metrics::read(&self.out().join("metrics.jsonl")).unwrap()
    }

    /// The values of one metric, where it was recorded.
    pub fn metric(&self, name: &str) -> Vec<f64> {
        self.metrics().iter().filter_map(|r| r.get(name)?.as_f64()).collect()
    }

    pub fn checkpoints(&self) -> Vec<u64> {
        checkpoint::list(&self.out()).into_iter().map(|(step, _)| step).collect()
    }

    /// Names in the output folder that only exist while something is being written.
    pub fn half_written(&self) -> Vec<String> {
        let entries = fs::read_dir(self.out()).into_iter().flatten();
        let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
        names.filter(|n| n.contains("partial") || n.contains("tmp")).collect()
    }
}

/// Ctrl-C.
pub fn interrupt(child: &Child) {
    signal(child, "INT");
}

pub fn signal(child: &Child, name: &str) {
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
}

/// What a process left behind.
pub struct Ended {
    /// `None` after a signal.
    pub code: Option<i32>,
    pub stderr: String,
}

impl Ended {
    pub fn of(output: Output) -> Self {
        Ended { code: output.status.code(), stderr: String::from_utf8_lossy(&output.stderr).into_owned() }
    }

    /// The error, after checks that hold for every one: a plain failure, one message, no panic.
    pub fn error(&self) -> &str {
        let code = self.code.unwrap_or_else(|| panic!("ended by a signal:\n{}", self.stderr));
        assert!(code != 0 && code != 101, "exit code {code}:\n{}", self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        let lines: Vec<&str> = self.stderr.lines().filter(|l| l.starts_with("error:")).collect();
        assert_eq!(lines.len(), 1, "{}", self.stderr);
        lines[0]
    }
}

/// Two runs with the same result, bit for bit.
pub fn assert_same(a: &Run, b: &Run, files: &[&str]) {
    for name in files {
        assert!(a.file(name) == b.file(name), "{name} of {:?} and {:?} differ", a.args(), b.args());
    }
}

/// Bytes of a file of a run, but for what says how long something took, and by how many processes.
pub fn timeless(path: &Path) -> Vec<u8> {
    fn without(value: &mut Value) {
        const OF_TIME: [&str; 7] =
            ["runtime", "_per_second", "seconds", "total_time", "peak", "processes", "sent_bytes"];
        match value {
            Value::Object(fields) => {
                fields.retain(|key, _| !OF_TIME.iter().any(|of| key.contains(of)));
                fields.values_mut().for_each(without);
            }
            Value::Array(list) => list.iter_mut().for_each(without),
            _ => {}
        }
    }
    let bytes = fs::read(path).unwrap();
    let is_json = path.extension().is_some_and(|of| of == "json" || of == "jsonl");
    if !is_json {
        return bytes;
    }
    let read = |line: &str| match serde_json::from_str(line) {
        Ok(mut value) => {
            without(&mut value);
            format!("{value}\n").into_bytes()
        }
        // Half of a line is what it is.
        Err(_) => line.into(),
    };
    let text = String::from_utf8_lossy(&bytes);
    match path.extension().is_some_and(|of| of == "jsonl") {
        true => text.lines().flat_map(read).collect(),
        false => read(&text),
    }
}

/// The weights and the curve.
pub const RESULT: &[&str] = &["model.safetensors", "metrics.jsonl"];

/// The data beside the project; says so where it is absent.
pub fn shared_data(test: &str) -> Option<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    if !dir.is_dir() {
        // Not eprintln: the test harness would keep that to itself.
        {
            use std::io::Write as _;
            drop(writeln!(std::io::stderr(), "SKIPPED: {test}: ../shared/data is not here"));
        }
        return None;
    }
    Some(dir)
}
