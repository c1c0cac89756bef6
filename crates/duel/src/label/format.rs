//! A row and its verdict as rows for training.

use super::summary::Summary;
use clap::ValueEnum;
use duel_data::{Candidates, Label};
use duel_judge::{Opinion, Verdict};
use duel_random::{at, fraction};
use serde_json::{Map, Value, json};

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// {prompt, responses, scores}
    Scored,
    /// {prompt, chosen, rejected}, with a margin where scores say it
    Pairs,
    /// {prompt, completion}: the best of the responses
    Best,
    /// {prompt, completion, label}: good or bad, by --threshold
    Unpaired,
    /// {prompt, chosen, rejected} of each response and its revision by the principles of a constitution
    Revisions,
}

/// Which pairs of a row are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Pairs {
    /// The best and the worst response
    #[default]
    #[value(name = "best_worst")]
    BestWorst,
    /// Every pair
    All,
}

/// How a pair is labelled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Labels {
    /// The better one is chosen, and a tie is left out
    #[default]
    Deterministic,
    /// Drawn from the judge's probability: of scores Bradley and Terry's, sigmoid of the difference
    Drawn,
}

/// How verdicts become rows.
#[derive(Debug, Clone)]
pub struct Writer {
    /// What is written.
    pub format: Format,
    /// Of pairs: which.
    pub pairs: Pairs,
    /// Of pairs: how.
    pub labels: Labels,
    /// Draws labels.
    pub seed: u64,
    /// A score above it is good, below it bad.
    pub threshold: f64,
    /// What a truncated response loses of its score.
    pub penalty: f64,
    /// The judge's name, which rows with scores keep.
    pub judge: String,
}

impl Writer {
    /// The rows that `row` becomes by `verdict`, a line each; counts what becomes of its responses.
    pub fn rows(&self, row: &Candidates, mut verdict: Verdict, summary: &mut Summary) -> String {
        summary.verdict(&verdict);
        for (score, response) in verdict.scores.iter_mut().zip(&row.responses) {
            summary.endless += u64::from(response.truncated.is_none());
            if response.truncated == Some(true) && self.penalty > 0.0 {
                summary.truncated += 1;
                *score = score.clone().map(|s| s - self.penalty);
            }
        }
        self.agreement(row, &verdict, summary);
        let scored = verdict.scores.iter().enumerate();
        let judged: Vec<(usize, f64)> = scored.filter_map(|(i, score)| Some((i, score.said()?))).collect();
        let rows = match self.format {
            Format::Scored => self.scored(row, &judged),
            Format::Pairs | Format::Revisions => self.pairs(row, &verdict, &judged, summary),
            Format::Best => best(row, &judged, summary),
            Format::Unpaired => self.unpaired(row, &judged, summary),
        };
        finish(rows, summary)
    }

