//! Tasks that begin in order, and sums that are taken in order.

use crate::sync::Pool;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Calls `f` once for each of `0..tasks`; a task begins when all before it have begun, on whichever thread is free.
pub fn in_order(pool: &Pool, tasks: usize, f: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    pool.tasks(pool.threads().min(tasks), |_| {
        loop {
            let task = next.fetch_add(1, Ordering::Relaxed);
            if task >= tasks {
                break;
            }
            f(task);
        }
    });
}

/// Who may add to what next, for sums that tasks of [`in_order`] share. A task waits for tasks before it only: they
/// have begun, so that the first of those that run waits for none.
pub struct Turns {
    turns: Vec<AtomicUsize>,
    broken: AtomicBool,
}

impl Turns {
    /// For so many sums.
    pub fn new(sums: usize) -> Self {
        Turns { turns: (0..sums).map(|_| AtomicUsize::new(0)).collect(), broken: AtomicBool::new(false) }
    }

    /// Runs `f` when `turn` others have added to the sum.
    ///
    /// # Panics
    /// When another one did: its turn will not end.
    pub fn take(&self, sum: usize, turn: usize, f: impl FnOnce()) {
        /// Marks the turns as broken unless it is forgotten.
        struct Guard<'a>(&'a AtomicBool);
        impl Drop for Guard<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let mut spins = 0;
        while self.turns[sum].load(Ordering::Acquire) != turn {
            assert!(!self.broken.load(Ordering::Relaxed), "a task that this one waits for has failed");
            spins += 1;
            if spins < 100 { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
        let guard = Guard(&self.broken);
        f();
        std::mem::forget(guard);
        self.turns[sum].store(turn + 1, Ordering::Release);
    }
}
