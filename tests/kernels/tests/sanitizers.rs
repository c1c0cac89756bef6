//! What only a sanitizer sees. Compiled in by `cargo xtask kernels --asan` and `--race`.
//!
//! A sanitizer ends the program, or fails it at its end, so each mistake is made in a program of its own: this one
//! again, with [`make_the_mistake`] as its only test.
#![cfg(any(sanitized = "address", sanitized = "thread"))]

#[path = "common/mistake.rs"]
mod mistake;
#[path = "common/ring.rs"]
mod ring;

use duel_kernel_tests::{Copies, Emulation, Order, Schedule};
use ring::Ring;
use std::process::Command;

/// The environment variable that names a kernel.
const MISTAKE: &str = "DUEL_MISTAKE";

/// Runs the kernel that the environment names.
#[test]
#[ignore = "the other tests start it"]
fn make_the_mistake() {
    let kernel: &str = std::env::var(MISTAKE).expect("a kernel's name").leak();
    let schedule = Schedule::new(Order::Forward, Copies::Lazy);
    if kernel.starts_with("ring@") {
        let product = Ring { m: 64, n: 64, k: 640, through_registers: false };
        return product.check(&Emulation::new(schedule), kernel);
    }
    mistake::run(kernel, mistake::threads(kernel), schedule).expect("the emulation itself sees nothing");
}

/// Expects that the sanitizer says `what` about a kernel, and at which place.
fn expect(kernel: &str, what: &str, place: &str) {
    let this = std::env::current_exe().expect("the path of this program");
    let output = Command::new(this)
        .args(["--exact", "make_the_mistake", "--ignored", "--nocapture"])
        .env(MISTAKE, kernel)
        .output()
        .expect("this program can be started");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "the sanitizer found nothing:\n{said}");
    assert!(said.contains(what), "{said}");
    assert!(said.contains(place), "{said}");
}

#[cfg(sanitized = "address")]
#[test]
fn a_read_past_a_global_buffer_is_reported() {
    let place = mistake::place("read_past_the_end");
    expect("read_past_the_end@test", "AddressSanitizer: heap-buffer-overflow", &place);
}

#[cfg(sanitized = "address")]
#[test]
fn a_write_past_shared_memory_is_reported() {
    let place = mistake::place("write_outside");
    expect("write_outside@test", "AddressSanitizer: use-after-poison", &place);
}

#[cfg(sanitized = "thread")]
#[test]
fn a_race_in_shared_memory_is_reported() {
    expect("race@test", "ThreadSanitizer: data race", &mistake::place("race"));
}

// Even in the forward order, in which its result is right.
#[cfg(sanitized = "thread")]
#[test]
fn an_early_stage_release_is_reported_as_a_race() {
    expect("ring@early_stage_release", "ThreadSanitizer: data race", "ring.cu");
}
