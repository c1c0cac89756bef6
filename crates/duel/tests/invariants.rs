//! What must hold for every run: determinism, resumption, and that evaluation and sampling do what they say.

mod common;
mod disk;

use common::{Ended, RESULT, Run, Temp, assert_same};
use duel_cpu::{Cpu, Isa};
use duel_train::checkpoint;
use duel_train::report::metrics;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

#[test]
fn the_first_loss_is_ln_2_however_the_groups_are_packed() {
    let temp = Temp::with_model("ln2");
    // The first run computes the reference with its own packing, the others read it.
    for (i, tokens) in [0, 1, 100, 100_000].into_iter().enumerate() {
        let run = Run::new(&temp, &format!("out{i}")).set("micro-batch-tokens", tokens).set("max-steps", 1);
        run.ok();
        let loss = run.metric("loss")[0];
        assert!((loss - std::f64::consts::LN_2).abs() < 1e-15, "{tokens} tokens: {loss:e}");
        for name in ["rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies"] {
            assert_eq!(run.metric(name), [0.0], "{tokens} tokens: {name}");
        }
    }
}

/// The model and the rows by their names on the Hub, rows in two parts: the same run, which goes on at the commits that
/// it began with when the names have moved, and adapters that say whose they are.
#[test]
fn names_are_what_they_name() {
    let temp = Temp::with_model("names");
    let commit = common::write_hub(&temp);
    let go = |command: Command| Ended::of(common::in_hub(command, &temp).output().unwrap());
    let at = |run: &Run, steps: i64| run.clone().set("max-steps", steps).set("lr-scheduler-type", "constant");
    let by_path = Run::new(&temp, "paths").set("eval-dataset", temp.path("eval.jsonl").display());
    at(&by_path, 6).ok();
    let by_name = Run::new(&temp, "named")
        .set("model", "org/name")
        .set("dataset", "org/rows")
        .set("dataset-test-split", "test")
        .set("ref-model", "org/name");
    let ended = go(at(&by_name, 3).command());
    assert!(ended.stderr.contains(&format!("model org/name is org/name@{commit}")), "{}", ended.stderr);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    for repository in ["models--org--name", "datasets--org--rows"] {
        fs::write(temp.path(&format!("hub/{repository}/refs/main")), "d0".repeat(20)).unwrap();
    }
    let ended = go(at(&by_name, 6).resume().command());
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let written = String::from_utf8(by_name.file("duel.toml")).unwrap();
    for key in
        ["model = \"org/name", "ref_model = \"org/name", "dataset = \"org/rows", "eval_dataset = \"org/rows"]
    {
        assert!(
            written.contains(&format!("\n{key}@{commit}\""))
                || written.starts_with(&format!("{key}@{commit}")),
            "{key}: {written}"
        );
    }
    assert_eq!(by_path.file("model.safetensors"), by_name.file("model.safetensors"));
    assert_eq!(by_path.metric("eval_loss").last(), by_name.metric("eval_loss").last());
    // Who says the revision means it.
    let moved = go(at(&by_name, 6).set("model-revision", "main").resume().command());
    assert!(moved.error().contains("is a commit that the cache has no files of"), "{}", moved.stderr);
    let adapter = Run::new(&temp, "adapter")
        .set("model", format!("org/name@{commit}"))
        .set("lora-r", 2)
        .set("learning-rate", 1e-2)
        .set("max-steps", 2);
    let ended = go(adapter.command());
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let said: serde_json::Value = serde_json::from_slice(&adapter.file("adapter_config.json")).unwrap();
    assert_eq!(
        (&said["base_model_name_or_path"], &said["revision"]),
        (&"org/name".into(), &commit.clone().into())
    );

    let duel = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_duel"));
        command.args(args).stdin(Stdio::null());
        let output = common::in_hub(command, &temp).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let (model, rows) = (format!("org/name@{commit}"), format!("org/rows@{commit}"));
    let (folder, file) =
        (temp.path("model").display().to_string(), temp.path("train.jsonl").display().to_string());
    let adapter = adapter.out().display().to_string();
    let compare = |args: &[&str], named: &[&str], there: &[&str]| {
        assert!(duel(&[args, named].concat()) == duel(&[args, there].concat()), "{args:?} {named:?}");
    };
    let cpu = ["--device=cpu", "--threads=1"];
    compare(&["generate", "--prompt=the film", cpu[0], cpu[1]], &["--model", &model], &["--model", &folder]);
    compare(
        &["sample", "--num-generations=1", "--max-new-tokens=4", cpu[0], cpu[1]],
        &["--model", &model, "--dataset", &rows],
        &["--model", &folder, "--dataset", &file],
    );
    compare(&["label", "--judge=truth"], &["--dataset", &rows], &["--dataset", &file]);
    duel(&["generate", "--prompt=the film", cpu[0], cpu[1], "--model", &adapter]);
    let said = duel(&["eval", "--format=json", cpu[0], cpu[1], "--model", &model, "--dataset", &rows]);
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&said).unwrap()["dataset"], rows);
}

