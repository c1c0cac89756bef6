//! Device memory of a known number of elements.

use duel_backend::Element;
use std::marker::PhantomData;

/// `len` elements of device memory.
pub struct Buffer<M, T> {
    pub(crate) memory: M,
    /// That the memory has.
    bytes: usize,
    len: usize,
    element: PhantomData<T>,
}

impl<M, T> Buffer<M, T> {
    /// So many elements in this memory.
    pub(crate) fn of(memory: M, len: usize) -> Self {
        Buffer { memory, bytes: len * size_of::<T>(), len, element: PhantomData }
    }

    /// Gives `to`, which is empty, the memory, as `len` of its elements.
    pub(crate) fn hand_over<U>(&mut self, to: &mut Buffer<M, U>, len: usize) {
        assert!(to.is_empty(), "what a buffer has is not given back");
        assert!(len * size_of::<U>() <= self.bytes, "more elements than the memory has room for");
        std::mem::swap(&mut self.memory, &mut to.memory);
        std::mem::swap(&mut self.bytes, &mut to.bytes);
        (self.len, to.len) = (0, len);
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

/// The bytes of elements.
pub(crate) fn bytes_of<T: Element>(host: &[T]) -> &[u8] {
    // SAFETY: elements are plain data without padding (f64, f32, bf16, u32), every byte of which is initialised.
    unsafe { std::slice::from_raw_parts(host.as_ptr().cast(), size_of_val(host)) }
}

/// The bytes of elements, to be written.
pub(crate) fn bytes_of_mut<T: Element>(host: &mut [T]) -> &mut [u8] {
    // SAFETY: as in `bytes_of`, and every pattern of bytes is an element.
    unsafe { std::slice::from_raw_parts_mut(host.as_mut_ptr().cast(), size_of_val(host)) }
}
