//! What is run: each method over what decides how far it goes.

use super::labels::Labels;
use crate::recipe::recipe;
use duel_train::Error;
use duel_train::config::{IpoReduction, Maybe, Method, Options};
use std::path::Path;

/// What methods that draw are asked.
pub struct Asked<'p> {
    /// File of prompts.
    pub prompts: &'p Path,
    /// Longest sample in tokens.
    pub new_tokens: usize,
    /// Whether who draws the labels and judges samples is the truth, and no judge of the user's.
    pub truth: bool,
}

/// How much is run.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Steps of methods that learn from a file, and of those that draw.
    offline: u64,
    online: u64,
    /// Points along a run.
    points: u64,
    /// Samples of each held-out prompt at a point.
    pub each: usize,
    /// Samples of each held-out prompt that exact curves are made from.
    pub exact: usize,
    quick: bool,
}

/// Pairs in a step of a method that learns from a file.
const BATCH: usize = 32;

impl Size {
    /// Pairs that a method learns from in its steps.
    pub fn pairs(&self) -> usize {
        self.offline as usize * BATCH
    }

    /// About 6 minutes on two cores.
    pub const QUICK: Size = Size { offline: 60, online: 40, points: 2, each: 1, exact: 64, quick: true };
    /// About 20 minutes a seed.
    pub const WHOLE: Size = Size { offline: 180, online: 80, points: 4, each: 2, exact: 256, quick: false };
    /// Seconds, for a test.
    #[cfg(test)]
    pub const TINY: Size = Size { offline: 2, online: 2, points: 1, each: 1, exact: 16, quick: true };

    /// The one or the other.
    pub fn of(quick: bool) -> Self {
        if quick { Size::QUICK } else { Size::WHOLE }
    }
}

/// Who judges samples of a method that draws.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judged {
    /// Nobody: it learns from a file.
    Not,
    /// Who the labels are by.
    Teacher,
    /// A reward model that learned from the labels.
    Learned,
}

/// A run.
pub struct Run {
    /// Its method, as the picture has it.
    pub method: &'static str,
    /// What is special of it: "beta 0.1".
    pub setting: String,
    /// Its seed.
    pub seed: u64,
    /// Who judges.
    pub judged: Judged,
    /// How it is run.
    pub options: Options,
    /// Steps after which it is measured.
    pub steps: Vec<u64>,
}

impl Run {
    /// A name for its folder.
    pub fn folder(&self) -> String {
        let name = format!("{} {} seed {}", self.method, self.setting, self.seed).to_lowercase();
        let words: Vec<String> = name
            .split([' ', ','])
            .filter(|word| !word.is_empty())
            .map(|word| word.chars().filter(|c| c.is_alphanumeric() || *c == '.' || *c == '-').collect())
            .collect();
        words.join("-")
    }

    /// The key of what is measured after so many steps.
    pub fn key(&self, step: u64) -> String {
        format!("{}/{step}", self.folder())
    }
}

/// The parameter that decides how far a method goes.
#[derive(Clone, Copy)]
enum Pull {
    Beta,
    Alpha,
    Target,
    None,
}

/// A method, and what is swept of it, quickly and wholly.
struct Row {
    /// Its name where the truth judges.
    method: &'static str,
    of: Method,
    loss: Option<&'static str>,
    judged: Judged,
    sure: bool,
    pull: Pull,
    quick: &'static [f64],
    whole: &'static [f64],
}

const FILE: Row = Row {
    method: "DPO",
    of: Method::Dpo,
    loss: None,
    judged: Judged::Not,
    sure: false,
    pull: Pull::Beta,
    quick: &[0.1, 0.3, 1.0],
    whole: &[0.05, 0.1, 0.3, 1.0, 3.0],
};
const PPO: Row = Row {
    method: "PPO, the truth",
    of: Method::Ppo,
    judged: Judged::Teacher,
    pull: Pull::Target,
    quick: &[1.0, 4.0],
    whole: &[0.5, 1.0, 2.0, 4.0],
    ..FILE
};
const ROWS: [Row; 9] = [
    FILE,
    Row { method: "DPO, sure labels", sure: true, quick: &[0.1], whole: &[0.1, 0.3, 1.0], ..FILE },
    Row { method: "IPO", loss: Some("ipo"), quick: &[0.1, 0.5], whole: &[0.05, 0.1, 0.3, 1.0], ..FILE },
    Row { method: "KTO", of: Method::Kto, quick: &[0.1, 0.5], whole: &[0.05, 0.1, 0.3, 1.0], ..FILE },
    PPO,
    Row { method: "PPO, learned reward", judged: Judged::Learned, ..PPO },
    Row {
        method: "RLOO",
        of: Method::Rloo,
        judged: Judged::Teacher,
        quick: &[0.4, 1.0],
        whole: &[0.2, 0.4, 0.7, 1.0, 2.0],
        ..FILE
    },
    Row {
        method: "unlikelihood",
        loss: Some("unlikelihood"),
        pull: Pull::Alpha,
        quick: &[0.1, 0.5],
        whole: &[0.05, 0.1, 0.5, 1.0],
        ..FILE
    },
    Row { method: "Preferred-FT", of: Method::Sft, pull: Pull::None, quick: &[1.0], whole: &[1.0], ..FILE },
];

