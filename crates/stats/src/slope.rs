//! A line through points.

/// The slope of a line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slope {
    /// How much `y` grows with `x`.
    pub value: f64,
    /// What a deviation of 1 of every `y` makes of it.
    pub deviation: f64,
}

/// The line with the least squares of what the points `(x, y)` are off it. `None` where they have no two `x`.
pub fn slope(points: &[(f64, f64)]) -> Option<Slope> {
    let middle = points.iter().map(|p| p.0).sum::<f64>() / points.len() as f64;
    let spread: f64 = points.iter().map(|p| (p.0 - middle).powi(2)).sum();
    let several = points.iter().any(|p| p.0 != points[0].0);
    several.then(|| Slope {
        value: points.iter().map(|p| (p.0 - middle) * p.1).sum::<f64>() / spread,
        deviation: 1.0 / spread.sqrt(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_by_hand() {
        // Residuals of 2 + 3 x that are orthogonal to 1 and to x.
        let points = [(0.0, 2.1), (1.0, 4.8), (2.0, 8.1)];
        let slope_of = slope(&points).unwrap();
        assert!((slope_of.value - 3.0).abs() < 1e-14, "{slope_of:?}");
        assert!((slope_of.deviation - 0.5_f64.sqrt()).abs() < 1e-14, "{slope_of:?}");
        assert_eq!(slope(&[(1.0, 2.0), (1.0, 3.0)]), None);
        assert_eq!(slope(&[]), None);
    }
}