#[test]
fn the_way_a_step_is_cut_does_not_matter() {
    let temp = Temp::with_model("cut");
    let whole = Run::new(&temp, "whole");
    whole.ok();
    assert!(whole.metric("loss")[5] < 0.65, "nothing was learned: {:?}", whole.metric("loss"));

    let accumulated = Run::new(&temp, "accumulated")
        .set("per-device-train-batch-size", 2)
        .set("gradient-accumulation-steps", 4);
    accumulated.ok();
    assert_same(&whole, &accumulated, RESULT);

    for tokens in [1, 150] {
        let small = Run::new(&temp, &format!("small{tokens}")).set("micro-batch-tokens", tokens);
        small.ok();
        for name in ["loss", "grad_norm", "rewards/margins", "entropy"] {
            for (a, b) in whole.metric(name).iter().zip(small.metric(name)) {
                assert!((a - b).abs() <= 2e-4 * a.abs().max(1e-2), "{tokens} tokens: {name} {a} {b}");
            }
        }
    }
}

#[test]
fn runs_repeat_bit_for_bit() {
    let temp = Temp::with_model("repeat");
    for threads in [1, 2] {
        let run = |name: &str| {
            let run = Run::new(&temp, &format!("{name}{threads}")).set("threads", threads);
            // Not only the cached reference is the same, also a computed one.
            run.set("cache-dir", temp.path(&format!("cache-{name}{threads}")).display())
        };
        let (first, second) = (run("first"), run("second"));
        first.ok();
        second.ok();
        assert_same(&first, &second, RESULT);

        let frugal = run("frugal").set("gradient-checkpointing", true);
        frugal.ok();
        assert_same(&first, &frugal, RESULT);

        let other = run("other").set("seed", 43);
        other.ok();
        assert!(first.file("metrics.jsonl") != other.file("metrics.jsonl"), "the seed does nothing");
    }
}

/// AVX2 and AVX-512 sum in one order; in bf16 an instruction of some machines, and software on the others. The baseline
/// has no fused multiply-add.
#[test]
fn vectors_change_no_bit() {
    let temp = Temp::with_model("vectors");
    let fused = Isa::available().into_iter().filter(|isa| *isa != Isa::Baseline).map(Isa::name);
    let names: Vec<&str> = fused.collect();
    if names.len() < 2 {
        eprintln!("SKIPPED vectors_change_no_bit: this machine has only {names:?}");
        return;
    }
    for bf16 in [false, true] {
        let runs = names.iter().zip([2, 1]).map(|(isa, threads)| {
            let run = Run::new(&temp, &format!("{isa}-{bf16}")).set("bf16", bf16).set("threads", threads);
            // Each computes its own reference.
            let run = run.set("cache-dir", temp.path(&format!("cache-{isa}-{bf16}")).display());
            let ended = Ended::of(run.command().env("DUEL_ISA", isa).output().unwrap());
            assert_eq!(ended.code, Some(0), "{}", ended.stderr);
            assert!(ended.stderr.contains(if bf16 { "products" } else { "F32" }), "{}", ended.stderr);
            run
        });
        let runs: Vec<Run> = runs.collect();
        assert_same(&runs[0], &runs[1], RESULT);
        let loss = runs[0].metric("loss");
        assert!((loss[0] - std::f64::consts::LN_2).abs() < 1e-15, "bf16 {bf16}: {loss:?}");
        assert!(loss[5] < 0.65, "bf16 {bf16}: nothing was learned: {loss:?}");
    }
}

#[test]
fn an_instruction_set_that_is_not_there_is_refused() {
    let temp = Temp::with_model("isa");
    let run = Run::new(&temp, "out");
    let ended = Ended::of(run.command().env("DUEL_ISA", "sse9").output().unwrap());
    assert!(ended.error().contains("DUEL_ISA=sse9: this machine has baseline"), "{}", ended.stderr);
}

/// A run with everything that is written while it goes on.
fn busy(temp: &Temp, out: &str) -> Run {
    Run::new(temp, out)
        .set("max-steps", 61)
        .set("save-steps", 4)
        .set("logging-steps", 2)
        .set("eval-dataset", temp.path("eval.jsonl").display())
        .set("eval-steps", 4)
        .set("load-best-model-at-end", true)
        .set("eval-on-start", true)
        .set("generate-during-eval", true)
        .set("num-eval-samples", 2)
        .set("max-new-tokens", 4)
}

const EVERYTHING: &[&str] =
    &["model.safetensors", "metrics.jsonl", "samples.jsonl", "config.json", "tokenizer.json"];

