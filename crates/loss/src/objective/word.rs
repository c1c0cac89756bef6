//! A loss by its name, and what losses can be told.

use super::score::{Divergence, PairLoss, Score, Totals};

/// What the losses can be told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// How strongly the policy is held to the reference.
    pub beta: f64,
    /// Share of the labels that are taken to be wrong.
    pub label_smoothing: f64,
    /// IPO's log-ratios per token, as TRL takes them, rather than summed, as the DPO authors' code does.
    pub ipo_per_token: bool,
    /// DiscoPOP's temperature.
    pub discopop_tau: f64,
    /// What becomes of a log-ratio before losses on `h` compare two.
    pub divergence: Divergence,
    /// Whether a pair counts by how likely the policy itself would draw its responses (WPO: Zhou et al., 2024).
    pub use_weighting: bool,
    /// SimPO's margin, and AlphaPO's.
    pub simpo_gamma: f64,
    /// AlphaPO's exponent; 0 is SimPO.
    pub alpha: f64,
    /// How much unlikelihood pushes the rejected response down.
    pub unlikelihood_alpha: f64,
    /// How much a desirable response counts.
    pub desirable_weight: f64,
    /// How much an undesirable response counts.
    pub undesirable_weight: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            beta: 0.1,
            label_smoothing: 0.0,
            ipo_per_token: true,
            discopop_tau: 0.05,
            divergence: Divergence::ReverseKl,
            use_weighting: false,
            simpo_gamma: 0.5,
            alpha: 0.0,
            unlikelihood_alpha: 1.0,
            desirable_weight: 1.0,
            undesirable_weight: 1.0,
        }
    }
}

/// A loss by its name: all that help, checks and documentation say of it comes from here.
#[derive(Debug)]
pub struct Word {
    /// As it is written in a configuration; TRL's name where TRL has it.
    pub name: &'static str,
    /// The loss of a pair, a ranking, a response or a batch.
    pub formula: &'static str,
    /// Where it comes from.
    pub source: &'static str,
    /// Names of the settings that change it; `margin`: of what a row says.
    pub uses: &'static [&'static str],
    /// Whether it compares the policy with a reference.
    pub reference: bool,
    /// Whether a response counts by its mean per token (`ipo`: unless it is told to sum).
    pub per_token: bool,
    pub(super) kind: Kind,
}

impl Word {
    /// Whether the setting `name` changes it.
    pub fn uses(&self, name: &str) -> bool {
        match name {
            // What every loss of single pairs has, and every one that compares sums of log-probabilities.
            "use_weighting" => matches!(self.kind, Kind::Pair(_)),
            "ld_alpha" => matches!(self.kind, Kind::Pair(_) | Kind::Batch(_) | Kind::Ranking(_)),
            _ => self.uses.contains(&name),
        }
    }

    /// Whether it is a loss of single responses with a label each, rather than of responses to one prompt.
    pub fn is_unpaired(&self) -> bool {
        matches!(self.kind, Kind::Unpaired { .. })
    }

    /// Whether it is a loss of whole rankings, in which no two responses may be tied.
    pub fn ranks(&self) -> bool {
        matches!(self.kind, Kind::Ranking(_))
    }

    /// Whether it can compare rewards of any kind, as of a reward model: it takes the log-ratios of whole responses.
    pub fn compares_rewards(&self) -> bool {
        let compares = matches!(self.kind, Kind::Pair(_) | Kind::Batch(_) | Kind::Ranking(_));
        compares && self.reference && !self.per_token
    }

    /// Whether it is a loss of the log-ratios of single pairs.
    pub fn compares_pairs(&self) -> bool {
        matches!(self.kind, Kind::Pair(_)) && self.reference
    }

    /// The loss of a pair and its margin, if it is one of single pairs.
    pub(crate) fn of_pair(&self) -> Option<PairOf> {
        match self.kind {
            Kind::Pair(of) => Some(of),
            _ => None,
        }
    }

    /// The loss of one pair.
    ///
    /// # Panics
    /// When it is not a loss of single pairs.
    pub(super) fn pair(&self, settings: &Settings, chosen: Score, rejected: Score) -> PairLoss {
        match self.kind {
            Kind::Pair(of) => of(settings, chosen, rejected, 0.0),
            _ => panic!("{} is not a loss of single pairs", self.name),
        }
    }
}

/// A loss of the chosen and the rejected response, and of the margin between them.
pub(crate) type PairOf = fn(&Settings, Score, Score, f64) -> PairLoss;

/// The scores of the chosen and of the rejected response.
pub(super) type Pair = (Score, Score);

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// Of each pair alone, given by how much the chosen response is said to be better; the mean over the pairs. A
    /// ranking has a pair for every two of its responses.
    Pair(PairOf),
    /// Of all pairs together; the mean over the pairs.
    Batch(fn(&Settings, &[Pair]) -> Vec<PairLoss>),
    /// Of each ranking: the loss, and its derivative by each response; the mean over the rankings.
    Ranking(fn(&Settings, &[Score]) -> (f64, Vec<f64>)),
    /// Of each response, desirable or not: the loss of its reward `beta u` and its derivative by that; the mean over
    /// the responses. It may look at something of the whole batch.
    Unpaired { of: fn(&Settings, f64, bool, &Totals) -> (f64, f64), looks_at: Option<Baseline> },
    /// Cross entropy of the best responses, and of their prompts or not; the mean over the tokens.
    CrossEntropy { prompt: bool },
}

/// What of a whole batch, or of all before it, a reward is measured by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Baseline {
    /// [`Totals::kl`].
    Kl,
    /// [`Totals::mean_reward`].
    MeanReward,
}
