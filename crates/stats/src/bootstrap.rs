//! Intervals of means over rows that come in clusters: whole clusters are drawn again (Efron, 1979; Field and Welsh,
//! 2007).

use crate::{Estimate, wilson};
use duel_random::{SplitMix, at};

/// How often clusters are drawn again.
pub const REPLICATES: usize = 2000;

/// What a cluster (a prompt) adds to a mean: a sum of values, and their number or weight.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Share {
    /// Sum of its values.
    pub sum: f64,
    /// Their number.
    pub n: f64,
}

impl Share {
    /// Adds a value.
    pub fn add(&mut self, value: f64) {
        self.sum += value;
        self.n += 1.0;
    }

    /// Drawn so often.
    pub(crate) fn times(self, k: u32) -> Self {
        Share { sum: self.sum * f64::from(k), n: self.n * f64::from(k) }
    }
}

/// Percentile intervals, of draws that depend on the seed alone. With few clusters they are too narrow, by about
/// `sqrt(1 - 1/n)`.
#[derive(Clone, Copy, Debug)]
pub struct Bootstrap {
    seed: u64,
    replicates: usize,
}

impl Bootstrap {
    /// With [`REPLICATES`] draws.
    pub fn new(seed: u64) -> Self {
        Bootstrap { seed, replicates: REPLICATES }
    }

    /// With so many draws.
    pub fn with_replicates(self, replicates: usize) -> Self {
        Bootstrap { replicates, ..self }
    }

    /// The mean of every column: its summed values over their summed numbers, with its interval. A column is a
    /// [`Share`] a cluster; all have the same clusters, which are drawn together. `None` where nothing is counted; no
    /// interval where fewer than two clusters count anything.
    ///
    /// # Panics
    /// When columns differ in length.
    pub fn means(&self, columns: &[&[Share]]) -> Vec<Option<Estimate>> {
        let n = columns.first().map_or(0, |column| column.len());
        assert!(columns.iter().all(|column| column.len() == n), "columns of different lengths");
        let drawn = self.replicates(n, |counts| means(columns, counts));
        let of = |i: usize| drawn.iter().filter_map(|means| means[i]).collect();
        columns.iter().enumerate().map(|(i, column)| estimate(column, of(i))).collect()
    }

    /// What `of` says of every replicate, in order: it hears how often each of `n` clusters is drawn.
    pub fn replicates<T: Send>(&self, n: usize, of: impl Fn(&[u32]) -> T + Sync) -> Vec<T> {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
        self.draws(threads, n, &of)
    }

    /// Each depends on its number alone: which thread makes it does not matter.
    fn draws<T: Send>(&self, threads: usize, n: usize, of: &(impl Fn(&[u32]) -> T + Sync)) -> Vec<T> {
        let share = self.replicates.div_ceil(threads).max(1);
        let draws =
            |first: usize| (first..self.replicates.min(first + share)).map(|r| of(&self.counts(r, n)));
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.replicates)
                .step_by(share)
                .map(|first| scope.spawn(move || draws(first).collect::<Vec<_>>()))
                .collect();
            threads
                .into_iter()
                .flat_map(|thread| thread.join().expect("a statistic does not panic"))
                .collect()
        })
    }

    /// How often each of `n` clusters is drawn in a replicate, of `n` draws.
    fn counts(&self, replicate: usize, n: usize) -> Vec<u32> {
        let mut random = SplitMix::new(at(&[self.seed, replicate as u64]));
        let mut counts = vec![0u32; n];
        for _ in 0..n {
            // The high half of a product: a number below n without a division, biased by less than n / 2^64.
            counts[((u128::from(random.number()) * n as u128) >> 64) as usize] += 1;
        }
        counts
    }

    /// As [`Bootstrap::means`], of columns of yes (1) and no (0). An interval is Wilson's where no cluster has two
    /// answers, and where all answers are alike, of as many as there are clusters: drawing them again would never give
    /// another.
    ///
    /// # Panics
    /// When columns differ in length.
    pub fn shares(&self, columns: &[&[Share]]) -> Vec<Option<Estimate>> {
        let share = |(mean, column): (Option<Estimate>, &&[Share])| {
            let mean = mean?;
            let answered = column.iter().filter(|share| share.n > 0.0);
            let single = answered.clone().all(|share| share.n == 1.0);
            let alike = mean.value == 0.0 || mean.value == 1.0;
            let n = answered.count() as f64;
            if single || alike { wilson(mean.value * n, n) } else { Some(mean) }
        };
        self.means(columns).into_iter().zip(columns).map(share).collect()
    }

    /// The mean difference of two systems, `a[i] - b[i]` of cluster `i`, with its interval.
    ///
    /// # Panics
    /// When they differ in length.
    pub fn paired(&self, a: &[f64], b: &[f64]) -> Option<Estimate> {
        assert_eq!(a.len(), b.len(), "clusters of the two systems");
        let differences: Vec<Share> = a.iter().zip(b).map(|(a, b)| Share { sum: a - b, n: 1.0 }).collect();
        self.means(&[&differences])[0]
    }
}

