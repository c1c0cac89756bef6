//! What is learned: pure functions from the scores of responses to a loss and its derivatives, and the one table of their
//! names.
//!
//! `u` of a response is the policy's log-probability less the reference's, `h` of a pair the chosen response's `u` less
//! the rejected one's, `ls(z) = ln sigmoid(z)`. Nothing here knows a device.

mod batch;
mod free;
mod margin;
mod ranking;
mod score;
mod sided;

pub use margin::{hinge, ipo, sigmoid};
pub use score::{Divergence, PairLoss, Score};

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
    /// SimPO's margin, and AlphaPO's.
    pub simpo_gamma: f64,
    /// AlphaPO's exponent; 0 is SimPO.
    pub alpha: f64,
    /// How much unlikelihood pushes the rejected response down.
    pub unlikelihood_alpha: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            beta: 0.1,
            label_smoothing: 0.0,
            ipo_per_token: true,
            discopop_tau: 0.05,
            divergence: Divergence::ReverseKl,
            simpo_gamma: 0.5,
            alpha: 0.0,
            unlikelihood_alpha: 1.0,
        }
    }
}

/// A loss by its name: all that help, checks and documentation say of it comes from here.
#[derive(Debug)]
pub struct Word {
    /// As it is written in a configuration; TRL's name where TRL has it.
    pub name: &'static str,
    /// The loss of a pair, a ranking or a batch.
    pub formula: &'static str,
    /// Where it comes from.
    pub source: &'static str,
    /// Names of the settings that change it.
    pub uses: &'static [&'static str],
    /// Whether it compares the policy with a reference.
    pub reference: bool,
    /// Whether a response counts by its mean per token (`ipo`: unless it is told to sum).
    pub per_token: bool,
    kind: Kind,
}

impl Word {
    /// The loss of one pair.
    ///
    /// # Panics
    /// When it is not a loss of single pairs.
    fn pair(&self, settings: &Settings, chosen: Score, rejected: Score) -> PairLoss {
        match self.kind {
            Kind::Pair(of) => of(settings, chosen, rejected),
            _ => panic!("{} is not a loss of single pairs", self.name),
        }
    }
}

/// The scores of the chosen and of the rejected response.
type Pair = (Score, Score);

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Of each pair alone; the mean over the pairs. A ranking has a pair for every two of its responses.
    Pair(fn(&Settings, Score, Score) -> PairLoss),
    /// Of all pairs together; the mean over the pairs.
    Batch(fn(&Settings, &[Pair]) -> Vec<PairLoss>),
    /// Of each ranking: the loss, and its derivative by each response; the mean over the rankings.
    Ranking(fn(&Settings, &[Score]) -> (f64, Vec<f64>)),
    /// Cross entropy of the best responses; the mean over their tokens.
    CrossEntropy,
}

const SFT: Word = Word {
    name: "sft",
    formula: "-logp of the chosen response, the mean over tokens",
    source: "cross entropy",
    uses: &[],
    reference: false,
    per_token: true,
    kind: Kind::CrossEntropy,
};

/// Every loss.
pub const WORDS: &[&Word] = &[
    &margin::SIGMOID,
    &margin::HINGE,
    &margin::IPO,
    &margin::EXO_PAIR,
    &sided::NCA_PAIR,
    &margin::ROBUST,
    &sided::BCO_PAIR,
    &sided::SPPO_HARD,
    &batch::AOT,
    &batch::AOT_UNPAIRED,
    &sided::APO_ZERO,
    &sided::APO_DOWN,
    &margin::DISCOPOP,
    &SFT,
    &margin::SIGMOID_NORM,
    &ranking::PLACKETT_LUCE,
    &free::SIMPO,
    &free::ALPHAPO,
    &free::UNLIKELIHOOD,
];

/// What an objective has to be given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The reference's log-probabilities.
    pub reference: bool,
    /// The scores of a whole batch before any derivative: it compares responses of different prompts.
    pub batch: bool,
}

/// What a batch's means are over. Counts of the whole batch, however it is cut into micro-batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Groups.
    pub groups: usize,
    /// Pairs of responses to one prompt.
    pub pairs: usize,
    /// Scored tokens of the best responses.
    pub tokens: usize,
}

impl Totals {
    /// Adds a group of so many responses, the best of which has so many scored tokens.
    pub fn add(&mut self, responses: usize, tokens: usize) {
        self.groups += 1;
        self.pairs += responses * responses.saturating_sub(1) / 2;
        self.tokens += tokens;
    }
}

