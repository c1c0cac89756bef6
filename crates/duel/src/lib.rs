#![doc = include_str!("../README.md")]

pub mod arguments;
pub mod device;
pub mod launch;
