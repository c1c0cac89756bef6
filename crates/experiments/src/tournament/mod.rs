//! Policies against each other.

pub mod bandit;
pub mod game;
pub mod mixture;
