//! What calls the trainer itself, in double precision: in one program, since it takes a minute to compile.

#[path = "../common/mod.rs"]
mod common;

mod cuda;
mod online;
mod parity;
mod ranks;
