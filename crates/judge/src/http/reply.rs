//! What an endpoint replies, and what is read in it.

use serde_json::{Value, json};

/// The part of a reply that judging reads.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// What the model said.
    content: String,
    /// Whether it was cut by the limit of tokens.
    cut: bool,
    /// The likeliest first tokens with their log-probabilities, where they were asked for.
    top: Vec<(String, f64)>,
}

/// What is looked for in a reply.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Form {
    /// A last line `Verdict: A`, `B` or `tie`.
    Line,
    /// A first token `A` or `B`, by its probability.
    Token,
    /// A JSON object with a `score` of 1 to this.
    Score(f64),
    /// All of it.
    Text,
}

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// A score, or the probability that the answer shown first is better.
    Number(f64),
    /// A text.
    Text(String),
}

impl Reply {
    /// Of the JSON of `chat/completions`, with the tokens that were used.
    ///
    /// # Errors
    /// The first is of another kind of reply, the second of a model that refused.
    pub fn of(value: &Value) -> Result<Result<(Self, u64), String>, String> {
        let choice = &value["choices"][0];
        let message = choice["message"].as_object().ok_or("has no choices[0].message")?;
        let finish = choice["finish_reason"].as_str().unwrap_or_default();
        if let Some(refusal) = message.get("refusal").and_then(Value::as_str) {
            return Ok(Err(format!("the endpoint's model refused: {refusal}")));
        }
        if finish == "content_filter" {
            return Ok(Err("the endpoint's filter cut the reply (finish_reason content_filter)".to_owned()));
        }
        let content = match message.get("content") {
            Some(Value::String(content)) => content.clone(),
            _ if finish == "length" => String::new(),
            _ => return Err("has no text in choices[0].message.content".to_owned()),
        };
        let top = choice["logprobs"]["content"][0]["top_logprobs"].as_array();
        let pair = |v: &Value| Some((v["token"].as_str()?.to_owned(), v["logprob"].as_f64()?));
        let top = top.into_iter().flatten().filter_map(pair).collect();
        let used = |name: &str| value["usage"][name].as_u64().unwrap_or(0);
        let tokens = used("prompt_tokens") + used("completion_tokens");
        Ok(Ok((Reply { content, cut: finish == "length", top }, tokens)))
    }

    /// As a cache has it.
    pub fn to_json(&self) -> Value {
        json!({"content": self.content, "cut": self.cut, "top": self.top})
    }

    /// From a cache.
    pub fn from_json(value: &Value) -> Option<Self> {
        Some(Reply {
            content: value["content"].as_str()?.to_owned(),
            cut: value["cut"].as_bool()?,
            top: serde_json::from_value(value["top"].clone()).ok()?,
        })
    }
}

impl Form {
    /// What `reply` says in this form.
    ///
    /// # Errors
    /// It does not, and how.
    pub fn read(self, reply: &Reply) -> Result<Found, String> {
        // A token is all that was asked for.
        if reply.cut && self != Form::Token {
            return Err("the reply was cut by the limit of tokens (finish_reason length)".to_owned());
        }
        match self {
            Form::Line => line(&reply.content).map(Found::Number),
            Form::Token => token(&reply.top).map(Found::Number),
            Form::Score(most) => score(&reply.content, most).map(Found::Number),
            Form::Text => match reply.content.trim() {
                "" => Err("the reply is empty".to_owned()),
                text => Ok(Found::Text(text.to_owned())),
            },
        }
    }
}

/// The verdict of the last line that has one.
fn line(content: &str) -> Result<f64, String> {
    let bare = |line: &str| line.replace(['*', '`', '[', ']', '#'], "").trim().to_lowercase();
    let verdict =
        |line: &str| Some(bare(line).strip_prefix("verdict:")?.trim().trim_end_matches('.').to_owned());
    let last =
        content.lines().rev().find_map(verdict).ok_or("the reply has no line `Verdict: A`, `B` or `tie`")?;
    match &last[..] {
        "a" => Ok(1.0),
        "b" => Ok(0.0),
        "tie" => Ok(0.5),
        other => Err(format!("the reply's verdict is `{other}`, not A, B or tie")),
    }
}

