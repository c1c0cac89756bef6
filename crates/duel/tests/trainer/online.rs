//! What must hold for every method that learns from its own samples: it learns, the way a step is cut changes nothing,
//! runs repeat and continue bit for bit, whatever ends them and whoever judges.

#[path = "../../../judge/tests/common/server.rs"]
mod server;

use self::server::{Act, Request, Server};
use crate::common::{Ended, RESULT, Run, Temp, assert_same, interrupt, write_lines};
use duel_backend::{Backend, Float};
use duel_cpu::{Cpu, Isa};
use duel_data::{Files, Prompt, Prompts, Tokenizer};
use duel_experiments::grammar;
use duel_model::decode::{self, Sampling};
use duel_model::{Folder, Keep};
use duel_rollout::{Asked, Sampler, groups};
use duel_train::checkpoint;
use duel_train::config::Method;
use duel_train::engine::{Beside, Engine, Room};
use serde_json::json;
use std::collections::HashSet;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A folder with a model, twelve prompts, three to evaluate on, one of them longer than all, and a lexicon that likes
/// every other word.
fn temp(name: &str) -> Temp {
    let temp = Temp::with_model(name);
    let mut rng = fastrand::Rng::with_seed(5);
    let mut prompt = |i: usize| {
        let review = grammar::sample_review(&mut rng);
        let words: Vec<&str> = review.split(' ').take(2 + i % 3).collect();
        json!({"prompt": words.join(" ")})
    };
    write_lines(&temp.path("prompts.jsonl"), (0..12).map(&mut prompt));
    let long = json!({"prompt": "the film was good . ".repeat(5).trim()});
    write_lines(&temp.path("looked.jsonl"), (0..2).map(&mut prompt).chain([long]));
    let word = |(i, word): (usize, &&str)| format!("{word}\t{}", if i % 2 == 0 { 1.0 } else { -0.5 });
    let vocabulary = grammar::vocabulary();
    let words = vocabulary.iter().filter(|word| word.bytes().all(|c| c.is_ascii_lowercase()));
    write_lines(&temp.path("words.tsv"), words.enumerate().map(word));
    temp
}

/// 4 steps of 4 prompts, with samples of up to 6 tokens, as the lexicon says.
fn run(temp: &Temp, out: &str, method: Method) -> Run {
    Run::new(temp, out)
        .set("method", method)
        .set("dataset", temp.path("prompts.jsonl").display())
        .set("judge", format!("lexicon:{}", temp.path("words.tsv").display()))
        .set("per-device-train-batch-size", 4)
        .set("max-completion-length", 6)
        .set("max-steps", 4)
}

fn online() -> impl Iterator<Item = Method> {
    Method::ALL.iter().copied().filter(|method| method.is_online())
}

/// Options of a run.
type Said = &'static [(&'static str, &'static str)];

/// Runs beside those of each method as it is, each with something that goes on from step to step.
const MORE: &[(&str, Method, Said)] = &[
    ("replay", Method::OnlineDpo, &[("replay", "3"), ("replay-max-age", "2")]),
    ("replay of sppo", Method::Sppo, &[("replay", "9"), ("num-generations", "2")]),
    ("target", Method::Ppo, &[("target-kl", "0.01"), ("kl-horizon", "50"), ("kl-estimator", "k3")]),
    (
        "parts",
        Method::Ppo,
        &[("num-mini-batches", "2"), ("whiten-rewards", "true"), ("num-generations", "2")],
    ),
    ("normal", Method::Rloo, &[("normalize-rewards", "true"), ("missing-eos-penalty", "0.5")]),
    ("sync", Method::Grpo, &[("beta", "0.1"), ("sync-ref-model", "true"), ("ref-model-sync-steps", "1")]),
    ("iterated", Method::Grpo, &[("num-iterations", "2"), ("loss-type", "dr_grpo")]),
    ("rounds", Method::Sppo, &[("ref-model-sync-steps", "2")]),
];

/// Every run by its name.
fn all(temp: &Temp) -> Vec<(String, Run)> {
    let plain = online().map(|method| (method.to_string(), run(temp, "out", method)));
    let more = MORE.iter().map(|(name, method, options)| {
        let run = run(temp, "out", *method);
        (name.to_string(), options.iter().fold(run, |run, (key, value)| run.set(key, value)))
    });
    plain.chain(more).collect()
}

