//! What a run of the fuzzer found.

use crate::Kind;
use std::fmt;
use std::time::Duration;

/// What became of the inputs of one kind.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    refused: u64,
    accepted: u64,
    panicked: u64,
    hung: u64,
    died: u64,
}

impl Tally {
    fn tried(&self) -> u64 {
        self.refused + self.accepted + self.failed()
    }

    fn failed(&self) -> u64 {
        self.panicked + self.hung + self.died
    }
}

/// How an input failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A panic reached the fuzzer: the place, and what it said.
    Panicked(String, String),
    /// No answer in time.
    Hung,
    /// The process ended: how, and its last words.
    Died(String, String),
}

impl Failure {
    /// Whether both are most likely one mistake.
    fn is_like(&self, other: &Failure) -> bool {
        match (self, other) {
            (Failure::Panicked(a, _), Failure::Panicked(b, _))
            | (Failure::Died(a, _), Failure::Died(b, _)) => a == b,
            (a, b) => a == b,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Panicked(place, message) => write!(f, "panic at {place}: {message:.200}"),
            Failure::Hung => f.write_str("no answer in time"),
            Failure::Died(how, words) => write!(f, "{how}: {words:.200}"),
        }
    }
}

/// The first of the failures of a kind that are alike.
#[derive(Debug)]
struct Found {
    kind: &'static str,
    number: u64,
    failure: Failure,
    times: u64,
}

/// All that was found so far.
pub struct Report {
    kinds: Vec<&'static Kind>,
    tallies: Vec<Tally>,
    found: Vec<Found>,
}

impl Report {
    /// Nothing yet.
    pub fn new(kinds: &[&'static Kind]) -> Self {
        Report { kinds: kinds.to_vec(), tallies: vec![Tally::default(); kinds.len()], found: Vec::new() }
    }

    /// The kind of an input.
    pub fn kind(&self, number: u64) -> &'static Kind {
        self.kinds[self.place(number)]
    }

    fn place(&self, number: u64) -> usize {
        (number % self.kinds.len() as u64) as usize
    }

    /// Notes that an input was accepted or refused.
    pub fn answered(&mut self, number: u64, accepted: bool) {
        let place = self.place(number);
        let tally = &mut self.tallies[place];
        *if accepted { &mut tally.accepted } else { &mut tally.refused } += 1;
    }

    /// Notes a failure; whether there was none like it.
    pub fn failed(&mut self, number: u64, failure: Failure) -> bool {
        let (place, kind) = (self.place(number), self.kind(number).name);
        let tally = &mut self.tallies[place];
        *match failure {
            Failure::Panicked(..) => &mut tally.panicked,
            Failure::Hung => &mut tally.hung,
            Failure::Died(..) => &mut tally.died,
        } += 1;
        if let Some(known) = self.found.iter_mut().find(|f| f.kind == kind && f.failure.is_like(&failure)) {
            known.times += 1;
            return false;
        }
        self.found.push(Found { kind, number, failure, times: 1 });
        true
    }

    /// Inputs tried.
    pub fn tried(&self) -> u64 {
        self.tallies.iter().map(Tally::tried).sum()
    }

    /// Whether nothing failed.
    pub fn is_clean(&self) -> bool {
        self.found.is_empty()
    }

    /// One line on how it stands.
    pub fn line(&self) -> String {
        format!("{} inputs, {} different failures", self.tried(), self.found.len())
    }

    /// The table, the failures, and how to see each again.
    pub fn text(&self, seed: u64, took: Duration) -> String {
        let mut text = format!(
            "{:<18}{:>9}{:>9}{:>10}{:>10}{:>11}{:>6}\n",
            "kind", "tried", "refused", "accepted", "panicked", "timed out", "died"
        );
        for (kind, t) in self.kinds.iter().zip(&self.tallies) {
            let row = [t.tried(), t.refused, t.accepted, t.panicked, t.hung, t.died].map(|n| n.to_string());
            let [tried, refused, accepted, panicked, hung, died] = row;
            text += &format!(
                "{:<18}{tried:>9}{refused:>9}{accepted:>10}{panicked:>10}{hung:>11}{died:>6}\n",
                kind.name
            );
        }
        let rate = self.tried() as f64 / took.as_secs_f64().max(1e-3);
        text += &format!("seed {seed}, {} inputs, {rate:.0} a second\n", self.tried());
        for Found { kind, number, failure, times } in &self.found {
            text += &format!(
                "\n{kind} ({times}): {failure}\n    cargo xtask fuzz --input {kind}:{seed}:{number}\n"
            );
        }
        text
    }
}
