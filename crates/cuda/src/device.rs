//! A GPU as a driver.

use crate::{Driver, Grid, Properties, cache, nvrtc};
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUdevice_attribute, CUfunction_attribute, CUresult};
use cudarc::driver::{CudaContext, CudaSlice, CudaStream, DevicePtr};
use duel_backend::{Error, Result};
use duel_kernels::sys::{TensorMap, TensorMapSpec};
use duel_kernels::{KERNELS, SOURCES};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::path::PathBuf;
use std::sync::Arc;

/// The least compute capability that the kernels run on.
const LEAST_CAPABILITY: u32 = 80;
/// Dynamic shared memory that a block can have without asking for more, in bytes.
const SHARED_UNASKED: usize = 48 << 10;

/// An NVIDIA GPU of compute capability 8.0 or more: its memory, and one stream on which everything happens in order.
///
/// NVRTC compiles the kernels of a source for exactly this device when the first of them is launched; the machine code is
/// kept on disk. Nothing of CUDA is linked: libcuda and libnvrtc are looked for when a device is opened.
///
/// An upload and a download wait for all work before them; everything else returns when it is queued.
pub struct Device {
    name: String,
    properties: Properties,
    /// Where compiled kernels are kept.
    cache: Option<PathBuf>,
    functions: RefCell<HashMap<&'static str, Function>>,
    /// By the name of the source.
    modules: RefCell<HashMap<&'static str, Module>>,
    /// What went wrong first since that was last asked for.
    error: RefCell<Option<String>>,
    last_kernel: Cell<&'static str>,
    stream: Arc<CudaStream>,
    context: Arc<CudaContext>,
}

/// Memory of a [`Device`].
pub struct DeviceMemory(CudaSlice<u8>);

/// Machine code on the device.
struct Module {
    raw: sys::CUmodule,
    context: Arc<CudaContext>,
}

impl Drop for Module {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_ok() {
            // SAFETY: the module is loaded; `Device` has waited for its kernels and drops its functions with it. A
            // failure leaves a module that goes with the context.
            _ = unsafe { result::module::unload(self.raw) };
        }
    }
}

/// A kernel on the device.
#[derive(Clone, Copy)]
struct Function {
    raw: sys::CUfunction,
    /// Dynamic shared memory that a block can have, in bytes.
    shared: usize,
}

// ---- errors ----------------------------------------------------------------------------------------------------------

/// What the driver says about an error.
fn explain(error: DriverError) -> String {
    let text = error.error_string().map(|text| text.to_string_lossy().into_owned()).unwrap_or_default();
    format!("{text} ({:?})", error.0)
}

fn failed(what: &str, error: DriverError) -> Error {
    Error::Device(format!("{what}: {}", explain(error)))
}

/// # Errors
/// When a library is missing: names all that are, and where they were looked for.
fn check_libraries() -> Result<()> {
    // SAFETY: loads the driver's library by name; its initialisers ask nothing of who loads it.
    let driver = unsafe { sys::is_culib_present() };
    let mut missing = Vec::new();
    if !driver {
        missing.push(
            "libcuda, which comes with the NVIDIA driver, is not on the loader path (LD_LIBRARY_PATH, ldconfig)"
                .to_string(),
        );
    }
    match nvrtc::load() {
        Err(Error::Device(what)) => missing.push(what),
        other => other?,
    }
    if missing.is_empty() { Ok(()) } else { Err(Error::Device(missing.join("; "))) }
}

/// Why `cuInit` failed, with what to look at.
fn explain_init(error: DriverError) -> Error {
    let hint = match error.0 {
        CUresult::CUDA_ERROR_NO_DEVICE => {
            "the NVIDIA driver is here, but it sees no device; CUDA_VISIBLE_DEVICES may hide it"
        }
        CUresult::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH => {
            "libcuda and the driver of the kernel are of two versions"
        }
        _ => "the NVIDIA driver does not start",
    };
    failed(hint, error)
}

