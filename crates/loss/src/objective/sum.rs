//! A weighted sum of losses over the groups of a batch.

use super::plain::{CENTER, LM, SFT};
use super::score::{Group, PairLoss, Score, Totals, share};
use super::word::{Baseline, Kind, Pair, Settings, Word};

/// What an objective has to be given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The reference's log-probabilities.
    pub reference: bool,
    /// The scores of a whole batch before any derivative: it compares responses of different prompts.
    pub batch: bool,
    /// The prompts' own log-probabilities ([`Group::prompt`]).
    pub prompt: bool,
    /// [`Totals::kl`], of responses to other prompts.
    pub kl: bool,
    /// [`Totals::mean_reward`], which goes on from batch to batch.
    pub mean_reward: bool,
}

/// A weighted sum of losses.
#[derive(Clone, Debug)]
pub struct Objective {
    terms: Vec<(f64, &'static Word)>,
    settings: Settings,
    compares: bool,
}

impl Objective {
    /// The sum of `terms`: weights and losses. A term of weight 0 is none: it would ask for what nothing uses.
    pub fn new(mut terms: Vec<(f64, &'static Word)>, settings: Settings) -> Self {
        terms.retain(|(weight, _)| *weight != 0.0);
        Objective { terms, settings, compares: true }
    }

    /// The same with a reference that finds everything equally likely: CPO's use of DPO's losses, and a reward model's.
    pub fn without_reference(self) -> Self {
        Objective { compares: false, ..self }
    }

    /// With `weight` times the cross entropy of the best responses.
    pub fn and_cross_entropy(self, weight: f64) -> Self {
        self.and(weight, &SFT)
    }

    /// With `weight` times the cross entropy of the best responses and of their prompts.
    pub fn and_language_model(self, weight: f64) -> Self {
        self.and(weight, &LM)
    }

    /// With `weight` times the squared sum of the two rewards of a pair.
    pub fn and_centring(self, weight: f64) -> Self {
        self.and(weight, &CENTER)
    }

    fn and(mut self, weight: f64, word: &'static Word) -> Self {
        self.terms.extend((weight != 0.0).then_some((weight, word)));
        self
    }

    /// Cross entropy alone.
    pub fn cross_entropy() -> Self {
        Objective::new(vec![(1.0, &SFT)], Settings::default())
    }

    /// What it has to be given.
    pub fn needs(&self) -> Needs {
        let any = |holds: fn(&Kind) -> bool| self.terms.iter().any(|(_, word)| holds(&word.kind));
        let mean_reward = any(|k| matches!(k, Kind::Unpaired { looks_at: Some(Baseline::MeanReward), .. }));
        Needs {
            reference: self.compares && self.terms.iter().any(|(_, word)| word.reference),
            batch: mean_reward || any(|kind| matches!(kind, Kind::Batch(_))),
            prompt: any(|kind| matches!(kind, Kind::CrossEntropy { prompt: true })),
            kl: any(|k| matches!(k, Kind::Unpaired { looks_at: Some(Baseline::Kl), .. })),
            mean_reward,
        }
    }

    /// What the losses are told.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The losses and their weights.
    pub fn terms(&self) -> &[(f64, &'static Word)] {
        &self.terms
    }

    /// The log-probability by which a response is compared, and its reward, which is `beta` times that less the
    /// reference's: of sums; without a reference per token where the first loss compares so, as TRL has it.
    pub fn worth(&self, score: Score) -> (f64, f64) {
        let means = !self.compares && self.terms.first().is_some_and(|(_, word)| word.per_token);
        let share = if means { score.per_token() } else { 1.0 };
        (share * score.logp, self.settings.beta * share * score.log_ratio())
    }

    /// The share of `groups` in the loss of a batch of `totals`, and its derivative by the summed log-probability of
    /// each response, in `slopes` (overwritten; as long as all the groups' responses together, and after those of each
    /// group its prompt where [`Needs::prompt`] asks for that). All of the batch's groups at once where
    /// [`Needs::batch`] asks for that, else in any portions.
    pub fn slopes(&self, groups: &[Group<'_>], totals: Totals, slopes: &mut [f64]) -> f64 {
        slopes.fill(0.0);
        self.terms.iter().map(|(weight, word)| self.term(*weight, word, groups, totals, slopes)).sum()
    }

    fn term(
        &self,
        weight: f64,
        word: &Word,
        groups: &[Group<'_>],
        totals: Totals,
        slopes: &mut [f64],
    ) -> f64 {
        let share = |n: usize| share(weight, n);
        let mut first = 0;
        let starts: Vec<usize> = groups
            .iter()
            .map(|group| {
                let start = first;
                first += group.responses.len() + usize::from(group.prompt.is_some());
                start
            })
            .collect();
        // Every pair, as its group and the places of its two responses.
        let pairs = || {
            starts.iter().zip(groups).flat_map(|(&start, group)| {
                group.pairs().map(move |(w, l)| {
                    (start + w, start + l, (group.responses[w], group.responses[l]), group)
                })
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
                for (w, l, (chosen, rejected), group) in pairs() {
                    let weight = match self.settings.use_weighting {
                        true => chosen.likelihood() * rejected.likelihood(),
                        false => 1.0,
                    };
                    let pair = of(&self.settings, chosen, rejected, group.margin);
                    add(weight * share(totals.pairs), w, l, pair);
                }
            }
            Kind::Batch(of) => {
                let scores: Vec<Pair> = pairs().map(|(_, _, pair, _)| pair).collect();
                for ((w, l, ..), pair) in pairs().zip(of(&self.settings, &scores)) {
                    add(share(totals.pairs), w, l, pair);
                }
            }
            Kind::Ranking(of) => {
                for (&start, group) in starts.iter().zip(groups) {
                    let (value, derivatives) = of(&self.settings, group.responses);
                    loss += share(totals.groups) * value;
                    for (slope, d) in slopes[start..].iter_mut().zip(derivatives) {
                        *slope += share(totals.groups) * d;
                    }
                }
            }
            Kind::Unpaired { of, .. } => {
                let beta = self.settings.beta;
                for (&start, group) in starts.iter().zip(groups) {
                    for (i, score) in group.responses.iter().enumerate() {
                        let reward = beta * score.log_ratio();
                        let (value, slope) = of(&self.settings, reward, group.desirable, &totals);
                        loss += share(totals.groups) * value;
                        slopes[start + i] += share(totals.groups) * beta * slope;
                    }
                }
            }
            Kind::CrossEntropy { prompt } => {
                let tokens = totals.tokens + if prompt { totals.prompt_tokens } else { 0 };
                for (&start, group) in starts.iter().zip(groups) {
                    let best = group.responses.first().map(|best| (start, best));
                    let asked = group.prompt.iter().filter(|_| prompt);
                    let asked = asked.map(|score| (start + group.responses.len(), score));
                    for (place, score) in best.into_iter().chain(asked) {
                        loss -= share(tokens) * score.logp;
                        slopes[place] -= share(tokens);
                    }
                }
            }
        }
        loss
    }
}