/// The run `name`, into a folder of its own.
fn into(temp: &Temp, (name, run): &(String, Run), out: &str) -> Run {
    run.clone().set("output-dir", temp.path(&format!("{name}-{out}")).display())
}

#[test]
fn every_method_repeats_and_continues_bit_for_bit() {
    let temp = temp("online-repeats");
    let fused = Isa::available().into_iter().find(|isa| *isa != Isa::Baseline);
    for run in &all(&temp) {
        let (name, make) = (&run.0, |out| into(&temp, run, out));
        let looks = |run: Run| {
            run.set("save-steps", 2)
                .set("eval-dataset", temp.path("looked.jsonl").display())
                .set("eval-steps", 2)
        };
        let whole = looks(make("whole"));
        whole.ok();
        // By two threads, and other vectors where the machine has them.
        let again = looks(make("again")).set("threads", 2);
        let mut command = again.command();
        command.envs(fused.map(|isa| ("DUEL_ISA", isa.name())));
        let ended = Ended::of(command.output().unwrap());
        assert_eq!(ended.code, Some(0), "{name}: {}", ended.stderr);
        assert_same(&whole, &again, RESULT);
        // To look at a policy does not change it.
        let blind = make("blind");
        blind.ok();
        assert_same(&whole, &blind, &["model.safetensors"]);

        let resumed =
            looks(make("resumed")).set("resume-from-checkpoint", whole.out().join("checkpoint-2").display());
        resumed.ok();
        assert_same(&whole, &resumed, &["model.safetensors"]);
        let after = |run: &Run| {
            run.metrics().into_iter().filter(|r| r["step"].as_u64().unwrap() > 2).collect::<Vec<_>>()
        };
        assert_eq!(after(&resumed), after(&whole), "{name}");
        assert_eq!(after(&whole).len(), 3, "{name}");
    }
}

#[test]
fn the_way_a_step_is_cut_does_not_matter() {
    let temp = temp("online-cuts");
    for run in &all(&temp) {
        let (name, make) = (&run.0, |out| into(&temp, run, out).set("save-strategy", "no"));
        let whole = make("whole");
        whole.ok();
        let accumulated =
            make("accumulated").set("per-device-train-batch-size", 2).set("gradient-accumulation-steps", 2);
        accumulated.ok();
        assert_same(&whole, &accumulated, RESULT);

        let small = make("small").set("micro-batch-tokens", 1);
        small.ok();
        for metric in ["loss", "grad_norm", "reward", "entropy", "kl"] {
            for (a, b) in whole.metric(metric).iter().zip(small.metric(metric)) {
                // The same sums in another order, over steps that a rounding makes drift apart.
                assert!((a - b).abs() <= 1e-3 * a.abs().max(1e-2), "{name}: {metric} {a} {b}");
            }
        }
    }
}

#[test]
fn every_method_earns_more() {
    let temp = temp("online-learns");
    for method in online() {
        let run = run(&temp, &method.to_string(), method)
            .set("save-strategy", "no")
            .set("max-steps", 40)
            .set("lr-scheduler-type", "constant")
            .set("learning-rate", 1e-2)
            .set("eval-dataset", temp.path("prompts.jsonl").display())
            .set("eval-steps", 1);
        let run = match method {
            Method::Reinforce | Method::Ppo => run.set("num-generations", 4),
            // It has one sample a prompt, and what it may earn is less than 1/2.
            Method::NashMd => run.set("per-device-train-batch-size", 12),
            _ => run,
        };
        run.ok();
        // What the lexicon says of samples that have the same random numbers after each step.
        let reward = run.metric("eval_reward");
        let last = reward[35..].iter().sum::<f64>() / 5.0;
        assert!(last > reward[0] + 0.5, "{method}: {reward:?}");
    }
}

