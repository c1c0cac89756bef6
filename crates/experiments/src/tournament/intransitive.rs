//! `duel cycle`: the world without a best response, all of it, as files and pictures.

use super::bandit::{Games, Play, cases, regret};
use super::game::winner;
use super::selfplay::{Course, LEARNERS, Length, Played, exploitability, play, shares};
use crate::cycle::{self, Cycle, KINDS};
use crate::study::Study;
use crate::written::{cells, leave, number, quoted, shown};
use duel_backend::Backend;
use duel_plot::{Axis, Chart, Point, Series, Style};
use duel_stats::{Estimate, mean, slope};
use duel_train::Error;
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::PathBuf;

/// Seeds of the duels with contexts, which are cheap.
const DUELS: u64 = 10;
/// Powers of 2 that these have rounds.
const LENGTHS: std::ops::RangeInclusive<u32> = 9..=20;

/// What is run.
#[derive(Clone, Debug)]
pub struct Intransitive {
    /// Where everything is put down; what is there of the same is gone on with.
    pub dir: PathBuf,
    /// The first seed.
    pub seed: u64,
    /// How many there are.
    pub seeds: u64,
    /// Whether it is to take minutes: fewer steps.
    pub quick: bool,
}

/// Regret after so many rounds, of sparring and of uniform play.
struct Regret {
    rounds: usize,
    sparring: Estimate,
    uniform: Estimate,
}

impl Intransitive {
    /// Runs it: `cycle.json`, `.csv`, `.svg` and `.md` of the learners, `duels.csv` and `.svg` of the duels with
    /// contexts, and in the first seed's folder, `seed-N`, two tournaments of its policies: `tournament` of those that
    /// did not play themselves, `tournament-all`. Returns the tables.
    ///
    /// # Errors
    /// The folder cannot be written, or holds what was begun with other settings; or Ctrl-C.
    pub fn run<B: Backend>(&self, b: &B) -> Result<String, Error> {
        let length =
            if self.quick { Length { steps: 60, every: 10 } } else { Length { steps: 240, every: 20 } };
        let settings = [
            ("command", json!("cycle")),
            ("device", json!(b.identity())),
            ("steps", json!(length.steps)),
            ("every", json!(length.every)),
        ];
        let settings = settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let mut study = Study::open(&self.dir, &settings)?;
        let regrets = self.duels(&mut study)?;
        let mut runs = Vec::new();
        let mut tournaments = String::new();
        for seed in self.seed..self.seed + self.seeds {
            let dir = self.dir.join(format!("seed-{seed}"));
            let played = play(b, &mut study, &dir, seed, length)?;
            if runs.is_empty() {
                for (all, folder) in [(false, "tournament"), (true, "tournament-all")] {
                    let who = if all { "All policies" } else { "Policies that did not play themselves" };
                    let tables = played.tournament(b, &dir.join(folder), seed, all)?;
                    tournaments += &format!("{who} of the first seed:\n\n{tables}\n");
                }
            }
            runs.push(played);
        }
        let courses: Vec<(String, bool, Vec<Estimate>)> = self.courses(&runs);
        let steps: Vec<u64> = (0..=length.steps).step_by(length.every as usize).collect();
        let all = json!({
            "machine": b.describe(),
            "seeds": (self.seed..self.seed + self.seeds).collect::<Vec<_>>(),
            "kinds": KINDS,
            "reward_model_accuracy": runs.iter().map(|run| run.accuracy).collect::<Vec<_>>(),
            "steps": steps,
            "exploitability": courses.iter().map(|(name, averaged, of)| json!({
                "learner": name, "averaged": averaged, "mean": of.iter().map(number).collect::<Value>(),
            })).collect::<Value>(),
            "shares": LEARNERS.iter().enumerate().map(|(i, (name, _))| json!({
                "learner": name,
                "by_seed_and_look": runs.iter().map(|run| looked(&run.courses[i])).collect::<Value>(),
            })).collect::<Value>(),
            "duels": regrets.iter().map(|r| json!({
                "rounds": r.rounds, "sparring": number(&r.sparring), "uniform": number(&r.uniform),
            })).collect::<Value>(),
            "duels_exponent": exponent(&regrets),
        });
        let text = self.text(&runs, &courses, &regrets, &tournaments)?;
        let files = [
            ("cycle.json", format!("{all:#}\n")),
            ("cycle.csv", csv(&courses, &steps)),
            ("cycle.svg", duel_plot::svg(&[chart(&courses, &steps)])?),
            ("cycle.md", text.clone()),
            ("duels.csv", duels_csv(&regrets)),
            ("duels.svg", duel_plot::svg(&[duels_chart(&regrets)])?),
        ];
        leave(&self.dir, files)?;
        Ok(text)
    }