/// # Errors
/// When the driver is of an older CUDA than the compiler, whose code it then does not load ("CUDA Compatibility", NVIDIA:
/// code runs on drivers of its own major version and later ones). `driver` is `1000 * major + 10 * minor`.
fn check_versions(driver: i32, [major, minor]: [i32; 2]) -> Result<()> {
    if driver / 1000 >= major {
        return Ok(());
    }
    Err(Error::Device(format!(
        "the driver is of CUDA {}.{}, and libnvrtc of CUDA {major}.{minor}: a newer driver is needed",
        driver / 1000,
        driver % 1000 / 10
    )))
}

/// # Errors
/// When the kernels do not run on such a device.
fn check_capability(name: &str, capability: u32) -> Result<()> {
    if capability >= LEAST_CAPABILITY {
        return Ok(());
    }
    Err(Error::Device(format!(
        "{name} is of compute capability {}.{}; the kernels need 8.0 or more",
        capability / 10,
        capability % 10
    )))
}

// ---- opening ---------------------------------------------------------------------------------------------------------

impl Device {
    /// Opens a device by its number, counted from 0 as the driver counts those that it shows; compiled kernels are kept
    /// in `duel/kernels` of the user's cache folder (`XDG_CACHE_HOME`, or `.cache` in `HOME`).
    ///
    /// # Errors
    /// When libcuda or libnvrtc is missing, when there is no such device, or when it is too old.
    pub fn open(number: usize) -> Result<Self> {
        Self::with_cache(number, cache::default_folder(|name| std::env::var_os(name)))
    }

    /// The same with another folder for compiled kernels; without one every process compiles those that it uses.
    ///
    /// # Errors
    /// As [`Device::open`].
    pub fn with_cache(number: usize, cache: Option<PathBuf>) -> Result<Self> {
        check_libraries()?;
        let count = CudaContext::device_count().map_err(explain_init)?;
        if !usize::try_from(count).is_ok_and(|count| number < count) {
            return Err(Error::Device(format!(
                "there is no device {number}: the NVIDIA driver shows {count}"
            )));
        }
        check_versions(driver_version()?, nvrtc::version()?)?;

        let about = |e| failed(&format!("device {number} cannot be opened"), e);
        let context = CudaContext::new(number).map_err(about)?;
        let name = context.name().map_err(about)?;
        let attribute = |which| context.attribute(which).map(|value| value.unsigned_abs()).map_err(about);
        let major = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        let properties = Properties {
            compute_capability: 10 * major + minor,
            multiprocessors: attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            max_shared: attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?
                as usize,
        };
        check_capability(&name, properties.compute_capability)?;

        // SAFETY: all memory of this context is used on the one stream that follows, so no events need to order it.
        unsafe { context.disable_event_tracking() };
        let stream = context.new_stream().map_err(about)?;
        Ok(Device {
            name,
            properties,
            cache,
            functions: RefCell::default(),
            modules: RefCell::default(),
            error: RefCell::default(),
            last_kernel: Cell::default(),
            stream,
            context,
        })
    }
}

/// The CUDA that the driver is of: `1000 * major + 10 * minor`.
fn driver_version() -> Result<i32> {
    let mut version = 0;
    // SAFETY: the library is present (`check_libraries`), and the number lives through the call.
    let done = unsafe { sys::cuDriverGetVersion(&mut version) };
    done.result().map_err(|e| failed("the version of the NVIDIA driver", e))?;
    Ok(version)
}

impl Drop for Device {
    fn drop(&mut self) {
        // Kernels end before their code is unloaded. An error that nobody asked for is nobody's any more.
        _ = self.stream.synchronize();
    }
}

// ---- kernels ---------------------------------------------------------------------------------------------------------

impl Device {
    /// Compiles a source and loads it.
    fn load(&self, source: &str) -> Result<Module> {
        let source = SOURCES.iter().find(|s| s.name == source).expect("the table of kernels names sources");
        let code = cache::cubin(self.cache.as_deref(), source, self.properties.compute_capability)?;
        let about = |e| failed(&format!("{} cannot be loaded", source.name), e);
        self.context.bind_to_thread().map_err(about)?;
        // SAFETY: the context is current, and the code is a whole CUBIN: of the compiler, or with a right checksum.
        let raw = unsafe { result::module::load_data(code.as_ptr().cast()) }.map_err(about)?;
        Ok(Module { raw, context: self.context.clone() })
    }