#[test]
fn a_run_killed_at_any_moment_ends_as_if_undisturbed() {
    let temp = Temp::with_model("kill");
    let whole = busy(&temp, "whole");
    whole.ok();
    let started = Instant::now();
    busy(&temp, "timed").ok();
    let took = started.elapsed();

    // Different moments in every run of the test; what fails is in the message.
    let mut rng = fastrand::Rng::new();
    let disturbed = busy(&temp, "disturbed");
    let next = || match disturbed.checkpoints().is_empty() {
        true => disturbed.clone().set("overwrite-output-dir", true),
        false => disturbed.clone().resume(),
    };
    let mut log = Vec::new();
    for _ in 0..15 {
        let run = next();
        let mut child = run.command().spawn().unwrap();
        let delay = took.mul_f64(rng.f64() * 0.4);
        sleep(delay);
        child.kill().unwrap();
        let ended = Ended::of(child.wait_with_output().unwrap());
        assert!(matches!(ended.code, None | Some(0)), "after {log:?}:\n{}", ended.stderr);
        log.push((delay, ended.code, disturbed.checkpoints()));
    }
    eprintln!("delay, exit code, checkpoints: {log:?}");
    assert!(log.iter().any(|(_, code, _)| code.is_none()), "nothing was killed: {log:?}");
    next().ok();
    for name in EVERYTHING {
        assert!(whole.file(name) == disturbed.file(name), "{name} differs after {log:?}");
    }
    assert_eq!(whole.checkpoints(), disturbed.checkpoints(), "{log:?}");
    assert_eq!(disturbed.half_written(), Vec::<String>::new(), "{log:?}");
}

/// Time of day decides nothing: not what is trained, when it is written, nor how long anything waits.
#[test]
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn a_clock_that_jumps_changes_no_byte() {
    use std::time::{SystemTime, UNIX_EPOCH};
    // A library that a process is started with: the time of day is a century ahead or half of one behind, in turn.
    const JUMPING: &str = r"
        #define _GNU_SOURCE
        #include <sys/syscall.h>
        #include <sys/time.h>
        #include <time.h>
        #include <unistd.h>
        int clock_gettime(clockid_t id, struct timespec *at) {
            static long looks;
            int failed = syscall(SYS_clock_gettime, id, at);
            if (!failed && id == CLOCK_REALTIME)
                at->tv_sec += __atomic_fetch_add(&looks, 1, __ATOMIC_RELAXED) % 2 ? 3155760000L : -1577880000L;
            return failed;
        }
        int gettimeofday(struct timeval *at, void *zone) {
            struct timespec now;
            clock_gettime(CLOCK_REALTIME, &now);
            at->tv_sec = now.tv_sec;
            at->tv_usec = now.tv_nsec / 1000;
            return 0;
        }
        time_t time(time_t *at) {
            struct timespec now;
            clock_gettime(CLOCK_REALTIME, &now);
            if (at) *at = now.tv_sec;
            return now.tv_sec;
        }
    ";
    let temp = Temp::with_model("clock");
    let (source, library) = (temp.path("jumping.c"), temp.path("jumping.so"));
    fs::write(&source, JUMPING).unwrap();
    let compiled = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).status();
    assert!(compiled.unwrap().success(), "the C compiler that links Rust's programs is here");
    let steady = busy(&temp, "steady").set("report-to", "tensorboard");
    steady.ok();
    let jumping = busy(&temp, "jumping").set("report-to", "tensorboard");
    let go = |run: &Run| {
        let ended = Ended::of(run.command().env("LD_PRELOAD", &library).output().unwrap());
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    };
    go(&jumping);
    // From the middle once more.
    let middle = jumping.out().join(format!("checkpoint-{}", jumping.checkpoints()[0]));
    go(&jumping.clone().set("resume-from-checkpoint", middle.display()));
    for name in EVERYTHING {
        assert!(steady.file(name) == jumping.file(name), "{name} differs");
    }
    // What is of the time of day did jump.
    let runs = fs::read_dir(jumping.out().join("runs")).unwrap();
    let begun = runs.map(|run| run.unwrap().file_name().into_string().unwrap());
    let begun: Vec<i64> = begun.map(|name| name.split('_').next().unwrap().parse().unwrap()).collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    assert!(
        !begun.is_empty() && begun.iter().all(|at| (at - now).abs() > 1_000_000_000),
        "{begun:?} and {now}"
    );
}

/// Whatever the disk does at any operation, a command ends with one error, or well, or is gone; what was whole stays
/// whole, and given again it ends in the same bytes. `cargo xtask faults` tries all points, a test a few.
#[test]
fn a_disk_that_fails_at_any_operation_loses_nothing() {
    let temp = Temp::with_model("disk");
    let run = busy(&temp, "out").set("output-dir", "out").set("cache-dir", "cache");
    let run = run.set("report-to", "tensorboard,csv");
    disk::fail_everywhere(&temp, &run);
}

/// Wherever `duel theorem` is killed, it goes on with the points that it has, and ends in the same bytes.
#[test]
fn a_study_killed_at_any_moment_ends_as_if_undisturbed() {
    let temp = Temp::new("theorem");
    let study = |out: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_duel"));
        command.args(["theorem", "--quick", "--seeds=1", "--steps=12", "--device=cpu", "--threads=1"]);
        command.arg("--output-dir").arg(temp.path(out)).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    };
    let points = |out: &str| fs::read(temp.path(out).join("points.jsonl")).unwrap_or_default();
    let lines = |out: &str| points(out).iter().filter(|byte| **byte == b'\n').count();
    let finish = |out: &str| {
        let ended = Ended::of(study(out).output().unwrap());
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    };
    finish("whole");
    let mut killed = 0;
    for wanted in [3, 8, 14] {
        let mut child = study("disturbed").spawn().unwrap();
        while lines("disturbed") < wanted && child.try_wait().unwrap().is_none() {
            sleep(Duration::from_millis(2));
        }
        child.kill().unwrap();
        killed += usize::from(child.wait().unwrap().code().is_none());
    }
    assert!(killed > 0, "nothing was killed");
    finish("disturbed");
    for name in ["points.jsonl", "theorem.md", "theorem.svg", "theorem.csv", "theorem.json"] {
        let of = |out: &str| fs::read(temp.path(out).join(name)).unwrap();
        assert!(of("whole") == of("disturbed"), "{name} differs");
    }
}

