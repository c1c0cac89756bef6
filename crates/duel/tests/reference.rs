//! The reference pass: of the groups that a run visits and no others, each once, and kept however the run ends.

mod common;

use common::{Ended, RESULT, Run, Temp, assert_same, pairs, write_lines, write_pairs};
use duel_cpu::Cpu;
use duel_data::{Dataset, Options, Task, Tokenizer, Truncation, Whole, order};
use duel_train::cache::Cache;
use duel_train::reference::ModelId;
use serde_json::Value;
use std::collections::HashSet;
use std::f64::consts::LN_2;
use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::Duration;

/// A cache folder's file of one dataset, as a run on one thread makes it.
struct Cached {
    cache: Cache,
    ds: Dataset,
}

impl Cached {
    fn of(temp: &Temp, dataset: &str, cache: &str) -> Self {
        let model = temp.path("model");
        let tokenizer = Tokenizer::from_dir(&model).unwrap();
        let options = Options {
            task: Task::Preference,
            whole: Whole::default(),
            max_length: Some(64),
            truncation: Truncation::KeepStart,
        };
        let ds = Dataset::load(&temp.path(dataset), &tokenizer, &options).unwrap();
        let key = ModelId::of(&model).unwrap().on(&Cpu::<f32>::new(1), &ds, None);
        Cached { cache: Cache::new(&temp.path(cache), &key), ds }
    }

    /// The groups of its records, in the order in which they were written.
    fn groups(&self) -> Vec<u32> {
        self.cache.read(&self.ds).into_iter().map(|(group, _)| group).collect()
    }

    fn bytes(&self) -> u64 {
        fs::metadata(self.cache.path()).map_or(0, |m| m.len())
    }

    /// Waits until so much is written, or the run has ended.
    fn wait_for(&self, bytes: u64, child: &mut Child) {
        while self.bytes() < bytes && child.try_wait().unwrap().is_none() {
            sleep(Duration::from_micros(200));
        }
    }
}

/// Bytes of the record of a pair.
const PAIR: u64 = 4 + 2 * 8 + 8;

/// The first visits of `order` after `order`, each once.
fn once(orders: impl IntoIterator<Item = Vec<u32>>) -> Vec<u32> {
    let mut seen = HashSet::new();
    orders.into_iter().flatten().filter(|i| seen.insert(*i)).collect()
}

fn shuffled(epoch: u64) -> Vec<u32> {
    order(40, 42, epoch, true)
}

fn sorted(mut groups: Vec<u32>) -> Vec<u32> {
    groups.sort_unstable();
    groups
}

/// `printed` says, in its `nth` line of that kind, what was read and what was computed.
fn said(printed: &str, nth: usize, groups: usize, read: usize, computed: usize) {
    let line = printed.lines().filter(|l| l.starts_with("reference log-probs of")).nth(nth);
    let line = line.unwrap_or_else(|| panic!("no line {nth}:\n{printed}"));
    assert!(
        line.starts_with(&format!("reference log-probs of {groups} groups: {read} read from ")),
        "{line}"
    );
    assert!(line.ends_with(&format!(", {computed} to be computed")), "{line}");
}

#[test]
fn only_visited_groups_are_computed_and_more_steps_reuse_them() {
    let temp = Temp::with_model("visited");
    let cached = Cached::of(&temp, "train.jsonl", "cache");
    said(&Run::new(&temp, "two").set("max-steps", 2).ok(), 0, 16, 0, 16);
    assert_eq!(cached.groups(), shuffled(0)[..16]);

    let three = Run::new(&temp, "three").set("max-steps", 3);
    said(&three.ok(), 0, 24, 16, 8);
    assert_eq!(cached.groups(), shuffled(0)[..24]);
    let fresh = Run::new(&temp, "fresh").set("max-steps", 3).set("cache-dir", temp.path("none").display());
    said(&fresh.ok(), 0, 24, 0, 24);
    assert_same(&three, &fresh, RESULT);

    // Another order and another batch size: 12 groups of which some are there.
    let other = order(40, 43, 0, true)[..12].to_vec();
    let there = other.iter().filter(|i| shuffled(0)[..24].contains(i)).count();
    let run = Run::new(&temp, "other").set("seed", 43).set("per-device-train-batch-size", 12);
    said(&run.set("max-steps", 1).ok(), 0, 12, there, 12 - there);
    assert_eq!(cached.groups(), once([shuffled(0)[..24].to_vec(), other]));
}

