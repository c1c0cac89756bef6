//! What both uses of an endpoint share: the model, how it samples, and the principles that are drawn.

use super::crew::{Answered, Crew, Question};
use super::reply::Form;
use super::rubric::principles;
use crate::{Error, Result, Settings, Stop, Tally};
use duel_random::at;
use serde_json::{Value, json};
use std::fs;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// A model behind an endpoint.
pub struct Chat {
    crew: Crew,
    model: String,
    temperature: f64,
    /// How the endpoint calls the limit of tokens.
    limit_key: &'static str,
    max_tokens: u64,
    /// As it was said; endpoints need not know it.
    sent_seed: Option<u64>,
    /// Draws orders and principles.
    seed: u64,
    principles: Vec<String>,
}

impl Chat {
    /// The model that the settings name, at `url`.
    pub fn new(url: &str, settings: &Settings, stop: Stop) -> Result<Self> {
        let model = settings.text("judge_model").filter(|name| !name.is_empty());
        let model = model
            .ok_or_else(|| Error::new(format!("the judge {url} needs `judge_model`, a model's name")))?;
        let drawn = match settings.text("judge_principles") {
            None => principles(include_str!("../../rubrics/principles.txt")),
            Some(path) => {
                principles(&fs::read_to_string(path).map_err(|e| Error::new(format!("{path}: {e}")))?)
            }
        };
        if drawn.is_empty() {
            return Err(Error::new("the file of `judge_principles` has none; give one a line"));
        }
        let seed = settings.number("judge_seed", 0, 0..=u64::MAX >> 1)?;
        Ok(Chat {
            crew: Crew::new(url, settings, stop)?,
            model: model.to_owned(),
            temperature: settings.number("judge_temperature", 0.0, 0.0..=2.0)?,
            limit_key: settings.word("judge_limit_key", &["max_tokens", "max_completion_tokens"])?,
            max_tokens: settings.number("judge_max_tokens", 1024, 1..=1 << 20)?,
            sent_seed: settings.text("judge_seed").map(|_| seed),
            seed,
            principles: drawn,
        })
    }

    /// The question that `text` asks.
    pub fn question(&self, text: &str, form: Form) -> Question {
        let mut body = json!({
            "model": self.model,
            "messages": [{"role": "user", "content": text}],
            "temperature": self.temperature,
        });
        body[self.limit_key] = json!(self.max_tokens);
        if form == Form::Token {
            body[self.limit_key] = json!(1);
            body["logprobs"] = Value::Bool(true);
            body["top_logprobs"] = json!(5);
        }
        if let Some(seed) = self.sent_seed {
            body["seed"] = json!(seed);
        }
        Question { body, form }
    }

    /// Asks all.
    pub fn ask(&mut self, questions: Vec<Question>) -> Result<Vec<Answered>> {
        self.crew.ask(questions)
    }

    /// A number that depends on the seed and these texts alone.
    pub fn draw(&self, texts: &[&str]) -> u64 {
        let mut place = vec![self.seed];
        place.extend(texts.iter().map(|text| xxh3_64(text.as_bytes())));
        at(&place)
    }

    /// A principle, drawn by these texts.
    pub fn principle(&self, texts: &[&str]) -> &str {
        &self.principles[(self.draw(texts) % self.principles.len() as u64) as usize]
    }

    /// A few words for people.
    pub fn describe(&self) -> String {
        format!("{} at {}", self.model, self.crew.url())
    }

    /// What decides its replies.
    pub fn identity(&self) -> String {
        let principles = xxh3_128(self.principles.join("\n").as_bytes());
        format!(
            "{} {} temperature {} max_tokens {} seed {:?} principles {principles:032x}",
            self.crew.url(),
            self.model,
            self.temperature,
            self.max_tokens,
            self.sent_seed
        )
    }

    /// What was counted.
    pub fn tally(&self) -> Tally {
        self.crew.tally()
    }
}
