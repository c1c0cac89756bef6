#![doc = include_str!("../README.md")]

mod attention;
mod buffer;
mod decode;
mod driver;
mod feed_forward;
mod gather;
mod gpu;
mod grid;
mod library;
mod logprob;
mod low_rank;
mod maps;
mod norm;
mod preference;
mod product;
mod reduce;
mod repetition;
mod sample;
mod scratch;
mod squares;
mod storage;
mod tiles;
mod update;
mod variants;

use duel_backend::{Backend, Error, Float, Portions};
use duel_kernels::sys::TensorMap;
use half::bf16;
use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use tiles::TileLists;
use variants::Variants;

pub use buffer::Buffer;
pub use driver::{Argument, Driver, Grid, Properties};
pub use duel_kernels::sys;
pub use gpu::{
    Device, DeviceMemory, FABRIC_ID, Fabric, Recorded, Settings, compile, device_id, devices, has_driver,
    load_libraries, nvrtc_version,
};
pub use library::{Epilogue, LibraryProduct, Product};
pub use repetition::Recording;
pub use update::Rounding;

/// What weights and activations can be stored in.
pub trait CudaReal: Float {
    /// The one of two kernels that works on this type.
    fn kernel(f32: &'static str, bf16: &'static str) -> &'static str;
}

impl CudaReal for f32 {
    fn kernel(f32: &'static str, _: &'static str) -> &'static str {
        f32
    }
}

impl CudaReal for bf16 {
    fn kernel(_: &'static str, bf16: &'static str) -> &'static str {
        bf16
    }
}

/// Name of an operation's kernel for a type: `kernel!(R, "gelu")` is `"gelu_f32"` or `"gelu_bf16"`.
macro_rules! kernel {
    ($real:ty, $operation:literal) => {
        <$real as $crate::CudaReal>::kernel(concat!($operation, "_f32"), concat!($operation, "_bf16"))
    };
}
use kernel;

/// The CUDA backend on a driver `D`, with weights and activations stored as `R`; sums, statistics and gradients of
/// weights are `f32`.
pub struct Cuda<D: Driver, R> {
    driver: D,
    properties: Properties,
    /// Memory for what one verb passes from kernel to kernel; grows to the largest need and stays.
    scratch: RefCell<Option<Buffer<D::Memory, u8>>>,
    /// How often the scratch memory went to another place: what was recorded before points to the old one.
    scratch_moves: Cell<u64>,
    /// What failed in a verb first since that was last asked for.
    failure: RefCell<Option<Error>>,
    /// Whether the work of a repetition is being done.
    repeating: Cell<bool>,
    variants: Variants,
    tile_lists: RefCell<TileLists<D>>,
    rounding: Cell<Rounding>,
    real: PhantomData<R>,
}

/// A buffer on the CUDA backend.
pub(crate) type Buf<D, T> = Buffer<<D as Driver>::Memory, T>;

impl<D: Driver, R: CudaReal> Cuda<D, R> {
    /// What [`Backend::portions`] says on every GPU.
    pub const PORTIONS: Portions = Portions { tokens: 8 << 10, logits_bytes: 1 << 30, logits_multiple: 64 };

    /// The backend on a device.
    pub fn new(driver: D) -> Self {
        let properties = driver.properties();
        Cuda {
            driver,
            properties,
            scratch: RefCell::new(None),
            scratch_moves: Cell::default(),
            failure: RefCell::default(),
            repeating: Cell::default(),
            variants: Variants::of(R::DTYPE, properties.compute_capability),
            tile_lists: RefCell::default(),
            rounding: Cell::default(),
            real: PhantomData,
        }
    }

    /// The device.
    pub fn driver(&self) -> &D {
        &self.driver
    }

    /// Starts a kernel of one params struct.
    ///
    /// # Safety
    /// `params` is the struct that the kernel of this name takes; its addresses are of live buffers that are as large
    /// as the kernel needs for the sizes in it.
    pub(crate) unsafe fn launch<P>(&self, kernel: &'static str, grid: Grid, params: &P) {
        // SAFETY: the caller's promise; without tensor maps the struct is the only argument.
        unsafe { self.launch_with_maps(kernel, grid, &[], params) };
    }

    /// Starts a kernel of tensor maps and, after them, one params struct.
    ///
    /// # Safety
    /// As [`Cuda::launch`]; the maps are those that the kernel takes, in order, of live buffers.
    pub(crate) unsafe fn launch_with_maps<P>(
        &self,
        kernel: &'static str,
        grid: Grid,
        maps: &[TensorMap],
        params: &P,
    ) {
        let mut arguments: Vec<Argument> = maps.iter().map(Argument::of).collect();
        arguments.push(Argument::of(params));
        // SAFETY: the caller's promise.
        unsafe { self.driver.launch(kernel, grid, &arguments) };
    }
}

impl<D: Driver, R: CudaReal> Backend for Cuda<D, R> {
    fn rehearse<E>(&self, pass: impl FnOnce() -> std::result::Result<(), E>) -> std::result::Result<(), E> {
        pass()
    }

    fn describe(&self) -> String {
        format!("{}, {:?}", self.driver.describe(), R::DTYPE)
    }

    fn identity(&self) -> String {
        format!("{}, {:?}", self.driver.identity(), R::DTYPE)
    }

    fn portions(&self) -> Portions {
        Self::PORTIONS
    }
}
