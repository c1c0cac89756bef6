//! Prompts with the responses of others, of which KTO estimates its KL.

use crate::{Builder, Dataset, Error, Result, Task};
use std::ops::Range;

impl Dataset {
    /// The data set of mismatched pairs: group `i` has the prompt (and labels) of group `i` and the response of
    /// another, its donor. In every `block` of consecutive groups, of which the last may be shorter, that is the group
    /// before, and the last one for the first, as in TRL. Where it has the same prompt, the response would fit: then
    /// the nearest group before it with another prompt, round the block and, where the block has none, round the whole
    /// data set. Prompts and responses are taken as they were before the cut, then cut together as the options say.
    ///
    /// # Errors
    /// When all prompts are the same, or the data set is not [`Task::Unpaired`].
    ///
    /// # Panics
    /// When `block` is 0.
    pub fn mismatched(&self, block: usize) -> Result<Dataset> {
        if self.opt.task != Task::Unpaired {
            return Err(Error::Data("only unpaired rows have mismatched responses".to_owned()));
        }
        let len = self.len();
        let donors = Donors::new(self);
        let mut builder = Builder::new(&self.opt);
        for start in (0..len).step_by(block) {
            let own = start..len.min(start.saturating_add(block));
            for i in own.clone() {
                let donor = donors.of(i, own.clone()).or_else(|| donors.of(i, 0..len)).ok_or_else(|| {
                    Error::Data(
                        "all rows that are kept have the same prompt, and KTO's KL needs two; add rows, raise max_length where \
                         rows were dropped, or use `loss_type = bco`"
                            .to_owned(),
                    )
                })?;
                let group = self.group(i);
                builder.push_labelled(group.row, self.uncut(i).0, &[self.uncut(donor).1], group.labels())?;
            }
        }
        builder.finish()
    }

    /// The prompt and the best response of group `i` before they were cut.
    fn uncut(&self, i: usize) -> (&[u32], &[u32]) {
        match self.uncut.get(&i) {
            Some(cut) => (&cut.prompt, &cut.response),
            None => {
                let group = self.group(i);
                (group.prompt, group.best())
            }
        }
    }
}

/// Where to look for another prompt, without a search.
struct Donors<'a> {
    data: &'a Dataset,
    /// By group, the first of the groups up to it that have its prompt, one after the other.
    since: Vec<usize>,
}

impl<'a> Donors<'a> {
    fn new(data: &'a Dataset) -> Self {
        let mut since: Vec<usize> = Vec::with_capacity(data.len());
        for i in 0..data.len() {
            let same = i > 0 && data.uncut(i).0 == data.uncut(i - 1).0;
            since.push(if same { since[i - 1] } else { i });
        }
        Donors { data, since }
    }

    /// The nearest group before `i` that has another prompt, round `range`.
    fn of(&self, i: usize, range: Range<usize>) -> Option<usize> {
        let before = |j: usize| self.since[j].checked_sub(1).filter(|donor| *donor >= range.start);
        let last = range.end - 1;
        let other = |j: &usize| self.data.uncut(*j).0 != self.data.uncut(i).0;
        before(i).or_else(|| Some(last).filter(other)).or_else(|| before(last))
    }
}