/// The model that trains says of a drawn token what the one that drew it said, and the reference is the policy.
#[test]
fn the_first_update_is_on_the_policy() {
    let temp = temp("online-first");
    for run in &all(&temp) {
        let name = &run.0;
        for tokens in [0, 1, 40] {
            let run = into(&temp, run, &format!("first{tokens}"))
                .set("save-strategy", "no")
                .set("max-steps", 1)
                .set("micro-batch-tokens", tokens)
                .set("eval-dataset", temp.path("looked.jsonl").display());
            // Another update than the first is of a policy that has moved.
            let run = match run.get("method") {
                "ppo" => run.set("num-ppo-epochs", 1).set("num-mini-batches", 1),
                "grpo" => run.set("num-iterations", 1).set("beta", 0.1),
                _ => run,
            };
            run.ok();
            let mut seen = 0;
            for (metric, want) in [
                ("val/ratio", 1.0),
                ("policy/approxkl_avg", 0.0),
                ("clip_ratio/region_mean", 0.0),
                ("kl", 0.0),
                ("kl_k1", 0.0),
                ("kl_k3", 0.0),
                ("sequence_kl", 0.0),
                ("objective/kl", 0.0),
            ] {
                let said = run.metric(metric);
                assert!(said.iter().all(|x| *x == want), "{name}, {tokens} tokens: {metric} {said:?}");
                seen += said.len();
            }
            assert!(seen >= 4, "{name}: {seen} of them were logged");
            assert_eq!(run.metric("eval_kl").len(), 1, "{name}");
        }
    }
}

/// What a model says of an answer, or of two: made of the question alone.
fn opinion(request: &Request) -> Act {
    let sum: u32 = request.text().bytes().map(u32::from).sum();
    Act::Say(match request.text().contains("[Answer B]") {
        true => format!("Verdict: {}", ["A", "B", "tie"][sum as usize % 3]),
        false => json!({"reasoning": "none", "score": 1 + sum % 10}).to_string(),
    })
}

/// A run that is judged over HTTP, with all that goes on from step to step.
fn judged(temp: &Temp, out: &str, method: Method, server: &Server) -> Run {
    let run = run(temp, out, method)
        .set("judge", &server.url)
        .set("judge-model", "m")
        .set("judge-concurrency", 1)
        .set("max-steps", 24)
        .set("save-steps", 3)
        .set("logging-steps", 2)
        .set("eval-dataset", temp.path("looked.jsonl").display())
        .set("eval-steps", 5)
        .set("eval-on-start", true);
    match method {
        Method::Ppo => run.set("target-kl", 0.01).set("kl-horizon", 50).set("judge-ask", "score"),
        _ => run.set("replay", 3).set("sync-ref-model", true).set("ref-model-sync-steps", 4),
    }
}

#[test]
fn a_run_killed_at_any_moment_ends_as_if_undisturbed() {
    let temp = temp("online-kill");
    let mut rng = fastrand::Rng::new();
    for method in [Method::Ppo, Method::OnlineDpo] {
        let server = Server::start(|_, request| opinion(request));
        let whole = judged(&temp, &format!("{method}-whole"), method, &server);
        let started = Instant::now();
        whole.ok();
        let took = started.elapsed();
        let questions = |server: &Server| -> Vec<String> {
            server.asked().iter().map(|request| request.body.to_string()).collect()
        };
        let distinct: HashSet<String> = questions(&server).into_iter().collect();
        assert_eq!(questions(&server).len(), distinct.len(), "an answer that was kept was asked for again");

        let server = Server::start(|_, request| opinion(request));
        let disturbed = judged(&temp, &format!("{method}-disturbed"), method, &server);
        // The endpoint is part of what a run is.
        let next = || match disturbed.checkpoints().is_empty() {
            true => disturbed.clone().set("overwrite-output-dir", true),
            false => disturbed.clone().resume(),
        };
        let mut log = Vec::new();
        for _ in 0..8 {
            let mut child = next().command().spawn().unwrap();
            let delay = took.mul_f64(rng.f64() * 0.6);
            sleep(delay);
            child.kill().unwrap();
            let ended = Ended::of(child.wait_with_output().unwrap());
            assert!(matches!(ended.code, None | Some(0)), "after {log:?}:\n{}", ended.stderr);
            log.push((delay, ended.code, disturbed.checkpoints()));
        }
        assert!(log.iter().any(|(_, code, _)| code.is_none()), "nothing was killed: {log:?}");
        next().ok();
        for name in ["model.safetensors", "metrics.jsonl"] {
            assert!(whole.file(name) == disturbed.file(name), "{method}: {name} differs after {log:?}");
        }
        assert_eq!(whole.checkpoints(), disturbed.checkpoints(), "{log:?}");
        assert_eq!(disturbed.half_written(), Vec::<String>::new(), "{log:?}");
        // One question at a time is out: a kill loses no more than its answer.
        let asked = questions(&server);
        let once: HashSet<String> = asked.iter().cloned().collect();
        assert!(asked.len() - once.len() <= log.len(), "{} of {} were new", once.len(), asked.len());
        assert_eq!(once, distinct, "{method}");
    }
}

