//! Splitting work over threads so that the result cannot depend on the split.

use rayon::prelude::*;
use std::ops::Range;

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

/// The threads of a backend.
pub struct Pool {
    pool: Option<rayon::ThreadPool>,
    threads: usize,
}

impl Pool {
    /// `threads` of them; one means the calling thread alone.
    pub fn new(threads: usize) -> Self {
        let threads = threads.max(1);
        let pool = (threads > 1).then(|| {
            rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("duel-{i}")).build()
        });
        // A system that refuses threads still gets its results, which do not depend on them.
        let pool = pool.and_then(Result::ok);
        Pool { threads: if pool.is_some() { threads } else { 1 }, pool }
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Runs `f` on one of the pool's threads, so that the splits within start without a hand-over.
    pub fn install<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        match &self.pool {
            Some(pool) => pool.install(f),
            None => f(),
        }
    }

    /// Calls `f` once for each of `0..tasks`.
    pub fn tasks(&self, tasks: usize, f: impl Fn(usize) + Sync) {
        match &self.pool {
            Some(pool) if tasks > 1 => {
                pool.install(|| (0..tasks).into_par_iter().with_max_len(1).for_each(&f));
            }
            _ => (0..tasks).for_each(f),
        }
    }

    /// Splits `0..n` into at most `parts` (and at most one a thread) ranges that start at multiples of `unit`.
    pub fn ranges(&self, n: usize, unit: usize, parts: usize, f: impl Fn(Range<usize>) + Sync) {
        let units = n.div_ceil(unit);
        let parts = self.threads.min(parts).min(units).max(1);
        self.tasks(parts, |t| {
            let from = units * t / parts * unit;
            let to = (units * (t + 1) / parts * unit).min(n);
            f(from..to);
        });
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
        assert!(a.len() >= rows * a_width && b.len() >= rows * b_width, "buffer shorter than its dims");
        let (a, b) = (SyncPtr::new(a), SyncPtr::new(b));
        // A hand-over costs some microseconds: small work stays on one thread.
        let parts = if rows * (a_width + b_width) < 1 << 13 { 1 } else { usize::MAX };
        self.ranges(rows, 1, parts, |range| {
            for r in range {
                // SAFETY: rows do not overlap, lie in the buffers (asserted) and each is visited by one thread.
                let (a, b) = unsafe {
                    (
                        std::slice::from_raw_parts_mut(a.at(r * a_width), a_width),
                        std::slice::from_raw_parts_mut(b.at(r * b_width), b_width),
                    )
                };
                f(r, a, b);
            }
        });
    }

    /// Calls `f(offset, part of out)` for parts of `out[..len]`.
    pub fn parts<T: Send>(&self, out: &mut [T], len: usize, f: impl Fn(usize, &mut [T]) + Sync) {
        assert!(out.len() >= len, "buffer shorter than its dims");
        let out = SyncPtr::new(out);
        let parts = if len < 1 << 13 { 1 } else { usize::MAX };
        self.ranges(len, 64, parts, |range| {
            // SAFETY: ranges do not overlap and lie in the buffer (asserted).
            let part = unsafe { std::slice::from_raw_parts_mut(out.at(range.start), range.len()) };
            f(range.start, part);
        });
    }
}
