//! How far two rankings agree.

use std::cmp::Ordering;

/// Kendall's tau-b of two lists of numbers for the same things: concordant pairs less discordant ones, over the
/// geometric mean of the pairs that either list orders (Kendall, 1945). Without ties it is the share of pairs that
/// agree less that of those that do not. `None` where one list orders nothing.
///
/// # Panics
/// When the lists differ in length.
pub fn kendall(a: &[f64], b: &[f64]) -> Option<f64> {
    assert_eq!(a.len(), b.len(), "rankings of different lengths");
    let order = |list: &[f64], i: usize, j: usize| match list[i].total_cmp(&list[j]) {
        // 0 and -0 are the same number.
        _ if list[i] == list[j] => 0.0,
        Ordering::Less => -1.0,
        _ => 1.0,
    };
    let (mut agreed, mut of_a, mut of_b) = (0.0, 0.0_f64, 0.0_f64);
    for i in 0..a.len() {
        for j in i + 1..a.len() {
            let (x, y) = (order(a, i, j), order(b, i, j));
            agreed += x * y;
            of_a += f64::abs(x);
            of_b += f64::abs(y);
        }
    }
    (of_a > 0.0 && of_b > 0.0).then(|| agreed / (of_a * of_b).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agreement_runs_from_minus_one_to_one() {
        let up = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(kendall(&up, &up), Some(1.0));
        assert_eq!(kendall(&up, &[4.0, 3.0, 2.0, 1.0]), Some(-1.0));
        // One of six pairs is the other way round.
        assert_eq!(kendall(&up, &[1.0, 3.0, 2.0, 4.0]), Some(4.0 / 6.0));
        // a orders 5 pairs of 6, b all; 5 agree.
        let tied = kendall(&[1.0, 1.0, 2.0, 3.0], &up).unwrap();
        assert!((tied - 5.0 / 30.0_f64.sqrt()).abs() < 1e-15);
        assert_eq!(kendall(&[1.0, 1.0], &[1.0, 2.0]), None);
        assert_eq!(kendall(&[0.0, -0.0], &[1.0, 2.0]), None);
    }
}