/// A process that was killed between its last checkpoint and the removal of one too many leaves that to the next.
#[test]
fn what_a_kill_left_beyond_the_limit_goes_on_resuming() {
    let temp = Temp::with_model("beyond");
    let run = Run::new(&temp, "out").set("save-steps", 2).set("save-total-limit", 2);
    run.ok();
    assert_eq!(run.checkpoints(), [4, 6]);
    fs::rename(run.out().join("checkpoint-4"), run.out().join("checkpoint-3")).unwrap();
    fs::create_dir(run.out().join("checkpoint-2")).unwrap();
    run.clone().resume().ok();
    assert_eq!(run.checkpoints(), [3, 6]);
}

/// Waits until a run has written `n` records, or has ended.
fn wait_for_records(child: &mut Child, path: &Path, n: usize) {
    while metrics::read(path).map_or(0, |r| r.len()) < n && child.try_wait().unwrap().is_none() {
        sleep(Duration::from_millis(2));
    }
}

#[test]
fn ctrl_c_saves_and_says_how_to_continue() {
    let temp = Temp::with_model("ctrl-c");
    let long = |out: &str| {
        Run::new(&temp, out)
            .set("max-steps", 300)
            .set("logging-steps", 4)
            .set("eval-dataset", temp.path("eval.jsonl").display())
            .set("eval-steps", 1)
            .set("overwrite-output-dir", true)
    };
    let whole = long("whole");
    whole.ok();

    let stopped = long("stopped");
    let mut command = stopped.command();
    // From the second time on it is the printed command that is interrupted. A shell may say twice that the terminal is
    // gone, and what is written there then fails.
    for signals in [&["INT"][..], &["HUP", "HUP"], &["USR1", "TERM"]] {
        let records = metrics::read(&stopped.out().join("metrics.jsonl")).unwrap().len();
        let mut child = command.stderr(fs::File::create(temp.path("stderr")).unwrap()).spawn().unwrap();
        wait_for_records(&mut child, &stopped.out().join("metrics.jsonl"), records + 3);
        signals.iter().for_each(|name| common::signal(&child, name));
        let code = child.wait_with_output().unwrap().status.code();
        let stderr = fs::read_to_string(temp.path("stderr")).unwrap();
        assert_eq!(code, Some(130), "{stderr}");
        assert!(!stderr.contains("error:"), "{stderr}");
        let newest = checkpoint::list(&stopped.out()).pop().expect("no checkpoint").1;
        assert!(stderr.contains(&newest.display().to_string()), "{stderr}");

        // `exec`: the signal is for the trainer, not for the shell.
        command = Command::new("sh");
        command.args(["-c", &format!("exec {}", stderr.lines().last().unwrap())]);
    }
    // As under `nohup`: that the terminal is gone is nothing to it.
    let printed = command.get_args().nth(1).unwrap().to_str().unwrap().to_owned();
    let records = metrics::read(&stopped.out().join("metrics.jsonl")).unwrap().len();
    let mut command = Command::new("sh");
    command.args(["-c", &format!("trap '' HUP; {printed}")]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    wait_for_records(&mut child, &stopped.out().join("metrics.jsonl"), records + 3);
    common::signal(&child, "HUP");
    let ended = Ended::of(child.wait_with_output().unwrap());
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("continuing after step"), "{}", ended.stderr);
    assert_same(&whole, &stopped, RESULT);
}

/// Learns its rows by heart, so that rows which it has not seen become worse.
fn by_heart(temp: &Temp, out: &str) -> Run {
    Run::new(temp, out)
        .set("max-steps", 40)
        .set("learning-rate", 2e-2)
        .set("lr-scheduler-type", "constant")
        .set("eval-dataset", temp.path("eval.jsonl").display())
        .set("load-best-model-at-end", true)
}

