//! Groups of tokens in one flat arena.

use crate::labels::Known;
use crate::{Labels, Options, Report};
use std::collections::BTreeMap;
use std::ops::Range;

/// Groups of tokens, in the order of their source rows. All tokens lie in one arena; a group costs 8 bytes beside
/// them and a prompt or response another 8.
#[derive(Debug, Clone)]
pub struct Dataset {
    pub(crate) opt: Options,
    pub(crate) tokens: Vec<u32>,
    /// Part `p` (a prompt or a response) is `tokens[bounds[p]..bounds[p + 1]]`.
    pub(crate) bounds: Vec<usize>,
    /// Ranges of `tokens` inside responses that are given, not learned; in order.
    pub(crate) given: Vec<Range<usize>>,
    pub(crate) groups: Vec<Entry>,
    pub(crate) labels: Known,
    /// The unpaired groups that were cut, as they were before it.
    pub(crate) uncut: BTreeMap<usize, Uncut>,
    pub(crate) report: Report,
}

/// A group of one response before it was cut.
#[derive(Debug, Clone)]
pub(crate) struct Uncut {
    pub(crate) prompt: Box<[u32]>,
    pub(crate) response: Box<[u32]>,
}

/// The parts of a group run from its prompt to the next group's prompt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) row: u32,
    pub(crate) prompt: u32,
}

impl Dataset {
    /// One of no groups, which a [`Builder`](crate::Builder) fills.
    pub(crate) fn empty(opt: Options) -> Self {
        Dataset {
            opt,
            tokens: Vec::new(),
            bounds: vec![0],
            given: Vec::new(),
            groups: Vec::new(),
            labels: Known::default(),
            uncut: BTreeMap::new(),
            report: Report::default(),
        }
    }

    /// How many groups there are; at least one.
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Always false: a dataset without groups cannot be made.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Group `i`.
    ///
    /// # Panics
    /// When `i` is not below [`len`](Self::len).
    pub fn group(&self, i: usize) -> Group<'_> {
        let Entry { row, prompt } = self.groups[i];
        let end = self.groups.get(i + 1).map_or(self.bounds.len() - 1, |next| next.prompt as usize);
        let bounds = &self.bounds[prompt as usize..=end];
        Group {
            row: row as usize,
            prompt: &self.tokens[bounds[0]..bounds[1]],
            bounds: &bounds[1..],
            arena: &self.tokens,
            given: &self.given,
            labels: self.labels.of(i, bounds.len() - 2),
        }
    }

    /// All groups in order.
    pub fn groups(&self) -> impl ExactSizeIterator<Item = Group<'_>> {
        (0..self.len()).map(|i| self.group(i))
    }

    /// What became of the rows.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Every token of every group, end to end: `[prompt | response 1 | .. | response K]`.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Bytes that it takes in memory.
    pub fn bytes(&self) -> usize {
        let parts =
            size_of_val(&self.bounds[..]) + size_of_val(&self.groups[..]) + size_of_val(&self.given[..]);
        let cut: usize = self.uncut.values().map(|cut| cut.prompt.len() + cut.response.len()).sum();
        size_of_val(&self.tokens[..]) + parts + cut * size_of::<u32>()
    }

    /// The largest token id, which must be below the model's vocabulary size; also of what was cut and can come back in
    /// [`mismatched`](Self::mismatched).
    pub fn max_token(&self) -> u32 {
        let cut = self.uncut.values().flat_map(|cut| cut.prompt.iter().chain(&cut.response));
        self.tokens.iter().chain(cut).copied().max().unwrap_or(0)
    }
}

/// A prompt and its responses, best first.
#[derive(Debug, Clone, Copy)]
pub struct Group<'a> {
    /// The source row from 1: the line of a `.jsonl`, the element of a `.json` array.
    pub row: usize,
    /// The prompt's tokens; empty for unprompted text of a model without BOS.
    pub prompt: &'a [u32],
    bounds: &'a [usize],
    arena: &'a [u32],
    given: &'a [Range<usize>],
    labels: Labels<'a>,
}

impl<'a> Group<'a> {
    /// What is known of the responses; in supervised training, which learns one as it is, no more than their order.
    pub fn labels(&self) -> Labels<'a> {
        self.labels
    }

    /// The tokens of the best response, or the only one.
    pub fn best(&self) -> &'a [u32] {
        &self.arena[self.bounds[0]..self.bounds[1]]
    }

    /// The responses' tokens, best first, each at least one token.
    pub fn responses(&self) -> impl ExactSizeIterator<Item = &'a [u32]> + use<'a> {
        let arena = self.arena;
        self.bounds.windows(2).map(move |w| &arena[w[0]..w[1]])
    }

    /// How many tokens the group takes in a batch: the prompt once and all responses.
    pub fn tokens(&self) -> usize {
        self.prompt.len() + self.bounds[self.bounds.len() - 1] - self.bounds[0]
    }

    /// Tokens of the responses, counted from the first token of the first response, that are given rather than
    /// learned: the turns of a conversation that are not the assistant's. In order, none empty.
    pub fn given(&self) -> impl Iterator<Item = Range<usize>> + use<'a> {
        let (start, end) = (self.bounds[0], self.bounds[self.bounds.len() - 1]);
        let first = self.given.partition_point(|run| run.end <= start);
        let runs = self.given[first..].iter().take_while(move |run| run.start < end);
        runs.map(move |run| run.start - start..run.end - start)
    }

    /// How many tokens of the best response have a loss: all but those that are given, and but the first where no
    /// prompt predicts it.
    pub fn scored_of_best(&self) -> usize {
        let best = self.best().len();
        let given: usize = self.given().map(|run| run.end.min(best) - run.start.min(best)).sum();
        best - given - usize::from(self.prompt.is_empty())
    }
}
