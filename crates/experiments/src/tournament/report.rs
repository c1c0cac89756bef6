//! What is written of a tournament: numbers for programs, tables and a picture for people.

use super::Tournament;
use super::contest::Judged;
use super::mixture::{Mixture, Part};
use super::standing::Standing;
use duel_plot::{Axis, Chart, Point, Series, Style};
use duel_stats::Estimate;
use duel_train::Error;
use serde_json::{Map, Value, json};
use std::fmt::Write;

/// A number with its interval, as JSON has it.
pub(super) fn number(e: &Estimate) -> Value {
    json!({"value": e.value, "interval": e.interval.map(|(low, high)| [low, high])})
}

/// The same as people read it.
pub(super) fn shown(e: &Estimate, digits: usize) -> String {
    match e.interval {
        Some((low, high)) => format!("{:.digits$} ({low:.digits$} to {high:.digits$})", e.value),
        None => format!("{:.digits$}", e.value),
    }
}

impl Tournament {
    /// Writes what came of it; returns the tables.
    pub(super) fn report(
        &self,
        settings: &Map<String, Value>,
        judged: &Judged,
        s: &Standing,
    ) -> Result<String, Error> {
        let parts: Vec<Part> = self
            .entrants
            .iter()
            .zip(&s.winner.mixture)
            .map(|(e, weight)| Part { name: e.name.clone(), folder: e.folder.clone(), weight: *weight })
            .collect();
        let list = |of: &[Estimate]| of.iter().map(number).collect::<Value>();
        let n = parts.len();
        let all = json!({
            "settings": settings,
            "policies": parts.iter().map(|part| &part.name).collect::<Vec<_>>(),
            "prompts": judged.contests.prompts(),
            "comparisons": judged.asked,
            "unjudged": judged.unjudged,
            "wins": s.rates.chunks(n).collect::<Vec<_>>().iter().map(|row| {
                row.iter().map(|cell| cell.as_ref().map(number)).collect::<Value>()
            }).collect::<Value>(),
            "borda": s.borda,
            "copeland": s.copeland,
            "condorcet": s.condorcet.map(|i| &parts[i].name),
            "elo": s.elo.as_deref().map(list),
            "misfit": s.misfit.map(|m| json!({"deviance": m.deviance, "degrees": m.degrees, "tail": m.tail})),
            "mixture": Mixture::json(&parts, &self.output_dir),
            "mixture_is_unique": s.winner.unique,
            "inclusion": s.inclusion,
            "share_over_draws": list(&s.share),
            "mixture_beats": list(&s.guarantee),
            "exploitability": list(&s.exploitability),
            "mixture_exploitability": s.wins.exploitability(&s.winner.mixture),
            "mixture_exploitability_held_out": number(&s.held_out),
        });
        let text = self.text(judged, s);
        let charts = self.charts(s);
        let svg = duel_plot::svg(&charts).map_err(|e| Error::new(e.to_string()))?;
        let files = [
            ("tournament.json", format!("{all:#}\n")),
            ("tournament.csv", self.csv(s)),
            ("tournament.svg", svg),
            ("tournament.md", text.clone()),
        ];
        for (name, text) in files {
            duel_model::write_synced(&self.output_dir.join(name), text.as_bytes())?;
        }
        Ok(text)
    }

    /// Every pair, a line each.
    fn csv(&self, s: &Standing) -> String {
        let mut text = String::from("policy,opponent,wins,low,high\n");
        for (at, cell) in s.rates.iter().enumerate() {
            let Some(e) = cell else { continue };
            let (i, j) = (at / self.entrants.len(), at % self.entrants.len());
            let bounds = e.interval.map_or(",".into(), |(low, high)| format!("{low},{high}"));
            // Writing to a string cannot fail, here and below.
            let _ =
                writeln!(text, "{},{},{},{bounds}", self.entrants[i].name, self.entrants[j].name, e.value);
        }
        text
    }

