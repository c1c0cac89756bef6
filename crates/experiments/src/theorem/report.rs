//! What was found, as tables and pictures.

use super::best_of::{best_of, bound};
use super::counted::number;
use super::growth::{Fit, Grown, Row};
use super::labels::{CASES, Case, SURE};
use super::law::{Aim, Table};
use crate::written::leave;
use duel_plot::{Axis, Chart, Point, Series, Style, svg};
use duel_stats::mean;
use duel_train::Error;
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::Path;

/// Draws of which the best is kept.
const DRAWS: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// All that was found.
pub(super) struct Report<'a> {
    pub aim: &'a Aim,
    pub trace: Value,
    pub growths: Vec<Grown>,
    pub cases: Vec<Value>,
}

fn axis(label: &str, log: bool) -> Axis {
    Axis { label: label.into(), log, range: None }
}

fn series(label: impl Into<String>, style: Style, points: impl IntoIterator<Item = (f64, f64)>) -> Series {
    let points = points.into_iter().map(|(x, y)| Point::new(x, y)).collect();
    Series { label: label.into(), style, points }
}

/// The mean of some numbers at `x`, with its interval.
fn known(x: f64, values: &[f64]) -> Option<Point> {
    mean(values).map(|e| Point { y_interval: e.interval, ..Point::new(x, e.value) })
}

/// Rewards rounded to halves, so that many responses are worth the same.
fn coarse(reward: &Table) -> Table {
    reward.iter().map(|row| row.iter().map(|r| (2.0 * r).round() / 2.0).collect()).collect()
}

/// `x (sd of it)`.
fn with_deviation((value, deviation): (f64, f64)) -> String {
    format!("{value:.3} (sd {deviation:.3})")
}

