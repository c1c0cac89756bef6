//! `duel sample` and `duel tournament`, which draw of prompts: what they write, that they go on where they were
//! stopped, and what they refuse.

mod common;

use common::{Ended, Temp, interrupt, pairs, tiny_config, write_lines, write_model};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

fn command(temp: &Temp, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_duel"));
    command.args(["sample", "--device", "cpu", "--max-new-tokens", "9", "--model"]);
    command.arg(temp.path("model")).arg("--dataset").arg(temp.path("prompts.jsonl")).args(args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(temp: &Temp, args: &[&str]) -> Output {
    command(temp, args).output().unwrap()
}

fn good(output: Output) -> (Vec<Value>, String) {
    let [stdout, stderr] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(output.status.success(), "{stderr}");
    (stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), stderr)
}

/// A folder with `model/` and `prompts.jsonl`, of so many rows.
fn with_prompts(name: &str, n: usize) -> Temp {
    let temp = Temp::with_model(name);
    write_lines(&temp.path("prompts.jsonl"), pairs(n, 3));
    temp
}

#[test]
fn completions_are_those_of_generate_and_stand_with_their_prompts() {
    let temp = with_prompts("lines", 5);
    let (lines, said) = good(run(&temp, &["--num-generations", "3"]));
    assert_eq!(lines.len(), 5);
    let generate = |prompts: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_duel"));
        command.args(["generate", "--device", "cpu", "--max-new-tokens", "9", "--num-return-sequences", "3"]);
        command.args(["--temperature", "1", "--model"]).arg(temp.path("model"));
        command.args(prompts.iter().flat_map(|p| ["--prompt", p]));
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let prompts: Vec<&str> = lines.iter().map(|line| line["prompt"].as_str().unwrap()).collect();
    let generated = generate(&prompts);
    let texts: Vec<&str> =
        generated.split("== prompt ").skip(1).map(|s| s.split_once('\n').unwrap().1).collect();
    let mut cut = 0;
    for (line, texts) in lines.iter().zip(texts.chunks(3)) {
        let names: Vec<_> = line.as_object().unwrap().keys().collect();
        assert_eq!(names, ["prompt", "completions"], "responses of a row are not carried on");
        for (completion, text) in line["completions"].as_array().unwrap().iter().zip(texts) {
            assert_eq!(completion["text"].as_str().unwrap().trim(), text.trim());
            let [tokens, logps] = ["tokens", "logps"].map(|name| completion[name].as_array().unwrap());
            assert!(tokens.len() == logps.len() && tokens.len() <= 9, "{completion}");
            assert!(logps.iter().all(|logp| logp.as_f64().unwrap() < 0.0), "{completion}");
            let stopped = tokens.last() == Some(&json!(2));
            assert_eq!(completion["finish_reason"], if stopped { "stop" } else { "length" });
            cut += usize::from(!stopped);
        }
    }
    let share = format!("15 completions of {:.1} tokens", mean(&lines));
    assert!(
        said.contains(&share) && said.contains(&format!("{:.1} % cut off", 100.0 * cut as f64 / 15.0)),
        "{said}"
    );
}

fn mean(lines: &[Value]) -> f64 {
    let all: Vec<usize> = lines
        .iter()
        .flat_map(|line| line["completions"].as_array().unwrap())
        .map(|c| c["tokens"].as_array().unwrap().len())
        .collect();
    all.iter().sum::<usize>() as f64 / all.len() as f64
}

/// A completion follows its prompt: both together are the text that the tokens are of.
#[test]
fn a_text_goes_on_from_its_prompt() {
    let temp = with_prompts("spaces", 2);
    let (lines, _) = good(run(&temp, &["--num-generations", "1"]));
    for line in lines {
        let text = line["completions"][0]["text"].as_str().unwrap();
        assert!(text.is_empty() || text.starts_with(' '), "words are joined by spaces here: {text:?}");
    }
}

#[test]
fn other_columns_go_with_their_prompt() {
    let temp = Temp::with_model("columns");
    write_lines(&temp.path("prompts.jsonl"), [json!({"id": "a7", "prompt": "the film", "answer": 3})]);
    let (lines, _) = good(run(&temp, &["--num-generations", "1"]));
    assert_eq!((&lines[0]["id"], &lines[0]["answer"]), (&json!("a7"), &json!(3)));
}

/// Waits until a file has so many bytes.
fn wait_for(path: &Path, bytes: u64, child: &mut Child) {
    while fs::metadata(path).map_or(0, |m| m.len()) < bytes {
        assert!(child.try_wait().unwrap().is_none(), "it ended before {bytes} bytes were written");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_run_killed_at_any_moment_goes_on_to_the_same_file() {
    let temp = with_prompts("killed", 1500);
    let [whole, killed] = ["whole.jsonl", "killed.jsonl"].map(|name| temp.path(name));
    let args = |path: &Path| vec!["--output".to_owned(), path.display().to_string()];
    let with = |path: &Path| {
        let args = args(path);
        command(&temp, &args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    good(with(&whole).output().unwrap());
    let want = fs::read(&whole).unwrap();
    for share in [7, 3, 2] {
        let mut child = with(&killed).spawn().unwrap();
        wait_for(&killed, want.len() as u64 / share, &mut child);
        child.kill().unwrap();
        child.wait().unwrap();
        let left = fs::read(&killed).unwrap();
        assert!(left.len() < want.len() && want.starts_with(&left), "{share}");
        // As a crash of the system would.
        fs::write(&killed, &left[..left.len() - 5]).unwrap();
    }
    let mut child = with(&killed).spawn().unwrap();
    wait_for(&killed, want.len() as u64 * 2 / 3, &mut child);
    interrupt(&child);
    let ended = Ended::of(child.wait_with_output().unwrap());
    assert_eq!(ended.code, Some(130), "{}", ended.stderr);
    assert!(ended.stderr.contains("the same command goes on with it"), "{}", ended.stderr);
    good(with(&killed).args(["--threads", "2"]).output().unwrap());
    assert!(fs::read(&killed).unwrap() == want);
    let (_, said) = good(with(&killed).output().unwrap());
    assert!(said.contains("all were there already"), "{said}");
}

#[test]
fn other_work_does_not_go_on_with_a_file() {
    let temp = with_prompts("other", 3);
    let out = temp.path("out.jsonl");
    let out = out.to_str().unwrap();
    good(run(&temp, &["--output", out]));
    let before = fs::read(out).unwrap();
    let refused = |args: &[&str], part: &str| {
        let ended = Ended::of(run(&temp, &[&["--output", out], args].concat()));
        assert!(ended.error().contains(part), "{part}: {}", ended.stderr);
        assert_eq!(fs::read(out).unwrap(), before);
    };
    refused(&["--seed", "7"], "was begun with another seed (42, now 7); name another output");
    refused(&["--load-in-8bit"], "another load_in_8bit (false, now true)");
    refused(&["--temperature", "0.5"], "another temperature (1.0, now 0.5)");
    write_lines(&temp.path("prompts.jsonl"), pairs(4, 3));
    refused(&[], "was begun with another prompts");
}

#[test]
fn what_cannot_be_gone_on_from_is_said_before_anything_is_drawn() {
    let temp = Temp::with_model("refused");
    let file = temp.path("prompts.jsonl");
    let refused = |rows: &[Value], args: &[&str], parts: &[&str]| {
        write_lines(&file, rows);
        let ended = Ended::of(run(&temp, args));
        parts.iter().for_each(|part| assert!(ended.error().contains(part), "{part}: {}", ended.stderr));
    };
    let good = json!({"prompt": "the film was"});
    refused(&[], &[], &["prompts.jsonl: there are no rows"]);
    let long = json!({"prompt": "the ".repeat(80)});
    refused(&[good.clone(), long], &[], &["prompts.jsonl: row 2: ", "64 positions; shorten it"]);
    refused(&[good.clone(), json!({"text": "x"})], &[], &["row 2: ", "no prompt"]);
    refused(&[json!({"prompt": [{"role": "user", "content": "x"}]})], &[], &["row 1: ", "chat template"]);
    refused(std::slice::from_ref(&good), &["--num-generations=0"], &["--num-generations"]);
    refused(
        std::slice::from_ref(&good),
        &["--temperature=0"],
        &["--num-generations has no effect at temperature 0"],
    );
    refused(&[good], &["--output", "/nowhere/out.jsonl"], &["/nowhere/out.jsonl"]);
}

/// Three policies that differ, `model`, `second` and `third`, and prompts.
fn with_policies(name: &str, prompts: usize) -> Temp {
    let temp = with_prompts(name, prompts);
    for (name, layers) in [("second", 1), ("third", 3)] {
        let mut config = tiny_config();
        config["num_hidden_layers"] = json!(layers);
        write_model(&temp.path(name), config);
    }
    temp
}

#[test]
fn a_mixture_writes_by_its_policies() {
    let temp = with_policies("mixture", 40);
    let file = temp.path("tournament.json");
    let write = |weights: [f64; 2]| {
        let part = |(name, weight): (&str, f64)| json!({"name": name, "model": name, "weight": weight});
        let parts: Vec<Value> = ["model", "second"].into_iter().zip(weights).map(part).collect();
        fs::write(&file, json!({"mixture": parts}).to_string()).unwrap();
    };
    let sample = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_duel"));
        command.args(["sample", "--device", "cpu", "--max-new-tokens", "9", "--mixture"]).arg(&file);
        command.arg("--dataset").arg(temp.path("prompts.jsonl")).args(args).output().unwrap()
    };
    write([0.25, 0.75]);
    let out = temp.path("out.jsonl");
    let (lines, _) = good(sample(&[]));
    good(sample(&["--threads", "2", "--output", out.to_str().unwrap()]));
    let again: Vec<Value> =
        fs::read_to_string(&out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, again);
    // Of 160 samples a quarter, give or take four deviations of 5.5.
    let of = |line: &Value| line["completions"].as_array().unwrap().clone();
    let own = lines.iter().flat_map(of).filter(|c| c["policy"] == "model").count();
    assert!((18..=62).contains(&own), "{own} of 160");
    assert!(lines.iter().flat_map(of).all(|c| c["policy"] == "model" || c["policy"] == "second"));
    // Its journal cut to the first lines, as a kill leaves it.
    let journal = temp.path("out.jsonl.journal");
    let kept: String = fs::read_to_string(&journal).unwrap().split_inclusive('\n').take(12).collect();
    fs::write(&journal, kept + "{\"rows\": 12, \"by").unwrap();
    let whole = fs::read(&out).unwrap();
    good(sample(&["--output", out.to_str().unwrap()]));
    assert!(fs::read(&out).unwrap() == whole);
    let refused = |args: &[&str], part: &str| {
        let ended = Ended::of(sample(args));
        assert!(ended.error().contains(part), "{}", ended.stderr);
    };
    write([0.5, 0.5]);
    refused(&["--output", out.to_str().unwrap()], "was begun with another model");
    fs::remove_dir_all(temp.path("second")).unwrap();
    refused(&[], "second");
}

/// `duel tournament` of policies by a judge, in the folder `out`.
fn tournament(temp: &Temp, policies: &[&str], judge: &str, out: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_duel"));
    command.args([
        "tournament",
        "--device",
        "cpu",
        "--max-new-tokens",
        "9",
        "--num-generations",
        "2",
        "--judge",
    ]);
    command.arg(judge).arg("--dataset").arg(temp.path("prompts.jsonl"));
    for policy in policies {
        let (name, folder) = policy.split_once('=').unwrap_or((policy, policy));
        command.arg(format!("--policy={name}={}", temp.path(folder).display()));
    }
    command.arg("--output-dir").arg(temp.path(out)).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

const POLICIES: [&str; 3] = ["model", "second", "third"];

#[test]
fn a_tournament_that_was_killed_ends_in_the_same_bytes() {
    let temp = with_policies("tournament", 40);
    let play = |out: &str| tournament(&temp, &POLICIES, "truth", out);
    let printed = String::from_utf8(play("whole").output().unwrap().stdout).unwrap();
    assert!(printed.contains("| model |") && printed.contains("von Neumann winner"), "{printed}");
    let read = |out: &str, name: &str| fs::read(temp.path(out).join(name)).unwrap();
    let json: Value = serde_json::from_slice(&read("whole", "tournament.json")).unwrap();
    let beats = |i: usize| json["mixture_beats_in_sample"][i].as_f64().unwrap();
    assert!((0..3).all(|i| beats(i) > 0.5 - 1e-9), "{json}");
    let held_out = |i: usize| &json["mixture_beats"][i];
    assert!((0..3).all(|i| held_out(i)["interval"][0].as_f64() < held_out(i)["value"].as_f64()), "{json}");
    let weights: Vec<f64> =
        json["mixture"].as_array().unwrap().iter().map(|p| p["weight"].as_f64().unwrap()).collect();
    assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    assert_eq!(json["comparisons"], 3 * 4 * 40);
    let files = ["tournament.json", "tournament.csv", "tournament.svg", "tournament.md"];
    let same = |out: &str| {
        // Folders beside its own are named by their paths, which are the same.
        assert!(files.iter().all(|file| read(out, file) == read("whole", file)), "{out}");
    };
    // What a kill leaves: some points, and a torn one.
    let points = read("whole", "points.jsonl");
    for (n, keep) in [points.len() / 7, points.len() * 2 / 3].into_iter().enumerate() {
        let out = format!("killed-{n}");
        fs::create_dir(temp.path(&out)).unwrap();
        fs::write(temp.path(&out).join("points.jsonl"), &points[..keep]).unwrap();
        assert!(play(&out).args(["--threads", "2"]).status().unwrap().success());
        same(&out);
        assert!(read(&out, "points.jsonl") == points);
    }
    let mut child = play("signal").spawn().unwrap();
    wait_for(&temp.path("signal").join("points.jsonl"), points.len() as u64 / 3, &mut child);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(play("signal").status().unwrap().success());
    same("signal");
    let ended = Ended::of(play("whole").args(["--seed", "7"]).output().unwrap());
    assert!(ended.error().contains("was begun with another seed (42, now 7)"), "{}", ended.stderr);
    let fewer = Ended::of(tournament(&temp, &POLICIES[..2], "truth", "whole").output().unwrap());
    let said = r#"another set_of_policies ("model, second, third", now "model, second")"#;
    assert!(fewer.error().contains(said), "{}", fewer.stderr);
}

#[test]
fn a_tournament_says_what_is_wrong_with_it() {
    let temp = with_policies("contestants", 20);
    let error = |policies: &[&str], judge: &str| {
        Ended::of(tournament(&temp, policies, judge, "out").output().unwrap()).error().to_owned()
    };
    assert!(error(&["model"], "truth").contains("two policies at least, and one is given"));
    assert!(error(&["model", "=second"], "truth").contains("has an empty name"));
    assert!(error(&["a=model", "a=second"], "truth").contains("two policies are called a: "));
    fs::create_dir(temp.path("empty")).unwrap();
    assert!(error(&["model", "empty"], "truth").contains("empty"));
    // One that leaves after what it said of 16 prompts, three pairs of two samples each: it is not asked of them again.
    let judge = |name: &str, body: &str| {
        let greeting = r#"echo '{"protocol": "duel-judge", "version": 1, "tasks": ["compare"]}'"#;
        let asked = temp.path("asked").display().to_string();
        let id = r#"id=$(echo "$line" | sed 's/.*"id": *\([0-9]*\).*/\1/')"#;
        let script = format!(
            "read hello; {greeting}; n=0\nwhile read -r line; do {id}; n=$((n + 1)); echo x >> '{asked}'; {body}; done"
        );
        fs::write(temp.path(name), script).unwrap();
        format!("program:sh '{}'", temp.path(name).display())
    };
    let says = r#"echo "{\"id\": $id, \"preference\": 0.75}""#;
    let dies = judge("judge.sh", &format!("if [ $n -gt 96 ]; then exit 1; fi; {says}"));
    let died = error(&POLICIES, &dies);
    assert!(died.contains("left before an answer"), "{died}");
    let lives = judge("judge.sh", says);
    fs::remove_file(temp.path("asked")).unwrap();
    let good = tournament(&temp, &POLICIES, &lives, "out").output().unwrap();
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));
    assert_eq!(fs::read_to_string(temp.path("asked")).unwrap().lines().count(), 4 * 3 * 2);
    // The first of each pair wins at .75: the first policy beats everyone, and is the mixture.
    let json: Value =
        serde_json::from_slice(&fs::read(temp.path("out").join("tournament.json")).unwrap()).unwrap();
    assert_eq!((&json["condorcet"], &json["mixture"][0]["weight"]), (&json!("model"), &json!(1.0)));
    let silent = judge("silent.sh", r#"echo "{\"id\": $id, \"error\": \"no opinion\"}""#);
    fs::remove_dir_all(temp.path("out")).unwrap();
    let said = error(&POLICIES, &silent);
    assert!(said.contains("compared model and second on 0 of 20 prompts only (no opinion"), "{said}");
}
