//! What a study of the frontier found: a picture, a table for people, and the numbers.

use super::exact::{Exact, TRUSTED, kl_at};
use super::sweep::Run;
use crate::written::{cells, estimate, leave, number, quoted};
use duel_plot::{Axis, Chart, Point, Series, Style, svg};
use duel_stats::{Bootstrap, Estimate};
use duel_train::Error;
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::Path;

/// KLs within which the best reward is looked for, in nats.
const WITHIN: [f64; 5] = [0.5, 1.0, 2.0, 4.0, 8.0];
/// Rewards at which KLs are compared: so far from that of the model before to the most that the optimum is known at.
const AT: [f64; 4] = [0.2, 0.4, 0.6, 0.8];

/// A model that was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Measurement {
    /// Its method.
    pub method: &'static str,
    /// What was special.
    pub setting: String,
    /// Its seed.
    pub seed: u64,
    /// After so many steps.
    pub step: u64,
    /// What its samples are worth.
    pub reward: Estimate,
    /// How far it is from the model before, in nats.
    pub kl: Estimate,
    /// The mean reward of every prompt's samples; `None` where none was judged.
    pub prompts: Vec<Option<f64>>,
}

impl Measurement {
    /// Of a run, as a study has it.
    pub fn of(run: &Run, step: u64, found: &Value) -> Option<Self> {
        let (reward, kl) = (estimate(&found["reward"])?, estimate(&found["kl"])?);
        Some(Measurement {
            method: run.method,
            setting: run.setting.clone(),
            seed: run.seed,
            step,
            reward,
            kl,
            prompts: found["rewards"].as_array()?.iter().map(Value::as_f64).collect(),
        })
    }
}

/// Curves that methods are held against, from samples of the model before.
pub struct Curves {
    /// The optimum of what is measured, which no method is above.
    pub optimum: Vec<Exact>,
    /// The optimum that methods aim at, where they are told something else than what is measured: log-odds, and not
    /// probabilities.
    pub aimed: Option<Vec<Exact>>,
    /// The best of n.
    pub best_of: Vec<Exact>,
}

impl Curves {
    /// Each with its name and that of its parameter.
    fn named(&self) -> Vec<(&'static str, &'static str, &[Exact])> {
        let optimum = if self.aimed.is_some() { "optimum of the probability" } else { "optimum" };
        let mut all = vec![(optimum, "beta", &self.optimum[..])];
        all.extend(self.aimed.iter().map(|aimed| ("optimum of the log-odds", "beta", &aimed[..])));
        all.push(("best of n", "n", &self.best_of));
        all
    }
}

/// A setting after so many steps, its seeds together.
struct Joined<'r> {
    setting: &'r str,
    step: u64,
    /// Means over seeds, of values and of bounds.
    reward: Estimate,
    kl: Estimate,
    /// The lowest and the highest reward of a seed, where there are several.
    seeds: Option<(f64, f64)>,
    /// The reward of every prompt, a mean over seeds.
    prompts: Vec<Option<f64>>,
}

impl Joined<'_> {
    fn place(&self) -> Place {
        Place { kl: self.kl.value, reward: self.reward.value, seeds: self.seeds }
    }
}

/// All that was found.
pub struct Report {
    /// What it was computed on.
    pub machine: String,
    /// Of the study.
    pub settings: Value,
    /// Who said what samples are worth.
    pub judge: String,
    /// The reward of the model before.
    pub before: Option<Estimate>,
    /// Names of the methods, in the order of the picture.
    pub methods: Vec<&'static str>,
    /// What they are held against.
    pub curves: Curves,
    /// Samples a prompt that the curves are from.
    pub samples: usize,
    /// Everything that was measured.
    pub points: Vec<Measurement>,
}

