//! Threads that share the tasks of one job at a time with the thread that brings it.
//!
//! The verbs of a step follow each other within microseconds, so a worker that has nothing to do first looks for the
//! next job, then offers its core to others, and only then sleeps: it burns no core between two runs.

use std::any::Any;
use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle, yield_now};

/// Looks at the gate before a worker offers its core: some tens of microseconds.
const SPINS: usize = 1 << 10;

/// Offers of the core before it sleeps: each takes a fraction of a microsecond where nobody else wants the core.
const YIELDS: usize = 1 << 7;

/// In [`Shared::gate`]: the job takes workers. Below it is how many are inside, above it the number of the job.
const OPEN: u64 = 1 << 16;

/// The tasks of one thread that are not begun, on cache lines of their own.
#[derive(Default)]
#[repr(align(128))]
struct Share(AtomicU64);

impl Share {
    fn set(&self, tasks: Range<usize>) {
        self.0.store((tasks.start as u64) << 32 | tasks.end as u64, Ordering::Relaxed);
    }

    /// The first task, for the thread whose share it is, or the last, for one that is done with its own.
    fn take(&self, first: bool) -> Option<usize> {
        let bounds = |share: u64| (share >> 32, share & u64::from(u32::MAX));
        let less = |share| {
            let (start, end) = bounds(share);
            (start < end).then(|| if first { share + (1 << 32) } else { share - 1 })
        };
        let before = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).ok()?;
        let (start, end) = bounds(before);
        Some(if first { start } else { end - 1 } as usize)
    }
}

/// What a thread does of a job: a task, after the task of that job that it did last.
pub type Step<'a> = dyn Fn(Option<usize>, usize) + Sync + 'a;

type Job = *const Step<'static>;

struct Shared {
    gate: AtomicU64,
    /// Written while the gate is closed and nobody inside, read by who is inside.
    job: UnsafeCell<Option<Job>>,
    shares: Box<[Share]>,
    asleep: AtomicUsize,
    stop: AtomicBool,
    /// What a worker's task panicked with; also what sleepers wait on.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    wake: Condvar,
}

// SAFETY: the gate says who may touch `job` and when; what it points to is `Sync`.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// Does tasks of this thread's share from the front, then those of others from the back: the same thread has the
    /// same part of a buffer in every job that none is late for.
    fn work(&self, thread: usize, job: &Step<'_>) {
        let (before, after) = self.shares.split_at(thread);
        let mut last = None;
        for (i, share) in after.iter().chain(before).enumerate() {
            while let Some(task) = share.take(i == 0) {
                job(last.replace(task), task);
            }
        }
    }

    fn locked(&self) -> MutexGuard<'_, Option<Box<dyn Any + Send>>> {
        self.panic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_all(&self) {
        // A worker counts itself before it looks at the gate a last time: one of the two sees the other.
        if self.asleep.load(Ordering::SeqCst) > 0 {
            drop(self.locked());
            self.wake.notify_all();
        }
    }

    /// Whether there is something to do for who did the job `seen` last.
    fn calls(&self, seen: u64) -> bool {
        let gate = self.gate.load(Ordering::SeqCst);
        (gate & OPEN != 0 && gate / (2 * OPEN) != seen) || self.stop.load(Ordering::SeqCst)
    }

    fn wait(&self, seen: u64) {
        for turn in 0..SPINS + YIELDS {
            if self.calls(seen) {
                return;
            }
            if turn < SPINS { spin_loop() } else { yield_now() }
        }
        let mut locked = self.locked();
        self.asleep.fetch_add(1, Ordering::SeqCst);
        while !self.calls(seen) {
            locked = self.wake.wait(locked).unwrap_or_else(PoisonError::into_inner);
        }
        self.asleep.fetch_sub(1, Ordering::SeqCst);
    }

    /// The life of a worker.
    fn serve(&self, thread: usize) {
        let mut seen = 0;
        loop {
            self.wait(seen);
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            let gate = self.gate.load(Ordering::Relaxed);
            let number = gate / (2 * OPEN);
            if gate & OPEN == 0 || number == seen {
                continue;
            }
            if self.gate.compare_exchange(gate, gate + 1, Ordering::AcqRel, Ordering::Relaxed).is_err() {
                continue;
            }
            seen = number;
            // SAFETY: this worker is inside, so the job is written and its function lives until it leaves.
            if let Some(job) = unsafe { *self.job.get() } {
                // SAFETY: as above.
                let work = AssertUnwindSafe(|| self.work(thread, unsafe { &*job }));
                if let Err(panic) = catch_unwind(work) {
                    *self.locked() = Some(panic);
                }
            }
            self.gate.fetch_sub(1, Ordering::Release);
        }
    }
}

/// The workers of a pool. Dropping them ends their threads.
pub struct Workers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    busy: AtomicBool,
}