    /// How the judge's preferences agree with those that the row says itself.
    fn agreement(&self, row: &Candidates, verdict: &Verdict, summary: &mut Summary) {
        let Some(known) = &row.known else { return };
        let n = row.responses.len();
        let equal = |i: usize, j: usize| matches!(known, Label::Scored(scores) if scores[i] == scores[j]);
        for (i, j) in (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j))).filter(|&(i, j)| !equal(i, j)) {
            if let Opinion::Said(p) = verdict.wins(i, j, false) {
                summary.agreement(p);
            }
        }
    }

    fn scored(&self, row: &Candidates, judged: &[(usize, f64)]) -> Vec<Value> {
        if judged.len() < 2 {
            return Vec::new();
        }
        let responses: Vec<&Value> = judged.iter().map(|(i, _)| &row.responses[*i].said).collect();
        let scores: Vec<f64> = judged.iter().map(|(_, score)| *score).collect();
        vec![made(row, json!({"responses": responses, "scores": scores, "judge": self.judge}))]
    }

    fn pairs(
        &self,
        row: &Candidates,
        verdict: &Verdict,
        judged: &[(usize, f64)],
        summary: &mut Summary,
    ) -> Vec<Value> {
        let mut pairs = Vec::new();
        for (i, j) in self.which(judged, summary) {
            let drawn = self.labels == Labels::Drawn;
            let same = row.responses[i].said == row.responses[j].said;
            let Opinion::Said(p) = verdict.wins(i, j, drawn) else { continue };
            let first = match drawn {
                _ if same => None,
                true => Some(fraction(at(&[self.seed, row.row as u64, i as u64, j as u64])) < p),
                false if p == 0.5 => None,
                false => Some(p > 0.5),
            };
            let Some(first) = first else {
                summary.ties += 1;
                continue;
            };
            let (w, l) = if first { (i, j) } else { (j, i) };
            let mut pair = json!({"chosen": row.responses[w].said, "rejected": row.responses[l].said});
            // By how much the chosen one is better: a draw against the scores has none.
            if let (None, false, [Opinion::Said(better), Opinion::Said(worse)]) =
                (&verdict.compared, drawn, [&verdict.scores[w], &verdict.scores[l]])
            {
                pair["margin"] = json!(better - worse);
            }
            pairs.push(made(row, pair));
        }
        pairs
    }

    /// The pairs of a row that are looked at, by their numbers, the lower first.
    fn which(&self, judged: &[(usize, f64)], summary: &mut Summary) -> Vec<(usize, usize)> {
        let all = || {
            judged.iter().enumerate().flat_map(|(k, (i, _))| judged[k + 1..].iter().map(|(j, _)| (*i, *j)))
        };
        if self.pairs == Pairs::All || judged.len() < 2 {
            return all().collect();
        }
        // Of equal scores the first is the best, the last the worst.
        let best = judged.iter().rev().max_by(|a, b| a.1.total_cmp(&b.1));
        let worst = judged.iter().rev().min_by(|a, b| a.1.total_cmp(&b.1));
        match (best, worst) {
            (Some((b, _)), Some((w, _))) if b != w => vec![(*b.min(w), *b.max(w))],
            _ => {
                summary.ties += 1;
                Vec::new()
            }
        }
    }

    fn unpaired(&self, row: &Candidates, judged: &[(usize, f64)], summary: &mut Summary) -> Vec<Value> {
        let (equal, rest): (Vec<_>, Vec<_>) = judged.iter().partition(|(_, score)| *score == self.threshold);
        summary.ties += equal.len() as u64;
        let made = |(i, score): &(usize, f64)| {
            made(row, json!({"completion": row.responses[*i].said, "label": *score > self.threshold}))
        };
        rest.iter().map(made).collect()
    }
}

/// Pairs of revisions and what they revise; a revision that changes nothing is a tie.
pub fn revisions(row: &Candidates, revised: &[Result<String, String>], summary: &mut Summary) -> String {
    let mut pairs = Vec::new();
    for (response, revision) in row.responses.iter().zip(revised) {
        match revision {
            Ok(text) if *text == response.text.trim() => summary.ties += 1,
            Ok(text) => {
                let chosen = match &response.said {
                    Value::String(said) if said.starts_with(' ') => json!(format!(" {text}")),
                    Value::String(_) => json!(text),
                    _ => json!([{"role": "assistant", "content": text}]),
                };
                pairs.push(made(row, json!({"chosen": chosen, "rejected": response.said})));
            }
            Err(why) => summary.unjudged(why),
        }
    }
    finish(pairs, summary)
}

fn best(row: &Candidates, judged: &[(usize, f64)], summary: &mut Summary) -> Vec<Value> {
    let Some((i, most)) = judged.iter().rev().max_by(|a, b| a.1.total_cmp(&b.1)) else { return Vec::new() };
    // Of equal ones the first is taken.
    summary.ties += u64::from(judged.iter().filter(|(_, score)| score == most).count() > 1);
    vec![made(row, json!({"completion": row.responses[*i].said}))]
}

/// A row to write: the prompt, what is new, and the other columns.
fn made(row: &Candidates, new: Value) -> Value {
    let mut all = Map::new();
    all.extend(row.prompt.iter().map(|prompt| ("prompt".to_owned(), prompt.clone())));
    all.extend(new.as_object().into_iter().flatten().map(|(name, value)| (name.clone(), value.clone())));
    all.extend(row.columns.iter().map(|(name, value)| (name.clone(), value.clone())));
    Value::Object(all)
}

/// Rows as lines, counted.
fn finish(rows: Vec<Value>, summary: &mut Summary) -> String {
    summary.written += rows.len() as u64;
    summary.nothing += u64::from(rows.is_empty());
    rows.iter().map(|row| format!("{row}\n")).collect()
}
