//! A GPU as a driver.

use crate::library::{CublasLt, LibraryProduct, Refusal};
use crate::memory::Buffer;
use crate::staging::Staging;
use crate::{Argument, Driver, Grid, Properties, cache, libraries, nvrtc};
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUdevice_attribute, CUfunction_attribute, CUresult};
use cudarc::driver::{CudaContext, CudaGraph, CudaSlice, CudaStream, DevicePtr};
use duel_backend::{Element, Error, Memory, Result};
use duel_kernels::sys::{TensorMap, TensorMapSpec};
use duel_kernels::{KERNELS, SOURCES};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

/// The least compute capability that the kernels run on.
const LEAST_CAPABILITY: u32 = 80;
/// Dynamic shared memory that a block can have without asking for more, in bytes.
const SHARED_UNASKED: usize = 48 << 10;

/// Most parameters of a kernel: tensor maps and its struct.
const MOST_ARGUMENTS: usize = 4;

/// How a [`Device`] works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Folder for compiled kernels; without one every process compiles those that it uses. By default `duel/kernels` in
    /// the user's cache folder (`XDG_CACHE_HOME`, or `.cache` in `HOME`).
    pub cache: Option<PathBuf>,
    /// Whether cuBLASLt makes the matrix products, where it is there. By default it does, unless the environment has
    /// `DUEL_CUBLASLT=0`.
    pub cublaslt: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            cache: cache::default_folder(|name| std::env::var_os(name)),
            cublaslt: std::env::var_os("DUEL_CUBLASLT").is_none_or(|value| value != "0"),
        }
    }
}

/// An NVIDIA GPU of compute capability 8.0 or more: its memory, and one stream on which everything happens in order.
///
/// NVRTC compiles the kernels of a source for exactly this device when the first of them is launched; the machine code is
/// kept on disk. Nothing of CUDA is linked: libcuda, libnvrtc and libcublasLt are looked for when a device is opened.
///
/// A download waits for all work before it; everything else returns when it is queued, an upload too: what it copies
/// goes through pinned memory first.
pub struct Device {
    name: String,
    properties: Properties,
    /// Where compiled kernels are kept.
    cache: Option<PathBuf>,
    functions: RefCell<HashMap<&'static str, Function>>,
    /// By the name of the source.
    modules: RefCell<HashMap<&'static str, Module>>,
    /// cuBLASLt, or why it is not used.
    library: std::result::Result<CublasLt, String>,
    staging: RefCell<Staging>,
    usage: Rc<Usage>,
    /// What went wrong first since that was last asked for.
    error: RefCell<Option<Error>>,
    last_kernel: Cell<&'static str>,
    stream: Arc<CudaStream>,
    context: Arc<CudaContext>,
}

/// Bytes that a device has given, now and at most.
#[derive(Default)]
struct Usage {
    now: Cell<u64>,
    peak: Cell<u64>,
}

/// Memory of a [`Device`].
pub struct DeviceMemory {
    /// Taken by [`Buffer::into_slice`], which alone leaves nothing.
    slice: Option<CudaSlice<u8>>,
    address: u64,
    usage: Rc<Usage>,
}

impl DeviceMemory {
    fn new(slice: CudaSlice<u8>, stream: &CudaStream, usage: &Rc<Usage>) -> Self {
        usage.now.set(usage.now.get() + slice.len() as u64);
        usage.peak.set(usage.peak.get().max(usage.now.get()));
        let (address, _) = slice.device_ptr(stream);
        DeviceMemory { slice: Some(slice), address, usage: usage.clone() }
    }

    /// The slice, which is then nobody's here.
    fn take(&mut self) -> Option<CudaSlice<u8>> {
        let slice = self.slice.take()?;
        self.usage.now.set(self.usage.now.get() - slice.len() as u64);
        Some(slice)
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        drop(self.take());
    }
}

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

/// An error of a call that asks for so much memory.
fn failed_to_give(bytes: usize, error: DriverError) -> Error {
    match error.0 {
        CUresult::CUDA_ERROR_OUT_OF_MEMORY => Error::OutOfMemory { bytes },
        _ => failed(&format!("{bytes} bytes of memory"), error),
    }
}

