//! Ranks that are joined by wires.

use crate::calls::{Call, Room, State};
use crate::wire::{Notice, Wire};
use crate::{Comm, Error, Exchange, Result};
use std::cell::RefCell;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How long the helper sleeps where nothing happened: the cores are the rank's.
const LOOK: Duration = Duration::from_micros(500);

/// What a rank has of the others, and a helper who goes on with exchanges while the rank does other things.
struct Shared<W> {
    state: Mutex<State<W>>,
    /// Something was begun, or it is over.
    news: Condvar,
}

impl<W: Wire> Shared<W> {
    fn state(&self) -> MutexGuard<'_, State<W>> {
        // A rank that panics says so to the others, whatever it was at.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the helper does.
    fn help(&self) {
        let mut state = self.state();
        while !state.closing {
            match state.go_on() {
                Ok(Some(progress)) => {
                    drop(state);
                    if !progress {
                        thread::sleep(LOOK);
                    }
                    state = self.state();
                }
                Ok(None) => state = self.news.wait(state).unwrap_or_else(PoisonError::into_inner),
                Err(error) => state.broken = Some(error),
            }
        }
    }
}

/// A rank that is joined to the others by wires.
pub(crate) struct Joined<W: Wire> {
    rank: usize,
    size: usize,
    shared: Arc<Shared<W>>,
    /// There from the first exchange on that was begun.
    helper: RefCell<Option<JoinHandle<()>>>,
}

impl<W: Wire> Joined<W> {
    pub(crate) fn new(wire: W) -> Self {
        let (rank, size) = (wire.rank(), wire.size());
        let shared = Arc::new(Shared { state: Mutex::new(State::new(wire)), news: Condvar::new() });
        Joined { rank, size, shared, helper: RefCell::new(None) }
    }

    /// # Errors
    /// Something went wrong on any rank, or one of them is no more.
    #[cfg(feature = "nccl")]
    pub(crate) fn look(&self) -> Result<()> {
        let mut state = self.shared.state();
        state.hear();
        let others: Vec<_> = (0..self.size).filter(|rank| *rank != self.rank).collect();
        state.check(&others)
    }

    /// Waits a moment, and says how long others may be waited for in all.
    #[cfg(feature = "nccl")]
    pub(crate) fn rest(&self, moments: u32) -> Duration {
        let mut state = self.shared.state();
        state.wire.rest(moments);
        state.limit
    }

    /// No further call is made, for this reason.
    #[cfg(feature = "nccl")]
    pub(crate) fn give_up(&self, error: &Error) {
        self.shared.state().broken.get_or_insert_with(|| error.clone());
    }

    /// Waits until all ranks are about to end, in which nothing went wrong.
    #[cfg(any(feature = "mpi", feature = "nccl"))]
    pub(crate) fn end(&self) -> Result<()> {
        let mut state = self.shared.state();
        state.call_any(Call::End, &[])?;
        state.told = true;
        Ok(())
    }
}

impl<W: Wire> Comm for Joined<W> {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn gather(&self, mine: &[u8]) -> Result<Vec<Vec<u8>>> {
        let mut all = self.shared.state().call_any(Call::Gather, mine)?;
        all[self.rank] = mine.to_vec();
        Ok(all)
    }

    fn exchange(&self, send: &[&[u8]], recv: &mut [&mut [u8]]) -> Result<()> {
        assert_eq!((send.len(), recv.len()), (self.size, self.size), "a message to and from each rank");
        recv[self.rank].copy_from_slice(send[self.rank]);
        let mut rooms: Vec<_> = recv.iter_mut().map(|room| Room::Fixed(room)).collect();
        self.shared.state().call(Call::Exchange, send, &mut rooms)
    }

    fn begin(&self, mut exchange: Exchange) -> Result<Option<Exchange>> {
        let Exchange { send, recv } = &mut exchange;
        assert_eq!((send.len(), recv.len()), (self.size, self.size), "a message to and from each rank");
        recv[self.rank].copy_from_slice(&send[self.rank]);
        self.shared.state().begin(exchange)?;
        let mut helper = self.helper.borrow_mut();
        if helper.is_none() {
            let shared = self.shared.clone();
            let spawned = thread::Builder::new().name("duel-comm".into()).spawn(move || shared.help());
            *helper = Some(spawned.map_err(|e| Error::new(format!("no thread for exchanges: {e}")))?);
        }
        self.shared.news.notify_one();
        Ok(None)
    }

    fn ended(&self, waits: bool) -> Result<Option<Exchange>> {
        self.shared.state().ended(waits)
    }

    fn fail(&self, why: &str) {
        self.shared.state().fail(why);
    }

    fn speaks(&self) -> bool {
        self.shared.state().speaks()
    }

    fn set_timeout(&self, limit: Duration) {
        self.shared.state().limit = limit;
    }
}

/// Makes a type with such a field a rank.
macro_rules! delegate {
    ($type:ty, $field:ident) => {
        impl crate::Comm for $type {
            fn rank(&self) -> usize {
                self.$field.rank()
            }

            fn size(&self) -> usize {
                self.$field.size()
            }

            fn gather(&self, mine: &[u8]) -> crate::Result<Vec<Vec<u8>>> {
                self.$field.gather(mine)
            }

            fn exchange(&self, send: &[&[u8]], recv: &mut [&mut [u8]]) -> crate::Result<()> {
                self.$field.exchange(send, recv)
            }

            fn begin(&self, exchange: crate::Exchange) -> crate::Result<Option<crate::Exchange>> {
                self.$field.begin(exchange)
            }

            fn ended(&self, waits: bool) -> crate::Result<Option<crate::Exchange>> {
                self.$field.ended(waits)
            }

            fn fail(&self, why: &str) {
                self.$field.fail(why);
            }

            fn speaks(&self) -> bool {
                self.$field.speaks()
            }

            fn set_timeout(&self, limit: std::time::Duration) {
                self.$field.set_timeout(limit);
            }
        }
    };
}
pub(crate) use delegate;

impl<W: Wire> Drop for Joined<W> {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        if thread::panicking() {
            state.fail("duel itself failed");
        }
        if !state.told {
            state.wire.notify(&Notice::Ended);
        }
        state.closing = true;
        drop(state);
        self.shared.news.notify_one();
        // It has nothing to say, and the wire is dropped with this.
        let _ = self.helper.take().map(JoinHandle::join);
    }
}