/// Named as the reference, the model that a run begins with changes nothing; another one is asked in its place, and a
/// model has one identity whatever it is to a run.
#[test]
fn another_model_may_be_the_reference() {
    let temp = Temp::with_model("another");
    let model = temp.path("model");
    let first = Run::new(&temp, "first");
    first.ok();
    let named = Run::new(&temp, "named").set("ref-model", model.display());
    said(&named.ok(), 0, 40, 40, 0);
    assert_same(&first, &named, RESULT);

    let on = Run::new(&temp, "on").set("model", first.out().display()).set("max-steps", 1);
    said(&on.ok(), 0, 8, 0, 8);
    assert!((on.metric("loss")[0] - LN_2).abs() < 1e-6);
    let against =
        on.clone().set("output-dir", temp.path("against").display()).set("ref-model", model.display());
    said(&against.ok(), 0, 8, 8, 0);
    // What was learned on these pairs is ahead of where it began.
    assert!(against.metric("loss")[0] < LN_2 - 1e-3, "{:?}", against.metric("loss"));
    // With an adapter, whose reference would be the model without it.
    let adapter = against.set("output-dir", temp.path("adapter").display()).set("lora-r", 2);
    said(&adapter.ok(), 0, 8, 8, 0);
    assert!(adapter.metric("loss")[0] < LN_2 - 1e-3, "{:?}", adapter.metric("loss"));
}

#[test]
fn the_reference_is_computed_once_and_a_damaged_cache_is_no_cache() {
    let temp = Temp::with_model("cache");
    const READ: &str = "reference log-probs of 40 groups: 40 read from";
    let run = |out: &str| Run::new(&temp, out);
    let files =
        || -> Vec<_> { fs::read_dir(temp.path("cache")).unwrap().map(|e| e.unwrap().path()).collect() };
    assert!(!run("first").ok().contains(READ));
    let [cached] = &files()[..] else { panic!("{:?}", files()) };
    let good = fs::read(cached).unwrap();
    assert!(run("second").ok().contains(READ));
    assert_same(&run("first"), &run("second"), RESULT);

    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 0x40;
        bytes
    };
    let damages = [
        ("empty", Vec::new()),
        ("cut", good[..good.len() - 8].to_vec()),
        ("header", flipped(3)),
        ("number", flipped(good.len() - 20)),
        ("other", b"no such thing".to_vec()),
    ];
    for (name, bytes) in damages {
        fs::write(cached, bytes).unwrap();
        let printed = run(name).ok();
        assert!(!printed.contains(READ), "{name}: {printed}");
        assert_same(&run("first"), &run(name), RESULT);
        assert!(run(&format!("after-{name}")).ok().contains(READ), "{name}: not put right");
    }

    // Other weights, other data: other keys. Another loss: the same.
    assert!(run("ipo").set("loss-type", "ipo").ok().contains(READ));
    common::write_pairs(&temp.path("other.jsonl"), 40, 3);
    assert!(!run("data").set("dataset", temp.path("other.jsonl").display()).ok().contains(READ));
    assert!(!run("weights").set("model", temp.path("first").display()).ok().contains(READ));
    assert_eq!(files().len(), 3);
}

#[test]
fn epochs_short_batches_and_evaluation_sets() {
    let temp = Temp::with_model("epochs");
    let (train, eval) = (Cached::of(&temp, "train.jsonl", "cache"), Cached::of(&temp, "eval.jsonl", "cache"));
    let mut run = Run::new(&temp, "epochs")
        .set("per-device-train-batch-size", 12)
        .set("num-train-epochs", 1.5)
        .set("shuffle", false)
        .set("eval-dataset", temp.path("eval.jsonl").display());
    run.forget("max-steps");
    let printed = run.ok();
    // Each epoch ends with a batch of 4.
    assert_eq!(run.metrics().iter().filter(|r| r.contains_key("loss")).count(), 6);
    said(&printed, 0, 40, 0, 40);
    said(&printed, 1, 10, 0, 10);
    assert_eq!(train.groups(), (0..40).collect::<Vec<_>>());
    assert_eq!(eval.groups(), (0..10).collect::<Vec<_>>());

    // The same set for both: what training visits is computed first, the evaluation adds the rest.
    let both = Cached::of(&temp, "train.jsonl", "both");
    let same = Run::new(&temp, "same")
        .set("max-steps", 1)
        .set("eval-dataset", temp.path("train.jsonl").display())
        .set("cache-dir", temp.path("both").display());
    let printed = same.ok();
    said(&printed, 0, 8, 0, 8);
    said(&printed, 1, 40, 8, 32);
    assert_eq!(both.groups(), once([shuffled(0)[..8].to_vec(), (0..40).collect()]));
}

