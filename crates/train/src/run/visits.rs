//! Which groups the steps of a run visit.

use crate::config::Config;
use duel_data::order;

/// How many steps there are, and what they visit.
pub struct Visits {
    /// Steps in a pass over all groups.
    pub per_epoch: u64,
    /// Steps of the run.
    pub total: u64,
    /// Groups in a step; the last of an epoch may have fewer.
    pub batch: usize,
    groups: usize,
    seed: u64,
    shuffle: bool,
}

impl Visits {
    /// Those of a dataset of so many groups.
    pub fn of(c: &Config, groups: usize) -> Self {
        let batch = c.batch_size();
        let per_epoch = groups.div_ceil(batch) as u64;
        let total = match u64::try_from(c.max_steps) {
            Ok(steps) => steps,
            Err(_) => ((c.num_train_epochs * per_epoch as f64).ceil() as u64).max(1),
        };
        let seed = c.data_seed.unwrap_or(c.seed);
        Visits { per_epoch, total, batch, groups, seed, shuffle: c.shuffle }
    }

    /// The groups that the steps after step `from` up to step `to` visit, each once, in the order of their first
    /// visits.
    pub fn visited(&self, from: u64, to: u64) -> Vec<u32> {
        let mut order = EpochOrder::default();
        let mut seen = vec![false; self.groups];
        let mut visited = Vec::new();
        for step in from..to.min(self.total) {
            let batch = order.batch(self, step);
            visited.extend(batch.iter().filter(|&&i| !std::mem::replace(&mut seen[i as usize], true)));
            if visited.len() == self.groups {
                break;
            }
        }
        visited
    }

    /// The groups of an evaluation set of `len` that are scored after step `from`, or, where one is still due, at it:
    /// all, unless nothing is left.
    pub fn evaluated(&self, len: usize, from: u64, due: bool) -> Vec<u32> {
        if due || from < self.total { (0..len as u32).collect() } else { Vec::new() }
    }

    /// Passes that so many steps are.
    pub fn epoch(&self, step: u64) -> f64 {
        step as f64 / self.per_epoch as f64
    }
}

/// The order of one epoch's groups, kept while it lasts.
#[derive(Default)]
pub struct EpochOrder {
    epoch: Option<u64>,
    order: Vec<u32>,
}

impl EpochOrder {
    /// The groups that the step after `step` visits.
    pub fn batch(&mut self, visits: &Visits, step: u64) -> Vec<u32> {
        let (epoch, at) = (step / visits.per_epoch, step % visits.per_epoch);
        if self.epoch != Some(epoch) {
            self.order = order(visits.groups, visits.seed, epoch, visits.shuffle);
            self.epoch = Some(epoch);
        }
        let from = at as usize * visits.batch;
        self.order[from..visits.groups.min(from + visits.batch)].to_vec()
    }
}