/// A weighted sum of losses.
#[derive(Clone, Debug)]
pub struct Objective {
    terms: Vec<(f64, &'static Word)>,
    settings: Settings,
    compares: bool,
}

impl Objective {
    /// The sum of `terms`: weights and losses.
    pub fn new(terms: Vec<(f64, &'static Word)>, settings: Settings) -> Self {
        Objective { terms, settings, compares: true }
    }

    /// The same with a reference that finds everything equally likely: CPO's use of DPO's losses.
    pub fn without_reference(self) -> Self {
        Objective { compares: false, ..self }
    }

    /// Cross entropy alone.
    pub fn cross_entropy() -> Self {
        Objective::new(vec![(1.0, &SFT)], Settings::default())
    }

    /// What it has to be given.
    pub fn needs(&self) -> Needs {
        Needs {
            reference: self.compares && self.terms.iter().any(|(_, word)| word.reference),
            batch: self.terms.iter().any(|(_, word)| matches!(word.kind, Kind::Batch(_))),
        }
    }

    /// The log-probability by which a response is compared, and its reward, which is `beta` times that less the
    /// reference's: of sums; without a reference per token where the first loss compares so, as TRL has it.
    pub fn worth(&self, score: Score) -> (f64, f64) {
        let means = !self.compares && self.terms.first().is_some_and(|(_, word)| word.per_token);
        let share = if means { score.per_token() } else { 1.0 };
        (share * score.logp, self.settings.beta * share * score.log_ratio())
    }

    /// The share of `groups` in the loss of a batch of `totals`, and its derivative by the summed log-probability of
    /// each response, in `slopes` (as long as the groups' responses together, overwritten). All of the batch's groups at
    /// once where [`Needs::batch`] asks for that, else in any portions.
    pub fn slopes(&self, groups: &[&[Score]], totals: Totals, slopes: &mut [f64]) -> f64 {
        slopes.fill(0.0);
        self.terms.iter().map(|(weight, word)| self.term(*weight, word, groups, totals, slopes)).sum()
    }

    fn term(&self, weight: f64, word: &Word, groups: &[&[Score]], totals: Totals, slopes: &mut [f64]) -> f64 {
        let share = |n: usize| weight / n.max(1) as f64;
        let mut first = 0;
        let starts: Vec<usize> = groups
            .iter()
            .map(|group| {
                first += group.len();
                first - group.len()
            })
            .collect();
        // Every pair, as the places of its two responses.
        let pairs = || {
            starts.iter().zip(groups).flat_map(|(&start, group)| {
                let places = (0..group.len()).flat_map(move |w| (w + 1..group.len()).map(move |l| (w, l)));
                places.map(move |(w, l)| (start + w, start + l, group[w], group[l]))
            })
        };
        let mut loss = 0.0;
        let mut add = |share: f64, w: usize, l: usize, pair: PairLoss| {
            loss += share * pair.value;
            slopes[w] += share * pair.d_chosen;
            slopes[l] += share * pair.d_rejected;
        };
        match word.kind {
            Kind::Pair(of) => {
                for (w, l, chosen, rejected) in pairs() {
                    add(share(totals.pairs), w, l, of(&self.settings, chosen, rejected));
                }
            }
            Kind::Batch(of) => {
                let scores: Vec<Pair> = pairs().map(|(_, _, w, l)| (w, l)).collect();
                for ((w, l, ..), pair) in pairs().zip(of(&self.settings, &scores)) {
                    add(share(totals.pairs), w, l, pair);
                }
            }
            Kind::Ranking(of) => {
                for (&start, group) in starts.iter().zip(groups) {
                    let (value, derivatives) = of(&self.settings, group);
                    loss += share(totals.groups) * value;
                    for (slope, d) in slopes[start..].iter_mut().zip(derivatives) {
                        *slope += share(totals.groups) * d;
                    }
                }
            }
            Kind::CrossEntropy => {
                for (&start, group) in starts.iter().zip(groups).filter(|(_, group)| !group.is_empty()) {
                    loss -= share(totals.tokens) * group[0].logp;
                    slopes[start] -= share(totals.tokens);
                }
            }
        }
        loss
    }
}

/// The loss of this name.
pub fn word(name: &str) -> Option<&'static Word> {
    WORDS.iter().copied().find(|word| word.name == name)
}

#[cfg(test)]
mod tests;