/// `p_A / (p_A + p_B)` of the likeliest tokens. A label that is not among them is unknown, not impossible.
fn token(top: &[(String, f64)]) -> Result<f64, String> {
    if top.is_empty() {
        return Err("the reply has no top_logprobs; the endpoint may not give any".to_owned());
    }
    let of = |label: &str| {
        let mut said = top.iter().filter(|(token, _)| token.trim() == label).peekable();
        said.peek()?;
        Some(said.map(|(_, logp)| logp.exp()).sum::<f64>())
    };
    match (of("A"), of("B")) {
        (Some(a), Some(b)) if a + b > 0.0 && (a + b).is_finite() => Ok(a / (a + b)),
        (Some(a), Some(b)) if a + b > 0.0 => {
            Err("log-probabilities of the labels are far above 0".to_owned())
        }
        (Some(_), Some(_)) => Err("both labels have the probability 0".to_owned()),
        (None, _) => Err("`A` is not among the likeliest tokens".to_owned()),
        (_, None) => Err("`B` is not among the likeliest tokens".to_owned()),
    }
}

/// The `score` of the JSON object in a text.
fn score(content: &str, most: f64) -> Result<f64, String> {
    let (from, to) = match (content.find('{'), content.rfind('}')) {
        (Some(from), Some(to)) if from < to => (from, to),
        _ => return Err("the reply has no JSON object with a `score`".to_owned()),
    };
    let value: Value =
        serde_json::from_str(&content[from..=to]).map_err(|e| format!("the reply's JSON is broken: {e}"))?;
    match value["score"].as_f64() {
        Some(score) if (1.0..=most).contains(&score) => Ok(score),
        _ => Err(format!("the reply's `score` is {}, not a number of 1 to {most}", value["score"])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(content: &str) -> Reply {
        Reply { content: content.into(), cut: false, top: Vec::new() }
    }

    #[test]
    fn verdicts_are_the_last_line_of_their_form() {
        for (content, expected) in [
            ("A is better.\nVerdict: A", Some(1.0)),
            ("Verdict: A\nNo.\n\n**Verdict: B**\n", Some(0.0)),
            ("verdict: [[tie]].", Some(0.5)),
            ("A", None),
            ("My verdict: A", None),
            ("Verdict: A or B", None),
            ("", None),
        ] {
            let found = Form::Line.read(&says(content)).ok();
            assert_eq!(found, expected.map(Found::Number), "{content}");
        }
        assert!(Form::Line.read(&Reply { cut: true, ..says("Verdict: A") }).unwrap_err().contains("length"));
    }

    #[test]
    fn scores_are_in_their_range() {
        let read = |content: &str| Form::Score(10.0).read(&says(content)).ok();
        assert_eq!(read(r#"```json {"reasoning": "{good}", "score": 7.5} ```"#), Some(Found::Number(7.5)));
        for bad in [r#"{"score": 0}"#, r#"{"score": 11}"#, r#"{"score": "7"}"#, r#"{"score": NaN}"#, "7", "{"]
        {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_label_that_is_missing_is_unknown() {
        let top = |pairs: &[(&str, f64)]| Reply {
            top: pairs.iter().map(|(t, p)| (t.to_string(), p.ln())).collect(),
            cut: true,
            ..says("A")
        };
        let read = |pairs: &[(&str, f64)]| Form::Token.read(&top(pairs));
        let Ok(Found::Number(p)) = read(&[("A", 0.5), (" A", 0.1), ("B", 0.2), ("The", 0.1)]) else {
            panic!()
        };
        assert!((p - 0.75).abs() < 1e-12, "{p}");
        assert!(read(&[("A", 0.99), ("a", 0.005)]).unwrap_err().contains("`B` is not among"));
        assert!(read(&[]).unwrap_err().contains("no top_logprobs"));
    }

    #[test]
    fn refusals_are_no_replies() {
        let of = |choice: Value| Reply::of(&json!({"choices": [choice]}));
        let refused =
            of(json!({"message": {"content": null, "refusal": "I will not"}, "finish_reason": "stop"}));
        assert_eq!(refused.unwrap().unwrap_err(), "the endpoint's model refused: I will not");
        let filtered = of(json!({"message": {"content": ""}, "finish_reason": "content_filter"}));
        assert!(filtered.unwrap().unwrap_err().contains("content_filter"));
        assert!(of(json!({"text": "A"})).is_err());
        assert!(of(json!({"message": {"content": null}, "finish_reason": "stop"})).is_err());
        let reply = of(json!({"message": {"content": "A"}, "finish_reason": "length"})).unwrap().unwrap().0;
        assert_eq!(Reply::from_json(&reply.to_json()), Some(reply));
    }
}
