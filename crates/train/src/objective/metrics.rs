//! Loss and metrics of a batch, by the names that users' dashboards know.

use std::collections::BTreeMap;

/// Loss and metrics of a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    /// The batch's loss.
    pub loss: f64,
    entries: BTreeMap<&'static str, Entry>,
}

/// Intervals of certainty that are compared with how often they are right.
const BINS: usize = 10;

#[derive(Clone, Debug, PartialEq)]
enum Entry {
    /// A sum and what to divide it by.
    Mean(f64, f64),
    /// The smallest of all.
    Least(f64),
    /// The largest of all.
    Most(f64),
    /// How many judgements of such certainty there are, their summed certainty, and how many are right.
    Calibration(Box<[(f64, f64, f64); BINS]>),
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

    /// Adds a judgement that was made with a probability of `certainty`, at least one half, to a calibration error: the
    /// mean distance between how certain judgements are and how often such are right (Naeini et al., 2015).
    pub fn calibration(&mut self, name: &'static str, certainty: f64, right: bool) {
        let empty = Entry::Calibration(Box::new([(0.0, 0.0, 0.0); BINS]));
        if let Entry::Calibration(bins) = self.entries.entry(name).or_insert(empty) {
            let bin = ((certainty - 0.5) * 2.0 * BINS as f64) as usize;
            let (count, sum, hits) = &mut bins[bin.min(BINS - 1)];
            *count += 1.0;
            *sum += certainty;
            *hits += f64::from(u8::from(right));
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
            Entry::Calibration(bins) => {
                let all: f64 = bins.iter().map(|(n, ..)| n).sum();
                bins.iter().map(|(_, sum, hits)| (sum - hits).abs()).sum::<f64>() / all.max(1.0)
            }
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
