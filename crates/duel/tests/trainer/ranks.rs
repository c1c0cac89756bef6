//! What must hold for a run on several ranks, here threads of one process: every file is the one that a single rank
//! writes, to the bit, whatever their number, also where a run goes on on another.

use crate::common::{Run, Temp, pairs, timeless, tiny_config, tiny_reward_config, write_lines, write_model};
use duel_comm::{Comm, Exchange, Thread, threads};
use duel_cpu::Cpu;
use duel_judge::{Settings, built_in, open};
use duel_train::config::Config;
use duel_train::reward::RewardModel;
use duel_train::{Error, Outcome, hush, train, train_online};
use serde_json::{Value, json};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// Into how many shares a batch is cut.
const SHARES: usize = 4;

/// A folder with a model, pairs, unpaired rows, prompts, a lexicon and a reward model.
fn temp(name: &str) -> Temp {
    let temp = Temp::with_model(name);
    let single = |(i, pair): (usize, Value)| {
        let side = if i % 3 == 1 { "rejected" } else { "chosen" };
        json!({"prompt": pair["prompt"], "completion": pair[side], "label": side == "chosen"})
    };
    write_lines(&temp.path("single.jsonl"), pairs(40, 3).into_iter().enumerate().map(single));
    write_lines(
        &temp.path("prompts.jsonl"),
        pairs(12, 4).iter().map(|pair| json!({"prompt": pair["prompt"]})),
    );
    write_lines(&temp.path("words.tsv"), ["the\t1", "a\t-0.5", "film\t0.25", "was\t-1"]);
    write_model(&temp.path("judge"), tiny_reward_config());
    temp
}

/// Options of a run.
type Said = &'static [(&'static str, &'static str)];

/// Runs of every kind: rows of a step in shares of different sizes, an optimizer without a second moment, adapters, a
/// value head, a reference that follows, a loss that needs all of a batch, gradients in the memory of one layer's.
const RUNS: &[(&str, Said)] = &[
    ("sft", &[("method", "sft"), ("per-device-train-batch-size", "6")]),
    ("dpo", &[]),
    ("layers again", &[("gradient-checkpointing", "true")]),
    ("dpo of passes", &[("micro-batch-tokens", "40")]),
    ("dpo of parts", &[("per-device-train-batch-size", "3"), ("gradient-accumulation-steps", "2")]),
    ("rmsprop", &[("optim", "rmsprop"), ("sync-ref-model", "true"), ("ref-model-sync-steps", "1")]),
    ("adapters", &[("lora-r", "2"), ("lora-dropout", "0.1")]),
    ("all of a batch", &[("loss-type", "aot")]),
    ("kto", &[("method", "kto"), ("dataset", "single.jsonl")]),
    ("reward", &[("method", "reward"), ("center-rewards-coefficient", "0.01")]),
    ("rloo", &[("method", "rloo"), ("dataset", "prompts.jsonl")]),
    ("ppo", &[("method", "ppo"), ("dataset", "prompts.jsonl"), ("num-mini-batches", "2")]),
    ("online dpo", &[("method", "online_dpo"), ("dataset", "prompts.jsonl")]),
    ("a model judges", &[("method", "rloo"), ("dataset", "prompts.jsonl"), ("judge", "model:judge")]),
];

/// 4 steps in [`SHARES`] shares, with checkpoints and evaluations, into the folder `out` of `temp`.
fn run(temp: &Temp, options: Said) -> Run {
    let mut run = Run::new(temp, "out")
        .set("gradient-shares", SHARES)
        .set("max-steps", 4)
        .set("save-steps", 2)
        .set("lr-scheduler-type", "constant");
    for (key, value) in options {
        run = match *key {
            "dataset" => run.set(key, temp.path(value).display()),
            _ => run.set(key, value),
        };
    }
    if run.get("dataset").ends_with("prompts.jsonl") {
        let judge = match options.iter().any(|(key, _)| *key == "judge") {
            true => format!("model:{}", temp.path("judge").display()),
            false => format!("lexicon:{}", temp.path("words.tsv").display()),
        };
        return run.set("judge", judge).set("max-completion-length", 6);
    }
    let evaluated = if run.get("dataset").ends_with("single.jsonl") { "single.jsonl" } else { "eval.jsonl" };
    run.set("eval-dataset", temp.path(evaluated).display()).set("eval-steps", 2)
}

