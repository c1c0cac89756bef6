//! Planted bugs are caught, each by the operation that would meet it in practice.

#[path = "common/ring.rs"]
mod ring;

use duel_kernel_tests::{Devices, Emulation, Schedule, message_of_panic, suite};
use ring::Ring;

/// One schedule, with a bug planted.
struct Planted {
    plant: &'static str,
    schedule: Schedule,
}

impl Devices for Planted {
    type Driver = Emulation;
    fn devices(&self) -> Vec<Emulation> {
        vec![Emulation::new(self.schedule).with_plant(self.plant)]
    }
}

/// The schedules in which a thread may lose its turn between the release and the wait that should come first.
const RANDOM: [Schedule; 2] = [Schedule::ALL[2], Schedule::ALL[3]];

/// The schedules under which a plant is caught.
fn caught(plant: &'static str, run: impl Fn(&Planted)) -> Vec<Schedule> {
    let suffix = format!("@{plant}");
    assert!(Emulation::kernels().iter().any(|(name, _)| name.ends_with(&suffix)), "{plant} is not planted");
    let mut schedules = Schedule::ALL.to_vec();
    schedules.retain(|&schedule| message_of_panic(|| run(&Planted { plant, schedule })).is_some());
    schedules
}

#[test]
fn dropped_barrier_is_caught_under_every_schedule() {
    assert_eq!(caught("dropped_barrier", suite::rmsnorm), Schedule::ALL);
}

#[test]
fn off_by_one_edge_is_caught_under_every_schedule() {
    assert_eq!(caught("off_by_one_edge", suite::swiglu), Schedule::ALL);
}

#[test]
fn swapped_field_is_caught_under_every_schedule() {
    assert_eq!(caught("swapped_field", suite::swiglu), Schedule::ALL);
}

#[test]
fn early_stage_release_is_caught_under_every_random_schedule() {
    let caught = caught("early_stage_release", |devices| {
        for driver in devices.devices() {
            Ring { m: 64, n: 64, k: 640, through_registers: false }.check(&driver, "ring");
        }
    });
    assert_eq!(caught, RANDOM);
}

#[test]
fn early_release_of_values_in_attention_is_caught_under_every_random_schedule() {
    assert_eq!(caught("early_value_release", suite::attention), RANDOM);
}
