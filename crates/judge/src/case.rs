//! What a judge reads: a prompt and answers to it.

use serde_json::{Map, Value, json};
use std::fmt::Write;

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    /// Who speaks: `system`, `user`, `assistant`, ...
    pub role: String,
    /// What is said.
    pub text: String,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq)]
pub enum Prompt {
    /// A text, which an answer continues; empty where answers are whole texts.
    Text(String),
    /// A conversation, of which an answer is the next turn; and what its template gets beside (`tools`, ...), for
    /// judges that have one.
    Chat(Vec<Turn>, Map<String, Value>),
}

impl Prompt {
    /// It as one text: a conversation as paragraphs, each behind its role; a single turn of the user as it is.
    pub fn text(&self) -> String {
        match self {
            Prompt::Text(text) => text.clone(),
            Prompt::Chat(turns, _) => match &turns[..] {
                [Turn { role, text }] if role == "user" => text.clone(),
                turns => {
                    let mut all = String::new();
                    for Turn { role, text } in turns {
                        let gap = if all.is_empty() { "" } else { "\n\n" };
                        // Writing to a string cannot fail.
                        let _ = write!(all, "{gap}{role}: {text}");
                    }
                    all
                }
            },
        }
    }

    /// It as rows have it: a string, or a list of `{role, content}`.
    pub fn json(&self) -> Value {
        match self {
            Prompt::Text(text) => json!(text),
            Prompt::Chat(turns, _) => {
                turns.iter().map(|turn| json!({"role": turn.role, "content": turn.text})).collect()
            }
        }
    }
}

/// An answer to a prompt.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    /// What it says.
    pub text: String,
    /// Its tokens where they are known, for judges that read tokens: encoding a text again can give others. Else empty.
    pub tokens: Vec<u32>,
    /// Whether it was cut by a limit of tokens before it came to an end.
    pub truncated: bool,
}

impl Answer {
    /// An answer of which the text is known.
    pub fn new(text: impl Into<String>) -> Self {
        Answer { text: text.into(), ..Answer::default() }
    }
}

/// A prompt and the answers to it, which a judge sees together.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// What is answered.
    pub prompt: Prompt,
    /// Its answers, in no order.
    pub answers: Vec<Answer>,
}

impl Case {
    /// Answers of which the texts are known, to a text.
    pub fn new<A: Into<String>>(prompt: impl Into<String>, answers: impl IntoIterator<Item = A>) -> Self {
        Case { prompt: Prompt::Text(prompt.into()), answers: answers.into_iter().map(Answer::new).collect() }
    }

    /// All pairs of its answers, the earlier one first: (0, 1), (0, 2), .., (1, 2), ..
    pub fn pairs(&self) -> impl Iterator<Item = Pair<'_>> {
        self.answers.iter().enumerate().flat_map(move |(i, first)| {
            self.answers[i + 1..].iter().map(move |second| Pair { prompt: &self.prompt, first, second })
        })
    }
}

/// Two answers to a prompt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair<'a> {
    /// What is answered.
    pub prompt: &'a Prompt,
    /// One answer.
    pub first: &'a Answer,
    /// The other.
    pub second: &'a Answer,
}