/// The best checkpoint is spared and left, and a run that stops early stops at the same step wherever it began.
#[test]
fn the_best_model_is_left_and_enough_is_enough() {
    let temp = Temp::with_model("best");
    let run = |out: &str| by_heart(&temp, out).set("eval-steps", 2).set("save-steps", 2);
    let early = |out: &str| run(out).set("early-stopping-patience", 3);
    let stopped = early("stopped").set("save-total-limit", "none");
    let said = stopped.ok();
    let losses = stopped.metric("eval_loss");
    let best = (0..losses.len()).min_by(|a, b| losses[*a].total_cmp(&losses[*b])).unwrap();
    let (best_step, last) = (2 * (best as u64 + 1), 2 * losses.len() as u64);
    assert_eq!((losses.len(), last < 40), (best + 4, true), "{losses:?}");
    assert!(said.contains(&format!("stopped early after step {last}: ")), "{said}");
    let of_best = format!("checkpoint-{best_step}/model.safetensors");
    assert!(stopped.file("model.safetensors") == stopped.file(&of_best), "{losses:?}");

    // One that goes on from a checkpoint after the best one.
    let copied = Command::new("cp").arg("-r").args([stopped.out(), temp.path("again")]).status().unwrap();
    assert!(copied.success());
    let on = temp.path("again").join(format!("checkpoint-{}", best_step + 2));
    let again = early("again").set("save-total-limit", "none").set("resume-from-checkpoint", on.display());
    again.ok();
    assert_same(&stopped, &again, RESULT);

    // Few are kept: the best and the newest.
    let few = early("few").set("save-total-limit", 1);
    few.ok();
    assert_same(&stopped, &few, RESULT);
    assert_eq!(few.checkpoints(), [best_step, last]);
    let state: serde_json::Value = serde_json::from_slice(&few.file("trainer_state.json")).unwrap();
    assert_eq!((&state["best_global_step"], &state["global_step"]), (&best_step.into(), &last.into()));
    assert_eq!(state["best_metric"], losses[best]);
    let evaluated: serde_json::Value = serde_json::from_slice(&few.file("eval_results.json")).unwrap();
    assert_eq!(evaluated["eval_loss"], losses[best]);

    // Without patience it goes on to the end, and leaves the same model; so does one that saves the best alone.
    let patient = run("patient");
    patient.ok();
    let improved = patient.metric("eval_loss").iter().fold(f64::INFINITY, |a, b| a.min(*b)) < losses[best];
    assert!(improved || patient.file("model.safetensors") == stopped.file("model.safetensors"));
    let mut alone = early("alone").set("save-strategy", "best");
    alone.forget("save-steps");
    alone.ok();
    assert_eq!(alone.checkpoints().last(), Some(&best_step));
    assert_same(&stopped, &alone, RESULT);

    // An evaluation that failed is made when the run goes on, or left out where there are no rows for it any more.
    let failed = early("failed").set("metric-for-best-model", "eval_nothing").go();
    assert!(failed.error().contains("checkpoint-2 is saved"), "{}", failed.stderr);
    let on = temp.path("failed").join("checkpoint-2");
    let mut blind = run("blind").set("resume-from-checkpoint", on.display());
    ["eval-dataset", "eval-steps", "load-best-model-at-end"].into_iter().for_each(|key| blind.forget(key));
    blind.ok();
    assert!(blind.metric("eval_loss").is_empty());
    let again = early("failed").set("save-total-limit", "none").set("resume-from-checkpoint", true);
    again.ok();
    assert_eq!(again.metric("eval_loss"), losses);
    assert_same(&stopped, &again, RESULT);
}

/// As transformers: after each epoch, and after the last step, which may be within one.
#[test]
fn strategies_of_epochs_and_shares_of_steps() {
    let temp = Temp::with_model("epochs");
    let epochs = by_heart(&temp, "epochs").set("max-steps", 12);
    let epochs =
        epochs.set("eval-strategy", "epoch").set("save-strategy", "epoch").set("save-total-limit", "none");
    epochs.ok();
    let steps = |run: &Run| -> Vec<u64> {
        let records = run.metrics();
        let evaluations = records.iter().filter(|record| metrics::is_evaluation(record));
        evaluations.filter_map(metrics::step_of).collect()
    };
    // Five steps an epoch.
    assert_eq!((steps(&epochs), epochs.checkpoints()), (vec![5, 10, 12], vec![5, 10, 12]));

    let shares = by_heart(&temp, "shares")
        .set("max-steps", 11)
        .set("eval-strategy", "steps")
        .set("eval-steps", 0.2)
        .set("save-steps", 0.4)
        .set("save-total-limit", "none")
        .set("logging-steps", 0.5)
        .set("logging-first-step", true);
    shares.ok();
    // ceil(11 * 0.2) = 3, ceil(11 * 0.4) = 5, ceil(11 * 0.5) = 6.
    assert_eq!((steps(&shares), shares.checkpoints()), (vec![3, 6, 9, 11], vec![5, 10, 11]));
    let logged = |run: &Run| -> Vec<u64> {
        let records = run.metrics();
        let steps = records.iter().filter(|record| !metrics::is_evaluation(record));
        steps.filter_map(metrics::step_of).collect()
    };
    assert_eq!(logged(&shares), [1, 6, 11]);

    for (strategy, expected) in [("epoch", &[5, 10, 12][..]), ("no", &[])] {
        let mut run = by_heart(&temp, strategy).set("max-steps", 12).set("logging-strategy", strategy);
        run = run.set("eval-strategy", "epoch").set("save-strategy", "epoch");
        run.forget("logging-steps");
        run.ok();
        assert_eq!(logged(&run), expected, "{strategy}");
    }
}

