//! A model behind an OpenAI-compatible endpoint as a judge, with a rubric.

mod cache;
mod chat;
mod crew;
mod endpoint;
mod reply;
mod revise;
mod rubric;

use crate::judge::{compare_by_scoring, scores_by_comparing};
use crate::{Case, Error, Judge, Opinion, Pair, Result, Says, Settings, Stop, Tally};
use chat::Chat;
use crew::{Answered, Question};
use reply::{Form, Found};
pub use revise::{Reviser, Revision};
use rubric::{Place, Rubric};
use std::path::Path;

/// A model that compares answers in pairs, or scores them alone.
pub struct Http {
    chat: Chat,
    rubric: Rubric,
    form: Form,
    /// Pairs are shown in both orders, or in one that is drawn.
    both: bool,
    /// Of comparisons.
    tally: Tally,
}

impl Http {
    /// The model that the settings name, at `url`: `http://localhost:8000/v1`.
    ///
    /// # Errors
    /// A setting is out of its range or has no effect beside the others, a file cannot be read, the environment has no
    /// key.
    pub fn new(url: &str, settings: &Settings, stop: Stop) -> Result<Self> {
        let compares = settings.word("judge_ask", &["compare", "score"])? == "compare";
        let token = settings.word("judge_verdict", &["line", "token"])? == "token";
        let both = settings.word("judge_order", &["both", "random"])? == "both";
        let most = settings.number("judge_max_score", 10.0, 2.0..=1000.0)?;
        let (needed, text, form): (&[Place], _, _) = match compares {
            true => (
                &[Place::Prompt, Place::First, Place::Second],
                include_str!("../../rubrics/compare.txt"),
                if token { Form::Token } else { Form::Line },
            ),
            false => {
                (&[Place::Prompt, Place::Answer], include_str!("../../rubrics/score.txt"), Form::Score(most))
            }
        };
        let rubric = match settings.text("judge_rubric") {
            None => Rubric::new(text),
            Some(path) => Rubric::read(Path::new(path), needed)?,
        };
        let idle: &[(&str, bool, &str)] = &[
            ("judge_order", !compares, "where answers are scored alone"),
            ("judge_verdict", !compares, "where answers are scored alone"),
            ("judge_max_score", compares, "where answers are compared"),
            ("judge_max_tokens", compares && token, "where a verdict is one token"),
            ("judge_principles", !rubric.has(Place::Principle), "on a rubric without {principle}"),
        ];
        if let Some((name, _, why)) =
            idle.iter().find(|(name, idle, _)| *idle && settings.text(name).is_some())
        {
            return Err(Error::new(format!("`{name}` has no effect {why}; leave it out")));
        }
        Ok(Http { chat: Chat::new(url, settings, stop)?, rubric, form, both, tally: Tally::default() })
    }

    fn question(&self, prompt: &str, first: &str, second: &str) -> Question {
        let text = self.rubric.fill(|place| match place {
            Place::Prompt => prompt.to_owned(),
            Place::Second => second.to_owned(),
            // One for both orders of a pair.
            Place::Principle if first < second => self.chat.principle(&[prompt, first, second]).to_owned(),
            Place::Principle => self.chat.principle(&[prompt, second, first]).to_owned(),
            _ => first.to_owned(),
        });
        let ending = match self.form {
            Form::Line => {
                "Weigh the two answers in a few sentences. Then end with one line that says exactly `Verdict: A`, \
                 `Verdict: B` or `Verdict: tie`."
                    .to_owned()
            }
            Form::Token => {
                "Reply with one letter and nothing else: A if answer A is better, B if answer B is.".to_owned()
            }
            Form::Score(most) => format!(
                "Reply with one JSON object and nothing else: {{\"reasoning\": \"a few sentences\", \"score\": N}}, \
                 where N is a number from 1, the worst, to {most}, the best."
            ),
            Form::Text => String::new(),
        };
        self.chat.question(&format!("{}\n\n{ending}\n", text.trim_end()), self.form)
    }

