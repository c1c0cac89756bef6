//! Samples as a judge reads them.

use crate::{Result, Rollout};
use duel_judge::{Answer, Case, Prompt, Turn};

/// The turns of a prompt as a judge reads it: one without a role is a text.
pub fn prompt(turns: &[(Option<String>, String)]) -> Prompt {
    match turns {
        [] => Prompt::Text(String::new()),
        [(None, text)] => Prompt::Text(text.clone()),
        turns => {
            let turn = |(role, text): &(Option<String>, String)| Turn {
                role: role.clone().unwrap_or_default(),
                text: text.clone(),
            };
            Prompt::Chat(turns.iter().map(turn).collect())
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
    Ok(Case { prompt: prompt(&rollout.prompt.turns()?), answers: answers.collect() })
}
