//! What is asked of memory while a tile is made.

use crate::prefetch::{prefetch, prefetch_far};

/// What is asked of memory while a tile is made, a line now and then: many at once would hold up what the kernel reads.
#[derive(Clone, Copy)]
pub struct Soon {
    /// Rows of the result that come next.
    rows: *const i8,
    /// Bytes from one to the next.
    ld: usize,
    /// Their bytes.
    width: usize,
    /// Rows that are left.
    left: usize,
    /// Bytes of the first that are asked for.
    at: usize,
    /// What is read of b when this panel of it is done with.
    panel: *const i8,
}

impl Soon {
    /// Steps of the depth from one line to the next.
    pub const STEPS: usize = 8;
    pub const NOTHING: Self =
        Soon { rows: std::ptr::null(), ld: 0, width: 0, left: 0, at: 0, panel: std::ptr::null() };

    /// So many rows of `width` elements, `ld` apart, and the lines of `panel`.
    pub fn new<T, S>(rows: *const T, ld: usize, width: usize, left: usize, panel: *const S) -> Self {
        let bytes = size_of::<T>();
        Soon { rows: rows.cast(), ld: ld * bytes, width: width * bytes, left, at: 0, panel: panel.cast() }
    }

    /// Asks for the next line of each.
    #[inline(always)]
    pub fn ask(&mut self) {
        if self.left > 0 {
            prefetch(self.rows.wrapping_add(self.at), 1);
            self.at += 64;
            if self.at >= self.width + 64 {
                (self.at, self.left) = (0, self.left - 1);
                self.rows = self.rows.wrapping_add(self.ld);
            }
        }
        prefetch_far(self.panel, 1);
        self.panel = self.panel.wrapping_add(64);
    }

    /// Asks for all of the rows, for a kernel that has no better time.
    #[inline(always)]
    pub fn ask_rows(self) {
        for row in 0..self.left {
            prefetch(self.rows.wrapping_add(row * self.ld), self.width);
        }
    }
}
