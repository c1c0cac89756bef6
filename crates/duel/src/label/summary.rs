//! What labelling counts, from the first row to the last, however many runs that took.

use crate::journal::Counted;
use duel_judge::{Opinion, Tally, Verdict};
use serde_json::{Value, json};

/// The counts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    /// Rows that were judged.
    pub rows: u64,
    /// Rows that were written.
    pub written: u64,
    /// Rows of which nothing could be written: too few responses were judged, or none was better.
    pub nothing: u64,
    /// Responses that were judged, the sum of their scores and that of their squares.
    pub scored: u64,
    sum: f64,
    squares: f64,
    /// Responses that say nothing.
    pub empty: u64,
    /// Responses without a score, comparisons without a preference, revisions that were not made.
    pub unjudged: u64,
    /// Why the first of these had none.
    pub why: Option<String>,
    /// Pairs that were left out because neither is better, or best scores that several share.
    pub ties: u64,
    /// Pairs of which the input said which is better, twice the number on which the judge agrees, a tie being 1.
    pub known: u64,
    agreed_twice: u64,
    /// Responses that were cut, and lost the penalty for it.
    pub truncated: u64,
    /// Responses of which the input does not say whether they were cut.
    pub endless: u64,
    /// Of the judges of all runs.
    pub tally: Tally,
}

/// The fields that are counted, by name.
macro_rules! counted {
    ($of:expr, $($field:ident).+) => {
        (stringify!($($field).+), &mut $of.$($field).+)
    };
}

impl Summary {
    /// What a judge says of a row: its scores, before any penalty, and what it did not say.
    pub fn verdict(&mut self, verdict: &Verdict) {
        for score in verdict.scores.iter().filter_map(Opinion::said) {
            self.scored += 1;
            self.sum += score;
            self.squares += score * score;
        }
        for opinion in verdict.compared.as_ref().unwrap_or(&verdict.scores) {
            if let Opinion::Unjudged(why) = opinion {
                self.unjudged(why);
            }
        }
    }

    /// A response or a comparison that has no judgement.
    pub fn unjudged(&mut self, why: &str) {
        self.unjudged += 1;
        self.why.get_or_insert_with(|| why.to_owned());
    }

    /// The probability with which the judge prefers the response that the input prefers.
    pub fn agreement(&mut self, p: f64) {
        self.known += 1;
        self.agreed_twice += if p > 0.5 { 2 } else { u64::from(p == 0.5) };
    }

    fn counts(&mut self) -> [(&'static str, &mut u64); 20] {
        [
            counted!(self, rows),
            counted!(self, written),
            counted!(self, nothing),
            counted!(self, scored),
            counted!(self, empty),
            counted!(self, unjudged),
            counted!(self, ties),
            counted!(self, known),
            counted!(self, agreed_twice),
            counted!(self, truncated),
            counted!(self, endless),
            counted!(self, tally.requests),
            counted!(self, tally.cached),
            counted!(self, tally.tokens),
            counted!(self, tally.shown),
            counted!(self, tally.first_won_twice),
            counted!(self, tally.both_orders),
            counted!(self, tally.disagreed),
            counted!(self, tally.cut),
            counted!(self, tally.encoded_again),
        ]
    }

    /// In words, one line.
    pub fn line(&self, judge: &str) -> String {
        let mut parts = vec![format!("{} rows judged by {judge}, {} written", self.rows, self.written)];
        let n = self.scored as f64;
        if self.scored > 0 {
            let mean = self.sum / n;
            let std = ((self.squares / n - mean * mean).max(0.0) * n / (n - 1.0).max(1.0)).sqrt();
            parts.push(format!("scores {mean:.4} +- {std:.4}"));
        }
        let some = [
            (self.nothing, "rows without anything to write"),
            (self.ties, "ties left out"),
            (self.empty, "empty responses left out"),
            (self.truncated, "truncated responses penalised"),
            (self.tally.cut, "prompts cut at their start"),
            (self.tally.encoded_again, "responses whose tokens are another tokenizer's encoded again"),
        ];
        parts.extend(some.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")));
        if self.unjudged > 0 {
            let why = self.why.as_deref().unwrap_or("no reason");
            parts.push(format!("{} unjudged and left out (the first: {why})", self.unjudged));
        }
        let share = |of: u64, all: u64| 100.0 * of as f64 / all as f64;
        if self.known > 0 {
            parts.push(format!(
                "agreement with the input's order {:.1} % of {} pairs",
                share(self.agreed_twice, 2 * self.known),
                self.known
            ));
        }
        let Tally { requests, cached, tokens, shown, first_won_twice, both_orders, disagreed, .. } =
            self.tally;
        if shown > 0 {
            parts.push(format!("the answer shown first won {:.1} %", share(first_won_twice, 2 * shown)));
        }
        if both_orders > 0 {
            parts
                .push(format!("the two orders disagreed on {:.1} % of pairs", share(disagreed, both_orders)));
        }
        if requests + cached > 0 {
            parts.push(format!("{requests} requests, {cached} answers from the cache"));
        }
        if tokens > 0 {
            parts.push(format!("{tokens} tokens"));
        }
        parts.join("; ")
    }
}

impl Counted for Summary {
    fn to_json(&self) -> Value {
        let mut all = json!({"sum": self.sum, "squares": self.squares, "why": self.why});
        for (name, count) in self.clone().counts() {
            all[name] = json!(*count);
        }
        all
    }

    fn from_json(value: &Value) -> Option<Self> {
        let mut all = Summary {
            sum: value["sum"].as_f64()?,
            squares: value["squares"].as_f64()?,
            why: value["why"].as_str().map(str::to_owned),
            ..Summary::default()
        };
        for (name, count) in all.counts() {
            *count = value[name].as_u64()?;
        }
        Some(all)
    }
}