impl Report {
    /// Writes `frontier.svg`, `.csv`, `.json` and `.md` into `dir` and prints the last.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn write(&self, dir: &Path) -> Result<(), Error> {
        let picture = svg(&self.charts())?;
        let text = self.text();
        let files = [
            ("frontier.svg", picture),
            ("frontier.csv", self.csv()),
            ("frontier.json", format!("{:#}\n", self.json())),
            ("frontier.md", text.clone()),
        ];
        leave(dir, files)?;
        println!("\n{text}\nfrontier.svg, .csv, .json and .md are in {}", dir.display());
        Ok(())
    }

    /// The points of a method, of all seeds together.
    fn joined(&self, method: &str) -> Vec<Joined<'_>> {
        let mut all: Vec<Joined<'_>> = Vec::new();
        for point in self.points.iter().filter(|p| p.method == method) {
            if all.iter().any(|p| p.setting == point.setting && p.step == point.step) {
                continue;
            }
            let alike =
                |p: &&Measurement| p.method == method && p.setting == point.setting && p.step == point.step;
            let group: Vec<&Measurement> = self.points.iter().filter(alike).collect();
            let rewards = || group.iter().map(|p| p.reward.value);
            let ends = (rewards().fold(f64::INFINITY, f64::min), rewards().fold(f64::NEG_INFINITY, f64::max));
            let prompt = |i: usize| {
                let known = group.iter().map(|p| p.prompts.get(i).copied().flatten()).sum::<Option<f64>>();
                known.map(|sum| sum / group.len() as f64)
            };
            all.push(Joined {
                setting: &point.setting,
                step: point.step,
                reward: together(group.iter().map(|p| p.reward)),
                kl: together(group.iter().map(|p| p.kl)),
                seeds: (group.len() > 1).then_some(ends),
                prompts: (0..point.prompts.len()).map(prompt).collect(),
            });
        }
        all
    }

    /// Those points of a method that have more reward than any with less KL.
    fn best(&self, method: &str) -> Vec<Joined<'_>> {
        let mut all = self.joined(method);
        all.sort_by(|a, b| a.kl.value.total_cmp(&b.kl.value));
        let mut most = f64::NEG_INFINITY;
        all.retain(|p| {
            let better = p.reward.value > most;
            most = most.max(p.reward.value);
            better
        });
        all
    }

    fn charts(&self) -> Vec<Chart> {
        let point = |kl: Estimate, reward: Estimate| Point {
            x_interval: kl.interval,
            y_interval: reward.interval,
            ..Point::new(kl.value, reward.value)
        };
        let curve = |(label, parameter, curve): (&str, &str, &[Exact])| Series {
            label: label.into(),
            style: if parameter == "n" { Style::LinePoints } else { Style::Dashed },
            points: curve.iter().map(|e| Point::new(e.kl.value, e.reward.value)).collect(),
        };
        // What drifts far away without a gain would leave no room for the rest.
        let mut kls: Vec<f64> = self.points.iter().map(|p| p.kl.value).collect();
        kls.sort_by(f64::total_cmp);
        let far = kls.get(kls.len() * 17 / 20).copied().unwrap_or(1.0);
        let of = |title: &str, style: Style, points: &dyn Fn(&str) -> Vec<Point>| {
            let series = self.methods.iter().map(|m| Series { label: (*m).into(), style, points: points(m) });
            Chart {
                title: title.into(),
                x: Axis {
                    label: "KL to the reference, nats a sample".into(),
                    range: Some((0.0, 1.15 * far.max(0.1))),
                    ..Axis::default()
                },
                y: Axis { label: format!("reward: {}", self.judge), ..Axis::default() },
                series: self.curves.named().into_iter().map(curve).chain(series).collect(),
            }
        };
        vec![
            of("the best of each method", Style::LinePoints, &|method| {
                self.best(method).iter().map(|p| point(p.kl, p.reward)).collect()
            }),
            of("every setting, along training", Style::Points, &|method| {
                self.joined(method).iter().map(|p| Point::new(p.kl.value, p.reward.value)).collect()
            }),
        ]
    }

    fn csv(&self) -> String {
        let mut text = String::from(
            "method,setting,seed,step,reward,reward_low,reward_high,kl,kl_low,kl_high,from_optimum\n",
        );
        let mut line = |names: [&str; 4], reward: &Estimate, kl: &Estimate| {
            let from = kl_at(&self.curves.optimum, reward.value).map(|at| (kl.value - at).to_string());
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{},{},{},{}",
                names.map(quoted).join(","),
                cells(reward),
                cells(kl),
                from.unwrap_or_default()
            );
        };
        for (name, parameter, curve) in self.curves.named() {
            for e in curve {
                line([name, &format!("{parameter} {}", e.parameter), "", ""], &e.reward, &e.kl);
            }
        }
        for p in &self.points {
            line([p.method, &p.setting, &p.seed.to_string(), &p.step.to_string()], &p.reward, &p.kl);
        }
        text
    }

    fn json(&self) -> Value {
        let point = |p: &Measurement| {
            json!({
                "method": p.method, "setting": p.setting, "seed": p.seed, "step": p.step,
                "reward": number(&p.reward), "kl": number(&p.kl),
                "from_optimum": kl_at(&self.curves.optimum, p.reward.value).map(|at| p.kl.value - at),
            })
        };
        let list = |curve: &[Exact]| curve.iter().map(Exact::json).collect::<Vec<_>>();
        json!({
            "machine": self.machine, "settings": self.settings, "judge": self.judge,
            "before": self.before.as_ref().map(number), "samples": self.samples,
            "optimum": list(&self.curves.optimum), "optimum_of_log_odds": self.curves.aimed.as_deref().map(list),
            "best_of": list(&self.curves.best_of),
            "points": self.points.iter().map(point).collect::<Vec<_>>(),
        })
    }

    fn text(&self) -> String {
        let places = |curve: &[Exact]| curve.iter().map(Place::of).collect::<Vec<_>>();
        let optimum = places(&self.curves.optimum);
        let before = self.before.map_or(f64::NAN, |e| e.value);
        let most = optimum.last().map_or(before, |e| e.reward);
        let mut rows: Vec<(&str, Vec<Place>)> =
            self.curves.named().into_iter().map(|(name, _, curve)| (name, places(curve))).collect();
        rows.extend(self.methods.iter().map(|m| (*m, self.best(m).iter().map(Joined::place).collect())));

        let mut text = String::from("The best reward of a point within so many nats of the reference:\n\n");
        let heads: Vec<String> = WITHIN.iter().map(|kl| format!("{kl} nats")).collect();
        table(&mut text, &heads, &rows, |curve| {
            WITHIN.map(|kl| within(curve, kl, |p| (p.kl, p.reward)).map(Place::shown)).to_vec()
        });
        let levels = AT.map(|share| before + share * (most - before));
        let heads: Vec<String> = levels.iter().map(|r| format!("reward {r:.3}")).collect();
        text +=
            "\nNats to a reward, and how many of them more than the optimum of what is measured needs:\n\n";
        table(&mut text, &heads, &rows, |curve| {
            let shown = |r: f64| {
                let [kl, least] = [kl_to(curve, before, r)?, kl_to(&optimum, before, r)?];
                Some(format!("{kl:.2} ({:+.2})", kl - least))
            };
            levels.map(shown).to_vec()
        });
        let seeds = self.settings["seeds"].as_array().map_or(0, Vec::len);
        let spread = if seeds > 1 { "; in brackets, the lowest and the highest of a seed" } else { "" };
        let unjudged = match self.settings["unjudged"].as_u64() {
            None | Some(0) => String::new(),
            Some(n) => format!(" {n} samples were not judged and are left out."),
        };
        let left_out = match self.settings["labels"]["left_out"].as_str() {
            None | Some("") => String::new(),
            Some(why) => format!(" Pairs that were left out of the labels: {why}."),
        };
        let aimed = match self.curves.aimed {
            None => "",
            Some(_) => {
                " What methods learn from are log-odds: the optimum of these is what they aim at, and the optimum of the \
                 probability is above it."
            }
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "\n{}\n\nReward: {}; before {before:.3}. An optimum is an estimate, from {} samples a prompt of the \
             reference by their weights, as far as these are worth {TRUSTED} samples a prompt by the harmonic mean; the \
             best of n is exact for the same samples.{aimed}{unjudged}{left_out} Points are means over {seeds} seeds of \
             training{spread}; intervals, in frontier.csv, are over prompts, whose own numbers are in points.jsonl.\n{}.",
            self.verdict(),
            self.judge,
            self.samples,
            self.machine
        );
        text
    }

    /// Whether DPO is above the best of the others, at each KL with the interval of their difference.
    fn verdict(&self) -> String {
        let best: Vec<_> = self.methods.iter().map(|m| (*m, self.best(m))).collect();
        let [mut below, mut above] = [const { Vec::new() }; 2];
        for kl in WITHIN {
            let strongest = |own: bool| {
                let some = best.iter().filter(|(name, _)| (*name == "DPO") == own);
                let places = some.filter_map(|(name, of)| {
                    Some((*name, within(of, kl, |p| (p.kl.value, p.reward.value))?))
                });
                places.max_by(|a, b| a.1.reward.value.total_cmp(&b.1.reward.value))
            };
            let (own, Some((name, other))) = (strongest(true), strongest(false)) else { continue };
            let Some((_, own)) = own else {
                below.push(format!(
                    "it has no point within {kl} nats, where {name} has {:.3}",
                    other.reward.value
                ));
                continue;
            };
            if other.reward.value > own.reward.value {
                let (more, interval) = self.difference(other, own);
                below.push(format!("{name} is {more:+.3} above it within {kl} nats{interval}"));
            } else {
                let (more, interval) = self.difference(own, other);
                above.push(format!("{more:+.3} above {name} within {kl} nats{interval}"));
            }
        }
        let mut found = match below.is_empty() {
            true => "DPO is at or above every other learned method within each of these KLs".to_owned(),
            false => format!("DPO is not above all: {}", below.join(", ")),
        };
        if !above.is_empty() {
            found += &format!("; it is {}", above.join(", "));
        }
        found
            + ". In brackets: intervals of 95 % of the differences, prompt by prompt, of means over seeds. The \
               settings were chosen on these prompts too, which is to the advantage of who has more of them."
    }

    /// What one point has more than another, and its interval in words.
    fn difference(&self, a: &Joined<'_>, b: &Joined<'_>) -> (f64, String) {
        let pairs = a.prompts.iter().zip(&b.prompts).filter_map(|(a, b)| (*a).zip(*b));
        let (one, other): (Vec<f64>, Vec<f64>) = pairs.unzip();
        let seed = self.settings["seed"].as_u64().unwrap_or(0);
        let interval = Bootstrap::new(seed).paired(&one, &other).and_then(|e| e.interval);
        let shown = interval.map_or(String::new(), |(low, high)| format!(" ({low:+.3} to {high:+.3})"));
        (a.reward.value - b.reward.value, shown)
    }
}

