#![doc = include_str!("../README.md")]

pub mod grammar;
pub mod recipe;
pub mod sentiment;
pub mod study;
pub mod table;
pub mod theorem;
pub mod truth;
pub mod world;
