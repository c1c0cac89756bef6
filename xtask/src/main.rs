//! Runs cargo and the duel binary: no trainer code lives here.
fn main() {}
