//! What a run tells people: the first process alone does.

use crate::signal;
use std::cell::Cell;
use std::fmt::Arguments;
use std::io::{Write, stderr};

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

/// Tells people a line, unless this thread is hushed.
pub fn tell(line: Arguments<'_>) {
    match is_hushed() {
        true => {}
        // A run that saves because its terminal is gone does not end because nobody reads it.
        false if signal::hung_up() => drop(writeln!(stderr(), "{line}")),
        false => eprintln!("{line}"),
    }
}

/// [`tell`], in the words of `eprintln!`.
macro_rules! say {
    ($($said:tt)*) => {
        $crate::say::tell(format_args!($($said)*))
    };
}
