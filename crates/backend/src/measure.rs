use crate::{Element, Result, Storage};
use std::cell::Cell;
use std::marker::PhantomData;

/// In the place of `B`'s memory: it holds nothing and counts the bytes that are allocated. What makes its buffers on
/// any [`Storage`] makes them here too, so the plan of its memory is the constructor itself.
pub struct Measure<B> {
    bytes: Cell<usize>,
    of: PhantomData<B>,
}

impl<B: Storage> Measure<B> {
    /// Bytes that `make` allocates.
    pub fn bytes<T>(make: impl FnOnce(&Self) -> T) -> usize {
        let measure = Measure { bytes: Cell::new(0), of: PhantomData };
        make(&measure);
        measure.bytes.get()
    }
}

impl<B: Storage> Storage for Measure<B> {
    type Real = B::Real;
    type Narrow = B::Narrow;
    type Acc = B::Acc;
    /// The number of elements.
    type Buf<T: Element> = usize;

    fn alloc<T: Element>(&self, len: usize) -> Result<usize> {
        self.bytes.set(self.bytes.get().saturating_add(len.saturating_mul(size_of::<T>())));
        Ok(len)
    }
    fn len<T: Element>(&self, buf: &usize) -> usize {
        *buf
    }
    fn upload<T: Element>(&self, _dst: &mut usize, _offset: usize, _src: &[T]) {}
    fn download<T: Element>(&self, dst: &mut [T], _src: &usize, _offset: usize) -> Result<()> {
        dst.fill(T::default());
        Ok(())
    }
    fn copy<T: Element>(&self, _dst: &mut usize, _src: &usize, _len: usize) {}
    fn zero<T: Element>(&self, _buf: &mut usize) {}
    fn hands_over<T: Element, U: Element>() -> bool {
        B::hands_over::<T, U>()
    }
    fn hand_over<T: Element, U: Element>(&self, to: &mut usize, from: &mut usize, len: usize) {
        (*to, *from) = (len, 0);
    }
    fn finish(&self) -> Result<()> {
        Ok(())
    }
}
