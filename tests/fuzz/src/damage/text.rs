//! Damage to a text in a language: whole tokens of it moved, lost, repeated or put in.

use super::{one, run};
use duel_tests::Random;
use duel_train::config::KEYS;
use std::sync::LazyLock;

/// Pieces of chat templates, with the numbers that an implementation may forget to look at.
pub static JINJA: LazyLock<Vec<String>> =
    LazyLock::new(|| include_str!("jinja.txt").lines().map(String::from).collect());

/// Pieces of configuration files: the language's, every key, and what nests deeper than a stack.
pub static TOML: LazyLock<Vec<String>> = LazyLock::new(|| {
    let deep = [("[", "]"), ("{a = ", "}"), ("a.", "a = 1")];
    let deep = deep.map(|(open, close)| open.repeat(20_000) + close);
    let words = include_str!("toml.txt").lines().chain(["\n"]).chain(KEYS.iter().map(|key| key.name));
    words.map(String::from).chain(deep).collect()
});

/// Some tokens of a text changed; `pieces` are of its language.
pub fn damage(file: &[u8], other: &[u8], pieces: &[String], random: &mut Random) -> Option<Vec<u8>> {
    let (text, other) = (std::str::from_utf8(file).ok()?, std::str::from_utf8(other).unwrap_or_default());
    let mut tokens = tokens(text);
    let others = self::tokens(other);
    let at = run(tokens.len(), 6, random);
    match random.pick(0..7) {
        0 => drop(tokens.drain(at)),
        1 => {
            let copy = tokens[at].to_vec();
            let to = random.pick(0..tokens.len() + 1);
            tokens.splice(to..to, copy);
        }
        2 if !tokens.is_empty() => {
            let b = random.pick(0..tokens.len());
            tokens.swap(at.start.min(b), b);
        }
        3 => drop(tokens.splice(at, others[run(others.len(), 12, random)].iter().copied())),
        4 => drop(tokens.splice(at, [one(pieces, random).as_str()])),
        _ => tokens.insert(at.start, one(pieces, random).as_str()),
    }
    Some(tokens.concat().into_bytes())
}

/// A text cut into words, runs of spaces, and signs, the signs of Jinja being of two letters.
fn tokens(text: &str) -> Vec<&str> {
    let kind = |c: char| match c {
        _ if c.is_alphanumeric() || c == '_' => 0,
        _ if c.is_whitespace() => 1,
        _ => 2,
    };
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let same = || rest.find(|c| kind(c) != kind(first)).unwrap_or(rest.len());
        let sign = || {
            if ["{%", "%}", "{{", "}}"].iter().any(|s| rest.starts_with(s)) { 2 } else { first.len_utf8() }
        };
        let (token, after) = rest.split_at(if kind(first) == 2 { sign() } else { same() });
        tokens.push(token);
        rest = after;
    }
    tokens
}