    fn text(&self, judged: &Judged, s: &Standing) -> String {
        let names: Vec<&str> = self.entrants.iter().map(|e| &*e.name).collect();
        let mut text =
            format!("| wins against | {} |\n|---|{}\n", names.join(" | "), "---|".repeat(names.len()));
        for (name, row) in names.iter().zip(s.rates.chunks(names.len())) {
            let cells: Vec<String> =
                row.iter().map(|cell| cell.as_ref().map_or(String::new(), |e| shown(e, 3))).collect();
            let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
        }
        text += "\n| policy | Elo | Borda | Copeland | in the mixture | over draws of the prompts | played in | \
                 the mixture beats it | exploitability |\n|---|---|---|---|---|---|---|---|---|\n";
        for (i, name) in names.iter().enumerate() {
            let elo = s.elo.as_ref().map_or(String::new(), |elo| shown(&elo[i], 0));
            let _ = writeln!(
                text,
                "| {name} | {elo} | {:.3} | {} | {:.3} | {} | {:.0} % | {} | {} |",
                s.borda[i],
                s.copeland[i],
                s.winner.mixture[i],
                shown(&s.share[i], 3),
                100.0 * s.inclusion[i],
                shown(&s.guarantee[i], 3),
                shown(&s.exploitability[i], 3),
            );
        }
        let condorcet = s.condorcet.map_or("nobody".to_owned(), |i| names[i].to_owned());
        let _ = write!(
            text,
            "\nIn brackets: intervals of 95 % over {} prompts; {} of {} comparisons were not judged.\n\
             Condorcet's winner, who beats everyone: {condorcet}. ",
            judged.contests.prompts(),
            judged.unjudged,
            judged.asked
        );
        text += &match s.misfit {
            Some(m) if m.degrees > 0 => format!(
                "Elo's numbers leave a deviance of {:.1} with {} degrees of freedom (p {} {:.1e}).\n",
                m.deviance,
                m.degrees,
                if m.tail < 1e-12 { "<" } else { "=" },
                m.tail.max(1e-12)
            ),
            Some(_) => "Two policies leave Elo's numbers nothing to miss.\n".to_owned(),
            None => "There are no Elo numbers: some policies never lose to the others.\n".to_owned(),
        };
        let widest = if s.winner.unique { "" } else { ", of several the one of maximal entropy" };
        let _ = writeln!(
            text,
            "The mixture is the von Neumann winner{widest}: nobody has more than {:.1e} of it on these prompts, and {} \
             on the half of them that it was not made of (2 P - 1).",
            s.wins.exploitability(&s.winner.mixture),
            shown(&s.held_out, 3)
        );
        text
    }

    fn charts(&self, s: &Standing) -> [Chart; 2] {
        let numbered: Vec<String> =
            self.entrants.iter().enumerate().map(|(i, e)| format!("{} {}", i + 1, e.name)).collect();
        let place = |(i, e): (usize, &Estimate)| Point {
            x: (i + 1) as f64,
            y: e.value,
            x_interval: None,
            y_interval: e.interval,
        };
        let points = |of: &[Estimate]| of.iter().enumerate().map(place).collect::<Vec<_>>();
        let far = self.entrants.len() as f64 + 0.5;
        let level = |y: f64| [0.5, far].map(|x| Point { x, y, x_interval: None, y_interval: None }).to_vec();
        let x = Axis { label: numbered.join(", "), log: false, range: Some((0.5, far)) };
        let series = |label: &str, style, points| Series { label: label.into(), style, points };
        [
            Chart {
                title: "The von Neumann winner against each policy".into(),
                x: x.clone(),
                y: Axis { label: "share of wins".into(), ..Axis::default() },
                series: vec![
                    series("the mixture's wins", Style::Points, points(&s.guarantee)),
                    series("one half", Style::Dashed, level(0.5)),
                ],
            },
            Chart {
                title: "What the best answer has of each".into(),
                x,
                y: Axis { label: "exploitability, 2 P - 1".into(), ..Axis::default() },
                series: vec![
                    series("a policy", Style::Points, points(&s.exploitability)),
                    series("the mixture, held out", Style::Dashed, level(s.held_out.value)),
                ],
            },
        ]
    }
}
