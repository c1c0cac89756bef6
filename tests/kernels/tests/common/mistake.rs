//! The kernels of `mistakes.cu`.

use duel_backend::Error;
use duel_cuda::{Argument, Driver, Grid};
use duel_kernel_tests::{Emulation, Schedule};
use std::ffi::c_void;

/// The parameter struct of `mistakes.cu`.
#[repr(C)]
struct MistakeParams {
    out: *mut c_void,
    input: *const c_void,
}

/// Bytes of each buffer of a mistake: 128 floats.
const BYTES: usize = 512;

/// Runs a kernel of `mistakes.cu` and gives what the emulation says about it.
pub fn run(kernel: &'static str, threads: u32, schedule: Schedule) -> Result<(), String> {
    let driver = Emulation::new(schedule);
    let out = driver.alloc(BYTES).expect("room for a test");
    let input = driver.alloc(BYTES).expect("room for a test");
    let params = MistakeParams {
        out: driver.address(&out) as *mut c_void,
        input: driver.address(&input) as *const c_void,
    };
    let grid = Grid::linear(1, threads).with_shared(1024);
    // SAFETY: the kernels take MistakeParams and touch at most 512 bytes behind each pointer.
    unsafe { driver.launch(kernel, grid, &[Argument::of(&params)]) };
    driver.finish().map_err(|e| match e {
        Error::Device(message) => message,
        other => panic!("{other}"),
    })
}

/// `mistakes.cu:N`, N the line that is marked with the kernel's name.
pub fn place(kernel: &str) -> String {
    let text = include_str!("../../cu/mistakes.cu");
    let mark = format!("// HERE {kernel}");
    let line = text.lines().position(|line| line.ends_with(&mark)).expect("the line is marked");
    format!("mistakes.cu:{}", line + 1)
}

/// Threads that a kernel was compiled for.
pub fn threads(kernel: &str) -> u32 {
    let all = Emulation::kernels();
    all.iter().find(|(name, _)| name == kernel).expect("a kernel of the tests").1
}