impl Report<'_> {
    /// Prints it, and leaves it in `dir`.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub(super) fn write(&self, dir: &Path, machine: &str, seed: u64) -> Result<(), Error> {
        let charts = self.charts();
        let picture = svg(&charts)?;
        let text = self.text();
        let all = format!("{:#}\n", self.json(machine, seed));
        let files = [
            ("theorem.svg", picture),
            ("theorem.csv", csv(&charts)),
            ("theorem.json", all),
            ("theorem.md", text.clone()),
        ];
        leave(dir, files)?;
        println!("{text}\ntheorem.svg, theorem.csv, theorem.json and theorem.md are in {}", dir.display());
        Ok(())
    }

    fn traced(&self) -> &[Value] {
        self.trace.as_array().map_or(&[], Vec::as_slice)
    }

    fn charts(&self) -> Vec<Chart> {
        vec![
            self.training(),
            self.growth("KL(policy || optimum)", "nats", kls, |grown, n| grown.prediction.kl / n),
            self.growth(
                "largest error of the implied reward",
                "reward",
                |row| {
                    (row.learned.iter().map(|l| l.error).collect(), row.exact.iter().map(|e| e.1).collect())
                },
                |grown, n| grown.prediction.error / n.sqrt(),
            ),
            self.driven(),
            self.bounded(),
            self.frontier(),
        ]
    }

    fn training(&self) -> Chart {
        let of = |label: &str, name: &str| {
            series(label, Style::Line, self.traced().iter().map(|at| (number(at, "step"), number(at, name))))
        };
        Chart {
            title: "DPO on endless data".into(),
            x: axis("steps", false),
            y: axis("", true),
            series: vec![
                of("KL(policy || optimum), nats", "kl"),
                of("KL(optimum || policy), nats", "reverse"),
                of("total variation", "variation"),
                of("gap of the objective", "gap"),
            ],
        }
    }

    fn growth(
        &self,
        title: &str,
        unit: &str,
        of: impl Fn(&Row) -> (Vec<f64>, Vec<f64>),
        predicted: impl Fn(&Grown, f64) -> f64,
    ) -> Chart {
        let mut all = Vec::new();
        for grown in &self.growths {
            let name = grown.name;
            let line = grown.rows.iter().map(|row| (row.n as f64, predicted(grown, row.n as f64)));
            all.push(series(format!("{name}: predicted"), Style::Dashed, line));
            let points = |label: &str, pick: &dyn Fn((Vec<f64>, Vec<f64>)) -> Vec<f64>| Series {
                label: format!("{name}: {label}"),
                style: Style::Points,
                points: grown.rows.iter().filter_map(|row| known(row.n as f64, &pick(of(row)))).collect(),
            };
            all.push(points("transformers", &|both| both.0));
            all.push(points("tables", &|both| both.1));
        }
        Chart { title: title.into(), x: axis("labels", true), y: axis(unit, true), series: all }
    }

    fn driven(&self) -> Chart {
        let cases = CASES.iter().zip(&self.cases).filter(|(case, _)| case.labels == SURE);
        let line = |(case, found): (&Case, &Value)| {
            let seen = found["seen"].as_array().into_iter().flatten();
            series(case.name, Style::Line, seen.map(|at| (number(at, "step"), number(at, "reverse"))))
        };
        Chart {
            title: "labels without a doubt: KL(optimum || policy)".into(),
            x: axis("steps", true),
            y: axis("nats", true),
            series: cases.map(line).collect(),
        }
    }

    fn bounded(&self) -> Chart {
        let exact = |reward: &Table| DRAWS.map(|n| (n, best_of(&self.aim.reference, reward, n).kl));
        Chart {
            title: "the best of n".into(),
            x: axis("n", true),
            y: axis("KL from the reference, nats", false),
            series: vec![
                series("ln n - (n - 1) / n", Style::Dashed, DRAWS.map(|n| (n, bound(n)))),
                series("exact, rewards that all differ", Style::LinePoints, exact(&self.aim.reward)),
                series("exact, rewards in steps of 1/2", Style::LinePoints, exact(&coarse(&self.aim.reward))),
            ],
        }
    }

    fn frontier(&self) -> Chart {
        // From hardly a pull to the reward to nearly nothing else.
        let betas = (0..60).map(|i| 10f64.powf(1.5 - f64::from(i) / 20.0));
        let best = betas.map(|beta| {
            let aim = Aim::new(self.aim.reference.clone(), self.aim.reward.clone(), beta);
            let at = aim.distance(&aim.optimum);
            (at.drift, at.reward)
        });
        let draws =
            DRAWS.map(|n| best_of(&self.aim.reference, &self.aim.reward, n)).map(|b| (b.kl, b.reward));
        let trained = self.traced().iter().map(|at| (number(at, "drift"), number(at, "reward")));
        let ends = CASES.iter().zip(&self.cases).filter(|(case, _)| case.labels == SURE);
        let ends = ends.filter_map(|(case, found)| {
            let last = found["seen"].as_array()?.last()?;
            Some(series(case.name, Style::Points, [(number(last, "drift"), number(last, "reward"))]))
        });
        let mut all = vec![
            series("optimum, every beta", Style::Dashed, best),
            series("best of n", Style::LinePoints, draws),
            series("DPO as it trains", Style::Line, trained),
        ];
        all.extend(ends);
        Chart {
            title: "reward against KL".into(),
            x: axis("KL from the reference, nats", false),
            y: axis("expected reward", false),
            series: all,
        }
    }

    fn json(&self, machine: &str, seed: u64) -> Value {
        let fit = |fit: &Option<Fit>| fit.as_ref().map(|f| json!({"slope": f.slope, "ratio": f.ratio}));
        let growth = |g: &Grown| {
            let rows = g.rows.iter().map(|row| {
                let (learned, exact) = kls(row);
                json!({
                    "n": row.n, "predicted": g.prediction.kl / row.n as f64, "transformers": learned, "tables": exact,
                    "behind": row.learned.iter().map(|l| l.behind).collect::<Vec<_>>(),
                    "errors": row.learned.iter().map(|l| l.error).collect::<Vec<_>>(),
                    "predicted_error": g.prediction.error / (row.n as f64).sqrt(), "without_optimum": row.none,
                })
            });
            json!({
                "labels": g.name, "rows": rows.collect::<Vec<_>>(), "transformers": fit(&g.learned()),
                "tables": fit(&g.exact()),
            })
        };
        let cases = CASES.iter().zip(&self.cases).map(|(case, found)| {
            json!({
                "name": case.name, "labels": case.labels, "loss": case.loss, "beta": case.beta,
                "label_smoothing": case.smoothing, "found": found,
            })
        });
        let draws = DRAWS.map(|n| {
            let [all, tied] = [&self.aim.reward, &coarse(&self.aim.reward)].map(|r| best_of(&self.aim.reference, r, n));
            json!({"n": n, "bound": bound(n), "kl": all.kl, "tied_kl": tied.kl, "reward": all.reward, "win_rate": all.win_rate})
        });
        json!({
            "machine": machine, "seed": seed, "beta": self.aim.beta,
            "optimum": self.aim.distance(&self.aim.optimum).json(), "endless": self.trace,
            "growth": self.growths.iter().map(growth).collect::<Vec<_>>(), "labels": cases.collect::<Vec<_>>(),
            "best_of": draws,
        })
    }

    /// The tables.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = self.tables(&mut text);
        text
    }

    fn tables(&self, to: &mut String) -> std::fmt::Result {
        let end = self.traced().last();
        let end = |name| end.map_or(f64::NAN, |end| number(end, name));
        writeln!(
            to,
            "DPO on endless data: KL(policy || optimum) {:.1e} nats, KL(optimum || policy) {:.1e}, total variation {:.1e}, \
             gradient {:.1e} at the end.\n",
            end("kl"),
            end("reverse"),
            end("variation"),
            end("gradient")
        )?;
        for grown in &self.growths {
            grown_table(grown, to)?;
        }
        writeln!(
            to,
            "| labels | loss | at its optimum: KL to the reference | to the reward's optimum | trained: KL to the \
             reference | half-way | KL(optimum \\|\\| policy) | half-way | P(best response) |\n|---|---|---|---|---|---|---|---|---|"
        )?;
        for (case, found) in CASES.iter().zip(&self.cases) {
            let seen = found["seen"].as_array().map_or(&[][..], Vec::as_slice);
            let (Some(last), name) = (seen.last(), case.name) else { continue };
            let half = seen.iter().rev().find(|at| 2.0 * number(at, "step") <= number(last, "step"));
            let half = |name| half.map_or(f64::NAN, |half| number(half, name));
            let of = &found["optimum"];
            let optimum = |name: &str| match of {
                Value::Null => "none".to_owned(),
                _ => format!("{:.3}", number(of, name)),
            };
            writeln!(
                to,
                "| {} | {name} | {} | {} | {:.3} | {:.3} | {:.3} | {:.3} | {:.3} |",
                case.labels,
                optimum("drift"),
                optimum("kl"),
                number(last, "drift"),
                half("drift"),
                number(last, "reverse"),
                half("reverse"),
                number(last, "best"),
            )?;
        }
        writeln!(
            to,
            "\n| best of | KL | of rewards with ties | at most | reward | win rate | at most |\n|---|---|---|---|---|---|---|"
        )?;
        for n in DRAWS {
            let all = best_of(&self.aim.reference, &self.aim.reward, n);
            let tied = best_of(&self.aim.reference, &coarse(&self.aim.reward), n);
            writeln!(
                to,
                "| {n} | {:.4} | {:.4} | {:.4} | {:.4} | {:.4} | {:.4} |",
                all.kl,
                tied.kl,
                bound(n),
                all.reward,
                all.win_rate,
                n / (n + 1.0)
            )?;
        }
        Ok(())
    }
}

