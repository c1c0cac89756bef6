//! Work that repeats, recorded by the driver.

use crate::{Cuda, CudaReal, Driver};
use duel_backend::Repetition;

/// Work that repeats, as the driver keeps it, and where the scratch memory was then.
pub struct Recording<D: Driver> {
    scratch_moves: u64,
    of_driver: D::Recording,
}

impl<D: Driver> Default for Recording<D> {
    fn default() -> Self {
        Recording { scratch_moves: 0, of_driver: D::Recording::default() }
    }
}

impl<D: Driver, R: CudaReal> Cuda<D, R> {
    /// # Panics
    /// In work that repeats, where only kernels may be launched.
    pub(crate) fn check_outside_of_repetition(&self) {
        assert!(
            !self.repeating.get(),
            "work that repeats allocates nothing, copies nothing from or to the host"
        );
    }
}

impl<D: Driver, R: CudaReal> Repetition for Cuda<D, R> {
    type Recording = Recording<D>;

    fn repeat(&self, recording: &mut Recording<D>, work: impl FnMut()) {
        if recording.scratch_moves != self.scratch_moves.get() {
            *recording = Recording::default();
        }
        self.repeating.set(true);
        self.driver.repeat(&mut recording.of_driver, work);
        self.repeating.set(false);
        if recording.scratch_moves != self.scratch_moves.get() {
            // It grew in the first pass, which is over: the next one finds it in its place.
            recording.scratch_moves = self.scratch_moves.get();
        }
    }
}
