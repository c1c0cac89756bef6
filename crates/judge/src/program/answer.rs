//! What a program says, line by line.

use crate::Opinion;
use serde_json::{Map, Value};

/// What a program can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// `scores`: a number for each response.
    Score,
    /// `preference`: the probability that the first of two responses is better.
    Compare,
    /// `ranking`: the numbers of the responses from 0, best first.
    Rank,
}

impl Task {
    /// All, the one that says most first.
    pub const ALL: [Task; 3] = [Task::Score, Task::Compare, Task::Rank];

    /// As lines have it.
    pub fn word(self) -> &'static str {
        match self {
            Task::Score => "score",
            Task::Compare => "compare",
            Task::Rank => "rank",
        }
    }
}

/// The line of an answer: the number of its question, and the rest.
pub fn line(bytes: &[u8]) -> Result<(u64, Map<String, Value>), String> {
    let value: Value = serde_json::from_slice(bytes).map_err(|e| {
        let shown: String = String::from_utf8_lossy(bytes).trim().chars().take(80).collect();
        match ["NaN", "Infinity"].iter().any(|word| shown.contains(word)) {
            true => format!("is no JSON, which has no NaN and no Infinity: {shown}"),
            false => format!("is no JSON ({e}): {shown}"),
        }
    })?;
    let Value::Object(mut fields) = value else { return Err("is no object".to_owned()) };
    match fields.remove("id").as_ref().and_then(Value::as_u64) {
        Some(id) => Ok((id, fields)),
        None => Err("has no number of a question as its `id`".to_owned()),
    }
}

/// The opinions of an answer to a question about `count` responses: a score each, or one preference.
pub fn opinions(task: Task, mut fields: Map<String, Value>, count: usize) -> Result<Vec<Opinion>, String> {
    let wanted = if task == Task::Compare { 1 } else { count };
    if let Some(why) = fields.remove("error").filter(|why| !why.is_null()) {
        if let Some((said, _)) = fields.iter().find(|(_, value)| !value.is_null()) {
            return Err(format!("has `error` and `{said}`, of which one is true"));
        }
        let why = why.as_str().map_or_else(|| why.to_string(), str::to_owned);
        return Ok(vec![Opinion::Unjudged(why); wanted]);
    }
    let name = match task {
        Task::Score => "scores",
        Task::Compare => "preference",
        Task::Rank => "ranking",
    };
    let said = fields.remove(name).ok_or_else(|| format!("has neither `{name}` nor `error`"))?;
    let listed = |value: Value| match value {
        Value::Array(list) if list.len() == count => Ok(list),
        Value::Array(list) => Err(format!("has {} `{name}` for {count} responses", list.len())),
        other => Err(format!("has `{name}` {other}, which is no list")),
    };
    match task {
        Task::Score => {
            let number = |(i, value): (usize, &Value)| {
                let score = value.as_f64().filter(|score| score.is_finite());
                score
                    .map(Opinion::Said)
                    .ok_or_else(|| format!("has {value} as `{name}[{i}]`, which is no number"))
            };
            listed(said)?.iter().enumerate().map(number).collect()
        }
        Task::Compare => match said.as_f64().filter(|p| (0.0..=1.0).contains(p)) {
            Some(p) => Ok(vec![Opinion::Said(p)]),
            None => Err(format!("has `{name}` {said}, which is no probability that the first is better")),
        },
        Task::Rank => {
            let mut rates = vec![None; count];
            for (place, value) in listed(said)?.iter().enumerate() {
                let rate =
                    value.as_u64().and_then(|i| rates.get_mut(i as usize)).filter(|rate| rate.is_none());
                // Its mean win rate over all responses, itself one half.
                *rate.ok_or_else(|| {
                    format!("has {value} in `{name}`, where each of 0 to {} stands once", count - 1)
                })? = Some((count as f64 - place as f64 - 0.5) / count as f64);
            }
            Ok(rates.into_iter().flatten().map(Opinion::Said).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Opinion::Said;

    fn read(task: Task, text: &str, count: usize) -> Result<Vec<Opinion>, String> {
        line(text.as_bytes()).and_then(|(_, fields)| opinions(task, fields, count))
    }

    #[test]
    fn answers_are_read() {
        assert_eq!(
            read(Task::Score, r#"{"id": 1, "scores": [1, -2.5]}"#, 2).unwrap(),
            [Said(1.0), Said(-2.5)]
        );
        assert_eq!(read(Task::Compare, r#"{"id": 1, "preference": 0.25}"#, 2).unwrap(), [Said(0.25)]);
        let rates = read(Task::Rank, r#"{"id": 1, "ranking": [2, 0, 1]}"#, 3).unwrap();
        assert_eq!(rates, [Said(1.5 / 3.0), Said(0.5 / 3.0), Said(2.5 / 3.0)]);
        assert_eq!(
            read(Task::Score, r#"{"id": 1, "scores": [1, 2], "error": null}"#, 2).unwrap(),
            [Said(1.0), Said(2.0)]
        );
        let silent = read(Task::Score, r#"{"id": 1, "error": "too long"}"#, 2).unwrap();
        assert_eq!(silent, vec![Opinion::Unjudged("too long".into()); 2]);
    }

    #[test]
    fn wrong_answers_say_what_is_wrong() {
        for (task, text, expected) in [
            (Task::Score, r#"{"id": 1, "scores": [1, NaN]}"#, "is no JSON, which has no NaN"),
            (Task::Score, r#"{"id": 1, "scores": [1, null]}"#, "has null as `scores[1]`, which is no number"),
            (Task::Score, r#"{"id": 1, "scores": [1]}"#, "has 1 `scores` for 2 responses"),
            (Task::Score, r#"{"id": 1, "scores": 1}"#, "has `scores` 1, which is no list"),
            (Task::Score, r#"{"id": 1}"#, "has neither `scores` nor `error`"),
            (Task::Score, r#"{"id": 1, "scores": [1, 2], "error": "x"}"#, "has `error` and `scores`"),
            (Task::Score, r#"{"scores": [1, 2]}"#, "has no number of a question as its `id`"),
            (Task::Score, "[1]", "is no object"),
            (Task::Score, "starting up", "is no JSON (expected value at line 1 column 1): starting up"),
            (
                Task::Compare,
                r#"{"id": 1, "preference": 1.5}"#,
                "has `preference` 1.5, which is no probability",
            ),
            (
                Task::Rank,
                r#"{"id": 1, "ranking": [0, 0]}"#,
                "has 0 in `ranking`, where each of 0 to 1 stands once",
            ),
            (Task::Rank, r#"{"id": 1, "ranking": [0, 2]}"#, "has 2 in `ranking`"),
        ] {
            let error = read(task, text, 2).unwrap_err();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }
}