/// Several estimates of the same prompts as one: means of values, and of bounds.
fn together(all: impl Iterator<Item = Estimate> + Clone) -> Estimate {
    let n = all.clone().count().max(1) as f64;
    let mean = |of: fn((f64, f64)) -> f64| all.clone().map(|e| e.interval.map(of)).sum::<Option<f64>>();
    let bounds = mean(|(low, _)| low).zip(mean(|(_, high)| high));
    Estimate {
        value: all.clone().map(|e| e.value).sum::<f64>() / n,
        interval: bounds.map(|(low, high)| (low / n, high / n)),
    }
}

/// A place of a curve.
#[derive(Debug, Clone, Copy)]
struct Place {
    kl: f64,
    reward: f64,
    /// The lowest and the highest reward of a seed, where there are several.
    seeds: Option<(f64, f64)>,
}

impl Place {
    fn of(exact: &Exact) -> Self {
        Place { kl: exact.kl.value, reward: exact.reward.value, seeds: None }
    }

    fn shown(&self) -> String {
        let seeds = self.seeds.map_or(String::new(), |(low, high)| format!(" ({low:.3} to {high:.3})"));
        format!("{:.3}{seeds}", self.reward)
    }
}

/// A table of methods, a line each.
fn table(
    text: &mut String,
    heads: &[String],
    rows: &[(&str, Vec<Place>)],
    cells: impl Fn(&[Place]) -> Vec<Option<String>>,
) {
    *text += &format!("| method | {} |\n|---{}|\n", heads.join(" | "), "|---".repeat(heads.len()));
    for (name, curve) in rows {
        let cells: Vec<String> = cells(curve).into_iter().map(Option::unwrap_or_default).collect();
        *text += &format!("| {name} | {} |\n", cells.join(" | "));
    }
}

