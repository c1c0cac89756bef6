#![doc = include_str!("../README.md")]

pub mod grammar;
pub mod reward;
pub mod sentiment;
pub mod truth;
