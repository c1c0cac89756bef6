//! Lengths of many texts, in tokens.

use std::collections::BTreeMap;

/// How many texts there are of every length; memory for each length that there is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lengths {
    count: u64,
    sum: u64,
    of: BTreeMap<usize, u64>,
}

impl Lengths {
    /// Counts a text of so many tokens.
    pub fn add(&mut self, tokens: usize) {
        self.count += 1;
        self.sum += tokens as u64;
        *self.of.entry(tokens).or_default() += 1;
    }

    /// How many texts.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their mean; `None` of none.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum as f64 / self.count as f64)
    }

    /// The smallest length that at least so large a share of the texts does not exceed (the nearest rank); `None` of no
    /// text.
    pub fn percentile(&self, share: f64) -> Option<usize> {
        let rank = (share * self.count as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        self.of.iter().find_map(|(tokens, count)| {
            seen += count;
            (seen >= rank).then_some(*tokens)
        })
    }

    /// How many have more tokens than this.
    pub fn above(&self, tokens: usize) -> u64 {
        self.of.range(tokens + 1..).map(|(_, count)| count).sum()
    }

    /// How many there are in bins of lengths that double, each with the most tokens in it: from that of the shortest
    /// text to that of the longest.
    pub fn bins(&self) -> Vec<(usize, u64)> {
        let mut bins: Vec<(usize, u64)> = Vec::new();
        for (tokens, count) in &self.of {
            while bins.last().is_none_or(|(most, _)| tokens > most) {
                let next = bins.last().map_or(tokens.next_power_of_two(), |(most, _)| 2 * most.max(&1));
                bins.push((next, 0));
            }
            if let Some((_, bin)) = bins.last_mut() {
                *bin += count;
            }
        }
        bins
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let mut lengths = Lengths::default();
        [15, 20, 35, 40, 50].into_iter().for_each(|n| lengths.add(n));
        // The example of the nearest-rank method: 5 %, 30 %, 40 %, 50 %, 100 % are 15, 20, 20, 35, 50.
        let of = [0.05, 0.3, 0.4, 0.5, 1.0].map(|share| lengths.percentile(share));
        assert_eq!(of, [Some(15), Some(20), Some(20), Some(35), Some(50)]);
        assert_eq!((lengths.mean(), lengths.above(35), lengths.above(0)), (Some(32.0), 2, 5));
        assert_eq!(lengths.bins(), [(16, 1), (32, 1), (64, 3)]);
        let none = Lengths::default();
        assert_eq!((none.mean(), none.percentile(0.5), none.bins()), (None, None, vec![]));
    }

    #[test]
    fn bins_have_no_gaps() {
        let mut lengths = Lengths::default();
        [0, 1, 9].into_iter().for_each(|n| lengths.add(n));
        assert_eq!(lengths.bins(), [(1, 2), (2, 0), (4, 0), (8, 0), (16, 1)]);
    }
}
