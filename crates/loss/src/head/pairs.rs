//! Losses of pairs that the device makes itself: nothing is waited for between the head's forward and its backward.

use super::row::ResponseStats;
use super::targets::Targets;
use duel_backend::{Grouped, ResponseGroups, ResponseSums, Result, Storage};
use std::ops::Range;

const COLUMNS: usize = ResponseSums::COLUMNS;

/// What a loss of pairs is told of a group beside its rows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Known<'a> {
    /// The reference's log-probability of each response; empty where there is no reference.
    pub reference: &'a [f64],
    /// By how much the chosen response should be better.
    pub margin: f64,
}

/// The statistics of responses that are on the device and that nobody has read yet.
pub(super) struct Unread<B: Storage> {
    pub groups: ResponseGroups<B>,
    pub sums: B::Buf<f64>,
    /// Scored rows of each response.
    pub rows: Vec<usize>,
    first_rows: Vec<u32>,
    first_responses: Vec<u32>,
    reference: Vec<f64>,
    margins: Vec<f64>,
}

impl<B: Storage> Unread<B> {
    /// None, with room for chunks of `capacity` rows.
    pub fn new(b: &B, capacity: usize) -> Result<Self> {
        Ok(Unread {
            groups: ResponseGroups::new(b, capacity)?,
            sums: b.alloc(capacity * COLUMNS)?,
            rows: Vec::new(),
            first_rows: Vec::new(),
            first_responses: Vec::new(),
            reference: Vec::new(),
            margins: Vec::new(),
        })
    }

    /// Makes room for so many responses, before there are any.
    pub fn expect(&mut self, b: &B, responses: usize) -> Result<()> {
        if b.len(&self.sums) < responses * COLUMNS {
            self.sums = b.alloc(responses.next_power_of_two() * COLUMNS)?;
        }
        self.rows.clear();
        Ok(())
    }

    /// Takes groups of the targets, all of whose rows the head has, as the device wants them; `known` of every group.
    pub fn take(
        &mut self,
        b: &B,
        targets: &Targets,
        groups: Range<usize>,
        known: &[Known<'_>],
    ) -> Result<()> {
        let responses = targets.responses_of(groups.clone());
        self.reference.clear();
        self.margins.clear();
        for group in groups.clone() {
            let (Known { reference, margin }, n) =
                (known[group], targets.responses_of(group..group + 1).len());
            self.reference.extend((0..n).map(|i| if reference.is_empty() { 0.0 } else { reference[i] }));
            self.margins.push(margin);
        }
        let rows = targets.rows_of(groups.clone());
        self.first_rows.clear();
        self.first_rows.extend(targets.ends_of(&responses, rows.start));
        self.first_responses.clear();
        self.first_responses.push(0);
        let last = |group| (targets.responses_of(group..group + 1).end - responses.start) as u32;
        self.first_responses.extend(groups.clone().map(last));
        let content = Grouped {
            first_rows: &self.first_rows,
            first_responses: &self.first_responses,
            weights: targets.weights_of(rows),
            reference: &self.reference,
            margins: &self.margins,
        };
        self.groups.set(b, content)?;
        self.rows.extend(self.first_rows.windows(2).map(|ends| (ends[1] - ends[0]) as usize));
        Ok(())
    }

    /// The statistics since [`Unread::expect`], in order.
    pub fn read(&mut self, b: &B) -> Result<Vec<ResponseStats>> {
        let mut host = vec![0.0; self.rows.len() * COLUMNS];
        b.download(&mut host, &self.sums, 0)?;
        let (sums, _) = host.as_chunks::<COLUMNS>();
        Ok(self.rows.drain(..).zip(sums).map(|(rows, s)| ResponseStats::of_sums(rows, (*s).into())).collect())
    }
}