    /// Regrets of runs that last twice as long each: EXP4.P knows how long it lasts.
    fn duels(&self, study: &mut Study) -> Result<Vec<Regret>, Error> {
        let games = Games::of(&mut Cycle { by_prompt: true }, &cases())?;
        let of = |study: &mut Study, play: Play, rounds: usize| {
            let one = |seed: u64| {
                let found = study.point(&format!("duels {play:?} {rounds} seed {seed}"), || {
                    Ok(json!(regret(&games, play, rounds, seed)))
                });
                Ok::<_, Error>(found?.as_f64().unwrap_or(f64::NAN))
            };
            let all = (self.seed..self.seed + DUELS).map(one).collect::<Result<Vec<_>, _>>()?;
            mean(&all).ok_or_else(|| Error::new("there are no seeds"))
        };
        let horizon = |power: u32| {
            let rounds = 1 << power;
            let [sparring, uniform] = [Play::Sparring, Play::Uniform].map(|play| of(study, play, rounds));
            Ok(Regret { rounds, sparring: sparring?, uniform: uniform? })
        };
        LENGTHS.map(horizon).collect()
    }

    /// Of every learner: its last policy, and of those that play themselves the mixture of all so far.
    fn courses(&self, runs: &[Played]) -> Vec<(String, bool, Vec<Estimate>)> {
        let of = |(i, (name, _)): (usize, &(&str, _))| {
            let courses: Vec<&Course> = runs.iter().map(|run| &run.courses[i]).collect();
            let one = |averaged| (name.to_string(), averaged, exploitability(&courses, averaged, self.seed));
            [one(false), one(true)]
        };
        LEARNERS.iter().enumerate().flat_map(of).collect()
    }

    fn text(
        &self,
        runs: &[Played],
        courses: &[(String, bool, Vec<Estimate>)],
        regrets: &[Regret],
        tournaments: &str,
    ) -> Result<String, Error> {
        let mut text =
            format!("| learner | exploitability, last | average | {} |\n|---|---|---|", KINDS.join(" | "));
        text += &("---|".repeat(KINDS.len()) + "\n");
        // Writing to a string cannot fail.
        let before = mean_shares(runs.iter().map(|run| run.courses[0].looks.first()));
        let exploited = courses[0].2.first().map_or(String::new(), |e| shown(e, 3));
        let _ = writeln!(text, "| the model before | {exploited} | | {} |", row(&before));
        for (i, pair) in courses.chunks(2).enumerate() {
            let last =
                |of: &(String, bool, Vec<Estimate>)| of.2.last().map_or(String::new(), |e| shown(e, 3));
            let means = mean_shares(runs.iter().map(|run| run.courses[i].looks.last()));
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} |",
                pair[0].0,
                last(&pair[0]),
                last(&pair[1]),
                row(&means)
            );
        }
        let _ =
            writeln!(text, "| the von Neumann winner | 0 | | {} |", row(&winner(&cycle::wins())?.mixture));
        let accuracy: Vec<String> = runs.iter().map(|run| format!("{:.1} %", 100.0 * run.accuracy)).collect();
        let _ = writeln!(
            text,
            "\nExploitability is what the best kind has, in 2 P - 1; in brackets intervals of 95 % over prompts. Seeds: {}.\n\
             The reward model is right on {} of held-out pairs.\n\n{tournaments}",
            (self.seed..self.seed + self.seeds).map(|seed| seed.to_string()).collect::<Vec<_>>().join(", "),
            accuracy.join(", ")
        );
        text += "| rounds T | regret, sparring | over sqrt T | regret, uniform play | over sqrt T |\n|---|---|---|---|---|\n";
        for r in regrets {
            let [own, other] = [&r.sparring, &r.uniform].map(|e| e.value / (r.rounds as f64).sqrt());
            let (sparring, uniform) = (shown(&r.sparring, 0), shown(&r.uniform, 0));
            let _ = writeln!(text, "| {} | {sparring} | {own:.1} | {uniform} | {other:.1} |", r.rounds);
        }
        let _ = writeln!(
            text,
            "\nDuels in three contexts, {DUELS} seeds: over the longer half sparring's regret grows with the rounds to the \
             power of {:.2}.",
            exponent(regrets)
        );
        Ok(text)
    }
}

