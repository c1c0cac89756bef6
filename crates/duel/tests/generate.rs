//! `duel generate`: what it prints, and what it refuses.

mod common;

use common::{Ended, Temp};
use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};

fn generate(temp: &Temp, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_duel"));
    command.args(["generate", "--device", "cpu", "--max-new-tokens", "9", "--model"]);
    command.arg(temp.path("model")).args(args).output().unwrap()
}

fn said(temp: &Temp, args: &[&str]) -> (String, String) {
    let output = generate(temp, args);
    let [stdout, stderr] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(output.status.success(), "{stderr}");
    (stdout, stderr)
}

/// The texts under their headings.
fn sections(text: &str) -> Vec<&str> {
    text.split("== ").skip(1).filter_map(|section| Some(section.split_once('\n')?.1.trim_end())).collect()
}

#[test]
fn prompts_are_continued_together_as_alone() {
    let temp = Temp::with_model("together");
    let prompts = ["--prompt", "the film was", "--prompt", "a"];
    let drawn = ["--temperature", "1", "--min-p", "0.01", "--repetition-penalty", "1.1"];
    let (text, said_of) = said(&temp, &[&prompts[..], &drawn, &["--num-return-sequences", "3"]].concat());
    assert!(text.starts_with("== prompt 0, sample 0\n"), "{text}");
    assert!(said_of.contains("6 sequences at a time"), "{said_of}");
    let all = sections(&text);
    assert_eq!(all.len(), 6);
    assert!(all[..3].iter().any(|text| *text != all[0]), "{text}");
    let (alone, _) = said(&temp, &[&prompts[..2], &drawn].concat());
    assert_eq!(alone.trim_end(), all[0]);
    let (two, _) = said(&temp, &[&prompts[..], &drawn].concat());
    assert_eq!(sections(&two), [all[0], all[3]]);
}

#[test]
fn log_probabilities_stand_before_their_tokens() {
    let temp = Temp::with_model("logprobs");
    let (text, _) = said(&temp, &["--prompt", "the film was"]);
    let (lines, _) = said(&temp, &["--prompt", "the film was", "--logprobs"]);
    assert!((1..=9).contains(&lines.lines().count()), "{lines}");
    for line in lines.lines() {
        let (logp, token) = line.split_once('\t').unwrap();
        assert!(logp.parse::<f64>().unwrap() <= 0.0 && token.starts_with('"'), "{line}");
    }
    let first = lines.lines().next().unwrap().split('"').nth(1).unwrap().trim();
    assert!(text.trim_start().starts_with(first), "{text} does not begin with {first}");
}

/// Weights of a quarter of the bytes have probabilities of their own; the line about the device says so.
#[test]
fn weights_may_be_in_8_bit_blocks() {
    let temp = Temp::with_model("blocks");
    let args = ["--prompt", "the film was", "--logprobs"];
    let first = |text: &str| text.split('\t').next().unwrap().parse::<f64>().unwrap();
    let (whole, _) = said(&temp, &args);
    let (blocks, said_of) = said(&temp, &[&args[..], &["--load-in-8bit"]].concat());
    assert!(said_of.contains(" in 8-bit blocks; "), "{said_of}");
    assert_ne!(whole, blocks);
    assert!((first(&whole) - first(&blocks)).abs() < 0.05, "{whole}{blocks}");
}

#[test]
fn what_is_out_of_range_or_idle_is_refused() {
    let temp = Temp::with_model("refused");
    let refused = |args: &[&str], parts: &[&str]| {
        let ended = Ended::of(generate(&temp, args));
        parts.iter().for_each(|part| assert!(ended.error().contains(part), "{part}: {}", ended.stderr));
    };
    for value in ["NaN", "inf", "2e30", "-1"] {
        refused(&["--prompt", "a", &format!("--temperature={value}")], &["`temperature`", "must be"]);
    }
    for value in ["NaN", "0", "1.5"] {
        refused(&["--prompt", "a", "--temperature=1", &format!("--top-p={value}")], &["`top_p`", "must be"]);
    }
    refused(&["--prompt", "a", "--temperature=1", "--min-p=1.5"], &["`min_p` is 1.5"]);
    refused(&["--prompt", "a", "--repetition-penalty=0"], &["`repetition_penalty` is 0"]);
    refused(&["--prompt", "a", "--num-return-sequences=0"], &["--num-return-sequences"]);
    refused(&["--prompt", "a", "--num-return-sequences=2"], &["--num-return-sequences", "temperature 0"]);
    refused(&["--prompt", "a", "--top-k=5"], &["--top-k has no effect"]);
    refused(&["--prompt", &"the ".repeat(80)], &["prompt 0", "64 positions; shorten it"]);
}

/// A model that is spoken to in the simplest words.
fn with_template(name: &str) -> Temp {
    let temp = Temp::with_model(name);
    let template = "{{ bos_token }}{% for m in messages %} {{ m.role }} {{ m.content }}{% endfor %}\
                    {% if add_generation_prompt %} a{% endif %}";
    fs::write(temp.path("model").join("chat_template.jinja"), template).unwrap();
    temp
}

