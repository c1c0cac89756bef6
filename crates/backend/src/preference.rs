use crate::{Acc, Index, Result, RowStats, Storage};

/// What a loss of pairs knows of one response.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Side {
    /// Sum of the policy's log-probabilities, each by the weight of its row.
    pub logp: f64,
    /// The same of the reference.
    pub reference: f64,
    /// Rows in the sums.
    pub rows: usize,
}

/// A loss of pairs that kernels know. With `h` the chosen response's `logp - reference` less the rejected one's, `m`
/// the margin of the group and `s(z) = 1 / (1 + e^-z)`:
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// `-(1 - e) ln s(beta h - m) - e ln s(m - beta h)` (DPO: Rafailov et al., 2023, equation 7; smoothed: Mitchell,
    /// 2023).
    Sigmoid {
        /// `e`, the share of labels that are taken to be wrong.
        label_smoothing: f64,
    },
    /// `(h - 1 / (2 beta))^2` (Azar et al., 2023, equation 17).
    Ipo {
        /// `h` of log-ratios per row rather than summed.
        per_token: bool,
    },
    /// `max(0, 1 - (beta h - m))` (SLiC: Zhao et al., 2023).
    Hinge,
}

/// Loss of a pair and its derivatives by the two summed log-probabilities, of the chosen and the rejected response and
/// the margin of their group.
pub type PairFunction<'a> = dyn Fn([Side; 2], f64) -> (f64, [f64; 2]) + 'a;

/// A loss of pairs, said twice: once for the host, and in a word for kernels.
pub struct PairObjective<'a> {
    /// What [`PairObjective::rule`] means.
    pub host: Box<PairFunction<'a>>,
    /// Which loss it is.
    pub rule: Rule,
    /// Its strength.
    pub beta: f64,
    /// What each pair counts: one over the pairs of the batch, for their mean.
    pub share: f64,
}

/// Sums over the rows of a response.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ResponseSums {
    /// Log-probabilities, each by the weight of its row.
    pub logp: f64,
    /// Entropies.
    pub entropy: f64,
    /// Mean logits.
    pub mean_logit: f64,
    /// Hits.
    pub hits: f64,
    /// Log-probabilities less [`RowStats::collision`].
    pub certainty: f64,
    /// Loss of the pairs in which the response is the preferred one, each by its share.
    pub loss: f64,
}

impl ResponseSums {
    /// Numbers of a response in a buffer.
    pub const COLUMNS: usize = 6;
}

impl From<[f64; ResponseSums::COLUMNS]> for ResponseSums {
    fn from([logp, entropy, mean_logit, hits, certainty, loss]: [f64; ResponseSums::COLUMNS]) -> Self {
        ResponseSums { logp, entropy, mean_logit, hits, certainty, loss }
    }
}

impl From<ResponseSums> for [f64; ResponseSums::COLUMNS] {
    fn from(s: ResponseSums) -> Self {
        [s.logp, s.entropy, s.mean_logit, s.hits, s.certainty, s.loss]
    }
}

/// What is known of whole groups of responses on the host: see [`ResponseGroups::set`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Grouped<'a> {
    /// First row of each response, and then the number of rows.
    pub first_rows: &'a [u32],
    /// First response of each group, and then the number of responses.
    pub first_responses: &'a [u32],
    /// How much each row's log-probability counts in the sum of its response.
    pub weights: &'a [f64],
    /// The reference's log-probability of each response, summed with the same weights.
    pub reference: &'a [f64],
    /// By how much the reward of each group's chosen response should be larger than that of its rejected one.
    pub margins: &'a [f64],
}

/// Whole groups of responses on the device, each group's best first. Made once and refilled; it grows to the largest.
pub struct ResponseGroups<B: Storage> {
    /// Rows of all responses together.
    pub rows: usize,
    /// Responses.
    pub responses: usize,
    /// Groups.
    pub groups: usize,
    /// As [`Grouped::first_rows`].
    pub first_rows: Index<B>,
    /// As [`Grouped::first_responses`].
    pub first_responses: Index<B>,
    /// As [`Grouped::weights`].
    pub weights: B::Buf<f64>,
    /// As [`Grouped::reference`].
    pub reference: B::Buf<f64>,
    /// As [`Grouped::margins`].
    pub margins: B::Buf<f64>,
}

/// Number of parts that `firsts` divides `0..end` into, `end` itself being its last entry.
fn parts_of(firsts: &[u32], end: usize) -> usize {
    assert!(firsts.first() == Some(&0) && firsts.is_sorted(), "parts follow each other from 0 on");
    assert_eq!(firsts[firsts.len() - 1] as usize, end, "parts cover everything");
    firsts.len() - 1
}

impl<B: Storage> ResponseGroups<B> {
    /// No groups, with room for so many rows, and as many responses and groups.
    ///
    /// # Errors
    /// The device has no room.
    pub fn new(b: &B, rows: usize) -> Result<Self> {
        Ok(ResponseGroups {
            rows: 0,
            responses: 0,
            groups: 0,
            first_rows: b.alloc(rows + 1)?,
            first_responses: b.alloc(rows + 1)?,
            weights: b.alloc(rows)?,
            reference: b.alloc(rows)?,
            margins: b.alloc(rows)?,
        })
    }

    /// Replaces the content. Responses and groups may be empty.
    ///
    /// # Errors
    /// There are more than ever before, and the device has no room for them.
    ///
    /// # Panics
    /// When the numbers of rows, responses and groups contradict each other.
    pub fn set(&mut self, b: &B, content: Grouped<'_>) -> Result<()> {
        self.rows = content.weights.len();
        self.responses = content.reference.len();
        self.groups = content.margins.len();
        assert_eq!(parts_of(content.first_rows, self.rows), self.responses, "a reference of each response");
        assert_eq!(parts_of(content.first_responses, self.responses), self.groups, "a margin of each group");
        b.replace(&mut self.first_rows, content.first_rows)?;
        b.replace(&mut self.first_responses, content.first_responses)?;
        b.replace(&mut self.weights, content.weights)?;
        b.replace(&mut self.reference, content.reference)?;
        b.replace(&mut self.margins, content.margins)
    }
}

/// Where the results of [`Preference::preference`] go.
pub struct PreferenceOut<'a, B: Storage> {
    /// `[rows]`: the derivative of the loss by each row's log-probability, as `logprob_bw` takes it.
    pub coef: &'a mut Acc<B>,
    /// `[first + responses, ResponseSums::COLUMNS]`.
    pub sums: &'a mut B::Buf<f64>,
    /// Responses that are in `sums` before those of these groups, and stay.
    pub first: usize,
}

/// Losses of pairs between the forward and the backward of a head, so that neither waits for the host.
pub trait Preference: Storage {
    /// Coefficients of the rows of whole groups, and the sums over their responses, from the statistics that `logprob`
    /// left of these rows. A group of K responses has K(K-1)/2 pairs.
    ///
    /// Sums are in double precision and in row order, as the host's are: a policy that is its reference has a log-ratio
    /// of exactly 0.
    fn preference(
        &self,
        out: PreferenceOut<'_, Self>,
        stats: &RowStats<'_, Self>,
        groups: &ResponseGroups<Self>,
        objective: &PairObjective<'_>,
    );
}
