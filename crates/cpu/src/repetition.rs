//! Work that repeats, which the CPU does each time anew.

use crate::Cpu;
use crate::real::Real;
use duel_backend::Repetition;

impl<R: Real> Repetition for Cpu<R> {
    type Recording = ();
}
