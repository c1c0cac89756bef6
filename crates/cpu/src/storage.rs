//! Buffers in the host's memory.

use crate::Cpu;
use crate::memory::memory;
use crate::pages::{join, reserved};
use crate::real::Real;
use crate::stream::{self, LARGE};
use duel_backend::{Element, Error, Memory, Result, Storage};
use half::bf16;
use std::any::{Any, TypeId};
use std::mem::MaybeUninit;

impl<R: Real> Storage for Cpu<R> {
    type Real = R;
    type Narrow = bf16;
    type Acc = R::Acc;
    type Buf<T: Element> = Vec<T>;

    fn memory(&self) -> Memory {
        memory()
    }

    fn alloc<T: Element>(&self, len: usize) -> Result<Vec<T>> {
        let mut buf =
            reserved(len).map_err(|_| Error::OutOfMemory { bytes: len.saturating_mul(size_of::<T>()) })?;
        self.fill(&mut buf, len);
        join(&buf);
        Ok(buf)
    }

    fn len<T: Element>(&self, buf: &Vec<T>) -> usize {
        buf.len()
    }

    fn upload<T: Element>(&self, dst: &mut Vec<T>, offset: usize, src: &[T]) {
        dst[offset..offset + src.len()].copy_from_slice(src);
    }

    fn download<T: Element>(&self, dst: &mut [T], src: &Vec<T>, offset: usize) -> Result<()> {
        dst.copy_from_slice(&src[offset..offset + dst.len()]);
        Ok(())
    }

    fn host_bytes<'a, T: Element>(&self, buf: &'a Vec<T>) -> Option<&'a [u8]> {
        // SAFETY: an `Element` is plain data without padding; the bytes are borrowed as long as the elements.
        let bytes =
            unsafe { std::slice::from_raw_parts(buf.as_ptr().cast::<u8>(), size_of_val(buf.as_slice())) };
        cfg!(target_endian = "little").then_some(bytes)
    }

    fn copy<T: Element>(&self, dst: &mut Vec<T>, src: &Vec<T>, len: usize) {
        let large = len * size_of::<T>() >= LARGE;
        self.pool.parts(dst, len, |from, dst| {
            let src = &src[from..][..dst.len()];
            if large { stream::copy(dst, src) } else { dst.copy_from_slice(src) }
        });
    }

    fn zero<T: Element>(&self, buf: &mut Vec<T>) {
        let len = buf.len();
        let large = len * size_of::<T>() >= LARGE;
        self.pool.parts(buf, len, |_, part| if large { stream::zero(part) } else { part.fill(T::default()) });
    }

    fn hands_over<T: Element, U: Element>() -> bool {
        TypeId::of::<T>() == TypeId::of::<U>()
    }

    fn hand_over<T: Element, U: Element>(&self, to: &mut Vec<U>, from: &mut Vec<T>, len: usize) {
        let from: &mut dyn Any = from;
        let from: &mut Vec<U> = from.downcast_mut().expect("memory of the same type");
        assert!(to.is_empty() && len <= from.capacity(), "nothing is given back, and nothing had");
        std::mem::swap(to, from);
        to.truncate(len);
        self.fill(to, len);
    }

    fn finish(&self) -> Result<()> {
        Ok(())
    }
}

impl<R: Real> Cpu<R> {
    /// Makes a buffer that is not longer, and has the capacity, `len` elements long with zeros.
    fn fill<T: Element>(&self, buf: &mut Vec<T>, len: usize) {
        // Touched by all threads: the system clears pages as they are touched, which is slow on one.
        let more = len - buf.len();
        self.pool.parts(buf.spare_capacity_mut(), more, |_, part| part.fill(MaybeUninit::new(T::default())));
        // SAFETY: those behind the buffer's own were just written.
        unsafe { buf.set_len(len) };
    }
}
