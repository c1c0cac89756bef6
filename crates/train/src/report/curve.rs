//! A number over the steps of a run, as one line of a terminal.

/// Values of a metric, of which a few hundred points are kept, however many there are.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// The metric.
    pub name: String,
    /// Means of so many values each.
    points: Vec<f64>,
    every: usize,
    /// The sum of the values that no point has yet, and how many there are.
    waiting: (f64, usize),
    last: f64,
}

/// Points that are kept; at twice as many each two become one.
const POINTS: usize = 256;
const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

impl Curve {
    /// One without values.
    pub fn new(name: &str) -> Self {
        Curve { name: name.into(), points: Vec::new(), every: 1, waiting: (0.0, 0), last: f64::NAN }
    }

    /// Adds the value of the next step; one that is no number is left out.
    pub fn add(&mut self, value: f64) {
        if !value.is_finite() {
            return;
        }
        self.last = value;
        self.waiting = (self.waiting.0 + value, self.waiting.1 + 1);
        if self.waiting.1 < self.every {
            return;
        }
        self.points.push(self.waiting.0 / self.waiting.1 as f64);
        self.waiting = (0.0, 0);
        if self.points.len() == 2 * POINTS {
            self.points = self.points.chunks(2).map(|two| two.iter().sum::<f64>() / 2.0).collect();
            self.every *= 2;
        }
    }

    /// The last value.
    pub fn last(&self) -> f64 {
        self.last
    }

    /// The smallest and the largest point.
    pub fn range(&self) -> Option<(f64, f64)> {
        let least = self.points.iter().copied().reduce(f64::min)?;
        Some((least, self.points.iter().copied().fold(least, f64::max)))
    }

    /// Up to `width` marks, from the smallest to the largest value; a mark stands for as many steps as fit it.
    pub fn marks(&self, width: usize) -> String {
        let Some((least, most)) = self.range().filter(|_| width > 0) else { return String::new() };
        let count = self.points.len().min(width);
        let mark = |i: usize| {
            let own = &self.points[i * self.points.len() / count..(i + 1) * self.points.len() / count];
            let mean = own.iter().sum::<f64>() / own.len() as f64;
            // Halves, whose difference is a number.
            let share =
                if most > least { (mean / 2.0 - least / 2.0) / (most / 2.0 - least / 2.0) } else { 0.5 };
            LEVELS[(share * LEVELS.len() as f64).clamp(0.0, 7.0) as usize]
        };
        (0..count).map(mark).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = f64>) -> Curve {
        let mut curve = Curve::new("loss");
        values.into_iter().for_each(|value| curve.add(value));
        curve
    }

    #[test]
    fn marks_go_from_the_smallest_to_the_largest() {
        assert_eq!(of((0..8).map(f64::from)).marks(80), "▁▂▃▄▅▆▇█");
        assert_eq!(of([3.0, 1.0, 2.0]).marks(80), "█▁▅");
        assert_eq!(of((0..16).map(f64::from)).marks(2), "▂▇", "means of halves");
        assert_eq!(
            (of([5.0, 5.0]).marks(9), of([]).marks(9), of([1.0]).marks(0)),
            ("▅▅".into(), "".into(), "".into())
        );
        let with_gaps = of([1.0, f64::NAN, 2.0, f64::INFINITY]);
        assert_eq!(
            (with_gaps.marks(9).as_str(), with_gaps.last(), with_gaps.range()),
            ("▁█", 2.0, Some((1.0, 2.0)))
        );
        assert!(of([1e-300, 2e-300, f64::MIN, f64::MAX]).marks(4).chars().count() == 4);
    }

    #[test]
    fn a_long_run_takes_no_more_memory() {
        let curve = of((0..1_000_000).map(f64::from));
        assert!((POINTS..2 * POINTS).contains(&curve.points.len()));
        assert_eq!(curve.marks(8), "▁▂▃▄▅▆▇█");
    }
}