fn kls(row: &Row) -> (Vec<f64>, Vec<f64>) {
    (row.learned.iter().map(|l| l.kl).collect(), row.exact.iter().map(|e| e.0).collect())
}

fn grown_table(grown: &Grown, to: &mut String) -> std::fmt::Result {
    let name = grown.name;
    writeln!(
        to,
        "| {name} | KL predicted | transformers | tables | of the prediction | transformer from its table, at most | \
         largest error of the implied reward | predicted | no optimum |\n|---|---|---|---|---|---|---|---|---|"
    )?;
    for row in &grown.rows {
        let n = row.n as f64;
        let (learned, exact) = kls(row);
        let errors: Vec<f64> = row.learned.iter().map(|l| l.error).collect();
        let shown = |values: &[f64]| mean(values).map_or(String::new(), |e| format!("{:.3e}", e.value));
        let relative: Vec<f64> = exact.iter().map(|kl| kl * n / grown.prediction.kl).collect();
        let relative = mean(&relative).map_or(String::new(), |e| match e.interval {
            Some((low, high)) => format!("{:.2} ({low:.2} to {high:.2})", e.value),
            None => format!("{:.2}", e.value),
        });
        let behind = row.learned.iter().map(|l| l.behind).fold(f64::NAN, f64::max);
        let behind = if behind.is_nan() { String::new() } else { format!("{behind:.0e}") };
        writeln!(
            to,
            "| {} | {:.3e} | {} | {} | {relative} | {behind} | {} | {:.3e} | {} of {} |",
            row.n,
            grown.prediction.kl / n,
            shown(&learned),
            shown(&exact),
            shown(&errors),
            grown.prediction.error / n.sqrt(),
            row.none,
            row.none as usize + exact.len(),
        )?;
    }
    for (who, fit) in [("transformers", grown.learned()), ("tables", grown.exact())] {
        let Some(fit) = fit else { continue };
        let slope = fit.slope.map_or(String::new(), |slope| {
            format!("KL falls as n to the power {}, predicted -1; ", with_deviation(slope))
        });
        writeln!(to, "\n{name}, {who}: {slope}it is {} of the prediction.", with_deviation(fit.ratio))?;
    }
    writeln!(to)
}

/// Every point of the charts, a line each.
fn csv(charts: &[Chart]) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let bounds = |of: Option<(f64, f64)>| of.map_or(",".to_owned(), |(low, high)| format!("{low},{high}"));
    let mut text = String::from("chart,series,x,y,y_low,y_high\n");
    for chart in charts {
        for series in &chart.series {
            for p in &series.points {
                let (title, label) = (quoted(&chart.title), quoted(&series.label));
                text += &format!("{title},{label},{},{},{}\n", p.x, p.y, bounds(p.y_interval));
            }
        }
    }
    text
}