#[test]
fn resuming_from_an_older_checkpoint_gives_the_same_end() {
    let temp = Temp::with_model("older");
    let whole = Run::new(&temp, "whole").set("save-steps", 2).set("save-total-limit", "none");
    whole.ok();
    assert_eq!(whole.checkpoints(), [2, 4, 6]);
    let elsewhere = Run::new(&temp, "elsewhere")
        .set("save-steps", 2)
        .set("save-total-limit", 1)
        .set("resume-from-checkpoint", whole.out().join("checkpoint-2").display());
    elsewhere.ok();
    assert_same(&whole, &elsewhere, &["model.safetensors"]);
    assert_eq!(elsewhere.metrics(), whole.metrics()[2..]);
    assert_eq!(elsewhere.checkpoints(), [6]);
    assert_eq!(whole.checkpoints(), [2, 4, 6], "the other run's checkpoints were touched");
}

#[test]
fn resuming_a_finished_run_leaves_it_as_it_is() {
    let temp = Temp::with_model("finished");
    let run = Run::new(&temp, "out").set("save-total-limit", 1);
    run.ok();
    // Nor is the checkpoint written again: it would be gone for a moment.
    let now = || {
        let written = fs::metadata(run.out().join("checkpoint-6")).unwrap().modified().unwrap();
        (run.file("model.safetensors"), run.file("metrics.jsonl"), written)
    };
    let before = now();
    run.clone().resume().ok();
    assert!(before == now());
    assert_eq!(run.checkpoints(), [6]);
}

#[test]
fn supervised_training_learns_and_its_model_loads() {
    let temp = Temp::with_model("sft");
    let run = Run::new(&temp, "out")
        .set("method", "sft")
        .set("max-steps", 40)
        .set("learning-rate", 1e-2)
        .set("eval-dataset", temp.path("train.jsonl").display())
        .set("eval-steps", 20)
        .set("eval-on-start", true);
    run.ok();
    let (loss, eval) = (run.metric("loss"), run.metric("eval_loss"));
    assert!(loss[39] < 0.6 * loss[0], "{loss:?}");
    assert!(eval.len() == 3 && eval.is_sorted_by(|a, b| a > b) && eval[2] < 0.6 * loss[0], "{eval:?}");
    assert!(run.metric("mean_token_accuracy")[39] > run.metric("mean_token_accuracy")[0]);

    let folder = duel_model::Folder::open(&run.out()).unwrap();
    duel_model::load(&Cpu::<f32>::new(1), &folder).unwrap();
    // It is a model folder like the first: what was learned is where the next run starts.
    let next =
        Run::new(&temp, "next").set("method", "sft").set("model", run.out().display()).set("max-steps", 1);
    next.ok();
    assert!(next.metric("loss")[0] < 0.6 * loss[0]);
}

#[test]
fn evaluation_and_samples_are_recorded_and_at_rate_0_nothing_moves() {
    let temp = Temp::with_model("eval");
    let still = busy(&temp, "still").set("max-steps", 9).set("learning-rate", 0);
    still.ok();
    assert_eq!(still.metric("eval_kl"), [0.0; 4], "before the first step, and after steps 4, 8 and 9");
    assert!(still.metric("eval_loss").iter().all(|l| (l - std::f64::consts::LN_2).abs() < 1e-15));
    assert!(still.metric("loss").iter().all(|l| (l - std::f64::consts::LN_2).abs() < 1e-15));
    assert!(still.file("model.safetensors") == fs::read(temp.path("model/model.safetensors")).unwrap());
    let samples = String::from_utf8(still.file("samples.jsonl")).unwrap();
    let samples: Vec<serde_json::Value> = samples.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let steps: Vec<_> = samples.iter().map(|s| s["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [0, 0, 4, 4, 8, 8, 9, 9]);
    assert!(samples.iter().all(|s| s["prompt"].is_string() && s["completion"].is_string()));

    let moving = busy(&temp, "moving").set("max-steps", 9).set("learning-rate", 3e-3);
    moving.ok();
    let kls = moving.metric("eval_kl");
    assert!(kls[0] == 0.0 && kls[1..].iter().all(|&kl| kl != 0.0 && kl.is_finite()), "{kls:?}");
    for name in ["loss", "rewards/margins", "rewards/accuracies", "logps/chosen", "entropy"] {
        assert_eq!(moving.metric(&format!("eval_{name}")).len(), 4, "{name}");
    }
}

#[test]
fn optimizers_schedules_and_ranked_groups_run() {
    let temp = Temp::with_model("kinds");
    let rates = |run: Run| {
        run.ok();
        assert!(run.metric("loss").iter().all(|l| l.is_finite()));
        run.metric("learning_rate")
    };
    let close = |got: &[f64], want: &[f64]| {
        assert_eq!(got.len(), want.len());
        assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-12), "{got:?} {want:?}");
    };
    let run = |out: &str| Run::new(&temp, out).set("max-steps", 4).set("learning-rate", 4e-3);
    close(&rates(run("linear")), &[4e-3, 3e-3, 2e-3, 1e-3]);
    close(&rates(run("warmup").set("warmup-steps", 2)), &[0.0, 2e-3, 4e-3, 2e-3]);
    close(&rates(run("ratio").set("warmup-ratio", 0.5)), &[0.0, 2e-3, 4e-3, 2e-3]);
    let half = |x: f64| 2e-3 * (1.0 + (std::f64::consts::PI * x).cos());
    close(&rates(run("cosine").set("lr-scheduler-type", "cosine")), &[4e-3, half(0.25), 2e-3, half(0.75)]);
    let warm = run("constant").set("lr-scheduler-type", "constant_with_warmup").set("warmup-steps", 2);
    close(&rates(warm), &[0.0, 2e-3, 4e-3, 4e-3]);

    let rmsprop = run("rmsprop").set("optim", "rmsprop").set("max-steps", 15).set("learning-rate", 3e-4);
    rates(rmsprop.clone());
    assert!(rmsprop.metric("loss")[14] < 0.6, "{:?}", rmsprop.metric("loss"));

    let words = ["good", "fine", "bad", "awful"].map(|w| format!(" the film is {w}"));
    let row = serde_json::json!({"prompt": "i think", "responses": words});
    common::write_lines(&temp.path("ranked.jsonl"), [row]);
    let ranked = run("ranked").set("dataset", temp.path("ranked.jsonl").display());
    rates(ranked.clone());
    assert!((ranked.metric("loss")[0] - std::f64::consts::LN_2).abs() < 1e-15);
    assert!(ranked.metric("loss")[3] < ranked.metric("loss")[0]);
}

