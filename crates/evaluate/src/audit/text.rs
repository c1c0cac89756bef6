//! What was found, as text.

use super::pairs::Twice;
use super::{Audit, Found, Lengths, Oddity, Repeats, Sheet};
use crate::text::shown;
use std::fmt;

/// Marks of the longest bar.
const BAR: u64 = 40;

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for sheet in &self.sheets {
            write!(f, "{sheet}")?;
            lengths(f, self, sheet)?;
            bias(f, sheet)?;
            characters(f, sheet)?;
        }
        repeats(f, self)?;
        let problems = self.problems();
        match problems.is_empty() {
            true => writeln!(f, "nothing that has to be put right was found"),
            false => writeln!(f, "to be put right: {}", problems.join("; ")),
        }
    }
}

/// "12.5 %".
fn percent(part: u64, of: u64) -> String {
    format!("{:.1} %", 100.0 * part as f64 / of.max(1) as f64)
}

impl fmt::Display for Sheet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n  {}", self.path.display(), self.report)?;
        if !self.refused.is_empty() {
            writeln!(f, "  {} rows are refused, and training stops at the first", self.refusals())?;
        }
        for (why, found) in &self.refused {
            writeln!(f, "    {}: {why}", rows(found.count, &found.first))?;
        }
        let dropped = self.report.dropped();
        for (count, why) in dropped.into_iter().filter(|(count, _)| *count > 0) {
            let first = self.dropped.first.iter().filter(|(_, reason)| *reason == why).map(|(row, _)| *row);
            let first: Vec<usize> = first.collect();
            writeln!(f, "  dropped: {}: {why}", rows(count as u64, &first))?;
        }
        Ok(())
    }
}

/// The first rows of a finding, behind how many there are.
fn rows(count: u64, first: &[usize]) -> String {
    let more = if count > first.len() as u64 { ", .." } else { "" };
    let first: Vec<String> = first.iter().map(usize::to_string).collect();
    if first.is_empty() { count.to_string() } else { format!("{count} (row {}{more})", first.join(", ")) }
}

fn lengths(f: &mut fmt::Formatter<'_>, audit: &Audit, sheet: &Sheet) -> fmt::Result {
    let compared = sheet.pairs() > 0;
    let judged = sheet.report.good + sheet.report.bad > 0;
    let (better, worse) = match (compared, judged) {
        (true, _) => ("chosen", "rejected"),
        (false, true) => ("desirable", "undesirable"),
        (false, false) => ("response", ""),
    };
    const SHARES: [f64; 8] = [0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0];
    let all = sheet.longest.count();
    if all == 0 {
        return Ok(());
    }
    writeln!(f, "  tokens               min    5 %   25 %   half   75 %   95 %   99 %    max     mean")?;
    for (name, lengths) in [
        ("prompt", &sheet.prompt),
        (better, &sheet.better),
        (worse, &sheet.worse),
        ("prompt + longest", &sheet.longest),
    ] {
        let Some(mean) = lengths.mean() else { continue };
        let of: Vec<String> =
            SHARES.iter().filter_map(|s| Some(format!("{:>7}", lengths.percentile(*s)?))).collect();
        writeln!(f, "    {name:<17}{}{mean:>9.1}", of.concat())?;
    }
    histogram(f, &sheet.longest)?;
    writeln!(f, "  truncated, or dropped because the prompt alone is as long")?;
    for limit in audit.limits() {
        let mark = match (limit == audit.max_length, limit == audit.positions) {
            (true, true) => "  max_length, the most that the model reads",
            (true, false) => "  max_length",
            (false, true) => "  the most that the model reads",
            (false, false) => "",
        };
        let (cut, alone) = (sheet.longest.above(limit), sheet.prompt.above(limit - 1));
        writeln!(
            f,
            "    {:<13} {:>7}  {:>7}{mark}",
            format!("at {limit}"),
            percent(cut, all),
            percent(alone, all)
        )?;
    }
    Ok(())
}

