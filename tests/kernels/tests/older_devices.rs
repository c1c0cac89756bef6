//! What the conformance suite runs on devices before compute capability 9.0, where launch code chooses other kernels.

use duel_kernel_tests::{Devices, Emulation, Schedule};

struct Ampere;

impl Devices for Ampere {
    type Driver = Emulation;
    fn devices(&self) -> Vec<Emulation> {
        Schedule::ALL.into_iter().map(|s| Emulation::new(s).with_compute_capability(80)).collect()
    }
}

duel_kernel_tests::conformance!(Ampere; attention, attention_of_random_layouts, attention_rows);
