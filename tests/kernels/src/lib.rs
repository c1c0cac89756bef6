#![doc = include_str!("../README.md")]

mod compare;
pub mod device;
mod emulation;
pub mod plants;
pub mod suite;

pub use compare::{Bench, Devices, Operation, check};
pub use emulation::{Copies, Emulation, Memory, Order, Parameter, Schedule};

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a closure says when it panics.
pub fn message_of_panic(f: impl FnOnce()) -> Option<String> {
    let payload = catch_unwind(AssertUnwindSafe(f)).err()?;
    let text = payload.downcast_ref::<String>().cloned();
    Some(text.or_else(|| payload.downcast_ref::<&str>().map(|s| s.to_string())).unwrap_or_default())
}

/// Says on standard error that a test is skipped, and why.
///
/// # Panics
/// When the environment variable `required` is set: where it is, nothing may be skipped.
pub fn skip(test: &str, reason: &str, required: &str) {
    assert!(std::env::var_os(required).is_none(), "{required} is set, but {test} cannot run: {reason}");
    // Not eprintln: the test harness would keep that to itself.
    drop(writeln!(std::io::stderr(), "SKIPPED {test}: {reason}"));
}

/// The emulation under every schedule.
pub struct Emulated;

impl Devices for Emulated {
    type Driver = Emulation;
    fn devices(&self) -> Vec<Emulation> {
        // What a sanitizer finds hardly depends on the schedule, and it is slow.
        let sanitized = cfg!(any(sanitized = "address", sanitized = "thread"));
        let schedules = if sanitized { &Schedule::ALL[..1] } else { &Schedule::ALL[..] };
        schedules.iter().copied().map(Emulation::new).collect()
    }
}