/// The means of columns whose clusters are drawn so often.
fn means(columns: &[&[Share]], counts: &[u32]) -> Vec<Option<f64>> {
    let mean = |column: &&[Share]| ratio(column.iter().zip(counts).map(|(share, k)| share.times(*k)));
    columns.iter().map(mean).collect()
}

/// Summed values over their summed number.
pub(crate) fn ratio(shares: impl Iterator<Item = Share>) -> Option<f64> {
    let all = shares.fold(Share::default(), |all, s| Share { sum: all.sum + s.sum, n: all.n + s.n });
    (all.n > 0.0).then(|| all.sum / all.n)
}

fn estimate(column: &[Share], drawn: Vec<f64>) -> Option<Estimate> {
    let value = ratio(column.iter().copied())?;
    let known = column.iter().filter(|share| share.n > 0.0).count() > 1;
    Some(Estimate { value, interval: known.then(|| interval(drawn)).flatten() })
}

/// The percentile interval of 95 % of what replicates say; `None` of none.
pub fn interval(mut drawn: Vec<f64>) -> Option<(f64, f64)> {
    drawn.sort_unstable_by(f64::total_cmp);
    (!drawn.is_empty()).then(|| (quantile(&drawn, 0.025), quantile(&drawn, 0.975)))
}

/// Between the two numbers around the place `q (n - 1)`, from 0, of sorted ones.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let place = q * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    low + (high - low) * place.fract()
}

#[cfg(test)]
mod tests {
    use super::*;
    use duel_random::fraction;

    /// A standard normal number, nearly: twelve uniform ones, less 6.
    fn normal(random: &mut SplitMix) -> f64 {
        (0..12).map(|_| fraction(random.number())).sum::<f64>() - 6.0
    }

    /// Rows of a cluster that share an effect as large as their own noise: mean 0.
    fn cluster(random: &mut SplitMix, rows: usize) -> Vec<f64> {
        let effect = normal(random);
        (0..rows).map(|_| effect + normal(random)).collect()
    }

    fn share(rows: &[f64]) -> Share {
        let mut share = Share::default();
        rows.iter().for_each(|&row| share.add(row));
        share
    }

