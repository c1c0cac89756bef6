//! What the GPU benchmark calls, small, on the emulation: its buffers are as large as the launch code asks for.

use duel_cuda::Cuda;
use duel_kernel_tests::{Emulation, Schedule};
use half::bf16;

#[test]
fn every_benchmark_runs() {
    duel_benches::prepare::try_all(&Cuda::<_, bf16>::new(Emulation::new(Schedule::ALL[0])));
}
