//! Loss and metrics of a batch, by the names that users' dashboards know.

use duel_stats::Reliability;
use std::collections::BTreeMap;

/// Loss and metrics of a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    /// The batch's loss.
    pub loss: f64,
    entries: BTreeMap<&'static str, Entry>,
}

#[derive(Clone, Debug, PartialEq)]
enum Entry {
    /// A sum and what to divide it by.
    Mean(f64, f64),
    /// The smallest of all.
    Least(f64),
    /// The largest of all.
    Most(f64),
    /// Judgements by how certain they are.
    Calibration(Box<Reliability>),
}

impl Metrics {
    /// Adds `value` to a mean, with a weight of 1.
    pub fn mean(&mut self, name: &'static str, value: f64) {
        self.sum(name, value, 1.0);
    }

    /// Adds a sum over `n` things to a mean over all of them.
    pub fn sum(&mut self, name: &'static str, sum: f64, n: f64) {
        if let Entry::Mean(all, count) = self.entries.entry(name).or_insert(Entry::Mean(0.0, 0.0)) {
            *all += sum;
            *count += n;
        }
    }

    /// Adds `value` to a minimum.
    pub fn least(&mut self, name: &'static str, value: f64) {
        if let Entry::Least(least) = self.entries.entry(name).or_insert(Entry::Least(value)) {
            *least = least.min(value);
        }
    }

    /// Adds `value` to a maximum.
    pub fn most(&mut self, name: &'static str, value: f64) {
        if let Entry::Most(most) = self.entries.entry(name).or_insert(Entry::Most(value)) {
            *most = most.max(value);
        }
    }

    /// Adds a judgement that was made with a probability of `certainty`, at least one half, to a calibration error
    /// ([`Reliability::error`]).
    pub fn calibration(&mut self, name: &'static str, certainty: f64, right: bool) {
        let empty = || Entry::Calibration(Box::default());
        if let Entry::Calibration(table) = self.entries.entry(name).or_insert_with(empty) {
            table.add(certainty, right);
        }
    }

    /// The mean of this name so far.
    pub fn mean_of(&self, name: &str) -> Option<f64> {
        match self.entries.get(name) {
            Some(Entry::Mean(sum, n)) => Some(sum / n.max(1.0)),
            _ => None,
        }
    }

    /// Every metric by name, the loss first.
    pub fn values(&self) -> Vec<(String, f64)> {
        let value = |entry: &Entry| match entry {
            Entry::Mean(sum, n) => sum / n.max(1.0),
            Entry::Least(value) | Entry::Most(value) => *value,
            Entry::Calibration(table) => table.error(),
        };
        let entries = self.entries.iter().map(|(name, entry)| ((*name).to_owned(), value(entry)));
        std::iter::once(("loss".to_owned(), self.loss)).chain(entries).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_what_their_names_say() {
        let mut m = Metrics { loss: 2.0, ..Metrics::default() };
        for x in [1.0, 4.0, 1.0] {
            m.mean("mean", x);
            m.least("least", x);
            m.most("most", x);
        }
        m.sum("sum", 6.0, 4.0);
        // Sure of two, right once; half sure of one, right.
        m.calibration("calibration", 1.0, true);
        m.calibration("calibration", 1.0, false);
        m.calibration("calibration", 0.75, true);
        let want = [
            ("loss", 2.0),
            ("calibration", 1.25 / 3.0),
            ("least", 1.0),
            ("mean", 2.0),
            ("most", 4.0),
            ("sum", 1.5),
        ];
        assert_eq!(m.values(), want.map(|(name, value)| (name.to_owned(), value)));
        assert_eq!((m.mean_of("mean"), m.mean_of("none")), (Some(2.0), None));
    }
}
