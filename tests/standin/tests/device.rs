//! What a `Device` promises besides its kernels, of the real one on the stand-in.

mod common;

use common::on_the_stand_in;
use duel_cuda::Device;
use duel_kernel_tests::device::Open;

fn run(test: &str, run: fn(&Open)) {
    on_the_stand_in(test, &[], || {
        run(&|settings| Device::open_with(0, settings).unwrap_or_else(|error| panic!("{error}")));
    });
}

duel_kernel_tests::device_tests!(run);
