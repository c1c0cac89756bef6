//! What is known of a group's responses.

use crate::Task;

/// What is known of a group's responses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Labels<'a> {
    /// Their order, best first.
    Ranked {
        /// By how much the first of a pair is better than the second, where its row says so; finite.
        margin: Option<f64>,
    },
    /// A score each, best first; finite.
    Scored(&'a [f64]),
    /// Whether the only one is a good example.
    Unpaired {
        /// A good example (true) or a bad one.
        desirable: bool,
    },
}

/// What a row says of its responses: [`Labels`] of its own.
#[derive(Debug, Clone, PartialEq)]
pub enum Label {
    /// Their order, best first, and by how much the first of a pair is better.
    Ranked {
        /// Of a pair, where the row says so; finite.
        margin: Option<f64>,
    },
    /// A score each, best first; finite.
    Scored(Vec<f64>),
    /// Whether the only one is a good example.
    Unpaired {
        /// A good example (true) or a bad one.
        desirable: bool,
    },
}

impl Label {
    /// It as a group has it.
    pub fn view(&self) -> Labels<'_> {
        match self {
            Label::Ranked { margin } => Labels::Ranked { margin: *margin },
            Label::Scored(scores) => Labels::Scored(scores),
            Label::Unpaired { desirable } => Labels::Unpaired { desirable: *desirable },
        }
    }
}

/// The order of the responses alone.
impl Default for Label {
    fn default() -> Self {
        Label::Ranked { margin: None }
    }
}

impl Labels<'_> {
    /// How many pairs of responses have the same score: such say nothing about which is better.
    pub fn ties(&self) -> usize {
        let Labels::Scored(scores) = self else { return 0 };
        // Best first: equal ones follow each other.
        let runs = scores.chunk_by(|a, b| a == b).map(<[f64]>::len);
        runs.map(|n| n * (n - 1) / 2).sum()
    }

    /// Whether they say what `task` needs of `count` responses, and say it right.
    pub(crate) fn fit(&self, task: Task, count: usize) -> Result<(), String> {
        match (task, *self) {
            // What it uses of them is the order.
            (Task::Sft, _) => Ok(()),
            (Task::Unpaired, Labels::Unpaired { .. }) if count == 1 => Ok(()),
            (Task::Unpaired, _) => Err(format!(
                "has {count} response(s) that no label calls good or bad; unpaired training needs one response and its \
                 label, or a pair"
            )),
            (_, Labels::Unpaired { .. }) => {
                Err("has the label of an unpaired response, and the task compares responses".to_owned())
            }
            (_, Labels::Ranked { margin: None }) => Ok(()),
            (_, Labels::Ranked { margin: Some(margin) }) => match (count, margin.is_finite()) {
                (2, true) => Ok(()),
                (2, false) => Err(format!("has a margin of {margin}, which is not finite")),
                _ => Err(format!(
                    "has a margin and {count} responses; a margin is between two, and `scores` are for more"
                )),
            },
            (_, Labels::Scored(scores)) if scores.len() != count => {
                Err(format!("has {} scores for {count} responses", scores.len()))
            }
            (_, Labels::Scored(scores)) if scores.iter().all(|s| s.is_finite()) && falls(scores) => Ok(()),
            (_, Labels::Scored(_)) => Err("has scores that are not finite and best first".to_owned()),
        }
    }
}

fn falls(scores: &[f64]) -> bool {
    scores.is_sorted_by(|a, b| a >= b)
}

/// The labels of all groups. Groups that have their order alone, as most data sets' do, take no room.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    /// Groups with a margin, in order.
    pub(crate) margins: Vec<(usize, f64)>,
    /// Groups with scores, in order, and where in `scores` theirs begin.
    pub(crate) scored: Vec<(usize, usize)>,
    pub(crate) scores: Vec<f64>,
    /// By group; empty where responses are not unpaired.
    pub(crate) desirable: Vec<bool>,
}

impl Known {
    /// Takes the labels of `group`, the next one.
    pub(crate) fn push(&mut self, group: usize, labels: Labels<'_>) {
        match labels {
            Labels::Ranked { margin } => self.margins.extend(margin.map(|margin| (group, margin))),
            Labels::Scored(scores) => {
                self.scored.push((group, self.scores.len()));
                self.scores.extend_from_slice(scores);
            }
            Labels::Unpaired { desirable } => self.desirable.push(desirable),
        }
    }

    /// The labels of `group`, which has `count` responses.
    pub(crate) fn of(&self, group: usize, count: usize) -> Labels<'_> {
        if let Some(&desirable) = self.desirable.get(group) {
            return Labels::Unpaired { desirable };
        }
        if let Ok(i) = self.scored.binary_search_by_key(&group, |(at, _)| *at) {
            return Labels::Scored(&self.scores[self.scored[i].1..][..count]);
        }
        let margin = self.margins.binary_search_by_key(&group, |(at, _)| *at).ok();
        Labels::Ranked { margin: margin.map(|i| self.margins[i].1) }
    }
}
