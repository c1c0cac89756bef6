#![doc = include_str!("../README.md")]

pub mod cycle;
pub mod frontier;
mod gaussian;
pub mod grammar;
pub mod recipe;
mod runs;
pub mod scene;
pub mod sentiment;
pub mod study;
pub mod table;
pub mod theorem;
pub mod tournament;
pub mod truth;
pub mod world;
mod written;
