//! NVIDIA GPUs as a [`Driver`](crate::Driver): everything that calls a library of CUDA.

mod cache;
mod checks;
mod cublaslt;
mod device;
mod driver;
mod error;
mod kernels;
mod libraries;
mod memory;
mod nccl;
mod nvrtc;
mod staging;
mod tensor_map;

pub use checks::{device_id, devices, has_driver, load_libraries};
pub use device::{Device, Settings};
pub use driver::Recorded;
pub use memory::DeviceMemory;
pub use nccl::{FABRIC_ID, Fabric};
pub use nvrtc::{compile, version as nvrtc_version};