    /// The kernel of this name, its source compiled and loaded if it is the first of it.
    fn find(&self, kernel: &'static str) -> Result<Function> {
        let entry = KERNELS.iter().find(|k| k.name == kernel);
        let entry = entry.ok_or_else(|| Error::Device(format!("there is no kernel {kernel}")))?;
        let mut modules = self.modules.borrow_mut();
        if !modules.contains_key(entry.source) {
            modules.insert(entry.source, self.load(entry.source)?);
        }
        let name = CString::new(kernel).expect("a kernel's name has no zero in it");
        // SAFETY: the module is loaded and lives as long as the device.
        let raw = unsafe { result::module::get_function(modules[entry.source].raw, name) };
        let raw = raw.map_err(|e| failed(&format!("{kernel} of {}", entry.source), e))?;
        Ok(Function { raw, shared: SHARED_UNASKED })
    }

    /// The kernel of this name, allowed so much dynamic shared memory a block.
    fn function(&self, kernel: &'static str, shared: usize) -> Result<Function> {
        let known = self.functions.borrow().get(kernel).copied();
        let mut function = match known {
            Some(function) if function.shared >= shared => return Ok(function),
            Some(function) => function,
            None => self.find(kernel)?,
        };
        if function.shared < shared {
            let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            let bytes = i32::try_from(shared).unwrap_or(i32::MAX);
            // SAFETY: the function's module is loaded and lives as long as the device.
            unsafe { result::function::set_function_attribute(function.raw, attribute, bytes) }
                .map_err(|e| failed(&format!("{kernel} with {shared} bytes of shared memory"), e))?;
            function.shared = shared;
        }
        self.functions.borrow_mut().insert(kernel, function);
        Ok(function)
    }

    /// # Safety
    /// As [`Driver::launch`].
    unsafe fn start(&self, kernel: &'static str, grid: Grid, arguments: &[*const c_void]) -> Result<()> {
        let about = |e| failed(&format!("{kernel} in {grid:?}, or a kernel before it"), e);
        self.context.bind_to_thread().map_err(about)?;
        let function = self.function(kernel, grid.shared)?;
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
                arguments.as_ptr().cast_mut().cast(),
                std::ptr::null_mut(),
            )
        }
        .result()
        .map_err(about)
    }
}

// ---- the driver ------------------------------------------------------------------------------------------------------

impl Device {
    /// Keeps the first error until someone asks.
    fn keep(&self, done: Result<()>) {
        if let Err(Error::Device(message)) = done {
            self.error.borrow_mut().get_or_insert(message);
        }
    }

    /// Waits for all work; what went wrong in it is not of a call but of the kernels.
    fn wait(&self) {
        let done = self.stream.synchronize().map_err(|e| {
            let last = self.last_kernel.get();
            failed(&format!("in {last} or a kernel before it (CUDA_LAUNCH_BLOCKING=1 tells which)"), e)
        });
        self.keep(done);
    }
}

impl Driver for Device {
    type Memory = DeviceMemory;

    fn describe(&self) -> String {
        let capability = self.properties.compute_capability;
        format!("{}, compute capability {}.{}", self.name, capability / 10, capability % 10)
    }

    fn properties(&self) -> Properties {
        self.properties
    }

    fn alloc(&self, bytes: usize) -> Result<DeviceMemory> {
        // The driver gives no address for nothing.
        let memory = self.stream.alloc_zeros(bytes.max(1)).map_err(|e| match e.0 {
            CUresult::CUDA_ERROR_OUT_OF_MEMORY => Error::OutOfMemory { bytes },
            _ => failed(&format!("{bytes} bytes of memory"), e),
        })?;
        Ok(DeviceMemory(memory))
    }

    fn address(&self, memory: &DeviceMemory) -> u64 {
        let (address, _no_event) = memory.0.device_ptr(&self.stream);
        address
    }

    fn upload(&self, dst: &mut DeviceMemory, offset: usize, src: &[u8]) {
        if src.is_empty() {
            return;
        }
        let mut there = dst.0.slice_mut(offset..offset + src.len());
        let done = self.stream.memcpy_htod(src, &mut there);
        self.keep(done.map_err(|e| failed("an upload", e)));
        // The driver may still be reading the caller's memory.
        self.wait();
    }

