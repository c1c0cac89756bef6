//! Losses of pairs on the device.

use crate::{Cuda, CudaReal, Driver, Grid};
use duel_backend::{PairObjective, Preference, PreferenceOut, ResponseGroups, ResponseSums, RowStats, Rule};
use duel_kernels::sys;

const COLUMNS: usize = ResponseSums::COLUMNS;
const _: () = assert!(COLUMNS == sys::PREFERENCE_COLUMNS as usize);

impl<D: Driver, R: CudaReal> Preference for Cuda<D, R> {
    fn preference(
        &self,
        out: PreferenceOut<'_, Self>,
        stats: &RowStats<'_, Self>,
        groups: &ResponseGroups<Self>,
        objective: &PairObjective<'_>,
    ) {
        let ResponseGroups { rows, responses, groups: count, .. } = *groups;
        if count == 0 {
            return;
        }
        let (rule, label_smoothing) = match objective.rule {
            Rule::Sigmoid { label_smoothing } => (sys::PREFERENCE_SIGMOID, label_smoothing),
            Rule::Ipo { per_token: false } => (sys::PREFERENCE_IPO_SUM, 0.0),
            Rule::Ipo { per_token: true } => (sys::PREFERENCE_IPO_MEAN, 0.0),
            Rule::Hinge => (sys::PREFERENCE_HINGE, 0.0),
        };
        let sums: *mut f64 = self.write(out.sums, (out.first + responses) * COLUMNS).cast();
        let params = sys::PreferenceParams {
            coef: self.write(out.coef, rows).cast(),
            sums: sums.wrapping_add(out.first * COLUMNS),
            logp: self.read(stats.logp, rows).cast(),
            entropy: self.read(stats.entropy, rows).cast(),
            mean_logit: self.read(stats.mean_logit, rows).cast(),
            hit: self.read(stats.hit, rows).cast(),
            collision: self.read(stats.collision, rows).cast(),
            weights: self.read(&groups.weights, rows).cast(),
            reference: self.read(&groups.reference, responses).cast(),
            margins: self.read(&groups.margins, count).cast(),
            responses: self.read(&groups.first_rows, responses + 1).cast(),
            groups: self.read(&groups.first_responses, count + 1).cast(),
            beta: objective.beta,
            label_smoothing,
            share: objective.share,
            rule,
        };
        // SAFETY: the kernel takes PreferenceParams; `write` and `read` checked the buffers against its shapes, and
        // `ResponseGroups::set` that rows and responses lie within them.
        unsafe { self.launch("preference", Grid::linear(count, sys::PREFERENCE_THREADS), &params) };
    }
}