#[test]
fn a_resumed_run_needs_what_its_remaining_steps_visit() {
    let temp = Temp::with_model("resumed");
    let eval = temp.path("eval.jsonl");
    let run = |out: &str| {
        Run::new(&temp, out)
            .set("save-steps", 4)
            .set("save-total-limit", "none")
            .set("eval-dataset", eval.display())
    };
    let whole = run("whole");
    whole.ok();
    let resumed = run("resumed")
        .set("resume-from-checkpoint", whole.out().join("checkpoint-4").display())
        .set("cache-dir", temp.path("other").display());
    let printed = resumed.ok();
    // The last of five batches, and the first of the second epoch.
    let wanted = once([shuffled(0)[32..].to_vec(), shuffled(1)[..8].to_vec()]);
    said(&printed, 0, wanted.len(), 0, wanted.len());
    said(&printed, 1, 10, 0, 10);
    assert_eq!(Cached::of(&temp, "train.jsonl", "other").groups(), wanted);
    assert_same(&whole, &resumed, &["model.safetensors"]);

    let finished = whole.resume().set("cache-dir", temp.path("unused").display()).ok();
    assert!(!finished.contains("reference log-probs"), "{finished}");
    assert!(!temp.path("unused").exists());
}

/// 2000 pairs in four steps; micro-batches are small, so that there are many.
fn long(temp: &Temp, out: &str) -> Run {
    write_pairs(&temp.path("train.jsonl"), 2000, 1);
    Run::new(temp, out)
        .set("per-device-train-batch-size", 500)
        .set("micro-batch-tokens", 200)
        .set("max-steps", 4)
}

#[test]
fn killed_at_any_moment_nothing_is_computed_twice() {
    let temp = Temp::with_model("killed");
    let whole = long(&temp, "whole").set("cache-dir", temp.path("undisturbed").display());
    whole.ok();
    let run = long(&temp, "run").set("overwrite-output-dir", true);
    let cached = Cached::of(&temp, "train.jsonl", "cache");
    let mut rng = fastrand::Rng::new();
    let mut log = Vec::new();
    for _ in 0..6 {
        let before = cached.groups().len();
        let more = rng.u64(0..200) * PAIR;
        let mut child = run.command().stderr(fs::File::create(temp.path("stderr")).unwrap()).spawn().unwrap();
        cached.wait_for(cached.bytes() + more, &mut child);
        child.kill().unwrap();
        child.wait().unwrap();
        let printed = fs::read_to_string(temp.path("stderr")).unwrap();
        log.push((more, cached.groups().len()));
        if printed.contains("reference log-probs of") {
            said(&printed, 0, 2000, before, 2000 - before);
        }
        damage(cached.cache.path(), &mut rng);
    }
    let kept = cached.groups();
    assert!(!kept.is_empty() && kept.len() < 2000, "{log:?}");
    said(&run.ok(), 0, 2000, kept.len(), 2000 - kept.len());
    assert_eq!(cached.groups()[..kept.len()], kept, "{log:?}");
    assert_eq!(sorted(cached.groups()), (0..2000).collect::<Vec<_>>(), "{log:?}");
    assert_same(&whole, &run, RESULT);
}

/// Tears off some bytes of the end and flips a bit.
fn damage(path: &Path, rng: &mut fastrand::Rng) {
    let mut bytes = fs::read(path).unwrap_or_default();
    bytes.truncate(bytes.len().saturating_sub(rng.usize(0..40)));
    if !bytes.is_empty() {
        let at = rng.usize(0..bytes.len());
        bytes[at] ^= 1 << rng.u32(0..8);
        fs::write(path, bytes).unwrap();
    }
}