fn one(comm: &dyn Comm, config: &Config) -> Result<Outcome, Error> {
    hush(true);
    let b = Cpu::<f64>::new(1);
    match &config.judge {
        None => train(&b, comm, config),
        Some(judge) => {
            let stop: duel_judge::Stop = Arc::new(|| false);
            let mut makers = built_in();
            makers.push(RewardModel::maker(&b));
            let mut judge = open(judge, &Settings::default(), &makers, &stop)?;
            train_online(&b, comm, config, &mut *judge)
        }
    }
}

/// What each rank comes to that is given these configurations.
fn together(configs: &[Config]) -> Vec<Result<Outcome, Error>> {
    thread::scope(|scope| {
        let ranks = threads(configs.len()).into_iter().zip(configs);
        let all: Vec<_> = ranks.map(|(comm, config)| scope.spawn(move || one(&comm, config))).collect();
        all.into_iter().map(|rank| rank.join().expect("no rank panics")).collect()
    })
}

/// The run to a good end on `n` ranks.
fn on(n: usize, run: &Run) {
    for (rank, outcome) in together(&vec![run.config(); n]).into_iter().enumerate() {
        let done = outcome.unwrap_or_else(|e| panic!("rank {rank} of {n}, {:?}: {e}", run.args()));
        assert!(matches!(done, Outcome::Done { .. }));
    }
}

/// Every file in the folder by its name, but for what time was taken and how many took it.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            all.extend(files(&path).into_iter().map(|(file, bytes)| (format!("{name}/{file}"), bytes)));
        } else {
            all.insert(name, timeless(&path));
        }
    }
    all
}

/// All that the run left, which goes: the next one begins anew.
fn taken(temp: &Temp, run: &Run) -> BTreeMap<String, Vec<u8>> {
    let mut all = files(&run.out());
    fs::remove_dir_all(run.out()).unwrap();
    let cache = temp.path("cache");
    if cache.exists() {
        all.extend(files(&cache));
        fs::remove_dir_all(cache).unwrap();
    }
    all
}

#[track_caller]
fn assert_same(whole: &BTreeMap<String, Vec<u8>>, other: &BTreeMap<String, Vec<u8>>, what: &str) {
    assert_eq!(whole.keys().collect::<Vec<_>>(), other.keys().collect::<Vec<_>>(), "{what}");
    for (name, bytes) in whole {
        let text = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(2000)]).into_owned();
        assert!(*bytes == other[name], "{what}: {name} is\n{}\nnot\n{}", text(&other[name]), text(bytes));
    }
}

/// What a run that was gone on with leaves as if it had not been: where it ended, it evaluated, and its results are of
/// what it did itself.
fn learned(all: &BTreeMap<String, Vec<u8>>) -> BTreeMap<String, Vec<u8>> {
    let is_of = |name: &str| name.ends_with(".safetensors") || name == "metrics.jsonl";
    all.iter().filter(|(name, _)| is_of(name)).map(|(k, v)| (k.clone(), v.clone())).collect()
}

#[test]
fn any_number_of_ranks_writes_the_same_files() {
    let temp = temp("ranks");
    for (name, options) in RUNS {
        let run = run(&temp, options);
        on(1, &run);
        let (norm, loss) = (run.metric("grad_norm"), run.metric("loss"));
        let whole = taken(&temp, &run);
        let moments = whole.keys().filter(|file| file.starts_with("checkpoint-2/optimizer-")).count();
        assert_eq!(moments, SHARES, "{name}: {:?}", whole.keys());
        let plain = ["sft", "dpo", "kto", "reward", "rloo"].contains(name);
        for n in if plain { 2..=SHARES } else { 3..=3 } {
            on(n, &run);
            assert_same(&whole, &taken(&temp, &run), &format!("{name} on {n}"));
        }
        // In shares it is the same gradient, but for the order in which numbers are added.
        let uncut = run.clone().set("gradient-shares", 1);
        on(1, &uncut);
        let (of, whole) = (uncut.metric("grad_norm")[0], uncut.metric("loss")[0]);
        taken(&temp, &uncut);
        assert!((norm[0] - of).abs() <= 1e-12 * of, "{name}: {} in shares, {of} as a whole", norm[0]);
        assert!((loss[0] - whole).abs() <= 1e-12 * whole.abs().max(1.0), "{name}: {} {whole}", loss[0]);
    }
}

