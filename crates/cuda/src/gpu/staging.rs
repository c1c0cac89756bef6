//! Pinned host memory between the caller's memory and the device.

use cudarc::driver::result::{memcpy_dtoh_async, memcpy_htod_async};
use cudarc::driver::sys::{CU_MEMHOSTALLOC_WRITECOMBINED, CUdeviceptr};
use cudarc::driver::{CudaEvent, CudaStream, DriverError, PinnedHostSlice};
use std::sync::Arc;

/// Bytes of one half of the memory for uploads, and of that for downloads.
const HALF: usize = 8 << 20;
/// Uploads begin at multiples of this.
const ALIGNMENT: usize = 256;

/// Uploads go through pinned memory: the caller's own may then change at once, while the copy waits its turn on the
/// stream. One half is filled while copies from the other may still be under way.
struct Uploads {
    memory: PinnedHostSlice<u8>,
    /// After the last copy from each half.
    copied: [CudaEvent; 2],
    half: usize,
    used: usize,
}

impl Uploads {
    fn new(stream: &CudaStream) -> Result<Self, DriverError> {
        let context = stream.context();
        // Written once, in order, and never read by the host: what write-combined memory is for.
        // SAFETY: every byte is written before it is copied.
        let memory = unsafe { context.alloc_pinned_with_flags(2 * HALF, CU_MEMHOSTALLOC_WRITECOMBINED) }?;
        Ok(Uploads { memory, copied: [context.new_event(None)?, context.new_event(None)?], half: 0, used: 0 })
    }

    fn upload(&mut self, stream: &CudaStream, mut to: CUdeviceptr, src: &[u8]) -> Result<(), DriverError> {
        for part in src.chunks(HALF) {
            if self.used + part.len() > HALF {
                self.copied[self.half].record(stream)?;
                self.half = 1 - self.half;
                self.used = 0;
                self.copied[self.half].synchronize()?;
            }
            let at = self.half * HALF + self.used;
            let room = &mut self.memory.as_mut_slice()?[at..][..part.len()];
            room.copy_from_slice(part);
            // SAFETY: the device's memory is the caller's; the pinned part is not written again before the event after
            // this copy, which is recorded when its half is full.
            unsafe { memcpy_htod_async(to, room, stream.cu_stream()) }?;
            to += part.len() as CUdeviceptr;
            self.used = (self.used + part.len()).next_multiple_of(ALIGNMENT);
        }
        Ok(())
    }
}

/// Pinned memory for both directions, allocated at the first use of each.
#[derive(Default)]
pub(crate) struct Staging {
    uploads: Option<Uploads>,
    downloads: Option<PinnedHostSlice<u8>>,
}

impl Staging {
    /// Starts a copy of `src` to the device address `to`; `src` may change as soon as this returns.
    ///
    /// # Safety
    /// There are as many bytes at `to`.
    pub(crate) unsafe fn upload(
        &mut self,
        stream: &CudaStream,
        to: CUdeviceptr,
        src: &[u8],
    ) -> Result<(), DriverError> {
        let uploads = match &mut self.uploads {
            Some(uploads) => uploads,
            none => none.insert(Uploads::new(stream)?),
        };
        uploads.upload(stream, to, src)
    }

    /// Copies from the device address `from` to `dst`, after all earlier work, and waits for it.
    ///
    /// # Safety
    /// There are as many bytes at `from`.
    pub(crate) unsafe fn download(
        &mut self,
        stream: &Arc<CudaStream>,
        dst: &mut [u8],
        mut from: CUdeviceptr,
    ) -> Result<(), DriverError> {
        let pinned = match &mut self.downloads {
            Some(pinned) => pinned,
            // SAFETY: only what a copy has just written is read.
            none => none.insert(unsafe { stream.context().alloc_pinned_with_flags(HALF, 0) }?),
        };
        for part in dst.chunks_mut(HALF) {
            let room = &mut pinned.as_mut_slice()?[..part.len()];
            // SAFETY: the device's memory is the caller's promise; the pinned memory is not touched before the wait.
            unsafe { memcpy_dtoh_async(room, from, stream.cu_stream()) }?;
            stream.synchronize()?;
            part.copy_from_slice(room);
            from += part.len() as CUdeviceptr;
        }
        Ok(())
    }
}
