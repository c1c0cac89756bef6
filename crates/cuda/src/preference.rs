//! The preference objective on the device.

use crate::{Buf, Cuda, CudaReal, Driver, Grid};
use duel_backend::{Result, RowStats, Storage};
use duel_kernels::sys;

/// Sums for each response: logp, entropy, mean logit, hits.
const STATISTICS: usize = 4;

/// Which loss a pair has; the equations are those of `duel_loss`'s functions of these names and head kernels/preference.cu.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PairLoss {
    /// DPO's log-sigmoid.
    Sigmoid {
        /// Share of labels that are taken to be wrong.
        label_smoothing: f64,
    },
    /// IPO's squared distance.
    Ipo {
        /// Log-ratios per token rather than summed.
        per_token: bool,
    },
    /// SLiC's hinge.
    Hinge,
}

/// The objective of a batch: the sum over its pairs of their loss, divided by a weight. A group of K responses, best
/// first, has K(K-1)/2 pairs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PreferenceObjective {
    /// Loss of a pair.
    pub loss: PairLoss,
    /// Its strength.
    pub beta: f64,
    /// What the sum is divided by: the pairs of the whole batch, for their mean.
    pub weight: f64,
}

/// Which rows belong to which response, and which responses to which group, on the device. Made once, with room for
/// the largest chunk, and refilled for each.
pub struct ResponseGroups<D: Driver> {
    first_rows: Buf<D, u32>,
    first_responses: Buf<D, u32>,
    rows: usize,
    responses: usize,
    groups: usize,
}

/// Where the results of [`Cuda::preference`] go.
pub struct PreferenceOut<'a, D: Driver> {
    /// `[rows]`: the derivative of the loss by each row's log-probability, as `logprob_bw` takes it.
    pub coef: &'a mut Buf<D, f32>,
    /// `[responses, 4]`: sums over the rows of each response of logp, entropy, mean logit and hit.
    pub sums: &'a mut Buf<D, f64>,
    /// `[responses]`: loss of the pairs in which each response is the preferred one, divided by the weight. The
    /// chunk's loss is their sum.
    pub loss: &'a mut Buf<D, f64>,
    /// `[responses]`: `beta` times the log-ratio of policy and reference.
    pub rewards: &'a mut Buf<D, f64>,
}

/// Number of parts that `firsts` divides `0..end` into, `end` itself being its last entry.
///
/// # Panics
/// When it does not.
fn parts_of(firsts: &[u32], end: usize) -> usize {
    assert!(firsts.first() == Some(&0) && firsts.is_sorted(), "parts follow each other from 0 on");
    assert_eq!(firsts[firsts.len() - 1] as usize, end, "parts cover everything");
    firsts.len() - 1
}

impl<D: Driver, R: CudaReal> Cuda<D, R> {
    /// Room for so many responses in at most so many groups. Fails when the device has none.
    pub fn response_groups(&self, responses: usize, groups: usize) -> Result<ResponseGroups<D>> {
        Ok(ResponseGroups {
            first_rows: self.alloc(responses + 1)?,
            first_responses: self.alloc(groups + 1)?,
            rows: 0,
            responses: 0,
            groups: 0,
        })
    }

    /// Replaces the content: the first row of each response and then the number of rows, the first response of each
    /// group and then the number of responses. Both may have empty parts.
    ///
    /// # Panics
    /// When they do not begin at 0 or go down, or when there is not room for them.
    pub fn set_response_groups(
        &self,
        groups: &mut ResponseGroups<D>,
        first_rows: &[u32],
        first_responses: &[u32],
    ) {
        groups.rows = first_rows.last().map_or(0, |&end| end as usize);
        groups.responses = parts_of(first_rows, groups.rows);
        groups.groups = parts_of(first_responses, groups.responses);
        self.upload(&mut groups.first_rows, 0, first_rows);
        self.upload(&mut groups.first_responses, 0, first_responses);
    }

    /// Loss and coefficients of a chunk of whole groups, from the statistics that `logprob` left for its rows;
    /// `reference[responses]` are the reference model's summed log-probabilities. Sums are in double precision and in
    /// row order, which are the host's.
    ///
    /// # Panics
    /// When a buffer is shorter than the groups say.
    pub fn preference(
        &self,
        out: PreferenceOut<'_, D>,
        stats: &RowStats<'_, Self>,
        reference: &Buf<D, f64>,
        groups: &ResponseGroups<D>,
        objective: PreferenceObjective,
    ) {
        let ResponseGroups { rows, responses, groups: group_count, .. } = *groups;
        if group_count == 0 {
            return;
        }
        let (kind, label_smoothing) = match objective.loss {
            PairLoss::Sigmoid { label_smoothing } => (sys::PREFERENCE_SIGMOID, label_smoothing),
            PairLoss::Ipo { per_token: false } => (sys::PREFERENCE_IPO_SUM, 0.0),
            PairLoss::Ipo { per_token: true } => (sys::PREFERENCE_IPO_MEAN, 0.0),
            PairLoss::Hinge => (sys::PREFERENCE_HINGE, 0.0),
        };
        let params = sys::PreferenceParams {
            coef: self.write(out.coef, rows).cast(),
            sums: self.write(out.sums, responses * STATISTICS).cast(),
            loss: self.write(out.loss, responses).cast(),
            rewards: self.write(out.rewards, responses).cast(),
            logp: self.read(stats.logp, rows).cast(),
            entropy: self.read(stats.entropy, rows).cast(),
            mean_logit: self.read(stats.mean_logit, rows).cast(),
            hit: self.read(stats.hit, rows).cast(),
            reference: self.read(reference, responses).cast(),
            responses: self.read(&groups.first_rows, responses + 1).cast(),
            groups: self.read(&groups.first_responses, group_count + 1).cast(),
            beta: objective.beta,
            label_smoothing,
            weight: objective.weight,
            objective: kind,
        };
        // SAFETY: the kernel takes PreferenceParams; `write` and `read` checked the buffers against its shapes, and
        // `set_response_groups` that rows and responses lie within them.
        unsafe { self.launch("preference", Grid::linear(group_count, sys::PREFERENCE_THREADS), &params) };
    }
}