/// The shares of the kinds in a look at each run, in the mean over the runs.
fn mean_shares<'a>(looks: impl Iterator<Item = Option<&'a Vec<[u32; KINDS.len()]>>>) -> Vec<f64> {
    let all: Vec<Vec<f64>> = looks.flatten().map(|look| shares(look, |_| 1)).collect();
    (0..KINDS.len()).map(|kind| all.iter().map(|s| s[kind]).sum::<f64>() / all.len() as f64).collect()
}

fn row(shares: &[f64]) -> String {
    shares.iter().map(|share| format!("{share:.3}")).collect::<Vec<_>>().join(" | ")
}

fn looked(course: &Course) -> Value {
    course.looks.iter().map(|look| json!(shares(look, |_| 1))).collect()
}

/// The slope of the logarithm of sparring's regret over that of the rounds, over the longer half.
fn exponent(regrets: &[Regret]) -> f64 {
    let half = &regrets[regrets.len() / 2..];
    let point = |r: &Regret| ((r.rounds as f64).ln(), r.sparring.value.max(f64::MIN_POSITIVE).ln());
    slope(&half.iter().map(point).collect::<Vec<_>>()).map_or(f64::NAN, |slope| slope.value)
}

fn csv(courses: &[(String, bool, Vec<Estimate>)], steps: &[u64]) -> String {
    let mut text = String::from("learner,policy,step,exploitability,low,high\n");
    for (name, averaged, of) in courses {
        let policy = if *averaged { "average" } else { "last" };
        for (step, e) in steps.iter().zip(of) {
            let _ = writeln!(text, "{},{policy},{step},{}", quoted(name), cells(e));
        }
    }
    text
}

fn duels_csv(regrets: &[Regret]) -> String {
    let mut text = String::from("rounds,sparring,low,high,uniform,low,high\n");
    for r in regrets {
        let _ = writeln!(text, "{},{},{}", r.rounds, cells(&r.sparring), cells(&r.uniform));
    }
    text
}

fn point(x: f64, e: &Estimate) -> Point {
    Point { x, y: e.value, x_interval: None, y_interval: e.interval }
}

fn chart(courses: &[(String, bool, Vec<Estimate>)], steps: &[u64]) -> Chart {
    let series = |(name, averaged, of): &(String, bool, Vec<Estimate>)| Series {
        label: format!("{name}{}", if *averaged { ", average" } else { "" }),
        style: if *averaged { Style::Dashed } else { Style::LinePoints },
        points: steps.iter().zip(of).map(|(step, e)| point(*step as f64, e)).collect(),
    };
    Chart {
        title: "What the best kind of review has of each policy".into(),
        x: Axis { label: "steps".into(), ..Axis::default() },
        y: Axis { label: "exploitability, 2 P - 1".into(), ..Axis::default() },
        // Who learns from a reward model does not claim to play an average.
        series: courses
            .iter()
            .enumerate()
            .filter(|(i, _)| *i != 1)
            .map(|(_, course)| series(course))
            .collect(),
    }
}

fn duels_chart(regrets: &[Regret]) -> Chart {
    let series = |label: &str, style, of: &dyn Fn(&Regret) -> Estimate| Series {
        label: label.into(),
        style,
        points: regrets.iter().map(|r| point(r.rounds as f64, &of(r))).collect(),
    };
    let rate = |r: &Regret| {
        let last = &regrets[regrets.len() - 1];
        let value = last.sparring.value * (r.rounds as f64 / last.rounds as f64).sqrt();
        Estimate { value, interval: None }
    };
    Chart {
        title: "Regret of duels with contexts".into(),
        x: Axis { label: "rounds T".into(), log: true, range: None },
        y: Axis { label: "regret, 2 P - 1 summed".into(), log: true, range: None },
        series: vec![
            series("sparring EXP4.P", Style::LinePoints, &|r| r.sparring),
            series("uniform play", Style::LinePoints, &|r| r.uniform),
            series("in proportion to sqrt T", Style::Dashed, &rate),
        ],
    }
}