/// What is evaluated does not change what is trained, though both share the buffers.
#[test]
fn the_evaluation_file_does_not_change_the_weights() {
    let temp = Temp::with_model("evalfree");
    let long = "the film was good . ".repeat(6);
    common::write_lines(
        &temp.path("long.jsonl"),
        [serde_json::json!({"prompt": long, "chosen": format!(" {long}"), "rejected": " bad"})],
    );
    let plain = Run::new(&temp, "plain").set("micro-batch-tokens", 80);
    let with_eval = Run::new(&temp, "eval")
        .set("micro-batch-tokens", 80)
        .set("eval-dataset", temp.path("long.jsonl").display());
    plain.ok();
    with_eval.ok();
    assert_same(&plain, &with_eval, &["model.safetensors"]);
}

/// Adapters on some parts of fused products.
fn adapters(temp: &Temp, out: &str) -> Run {
    Run::new(temp, out).set("lora-r", 4).set("lora-target-modules", "q_proj,v_proj,up_proj,down_proj")
}

const ADAPTER: &[&str] = &["adapter_model.safetensors", "metrics.jsonl"];

/// Fresh adapters add nothing, and those that are trained on are their own reference, however the groups are packed.
#[test]
fn the_first_loss_of_adapters_is_ln_2() {
    let temp = Temp::with_model("adapters-ln2");
    let trained = adapters(&temp, "trained").set("learning-rate", 1e-2);
    trained.ok();
    assert!(trained.metric("loss")[5] < 0.65, "nothing was learned: {:?}", trained.metric("loss"));
    let plain = Run::new(&temp, "plain").set("max-steps", 1);
    plain.ok();
    for (i, tokens) in [0, 1, 100].into_iter().enumerate() {
        let fresh = adapters(&temp, &format!("fresh{i}"));
        let again = Run::new(&temp, &format!("again{i}")).set("model", trained.out().display());
        for (run, of_base) in [(fresh, true), (again, false)] {
            let run = run.set("micro-batch-tokens", tokens).set("max-steps", 1);
            let said = run.ok();
            let loss = run.metric("loss")[0];
            assert!((loss - std::f64::consts::LN_2).abs() < 1e-15, "{tokens} tokens: {loss:e}");
            for name in ["rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies"] {
                assert_eq!(run.metric(name), [0.0], "{tokens} tokens: {name}");
            }
            // What is computed of the base serves every adapter of it.
            assert_eq!(said.contains(" 8 read from"), of_base || i > 0, "{said}");
            assert_eq!(run.metric("logps/chosen") == plain.metric("logps/chosen"), of_base);
            assert!(said.contains("frozen weights") && said.contains("the adapters' gradients"), "{said}");
        }
    }
    // A reference that is named is rounded as the model is: of the same one it is the same.
    for (i, (key, value)) in [("load-in-4bit", "true"), ("dtype", "bfloat16")].into_iter().enumerate() {
        let run = adapters(&temp, &format!("named{i}")).set("ref-model", temp.path("model").display());
        let run = run.set("max-steps", 1).set(key, value);
        run.ok();
        assert!(
            (run.metric("loss")[0] - std::f64::consts::LN_2).abs() < 1e-15,
            "{key}: {:?}",
            run.metric("loss")
        );
    }
}

