//! What was found, for programs.

use super::pairs::Twice;
use super::{Audit, Found, Lengths, Oddity, Sheet};
use duel_stats::Estimate;
use serde_json::{Map, Value, json};

impl Audit {
    /// All of it.
    pub fn json(&self) -> Value {
        let found = &self.repeats;
        let twice = |found: &Found<Twice>| {
            let place = |p: &super::Place| {
                let sheet = self.sheets.get(usize::from(p.file));
                json!({"file": sheet.map(|sheet| &sheet.path), "row": p.row})
            };
            let first: Vec<Value> = found.first.iter().map(|(a, b)| json!([place(a), place(b)])).collect();
            json!({"count": found.count, "first": first})
        };
        json!({
            "files": self.sheets.iter().map(|sheet| self.sheet(sheet)).collect::<Vec<_>>(),
            "max_length": self.max_length,
            "model_positions": self.positions,
            "copies": twice(&found.copies),
            "leaked": twice(&found.leaked),
            "shared_prompts": twice(&found.shared_prompts),
            "contradictions": twice(&found.contradictions),
            "labelled_again": found.labelled_again,
            "wrong_labels_by_pairs": estimate(found.noise_by_pairs()),
            "threes": found.threes,
            "wrong_labels_by_circles": estimate(found.noise_by_circles()),
            "problems": self.problems(),
        })
    }

    fn sheet(&self, sheet: &Sheet) -> Value {
        let report = &sheet.report;
        let dropped: Map<String, Value> =
            report.dropped().into_iter().map(|(count, why)| (why.into(), count.into())).collect();
        let rows = |found: &Found<(usize, String)>| {
            let first: Vec<Value> =
                found.first.iter().map(|(row, text)| json!({"row": row, "text": text})).collect();
            json!({"count": found.count, "first": first})
        };
        let limit = |limit: usize| {
            let said =
                json!({"above": sheet.longest.above(limit), "prompt_alone": sheet.prompt.above(limit - 1)});
            (limit.to_string(), said)
        };
        let refused = sheet.refused.iter();
        let refused = refused.map(|(why, f)| json!({"why": why, "count": f.count, "first": f.first}));
        let odd =
            Oddity::ALL.iter().zip(&sheet.odd).map(|(what, found)| (what.name().to_owned(), rows(found)));
        json!({
            "path": sheet.path,
            "rows": report.rows + sheet.refusals() as usize,
            "groups": report.groups,
            "tokens": report.tokens,
            "truncated": report.truncated,
            "refused": refused.collect::<Vec<_>>(),
            "dropped": dropped,
            "identical": {"count": sheet.identical.count, "first": sheet.identical.first},
            "unused_columns": report.unused,
            "prompt": lengths(&sheet.prompt),
            "better": lengths(&sheet.better),
            "worse": lengths(&sheet.worse),
            "prompt_and_longest": lengths(&sheet.longest),
            "at": self.limits().into_iter().map(limit).collect::<Map<_, _>>(),
            "pairs": sheet.pairs(),
            "pairs_of_different_lengths": sheet.unequal(),
            "better_is_longer": estimate(sheet.better_is_longer()),
            "gap": estimate(sheet.gap()),
            "characters": odd.collect::<Map<_, _>>(),
        })
    }
}

fn estimate(of: Option<Estimate>) -> Value {
    of.map_or(Value::Null, |of| json!({"value": of.value, "interval": of.interval.map(|(a, b)| [a, b])}))
}

fn lengths(of: &Lengths) -> Value {
    let at = |share: f64| of.percentile(share);
    json!({
        "count": of.count(), "mean": of.mean(), "min": at(0.0), "p5": at(0.05), "p25": at(0.25), "p50": at(0.5),
        "p75": at(0.75), "p95": at(0.95), "p99": at(0.99), "max": at(1.0), "bins": of.bins(),
    })
}