#[test]
fn ctrl_c_saves_and_says_how_to_continue() {
    let temp = temp("online-ctrl-c");
    let server = Server::start(|_, request| opinion(request));
    let whole = judged(&temp, "whole", Method::OnlineDpo, &server);
    whole.ok();
    let in_all = server.asked().len();

    let hangs = Arc::new(AtomicBool::new(true));
    let flag = hangs.clone();
    let at = in_all / 2;
    let server = Server::start(move |number, request| match number == at && flag.load(Ordering::Relaxed) {
        true => Act::Hang(Duration::from_secs(600)),
        false => opinion(request),
    });
    let stopped = judged(&temp, "stopped", Method::OnlineDpo, &server);
    let child = stopped.command().spawn().unwrap();
    let began = Instant::now();
    while server.asked().len() <= at {
        assert!(began.elapsed() < Duration::from_secs(60), "the endpoint is not asked");
        sleep(Duration::from_millis(5));
    }
    interrupt(&child);
    let ended = Ended::of(child.wait_with_output().unwrap());
    assert_eq!(ended.code, Some(130), "{}", ended.stderr);
    assert!(!ended.stderr.contains("error:"), "{}", ended.stderr);
    let newest = checkpoint::list(&stopped.out()).pop().expect("no checkpoint").1;
    assert!(ended.stderr.contains(&newest.display().to_string()), "{}", ended.stderr);

    hangs.store(false, Ordering::Relaxed);
    let mut command = Command::new("sh");
    command.args(["-c", &format!("exec {}", ended.stderr.lines().last().unwrap())]).stderr(Stdio::piped());
    let ended = Ended::of(command.output().unwrap());
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("continuing after step"), "{}", ended.stderr);
    assert_same(&whole, &stopped, RESULT);
    assert_eq!(server.asked().len(), in_all + 1, "only the one that was not answered");
}

/// The run fails with one message that holds all `parts`.
fn refused(run: &Run, parts: &[&str]) {
    let ended = run.go();
    let error = ended.error();
    assert!(parts.iter().all(|part| error.contains(part)), "{parts:?} are not in: {error}");
}

#[test]
fn prompts_and_samples_that_teach_nothing_are_refused() {
    let temp = temp("online-refused");
    let run = |method| run(&temp, "out", method);
    for (name, rows, what) in [
        ("empty.jsonl", "", "no rows"),
        ("wrong.jsonl", "{\"prompt\": \"we saw it\"}\n{\"text\": \"the film\"}\n", "row 2"),
    ] {
        std::fs::write(temp.path(name), rows).unwrap();
        refused(&run(Method::Rloo).set("dataset", temp.path(name).display()), &[name, what]);
    }
    let long = run(Method::Ppo).set("max-completion-length", 63);
    refused(
        &long,
        &["prompts.jsonl: no prompt leaves room for `max_completion_length = 63`", "more than 1 tokens"],
    );
    let one = run(Method::Rloo).set("num-generations", 1);
    refused(&one, &["`num_generations = 1` is too few for `method = rloo`", "at least 2"]);
    let wild = run(Method::Ppo).set("target-kl", 1).set("kl-horizon", 3);
    refused(&wild, &["`kl_horizon = 3` is less than the 4 samples of a step"]);
    let penalty = run(Method::Sppo).set("missing-eos-penalty", 1);
    refused(&penalty, &["`missing_eos_penalty` has no effect with `method = nash_md` or `sppo`"]);
    let scaled = run(Method::Xpo).set("normalize-rewards", true);
    refused(&scaled, &["`normalize_rewards` has no effect with `method = nash_md`, `xpo` or `sppo`"]);
    let server = Server::start(|_, request| opinion(request));
    let compares = run(Method::Reinforce).set("judge", &server.url).set("judge-model", "m");
    refused(&compares, &["compares samples", "`num_generations = 1` gives it none to compare"]);
    assert!(server.asked().is_empty());
    // Nothing was begun.
    assert!(!temp.path("out").exists());
}

