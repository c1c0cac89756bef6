//! The real `Device` on the stand-in: the conformance suite of the kernels, as devices of compute capability 9.0 and
//! 8.0.

mod common;

use common::on_the_stand_in;
use duel_cuda::{Device, Settings};
use duel_kernel_tests::{Devices, suite};

struct StandIn;

impl Devices for StandIn {
    type Driver = Device;

    fn devices(&self) -> Vec<Device> {
        let settings = Settings { cache: None, ..Settings::default() };
        vec![Device::open_with(0, settings).unwrap_or_else(|error| panic!("{error}"))]
    }
}

macro_rules! conformance {
    ($($operation:ident),* $(,)?) => {
        $(
            #[test]
            fn $operation() {
                for capability in ["90", "80"] {
                    let variables = [("DUEL_STANDIN_CAPABILITY", capability)];
                    on_the_stand_in(stringify!($operation), &variables, || suite::$operation(&StandIn));
                }
            }
        )*
    };
}

conformance!(
    add,
    attention,
    attention_cached,
    attention_of_random_layouts,
    attention_rows,
    bias_dw,
    blend,
    clipped_steps,
    embed,
    gather,
    gather_random,
    gelu,
    gemm,
    gemm_gelu,
    gemm_parts,
    gemm_random,
    gemm_rows,
    gemm_strided,
    gemm_wide,
    head_chunk,
    kl,
    layernorm,
    logprob,
    logprob_random,
    logprob_strided,
    norm_random,
    optimizers,
    penalise,
    preference,
    qk_norm,
    repetition,
    rmsnorm,
    rope,
    sample,
    soft_cap,
    stochastic_rounding,
    sumsq,
    swiglu,
);
