//! The processes of a run, which do the same in the same order and share out what takes long.
//!
//! Everything that lies on the host is known to all of them: each reads the rows, draws the random numbers and computes
//! the metrics. What a row's tokens are and what a device says is made by one and told to all, so that none of it
//! depends on how many there are.

mod cut;
mod pieces;
mod same;
mod wire;

pub use cut::Cut;
pub use pieces::{Updater, most_under_way};
pub use same::{check_program, check_run, check_shares};
pub use wire::Wire;

use crate::Error;
use crate::engine::Engine;
use crate::say::hush;
use crate::signal;
use duel_backend::Backend;
use duel_comm::{Comm, Exchange};
use duel_data::{Dataset, Together};
use duel_loss::ResponseStats;
use duel_model::Weights;
use std::cell::Cell;
use std::ops::Range;

/// The processes of a run, as one of them sees them.
pub struct Ranks<'c> {
    comm: &'c dyn Comm,
    sent: Cell<u64>,
}

/// Rows are tokenised by all of them. What that takes is not counted among the bytes that a run sends.
impl Together for Ranks<'_> {
    fn rank(&self) -> usize {
        self.comm.rank()
    }

    fn size(&self) -> usize {
        self.comm.size()
    }

    fn all(&self, mine: &[u8]) -> Result<Vec<Vec<u8>>, String> {
        self.comm.gather(mine).map_err(|e| e.to_string())
    }
}

/// The part `which` of `n` things that are cut into `parts` in a row, as even as they come.
pub fn part(n: usize, parts: usize, which: usize) -> Range<usize> {
    n * which / parts..n * (which + 1) / parts
}

impl<'c> Ranks<'c> {
    /// Those that `comm` connects. All but the first say nothing to people from here on.
    pub fn new(comm: &'c dyn Comm) -> Self {
        if comm.rank() > 0 {
            hush(true);
        }
        Ranks { comm, sent: Cell::new(0) }
    }

    /// The end of this rank's part of a run, of which all hear that it was an error.
    pub fn ended<T>(&self, outcome: Result<T, Error>) -> Result<T, Error> {
        if let Err(e) = &outcome {
            self.comm.fail(&e.to_string());
        }
        outcome
    }

    /// Its number.
    pub fn rank(&self) -> usize {
        self.comm.rank()
    }

    /// How many there are.
    pub fn size(&self) -> usize {
        self.comm.size()
    }

    /// Whether it is the one that writes and tells people.
    pub fn leads(&self) -> bool {
        self.rank() == 0
    }

    /// Bytes that it has sent to others.
    pub fn sent(&self) -> u64 {
        self.sent.get()
    }

    /// One message to each rank and one from each: see [`Comm::exchange`].
    ///
    /// # Errors
    /// A rank is lost.
    pub fn exchange(&self, send: &[&[u8]], recv: &mut [&mut [u8]]) -> Result<(), Error> {
        self.count(send.iter().map(|bytes| bytes.len()));
        Ok(self.comm.exchange(send, recv)?)
    }

    /// Begins an exchange beside other things: see [`Comm::begin`].
    ///
    /// # Errors
    /// A rank is lost.
    pub fn begin(&self, exchange: Exchange) -> Result<Option<Exchange>, Error> {
        self.count(exchange.send.iter().map(Vec::len));
        Ok(self.comm.begin(exchange)?)
    }

    /// The oldest exchange that was begun: see [`Comm::ended`].
    ///
    /// # Errors
    /// A rank is lost.
    pub fn exchanged(&self, waits: bool) -> Result<Option<Exchange>, Error> {
        Ok(self.comm.ended(waits)?)
    }

    /// Counts what is sent to each rank.
    fn count(&self, lens: impl Iterator<Item = usize>) {
        let to_others = lens.enumerate().filter(|(rank, _)| *rank != self.rank());
        self.sent.set(self.sent.get() + to_others.map(|(_, len)| len as u64).sum::<u64>());
    }