    fn download(&self, dst: &mut [u8], src: &DeviceMemory, offset: usize) -> Result<()> {
        if !dst.is_empty() {
            let there = src.0.slice(offset..offset + dst.len());
            let done = self.stream.memcpy_dtoh(&there, dst);
            self.keep(done.map_err(|e| failed("a download", e)));
        }
        self.finish()
    }

    fn copy(&self, dst: &mut DeviceMemory, src: &DeviceMemory, bytes: usize) {
        if bytes > 0 {
            let done = self.stream.memcpy_dtod(&src.0.slice(..bytes), &mut dst.0.slice_mut(..bytes));
            self.keep(done.map_err(|e| failed("a copy", e)));
        }
    }

    fn zero(&self, memory: &mut DeviceMemory, bytes: usize) {
        if bytes > 0 {
            let done = self.stream.memset_zeros(&mut memory.0.slice_mut(..bytes));
            self.keep(done.map_err(|e| failed("setting memory to zero", e)));
        }
    }

    fn tensor_map(&self, spec: &TensorMapSpec) -> TensorMap {
        encode(spec).unwrap_or_else(|e| panic!("tensor map of {spec:?}: {e}"))
    }

    unsafe fn launch(&self, kernel: &'static str, grid: Grid, arguments: &[*const c_void]) {
        // SAFETY: the caller's promise.
        let done = unsafe { self.start(kernel, grid, arguments) };
        self.keep(done);
    }

    fn finish(&self) -> Result<()> {
        self.wait();
        self.error.borrow_mut().take().map_or(Ok(()), |e| Err(Error::Device(e)))
    }
}

/// A tensor map as the driver encodes it: elements beside each other, and zeros for those outside.
fn encode(spec: &TensorMapSpec) -> std::result::Result<TensorMap, String> {
    use sys::{CUtensorMapDataType as Type, CUtensorMapSwizzle as Swizzle};
    if !(2..=3).contains(&spec.rank) {
        return Err(format!("rank {}, which is neither 2 nor 3", spec.rank));
    }
    let element = match spec.element_bytes {
        2 => Type::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
        4 => Type::CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
        other => return Err(format!("elements of {other} bytes")),
    };
    let swizzle = match spec.swizzle_bytes {
        0 => Swizzle::CU_TENSOR_MAP_SWIZZLE_NONE,
        32 => Swizzle::CU_TENSOR_MAP_SWIZZLE_32B,
        64 => Swizzle::CU_TENSOR_MAP_SWIZZLE_64B,
        128 => Swizzle::CU_TENSOR_MAP_SWIZZLE_128B,
        other => return Err(format!("a swizzle of {other} bytes")),
    };
    let mut map = sys::CUtensorMap { opaque: [0; 16] };
    // SAFETY: a device is open, so the library is present; everything lives through the call, and the lists are as long
    // as the rank asks for.
    unsafe {
        sys::cuTensorMapEncodeTiled(
            &mut map,
            element,
            spec.rank,
            spec.base as *mut c_void,
            spec.extents.as_ptr(),
            spec.strides.as_ptr(),
            spec.tile.as_ptr(),
            [1; 3].as_ptr(),
            sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
            swizzle,
            sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
            sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    }
    .result()
    .map_err(explain)?;
    Ok(TensorMap { opaque: map.opaque })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_older_than_the_compiler_is_refused() {
        assert!(check_versions(13000, [13, 0]).is_ok());
        assert!(check_versions(13000, [13, 1]).is_ok());
        assert!(check_versions(13010, [12, 8]).is_ok());
        let message = check_versions(12080, [13, 0]).expect_err("an older major version").to_string();
        assert!(message.contains("the driver is of CUDA 12.8, and libnvrtc of CUDA 13.0"), "{message}");
    }

    #[test]
    fn a_device_before_8_0_is_refused() {
        assert!(check_capability("A100", 80).is_ok());
        let message = check_capability("Tesla T4", 75).expect_err("an older device").to_string();
        assert!(message.contains("Tesla T4 is of compute capability 7.5"), "{message}");
    }
}
