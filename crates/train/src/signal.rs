//! Ctrl-C and other signals that ask for an orderly end; Ctrl-C or termination a second time ends at once.

#[cfg(unix)]
use signal_hook::consts::{SIGHUP, SIGUSR1};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// What was heard.
#[derive(Default)]
struct Heard {
    /// That an end is asked for.
    asked: Arc<AtomicBool>,
    /// The same by a signal of which the next one ends the process.
    once: Arc<AtomicBool>,
}

static HEARD: OnceLock<Heard> = OnceLock::new();

/// Starts listening. Where the system refuses, signals keep their usual effect.
///
/// SIGHUP (a terminal that is closed) and SIGUSR1 (what `sbatch --signal` usually sends) only ask: a shell sends the
/// first twice, and SIGTERM follows the second while there still is time to save.
pub fn listen() {
    duel_hub::stop_when(interrupted);
    let Heard { asked, once } = HEARD.get_or_init(Heard::default);
    let set = |signal, flag: &Arc<AtomicBool>| drop(signal_hook::flag::register(signal, flag.clone()));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the second signal finds the flag set by the first.
        if signal_hook::flag::register_conditional_shutdown(signal, 130, once.clone()).is_ok() {
            set(signal, once);
            set(signal, asked);
        }
    }
    #[cfg(unix)]
    {
        set(SIGUSR1, asked);
        if !is_ignored(SIGHUP) {
            set(SIGHUP, asked);
        }
    }
}

/// Makes a file that would get larger than the process may write an error of that write; the signal's usual effect is
/// a silent end.
pub fn outlive_limits() {
    #[cfg(unix)]
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default());
}

/// Whether the process was started with the signal ignored, as `nohup` does; where that cannot be known, it is left as
/// it is.
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_none_or(|mask| mask >> (signal - 1) & 1 == 1)
}

/// Whether an end was asked for.
pub fn interrupted() -> bool {
    HEARD.get().is_some_and(|heard| heard.asked.load(Ordering::Relaxed))
}

/// Takes the next signal for the second, or for the first again: for a program that answers one with more than its end.
pub fn set_asked(asked: bool) {
    if let Some(heard) = HEARD.get() {
        heard.asked.store(asked, Ordering::Relaxed);
        heard.once.store(asked, Ordering::Relaxed);
    }
}
