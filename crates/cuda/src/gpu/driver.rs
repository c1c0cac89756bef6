//! A GPU as a driver.

use super::cublaslt::CublasLt;
use super::device::Device;
use super::error::{failed, failed_to_give};
use super::memory::DeviceMemory;
use super::nvrtc;
use super::tensor_map::encode;
use crate::library::LibraryProduct;
use crate::{Argument, Driver, Grid, Properties};
use cudarc::driver::CudaGraph;
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;
use duel_backend::{Error, Memory, Result};
use duel_kernels::sys::{TensorMap, TensorMapSpec};
use std::ffi::c_void;

/// Most parameters of a kernel: tensor maps and its struct.
const MOST_ARGUMENTS: usize = 4;

/// Work that repeats.
#[derive(Default)]
pub enum Recorded {
    /// It was not done yet.
    #[default]
    Nothing,
    /// It was done once: kernels are compiled, scratch memory is there.
    Seen,
    /// It is a graph, launched as a whole.
    Graph(CudaGraph),
}

impl Device {
    /// Keeps the first error until someone asks.
    fn keep(&self, done: Result<()>) {
        if let Err(error) = done {
            self.error.borrow_mut().get_or_insert(error);
        }
    }

    /// What an error at a point where the device was waited for says: it is not of a call but of the kernels.
    fn of_kernels(&self, error: DriverError) -> Error {
        let last = self.last_kernel.get();
        failed(&format!("in {last} or a kernel before it (CUDA_LAUNCH_BLOCKING=1 tells which)"), error)
    }

    fn take_error(&self) -> Result<()> {
        self.error.borrow_mut().take().map_or(Ok(()), Err)
    }

    /// # Safety
    /// As [`Driver::launch`].
    unsafe fn start(&self, kernel: &'static str, grid: Grid, arguments: &[Argument]) -> Result<()> {
        assert!(arguments.len() <= MOST_ARGUMENTS, "{kernel} has {} parameters", arguments.len());
        let mut addresses = [std::ptr::null::<c_void>(); MOST_ARGUMENTS];
        addresses.iter_mut().zip(arguments).for_each(|(address, argument)| *address = argument.address);
        let about = |e| failed(&format!("{kernel} in {grid:?}, or a kernel before it"), e);
        self.context.bind_to_thread().map_err(about)?;
        let function = self.kernels.function(kernel, grid.shared)?;
        let [blocks, threads] = [grid.blocks, grid.threads];
        self.last_kernel.set(kernel);
        // SAFETY: the function is loaded; the caller promises that the arguments are the kernel's. The driver copies
        // what they point to before it returns and writes nothing there.
        unsafe {
            sys::cuLaunchKernel(
                function.raw,
                blocks[0],
                blocks[1],
                blocks[2],
                threads[0],
                threads[1],
                threads[2],
                u32::try_from(grid.shared).unwrap_or(u32::MAX),
                self.stream.cu_stream(),
                addresses.as_ptr().cast_mut().cast(),
                std::ptr::null_mut(),
            )
        }
        .result()
        .map_err(about)
    }
}

impl Driver for Device {
    type Memory = DeviceMemory;
    type Recording = Recorded;

    fn describe(&self) -> String {
        let capability = self.properties.compute_capability;
        let products = match &self.library {
            Ok(_) => {
                let version = CublasLt::version();
                format!("products by cuBLASLt {}.{}", version / 10_000, version % 10_000 / 100)
            }
            Err(why) => format!("products by duel's own kernels ({why})"),
        };
        format!("{}, compute capability {}.{}, {products}", self.name, capability / 10, capability % 10)
    }

    fn identity(&self) -> String {
        let products = self.library.as_ref().map_or(0, |_| CublasLt::version());
        let compiler = nvrtc::version().unwrap_or_default();
        let capability = self.properties.compute_capability;
        format!("{}, {capability}, cuBLASLt {products}, NVRTC {compiler:?}", self.name)
    }

    fn properties(&self) -> Properties {
        self.properties
    }

    fn memory(&self) -> Memory {
        let free = self.context.mem_get_info().ok().map(|(free, _)| free as u64);
        Memory { free, used: None, peak: Some(self.usage.peak()) }
    }

    fn alloc(&self, bytes: usize) -> Result<DeviceMemory> {
        // The driver gives no address for nothing.
        let slice = self.stream.alloc_zeros(bytes.max(1)).map_err(|e| failed_to_give(bytes, e))?;
        Ok(DeviceMemory::new(slice, &self.stream, &self.usage))
    }

    fn address(&self, memory: &DeviceMemory) -> u64 {
        memory.address
    }