fn histogram(f: &mut fmt::Formatter<'_>, lengths: &Lengths) -> fmt::Result {
    let bins = lengths.bins();
    writeln!(f, "  how many of prompt + longest")?;
    let most = bins.iter().map(|(_, count)| *count).max().unwrap_or(0);
    for (end, count) in bins {
        let bar = "#".repeat((count * BAR).div_ceil(most.max(1)) as usize);
        writeln!(f, "    up to {end:<7} {count:>8}  {bar}")?;
    }
    Ok(())
}

fn bias(f: &mut fmt::Formatter<'_>, sheet: &Sheet) -> fmt::Result {
    let Some(share) = sheet.better_is_longer() else { return Ok(()) };
    writeln!(
        f,
        "  the chosen response is the longer one in {} of the {} pairs of different lengths,",
        shown(Some(share), 3),
        sheet.unequal()
    )?;
    writeln!(
        f,
        "    by {} tokens in the mean of all (95 %, as if pairs were independent)",
        shown(sheet.gap(), 1)
    )
}

fn characters(f: &mut fmt::Formatter<'_>, sheet: &Sheet) -> fmt::Result {
    for (what, found) in Oddity::ALL.iter().zip(&sheet.odd).filter(|(_, found)| found.count > 0) {
        writeln!(f, "  {}: {} rows", what.described(), found.count)?;
        for (row, text) in &found.first {
            writeln!(f, "    row {row}: {text}")?;
        }
    }
    Ok(())
}

fn repeats(f: &mut fmt::Formatter<'_>, audit: &Audit) -> fmt::Result {
    let found = &audit.repeats;
    if audit.sheets.len() > 1 {
        twice(f, audit, "rows of the evaluation that are in the training file", &found.leaked)?;
        twice(f, audit, "other rows of it whose prompt is in the training file", &found.shared_prompts)?;
    }
    twice(f, audit, "copies of rows", &found.copies)?;
    twice(f, audit, "contradictions: the same responses the other way round", &found.contradictions)?;
    noise(f, found)
}

fn twice(f: &mut fmt::Formatter<'_>, audit: &Audit, what: &str, found: &Found<Twice>) -> fmt::Result {
    writeln!(f, "{what}: {}", found.count)?;
    let name = |file: u8| {
        audit.sheets.get(usize::from(file)).map_or_else(String::new, |s| s.path.display().to_string())
    };
    for (before, after) in &found.first {
        match before.file == after.file {
            true => writeln!(f, "    {}, rows {} and {}", name(before.file), before.row, after.row)?,
            false => writeln!(
                f,
                "    {}, row {}, and {}, row {}",
                name(before.file),
                before.row,
                name(after.file),
                after.row
            )?,
        }
    }
    Ok(())
}

fn noise(f: &mut fmt::Formatter<'_>, found: &Repeats) -> fmt::Result {
    if found.disagreement.is_none() && found.circles.is_none() {
        return writeln!(
            f,
            "wrong labels: nothing can be said, since no responses are compared twice or in threes"
        );
    }
    writeln!(f, "wrong labels, if each is wrong by itself and equally often:")?;
    if let Some(by_pairs) = found.noise_by_pairs() {
        let again = found.labelled_again;
        writeln!(
            f,
            "    {} by {again} second labels of the same responses; copied rows,",
            shown(Some(by_pairs), 3)
        )?;
        writeln!(
            f,
            "      which agree with themselves, make it too small, and hard cases that are asked twice too large"
        )?;
    }
    if let Some(by_circles) = found.noise_by_circles() {
        writeln!(
            f,
            "    {} by {} threes of responses compared in three rows, where a > b > c > a is a circle;",
            shown(Some(by_circles), 3),
            found.threes
        )?;
        writeln!(f, "      tastes that have no order make it too large")?;
    }
    Ok(())
}