#[test]
fn a_run_goes_on_on_another_number_of_ranks() {
    let temp = temp("ranks-resumed");
    for (name, options) in
        RUNS.iter().filter(|(name, _)| ["dpo", "layers again", "adapters", "ppo"].contains(name))
    {
        // Pieces of which one rank has two.
        let run = run(&temp, options).set("gradient-shares", 3);
        on(1, &run);
        let whole = taken(&temp, &run);
        for [before, after] in [[3, 1], [1, 3], [3, 2]] {
            on(before, &run.clone().set("max-steps", 2));
            on(after, &run.clone().resume());
            let resumed = taken(&temp, &run);
            assert_same(&learned(&whole), &learned(&resumed), &format!("{name}, {before} to {after}"));
        }
    }
}

/// Tokens of more rows than are read in a moment: each is made by one rank, and all folders have them afterwards.
#[test]
fn every_folder_gets_the_tokens() {
    let temp = temp("ranks-tokens");
    let row = json!({"prompt": "the film", "completion": " was a film".repeat(10)}).to_string() + "\n";
    fs::write(temp.path("long.jsonl"), row.repeat((5 << 20) / row.len())).unwrap();
    let mut run = run(&temp, &[("method", "sft"), ("dataset", "long.jsonl")]).set("save-strategy", "no");
    ["eval-dataset", "eval-steps", "save-steps"].iter().for_each(|key| run.forget(key));
    let folders = ["cache", "own", "own"].map(|name| temp.path(name));
    let configs = folders.clone().map(|folder| run.clone().set("cache-dir", folder.display()).config());
    let kept = |folder: &Path| fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    let mut trained = Vec::new();
    for round in 0..3 {
        for outcome in together(&configs) {
            outcome.unwrap();
        }
        assert!(folders.iter().all(|folder| fs::read_dir(folder).unwrap().count() == 1), "round {round}");
        assert_eq!(fs::read(kept(&folders[0])).unwrap(), fs::read(kept(&folders[1])).unwrap());
        trained.push(files(&run.out()));
        fs::remove_dir_all(run.out()).unwrap();
        // Then one folder is empty, then damaged.
        match round {
            0 => fs::remove_file(kept(&folders[1])).unwrap(),
            _ => fs::write(kept(&folders[0]), "torn").unwrap(),
        }
    }
    assert_same(&trained[0], &trained[1], "tokens of one folder");
    assert_same(&trained[0], &trained[2], "damaged tokens of one folder");
}

/// Each rank's error.
fn errors(configs: &[Config]) -> Vec<String> {
    let outcomes = together(configs).into_iter();
    outcomes.map(|outcome| outcome.expect_err("they are not the same").to_string()).collect()
}

#[test]
fn what_cannot_be_shared_is_one_error() {
    let temp = temp("ranks-errors");
    let run = run(&temp, &[]);
    #[track_caller]
    fn says(errors: &[String], parts: &[&str]) {
        for error in errors {
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
    }
    let other = run.clone().set("learning-rate", 2e-3).config();
    let mine = run.config();
    says(&errors(&[mine.clone(), mine.clone(), other]), &["rank 2", "`learning_rate`", "0.002", "0.001"]);
    let few = run.clone().set("gradient-shares", 1).config();
    says(&errors(&[few.clone(), few]), &["`gradient_shares = 1`", "2 processes"]);
    let many = run.clone().set("per-device-train-batch-size", 2).go();
    assert!(
        many.error().contains("`gradient_shares = 4` is more than the 2 groups of a step"),
        "{}",
        many.stderr
    );
    assert!(!run.out().exists(), "something was written before it was refused");
    // A run that goes on keeps its shares: its pieces are by them.
    on(2, &run.clone().set("max-steps", 2));
    let cut = run.clone().set("gradient-shares", 2).resume().config();
    says(&errors(&[cut.clone(), cut]), &["gradient_shares"]);
    // What one alone cannot do ends all of them.
    let checkpoint = run.out().join("checkpoint-2");
    fs::write(checkpoint.join("optimizer-00002-of-00004.safetensors"), "torn").unwrap();
    let resumed = run.resume().config();
    says(&errors(&[resumed.clone(), resumed]), &["optimizer-00002-of-00004.safetensors"]);
}

/// A rank that stops answering at some call, until all others have given it up.
struct Hangs<'t> {
    comm: Thread,
    left: Cell<usize>,
    given_up: &'t AtomicUsize,
}

