//! What the scores of a file's responses say of its pairs.

use crate::lines::Record;
use duel_data::{Dataset, Labels};
use duel_loss::{Group, Score};
use duel_stats::{Share, kendall};
use std::collections::HashMap;

/// A measure that responses are compared by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Values of a scalar head.
    Values,
    /// `beta` times the log-ratio.
    Rewards,
    /// Summed log-probabilities.
    Logps,
    /// Mean log-probabilities a token.
    LogpsPerToken,
}

impl By {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            By::Values | By::Rewards => "rewards",
            By::Logps => "logps",
            By::LogpsPerToken => "logps_per_token",
        }
    }

    /// What a record says by it.
    fn of(self, record: &Record) -> Option<Vec<f64>> {
        let means = |logps: &Vec<f64>| {
            let mean = |(logp, tokens): (&f64, &usize)| logp / (*tokens).max(1) as f64;
            logps.iter().zip(&record.tokens).map(mean).collect()
        };
        match self {
            By::Values => record.rewards.clone().filter(|_| record.logps.is_none()),
            By::Rewards => record.rewards.clone().filter(|_| record.logps.is_some()),
            By::Logps => record.logps.clone(),
            By::LogpsPerToken => record.logps.as_ref().filter(|_| record.rewards.is_none()).map(means),
        }
    }
}

/// A chosen response beside a rejected one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    /// The source row, and the two responses' places in it.
    pub place: (usize, usize, usize),
    /// The number of the prompt.
    pub prompt: usize,
    /// Scored tokens of the chosen response less those of the rejected one.
    pub gap: i64,
    /// Scores of the two by the first measure, and by the others.
    pub scores: [Option<(f64, f64)>; 2],
}

impl Pair {
    /// The difference by the first measure.
    pub fn difference(&self) -> f64 {
        self.scores[0].map_or(0.0, |(chosen, rejected)| chosen - rejected)
    }
}

/// The pairs of a file under one model.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// How many different prompts there are.
    pub prompts: usize,
    /// The measures, the one that counts first.
    pub by: Vec<By>,
    /// Every pair of every row.
    pub pairs: Vec<Pair>,
    /// Kendall's tau-b between the scores and the ranking of a row of more than two responses, by prompt.
    pub kendall: Vec<Share>,
    /// Smallest, mean and largest score of the first measure over all responses.
    pub range: [f64; 3],
    /// What a difference of rewards is multiplied by to be the log-odds of a preference.
    pub certainty: f64,
}

/// The pairs of the groups of `ds`, of which `records` has one each. Rows are of one prompt where its tokens are the
/// same.
pub fn compare(ds: &Dataset, records: &[Record], certainty: f64) -> Comparison {
    let measured = |by: &By| records.first().is_some_and(|record| by.of(record).is_some());
    let by: Vec<By> =
        [By::Values, By::Rewards, By::Logps, By::LogpsPerToken].into_iter().filter(measured).collect();
    let mut prompts: HashMap<&[u32], usize> = HashMap::new();
    let (mut pairs, mut taus) = (Vec::new(), Vec::new());
    let (mut least, mut most, mut all) = (f64::INFINITY, f64::NEG_INFINITY, Share::default());
    for (group, record) in ds.groups().zip(records) {
        let next = prompts.len();
        let prompt = *prompts.entry(group.prompt).or_insert(next);
        let ranks: Vec<f64> = match group.labels() {
            Labels::Scored(scores) => scores.to_vec(),
            _ => (0..record.tokens.len()).map(|place| -(place as f64)).collect(),
        };
        let measures: Vec<Vec<f64>> = by.iter().filter_map(|by| by.of(record)).collect();
        if ranks.len() > 2 {
            taus.push((prompt, kendall(&ranks, record.scores())));
        }
        for &score in record.scores() {
            (least, most) = (least.min(score), most.max(score));
            all.add(score);
        }
        let scores = vec![Score::default(); ranks.len()];
        for (w, l) in (Group { scores: &ranks, ..Group::ranked(&scores) }).pairs() {
            let of = |i: usize| measures.get(i).map(|scores| (scores[w], scores[l]));
            pairs.push(Pair {
                place: (record.row, w, l),
                prompt,
                gap: record.tokens[w] as i64 - record.tokens[l] as i64,
                scores: [of(0), of(1)],
            });
        }
    }
    let mut kendall = vec![Share::default(); prompts.len()];
    // Scores that are all the same order nothing: they agree with nothing.
    taus.into_iter().for_each(|(prompt, tau)| kendall[prompt].add(tau.unwrap_or(0.0)));
    Comparison {
        prompts: prompts.len(),
        by,
        pairs,
        kendall,
        range: [least, all.sum / all.n, most],
        certainty,
    }
}
