#![doc = include_str!("../README.md")]

mod attention;
mod blocks;
mod decode;
mod dots;
mod feed_forward;
mod gather;
mod gemm;
mod logprob;
mod norm;
mod preference;
mod product;
mod real;
mod reduce;
mod repetition;
mod sample;
mod simd;
mod softmax;
mod storage;
mod sync;
mod update;

use duel_backend::Backend;
use gemm::HasKernel;
pub use real::{Real, Scalar};
pub use simd::{Isa, instruction_set};
use std::marker::PhantomData;
use sync::Pool;

/// The CPU backend, with weights and activations stored as `R`.
///
/// `Cpu<f32>` is the default device, `Cpu<f64>` the reference for gradient checks, `Cpu<bf16>` a yardstick of
/// rounding: it stores bf16 and sums in f32.
pub struct Cpu<R = f32> {
    pool: Pool,
    real: PhantomData<R>,
}

impl<R: Real> Cpu<R> {
    /// A backend on `threads` threads; 0 means one for each core. Results do not depend on the number.
    pub fn new(threads: usize) -> Self {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        Cpu { pool: Pool::new(if threads == 0 { cores() } else { threads }), real: PhantomData }
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Runs `f` on a thread of the backend's pool. Verbs called from there start without a hand-over between
    /// threads, which is worth it for small models; the results are the same.
    pub fn install<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        self.pool.install(f)
    }
}

impl<R: Real> Backend for Cpu<R>
where
    R::Acc: HasKernel,
{
    fn describe(&self) -> String {
        format!("CPU, {} thread(s), {}, {:?}", self.threads(), simd::isa(), R::DTYPE)
    }

    fn identity(&self) -> String {
        // Not the threads, and not the instruction set: AVX2 and AVX-512 sum in one order.
        format!("CPU, {:?}", R::DTYPE)
    }
}
