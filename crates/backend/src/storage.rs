use crate::{Element, Float, Result};

/// A buffer of weights or activations on backend `B`.
pub type Real<B> = <B as Storage>::Buf<<B as Storage>::Real>;
/// A buffer of gradients, statistics or moments on backend `B`.
pub type Acc<B> = <B as Storage>::Buf<<B as Storage>::Acc>;
/// A buffer of token ids, positions or row numbers on backend `B`.
pub type Index<B> = <B as Storage>::Buf<u32>;

/// What a device says of its memory, in bytes; what it does not know is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Could be allocated now.
    pub free: Option<u64>,
    /// Taken now, by whatever shares it with the buffers: on the host the whole process.
    pub used: Option<u64>,
    /// The most that was allocated through the backend at a time; on the host the most of the process since it began.
    pub peak: Option<u64>,
}

/// Buffers, and what they hold.
pub trait Storage: Sized + 'static {
    /// Weights and activations.
    type Real: Float;
    /// Weights that do not change any more, where this holds them exactly: a narrower type than [`Storage::Real`] that
    /// [`Weight`](crate::Weight) may have, or the same.
    type Narrow: Float;
    /// Gradients of weights, statistics and moments.
    type Acc: Float;
    /// Device memory. The buffer is the unit of aliasing: there are no views.
    type Buf<T: Element>: 'static;

    /// What is known about the device's memory.
    fn memory(&self) -> Memory {
        Memory::default()
    }
    /// A zeroed buffer of `len` elements. Fails when the device has no room for it: memory is had here, not when it is
    /// first used.
    fn alloc<T: Element>(&self, len: usize) -> Result<Self::Buf<T>>;
    /// Number of elements in `buf`.
    fn len<T: Element>(&self, buf: &Self::Buf<T>) -> usize;
    /// Copies `src` from the host into `dst[offset..]`.
    fn upload<T: Element>(&self, dst: &mut Self::Buf<T>, offset: usize, src: &[T]);
    /// Puts `src` into the beginning of a buffer, in a larger one of its own where it has not room for it. Fails when
    /// the device has none.
    fn replace<T: Element>(&self, dst: &mut Self::Buf<T>, src: &[T]) -> Result<()> {
        if self.len(dst) < src.len() {
            *dst = self.alloc(src.len().next_power_of_two())?;
        }
        self.upload(dst, 0, src);
        Ok(())
    }
    /// Copies `src[offset..offset + dst.len()]` to the host, after all earlier verbs. Fails when one of those did.
    fn download<T: Element>(&self, dst: &mut [T], src: &Self::Buf<T>, offset: usize) -> Result<()>;
    /// The buffer's bytes, little-endian, where it lies in the host's memory and can be read without a copy.
    fn host_bytes<'a, T: Element>(&self, _buf: &'a Self::Buf<T>) -> Option<&'a [u8]> {
        None
    }
    /// `dst[..len] = src[..len]`.
    fn copy<T: Element>(&self, dst: &mut Self::Buf<T>, src: &Self::Buf<T>, len: usize);
    /// Sets every element to zero.
    fn zero<T: Element>(&self, buf: &mut Self::Buf<T>);
    /// Whether memory of `T`s can become memory of `U`s: what [`Storage::hand_over`] needs.
    fn hands_over<T: Element, U: Element>() -> bool;
    /// Gives `to`, which is empty, the memory of `from`, which is empty then. There is room in it for `len` elements,
    /// which may hold anything. No memory is had or given back: a larger buffer's is all there when it comes back.
    fn hand_over<T: Element, U: Element>(&self, to: &mut Self::Buf<U>, from: &mut Self::Buf<T>, len: usize);
    /// Waits for everything that was started and reports what went wrong in it.
    fn finish(&self) -> Result<()>;
}
