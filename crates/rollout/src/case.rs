//! Samples as a judge reads them.

use crate::{Result, Rollout};
use duel_data::Context;
use duel_judge::{Answer, Case, Prompt, Turn};
use serde_json::{Map, Value};

/// The turns of a prompt as a judge reads it: one without a role is a text. Of the columns of its row, those that its
/// template gets go along.
pub fn prompt(turns: &[(Option<String>, String)], columns: &Map<String, Value>) -> Prompt {
    match turns {
        [] => Prompt::Text(String::new()),
        [(None, text)] => Prompt::Text(text.clone()),
        turns => {
            let turn = |(role, text): &(Option<String>, String)| Turn {
                role: role.clone().unwrap_or_default(),
                text: text.clone(),
            };
            let context = columns.iter().filter(|(name, _)| Context::COLUMNS.contains(&name.as_str()));
            let context = context.map(|(name, value)| (name.clone(), value.clone()));
            Prompt::Chat(turns.iter().map(turn).collect(), context.collect())
        }
    }
}

/// The samples of a prompt, with their tokens, as answers to it.
///
/// # Errors
/// The prompt has a turn without text.
pub fn case(rollout: &Rollout<'_>) -> Result<Case> {
    let answers = rollout.samples.iter().map(|s| Answer {
        text: s.text.clone(),
        tokens: s.tokens.clone(),
        truncated: s.truncated,
    });
    let prompt = prompt(&rollout.prompt.turns()?, &rollout.prompt.columns);
    Ok(Case { prompt, answers: answers.collect() })
}
