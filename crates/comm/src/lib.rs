#![doc = include_str!("../README.md")]

mod alone;
mod calls;
mod error;
mod joined;
mod launch;
#[cfg(feature = "mpi")]
mod mpi;
#[cfg(feature = "nccl")]
mod nccl;
#[cfg(feature = "nccl")]
mod tcp;
mod threads;
mod wire;

pub use alone::Alone;
pub use error::{Error, Result};
pub use launch::Launch;
#[cfg(feature = "mpi")]
pub use mpi::Mpi;
#[cfg(feature = "nccl")]
pub use nccl::Nccl;
pub use threads::{Thread, threads};

use std::time::Duration;

/// How long a rank is waited for, unless [`Comm::set_timeout`] says otherwise: as long as PyTorch's trainers do.
pub const TIMEOUT: Duration = Duration::from_secs(1800);

/// One message to each rank and one from each, by rank, of lengths that both know.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// What goes to each.
    pub send: Vec<Vec<u8>>,
    /// What comes from each; as long before it has come.
    pub recv: Vec<Vec<u8>>,
}

/// A rank among ranks. All of them make the same calls in the same order.
pub trait Comm {
    /// Its number, counted from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// What every rank says here, by rank, in any lengths.
    ///
    /// # Errors
    /// A rank failed, ended, did not come in time, or made another call.
    fn gather(&self, mine: &[u8]) -> Result<Vec<Vec<u8>>>;

    /// Sends `send[r]` to rank r and gets `recv[r]` from it, in lengths that both know; what a rank has for itself is
    /// copied. One piece of memory may be sent to many.
    ///
    /// # Errors
    /// As [`Comm::gather`].
    ///
    /// # Panics
    /// When there are not as many of them as ranks, or what it has for itself has two lengths.
    fn exchange(&self, send: &[&[u8]], recv: &mut [&mut [u8]]) -> Result<()>;

    /// Begins an exchange, which goes on while this rank does other things, and ends before any call that is made after
    /// it. `Some`: it has ended already, as every one does of an engine whose ranks do nothing beside.
    ///
    /// # Errors
    /// As [`Comm::gather`].
    ///
    /// # Panics
    /// As [`Comm::exchange`].
    fn begin(&self, mut exchange: Exchange) -> Result<Option<Exchange>> {
        let send: Vec<&[u8]> = exchange.send.iter().map(Vec::as_slice).collect();
        let mut recv: Vec<&mut [u8]> = exchange.recv.iter_mut().map(Vec::as_mut_slice).collect();
        self.exchange(&send, &mut recv)?;
        Ok(Some(exchange))
    }

    /// The oldest exchange that was begun and not given back: where it has not ended, it is waited for if this rank
    /// `waits`. `None`: there is none, or it goes on.
    ///
    /// # Errors
    /// As [`Comm::gather`].
    fn ended(&self, _waits: bool) -> Result<Option<Exchange>> {
        Ok(None)
    }

    /// Tells all others why this rank ends. The first reason counts, one that came from another rank too.
    fn fail(&self, why: &str);

    /// After [`Comm::fail`]: whether this rank is the one that tells people. That is the lowest one that is there; all
    /// others wait until it has heard, or for a while.
    fn speaks(&self) -> bool;

    /// How long the others are waited for from now on.
    fn set_timeout(&self, limit: Duration);
}