/// A judge that tells no samples apart, and samples none of which counts: steps that change nothing, and say so.
#[test]
fn steps_that_teach_nothing_change_nothing() {
    let temp = temp("online-nothing");
    write_lines(&temp.path("silent.tsv"), ["unheard\t1"]);
    let silent = format!("lexicon:{}", temp.path("silent.tsv").display());
    let before = std::fs::read(temp.path("model/model.safetensors")).unwrap();
    for method in [Method::Rloo, Method::Grpo, Method::OnlineDpo, Method::Sppo, Method::Xpo] {
        let equal = run(&temp, &format!("{method}-equal"), method).set("judge", &silent);
        let said = equal.ok();
        assert!(equal.file("model.safetensors") == before, "{method}: the weights have moved");
        match method.draws_pairs() {
            true => {
                assert!(said.contains("warning: step 4: no prompt has two samples that count"), "{said}");
                assert_eq!(equal.metric("tied"), [1.0; 4], "{method}");
            }
            false => {
                assert!(said.contains("warning: step 4: the judge gives all samples of a prompt"), "{said}");
                assert_eq!(equal.metric("frac_reward_zero_std"), [1.0; 4], "{method}");
            }
        }
        assert_eq!(equal.metric("reward"), [0.0; 4], "{method}");
    }
    for method in online() {
        let cut = run(&temp, &format!("{method}-cut"), method)
            .set("per-device-train-batch-size", 1)
            .set("max-steps", 8)
            .set("max-completion-length", 1)
            .set("mask-truncated-completions", true);
        let cut = match method {
            Method::Xpo | Method::NashMd => cut,
            _ => cut.set("num-generations", 2),
        };
        let said = cut.ok();
        // Now and then the one token is the end.
        let (clipped, norm) = (cut.metric("completions/clipped_ratio"), cut.metric("grad_norm"));
        let still = clipped.iter().zip(norm).filter(|(clipped, norm)| **clipped < 1.0 || *norm == 0.0);
        assert_eq!(still.count(), 8, "{method}: {clipped:?}");
        let nothing = clipped.iter().filter(|clipped| **clipped == 1.0).count();
        assert!(nothing >= 4, "{method}: {clipped:?}");
        assert!(said.matches("nothing was learned").count() >= nothing, "{method}: {said}");
    }
    let scaled = run(&temp, "scaled", Method::Rloo).set("judge", &silent).set("normalize-rewards", true);
    refused(&scaled, &["rewards cannot be normalised: the deviation of these 264 is 0"]);
}

/// The first line of a program that judges.
const GREETING: &str =
    r#"read hello; echo '{"protocol": "duel-judge", "version": 1, "tasks": ["score"], "name": "n"}'"#;
/// Gives the number of the question in `line` to `id`.
const ID: &str = r#"id=${line#*\"id\":}; id=${id%%,*}"#;

