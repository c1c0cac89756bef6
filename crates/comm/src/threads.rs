//! Ranks that are threads of one process.

use crate::Result;
use crate::joined::{Joined, delegate};
use crate::wire::{Notice, Wire};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Messages between two ranks that are on their way at most.
const WINDOW: usize = 4;
/// How long one waits without looking again: nothing is missed, a wait ends when anything happens.
const REST: Duration = Duration::from_millis(100);

#[derive(Default)]
struct Boxes {
    /// By sender and receiver.
    messages: Vec<VecDeque<Vec<u8>>>,
    /// Notices that each rank has to read.
    notices: Vec<VecDeque<(usize, Notice)>>,
    /// Buffers without use.
    free: Vec<Vec<u8>>,
    /// How often anything happened.
    events: u64,
}

struct Shared {
    boxes: Mutex<Boxes>,
    changed: Condvar,
}

struct Mailbox {
    rank: usize,
    size: usize,
    shared: Arc<Shared>,
    /// What had happened when this rank last found nothing.
    seen: u64,
}

impl Mailbox {
    fn boxes(&self) -> MutexGuard<'_, Boxes> {
        // Nothing in here panics half-way, whatever became of a rank.
        self.shared.boxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self, boxes: &mut Boxes) {
        boxes.events += 1;
        self.shared.changed.notify_all();
    }
}

impl Wire for Mailbox {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn buffer(&mut self) -> Vec<u8> {
        self.boxes().free.pop().unwrap_or_default()
    }

    fn has_room(&mut self, to: usize) -> Result<bool> {
        Ok(self.boxes().messages[self.rank * self.size + to].len() < WINDOW)
    }

    fn send(&mut self, to: usize, message: Vec<u8>) -> Result<()> {
        let mut boxes = self.boxes();
        boxes.messages[self.rank * self.size + to].push_back(message);
        self.changed(&mut boxes);
        Ok(())
    }

    fn take(&mut self, from: usize) -> Result<Option<Vec<u8>>> {
        let mut boxes = self.boxes();
        let message = boxes.messages[from * self.size + self.rank].pop_front();
        if message.is_some() {
            self.changed(&mut boxes);
        }
        Ok(message)
    }

    fn give_back(&mut self, mut message: Vec<u8>) {
        message.clear();
        let mut boxes = self.boxes();
        if boxes.free.len() < WINDOW * self.size {
            boxes.free.push(message);
        }
    }

    fn is_gone(&mut self) -> Result<bool> {
        Ok(true)
    }

    fn notify(&mut self, notice: &Notice) {
        let mut boxes = self.boxes();
        for (to, unread) in boxes.notices.iter_mut().enumerate() {
            if to != self.rank {
                unread.push_back((self.rank, notice.clone()));
            }
        }
        self.changed(&mut boxes);
    }

    fn notice(&mut self) -> Option<(usize, Notice)> {
        self.boxes().notices[self.rank].pop_front()
    }

    fn rest(&mut self, _moments: u32) {
        let nothing = |boxes: &mut Boxes| boxes.events == self.seen;
        let waited = self.shared.changed.wait_timeout_while(self.boxes(), REST, nothing);
        let events = waited.unwrap_or_else(PoisonError::into_inner).0.events;
        self.seen = events;
    }
}

/// A rank that is a thread. One that panics or is dropped tells the others so.
pub struct Thread {
    comm: Joined<Mailbox>,
}

/// As many ranks, each for a thread of its own.
///
/// # Panics
/// When there are none.
pub fn threads(size: usize) -> Vec<Thread> {
    assert!(size > 0, "a run has a rank");
    let boxes = Boxes {
        messages: vec![VecDeque::new(); size * size],
        notices: vec![VecDeque::new(); size],
        ..Boxes::default()
    };
    let shared = Arc::new(Shared { boxes: Mutex::new(boxes), changed: Condvar::new() });
    let rank = |rank| Thread { comm: Joined::new(Mailbox { rank, size, shared: shared.clone(), seen: 0 }) };
    (0..size).map(rank).collect()
}

delegate!(Thread, comm);