impl Row {
    /// The method's name in the picture.
    fn name(&self, truth: bool) -> &'static str {
        match (self.of, self.judged) {
            (Method::Ppo, Judged::Teacher) if !truth => "PPO, the judge",
            _ => self.method,
        }
    }
}

/// Names of the methods, in the order of the picture, where the truth judges or a judge of the user's.
pub fn methods(truth: bool) -> impl Iterator<Item = &'static str> {
    ROWS.iter().map(move |row| row.name(truth))
}

/// Every run, of every seed. Learning rates are those of the recipes, times `rate`.
///
/// # Errors
/// A loss has no name: none of those here.
pub fn runs(
    size: Size,
    labels: &Labels,
    prompts: &Asked<'_>,
    seeds: &[u64],
    rate: f64,
) -> Result<Vec<Run>, Error> {
    let mut all = Vec::new();
    for &seed in seeds {
        for row in &ROWS {
            for &value in if size.quick { row.quick } else { row.whole } {
                all.push(run(row, value, size, labels, prompts, seed, rate)?);
            }
        }
    }
    Ok(all)
}

fn run(
    row: &Row,
    value: f64,
    size: Size,
    labels: &Labels,
    prompts: &Asked<'_>,
    seed: u64,
    rate: f64,
) -> Result<Run, Error> {
    let draws = row.judged != Judged::Not;
    let files = labels.files(row.sure);
    let mut options = recipe(row.of, (!draws).then_some(&files), prompts.prompts);
    let total = if draws { size.online } else { size.offline };
    let every = total / size.points;
    options = Options {
        loss_type: row.loss.map(str::parse).transpose()?,
        learning_rate: options.learning_rate.map(|of| of * rate),
        eval_dataset: Some(Maybe(None)),
        per_device_train_batch_size: if draws { options.per_device_train_batch_size } else { Some(BATCH) },
        num_train_epochs: None,
        max_completion_length: draws.then_some(prompts.new_tokens),
        max_steps: Some(total as i64),
        save_steps: Some(every.into()),
        save_total_limit: Some(Maybe(None)),
        seed: Some(seed),
        ..options
    };
    let setting = match row.pull {
        Pull::Beta => {
            options.beta = Some(value);
            format!("beta {value}")
        }
        Pull::Alpha => {
            (options.beta, options.unlikelihood_alpha) = (None, Some(value));
            format!("alpha {value}")
        }
        Pull::Target => {
            options.target_kl = Some(Maybe(Some(value)));
            // Such that the price of a nat can change by several times in so few steps.
            options.kl_horizon = Some(600.0);
            format!("target {value}")
        }
        Pull::None => {
            (options.beta, options.dataset) = (None, Some(labels.chosen.clone()));
            String::new()
        }
    };
    if row.loss == Some("ipo") {
        // As the paper has it.
        options.ipo_reduction = Some(IpoReduction::Sum);
    }
    let steps = (1..=size.points).map(|i| i * every).collect();
    Ok(Run { method: row.name(prompts.truth), setting, seed, judged: row.judged, options, steps })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Every run is one that the trainer takes, has a folder of its own, and is measured at its end.
    #[test]
    fn every_run_is_one() {
        let labels = Labels::of(Path::new("study"));
        let asked = Asked { prompts: Path::new("prompts.jsonl"), new_tokens: 40, truth: false };
        for size in [Size::QUICK, Size::WHOLE] {
            let all = runs(size, &labels, &asked, &[1, 2], 1.0).unwrap();
            let folders: BTreeSet<String> = all.iter().map(Run::folder).collect();
            assert_eq!(folders.len(), all.len());
            assert!(all.iter().all(|run| methods(false).any(|name| name == run.method)));
            assert!(all.iter().all(|run| run.method != "PPO, the truth"), "a judge is no truth");
            for run in all {
                let judge = (run.judged != Judged::Not).then(|| Maybe(Some("truth".to_owned())));
                let options = Options { model: Some("sft".into()), judge, ..run.options.clone() };
                let config = options.resolve().unwrap_or_else(|e| panic!("{}: {e}", run.folder()));
                assert_eq!(run.steps.last().copied(), Some(config.max_steps as u64));
            }
        }
    }
}
