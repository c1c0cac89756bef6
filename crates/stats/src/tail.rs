//! The tail of the chi-square distribution.

/// How often a chi-square number of `degrees` degrees of freedom is larger than `x`: `Q(degrees/2, x/2)`, by the
/// recurrence `Q(a + 1, x) = Q(a, x) + x^a exp(-x) / Gamma(a + 1)` (Abramowitz and Stegun, 26.4.8), from
/// `Q(1, x) = exp(-x)` or `Q(1/2, x) = erfc(sqrt x)`.
///
/// # Panics
/// Without a degree of freedom.
pub fn chi_square_tail(x: f64, degrees: usize) -> f64 {
    assert!(degrees > 0, "a chi-square number has a degree of freedom");
    let x = x.max(0.0) / 2.0;
    // The term of a is x^a exp(-x) / Gamma(a + 1), and Gamma(3/2) is sqrt(pi)/2.
    let (mut a, mut tail, mut term) = match degrees.is_multiple_of(2) {
        true => (1.0, (-x).exp(), x * (-x).exp()),
        false => (0.5, erfc(x.sqrt()), 2.0 * (x / std::f64::consts::PI).sqrt() * (-x).exp()),
    };
    while 2.0 * a < degrees as f64 {
        tail += term;
        a += 1.0;
        term *= x / a;
    }
    tail.min(1.0)
}

/// The complementary error function of `z >= 0`: `1 - 2/sqrt(pi) sum (-1)^k z^(2k+1) / (k! (2k+1))` where that has few
/// terms, rearranged to positive ones, else its continued fraction (Abramowitz and Stegun, 7.1.6 and 7.1.14).
fn erfc(z: f64) -> f64 {
    let square = z * z;
    let bell = (-square).exp() / std::f64::consts::PI.sqrt();
    if z < 2.0 {
        // erf = 2 bell sum 2^k z^(2k+1) / (2k+1)!!
        let (mut term, mut sum, mut odd) = (z, z, 1.0);
        while term > sum * f64::EPSILON {
            odd += 2.0;
            term *= 2.0 * square / odd;
            sum += term;
        }
        return 1.0 - 2.0 * bell * sum;
    }
    // bell / (z + (1/2)/(z + 1/(z + (3/2)/(z + ..)))), from so deep that it no longer matters at 2.
    let fraction = (1..=200).rev().fold(z, |below, k| z + f64::from(k) / 2.0 / below);
    bell / fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Quantiles of 95 % and 99 %, from Abramowitz and Stegun's table 26.8; of two degrees it is exp(-x/2).
    #[test]
    fn quantiles_are_those_of_the_tables() {
        let known = [
            (1, 3.84146, 0.05),
            (1, 6.63490, 0.01),
            (2, 5.99147, 0.05),
            (3, 7.81473, 0.05),
            (3, 11.3449, 0.01),
        ];
        let more = [(10, 18.3070, 0.05), (15, 24.9958, 0.05), (30, 50.8922, 0.01)];
        for (degrees, x, tail) in known.into_iter().chain(more) {
            let got = chi_square_tail(x, degrees);
            assert!((got - tail).abs() < 2e-6, "{degrees} degrees, {x}: {got}");
        }
        assert_eq!((chi_square_tail(0.0, 4), chi_square_tail(-1.0, 3)), (1.0, 1.0));
        assert!((chi_square_tail(7.0, 2) - (-3.5f64).exp()).abs() < 1e-16);
    }

    #[test]
    fn both_ways_to_the_error_function_meet() {
        let [below, above] = [2.0f64.next_down(), 2.0].map(erfc);
        assert!(
            (below - above).abs() < 1e-15 && (above - 0.004_677_734_981_047_266).abs() < 1e-15,
            "{below} {above}"
        );
    }
}