    /// 40 clusters of 6 rows, 600 times. The interval is that of a normal one narrowed by sqrt(39/40): Student's t of
    /// 39 degrees within 1.935 has a probability of 0.940, and 600 trials deviate by 0.0097; four of them are allowed,
    /// and the percentiles of 400 draws may move the bounds by as much as one more. Rows drawn one by one would be said
    /// to have a mean of variance 2/240, and it is 7/240: a normal number within 1.96 sqrt(2/7) has a probability of
    /// 0.70.
    #[test]
    fn clustered_intervals_cover() {
        const TRIALS: u64 = 600;
        let mut random = SplitMix::new(1);
        let [mut clustered, mut loose] = [0.0; 2];
        for trial in 0..TRIALS {
            let clusters: Vec<Vec<f64>> = (0..40).map(|_| cluster(&mut random, 6)).collect();
            let covers = |shares: &[Share]| {
                let bootstrap = Bootstrap::new(trial).with_replicates(400);
                let (low, high) = bootstrap.means(&[shares])[0].unwrap().interval.unwrap();
                f64::from(u8::from(low <= 0.0 && 0.0 <= high)) / TRIALS as f64
            };
            clustered += covers(&clusters.iter().map(|rows| share(rows)).collect::<Vec<_>>());
            loose += covers(&clusters.iter().flatten().map(|row| share(&[*row])).collect::<Vec<_>>());
        }
        assert!((clustered - 0.94).abs() < 0.05, "{clustered}");
        assert!(loose < 0.8, "rows as if they were independent cover {loose}");
    }

    #[test]
    fn draws_depend_on_the_seed_alone() {
        let mut random = SplitMix::new(3);
        let a: Vec<Share> = (0..50).map(|i| share(&cluster(&mut random, 1 + i % 4))).collect();
        let b: Vec<Share> = (0..50).map(|_| share(&cluster(&mut random, 2))).collect();
        let (alone, other) = (Bootstrap::new(7).means(&[&a]), Bootstrap::new(8).means(&[&a]));
        assert_eq!(alone[0], Bootstrap::new(7).means(&[&b, &a])[1], "columns beside it change nothing");
        assert_ne!(alone, other);
        let bootstrap = Bootstrap::new(7).with_replicates(101);
        let of = |threads| bootstrap.draws(threads, 50, &|counts: &[u32]| means(&[&a, &b], counts));
        assert_eq!(of(1).len(), 101);
        assert!([2, 3, 50, 200].into_iter().all(|threads| of(threads) == of(1)));
    }

    #[test]
    fn shares_are_wilsons_where_drawing_says_nothing() {
        let of = |list: &[(f64, f64)]| list.iter().map(|&(sum, n)| Share { sum, n }).collect::<Vec<_>>();
        let single = of(&[(1.0, 1.0), (0.0, 1.0), (1.0, 1.0), (0.0, 0.0)]);
        let alike = of(&[(2.0, 2.0), (1.0, 1.0), (3.0, 3.0), (0.0, 0.0)]);
        let mixed = of(&[(2.0, 2.0), (0.0, 1.0), (1.0, 3.0), (1.0, 1.0)]);
        let bootstrap = Bootstrap::new(1);
        let got = bootstrap.shares(&[&single, &alike, &mixed]);
        assert_eq!(got[..2], [wilson(2.0, 3.0), wilson(3.0, 3.0)]);
        assert_eq!(got[2], bootstrap.means(&[&mixed])[0]);
        assert_eq!(got[2].unwrap().value, 4.0 / 7.0);
    }

    /// Two systems that differ by 1 on every prompt, however much prompts differ.
    #[test]
    fn pairs_cancel_what_prompts_share() {
        let a: Vec<f64> = (0..20).map(|i| f64::from(i * i)).collect();
        let b: Vec<f64> = a.iter().map(|x| x - 1.0).collect();
        let want = Estimate { value: 1.0, interval: Some((1.0, 1.0)) };
        assert_eq!(Bootstrap::new(1).paired(&a, &b), Some(want));
    }

    #[test]
    fn what_is_not_known_is_none() {
        let one = [Share { sum: 3.0, n: 2.0 }, Share::default()];
        let nothing = [Share::default(); 2];
        let got = Bootstrap::new(1).means(&[&one, &nothing]);
        assert_eq!(got, [Some(Estimate { value: 1.5, interval: None }), None]);
        assert_eq!(Bootstrap::new(1).means(&[&[]]), [None]);
    }

    #[test]
    fn quantiles_lie_between_neighbours() {
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.5), 2.0);
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.75), 3.0);
        assert_eq!(quantile(&[5.0], 0.975), 5.0);
    }
}
