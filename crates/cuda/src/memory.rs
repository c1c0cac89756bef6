//! Buffers, copies and the scratch memory of verbs.

use crate::{Buf, Cuda, CudaReal, Driver};
use duel_backend::{Element, Error, Result};
use std::ffi::c_void;
use std::marker::PhantomData;

/// `len` elements of device memory.
pub struct Buffer<M, T> {
    memory: M,
    len: usize,
    element: PhantomData<T>,
}

impl<M, T> Buffer<M, T> {
    /// So many elements in this memory.
    pub(crate) fn of(memory: M, len: usize) -> Self {
        Buffer { memory, len, element: PhantomData }
    }

    /// The memory alone.
    pub(crate) fn into_memory(self) -> M {
        self.memory
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

fn bytes_of<T: Element>(host: &[T]) -> &[u8] {
    // SAFETY: elements are plain data without padding (f64, f32, bf16, u32), every byte of which is initialised.
    unsafe { std::slice::from_raw_parts(host.as_ptr().cast(), size_of_val(host)) }
}

fn bytes_of_mut<T: Element>(host: &mut [T]) -> &mut [u8] {
    // SAFETY: as in `bytes_of`, and every pattern of bytes is an element.
    unsafe { std::slice::from_raw_parts_mut(host.as_mut_ptr().cast(), size_of_val(host)) }
}

impl<D: Driver, R: CudaReal> Cuda<D, R> {
    pub(crate) fn alloc_buffer<T: Element>(&self, len: usize) -> Result<Buf<D, T>> {
        self.check_outside_of_repetition();
        let memory = self.driver.alloc(len * size_of::<T>())?;
        Ok(Buffer::of(memory, len))
    }

    pub(crate) fn upload_buffer<T: Element>(&self, dst: &mut Buf<D, T>, offset: usize, src: &[T]) {
        self.check_outside_of_repetition();
        assert!(offset + src.len() <= dst.len, "upload past the end of the buffer");
        self.driver.upload(&mut dst.memory, offset * size_of::<T>(), bytes_of(src));
    }

    pub(crate) fn download_buffer<T: Element>(
        &self,
        dst: &mut [T],
        src: &Buf<D, T>,
        offset: usize,
    ) -> Result<()> {
        self.check_outside_of_repetition();
        assert!(offset + dst.len() <= src.len, "download past the end of the buffer");
        let done = self.driver.download(bytes_of_mut(dst), &src.memory, offset * size_of::<T>());
        // What failed in a verb came before what that led to.
        self.take_failure().and(done)
    }

    pub(crate) fn copy_buffer<T: Element>(&self, dst: &mut Buf<D, T>, src: &Buf<D, T>, len: usize) {
        assert!(len <= dst.len && len <= src.len, "copy past the end of a buffer");
        self.driver.copy(&mut dst.memory, &src.memory, len * size_of::<T>());
    }

    pub(crate) fn zero_buffer<T: Element>(&self, buf: &mut Buf<D, T>) {
        let bytes = buf.len * size_of::<T>();
        self.driver.zero(&mut buf.memory, bytes);
    }

    /// Keeps the first failure of a verb, which has no way to return it, until [`duel_backend::Backend::finish`] or a
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
        assert!(len <= buf.len, "a buffer of {} elements where {len} are needed", buf.len);
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
        if scratch.as_ref().is_none_or(|s| s.len < bytes) {
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
        let scratch = scratch.as_ref().filter(|s| s.len >= size_of_val(dst));
        let memory = &scratch.expect("a verb has just used so much scratch memory").memory;
        self.driver.download(bytes_of_mut(dst), memory, 0)
    }
}
