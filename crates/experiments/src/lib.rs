#![doc = include_str!("../README.md")]

pub mod cycle;
pub mod grammar;
pub mod recipe;
pub mod sentiment;
pub mod study;
pub mod table;
pub mod tournament;
pub mod truth;
pub mod world;
