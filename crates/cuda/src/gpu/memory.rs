//! Memory of a GPU.

use crate::buffer::Buffer;
use cudarc::driver::{CudaSlice, CudaStream, DevicePtr};
use duel_backend::Element;
use std::cell::Cell;
use std::rc::Rc;

/// Bytes that a device has given, now and at most.
#[derive(Default)]
pub(super) struct Usage {
    now: Cell<u64>,
    peak: Cell<u64>,
}

impl Usage {
    pub(super) fn peak(&self) -> u64 {
        self.peak.get()
    }
}

/// Memory of a [`Device`](crate::Device).
pub struct DeviceMemory {
    /// Taken by [`Buffer::into_slice`], which alone leaves nothing.
    slice: Option<CudaSlice<u8>>,
    pub(super) address: u64,
    usage: Rc<Usage>,
}

impl DeviceMemory {
    pub(super) fn new(slice: CudaSlice<u8>, stream: &CudaStream, usage: &Rc<Usage>) -> Self {
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
