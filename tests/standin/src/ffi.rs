//! What a caller in C hands over. All that is unsafe about reading it is here: the functions of the three libraries are
//! given these types in place of pointers, and rely on what their documentation asks of the caller.

use std::borrow::Cow;
use std::ffi::{CStr, c_char, c_void};

/// Room for a result. Null where the caller does not want it.
#[repr(transparent)]
pub(crate) struct Out<T>(*mut T);

impl<T> Out<T> {
    /// Stores the result; says whether there was room.
    #[must_use]
    pub(crate) fn put(&self, value: T) -> bool {
        if self.0.is_null() || !self.0.is_aligned() {
            return false;
        }
        // SAFETY: the caller promises room for a result that is not null.
        unsafe { self.0.write(value) };
        true
    }

    /// Stores one of several results, for which the caller promises room.
    #[must_use]
    pub(crate) fn put_at(&self, index: usize, value: T) -> bool {
        // SAFETY: the caller promises room for so many results, if any.
        !self.0.is_null() && Out(unsafe { self.0.add(index) }).put(value)
    }

    /// Where it is.
    pub(crate) fn address(&self) -> u64 {
        self.0 as u64
    }
}

impl<T: Copy> Out<T> {
    /// What the caller stored there before.
    pub(crate) fn get(&self) -> Option<T> {
        In(self.0.cast_const()).get(0)
    }
}

/// One value or several. Null where there is none.
#[repr(transparent)]
pub(crate) struct In<T>(*const T);

impl<T: Copy> In<T> {
    pub(crate) fn get(&self, index: usize) -> Option<T> {
        if self.0.is_null() {
            return None;
        }
        // SAFETY: the caller promises that there are so many values.
        Some(unsafe { self.0.add(index).read_unaligned() })
    }

    pub(crate) fn is_null(&self) -> bool {
        self.0.is_null()
    }
}

/// A text that ends with a zero.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct Text(*const c_char);

impl Text {
    pub(crate) fn get(&self) -> Option<Cow<'_, str>> {
        // SAFETY: the caller promises a C string where it is not null.
        (!self.0.is_null()).then(|| unsafe { CStr::from_ptr(self.0) }.to_string_lossy())
    }
}

/// Bytes somewhere, as many as another argument says.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct Bytes(*const c_void);

impl Bytes {
    pub(crate) fn address(self) -> u64 {
        self.0 as u64
    }

    /// A copy of the first `len` bytes.
    pub(crate) fn copy(self, len: usize) -> Option<Vec<u8>> {
        // SAFETY: the caller promises that there are so many bytes where it is not null.
        (!self.0.is_null()).then(|| unsafe { std::slice::from_raw_parts(self.0.cast::<u8>(), len) }.to_vec())
    }
}

/// Room for bytes, as many as another argument says.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct Room(*mut c_void);

impl Room {
    pub(crate) fn address(self) -> u64 {
        self.0 as u64
    }

    /// Stores bytes for which the caller promises room; says whether there was any.
    #[must_use]
    pub(crate) fn put(self, bytes: &[u8]) -> bool {
        if self.0.is_null() {
            return false;
        }
        // SAFETY: the caller promises room for so many bytes.
        unsafe { self.0.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        true
    }
}
