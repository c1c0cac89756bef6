//! What a verb takes from the device beside its operands: addresses, scratch memory, and failures that it cannot
//! return.

use crate::buffer::bytes_of_mut;
use crate::{Buf, Buffer, Cuda, CudaReal, Driver};
use duel_backend::{Element, Error, Result};
use std::ffi::c_void;

impl<D: Driver, R: CudaReal> Cuda<D, R> {
    /// Keeps the first failure of a verb, which has no way to return it, until [`duel_backend::Storage::finish`] or a
    /// download.
    pub(crate) fn keep_failure(&self, error: Error) {
        self.failure.borrow_mut().get_or_insert(error);
    }

    pub(crate) fn take_failure(&self) -> Result<()> {
        self.failure.borrow_mut().take().map_or(Ok(()), Err)
    }

    /// Address of the first of at least `len` elements, for a kernel to read.
    ///
    /// # Panics
    /// When the buffer is shorter.
    pub(crate) fn read<T: Element>(&self, buf: &Buf<D, T>, len: usize) -> *const c_void {
        assert!(len <= buf.len(), "a buffer of {} elements where {len} are needed", buf.len());
        self.driver.address(&buf.memory) as *const c_void
    }

    /// Address of the first of at least `len` elements, for a kernel to write.
    ///
    /// # Panics
    /// When the buffer is shorter.
    pub(crate) fn write<T: Element>(&self, buf: &mut Buf<D, T>, len: usize) -> *mut c_void {
        self.read(buf, len).cast_mut()
    }

    /// Calls `f` with the address of `bytes` bytes of uninitialised memory that kernels of one verb hand on to each
    /// other. Verbs share it: work is in order, so the next verb's use comes after this one's. Where the device has no
    /// room for it, `f` is not called, and the failure is kept.
    ///
    /// # Panics
    /// When `f` asks for scratch itself.
    pub(crate) fn with_scratch(&self, bytes: usize, f: impl FnOnce(*mut c_void)) {
        let mut scratch = self.scratch.try_borrow_mut().expect("one user of the scratch memory at a time");
        if scratch.as_ref().is_none_or(|s| s.len() < bytes) {
            *scratch = None; // before more is asked for
            self.scratch_moves.set(self.scratch_moves.get() + 1);
            match self.driver.alloc(bytes) {
                Ok(memory) => *scratch = Some(Buffer::of(memory, bytes)),
                Err(error) => return self.keep_failure(error),
            }
        }
        if let Some(buffer) = scratch.as_ref() {
            f(self.driver.address(&buffer.memory) as *mut c_void);
        }
    }

    /// Copies the beginning of the scratch memory to the host, after all earlier work.
    ///
    /// # Panics
    /// When it is shorter than `dst`.
    pub(crate) fn download_scratch<T: Element>(&self, dst: &mut [T]) -> Result<()> {
        self.take_failure()?;
        let scratch = self.scratch.borrow();
        let scratch = scratch.as_ref().filter(|s| s.len() >= size_of_val(dst));
        let memory = &scratch.expect("a verb has just used so much scratch memory").memory;
        self.driver.download(bytes_of_mut(dst), memory, 0)
    }
}
