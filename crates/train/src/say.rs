//! What a run tells people: the first process alone does.

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

/// Tells people a line, unless this thread is hushed. A run does not end because nobody can read it: its terminal may
/// be gone, its log on a disk that is full.
pub fn tell(line: Arguments<'_>) {
    if !is_hushed() {
        drop(writeln!(stderr(), "{line}"));
    }
}

/// [`tell`], in the words of `eprintln!`.
#[macro_export]
macro_rules! say {
    ($($said:tt)*) => {
        $crate::tell(format_args!($($said)*))
    };
}
