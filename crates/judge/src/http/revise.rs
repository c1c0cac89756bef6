//! Critique and revision: a model reads its answers by a principle, and writes them again.

use super::chat::Chat;
use super::crew::Answered;
use super::reply::{Form, Found};
use super::rubric::{Place, Rubric};
use crate::{Case, Error, Result, Settings, Stop, Tally};

/// A model behind an endpoint that criticises answers and writes better ones.
pub struct Reviser {
    chat: Chat,
    critique: Rubric,
    revise: Rubric,
}

/// An answer that was written again.
#[derive(Debug, Clone, PartialEq)]
pub struct Revision {
    /// The principle that was drawn for its case.
    pub principle: String,
    /// What the critic said.
    pub critique: String,
    /// The new answer.
    pub text: String,
}

/// Settings of judging that have no effect here.
const IDLE: [&str; 5] = ["judge_ask", "judge_order", "judge_verdict", "judge_rubric", "judge_max_score"];

impl Reviser {
    /// The model that the settings name, at `url`.
    ///
    /// # Errors
    /// A setting is out of its range, or has no effect here.
    pub fn new(url: &str, settings: &Settings, stop: Stop) -> Result<Self> {
        if let Some(name) = settings.said().map(|(name, _)| name).find(|name| IDLE.contains(name)) {
            return Err(Error::new(format!(
                "`{name}` has no effect on revisions, which judge nothing; leave it out"
            )));
        }
        Ok(Reviser {
            chat: Chat::new(url, settings, stop)?,
            critique: Rubric::new(include_str!("../../rubrics/critique.txt")),
            revise: Rubric::new(include_str!("../../rubrics/revise.txt")),
        })
    }

    /// A few words for people.
    pub fn describe(&self) -> String {
        format!("revisions by {}", self.chat.describe())
    }

    /// What decides its revisions.
    pub fn identity(&self) -> String {
        format!("revise {:032x} {:032x} {}", self.critique.hash(), self.revise.hash(), self.chat.identity())
    }

    /// What was counted.
    pub fn tally(&self) -> Tally {
        self.chat.tally()
    }

    /// A revision of every answer, or why there is none. A case has one principle, which its prompt and the seed draw.
    ///
    /// # Errors
    /// The endpoint as a whole fails, the budget is spent, or it was stopped.
    pub fn revise(&mut self, cases: &[Case]) -> Result<Vec<Vec<std::result::Result<Revision, String>>>> {
        struct Item<'a> {
            prompt: String,
            principle: String,
            answer: &'a str,
        }
        let items: Vec<Item<'_>> = cases
            .iter()
            .flat_map(|case| {
                let prompt = case.prompt.text();
                let principle = self.chat.principle(&[&prompt]).to_owned();
                case.answers.iter().map(move |answer| Item {
                    prompt: prompt.clone(),
                    principle: principle.clone(),
                    answer: &answer.text,
                })
            })
            .collect();
        let fill = |rubric: &Rubric, item: &Item<'_>, critique: &str| {
            rubric.fill(|place| match place {
                Place::Prompt => item.prompt.clone(),
                Place::Principle => item.principle.clone(),
                Place::Critique => critique.to_owned(),
                _ => item.answer.to_owned(),
            })
        };
        let ask = |item: &Item<'_>| self.chat.question(&fill(&self.critique, item, ""), Form::Text);
        let questions = items.iter().map(ask).collect();
        let critiques: Vec<_> = self.chat.ask(questions)?.into_iter().map(text).collect();
        let known =
            items.iter().zip(&critiques).filter_map(|(item, critique)| Some((item, critique.as_ref().ok()?)));
        let ask = |(item, critique): (&Item<'_>, &String)| {
            self.chat.question(&fill(&self.revise, item, critique), Form::Text)
        };
        let questions = known.map(ask).collect();
        let mut revised = self.chat.ask(questions)?.into_iter().map(text);
        let mut all = items.into_iter().zip(critiques).map(|(item, critique)| {
            let critique = critique?;
            let text = revised.next().unwrap_or_else(|| Err("there is no revision".to_owned()))?;
            Ok(Revision { principle: item.principle, critique, text })
        });
        Ok(cases.iter().map(|case| all.by_ref().take(case.answers.len()).collect()).collect())
    }
}

fn text(answered: Answered) -> std::result::Result<String, String> {
    match answered? {
        Found::Text(text) => Ok(text),
        Found::Number(number) => Ok(number.to_string()),
    }
}
