//! The conformance suite: a function an operation, over the shapes where kernels go wrong.
//!
//! Each takes the devices to run on; [`conformance!`](crate::conformance) makes a test of every one.

mod attention;
mod feed_forward;
mod gather;
mod logprob;
mod norm;
mod preference;
mod product;
mod reduce;
mod repetition;
mod rope;
mod sample;
mod update;

use crate::{Devices, Operation, check};
use half::bf16;
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

pub use attention::{attention, attention_cached, attention_of_random_layouts, attention_rows};
pub use feed_forward::{gelu, swiglu};
pub use gather::{embed, gather, gather_random};
pub use logprob::{kl, logprob, logprob_random, logprob_strided, soft_cap};
pub use norm::{add, layernorm, norm_random, qk_norm, rmsnorm};
pub use preference::{head_chunk, preference};
pub use product::{gemm, gemm_gelu, gemm_parts, gemm_random, gemm_rows, gemm_strided, gemm_wide};
pub use reduce::{bias_dw, sumsq};
pub use repetition::repetition;
pub use rope::rope;
pub use sample::{blend, penalise, sample};
pub use update::{clipped_steps, optimizers, stochastic_rounding};

/// Checks an operation in f32 and in bf16.
fn check_both(devices: &impl Devices, operation: &impl Operation) {
    check::<f32>(devices, operation);
    check::<bf16>(devices, operation);
}

/// Runs `test` on random values of a strategy, the same ones every time.
fn for_random<S: Strategy>(cases: u32, strategy: S, test: impl Fn(S::Value)) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let done = TestRunner::new_with_rng(config, random).run(&strategy, |value| {
        test(value);
        Ok(())
    });
    done.unwrap_or_else(|e| panic!("{e}"));
}

/// A test of every function of the suite, on the devices of an expression.
#[macro_export]
macro_rules! conformance {
    ($devices:expr) => {
        $crate::conformance!($devices; add, attention, attention_cached, attention_of_random_layouts, attention_rows, bias_dw, blend, clipped_steps, embed, gather, gather_random, gelu, gemm, gemm_gelu, gemm_parts, gemm_random, gemm_rows, gemm_strided, gemm_wide, head_chunk, kl, layernorm, logprob, logprob_random, logprob_strided, norm_random, optimizers, penalise, preference, qk_norm, repetition, rmsnorm, rope, sample, soft_cap, stochastic_rounding, sumsq, swiglu);
    };
    ($devices:expr; $($operation:ident),* $(,)?) => {
        $(
            #[test]
            fn $operation() {
                let devices = $devices;
                match $crate::Devices::absent(&devices) {
                    None => $crate::suite::$operation(&devices),
                    Some(reason) => $crate::skip(stringify!($operation), &reason, "REQUIRE_CUDA"),
                }
            }
        )*
    };
}
