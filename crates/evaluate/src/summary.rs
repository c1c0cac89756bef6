//! The numbers of one model.

use crate::compare::{By, Comparison, Pair};
use duel_data::Report;
use duel_loss::logistic;
use duel_stats::{Bootstrap, Estimate, Reliability, Share};
use std::path::{Path, PathBuf};

/// Bounds of the gaps in length, in tokens, that pairs are sorted by: each bin ends before the next bound.
const GAPS: [i64; 6] = [-49, -9, 0, 1, 10, 50];

/// Figures of pairs by one measure.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    /// The measure.
    pub by: By,
    /// Share of the pairs in which the chosen response has more.
    pub accuracy: Option<Estimate>,
    /// How much more it has.
    pub margin: Option<Estimate>,
    /// What the chosen responses have.
    pub chosen: Option<Estimate>,
    /// What the rejected responses have.
    pub rejected: Option<Estimate>,
    /// Pairs whose responses have the same: they count as wrong.
    pub ties: usize,
}

/// Pairs of about the same gap in length.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gap {
    /// Tokens of the chosen response less those of the rejected one: the smallest and the largest gap; `None`: any.
    pub tokens: (Option<i64>, Option<i64>),
    /// Pairs.
    pub pairs: usize,
    /// Share of them that is right.
    pub accuracy: Option<Estimate>,
}

/// What a model says of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Its folder.
    pub model: PathBuf,
    /// What became of the rows.
    pub report: Report,
    /// Different prompts.
    pub prompts: usize,
    /// Pairs.
    pub pairs: usize,
    /// Whether no prompt has two pairs, so that intervals of accuracies are Wilson's.
    pub independent: bool,
    /// Figures by every measure; the others below are by the first.
    pub figures: Vec<Figures>,
    /// Smallest, mean and largest score.
    pub range: [f64; 3],
    /// How certain rewards are of a pair by Bradley and Terry's model, and how often that is right.
    pub reliability: Option<Reliability>,
    /// Accuracy by the gap in length.
    pub gaps: Vec<Gap>,
    /// Share of the pairs of different lengths whose longer response the model prefers.
    pub prefers_longer: Option<Estimate>,
    /// Share of them whose longer response is the chosen one.
    pub chosen_longer: Option<Estimate>,
    /// Mean of Kendall's tau-b over the rows of more than two responses, and how many there are.
    pub kendall: Option<(Estimate, usize)>,
}

impl Summary {
    /// The numbers of `c`.
    pub fn of(model: &Path, report: Report, c: Comparison, bootstrap: &Bootstrap) -> Self {
        let column = |value: &dyn Fn(&Pair) -> Option<f64>| {
            let mut column = vec![Share::default(); c.prompts];
            for pair in &c.pairs {
                value(pair).into_iter().for_each(|value| column[pair.prompt].add(value));
            }
            column
        };
        let shares = |columns: Vec<Vec<Share>>| bootstrap.shares(&views(&columns));
        let figures = c.by.iter().enumerate().map(|(measure, by)| {
            let of = |f: fn(f64, f64) -> f64| column(&|pair| pair.scores[measure].map(|(w, l)| f(w, l)));
            let columns = [of(|w, l| w - l), of(|w, _| w), of(|_, l| l)];
            let means = bootstrap.means(&views(&columns));
            Figures {
                by: *by,
                accuracy: shares(vec![of(|w, l| yes(w > l))])[0],
                margin: means[0],
                chosen: means[1],
                rejected: means[2],
                ties: c.pairs.iter().filter(|p| p.scores[measure].is_some_and(|(w, l)| w == l)).count(),
            }
        });
        let figures = figures.collect();

        let bins =
            (0..=GAPS.len()).map(|i| (i.checked_sub(1).map(|i| GAPS[i]), GAPS.get(i).map(|bound| bound - 1)));
        let of_bin = |(low, high): (Option<i64>, Option<i64>)| {
            let within = |gap| low.is_none_or(|low| low <= gap) && high.is_none_or(|high| gap <= high);
            column(&|pair| within(pair.gap).then(|| yes(pair.difference() > 0.0)))
        };
        let by_length: Vec<Vec<Share>> = bins.clone().map(of_bin).collect();
        let counts: Vec<usize> =
            by_length.iter().map(|column| column.iter().map(|share| share.n as usize).sum()).collect();
        let gap = |((tokens, pairs), accuracy)| Gap { tokens, pairs, accuracy };
        let gaps = bins.zip(counts).zip(shares(by_length)).map(gap).collect();
        let unlike = |value: fn(&Pair) -> bool| column(&|pair| (pair.gap != 0).then(|| yes(value(pair))));
        let longer = shares(vec![
            unlike(|pair| pair.difference() != 0.0 && (pair.difference() > 0.0) == (pair.gap > 0)),
            unlike(|pair| pair.gap > 0),
        ]);
        let rankings = c.kendall.iter().map(|share| share.n as usize).sum();
        Summary {
            model: model.to_path_buf(),
            report,
            prompts: c.prompts,
            pairs: c.pairs.len(),
            independent: column(&|_| Some(1.0)).iter().all(|share| share.n <= 1.0),
            figures,
            range: c.range,
            reliability: reliability(&c),
            gaps,
            prefers_longer: longer[0],
            chosen_longer: longer[1],
            kendall: bootstrap.means(&[&c.kendall])[0].map(|tau| (tau, rankings)),
        }
    }
}

fn yes(holds: bool) -> f64 {
    f64::from(u8::from(holds))
}

fn views(columns: &[Vec<Share>]) -> Vec<&[Share]> {
    columns.iter().map(Vec::as_slice).collect()
}

/// The table of rewards; log-probabilities alone are no odds of a preference.
fn reliability(c: &Comparison) -> Option<Reliability> {
    let rewards = matches!(c.by.first(), Some(By::Values | By::Rewards));
    rewards.then(|| {
        let mut table = Reliability::default();
        for pair in &c.pairs {
            table.add(logistic((c.certainty * pair.difference()).abs()), pair.difference() > 0.0);
        }
        table
    })
}
