//! `duel generate`: what it prints, and what it refuses.

mod common;

use common::{Ended, Temp};
use std::process::{Command, Output};

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