#[test]
fn ctrl_c_keeps_what_was_computed_and_trains_nothing() {
    let temp = Temp::with_model("stopped");
    let run = long(&temp, "out");
    let cached = Cached::of(&temp, "train.jsonl", "cache");
    let mut kept = 0;
    for _ in 0..2 {
        let mut child = run.command().stderr(fs::File::create(temp.path("stderr")).unwrap()).spawn().unwrap();
        cached.wait_for(cached.bytes() + 100 * PAIR, &mut child);
        common::interrupt(&child);
        let code = child.wait().unwrap().code();
        let printed = fs::read_to_string(temp.path("stderr")).unwrap();
        let ended = Ended { code, stderr: printed };
        assert_eq!(ended.code, Some(130), "{}", ended.stderr);
        let error = ended.stderr.lines().find(|line| line.starts_with("stopped")).unwrap();
        said(&ended.stderr, 0, 2000, kept, 2000 - kept);
        kept = cached.groups().len();
        assert!((100..2000).contains(&kept), "{kept}");
        for part in
            [format!("those of {kept} of 2000 groups are in "), cached.cache.path().display().to_string()]
        {
            assert!(error.contains(&part), "`{part}`: {error}");
        }
        assert!(error.ends_with("the same command goes on from there; nothing was trained yet"), "{error}");
        assert!(!run.out().exists());
    }
    said(&run.ok(), 0, 2000, kept, 2000 - kept);
    assert_eq!(sorted(cached.groups()), (0..2000).collect::<Vec<_>>());
}

#[test]
fn a_file_that_may_not_grow_keeps_what_it_has() {
    let temp = Temp::with_model("limit");
    let run = long(&temp, "out");
    let mut command = Command::new("sh");
    // Blocks of 512 bytes: room for 365 records and a part of the next.
    command.args(["-c", "ulimit -f 20; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_duel")]);
    let ended = Ended::of(command.args(run.args()).output().unwrap());
    let cached = Cached::of(&temp, "train.jsonl", "cache");
    for part in [&cached.cache.path().display().to_string(), "cannot be written", "set cache_dir"] {
        assert!(ended.error().contains(part), "`{part}`: {}", ended.error());
    }
    assert_eq!((cached.bytes(), cached.groups().len()), (10_240, 365));
    said(&run.ok(), 0, 2000, 365, 1635);
    assert_eq!(sorted(cached.groups()), (0..2000).collect::<Vec<_>>());
}

#[test]
fn two_runs_at_a_time_share_a_cache() {
    let temp = Temp::with_model("shared");
    let runs = [long(&temp, "first"), long(&temp, "second")];
    let children = runs.each_ref().map(|run| run.command().spawn().unwrap());
    for child in children {
        let ended = Ended::of(child.wait_with_output().unwrap());
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    }
    assert_same(&runs[0], &runs[1], RESULT);
    let cached = Cached::of(&temp, "train.jsonl", "cache");
    let groups = cached.groups();
    assert_eq!(groups.len() as u64 * PAIR, cached.bytes(), "a record was torn");
    assert_eq!(groups.iter().collect::<HashSet<_>>().len(), 2000);
    said(&long(&temp, "third").ok(), 0, 2000, 2000, 0);
    assert_same(&runs[0], &long(&temp, "third"), RESULT);
}

#[test]
fn what_is_no_number_is_named_and_not_kept() {
    let temp = Temp::with_model("broken");
    let path = temp.path("model/model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let end = bytes.len();
    for number in bytes[end - 128..].chunks_exact_mut(4) {
        number.copy_from_slice(&f32::MAX.to_le_bytes());
    }
    fs::write(path, bytes).unwrap();
    let rows: Vec<Value> = pairs(3, 1);
    write_lines(&temp.path("train.jsonl"), rows);
    let ended = Run::new(&temp, "out").set("shuffle", false).go();
    assert!(ended.error().contains("gives row 1 of the data a log-probability of"), "{}", ended.stderr);
    assert!(Cached::of(&temp, "train.jsonl", "cache").groups().is_empty());
}