impl Hangs<'_> {
    fn call(&self) {
        self.left.set(self.left.get().wrapping_sub(1));
        while self.left.get() == 0 && self.given_up.load(Ordering::Relaxed) + 1 < self.comm.size() {
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Comm for Hangs<'_> {
    fn rank(&self) -> usize {
        self.comm.rank()
    }

    fn size(&self) -> usize {
        self.comm.size()
    }

    fn gather(&self, mine: &[u8]) -> duel_comm::Result<Vec<Vec<u8>>> {
        self.call();
        self.comm.gather(mine)
    }

    fn exchange(&self, send: &[&[u8]], recv: &mut [&mut [u8]]) -> duel_comm::Result<()> {
        self.call();
        self.comm.exchange(send, recv)
    }

    fn begin(&self, exchange: Exchange) -> duel_comm::Result<Option<Exchange>> {
        self.call();
        self.comm.begin(exchange)
    }

    fn ended(&self, waits: bool) -> duel_comm::Result<Option<Exchange>> {
        self.comm.ended(waits)
    }

    fn fail(&self, why: &str) {
        self.comm.fail(why);
    }

    fn speaks(&self) -> bool {
        self.comm.speaks()
    }

    fn set_timeout(&self, limit: Duration) {
        self.comm.set_timeout(limit);
    }
}

/// Wherever a rank hangs, all others end with an error that names it, and the run goes on with fewer.
#[test]
fn a_rank_that_hangs_is_named_and_the_run_goes_on() {
    let temp = temp("ranks-hang");
    let run = run(&temp, &[]).set("save-steps", 1);
    on(1, &run);
    let whole = taken(&temp, &run);
    let (hanging, ranks) = (1, 3);
    let config = run.clone().set("ddp-timeout", 1).config();
    let mut resumed = 0;
    // Before the first step, and within steps: where gradients leave, where weights are told, where all say something.
    for calls in [1, 40, 61, 64, 90] {
        let given_up = AtomicUsize::new(0);
        let errors: Vec<String> = thread::scope(|scope| {
            let (config, given_up) = (&config, &given_up);
            let start = |comm: Thread| {
                scope.spawn(move || {
                    let rank = comm.rank();
                    let left = Cell::new(if rank == hanging { calls } else { usize::MAX });
                    let outcome = one(&Hangs { comm, left, given_up }, config);
                    given_up.fetch_add(1, Ordering::Relaxed);
                    outcome.expect_err("a rank hangs").to_string()
                })
            };
            let all: Vec<_> = threads(ranks).into_iter().map(start).collect();
            all.into_iter().map(|rank| rank.join().expect("no rank panics")).collect()
        });
        for (rank, error) in errors.iter().enumerate().filter(|(rank, _)| *rank != hanging) {
            assert!(error.contains("rank 1 did not come in 1 s"), "{calls}: rank {rank} says {error}");
        }
        let has_checkpoint = (1..=4).any(|step| run.out().join(format!("checkpoint-{step}")).is_dir());
        resumed += usize::from(has_checkpoint);
        if !has_checkpoint {
            drop(fs::remove_dir_all(run.out()));
        }
        on(2, &if has_checkpoint { run.clone().resume() } else { run.clone() });
        assert_same(&learned(&whole), &learned(&taken(&temp, &run)), &format!("hung at call {calls}"));
    }
    assert!(resumed > 0, "no run had a checkpoint");
}

/// Gradients and weights are all that a step sends but for what it says of its responses.
#[test]
fn as_much_is_sent_as_is_planned() {
    let temp = temp("ranks-sent");
    let mut large = tiny_config();
    for (key, size) in [("hidden_size", 128), ("intermediate_size", 512), ("head_dim", 32)] {
        large[key] = size.into();
    }
    write_model(&temp.path("model"), large);
    let mut run = run(&temp, &[("method", "sft")]);
    ["eval-dataset", "eval-steps", "save-steps"].iter().for_each(|key| run.forget(key));
    let run = run.set("save-strategy", "no");
    for (n, owned) in [(2, 0.5), (3, 0.5), (4, 0.25)] {
        on(n, &run);
        let weights = fs::read(run.out().join("model.safetensors")).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&weights).unwrap();
        let bytes = tensors.iter().map(|(_, tensor)| tensor.data().len()).sum::<usize>() as f64;
        // To every other rank what it owns of each gradient, and the new weights of what rank 0 owns; in numbers twice
        // as long as those that are saved. Of three ranks one has two of the four pieces.
        let rounds = SHARES.div_ceil(n) as f64;
        let planned = 4.0 * 2.0 * bytes * (rounds * (1.0 - owned) + owned * (n - 1) as f64);
        let results: Value = serde_json::from_slice(&run.file("all_results.json")).unwrap();
        let sent = results["sent_bytes"].as_f64().unwrap();
        assert!((sent / planned - 1.0).abs() < 0.01, "{n} ranks: {sent} bytes, {planned} by the plan");
        fs::remove_dir_all(run.out()).unwrap();
    }
}