    /// Counts a comparison that was shown.
    fn shown(&mut self, opinion: &Opinion) {
        if let Opinion::Said(p) = opinion {
            self.tally.shown += 1;
            self.tally.first_won_twice += if *p > 0.5 { 2 } else { u64::from(*p == 0.5) };
        }
    }
}

/// An answer of the endpoint as an opinion.
fn opinion(answered: Answered) -> Opinion {
    match answered {
        Ok(Found::Number(number)) => Opinion::Said(number),
        Ok(Found::Text(text)) => Opinion::Unjudged(text),
        Err(why) => Opinion::Unjudged(why),
    }
}

/// What two orders of a pair say together, the second about its answers the other way round; the mean, so that a
/// disagreement of verdicts is a tie. One alone would say what the order says.
fn joined(first: Opinion, second: Opinion) -> Opinion {
    match (first, second) {
        (Opinion::Said(p), Opinion::Said(q)) => Opinion::Said(0.5 * (p + (1.0 - q))),
        (unjudged @ Opinion::Unjudged(_), _) | (_, unjudged) => unjudged,
    }
}

impl Judge for Http {
    fn describe(&self) -> String {
        self.chat.describe()
    }

    fn identity(&self) -> String {
        let (hash, chat) = (self.rubric.hash(), self.chat.identity());
        format!("http {:?} both {} rubric {hash:032x} {chat}", self.form, self.both)
    }

    fn says(&self) -> Says {
        match self.form {
            Form::Score(_) => Says::Scores,
            _ => Says::Preferences,
        }
    }

    fn scores(&mut self, cases: &[Case]) -> Result<Vec<Vec<Opinion>>> {
        if self.says() == Says::Preferences {
            return scores_by_comparing(self, cases);
        }
        let prompted = cases.iter().map(|case| (case.prompt.text(), &case.answers));
        let questions = prompted.flat_map(|(prompt, answers)| {
            answers.iter().map(|a| self.question(&prompt, &a.text, "")).collect::<Vec<_>>()
        });
        let questions = questions.collect();
        let mut opinions = self.chat.ask(questions)?.into_iter().map(opinion);
        Ok(cases.iter().map(|case| opinions.by_ref().take(case.answers.len()).collect()).collect())
    }

    /// Answers that are the same are a tie, and not asked about.
    fn compare(&mut self, pairs: &[Pair<'_>]) -> Result<Vec<Opinion>> {
        if self.says() == Says::Scores {
            return compare_by_scoring(self, pairs);
        }
        let mut questions = Vec::new();
        // By pair: whether it is the same answer twice, and whether the first is shown first.
        let mut how = Vec::with_capacity(pairs.len());
        for Pair { prompt, first, second } in pairs {
            let (prompt, first, second) = (prompt.text(), first.text.as_str(), second.text.as_str());
            let forth = self.both || self.chat.draw(&[&prompt, first, second, "order"]) & 1 == 0;
            how.push((first == second, forth));
            if first == second {
                continue;
            }
            if forth {
                questions.push(self.question(&prompt, first, second));
            }
            if self.both || !forth {
                questions.push(self.question(&prompt, second, first));
            }
        }
        let mut said = self.chat.ask(questions)?.into_iter().map(opinion);
        let mut next = || said.next().unwrap_or_else(|| Opinion::Unjudged("there is no reply".to_owned()));
        let mut opinions = Vec::with_capacity(pairs.len());
        for (same, forth) in how {
            if same {
                opinions.push(Opinion::Said(0.5));
                continue;
            }
            let shown = next();
            self.shown(&shown);
            if !self.both {
                opinions.push(if forth { shown } else { shown.map(|p| 1.0 - p) });
                continue;
            }
            let back = next();
            self.shown(&back);
            if let (Opinion::Said(p), Opinion::Said(q)) = (&shown, &back) {
                self.tally.both_orders += 1;
                // Each prefers the answer that it showed first, or each the other.
                self.tally.disagreed += u64::from((p - 0.5) * (q - 0.5) > 0.0);
            }
            opinions.push(joined(shown, back));
        }
        Ok(opinions)
    }

    fn tally(&self) -> Tally {
        let mut all = self.chat.tally();
        all += self.tally;
        all
    }
}
