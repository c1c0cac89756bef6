#![doc = include_str!("../README.md")]

pub mod ceiling;
pub mod gpu;
pub mod markdown;
pub mod models;
pub mod pair;
pub mod prepare;
pub mod scaling;
pub mod step;
pub mod verb;

/// Reproducible numbers in (-1, 1): never zeros, which some hardware handles faster.
pub fn values(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// Reproducible numbers below `bound`.
///
/// # Panics
/// When `bound` is zero.
pub fn indices(n: usize, bound: usize, seed: u64) -> Vec<u32> {
    let unit = |x: f32| f64::from(x).mul_add(0.5, 0.5);
    assert!(bound > 0, "nothing lies below zero");
    values(n, seed).into_iter().map(|x| ((unit(x) * bound as f64) as usize).min(bound - 1) as u32).collect()
}

/// Threads that every benchmark runs on unless it says otherwise: one for each core.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
