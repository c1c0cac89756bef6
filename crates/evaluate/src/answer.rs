//! What an evaluation found, as JSON.

use crate::summary::{Figures, Gap};
use crate::{Summary, Versus};
use duel_stats::{Estimate, Reliability};
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// What an evaluation found.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The file of the rows.
    pub dataset: PathBuf,
    /// The reference, if any.
    pub reference: Option<PathBuf>,
    /// A model, and the one that it is compared with.
    pub summaries: Vec<Summary>,
    /// The first less the second.
    pub versus: Option<Versus>,
}

impl Answer {
    /// All of it; an interval is `[low, high]`, or null.
    pub fn json(&self) -> Value {
        let versus = self.versus.as_ref().map(|v| {
            let [both, first, second, neither] = v.right;
            json!({
                "pairs": v.pairs, "apart": v.apart,
                "right": {"both": both, "model": first, "versus": second, "neither": neither},
                "accuracy": v.accuracy.map(estimate), "margin": v.margin.map(estimate),
            })
        });
        json!({
            "dataset": self.dataset, "ref_model": self.reference,
            "models": self.summaries.iter().map(summary).collect::<Vec<_>>(), "difference": versus,
        })
    }
}

fn estimate(e: Estimate) -> Value {
    json!({"value": e.value, "interval": e.interval.map(|(low, high)| [low, high])})
}

fn summary(s: &Summary) -> Value {
    let r = &s.report;
    let figures = s.figures.iter().map(|f| (f.by.name().to_owned(), figures(f))).collect::<Map<_, _>>();
    let [least, mean, most] = s.range;
    json!({
        "model": s.model,
        "rows": {
            "read": r.rows, "scored": r.groups, "prompts": s.prompts, "pairs": s.pairs,
            "truncated": r.truncated, "too_long": r.too_long + r.prompt_too_long, "identical": r.identical,
            "duplicates": r.duplicates, "tied": r.tied, "unranked": r.unranked,
        },
        "accuracy_interval": if s.independent { "wilson" } else { "bootstrap" },
        "by": s.figures.first().map(|f| f.by.name()),
        "figures": figures,
        "min": least, "mean": mean, "max": most,
        "calibration": s.reliability.as_ref().map(calibration),
        "by_length": s.gaps.iter().map(gap).collect::<Vec<_>>(),
        "prefers_longer": s.prefers_longer.map(estimate),
        "chosen_longer": s.chosen_longer.map(estimate),
        "kendall": s.kendall.map(|(tau, rows)| json!({"tau_b": estimate(tau), "rows": rows})),
    })
}

fn figures(f: &Figures) -> Value {
    json!({
        "accuracy": f.accuracy.map(estimate), "margin": f.margin.map(estimate),
        "chosen": f.chosen.map(estimate), "rejected": f.rejected.map(estimate), "ties": f.ties,
    })
}

fn gap(gap: &Gap) -> Value {
    let (from, to) = gap.tokens;
    json!({"from": from, "to": to, "pairs": gap.pairs, "accuracy": gap.accuracy.map(estimate)})
}

fn calibration(table: &Reliability) -> Value {
    let bins = table.bins().map(|((from, to), bin)| {
        let mean = |sum: f64| (bin.count > 0.0).then(|| sum / bin.count);
        json!({
            "from": from, "to": to, "pairs": bin.count as u64,
            "certainty": mean(bin.certainty), "right": mean(bin.right),
        })
    });
    json!({"error": table.error(), "bins": bins.collect::<Vec<_>>()})
}
