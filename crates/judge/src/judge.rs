//! The one trait of all judges.

use crate::{Case, Opinion, Pair, Result, preference, win_rates};
use std::ops::AddAssign;

/// What a judge says of its own; scores and preferences follow from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Says {
    /// A score of each answer.
    Scores,
    /// Which of two answers is better.
    Preferences,
    /// The order of all answers: its scores are mean win rates, of wins that are certain.
    Order,
}

/// Who says what answers are worth.
pub trait Judge {
    /// A few words for people: "the lexicon words.tsv".
    fn describe(&self) -> String;

    /// Everything that decides its answers, and no more: what two judges share that can continue each other's work.
    fn identity(&self) -> String;

    /// What it says of its own.
    fn says(&self) -> Says;

    /// A score of every answer, in the order of the cases. A judge that only compares gives mean win rates over all
    /// pairs of a case ([`win_rates`]).
    ///
    /// # Errors
    /// The judge as a whole fails, or was stopped.
    fn scores(&mut self, cases: &[Case]) -> Result<Vec<Vec<Opinion>>>;

    /// The probability that the first is better, of every pair. A judge that only scores gives 1, 1/2 or 0
    /// ([`preference`]).
    ///
    /// # Errors
    /// As [`scores`](Judge::scores).
    fn compare(&mut self, pairs: &[Pair<'_>]) -> Result<Vec<Opinion>>;

    /// Whether it works its answers out here, of each case from that case alone: then processes of a run share the
    /// cases out, where else one of them asks for all.
    fn computes(&self) -> bool {
        false
    }

    /// What it counted so far; nothing, where a judge does no more than compute.
    fn tally(&self) -> Tally {
        Tally::default()
    }
}

/// What a judge counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests that were sent, again and again too.
    pub requests: u64,
    /// Answers that were there already.
    pub cached: u64,
    /// Tokens that the other side says it read and wrote.
    pub tokens: u64,
    /// Comparisons that were made, each order for itself.
    pub shown: u64,
    /// Twice the number of those that the answer shown first won; a tie is 1.
    pub first_won_twice: u64,
    /// Pairs whose two orders were both judged.
    pub both_orders: u64,
    /// Those of which the two orders preferred different answers.
    pub disagreed: u64,
    /// Prompts that lost their start, since a judge has room for no more.
    pub cut: u64,
    /// Answers that were encoded again although they came with tokens: these are not what a judge calls their text.
    pub encoded_again: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, more: Tally) {
        self.requests += more.requests;
        self.cached += more.cached;
        self.tokens += more.tokens;
        self.shown += more.shown;
        self.first_won_twice += more.first_won_twice;
        self.both_orders += more.both_orders;
        self.disagreed += more.disagreed;
        self.cut += more.cut;
        self.encoded_again += more.encoded_again;
    }
}

/// The scores of a judge that only compares: its [`Judge::scores`], mean win rates over all pairs of a case, see
/// [`win_rates`].
///
/// # Errors
/// As [`Judge::compare`].
pub fn scores_by_comparing(judge: &mut (impl Judge + ?Sized), cases: &[Case]) -> Result<Vec<Vec<Opinion>>> {
    let pairs: Vec<Pair<'_>> = cases.iter().flat_map(Case::pairs).collect();
    let wins = judge.compare(&pairs)?;
    let mut rest = &wins[..];
    let rates = |case: &Case| {
        let n = case.answers.len();
        let (own, others) = rest.split_at(n * n.saturating_sub(1) / 2);
        rest = others;
        win_rates(own, n)
    };
    Ok(cases.iter().map(rates).collect())
}

/// The preferences of a judge that only scores: its [`Judge::compare`].
///
/// # Errors
/// As [`Judge::scores`].
pub fn compare_by_scoring(judge: &mut (impl Judge + ?Sized), pairs: &[Pair<'_>]) -> Result<Vec<Opinion>> {
    let case = |pair: &Pair<'_>| Case {
        prompt: pair.prompt.clone(),
        answers: vec![pair.first.clone(), pair.second.clone()],
    };
    let cases: Vec<Case> = pairs.iter().map(case).collect();
    let scores = judge.scores(&cases)?;
    Ok(scores.iter().map(|of| preference(&of[0], &of[1], false)).collect())
}