/// What is answered to these lines, and what is said beside.
fn chat(temp: &Temp, args: &[&str], lines: &str) -> (String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_duel"));
    command
        .args(["chat", "--device", "cpu", "--temperature", "0", "--model"])
        .arg(temp.path("model"))
        .args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let [stdout, stderr] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(output.status.success(), "{stderr}");
    (stdout, stderr)
}

/// Answers are those of `generate` to the whole conversation, and commands change what that is.
#[test]
fn a_conversation_is_answered_line_by_line() {
    let temp = with_template("chat");
    let short = ["--max-new-tokens", "9"];
    let (answers, _) = chat(&temp, &short, "the film\nwas good\n");
    let answers: Vec<&str> = answers.lines().collect();
    assert_eq!(answers.len(), 2, "{answers:?}");
    let alone = |prompt: &str| {
        let (said, _) = said(&temp, &["--prompt", prompt]);
        said.trim_end().to_owned()
    };
    assert_eq!(answers[0], alone("user the film a"));
    assert_eq!(answers[1], alone(&format!("user the film assistant {} user was good a", answers[0])));

    let (undone, said_of) = chat(
        &temp,
        &short,
        "the film\nwas good\n/undo\n\nwas good\n/reset\nthe film\n/what\n/undo\n/undo\n/quit\nlost\n",
    );
    assert_eq!(undone.lines().collect::<Vec<_>>(), [answers[0], answers[1], answers[1], answers[0]]);
    for line in ["taken back", "begins anew", "there is no /what", "nothing to take back"] {
        assert!(said_of.contains(line), "{line}: {said_of}");
    }
    let (told, _) = chat(&temp, &short, "/system the actors\nthe film\n");
    let (too, _) = chat(&temp, &[&short[..], &["--system", "the actors"]].concat(), " the film\n");
    assert_eq!(
        (told.trim_end(), too.trim_end()),
        (&*alone("system the actors user the film a"), told.trim_end())
    );
}

/// A full window costs the oldest messages, with a line; a message that has no room is refused, and the talk goes on.
#[test]
fn a_conversation_has_a_window() {
    let temp = with_template("window");
    let (answers, said_of) =
        chat(&temp, &["--max-new-tokens", "4", "--window", "24"], &"the film was\n".repeat(5));
    assert_eq!(answers.lines().count(), 5);
    assert!(said_of.contains("window of 24 tokens is full; the oldest 2 messages"), "{said_of}");
    let long = format!("a\n{}\n/undo\nthe film\n", "the film was ".repeat(12));
    let (answers, said_of) = chat(&temp, &["--max-new-tokens", "4", "--window", "24"], &long);
    assert_eq!(answers.lines().count(), 2);
    assert!(said_of.contains("are taken back") && !said_of.contains("left out"), "{said_of}");
    assert!(said_of.contains("error: the message has") && said_of.contains("larger --window"), "{said_of}");
    let bare = Temp::with_model("bare");
    let mut command = Command::new(env!("CARGO_BIN_EXE_duel"));
    let refused =
        command.args(["chat", "--device", "cpu", "--model"]).arg(bare.path("model")).output().unwrap();
    assert!(Ended::of(refused).error().contains("has no chat template"));
}

/// Lines of a file are what `--prompt` would be, as `duel sample` writes them; and a model's file for llama.cpp is
/// refused where its tokenizer has no place there.
#[test]
fn prompts_come_of_files() {
    let temp = with_template("input");
    let (file, out) = (temp.path("prompts.txt"), temp.path("out.jsonl"));
    fs::write(&file, "the film was\n\na\r\n").unwrap();
    let [input, output] = [&file, &out].map(|path| path.to_str().unwrap());
    for chat in [&[][..], &["--chat"]] {
        drop(fs::remove_file(&out));
        drop(fs::remove_file(temp.path("out.jsonl.journal")));
        said(&temp, &[chat, &["--input", input, "--output", output]].concat());
        let lines = fs::read_to_string(&out).unwrap();
        let lines: Vec<serde_json::Value> =
            lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        for (line, prompt) in lines.iter().zip(["the film was", "a"]) {
            let (alone, _) = said(&temp, &[chat, &["--prompt", prompt]].concat());
            let text = line["completions"][0]["text"].as_str().unwrap();
            assert_eq!(text.trim(), alone.trim(), "{prompt} {chat:?}");
        }
    }
    let refused = Ended::of(generate(&temp, &["--input", input, "--num-return-sequences=2"]));
    assert!(refused.error().contains("--num-return-sequences"), "{}", refused.stderr);
    let mut command = Command::new(env!("CARGO_BIN_EXE_duel"));
    command.args(["export", "--model"]).arg(temp.path("model")).arg("--gguf").arg(temp.path("model.gguf"));
    let refused = Ended::of(command.output().unwrap());
    assert!(refused.error().contains("BPE alone") && !temp.path("model.gguf").exists());
}
