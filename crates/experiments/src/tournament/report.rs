//! What is written of a tournament: numbers for programs, tables and a picture for people.

use super::Tournament;
use super::contest::Judged;
use super::mixture::{Mixture, Part};
use super::standing::Standing;
use crate::written::{cells, leave, number, quoted, shown};
use duel_plot::{Axis, Chart, Point, Series, Style};
use duel_stats::{Estimate, NoFit};
use duel_train::Error;
use serde_json::{Map, Value, json};
use std::fmt::Write;

/// A text as a cell of a table in Markdown.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('|', "\\|").replace(['\n', '\r'], " ")
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
            "elo": s.elo.as_deref().ok().map(list),
            "draws_without_elo": s.unranked,
            "misfit": s.misfit.map(|m| json!({
                "deviance": m.deviance, "degrees": m.degrees, "design_effect": m.design, "tail": m.tail,
            })),
            "mixture": Mixture::json(&parts, &self.output_dir),
            "mixture_is_unique": s.winner.unique,
            "inclusion": s.inclusion,
            "share_over_draws": list(&s.share),
            "mixture_beats": s.guarantee.iter().map(|e| e.as_ref().map(number)).collect::<Value>(),
            "mixture_beats_in_sample": s.in_sample,
            "exploitability": list(&s.exploitability),
            "mixture_exploitability": s.wins.exploitability(&s.winner.mixture),
            "mixture_exploitability_held_out": s.held_out.as_ref().map(number),
        });
        let text = self.text(judged, s);
        let charts = self.charts(s);
        let svg = duel_plot::svg(&charts)?;
        let files = [
            ("tournament.json", format!("{all:#}\n")),
            ("tournament.csv", self.csv(s)),
            ("tournament.svg", svg),
            ("tournament.md", text.clone()),
        ];
        leave(&self.output_dir, files)?;
        Ok(text)
    }

    /// Every pair, a line each.
    fn csv(&self, s: &Standing) -> String {
        let mut text = String::from("policy,opponent,wins,low,high\n");
        for (at, cell) in s.rates.iter().enumerate() {
            let Some(e) = cell else { continue };
            let (i, j) = (at / self.entrants.len(), at % self.entrants.len());
            // Writing to a string cannot fail, here and below.
            let [policy, opponent] = [i, j].map(|i| quoted(&self.entrants[i].name));
            let _ = writeln!(text, "{policy},{opponent},{}", cells(e));
        }
        text
    }

    fn text(&self, judged: &Judged, s: &Standing) -> String {
        let names: Vec<String> = self.entrants.iter().map(|e| escaped(&e.name)).collect();
        let mut text =
            format!("| wins against | {} |\n|---|{}\n", names.join(" | "), "---|".repeat(names.len()));
        for (name, row) in names.iter().zip(s.rates.chunks(names.len())) {
            let cells: Vec<String> =
                row.iter().map(|cell| cell.as_ref().map_or(String::new(), |e| shown(e, 3))).collect();
            let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
        }
        text += "\n| policy | Elo | Borda | Copeland | in the mixture | over draws of the prompts | played in | \
                 the mixture beats it, held out | exploitability |\n|---|---|---|---|---|---|---|---|---|\n";
        for (i, name) in names.iter().enumerate() {
            let elo = s.elo.as_ref().map_or(String::new(), |elo| shown(&elo[i], 0));
            let guarantee = s.guarantee[i].as_ref().map_or(String::new(), |e| shown(e, 3));
            let _ = writeln!(
                text,
                "| {} {name} | {elo} | {:.3} | {} | {:.3} | {} | {:.0} % | {guarantee} | {} |",
                i + 1,
                s.borda[i],
                s.copeland[i],
                s.winner.mixture[i],
                shown(&s.share[i], 3),
                100.0 * s.inclusion[i],
                shown(&s.exploitability[i], 3),
            );
        }
        let condorcet = s.condorcet.map_or("nobody", |i| &*names[i]);
        let prompts = match judged.contests.prompts() {
            1 => "One prompt says nothing of intervals".to_owned(),
            n => format!("In brackets: intervals of 95 % over {n} prompts"),
        };
        let _ = writeln!(
            text,
            "\n{prompts}; {} of {} comparisons were not judged.\n\
             Condorcet's winner, who beats everyone: {condorcet}. {}",
            judged.unjudged,
            judged.asked,
            missed(s)
        );
        let widest = if s.winner.unique { "" } else { ", of several the one of maximal entropy" };
        let _ = writeln!(
            text,
            "The mixture is the von Neumann winner{widest}: on these prompts it beats each at least {:.1} % of the \
             time.",
            100.0 * s.in_sample.iter().copied().fold(1.0, f64::min)
        );
        if let Some(held_out) = &s.held_out {
            let _ = writeln!(
                text,
                "Held out: a mixture made of one half of the prompts on the other half, both ways, over many splits. The \
                 best answer to a mixture of one third, found on another, has {} of it on the last (2 P - 1).",
                shown(held_out, 3)
            );
        }
        text
    }

    fn charts(&self, s: &Standing) -> [Chart; 2] {
        let place = |(i, e): (usize, &Estimate)| Point {
            x: (i + 1) as f64,
            y: e.value,
            x_interval: None,
            y_interval: e.interval,
        };
        let points = |of: &[Estimate]| of.iter().enumerate().map(place).collect::<Vec<_>>();
        let known = |(i, e): (usize, &Option<Estimate>)| e.as_ref().map(|e| place((i, e)));
        let held_out = s.guarantee.iter().enumerate().filter_map(known).collect();
        let far = self.entrants.len() as f64 + 0.5;
        let level = |y: f64| [0.5, far].map(|x| Point { x, y, x_interval: None, y_interval: None }).to_vec();
        // All names would not fit; the table has them by their numbers.
        let ends = [self.entrants.first(), self.entrants.last()].map(|e| e.map_or("", |e| &*e.name));
        let label = format!("policy, from 1 ({}) to {} ({})", ends[0], self.entrants.len(), ends[1]);
        let x = Axis { label, log: false, range: Some((0.5, far)) };
        let series = |label: &str, style, points| Series { label: label.into(), style, points };
        [
            Chart {
                title: "The von Neumann winner against each policy".into(),
                x: x.clone(),
                y: Axis { label: "share of wins".into(), ..Axis::default() },
                series: vec![
                    series("the mixture's wins", Style::Points, held_out),
                    series("one half", Style::Dashed, level(0.5)),
                ],
            },
            Chart {
                title: "What the best answer has of each".into(),
                x,
                y: Axis { label: "exploitability, 2 P - 1".into(), ..Axis::default() },
                series: vec![series("a policy", Style::Points, points(&s.exploitability))]
                    .into_iter()
                    .chain(s.held_out.map(|e| series("the mixture, held out", Style::Dashed, level(e.value))))
                    .collect(),
            },
        ]
    }
}

