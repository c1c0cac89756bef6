//! How certain judgements of two possibilities are, and how often such are right.

/// Intervals of certainty, of equal width, from one half to 1.
pub const BINS: usize = 10;

/// Judgements of about the same certainty.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bin {
    /// How many there are.
    pub count: f64,
    /// Their summed certainty.
    pub certainty: f64,
    /// How many are right.
    pub right: f64,
}

/// A reliability table: judgements by how certain they are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reliability {
    bins: [Bin; BINS],
}

impl Reliability {
    /// Adds a judgement that was made with a probability of `certainty`, at least one half.
    pub fn add(&mut self, certainty: f64, right: bool) {
        let bin = ((certainty - 0.5) * 2.0 * BINS as f64) as usize;
        let bin = &mut self.bins[bin.min(BINS - 1)];
        bin.count += 1.0;
        bin.certainty += certainty;
        bin.right += f64::from(u8::from(right));
    }

    /// The table, the least certain judgements first; each bin with its bounds.
    pub fn bins(&self) -> impl Iterator<Item = ((f64, f64), Bin)> + '_ {
        let bound = |i: usize| 0.5 + i as f64 / (2 * BINS) as f64;
        self.bins.iter().enumerate().map(move |(i, bin)| ((bound(i), bound(i + 1)), *bin))
    }

    /// The expected calibration error: the mean distance between how certain judgements are and how often such are
    /// right (Naeini et al., 2015); 0 of no judgement.
    pub fn error(&self) -> f64 {
        let all: f64 = self.bins.iter().map(|bin| bin.count).sum();
        self.bins.iter().map(|bin| (bin.certainty - bin.right).abs()).sum::<f64>() / all.max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certainty_is_compared_with_being_right() {
        let mut table = Reliability::default();
        assert_eq!(table.error(), 0.0);
        // Sure of two, right once; half sure of one, right.
        table.add(1.0, true);
        table.add(1.0, false);
        table.add(0.75, true);
        assert_eq!(table.error(), 1.25 / 3.0);
        let (bounds, last) = table.bins().last().unwrap();
        assert_eq!((bounds, last), ((0.95, 1.0), Bin { count: 2.0, certainty: 2.0, right: 1.0 }));
        let (bounds, middle) = table.bins().nth(5).unwrap();
        assert_eq!((bounds, middle.count), ((0.75, 0.8), 1.0));
    }
}
