//! Ctrl-C and termination: the first asks for an orderly end, the second ends at once.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

static ASKED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Starts listening. Where the system refuses, signals keep their usual effect.
pub fn listen() {
    duel_hub::stop_when(interrupted);
    let asked = ASKED.get_or_init(Arc::default);
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // In this order: the second signal finds the flag set by the first.
        let second = signal_hook::flag::register_conditional_shutdown(signal, 130, asked.clone());
        let first = second.and_then(|_| signal_hook::flag::register(signal, asked.clone()));
        drop(first);
    }
}

/// Whether an end was asked for.
pub fn interrupted() -> bool {
    ASKED.get().is_some_and(|a| a.load(Ordering::Relaxed))
}

/// Takes the next signal for the second, or for the first again: for a program that answers one with more than its end.
pub fn set_asked(asked: bool) {
    if let Some(flag) = ASKED.get() {
        flag.store(asked, Ordering::Relaxed);
    }
}
