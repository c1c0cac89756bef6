//! What an evaluation found, as text.

use crate::compare::By;
use crate::summary::Gap;
use crate::{Answer, Summary, Versus};
use duel_stats::Estimate;
use std::fmt;

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for summary in &self.summaries {
            write!(f, "{summary}")?;
        }
        let Some(versus) = &self.versus else { return Ok(()) };
        writeln!(f, "the first less the second, paired by prompt")?;
        write!(f, "{versus}")
    }
}

/// A number and its interval, in one width.
pub(crate) fn shown(estimate: Option<Estimate>, decimals: usize) -> String {
    match estimate {
        None => "-".to_owned(),
        Some(Estimate { value, interval: None }) => format!("{value:.decimals$}"),
        Some(Estimate { value, interval: Some((low, high)) }) => {
            format!("{value:.decimals$} [{low:.decimals$}, {high:.decimals$}]")
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let intervals = if self.independent { "Wilson's" } else { "too" };
        writeln!(f, "{}: {} pairs of {} prompts", self.model.display(), self.pairs, self.prompts)?;
        writeln!(f, "  {}", self.report)?;
        writeln!(f, "  95 % intervals of means are by bootstrap over prompts, of accuracies {intervals}")?;
        for figures in &self.figures {
            writeln!(f, "  {}", described(figures.by))?;
            for (name, estimate) in [
                ("accuracy", figures.accuracy),
                ("margin", figures.margin),
                ("chosen", figures.chosen),
                ("rejected", figures.rejected),
            ] {
                writeln!(f, "    {name:<10}{}", shown(estimate, 4))?;
            }
            if figures.ties > 0 {
                writeln!(f, "    ties      {} pairs, counted as wrong", figures.ties)?;
            }
        }
        let [least, mean, most] = self.range;
        let by = self.figures.first().map_or("", |figures| figures.by.name());
        writeln!(f, "  {by} of all responses: min {least:.4}, mean {mean:.4}, max {most:.4}")?;
        if let Some((tau, rows)) = self.kendall {
            writeln!(f, "  Kendall's tau-b of {rows} rankings: {}", shown(Some(tau), 4))?;
        }
        writeln!(f, "  by length, chosen less rejected in tokens, of {by}")?;
        for gap in self.gaps.iter().filter(|gap| gap.pairs > 0) {
            writeln!(f, "    {:<12}{:>6} pairs  accuracy {}", range(gap), gap.pairs, shown(gap.accuracy, 3))?;
        }
        if self.prefers_longer.is_some() {
            writeln!(f, "    the longer one is preferred in {}", shown(self.prefers_longer, 3))?;
            writeln!(f, "    and is the chosen one in       {}", shown(self.chosen_longer, 3))?;
        }
        if let Some(table) = &self.reliability {
            writeln!(f, "  calibration error {:.4}: how certain of a pair, how often right", table.error())?;
            for ((from, to), bin) in table.bins().filter(|(_, bin)| bin.count > 0.0) {
                let (certain, right) = (bin.certainty / bin.count, bin.right / bin.count);
                writeln!(f, "    {from:.2} to {to:.2}{:>6} pairs  {certain:.3}  {right:.3}", bin.count)?;
            }
        }
        Ok(())
    }
}

fn described(by: By) -> &'static str {
    match by {
        By::Values => "rewards of the scalar head",
        By::Rewards => "rewards: beta times the log-ratio to the reference",
        By::Logps => "logps: log-probabilities of whole responses, in nats",
        By::LogpsPerToken => "logps_per_token: their means over the tokens",
    }
}

fn range(gap: &Gap) -> String {
    match gap.tokens {
        (Some(low), Some(high)) if low == high => low.to_string(),
        (Some(low), Some(high)) => format!("{low} to {high}"),
        (Some(low), None) => format!("{low} or more"),
        (None, Some(high)) => format!("{high} or less"),
        (None, None) => "any".to_owned(),
    }
}

impl fmt::Display for Versus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [both, first, second, neither] = self.right;
        write!(f, "  {} pairs: both right {both}, the first alone {first}, ", self.pairs)?;
        writeln!(f, "the second alone {second}, neither {neither}")?;
        if self.apart > 0 {
            writeln!(f, "  {} pairs left out: only one of the two models takes their row", self.apart)?;
        }
        writeln!(f, "  accuracy  {}", shown(self.accuracy, 4))?;
        match self.margin {
            Some(margin) => writeln!(f, "  margin    {}", shown(Some(margin), 4)),
            None => Ok(()),
        }
    }
}