/// With inputs that are dropped: on any number of threads, with layers computed again, in micro-batches of any size,
/// and from a checkpoint on, which holds the adapter alone.
#[test]
fn adapters_repeat_and_resume_bit_for_bit() {
    let temp = Temp::with_model("adapters-bits");
    let run = |out: &str| adapters(&temp, out).set("lora-dropout", 0.2).set("save-steps", 2);
    let whole = run("whole").set("save-total-limit", "none");
    whole.ok();
    let other = run("threads").set("threads", 2).set("gradient-checkpointing", true);
    other.ok();
    assert_same(&whole, &other, ADAPTER);
    let checkpoint = whole.out().join("checkpoint-2");
    assert!(!checkpoint.join("model.safetensors").exists() && !checkpoint.join("config.json").exists());
    let on = run("on").set("resume-from-checkpoint", checkpoint.display());
    on.ok();
    assert_same(&whole, &on, &ADAPTER[..1]);
    // Which inputs are dropped does not depend on what is computed together; that some are, a reference shows that
    // drops none.
    let first_loss = |tokens: usize| {
        let run = Run::new(&temp, &format!("on{tokens}")).set("model", whole.out().display());
        let run = run.set("micro-batch-tokens", tokens).set("max-steps", 1);
        run.ok();
        run.metric("loss")
    };
    let loss = first_loss(0);
    assert_eq!(loss, first_loss(1));
    assert!((loss[0] - std::f64::consts::LN_2).abs() > 1e-9, "{loss:?}");
}

/// Adapters in bfloat16, whose masters alone are the weights': the same bits after a stop.
#[test]
fn adapters_have_masters() {
    let temp = Temp::with_model("adapters-bf16");
    let run = |out: &str| adapters(&temp, out).set("bf16", true).set("save-steps", 3);
    let whole = run("whole");
    assert!(whole.ok().contains("their masters"));
    let loss = whole.metric("loss");
    assert!((loss[0] - std::f64::consts::LN_2).abs() < 1e-15 && loss[5] < loss[0], "{loss:?}");
    let on = run("on").set("resume-from-checkpoint", whole.out().join("checkpoint-3").display());
    on.ok();
    assert_same(&whole, &on, &ADAPTER[..1]);
}

/// Over a model in each form: the first loss, the same bits after a stop, and what a merge says of it.
#[test]
fn adapters_learn_over_every_form_of_a_model() {
    let temp = Temp::with_model("adapters-forms");
    let merge = |run: &Run| {
        let (from, to) = (run.out(), run.out().with_extension("merged"));
        let args = ["merge", "--model", from.to_str().unwrap(), "--output-dir", to.to_str().unwrap()];
        let output = Command::new(env!("CARGO_BIN_EXE_duel")).args(args).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let mut losses = Vec::new();
    for (key, value, said) in [
        ("dtype", "float32", ""),
        ("dtype", "bfloat16", "bfloat16"),
        ("load-in-8bit", "true", "8-bit blocks"),
        ("load-in-4bit", "true", "4-bit blocks"),
    ] {
        let run =
            |out: &str| adapters(&temp, &format!("{out}-{value}-{key}")).set(key, value).set("save-steps", 3);
        let whole = run("whole").set("learning-rate", 1e-2);
        assert!(whole.ok().contains(&format!("in {said}")), "{key}");
        let loss = whole.metric("loss");
        assert!((loss[0] - std::f64::consts::LN_2).abs() < 1e-15 && loss[5] < 0.65, "{key}: {loss:?}");
        let on = run("on").set("learning-rate", 1e-2);
        let on = on.set("resume-from-checkpoint", whole.out().join("checkpoint-3").display());
        on.ok();
        assert_same(&whole, &on, &ADAPTER[..1]);
        let note = merge(&whole);
        assert_eq!(note.contains("was trained"), !said.is_empty(), "{note}");
        assert!(note.contains(said), "{note}");
        losses.push(loss[5]);
    }
    losses.dedup();
    assert_eq!(losses.len(), 4, "each form is another model: {losses:?}");
    // Where bfloat16 holds all of a model, that is the model.
    let half = Run::new(&temp, "half").set("save-dtype", "bfloat16").set("max-steps", 1);
    half.ok();
    let run = |dtype: &str| adapters(&temp, dtype).set("model", half.out().display()).set("dtype", dtype);
    let (stored, wide) = (run("auto"), run("float32"));
    assert!(stored.ok().contains("in bfloat16 0.00") && !wide.ok().contains("in bfloat16"));
    assert_same(&stored, &wide, ADAPTER);
}

/// Every method of files trains adapters, which merge to a model that says the same.
#[test]
fn every_method_of_files_trains_adapters() {
    let temp = Temp::with_model("adapters-methods");
    for method in ["sft", "dpo", "cpo", "orpo", "kto", "reward"] {
        let run = adapters(&temp, method)
            .set("method", method)
            .set("eval-dataset", temp.path("eval.jsonl").display());
        run.ok();
        let loss = run.metric("loss");
        assert!(loss[5] != loss[0], "{method}: {loss:?}");
        let merged = temp.path(&format!("{method}-merged"));
        let duel = |args: &[&str]| {
            let output = Command::new(env!("CARGO_BIN_EXE_duel")).args(args).output().unwrap();
            assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        let (out, to) = (run.out(), merged.to_str().unwrap().to_owned());
        let out = out.to_str().unwrap();
        duel(&["merge", "--model", out, "--output-dir", &to]);
        let eval = temp.path("eval.jsonl");
        let said = |model: &str| {
            duel(&[
                "eval",
                "--model",
                model,
                "--dataset",
                eval.to_str().unwrap(),
                "--format=json",
                "--device=cpu",
            ])
        };
        // The same numbers, by another name.
        assert_eq!(said(out).replace(out, ""), said(&to).replace(&to, ""), "{method}");
    }
}