/// The place of the most reward among those of at most this KL; `of` says the two of one.
fn within<T>(curve: &[T], kl: f64, of: impl Fn(&T) -> (f64, f64)) -> Option<&T> {
    curve.iter().filter(|place| of(place).0 <= kl).max_by(|a, b| of(a).1.total_cmp(&of(b).1))
}

/// The KL at which rising places reach a reward, from `before` at 0 on, with straight lines between them.
fn kl_to(curve: &[Place], before: f64, reward: f64) -> Option<f64> {
    let above = curve.iter().map(|p| (p.kl, p.reward)).filter(|p| p.1 > before);
    let rising: Vec<(f64, f64)> = std::iter::once((0.0, before)).chain(above).collect();
    let reaches = |ends: &&[(f64, f64)]| ends[0].1 <= reward && reward <= ends[1].1;
    let [a, b] = rising.windows(2).find(reaches)? else { return None };
    Some(a.0 + (reward - a.1) / (b.1 - a.1) * (b.0 - a.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(value: f64) -> Estimate {
        Estimate { value, interval: Some((value - 0.1, value + 0.1)) }
    }

    /// Two prompts with that mean, and one that was not judged.
    fn spread(mean: f64) -> Vec<Option<f64>> {
        vec![Some(mean - 0.25), None, Some(mean + 0.25)]
    }

    fn point(method: &'static str, seed: u64, step: u64, kl: f64, reward: f64) -> Measurement {
        let setting = "beta 0.1".to_owned();
        Measurement {
            method,
            setting,
            seed,
            step,
            reward: known(reward),
            kl: known(kl),
            prompts: spread(reward),
        }
    }

    /// The optimum's reward is the root of its KL; DPO needs twice that KL, with two seeds around it, and IPO, that is
    /// better near the reference, loses reward further on.
    fn report() -> Report {
        let exact =
            |kl: f64| Exact { parameter: 1.0 / kl, reward: known(kl.sqrt()), kl: known(kl), effective: 20.0 };
        let mut points = Vec::new();
        for (step, kl) in [(10, 0.5), (20, 2.0)] {
            points.push(point("DPO", 1, step, kl, (kl / 2.0).sqrt() - 0.01));
            points.push(point("DPO", 2, step, kl, (kl / 2.0).sqrt() + 0.01));
        }
        points.push(point("IPO", 1, 10, 0.5, 0.6));
        points.push(point("IPO", 1, 20, 3.0, 0.4));
        Report {
            machine: "a machine".into(),
            settings: json!({"seeds": [1, 2]}),
            judge: "a judge".into(),
            before: Some(known(0.0)),
            methods: vec!["DPO", "IPO"],
            curves: Curves {
                optimum: [0.01, 0.25, 0.5, 1.0, 2.0].map(exact).to_vec(),
                aimed: None,
                best_of: vec![exact(0.01), exact(0.25)],
            },
            samples: 64,
            points,
        }
    }

    #[test]
    fn seeds_are_joined_and_what_gains_nothing_is_left_out() {
        let report = report();
        let dpo = report.best("DPO");
        assert_eq!(dpo.iter().map(|p| p.kl.value).collect::<Vec<_>>(), [0.5, 2.0]);
        assert!((dpo[1].reward.value - 1.0).abs() < 1e-12);
        let (low, high) = dpo[1].reward.interval.unwrap();
        assert!((low - 0.9).abs() < 1e-12 && (high - 1.1).abs() < 1e-12);
        assert_eq!((report.joined("IPO").len(), report.best("IPO").len()), (2, 1));
    }

    #[test]
    fn the_table_says_who_is_above_whom() {
        let text = report().text();
        // Within 2 nats the optimum has sqrt 2, DPO 1; IPO has 0.6 within half a nat, DPO 0.5.
        assert!(text.contains("| optimum | 0.707 | 1.000 | 1.414 | 1.414 | 1.414 |"), "{text}");
        assert!(
            text.contains("| DPO | 0.500 (0.490 to 0.510) | 0.500 (0.490 to 0.510) | 1.000 (0.990 to"),
            "{text}"
        );
        // Prompt by prompt the difference is the same, which drawing them again does not change.
        assert!(text.contains("IPO is +0.100 above it within 0.5 nats (+0.100 to +0.100)"), "{text}");
        assert!(text.contains("+0.400 above IPO within 2 nats (+0.400 to +0.400)"), "{text}");
        assert!(!text.contains("within 2 nats,") && !text.contains("within 2 nats."), "{text}");
        // 0.6 of the way to sqrt 2 is 0.849: between the optimum's 0.5 and 1 nats, and DPO's 0.5 and 2.
        let least = 0.5 + 0.5 * (0.6 * 2f64.sqrt() - 0.5f64.sqrt()) / (1.0 - 0.5f64.sqrt());
        let own = 0.5 + 1.5 * (0.6 * 2f64.sqrt() - 0.5) / 0.5;
        assert!(text.contains(&format!("{own:.2} ({:+.2})", own - least)), "{text}");
    }

    #[test]
    fn what_is_aimed_at_has_a_curve_of_its_own() {
        let mut report = report();
        assert!(!report.text().contains("log-odds"));
        report.curves.aimed = Some(report.curves.optimum[..2].to_vec());
        let text = report.text();
        assert!(text.contains("| optimum of the probability | 0.707 | 1.000 "), "{text}");
        assert!(text.contains("| optimum of the log-odds | 0.500 | 0.500 "), "{text}");
        assert_eq!(report.csv().matches("optimum of the log-odds").count(), 2);
        assert_eq!(report.json()["optimum_of_log_odds"].as_array().unwrap().len(), 2);
        assert!(svg(&report.charts()).unwrap().contains("optimum of the log-odds"));
    }

    #[test]
    fn every_point_is_a_line_and_has_its_distance() {
        let report = report();
        let csv = report.csv();
        assert_eq!(csv.lines().count(), 1 + 5 + 2 + 6);
        let columns = |line: &str| line.split(',').count();
        assert!(csv.lines().all(|line| columns(line) == columns(csv.lines().next().unwrap())), "{csv}");
        assert_eq!(report.json()["points"].as_array().unwrap().len(), 6);
        let picture = svg(&report.charts()).unwrap();
        assert!(picture.contains("best of n") && picture.contains("IPO") && !picture.contains("NaN"));
    }
}
