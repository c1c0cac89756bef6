//! `duel sample`: what it writes, that it goes on where it was stopped, and what it refuses.

mod common;

use common::{Ended, Temp, interrupt, pairs, write_lines};
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