#[test]
fn a_judge_that_fails_is_one_error() {
    let temp = temp("online-judges");
    let answers = |scores: &str| {
        let answer = format!(r#"{{\"id\": $id, \"scores\": {scores}}}"#);
        format!("{GREETING}\nwhile read line; do {ID}; echo \"{answer}\"; done")
    };
    for (name, script, part) in [
        ("nan", answers("[NaN, 1]"), "no JSON, which has no NaN"),
        ("short", answers("[1]"), "which has 1 `scores` for 2 responses"),
        (
            "dead",
            format!("{GREETING}; read line; echo no memory >&2; exit 3"),
            "its standard error ends: no memory",
        ),
        ("hangs", format!("{GREETING}; read line; sleep 600"), "was waited for 1 s for an answer"),
    ] {
        let path = temp.path(&format!("{name}.sh"));
        std::fs::write(&path, script).unwrap();
        let run = run(&temp, name, Method::Rloo)
            .set("judge", format!("program:sh {}", path.display()))
            .set("judge-timeout", if name == "hangs" { 1 } else { 20 });
        refused(&run, &["the judge `sh ", part]);
        assert!(!run.out().join("model.safetensors").exists(), "{name}");
    }
}

/// Keys are in the environment and go to whom they are for: no output of a run that ends well, nor of one whose
/// endpoint says the key back, has them, and neither have folder, caches and report.
#[test]
fn secrets_are_in_nothing_that_is_written() {
    const SECRET: &str = "very-secret";
    let temp = temp("online-secrets");
    let server = Server::start(|number, request| match number {
        0..24 => opinion(request),
        _ => Act::Raw(server::reply("401 Unauthorized", "", &format!("no, {}", request.head))),
    });
    let run = |out: &str| {
        run(&temp, out, Method::Rloo)
            .set("judge", &server.url)
            .set("judge-model", "m")
            .set("judge-key-env", "DUEL_TEST_KEY")
            .set("judge-ask", "score")
            .set("judge-cache", temp.path("said.jsonl").display())
            .set("report-to", "tensorboard,csv")
            .set("save-steps", 1)
    };
    let ended = |mut command: Command| {
        let secrets = [("DUEL_TEST_KEY", "sk-"), ("HF_TOKEN", "hf_"), ("WANDB_API_KEY", "")];
        command.envs(secrets.map(|(name, start)| (name, format!("{start}{SECRET}"))));
        let output = command.output().unwrap();
        let said = [&output.stdout[..], &output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(!said.contains(SECRET), "{said}");
        Ended::of(output)
    };
    let first = run("out").set("max-steps", 1).set("per-device-train-batch-size", 2);
    assert_eq!(ended(first.command()).code, Some(0));
    let refused = ended(run("refused").command());
    assert!(refused.error().contains("status 401"), "{}", refused.stderr);
    let mut report = Command::new(env!("CARGO_BIN_EXE_duel"));
    report.arg("report").arg(first.out()).arg("--output").arg(temp.path("report.html"));
    assert_eq!(ended(report).code, Some(0));
    assert!(server.asked().iter().all(|request| request.head.contains(SECRET)), "a question without its key");

    fn look(folder: &std::path::Path, files: &mut usize) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                look(&path, files);
            } else {
                *files += 1;
                let found =
                    std::fs::read(&path).unwrap().windows(SECRET.len()).any(|w| w == SECRET.as_bytes());
                assert!(!found, "{} has a secret", path.display());
            }
        }
    }
    let mut files = 0;
    look(&temp.path(""), &mut files);
    assert!(files > 20, "{files} files");
}

/// What was trained before a judge left is saved, and goes on when the judge is back.
#[test]
fn a_judge_that_leaves_costs_no_training() {
    let temp = temp("online-leaves");
    // A question has the samples of a prompt: the 14th is in the fourth step.
    let leaves = format!("n=$((n+1)); [ $n = 14 ] && [ -e '{}' ] && exit 3", temp.path("tired").display());
    // By the length of the texts, whatever the number of the question.
    let answer = r#"{\"id\": $id, \"scores\": [$((${#line} - ${#id})), 200]}"#;
    let script = format!("{GREETING}\nn=0\nwhile read line; do {ID}; {leaves}\necho \"{answer}\"; done");
    std::fs::write(temp.path("judge.sh"), script).unwrap();
    let run = |out: &str| {
        run(&temp, out, Method::Rloo)
            .set("judge", format!("program:sh {}", temp.path("judge.sh").display()))
            .set("judge-timeout", 20)
            .set("judge-concurrency", 1)
    };
    let (whole, left) = (run("whole"), run("left"));
    whole.ok();
    std::fs::write(temp.path("tired"), "").unwrap();
    refused(&left, &["it ended (exit status: 3)", "left/checkpoint-3 is saved"]);
    std::fs::remove_file(temp.path("tired")).unwrap();
    left.clone().resume().ok();
    assert_same(&whole, &left, RESULT);
}

#[test]
fn a_run_continues_with_what_it_began_with() {
    let temp = temp("online-other");
    let run = run(&temp, "out", Method::Ppo).set("max-steps", 2).set("save-steps", 1);
    run.ok();
    let resumed = |from: u32| {
        let checkpoint = run.out().join(format!("checkpoint-{from}"));
        run.clone()
            .set("output-dir", temp.path("resumed").display())
            .set("resume-from-checkpoint", checkpoint.display())
    };
    refused(&resumed(1).set("judge", "truth"), &["cannot be continued with other settings: judge was"]);
    refused(
        &resumed(1).set("num-generations", 3),
        &["cannot be continued with other settings: num_generations was"],
    );
    for name in ["words.tsv", "prompts.jsonl"] {
        let before = std::fs::read_to_string(temp.path(name)).unwrap();
        let other: String = before.lines().rev().map(|line| format!("{line}\n")).collect();
        std::fs::write(temp.path(name), &other).unwrap();
        refused(
            &resumed(1),
            &["checkpoint-1 was made with other content of", "prompts.jsonl, or by another judge"],
        );
        std::fs::write(temp.path(name), before).unwrap();
    }
    std::fs::remove_file(run.out().join("checkpoint-1/value_head.safetensors")).unwrap();
    refused(&resumed(1), &["checkpoint-1/value_head.safetensors is missing, and with it the value head"]);
    resumed(2).ok();
}