impl Workers {
    /// So many beside the calling thread, or as many of them as the system gives.
    pub fn new(count: usize) -> Self {
        let shared = Arc::new(Shared {
            gate: AtomicU64::new(0),
            job: UnsafeCell::new(None),
            shares: (0..=count).map(|_| Share::default()).collect(),
            asleep: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            panic: Mutex::new(None),
            wake: Condvar::new(),
        });
        let start = |thread: usize| {
            let shared = shared.clone();
            Builder::new().name(format!("duel-{thread}")).spawn(move || shared.serve(thread)).ok()
        };
        let threads = (1..=count).map_while(start).collect();
        Workers { shared, threads, busy: AtomicBool::new(false) }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.threads.len()
    }

    /// Calls `f` once for each of `0..tasks`, on the calling thread and the workers, and returns when all are done; it
    /// hears which task the thread did last. Who comes while another thread's job runs, or from within a task, does its
    /// tasks alone.
    ///
    /// # Panics
    /// With what a task panicked with.
    pub fn run(&self, tasks: usize, f: &Step<'_>) {
        assert!(u32::try_from(tasks).is_ok(), "more tasks than a share can say");
        if self.busy.swap(true, Ordering::Acquire) {
            return alone(tasks, f);
        }
        let shared = &*self.shared;
        let threads = shared.shares.len();
        for (t, share) in shared.shares.iter().enumerate() {
            share.set(tasks * t / threads..tasks * (t + 1) / threads);
        }
        // SAFETY: only the lifetime changes: `Opened` keeps this function from returning while a worker has `f`.
        let job = unsafe { std::mem::transmute::<&Step<'_>, &'static Step<'static>>(f) };
        // SAFETY: the gate is closed and nobody inside, since the last job's `Opened` waited for that.
        unsafe { *shared.job.get() = Some(job) };
        let opened = Opened::new(self);
        shared.work(0, f);
        drop(opened);
    }
}

/// Calls `f` for each of `0..tasks` on this thread.
pub fn alone(tasks: usize, f: &Step<'_>) {
    (0..tasks).for_each(|task| f(task.checked_sub(1), task));
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.wake_all();
        for thread in self.threads.drain(..) {
            // A worker catches what its tasks panic with.
            let _ = thread.join();
        }
    }
}

/// A job that takes workers, until it is dropped, which waits for those inside.
struct Opened<'w>(&'w Workers);

impl<'w> Opened<'w> {
    fn new(workers: &'w Workers) -> Self {
        // Nobody is inside a closed gate: the count is 0, and the next number is one more.
        workers.shared.gate.fetch_add(3 * OPEN, Ordering::SeqCst);
        workers.shared.wake_all();
        Opened(workers)
    }
}

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        let shared = &*self.0.shared;
        shared.gate.fetch_and(!OPEN, Ordering::AcqRel);
        let mut turn = 0;
        while shared.gate.load(Ordering::Acquire) & (OPEN - 1) != 0 {
            if turn < SPINS {
                spin_loop()
            } else {
                yield_now()
            }
            turn += 1;
        }
        let panic = shared.locked().take();
        self.0.busy.store(false, Ordering::Release);
        if let Some(panic) = panic.filter(|_| !std::thread::panicking()) {
            resume_unwind(panic);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Every task once, however many there are, with workers that are awake, that sleep, and that are inside already.
    #[test]
    fn every_task_is_done_once() {
        let workers = Workers::new(3);
        for round in 0..2000 {
            let done: Vec<AtomicUsize> = (0..round % 37).map(|_| AtomicUsize::new(0)).collect();
            workers.run(done.len(), &|_, task| {
                done[task].fetch_add(1, Ordering::Relaxed);
                workers.run(1, &|_, _| ());
            });
            assert!(done.iter().all(|n| n.load(Ordering::Relaxed) == 1), "round {round}");
            if round % 500 == 0 {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    /// Two threads with one pool: each has all of its own tasks done.
    #[test]
    fn a_pool_has_several_masters() {
        let workers = Workers::new(2);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for tasks in 0..500 {
                        let done = AtomicUsize::new(0);
                        workers.run(tasks, &|_, _| {
                            done.fetch_add(1, Ordering::Relaxed);
                        });
                        assert_eq!(done.into_inner(), tasks);
                    }
                });
            }
        });
    }

    /// A panic in any task reaches the caller, and the pool works on.
    #[test]
    fn a_panic_comes_out() {
        let workers = Workers::new(3);
        for bad in 0..40 {
            let run = AssertUnwindSafe(|| workers.run(40, &|_, task| assert_ne!(task, bad, "this one")));
            let panic = catch_unwind(run).expect_err("one task panics");
            assert!(panic.downcast_ref::<String>().is_some_and(|text| text.contains("this one")));
        }
        let done = AtomicUsize::new(0);
        workers.run(9, &|_, _| {
            done.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(done.into_inner(), 9);
    }
}