/// What Elo's numbers do not say, and why there are none.
fn missed(s: &Standing) -> String {
    let mut text = match (&s.elo, s.misfit) {
        (Err(NoFit::Unbeaten), _) => {
            "There are no Elo numbers: some policies never lose to the others.".to_owned()
        }
        (Err(NoFit::Unfound), _) => {
            "Elo's numbers were not found: some policies nearly never lose to the others.".to_owned()
        }
        (Ok(_), Some(m)) => format!(
            "Elo's numbers leave a deviance of {:.1} with {} degrees of freedom and a design effect of {:.2} \
             (p {} {:.1e}).",
            m.deviance,
            m.degrees,
            m.design,
            if m.tail < 1e-12 { "<" } else { "=" },
            m.tail.max(1e-12)
        ),
        (Ok(elo), None) if elo.len() == 2 => "Two policies leave Elo's numbers nothing to miss.".to_owned(),
        (Ok(_), None) => "These prompts do not say what Elo's numbers miss.".to_owned(),
    };
    if s.elo.is_ok() && s.unranked > 0.0 {
        let _ = write!(
            text,
            " Elo's numbers have no intervals: {:.1} % of the draws of the prompts have no such numbers.",
            100.0 * s.unranked
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cells() {
        assert_eq!(quoted("beta=0.1"), "beta=0.1");
        assert_eq!(quoted("a, \"b\"\nc"), "\"a, \"\"b\"\"\nc\"");
        assert_eq!(escaped("a|b\\\nc"), "a\\|b\\\\ c");
    }
}