/// What was drawn has the log-probabilities that the packed pass says it has: the policy that drew is the policy that
/// learns.
#[test]
fn samples_have_the_log_probabilities_that_the_trainer_computes() {
    let temp = temp("online-sampler");
    let folder = Folder::open(&temp.path("model")).unwrap();
    let tokenizer = Tokenizer::from_dir(&temp.path("model")).unwrap();
    let (path, mut prompts) = (temp.path("prompts.jsonl"), Vec::new());
    let files = Files::from(&path);
    let file = Prompts { files: &files, tokenizer: &tokenizer, as_messages: false };
    file.each(|prompt| {
        prompts.push(prompt);
        Ok(())
    })
    .unwrap();
    fn check<B: Backend>(b: &B, folder: &Folder, tokenizer: &Tokenizer, prompts: &[Prompt]) {
        let (model, weights) = (folder.config(), duel_model::load(b, folder).unwrap());
        let room = decode::Room::for_sizes(prompts.iter().map(|p| (p.tokens.len(), 3)), 16, 12);
        let how = Sampling { max_new_tokens: 12, ..Sampling::default() };
        let mut sampler = Sampler::new(b, model, room, how).unwrap();
        let asked: Vec<Asked<'_>> =
            prompts.iter().enumerate().map(|(i, prompt)| Asked { prompt, id: i as u64 }).collect();
        let drawn = sampler.draw(b, &weights, tokenizer, &asked, 3, |_| true).unwrap().unwrap();
        let ds = groups(&drawn).unwrap();
        let all: Vec<u32> = (0..ds.len() as u32).collect();
        let room = Room::plan(b, &ds, ds.len(), 0, model.vocab);
        let beside = Beside { reference: true, critic: false };
        let mut engine = Engine::with(b, model, room, Keep::Nothing, beside).unwrap();
        let said = engine.survey(&weights, &weights, None, &ds, &all).unwrap();
        let samples: Vec<_> = drawn.iter().flat_map(|rollout| &rollout.samples).collect();
        assert_eq!(said.len(), samples.len());
        // As tests/tests/models/decoding.rs has it: 256 roundings of the largest number on the way. A logit is the
        // product of a normed row, of length sqrt(32), and one of the table, of length about 0.1 sqrt(32): below 8.
        let bound = 256.0 * B::Real::EPSILON.max(B::Acc::EPSILON) * 8.0;
        for (sample, said) in samples.into_iter().zip(&said) {
            assert_eq!(sample.logps.len(), said.rows.len());
            for (drawn, row) in sample.logps.iter().zip(&said.rows) {
                assert!((drawn - row.logp).abs() <= bound, "{drawn} when drawn, {} when learned", row.logp);
            }
        }
    }
    check(&Cpu::<f32>::new(2), &folder, &tokenizer, &prompts);
    check(&Cpu::<f64>::new(1), &folder, &tokenizer, &prompts);
}

/// The policy is its own reference before the first step, with the weights of one model.
#[test]
fn adapters_learn_from_their_own_samples() {
    let temp = temp("adapters");
    for (i, method) in online().filter(|method| *method != Method::Sppo).enumerate() {
        let run = run(&temp, &method.to_string(), method).set("lora-r", 2).set("max-steps", 2);
        // Over blocks of 8 and of 4 bits as over the weights as they are.
        let run = if i % 3 == 0 { run } else { run.set(["load-in-8bit", "load-in-4bit"][i % 3 - 1], true) };
        run.ok();
        assert_eq!(run.metric("kl")[0], 0.0, "{method}");
        assert!(run.out().join("adapter_model.safetensors").exists(), "{method}");
    }
    let sppo = run(&temp, "sppo", Method::Sppo).set("lora-r", 2).go();
    assert!(sppo.error().contains("`method = sppo`"), "{}", sppo.stderr);
    let dropping = run(&temp, "dropping", Method::Grpo).set("lora-r", 2).set("lora-dropout", 0.1).go();
    assert!(dropping.error().contains("`lora_dropout = 0.1`"), "{}", dropping.stderr);
}
