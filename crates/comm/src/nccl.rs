//! Ranks that are processes with a GPU each: large messages go from GPU to GPU.

use crate::joined::Joined;
use crate::tcp::Lines;
use crate::{Comm, Error, Launch, Result, TIMEOUT};
use duel_cuda::{FABRIC_ID, Fabric};
use std::cell::RefCell;
use std::time::{Duration, Instant};

/// A rank that is a process with a GPU of its own.
///
/// What ranks exchange goes through NCCL, in memory of the GPUs; that all of them are at the same exchange, of the same
/// lengths, they first say to each other over connections of their own, so that nobody waits in NCCL for one that does
/// not come. Over these goes what is gathered too, and why a rank ends.
pub struct Nccl {
    joined: Joined<Lines>,
    /// None from when it was given up, and where a rank has no other.
    fabric: RefCell<Option<Fabric>>,
}

/// What is asked while a fabric is waited for: how long that has been, and whether all others are well.
struct Waiting<'a> {
    joined: &'a Joined<Lines>,
    what: String,
    moments: u32,
    waited: Duration,
    looked: Instant,
}

impl<'a> Waiting<'a> {
    fn new(joined: &'a Joined<Lines>, what: impl Into<String>) -> Self {
        Waiting { joined, what: what.into(), moments: 0, waited: Duration::ZERO, looked: Instant::now() }
    }

    fn look(&mut self) -> std::result::Result<(), duel_backend::Error> {
        let look = self.joined.look().and_then(|()| {
            let limit = self.joined.rest(self.moments);
            self.moments += 1;
            let now = Instant::now();
            self.waited += (now - self.looked).min(crate::calls::MOMENT);
            self.looked = now;
            if self.waited < limit {
                return Ok(());
            }
            Err(Error::new(format!(
                "{} did not end in {} s, to which all ranks had come: a GPU hangs, or what joins the machines; \
                 NCCL_DEBUG=INFO says more, and ddp_timeout is longer",
                self.what,
                limit.as_secs_f64()
            )))
        });
        // The kind of error that says its text and nothing else.
        look.map_err(|e| duel_backend::Error::NoDevice(e.to_string()))
    }
}

impl Nccl {
    /// This process's rank, with the GPU of this number (as the driver counts those that it shows). Meets all others
    /// where `MASTER_ADDR` and `MASTER_PORT` say, or the step of SLURM.
    ///
    /// # Errors
    /// NCCL or the GPU is missing, the environment does not say where to meet, or a rank does not come.
    pub fn start(launch: &Launch, device: usize) -> Result<Self> {
        let lines = Lines::meet(launch, TIMEOUT)?;
        let joined = Joined::new(lines);
        let fabric = Self::join(&joined, launch, device).inspect_err(|e| joined.fail(&e.to_string()))?;
        Ok(Nccl { joined, fabric: RefCell::new(fabric) })
    }

    fn join(joined: &Joined<Lines>, launch: &Launch, device: usize) -> Result<Option<Fabric>> {
        if launch.size == 1 {
            return Ok(None);
        }
        let said = |e: duel_backend::Error| Error::new(e.to_string());
        let mut mine = match launch.rank {
            0 => Fabric::id().map_err(said)?.to_vec(),
            _ => Vec::new(),
        };
        mine.extend(place(device).map_err(said)?);
        let all = joined.gather(&mine)?;
        let Some((id, first)) = all[0].split_first_chunk::<FABRIC_ID>() else {
            return Err(Error::new("rank 0 has another duel: it gives no name for the ranks"));
        };
        one_gpu_each(std::iter::once(first).chain(all[1..].iter().map(|place| &place[..])))?;
        let mut waiting = Waiting::new(joined, "the start of NCCL");
        Fabric::join(device, id, [launch.rank, launch.size], || waiting.look()).map(Some).map_err(said)
    }

    /// Exchanges what goes to others.
    fn between(&self, send: &[&[u8]], recv: &mut [&mut [u8]]) -> Result<()> {
        let (rank, size) = (self.joined.rank(), self.joined.size());
        let lens: Vec<_> = send.iter().map(|part| (part.len() as u64).to_le_bytes()).collect();
        let mut theirs = vec![[0; 8]; size];
        let lens: Vec<_> = lens.iter().map(|len| &len[..]).collect();
        self.joined.exchange(&lens, &mut theirs.iter_mut().map(|len| &mut len[..]).collect::<Vec<_>>())?;
        for (from, room) in recv.iter().enumerate() {
            let sent = u64::from_le_bytes(theirs[from]);
            if sent != room.len() as u64 {
                return Err(Error::new(format!(
                    "rank {from} sends {sent} bytes, and rank {rank} expects {}: they do not do the same",
                    room.len()
                )));
            }
        }
        let mut fabric = self.fabric.borrow_mut();
        let Some(joining) = &mut *fabric else { return Ok(()) };
        let mut waiting = Waiting::new(&self.joined, "an exchange over NCCL");
        let done = joining.exchange(send, recv, || waiting.look());
        done.map_err(|e| {
            *fabric = None;
            Error::new(e.to_string())
        })
    }
}

/// Where a rank is, as NCCL tells places apart: a GPU, of a machine that may be named otherwise.
fn place(device: usize) -> std::result::Result<Vec<u8>, duel_backend::Error> {
    let mut place = duel_cuda::device_id(device)?.to_vec();
    place.extend(std::env::var("NCCL_HOSTID").unwrap_or_default().into_bytes());
    Ok(place)
}

/// # Errors
/// Two ranks have the same GPU, which NCCL refuses without saying so.
fn one_gpu_each<'a>(places: impl Iterator<Item = &'a [u8]>) -> Result<()> {
    let places: Vec<_> = places.collect();
    for (rank, place) in places.iter().enumerate() {
        if let Some(other) = places[..rank].iter().position(|before| before == place) {
            return Err(Error::new(format!(
                "ranks {other} and {rank} have the same GPU, and NCCL takes one rank a GPU: start no more processes on a \
                 machine than it has GPUs, and let CUDA_VISIBLE_DEVICES show them"
            )));
        }
    }
    Ok(())
}

impl Comm for Nccl {
    fn rank(&self) -> usize {
        self.joined.rank()
    }

    fn size(&self) -> usize {
        self.joined.size()
    }

    fn gather(&self, mine: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.joined.gather(mine)
    }

    fn exchange(&self, send: &[&[u8]], recv: &mut [&mut [u8]]) -> Result<()> {
        let (rank, size) = (self.joined.rank(), self.joined.size());
        assert_eq!((send.len(), recv.len()), (size, size), "a message to each rank and one from each");
        recv[rank].copy_from_slice(send[rank]);
        self.between(send, recv).inspect_err(|error| self.joined.give_up(error))
    }

    fn fail(&self, why: &str) {
        // What is still under way waits for nobody any more.
        drop(self.fabric.take());
        self.joined.fail(why);
    }

    fn speaks(&self) -> bool {
        self.joined.speaks()
    }

    fn set_timeout(&self, limit: Duration) {
        self.joined.set_timeout(limit);
    }
}

impl Drop for Nccl {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // Nobody leaves before all do: an end that others still wait for would be taken for a failure.
            if let Err(error) = self.joined.end() {
                self.joined.fail(&error.to_string());
            }
        }
        drop(self.fabric.take());
    }
}
