//! Tasks that begin in order, and sums that are taken in order.

use crate::sync::Pool;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Calls `f` once for each of `0..tasks`; a task begins when all before it have begun, on whichever thread is free. If
/// one fails, so do those that wait for their turn.
pub fn in_order(pool: &Pool, turns: &Turns, tasks: usize, f: impl Fn(usize) + Sync) {
    /// Marks the turns as broken when a task ends by a panic.
    struct Guard<'a>(&'a AtomicBool);
    impl Drop for Guard<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                self.0.store(true, Ordering::Relaxed);
            }
        }
    }
    let next = AtomicUsize::new(0);
    pool.tasks(pool.threads().min(tasks), |_| {
        let _guard = Guard(&turns.broken);
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
    /// When a task failed: its turns will not end.
    pub fn take(&self, sum: usize, turn: usize, f: impl FnOnce()) {
        let mut spins = 0;
        while self.turns[sum].load(Ordering::Acquire) != turn {
            assert!(!self.broken.load(Ordering::Relaxed), "a task that this one waits for has failed");
            spins += 1;
            if spins < 100 { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
        f();
        self.turns[sum].store(turn + 1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// Three sums, each of every third task, on more threads than there are.
    #[test]
    fn sums_are_taken_in_order() {
        let pool = Pool::new(8);
        for _ in 0..20 {
            let (turns, sums) = (Turns::new(3), [const { Mutex::new(Vec::new()) }; 3]);
            in_order(&pool, &turns, 300, |task| {
                turns.take(task % 3, task / 3, || sums[task % 3].lock().expect("no panic").push(task));
            });
            for (sum, tasks) in sums.into_iter().enumerate() {
                let want: Vec<usize> = (sum..300).step_by(3).collect();
                assert_eq!(tasks.into_inner().expect("no panic"), want);
            }
        }
    }

    /// Whoever waits for a task that failed would wait forever, wherever in the task that was.
    #[test]
    fn a_failed_task_stops_the_others() {
        for within in [false, true] {
            let (pool, turns) = (Pool::new(3), Turns::new(1));
            let task = |task| {
                assert!(within || task < 4, "meant to fail");
                turns.take(0, task, || assert!(task < 4, "meant to fail"));
            };
            let run = || in_order(&pool, &turns, 9, task);
            assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err());
        }
    }
}
