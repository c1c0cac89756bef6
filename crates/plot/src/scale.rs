//! Values to places along an axis, and the ticks of it.

use crate::Axis;

/// Ticks of an axis, about.
const TICKS: f64 = 5.0;
/// Numbers beyond this have no differences in f64.
const LARGEST: f64 = 1e300;

/// Where values lie along an axis.
#[derive(Debug, PartialEq)]
pub struct Scale {
    log: bool,
    /// All values are whole numbers, and so are ticks.
    whole: bool,
    /// The ends, of which the logarithm is taken already.
    low: f64,
    high: f64,
}

impl Scale {
    /// The axis that shows all these values with a little air, or what it is told; never an empty range.
    ///
    /// # Errors
    /// What is wrong with the range that it is told.
    pub fn of(axis: &Axis, values: impl Iterator<Item = f64> + Clone) -> Result<Self, String> {
        let Axis { label, log, range } = axis;
        let mut scale =
            Scale { log: *log, whole: values.clone().all(|v| v.fract() == 0.0), low: 0.0, high: 1.0 };
        if let Some((low, high)) = range {
            let [a, b] = [low, high].map(|end| scale.level(*end));
            let ends = a.zip(b).filter(|(a, b)| a < b);
            (scale.low, scale.high) = ends.ok_or(format!(
                "the axis `{label}` cannot go from {low} to {high}; a range goes upward, of a logarithm from above 0"
            ))?;
            return Ok(scale);
        }
        let levels = values.filter_map(|v| scale.level(v));
        let (low, high) = levels.fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)));
        if low <= high {
            // Values that differ in rounding only are one value: no tick fits between them.
            let differ = high - low > 1e-6 * low.abs().max(high.abs());
            let air = if differ { 0.05 * (high - low) } else { 0.5 * low.abs().max(1.0) };
            (scale.low, scale.high) = (low - air, high + air);
        }
        Ok(scale)
    }

    /// Where it lies between the ends, 0 to 1, or outside; `None` where it has no place.
    pub fn place(&self, value: f64) -> Option<f64> {
        Some((self.level(value)? - self.low) / (self.high - self.low))
    }

    fn level(&self, value: f64) -> Option<f64> {
        let drawable = value.abs() < LARGEST && (!self.log || value > 0.0);
        drawable.then(|| if self.log { value.log10() } else { value })
    }

    /// Places of ticks, and what stands there.
    pub fn ticks(&self) -> Vec<(f64, String)> {
        let span = self.high - self.low;
        let shown = |value: f64| if self.log { tick(value, value) } else { tick(value, span) };
        let values = if self.log { self.decades() } else { multiples(self.low, self.high, self.step()) };
        values.into_iter().filter_map(|v| Some((self.place(v)?, shown(v)))).collect()
    }

    /// From one tick to the next: 1, 2 or 5 of a power of ten.
    fn step(&self) -> f64 {
        let wanted = (self.high - self.low) / TICKS;
        let power = 10f64.powf(wanted.log10().floor());
        let nearest = [1.0, 2.0, 5.0, 10.0].into_iter().min_by(|a, b| {
            let off = |n: &f64| (n * power / wanted).ln().abs();
            off(a).total_cmp(&off(b))
        });
        let step = nearest.unwrap_or(1.0) * power;
        if self.whole { step.max(1.0) } else { step }
    }

    /// Powers of ten, with 2 and 5 of each where there are few, or with gaps where there are many.
    fn decades(&self) -> Vec<f64> {
        let span = self.high - self.low;
        let stride = (span / TICKS).floor().max(1.0);
        let between: &[f64] = if span < 2.5 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let powers = multiples(self.low.floor(), self.high, stride);
        let values = powers.into_iter().flat_map(|power| between.iter().map(move |n| n * 10f64.powf(power)));
        values.filter(|v| (self.low..=self.high).contains(&v.log10())).collect()
    }
}

/// Multiples of `step` from `low` to `high`.
fn multiples(low: f64, high: f64, step: f64) -> Vec<f64> {
    let (first, last) = ((low / step - 1e-9).ceil(), (high / step + 1e-9).floor());
    (0..=(last - first).max(-1.0) as i64).map(|i| (first + i as f64) * step).take(64).collect()
}

/// A tick's value with the digits that tell it from its neighbours on an axis of this span.
fn tick(value: f64, span: f64) -> String {
    let value = if value.abs() < 1e-9 * span { 0.0 } else { value };
    let largest = value.abs().max(span);
    if !(1e-3..1e6).contains(&largest) {
        return if value == 0.0 { "0".into() } else { format!("{value:.1e}") };
    }
    // Ticks are a tenth of the span apart or more, at multiples of 1, 2 or 5.
    let digits = (2.0 - span.log10().floor()).clamp(0.0, 8.0) as usize;
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scale(values: &[f64], log: bool, range: Option<(f64, f64)>) -> Result<Scale, String> {
        Scale::of(&Axis { label: "x".into(), log, range }, values.iter().copied())
    }

    fn ends(values: &[f64], log: bool, range: Option<(f64, f64)>) -> (f64, f64) {
        let scale = scale(values, log, range).unwrap();
        (scale.low, scale.high)
    }

    fn words(values: &[f64], log: bool) -> Vec<String> {
        scale(values, log, None).unwrap().ticks().into_iter().map(|(_, word)| word).collect()
    }

    #[test]
    fn axes_hold_the_data() {
        assert_eq!(ends(&[2.0], false, None), (1.0, 3.0));
        assert_eq!(ends(&[0.0, 10.0], false, None), (-0.5, 10.5));
        assert_eq!(ends(&[0.3, 10.0], false, Some((0.0, 1.0))), (0.0, 1.0));
        assert_eq!(ends(&[], false, None), (0.0, 1.0));
        assert_eq!(ends(&[1.0, f64::NAN, 100.0, -1.0], true, None), (-0.1, 2.1));
    }

    #[test]
    fn a_range_that_is_none_is_refused() {
        for (range, log) in [((1.0, 1.0), false), ((0.0, 1.0), true), ((f64::NAN, 1.0), false)] {
            assert!(scale(&[0.5], log, Some(range)).unwrap_err().contains("`x`"), "{range:?}");
        }
    }

    #[test]
    fn ticks_are_round_and_lie_inside() {
        assert_eq!(words(&[0.0, 1.5], false), ["0", "0.5", "1", "1.5"]);
        assert_eq!(words(&[1.0, 2.0], false), ["1", "2"], "whole numbers have no tick between them");
        assert_eq!(words(&[0.01, 30.0], true), ["0.01", "0.1", "1", "10"]);
        assert_eq!(words(&[1.0, 10.0], true), ["1", "2", "5", "10"]);
        assert!(words(&[1e-20, 1e20], true).len() < 12);
        for (place, _) in scale(&[-3.7, 81.3], false, None).unwrap().ticks() {
            assert!((0.0..=1.0).contains(&place));
        }
    }

    #[test]
    fn ticks_tell_neighbours_apart() {
        for (value, span, shown) in [
            (0.73219, 0.05, "0.7322"),
            (0.5, 1.0, "0.5"),
            (0.30000000000000004, 0.7, "0.3"),
            (1e-17, 0.7, "0"),
            (200.0, 1000.0, "200"),
            (2e-6, 1e-5, "2.0e-6"),
            (3e7, 1e8, "3.0e7"),
            (-0.25, 1.0, "-0.25"),
        ] {
            assert_eq!(tick(value, span), shown);
        }
    }
}