    /// What every rank says, by rank.
    ///
    /// # Errors
    /// A rank is lost.
    pub fn all<T: Wire>(&self, mine: T) -> Result<Vec<T>, Error> {
        if self.size() == 1 {
            return Ok(vec![mine]);
        }
        let mut bytes = Vec::new();
        mine.put(&mut bytes);
        self.sent.set(self.sent.get() + (bytes.len() * (self.size() - 1)) as u64);
        let said = self.comm.gather(&bytes)?;
        let read = |(rank, bytes): (usize, &Vec<u8>)| {
            let mut rest = &bytes[..];
            let said = T::take(&mut rest).filter(|_| rest.is_empty());
            said.ok_or_else(|| {
                Error::new(format!("rank {rank} sent what is no answer: it does something else"))
            })
        };
        said.iter().enumerate().map(read).collect()
    }

    /// Whether any rank says so.
    ///
    /// # Errors
    /// A rank is lost.
    pub fn any(&self, mine: bool) -> Result<bool, Error> {
        Ok(self.all(mine)?.contains(&true))
    }

    /// What comes of what every rank did: an error of one of them, which is named, is that of all.
    ///
    /// # Errors
    /// A rank's, or it is lost.
    pub fn agree(&self, mine: Result<(), Error>) -> Result<(), Error> {
        self.told(mine).map(drop)
    }

    /// What every rank made, by rank; an error of one of them, which is named, is that of all.
    fn told<T: Wire>(&self, mine: Result<T, Error>) -> Result<Vec<T>, Error> {
        if self.size() == 1 {
            return Ok(vec![mine?]);
        }
        let all = self.all(mine)?.into_iter().enumerate();
        all.map(|(rank, made)| made.map_err(|e| e.of_rank(rank))).collect()
    }

    /// What the first rank alone does, and what comes of it.
    ///
    /// # Errors
    /// Those of `of`, on every rank; or one is lost.
    pub fn led<T: Wire>(&self, of: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        if self.size() == 1 {
            return of();
        }
        let mine = if self.leads() { Some(of()) } else { None };
        match self.all(mine)?.swap_remove(0) {
            Some(said) => said,
            None => Err(Error::new("the first rank does not answer")),
        }
    }

    /// What the first rank alone makes and keeps; the others have nothing.
    ///
    /// # Errors
    /// As [`Ranks::led`].
    pub fn kept<T>(&self, of: impl FnOnce() -> Result<T, Error>) -> Result<Option<T>, Error> {
        let mut made = None;
        self.led(|| {
            made = Some(of()?);
            Ok(())
        })?;
        Ok(made)
    }

    /// What `of` makes of `n` things, of which each rank takes some in a row: all of it, in their order.
    ///
    /// # Errors
    /// Those of `of`, or a rank is lost.
    pub fn spread<T: Wire>(
        &self,
        n: usize,
        of: impl FnOnce(Range<usize>) -> Result<Vec<T>, Error>,
    ) -> Result<Vec<T>, Error> {
        let own = of(part(n, self.size(), self.rank()));
        Ok(self.told(own)?.into_iter().flatten().collect())
    }

    /// As [`Ranks::spread`], of what may be stopped on any rank: then there is nothing.
    ///
    /// # Errors
    /// As that.
    pub fn spread_unless_stopped<T: Wire>(
        &self,
        n: usize,
        of: impl FnOnce(Range<usize>) -> Result<Option<Vec<T>>, Error>,
    ) -> Result<Option<Vec<T>>, Error> {
        let own = of(part(n, self.size(), self.rank()));
        let all: Option<Vec<Vec<T>>> = self.told(own)?.into_iter().collect();
        Ok(all.map(|all| all.into_iter().flatten().collect()))
    }

    /// As [`Engine::score`], each rank some of the groups; `each` hears how many of its own a micro-batch had. `None`:
    /// Ctrl-C.
    ///
    /// # Errors
    /// The device failed, or a rank is lost.
    pub fn score<B: Backend>(
        &self,
        engine: &mut Engine<'_, B>,
        weights: &impl Weights<B>,
        ds: &Dataset,
        groups: &[u32],
        mut each: impl FnMut(usize),
    ) -> Result<Option<Vec<ResponseStats>>, Error> {
        self.spread_unless_stopped(groups.len(), |own| {
            let stats = engine.score(weights, ds, &groups[own], |n| {
                each(n);
                !signal::interrupted()
            })?;
            Ok((!signal::interrupted()).then_some(stats))
        })
    }
}
