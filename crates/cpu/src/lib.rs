#![doc = include_str!("../README.md")]

mod attention;
mod decode;
mod dots;
mod feed_forward;
mod gather;
mod gemm;
mod logprob;
mod low_rank;
mod memory;
mod norm;
mod normal;
mod pages;
mod preference;
mod prefetch;
mod product;
mod real;
mod reduce;
mod repetition;
mod sample;
mod simd;
mod softmax;
mod storage;
mod stream;
mod sync;
mod update;
mod workers;

use duel_backend::{Backend, Dtype};
use gemm::HasKernel;
pub use pages::reserved;
pub use real::{Real, Scalar};
pub use simd::{Isa, instruction_set};
use std::marker::PhantomData;
use sync::Pool;

/// The CPU backend, with weights and activations stored as `R`.
///
/// `Cpu<f32>` is the default device, `Cpu<f64>` the reference for gradient checks, `Cpu<bf16>` stores bf16 and sums in
/// f32: by an instruction where the CPU has AMX or AVX512-BF16. Without AMX, or where `DUEL_ISA` leaves it out, the
/// arithmetic is the same on every machine; AMX has its own.
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
}

impl<R: Real> Backend for Cpu<R>
where
    R::Acc: HasKernel,
{
    fn describe(&self) -> String {
        let products = match (R::DTYPE, simd::isa()) {
            (Dtype::Bf16, Isa::Amx) => ", products by AMX",
            (Dtype::Bf16, _) if gemm::pairs_are_fast() => ", products by AVX512-BF16",
            (Dtype::Bf16, _) => ", products in software: slower than float32",
            _ => "",
        };
        format!("CPU, {} thread(s), {}, {:?}{products}", self.threads(), simd::isa(), R::DTYPE)
    }

    fn identity(&self) -> String {
        // Not the threads, and not which vectors there are: AVX2 and AVX-512 sum in one order, with the same roundings.
        let how = match (R::DTYPE, simd::isa()) {
            (_, Isa::Baseline) => ", unfused",
            (Dtype::Bf16, Isa::Amx) => ", in tiles",
            _ => "",
        };
        format!("CPU, {:?}, sums in order{how}", R::DTYPE)
    }
}
