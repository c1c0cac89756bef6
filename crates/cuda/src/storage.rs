//! Buffers on the device.

use crate::buffer::{bytes_of, bytes_of_mut};
use crate::{Buf, Buffer, Cuda, CudaReal, Driver};
use duel_backend::{Element, Memory, Result, Storage};

impl<D: Driver, R: CudaReal> Storage for Cuda<D, R> {
    type Real = R;
    type Narrow = R;
    type Acc = f32;
    type Buf<T: Element> = Buffer<D::Memory, T>;

    fn memory(&self) -> Memory {
        self.driver.memory()
    }

    fn alloc<T: Element>(&self, len: usize) -> Result<Self::Buf<T>> {
        self.check_outside_of_repetition();
        let memory = self.driver.alloc(len * size_of::<T>())?;
        Ok(Buffer::of(memory, len))
    }

    fn len<T: Element>(&self, buf: &Buf<D, T>) -> usize {
        buf.len()
    }

    fn upload<T: Element>(&self, dst: &mut Buf<D, T>, offset: usize, src: &[T]) {
        self.check_outside_of_repetition();
        assert!(offset + src.len() <= dst.len(), "upload past the end of the buffer");
        self.driver.upload(&mut dst.memory, offset * size_of::<T>(), bytes_of(src));
    }

    fn download<T: Element>(&self, dst: &mut [T], src: &Buf<D, T>, offset: usize) -> Result<()> {
        self.check_outside_of_repetition();
        assert!(offset + dst.len() <= src.len(), "download past the end of the buffer");
        let done = self.driver.download(bytes_of_mut(dst), &src.memory, offset * size_of::<T>());
        // What failed in a verb came before what that led to.
        self.take_failure().and(done)
    }

    fn copy<T: Element>(&self, dst: &mut Buf<D, T>, src: &Buf<D, T>, len: usize) {
        assert!(len <= dst.len() && len <= src.len(), "copy past the end of a buffer");
        self.driver.copy(&mut dst.memory, &src.memory, len * size_of::<T>());
    }

    fn zero<T: Element>(&self, buf: &mut Buf<D, T>) {
        let bytes = buf.len() * size_of::<T>();
        self.driver.zero(&mut buf.memory, bytes);
    }

    fn hands_over<T: Element, U: Element>() -> bool {
        true
    }

    fn hand_over<T: Element, U: Element>(&self, to: &mut Buf<D, U>, from: &mut Buf<D, T>, len: usize) {
        from.hand_over(to, len);
    }

    fn finish(&self) -> Result<()> {
        self.check_outside_of_repetition();
        let done = self.driver.finish();
        // What failed in a verb came before what that led to.
        self.take_failure().and(done)
    }
}
