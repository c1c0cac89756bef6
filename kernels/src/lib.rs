#![no_std]
#![doc = include_str!("../README.md")]

mod bytes;
pub mod sys;
mod table;

pub use bytes::{cached_bytes, column_sums_bytes, logprob_bytes, norm_bytes, norm_sums_bytes};
pub use table::{KERNELS, Kernel, Target};

/// A file of this package, as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its name, as the others include it.
    pub name: &'static str,
    /// What is in it.
    pub text: &'static str,
}

macro_rules! sources {
    ($($name:literal),* $(,)?) => {
        &[$(Source { name: $name, text: include_str!(concat!("../", $name)) }),*]
    };
}

/// What the compilation units include.
pub const HEADERS: &[Source] =
    sources!["params.h", "ptx.cuh", "common.cuh", "activation.cuh", "linear.cuh", "attention.cuh"];

/// The compilation units.
pub const SOURCES: &[Source] = sources![
    "attention.cu",
    "attention_decode.cu",
    "attention_sm90.cu",
    "gather.cu",
    "gelu.cu",
    "linear.cu",
    "linear_sm90.cu",
    "logprob.cu",
    "norm.cu",
    "optimizer.cu",
    "preference.cu",
    "reduce.cu",
    "rope.cu",
    "sample.cu",
    "swiglu.cu"
];

/// What the host emulation needs in addition.
pub const EMULATION: &[Source] = sources!["host/simt.h", "host/simt.cpp"];
