//! What a judge thinks of an answer or of a pair, and how one follows from the other.

/// A score of an answer, or the probability that the first of two is better; or that the judge did not say.
#[derive(Debug, Clone, PartialEq)]
pub enum Opinion {
    /// Finite; as a preference in 0..=1, one half for a tie.
    Said(f64),
    /// The judge refused, or nothing could be read in what it said, and why. Neither 0 nor a tie: who uses opinions
    /// leaves it out and counts it.
    Unjudged(String),
}

impl Opinion {
    /// The number, where there is one.
    pub fn said(&self) -> Option<f64> {
        match self {
            Opinion::Said(number) => Some(*number),
            Opinion::Unjudged(_) => None,
        }
    }

    /// The same with another number.
    pub fn map(self, number: impl FnOnce(f64) -> f64) -> Self {
        match self {
            Opinion::Said(said) => Opinion::Said(number(said)),
            unjudged => unjudged,
        }
    }
}

/// `1 / (1 + exp(-x))`.
pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// `ln(p / (1 - p))`, the inverse of [`sigmoid`]; infinite at 0 and 1.
pub fn logit(p: f64) -> f64 {
    p.ln() - (-p).ln_1p()
}

/// The probability that the first of two answers is better, by their scores: 1, 1/2 or 0, or that of Bradley and Terry,
/// `sigmoid(first - second)`, where labels are `drawn`.
pub fn preference(first: &Opinion, second: &Opinion, drawn: bool) -> Opinion {
    match (first, second) {
        (Opinion::Said(a), Opinion::Said(b)) if drawn => Opinion::Said(sigmoid(a - b)),
        (Opinion::Said(a), Opinion::Said(b)) => Opinion::Said(match a.total_cmp(b) {
            _ if a == b => 0.5,
            std::cmp::Ordering::Greater => 1.0,
            _ => 0.0,
        }),
        (Opinion::Unjudged(why), _) | (_, Opinion::Unjudged(why)) => Opinion::Unjudged(why.clone()),
    }
}

/// Where the pair (`i`, `j`), `i < j`, stands among all pairs of `n` answers in the order of
/// [`Case::pairs`](crate::Case::pairs).
pub(crate) fn place(i: usize, j: usize, n: usize) -> usize {
    i * (2 * n - i - 1) / 2 + j - i - 1
}

/// The mean win rate of each of `n` answers over all, itself at one half: SPPO's `P_i`. `wins` are the opinions of all
/// pairs in the order of [`Case::pairs`](crate::Case::pairs); those that are unjudged are left out, and an answer
/// without any other is unjudged.
pub fn win_rates(wins: &[Opinion], n: usize) -> Vec<Opinion> {
    let rate = |i: usize| {
        let against = |j: usize| match i < j {
            true => wins[place(i, j, n)].clone(),
            false => wins[place(j, i, n)].clone().map(|p| 1.0 - p),
        };
        let others: Vec<Opinion> = (0..n).filter(|&j| j != i).map(against).collect();
        let known: Vec<f64> = others.iter().filter_map(Opinion::said).collect();
        match others.into_iter().next() {
            Some(unjudged) if known.is_empty() => unjudged,
            _ => Opinion::Said((0.5 + known.iter().sum::<f64>()) / (known.len() + 1) as f64),
        }
    };
    (0..n).map(rate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use Opinion::{Said, Unjudged};

    #[test]
    fn pairs_are_numbered_as_they_come() {
        for n in 2..7 {
            let pairs = (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j)));
            assert!(pairs.enumerate().all(|(at, (i, j))| place(i, j, n) == at), "{n}");
        }
    }

    #[test]
    fn win_rates_count_each_answer_against_itself_as_half() {
        // a beats b for sure, c at 3 : 1; of b and c nothing is known.
        let wins = [Said(1.0), Said(0.75), Unjudged("refused".into())];
        let rates = win_rates(&wins, 3);
        assert_eq!(rates, [Said(2.25 / 3.0), Said(0.5 / 2.0), Said(0.75 / 2.0)]);
        let silent = [Unjudged("a".into()), Unjudged("a".into()), Said(0.0)];
        assert_eq!(win_rates(&silent, 3), [Unjudged("a".into()), Said(0.25), Said(0.75)]);
        assert_eq!(win_rates(&[], 1), [Said(0.5)]);
    }

    #[test]
    fn scores_prefer() {
        let hard = |a, b| preference(&Said(a), &Said(b), false);
        assert_eq!([hard(2.0, 1.0), hard(1.0, 2.0), hard(0.0, -0.0)], [Said(1.0), Said(0.0), Said(0.5)]);
        assert_eq!(
            preference(&Said(3.0), &Said(3.0 - logit(0.8)), true).said().map(|p| (p * 1e9).round()),
            Some(8e8)
        );
        let unjudged = Unjudged("length".into());
        assert_eq!(preference(&Said(1.0), &unjudged, false), unjudged);
        assert_eq!(preference(&unjudged, &Said(1.0), true), unjudged);
    }
}
