//! Narrow maps beside wide ones: there are no kernels for them yet, and whoever adapts a model is told so before.

use crate::{Buf, Cuda, CudaReal, Driver};
use duel_backend::{Dropout, Gemm, LowRank};

const NONE: &str = "there are no kernels for low-rank maps: `LowRank::ADAPTS` says so";

impl<D: Driver, R: CudaReal> LowRank for Cuda<D, R> {
    fn gemm_onto(&self, _: &mut Buf<D, R>, _: usize, _: &Buf<D, R>, _: &Buf<D, R>, _: Gemm) {
        panic!("{NONE}");
    }

    fn gemm_dx_of(&self, _: &mut Buf<D, R>, _: &Buf<D, R>, _: usize, _: &Buf<D, R>, _: Gemm) {
        panic!("{NONE}");
    }

    fn gemm_dx_onto(&self, _: &mut Buf<D, R>, _: &Buf<D, R>, _: &Buf<D, R>, _: Gemm) {
        panic!("{NONE}");
    }

    fn gemm_dw_of(&self, _: &mut Buf<D, f32>, _: &Buf<D, R>, _: usize, _: &Buf<D, R>, _: Gemm) {
        panic!("{NONE}");
    }

    fn dropout(&self, _: &mut Buf<D, R>, _: &Buf<D, R>, _: &Buf<D, u32>, _: bool, _: Dropout) {
        panic!("{NONE}");
    }
}
