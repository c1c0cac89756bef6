//! Splitting work over threads so that the result cannot depend on the split.

use crate::workers::{Workers, alone};
use std::ops::Range;

/// Elements that a thread passes over in about the time that it takes to hand them to it.
const LEAST: usize = 1 << 12;

/// Parts a thread.
const PARTS: usize = 4;

/// A pointer that several threads write through, each to places of its own.
pub struct SyncPtr<T>(*mut T);

impl<T> SyncPtr<T> {
    /// To the start of `buf`.
    pub fn new(buf: &mut [T]) -> Self {
        SyncPtr(buf.as_mut_ptr())
    }

    /// The element `i` places on.
    ///
    /// # Safety
    /// It lies in the buffer, or just behind it.
    pub unsafe fn at(self, i: usize) -> *mut T {
        // SAFETY: by this function's contract.
        unsafe { self.0.add(i) }
    }
}

impl<T> Clone for SyncPtr<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for SyncPtr<T> {}
// SAFETY: every use is an unsafe block that says why no two threads touch the same element.
unsafe impl<T: Send> Send for SyncPtr<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for SyncPtr<T> {}

/// Rows of a buffer that several threads write to, each to rows of its own.
pub struct Rows<T> {
    at: SyncPtr<T>,
    rows: usize,
    width: usize,
}

impl<T> Rows<T> {
    /// The first `rows` rows of `width`.
    pub fn new(buf: &mut [T], rows: usize, width: usize) -> Self {
        assert!(buf.len() >= rows * width, "buffer shorter than its dims");
        Rows { at: SyncPtr::new(buf), rows, width }
    }

    /// Row `r`.
    ///
    /// # Safety
    /// Nobody else has it.
    #[expect(clippy::mut_from_ref, reason = "the caller says that it is the only one")]
    pub unsafe fn row(&self, r: usize) -> &mut [T] {
        assert!(r < self.rows, "row {r} of {}", self.rows);
        // SAFETY: the row lies in the buffer (asserted), and is the caller's alone.
        unsafe { std::slice::from_raw_parts_mut(self.at.at(r * self.width), self.width) }
    }
}

/// Range `t` of the `parts` that `0..n` is split into, as even as their starts at multiples of `unit` let them be.
pub fn part(n: usize, unit: usize, t: usize, parts: usize) -> Range<usize> {
    let start = |t: usize| (n.div_ceil(unit) * t / parts * unit).min(n);
    start(t)..start(t + 1)
}

/// The threads of a backend: the one that calls, and its workers.
pub struct Pool {
    workers: Option<Workers>,
}

impl Pool {
    /// `threads` of them, or as many as the system gives: results do not depend on their number. One means the calling
    /// thread alone.
    pub fn new(threads: usize) -> Self {
        Pool { workers: (threads > 1).then(|| Workers::new(threads - 1)) }
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        1 + self.workers.as_ref().map_or(0, Workers::count)
    }

    /// Calls `f` once for each of `0..tasks`.
    pub fn tasks(&self, tasks: usize, f: impl Fn(usize) + Sync) {
        self.tasks_after(tasks, |_, task| f(task));
    }

    /// As [`Pool::tasks`], for tasks that use what another one left in the thread's scratch: `f(last, task)` is told
    /// which of them the thread did before, if any.
    pub fn tasks_after(&self, tasks: usize, f: impl Fn(Option<usize>, usize) + Sync) {
        match &self.workers {
            Some(workers) if tasks > 1 => workers.run(tasks, &f),
            _ => alone(tasks, &f),
        }
    }

    /// Splits `0..n` into at most `parts` ranges that start at multiples of `unit`.
    pub fn split(&self, n: usize, unit: usize, parts: usize, f: impl Fn(Range<usize>) + Sync) {
        let parts = parts.min(n.div_ceil(unit)).max(1);
        self.tasks(parts, |t| f(part(n, unit, t, parts)));
    }

    /// Parts that passing over so many elements is split into: more than one a thread, so that none waits long for
    /// another that was held up, and none so small that handing it over costs more than doing it.
    pub fn parts_of(&self, elements: usize) -> usize {
        (elements / LEAST).min(PARTS * self.threads())
    }

    /// Calls `f(row, row of out)` for `rows` rows of `width`.
    pub fn rows<T: Send>(
        &self,
        out: &mut [T],
        rows: usize,
        width: usize,
        f: impl Fn(usize, &mut [T]) + Sync,
    ) {
        self.rows2(out, width, &mut [(); 0], 0, rows, |r, out, _| f(r, out));
    }

    /// Calls `f(row, row of a, row of b)` for `rows` rows of two buffers.
    pub fn rows2<T: Send, U: Send>(
        &self,
        a: &mut [T],
        a_width: usize,
        b: &mut [U],
        b_width: usize,
        rows: usize,
        f: impl Fn(usize, &mut [T], &mut [U]) + Sync,
    ) {
        let elements = rows * (a_width + b_width);
        let (a, b) = (Rows::new(a, rows, a_width), Rows::new(b, rows, b_width));
        self.split(rows, 1, self.parts_of(elements), |range| {
            for r in range {
                // SAFETY: a row is in one range.
                let (a, b) = unsafe { (a.row(r), b.row(r)) };
                f(r, a, b);
            }
        });
    }

    /// Calls `f(offset, part of out)` for parts of `out[..len]`.
    pub fn parts<T: Send>(&self, out: &mut [T], len: usize, f: impl Fn(usize, &mut [T]) + Sync) {
        assert!(out.len() >= len, "buffer shorter than its dims");
        let out = SyncPtr::new(out);
        self.split(len, 64, self.parts_of(len), |range| {
            // SAFETY: ranges do not overlap and lie in the buffer (asserted).
            let part = unsafe { std::slice::from_raw_parts_mut(out.at(range.start), range.len()) };
            f(range.start, part);
        });
    }
}