/// Whether there is an NVIDIA driver: libcuda is on the loader path.
pub fn has_driver() -> bool {
    // SAFETY: loads the driver's library by name; its initialisers ask nothing of who loads it.
    unsafe { sys::is_culib_present() }
}

/// Loads libcuda and libnvrtc. Every function of cudarc panics where its library is missing, so a program that calls any
/// before it opens a [`Device`] asks here first.
///
/// # Errors
/// When a library is missing: names all that are, and where they were looked for.
pub fn load_libraries() -> Result<()> {
    let mut missing = Vec::new();
    if !has_driver() {
        missing.push(
            "libcuda, which comes with the NVIDIA driver, is not on the loader path (LD_LIBRARY_PATH, ldconfig)"
                .to_string(),
        );
    }
    missing.extend(libraries::NVRTC.load().err().map(|e| e.to_string()));
    if missing.is_empty() { Ok(()) } else { Err(Error::NoDevice(missing.join("; "))) }
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
    Error::NoDevice(format!("{hint}: {}", explain(error)))
}

/// # Errors
/// When the driver is of an older CUDA than the compiler, whose code it then does not load ("CUDA Compatibility", NVIDIA:
/// code runs on drivers of its own major version and later ones). `driver` is `1000 * major + 10 * minor`.
fn check_versions(driver: i32, [major, minor]: [i32; 2]) -> Result<()> {
    if driver / 1000 >= major {
        return Ok(());
    }
    Err(Error::NoDevice(format!(
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
    Err(Error::NoDevice(format!(
        "{name} is of compute capability {}.{}; the kernels need 8.0 or more",
        capability / 10,
        capability % 10
    )))
}

// ---- opening ---------------------------------------------------------------------------------------------------------

impl Device {
    /// Opens a device by its number, counted from 0 as the driver counts those that it shows, with [`Settings::default`].
    ///
    /// # Errors
    /// When libcuda or libnvrtc is missing, when there is no such device, or when it is too old.
    pub fn open(number: usize) -> Result<Self> {
        Self::open_with(number, Settings::default())
    }

    /// The same with other settings.
    ///
    /// # Errors
    /// As [`Device::open`].
    pub fn open_with(number: usize, settings: Settings) -> Result<Self> {
        load_libraries()?;
        let count = CudaContext::device_count().map_err(explain_init)?;
        if !usize::try_from(count).is_ok_and(|count| number < count) {
            return Err(Error::NoDevice(format!(
                "there is no device {number}: the NVIDIA driver shows {count}"
            )));
        }
        let about = |e| failed(&format!("device {number} cannot be opened"), e);
        let context = CudaContext::new(number).map_err(about)?;
        // SAFETY: all memory of this context is used on the one stream that follows, so no events need to order it.
        unsafe { context.disable_event_tracking() };
        Self::on_stream(context.new_stream().map_err(about)?, settings)
    }

    /// A device on the stream of a program that has its own context: all work is queued there, in the order of the calls.
    ///
    /// # Errors
    /// When libnvrtc is missing, or when the device is too old.
    pub fn on_stream(stream: Arc<CudaStream>, settings: Settings) -> Result<Self> {
        load_libraries()?;
        check_versions(driver_version()?, nvrtc::version()?)?;
        let context = stream.context().clone();
        let about = |e| failed("what the device is", e);
        context.bind_to_thread().map_err(about)?;
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
        let library = match settings.cublaslt {
            false => Err("cuBLASLt is turned off".into()),
            true => open_library(&stream),
        };
        Ok(Device {
            name,
            properties,
            cache: settings.cache,
            functions: RefCell::default(),
            modules: RefCell::default(),
            library,
            staging: RefCell::default(),
            usage: Rc::default(),
            error: RefCell::default(),
            last_kernel: Cell::default(),
            stream,
            context,
        })
    }

    /// Whether cuBLASLt makes the matrix products.
    ///
    /// # Errors
    /// Why it does not: duel's own kernels make them all.
    pub fn cublaslt(&self) -> std::result::Result<(), &str> {
        self.library.as_ref().map(|_| ()).map_err(String::as_str)
    }

    /// The stream that everything is queued on.
    pub fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    /// Seconds that `work` takes on the device, between two events on the stream, after all earlier work.
    ///
    /// # Errors
    /// When something went wrong in it, or before it.
    pub fn seconds(&self, work: impl FnOnce()) -> Result<f64> {
        let about = |e| failed("an event", e);
        let timed = Some(sys::CUevent_flags::CU_EVENT_DEFAULT);
        let begin = self.stream.record_event(timed).map_err(about)?;
        work();
        let end = self.stream.record_event(timed).map_err(about)?;
        self.finish()?;
        Ok(f64::from(begin.elapsed_ms(&end).map_err(about)?) * 1e-3)
    }

    /// Memory of a program's own as a buffer: no copy is made.
    ///
    /// # Panics
    /// When it is of another stream than this device's, or of no element.
    pub fn buffer<T: Element>(&self, slice: CudaSlice<T>) -> Buffer<DeviceMemory, T> {
        assert!(Arc::ptr_eq(slice.stream(), &self.stream), "memory and device share one stream");
        let len = slice.len();
        assert!(len > 0, "a buffer of nothing has no memory");
        let bytes = slice.num_bytes();
        let address = slice.leak();
        // SAFETY: the memory was leaked just now, is as long as that, and any bytes are bytes.
        let slice = unsafe { self.stream.upgrade_device_ptr::<u8>(address, bytes) };
        Buffer::of(DeviceMemory::new(slice, &self.stream, &self.usage), len)
    }
}

impl<T: Element> Buffer<DeviceMemory, T> {
    /// The memory as cudarc has it, for work on the same stream: no copy is made.
    ///
    /// # Panics
    /// When the buffer is empty.
    pub fn into_slice(self) -> CudaSlice<T> {
        let len = self.len();
        assert!(len > 0, "a buffer of nothing has no memory");
        let slice = self.into_memory().take().expect("memory that was not taken before");
        let stream = slice.stream().clone();
        let address = slice.leak();
        // SAFETY: the memory was leaked just now, holds as many elements, and every pattern of bytes is one.
        unsafe { stream.upgrade_device_ptr::<T>(address, len) }
    }
}

fn open_library(stream: &Arc<CudaStream>) -> std::result::Result<CublasLt, String> {
    libraries::CUBLASLT.load().map_err(|e| e.to_string())?;
    CublasLt::new(stream).map_err(|e| match e {
        Refusal::Library(e) => format!("cuBLASLt does not start ({e})"),
        Refusal::Driver(e) => format!("cuBLASLt gets no workspace ({})", explain(e)),
    })
}

/// The CUDA that the driver is of: `1000 * major + 10 * minor`.
fn driver_version() -> Result<i32> {
    let mut version = 0;
    // SAFETY: the library is present (`load_libraries`), and the number lives through the call.
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
    unsafe fn start(&self, kernel: &'static str, grid: Grid, arguments: &[Argument]) -> Result<()> {
        assert!(arguments.len() <= MOST_ARGUMENTS, "{kernel} has {} parameters", arguments.len());
        let mut addresses = [std::ptr::null::<c_void>(); MOST_ARGUMENTS];
        addresses.iter_mut().zip(arguments).for_each(|(address, argument)| *address = argument.address);
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
                addresses.as_ptr().cast_mut().cast(),
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
}

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
        Memory { free, peak: Some(self.usage.peak.get()) }
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

    fn repeat(&self, recording: &mut Recorded, work: impl FnOnce()) {
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
                work();
                match self.stream.end_capture(sys::CUgraphInstantiate_flags(0)) {
                    // What failed on the way is not in the graph, so it is no recording of the work.
                    Ok(Some(_)) if self.error.borrow().is_some() => {}
                    Ok(Some(graph)) => {
                        self.last_kernel.set("recorded work");
                        self.keep(graph.launch().map_err(about));
                        *recording = Recorded::Graph(graph);
                    }
                    // Nothing was done, so nothing has to be repeated.
                    Ok(None) => {}
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
