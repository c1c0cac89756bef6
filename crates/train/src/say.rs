//! What a run tells people: the first process alone does.

use std::cell::Cell;

thread_local! {
    static HUSHED: Cell<bool> = const { Cell::new(false) };
}

/// Lets this thread say nothing to people from now on, or with `false` everything again: of several processes that do
/// the same, one speaks. Errors are for whoever gets them.
pub fn hush(silent: bool) {
    HUSHED.set(silent);
}

/// Whether it does.
pub fn is_hushed() -> bool {
    HUSHED.get()
}

/// `eprintln!`, unless this thread is hushed.
macro_rules! say {
    ($($said:tt)*) => {
        if !$crate::say::is_hushed() {
            eprintln!($($said)*);
        }
    };
}
