//! A number and how well it is known.

/// The normal distribution's quantile of a two-sided interval of 95 %.
pub const Z: f64 = 1.959_963_984_540_054;

/// A number and its interval of 95 %.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The number.
    pub value: f64,
    /// Its bounds; `None` where what was seen says nothing of them.
    pub interval: Option<(f64, f64)>,
}

/// The mean of independent numbers, with the normal interval of its standard error; `None` of none.
pub fn mean(values: &[f64]) -> Option<Estimate> {
    let n = values.len() as f64;
    let value = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|x| (x - value).powi(2)).sum();
    let half = Z * (squares / (n - 1.0) / n).sqrt();
    let interval = (values.len() > 1).then_some((value - half, value + half));
    (!values.is_empty()).then_some(Estimate { value, interval })
}

/// The share of `hits` in `n` independent answers of yes or no, with Wilson's interval (Wilson, 1927); `None` of no
/// answer.
pub fn wilson(hits: f64, n: f64) -> Option<Estimate> {
    if n <= 0.0 {
        return None;
    }
    let p = hits / n;
    let scale = 1.0 + Z * Z / n;
    let centre = (p + Z * Z / (2.0 * n)) / scale;
    let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt() / scale;
    // In exact arithmetic the bound is p itself where all answers are alike.
    let interval = Some(((centre - half).clamp(0.0, p), (centre + half).clamp(p, 1.0)));
    Some(Estimate { value: p, interval })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(got: Estimate, value: f64, low: f64, high: f64) {
        let (l, h) = got.interval.unwrap();
        let error = (got.value - value).abs().max((l - low).abs()).max((h - high).abs());
        assert!(error < 5e-5, "{got:?}, not {value} in {low}..{high}");
    }

    /// Newcombe (1998), table I, method 3: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    #[test]
    fn wilson_is_newcombes_table() {
        close(wilson(81.0, 263.0).unwrap(), 81.0 / 263.0, 0.2553, 0.3662);
        close(wilson(15.0, 148.0).unwrap(), 15.0 / 148.0, 0.0624, 0.1605);
        close(wilson(0.0, 20.0).unwrap(), 0.0, 0.0, 0.1611);
        close(wilson(1.0, 29.0).unwrap(), 1.0 / 29.0, 0.0061, 0.1718);
        assert_eq!(wilson(20.0, 20.0).unwrap().interval.unwrap().1, 1.0);
        assert_eq!(wilson(0.0, 0.0), None);
    }

    /// 1, 2, 4, 5: the mean is 3, the squared deviations sum to 10, so the standard error is sqrt(10 / 3 / 4).
    #[test]
    fn means_have_their_standard_error() {
        let half = Z * (10.0_f64 / 12.0).sqrt();
        close(mean(&[1.0, 2.0, 4.0, 5.0]).unwrap(), 3.0, 3.0 - half, 3.0 + half);
        assert_eq!(mean(&[7.0]), Some(Estimate { value: 7.0, interval: None }));
        assert_eq!(mean(&[]), None);
    }
}