    fn upload(&self, dst: &mut DeviceMemory, offset: usize, src: &[u8]) {
        if src.is_empty() {
            return;
        }
        // SAFETY: the caller has checked the range.
        let done =
            unsafe { self.staging.borrow_mut().upload(&self.stream, dst.address + offset as u64, src) };
        self.keep(done.map_err(|e| failed("an upload, or a kernel before it", e)));
    }

    fn download(&self, dst: &mut [u8], src: &DeviceMemory, offset: usize) -> Result<()> {
        // SAFETY: the caller has checked the range.
        let done =
            unsafe { self.staging.borrow_mut().download(&self.stream, dst, src.address + offset as u64) };
        self.keep(done.map_err(|e| self.of_kernels(e)));
        self.take_error()
    }

    fn copy(&self, dst: &mut DeviceMemory, src: &DeviceMemory, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let stream = self.stream.cu_stream();
        // SAFETY: the caller has checked both lengths; the context is current, and its stream alive.
        let copy = |()| unsafe { result::memcpy_dtod_async(dst.address, src.address, bytes, stream) };
        let done = self.context.bind_to_thread().and_then(copy);
        self.keep(done.map_err(|e| failed("a copy", e)));
    }

    fn zero(&self, memory: &mut DeviceMemory, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let stream = self.stream.cu_stream();
        // SAFETY: the caller has checked the length; the context is current, and its stream alive.
        let set = |()| unsafe { result::memset_d8_async(memory.address, 0, bytes, stream) };
        let done = self.context.bind_to_thread().and_then(set);
        self.keep(done.map_err(|e| failed("setting memory to zero", e)));
    }

    fn tensor_map(&self, spec: &TensorMapSpec) -> TensorMap {
        encode(spec).unwrap_or_else(|e| panic!("tensor map of {spec:?}: {e}"))
    }

    unsafe fn launch(&self, kernel: &'static str, grid: Grid, arguments: &[Argument]) {
        // SAFETY: the caller's promise.
        let done = unsafe { self.start(kernel, grid, arguments) };
        self.keep(done);
    }

    unsafe fn library_product(&self, product: &LibraryProduct) -> bool {
        let Ok(library) = &self.library else { return false };
        if let Err(e) = self.context.bind_to_thread() {
            self.keep(Err(failed("a matrix product", e)));
            return true;
        }
        self.last_kernel.set("a product of cuBLASLt");
        // SAFETY: the caller's promise.
        match unsafe { library.start(product, &self.stream) } {
            Ok(done) => done,
            Err(e) => {
                let LibraryProduct { product, dims, .. } = product;
                self.keep(Err(Error::Device(format!(
                    "cuBLASLt, {product:?} of {dims:?}: {e}; DUEL_CUBLASLT=0 does without it"
                ))));
                true
            }
        }
    }

    fn repeat(&self, recording: &mut Recorded, mut work: impl FnMut()) {
        match recording {
            Recorded::Nothing => {
                work();
                // The legacy stream, which a program may have brought, cannot be captured.
                if !self.stream.cu_stream().is_null() {
                    *recording = Recorded::Seen;
                }
            }
            Recorded::Seen => {
                let about = |e| failed("recording work that repeats", e);
                let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
                if let Err(e) = self.stream.begin_capture(mode) {
                    return self.keep(Err(about(e)));
                }
                let before = self.error.take();
                work();
                let failed_in_it = self.error.replace(before);
                match self.stream.end_capture(sys::CUgraphInstantiate_flags(0)) {
                    // What failed on the way is not in the graph, so it is no recording of the work.
                    Ok(Some(_)) if failed_in_it.is_some() => self.keep(failed_in_it.map_or(Ok(()), Err)),
                    Ok(Some(graph)) => {
                        self.last_kernel.set("recorded work");
                        self.keep(graph.launch().map_err(about));
                        *recording = Recorded::Graph(graph);
                    }
                    // Nothing was done, so nothing has to be repeated.
                    Ok(None) => {}
                    // What others do with the GPU meanwhile, or a thread of this program, can end a recording; of what
                    // was in it nothing was done. The next time may be better.
                    Err(DriverError(sys::CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED)) => work(),
                    Err(e) => self.keep(Err(about(e))),
                }
            }
            Recorded::Graph(graph) => {
                self.last_kernel.set("recorded work");
                self.keep(graph.launch().map_err(|e| failed("work that repeats", e)));
            }
        }
    }

    fn finish(&self) -> Result<()> {
        self.keep(self.stream.synchronize().map_err(|e| self.of_kernels(e)));
        self.take_error()
    }
}
