//! What samples say of draws that were not made.

/// The expected best of `n` of them, without bias, from N sorted upward: `sum_i r_(i) C(i-1, n-1) / C(N, n)`, the mean
/// over all ways to take `n`. `None` where there are fewer than `n`, or `n` is 0.
///
/// # Panics
/// When they are not sorted upward.
pub fn best_of_n(sorted: &[f64], n: usize) -> Option<f64> {
    assert!(sorted.is_sorted(), "samples that are not sorted upward");
    if n == 0 || n > sorted.len() {
        return None;
    }
    // The share of the largest is n/N, and that of one below it C(i-2, n-1)/C(i-1, n-1) = (i-n)/(i-1) of that.
    let mut share = n as f64 / sorted.len() as f64;
    let mut expected = 0.0;
    for (below, reward) in sorted.iter().enumerate().rev() {
        expected += share * reward;
        if below + 1 == n {
            break;
        }
        share *= (below + 1 - n) as f64 / below as f64;
    }
    Some(expected)
}

/// The chance that the best of `n` draws is of each class of equal worth, from the chances of the classes for one draw,
/// the worst first: `F_c^n - F_(c-1)^n`, where `F_c` is the chance of a draw that is no better than `c`.
pub fn best_of_n_classes(chances: &[f64], n: f64) -> Vec<f64> {
    let mut below = 0.0;
    let class = |chance: &f64| {
        // The last class ends at 1, whatever the sum has been rounded to.
        let to = f64::min(below + chance, 1.0);
        let q = to.powf(n) - f64::powf(below, n);
        below = to;
        q
    };
    chances.iter().map(class).collect()
}

/// `KL(q || p)` of two distributions over the same things, in nats.
pub fn kl(q: &[f64], p: &[f64]) -> f64 {
    // Of a chance that is 0, q ln q is too.
    q.iter().zip(p).filter(|(q, _)| **q > 0.0).map(|(q, p)| q * (q / p).ln()).sum()
}

/// How many samples of equal weight are worth as much: `(sum w)^2 / sum w^2` (Kish, 1965); 0 of no weight.
pub fn effective_size(weights: &[f64]) -> f64 {
    // By the largest first: squares of weights that are exponentials leave the range of f64.
    let most = weights.iter().fold(0.0_f64, |most, w| most.max(w.abs()));
    if most == 0.0 {
        return 0.0;
    }
    let scaled = || weights.iter().map(|w| w / most);
    scaled().sum::<f64>().powi(2) / scaled().map(|w| w * w).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the mean of the best over every subset.
    #[test]
    fn the_best_of_n_is_the_mean_over_all_subsets() {
        let sorted = [-1.0, 0.5, 0.5, 2.0, 7.0, 11.0];
        for n in 1..=sorted.len() {
            let subsets = (0_u32..1 << sorted.len()).filter(|set| set.count_ones() as usize == n);
            let best = |set: u32| sorted[set.ilog2() as usize];
            let all: Vec<f64> = subsets.map(best).collect();
            let want = all.iter().sum::<f64>() / all.len() as f64;
            let got = best_of_n(&sorted, n).unwrap();
            assert!((got - want).abs() < 1e-12, "{n}: {got} instead of {want}");
        }
        assert_eq!((best_of_n(&sorted, 7), best_of_n(&sorted, 0)), (None, None));
    }

    #[test]
    fn equal_weights_count_in_full() {
        assert_eq!(effective_size(&[0.3; 5]), 5.0);
        assert_eq!(effective_size(&[1.0, 0.0, 0.0]), 1.0);
        assert_eq!(effective_size(&[1e300, 1e300]), 2.0);
        assert_eq!((effective_size(&[]), effective_size(&[0.0])), (0.0, 0.0));
        // (1 + 2 + 3)^2 / (1 + 4 + 9).
        assert!((effective_size(&[1.0, 2.0, 3.0]) - 36.0 / 14.0).abs() < 1e-15);
    }
}
