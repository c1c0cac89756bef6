//! Two models on the same pairs.

use crate::compare::{Comparison, Pair};
use duel_stats::{Bootstrap, Estimate, Share};
use std::collections::HashMap;

/// One model less the other, on the pairs that both were asked of.
#[derive(Clone, Debug, PartialEq)]
pub struct Versus {
    /// Pairs that both were asked of.
    pub pairs: usize,
    /// Pairs that one of them was not asked of: its limits or its tokenizer dropped them.
    pub apart: usize,
    /// Pairs by who is right: both, the first alone, the second alone, neither.
    pub right: [usize; 4],
    /// Difference of the accuracies.
    pub accuracy: Option<Estimate>,
    /// Difference of the margins, where both measure by the same.
    pub margin: Option<Estimate>,
}

impl Versus {
    /// `a` less `b`. Prompts are those of `a`.
    pub fn of(a: &Comparison, b: &Comparison, bootstrap: &Bootstrap) -> Self {
        let theirs: HashMap<_, &Pair> = b.pairs.iter().map(|pair| (pair.place, pair)).collect();
        let both: Vec<(&Pair, &Pair)> =
            a.pairs.iter().filter_map(|pair| Some((pair, *theirs.get(&pair.place)?))).collect();
        let mut right = [0; 4];
        let [mut accuracy, mut margin] = [(); 2].map(|()| vec![Share::default(); a.prompts]);
        for (x, y) in &both {
            let (of_x, of_y) = (x.difference() > 0.0, y.difference() > 0.0);
            right[2 * usize::from(!of_x) + usize::from(!of_y)] += 1;
            accuracy[x.prompt].add(f64::from(u8::from(of_x)) - f64::from(u8::from(of_y)));
            margin[x.prompt].add(x.difference() - y.difference());
        }
        let estimates = bootstrap.means(&[&accuracy, &margin]);
        Versus {
            pairs: both.len(),
            apart: a.pairs.len() + b.pairs.len() - 2 * both.len(),
            right,
            accuracy: estimates[0],
            margin: estimates[1].filter(|_| a.by.first() == b.by.first()),
        }
    }
}
