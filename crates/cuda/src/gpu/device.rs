//! A GPU: how it is opened, and what it has.

use super::checks::{check_capability, check_versions, driver_version, explain_init, load_libraries};
use super::cublaslt::{CublasLt, Refusal};
use super::error::{explain, failed};
use super::kernels::Kernels;
use super::memory::{DeviceMemory, Usage};
use super::staging::Staging;
use super::{cache, libraries, nvrtc};
use crate::buffer::Buffer;
use crate::{Driver, Properties};
use cudarc::driver::sys::{self, CUdevice_attribute};
use cudarc::driver::{CudaContext, CudaSlice, CudaStream};
use duel_backend::{Element, Error, Result};
use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

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
/// NVRTC compiles the kernels of a source for exactly this device when the first of them is launched; the machine code
/// is kept on disk. Nothing of CUDA is linked: libcuda, libnvrtc and libcublasLt are looked for when a device is
/// opened.
///
/// A download waits for all work before it; everything else returns when it is queued, an upload too: what it copies
/// goes through pinned memory first.
pub struct Device {
    pub(super) name: String,
    pub(super) properties: Properties,
    pub(super) kernels: Kernels,
    /// cuBLASLt, or why it is not used.
    pub(super) library: std::result::Result<CublasLt, String>,
    pub(super) staging: RefCell<Staging>,
    pub(super) usage: Rc<Usage>,
    /// What went wrong first since that was last asked for.
    pub(super) error: RefCell<Option<Error>>,
    pub(super) last_kernel: Cell<&'static str>,
    pub(super) stream: Arc<CudaStream>,
    pub(super) context: Arc<CudaContext>,
}

impl Device {
    /// Opens a device by its number, counted from 0 as the driver counts those that it shows, with
    /// [`Settings::default`].
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

    /// A device on the stream of a program that has its own context: all work is queued there, in the order of the
    /// calls.
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
            kernels: Kernels::new(settings.cache, properties.compute_capability, context.clone()),
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

fn open_library(stream: &Arc<CudaStream>) -> std::result::Result<CublasLt, String> {
    libraries::CUBLASLT.load().map_err(|e| e.to_string())?;
    CublasLt::new(stream).map_err(|e| match e {
        Refusal::Library(e) => format!("cuBLASLt does not start ({e})"),
        Refusal::Driver(e) => format!("cuBLASLt gets no workspace ({})", explain(e)),
    })
}

impl Drop for Device {
    fn drop(&mut self) {
        // Kernels end before their code is unloaded. An error that nobody asked for is nobody's any more.
        _ = self.stream.synchronize();
    }
}
