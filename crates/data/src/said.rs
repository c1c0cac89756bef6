//! What the columns of a row say of its responses: margins, scores and labels to values.

use crate::message::kind;
use crate::{Label, Task};
use serde_json::{Map, Value};

/// Takes the `margin` of a row. Supervised training has no use for it, and leaves it.
pub(crate) fn margin(columns: &mut Map<String, Value>, task: Task) -> Result<Option<f64>, String> {
    if task == Task::Sft {
        return Ok(None);
    }
    let Some(value) = columns.remove("margin") else { return Ok(None) };
    if task == Task::Unpaired {
        return Err("has a `margin`, which unpaired training cannot use; remove the column".to_owned());
    }
    let margin = value.as_f64().filter(|margin| margin.is_finite());
    margin.map(Some).ok_or_else(|| {
        format!("`margin` is {}, not a number: by how much `chosen` is better", described(&value))
    })
}

/// Takes the `scores` of `count` responses.
pub(crate) fn scores(columns: &mut Map<String, Value>, count: usize) -> Result<Option<Vec<f64>>, String> {
    let list = match columns.remove("scores") {
        None => return Ok(None),
        Some(Value::Array(list)) => list,
        Some(other) => return Err(format!("`scores` is {}, not a list of numbers", kind(&other))),
    };
    if list.len() != count {
        return Err(format!("has {} `scores` for {count} `responses`; give each response one", list.len()));
    }
    let number = |(i, value): (usize, &Value)| {
        let score = value.as_f64().filter(|score| score.is_finite());
        score.ok_or_else(|| format!("`scores[{i}]` is {}, not a number", described(value)))
    };
    list.iter().enumerate().map(number).collect::<Result<_, _>>().map(Some)
}

/// The label of an unpaired row.
pub(crate) fn label(value: Option<Value>) -> Result<Label, String> {
    let desirable = value.as_ref().and_then(verdict);
    let wanted = "unpaired training needs true (1) for a good response and false (0) for a bad one";
    match (desirable, value) {
        (Some(desirable), _) => Ok(Label::Unpaired { desirable }),
        (None, Some(value)) => Err(format!("`label` is {}; {wanted}", described(&value))),
        (None, None) => {
            Err(format!("has no `label`; {wanted}; give it, or a pair of `chosen` and `rejected`"))
        }
    }
}

/// What a label says of a response, if it does: true or 1, false or 0.
pub(crate) fn verdict(label: &Value) -> Option<bool> {
    match label {
        Value::Bool(desirable) => Some(*desirable),
        Value::Number(n) if n.as_f64() == Some(1.0) => Some(true),
        Value::Number(n) if n.as_f64() == Some(0.0) => Some(false),
        _ => None,
    }
}

/// A value in an error: a number as it is, else its type.
fn described(value: &Value) -> String {
    match value {
        Value::Number(n) => n.to_string(),
        other => kind(other).to_owned(),
    }
}
