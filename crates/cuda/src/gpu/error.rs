//! What the driver's errors say to people.

use cudarc::driver::result::DriverError;
use cudarc::driver::sys::CUresult;
use duel_backend::Error;

/// What the driver says about an error.
pub(super) fn explain(error: DriverError) -> String {
    let text = error.error_string().map(|text| text.to_string_lossy().into_owned()).unwrap_or_default();
    format!("{text} ({:?})", error.0)
}

pub(super) fn failed(what: &str, error: DriverError) -> Error {
    Error::Device(format!("{what}: {}", explain(error)))
}

/// An error of a call that asks for so much memory.
pub(super) fn failed_to_give(bytes: usize, error: DriverError) -> Error {
    match error.0 {
        CUresult::CUDA_ERROR_OUT_OF_MEMORY => Error::OutOfMemory { bytes },
        _ => failed(&format!("{bytes} bytes of memory"), error),
    }
}
