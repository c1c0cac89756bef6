//! When something is done beside a step.

use super::visits::Visits;

/// After which steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// None.
    Never,
    /// The last.
    End,
    /// Each so many, and the last; never 0.
    Every(u64),
    /// The last of each epoch, and the last of all.
    Epoch,
    /// Those whose evaluation is better than all before.
    Better,
}

impl When {
    /// Each so many and the last; 0: the last alone.
    pub fn every(steps: u64) -> Self {
        if steps == 0 { When::End } else { When::Every(steps) }
    }

    /// Whether it is done after so many steps, whose evaluation was `better` than all before.
    pub fn due(self, step: u64, visits: &Visits, better: bool) -> bool {
        let last = step == visits.total;
        match self {
            When::Never => false,
            When::End => last,
            When::Every(steps) => last || step.is_multiple_of(steps),
            When::Epoch => last || step.is_multiple_of(visits.per_epoch),
            When::Better => better,
        }
    }
}
