//! Ranks that are joined by wires: what a call means in messages, and what becomes of one that cannot end.

use crate::wire::{Notice, Wire};
use crate::{Comm, Error, Result, TIMEOUT};
use std::cell::RefCell;
use std::time::{Duration, Instant};

/// Bytes of a message at most, with its head: copied in and out of a core's cache, and a few may be under way.
pub(crate) const MESSAGE: usize = 1 << 20;
/// Bytes at the beginning of the first message of a call: its number, what it is, how long.
const HEAD: usize = 24;
/// The most that counts as waiting between two looks at the clock: if more passed, this process was not running.
pub(crate) const MOMENT: Duration = Duration::from_secs(1);
/// How long a rank that fails waits for the one that tells people.
const FAREWELL: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
enum Call {
    Gather,
    Exchange,
    #[cfg(any(feature = "mpi", feature = "nccl"))]
    End,
}

impl Call {
    fn name(number: u64) -> &'static str {
        match number {
            0 => "gather",
            1 => "exchange",
            _ => "the end, call",
        }
    }
}

/// What is on its way to a rank.
struct Outgoing<'a> {
    to: usize,
    head: Option<[u8; HEAD]>,
    body: &'a [u8],
}

/// Where a rank's bytes go.
enum Room<'a> {
    Fixed(&'a mut [u8]),
    /// As many as it says.
    Any(&'a mut Vec<u8>),
}

/// What is to come from a rank.
struct Incoming<'a> {
    from: usize,
    room: Room<'a>,
    begun: bool,
    filled: usize,
}

impl Incoming<'_> {
    fn bytes(&mut self) -> &mut [u8] {
        match &mut self.room {
            Room::Fixed(bytes) => bytes,
            Room::Any(bytes) => bytes,
        }
    }

    fn is_whole(&mut self) -> bool {
        self.begun && self.filled == self.bytes().len()
    }
}

struct State<W> {
    wire: W,
    limit: Duration,
    /// Calls so far.
    calls: u64,
    /// Why there are no more.
    broken: Option<Error>,
    /// What was told by each rank.
    notices: Vec<Option<Notice>>,
    /// This rank has told why it ends.
    told: bool,
    /// Ranks that did not come.
    missing: Vec<usize>,
}

impl<W: Wire> State<W> {
    /// Makes one call: sends a part to each other rank and fills a room from each; its own are left as they are.
    fn call(&mut self, call: Call, parts: &[&[u8]], rooms: Vec<Room<'_>>) -> Result<()> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        let done = self.messages(call, parts, rooms);
        self.calls += 1;
        self.broken = done.clone().err();
        done
    }

    /// Makes one call that sends the same to each rank and takes any lengths; a rank's own is left empty.
    fn call_any(&mut self, call: Call, mine: &[u8]) -> Result<Vec<Vec<u8>>> {
        let size = self.wire.size();
        let mut all = vec![Vec::new(); size];
        self.call(call, &vec![mine; size], all.iter_mut().map(Room::Any).collect())?;
        Ok(all)
    }

    fn messages(&mut self, call: Call, parts: &[&[u8]], rooms: Vec<Room<'_>>) -> Result<()> {
        let (rank, size) = (self.wire.rank(), self.wire.size());
        let mut incoming: Vec<_> = (0..size)
            .zip(rooms)
            .filter(|(from, _)| *from != rank)
            .map(|(from, room)| Incoming { from, room, begun: false, filled: 0 })
            .collect();
        // Each begins with the next one, so that not all send to one.
        let mut outgoing: Vec<_> = (rank + 1..rank + size)
            .map(|to| to % size)
            .map(|to| Outgoing { to, head: Some(self.head(call, parts[to].len())), body: parts[to] })
            .collect();
        let (mut moments, mut waited, mut looked) = (0, Duration::ZERO, Instant::now());
        loop {
            let mut progress = false;
            // What a rank sent before it ended is then found below.
            self.hear();
            for out in &mut outgoing {
                progress |= self.push(out)?;
            }
            for inc in &mut incoming {
                progress |= self.pull(call, inc)?;
            }
            outgoing.retain(|out| out.head.is_some() || !out.body.is_empty());
            incoming.retain_mut(|inc| !inc.is_whole());
            let gone = self.wire.is_gone()?;
            if outgoing.is_empty() && incoming.is_empty() && gone {
                return Ok(());
            }
            let now = Instant::now();
            if progress {
                (moments, waited, looked) = (0, Duration::ZERO, now);
                continue;
            }
            let waits_for = incoming.iter().map(|inc| inc.from).chain(outgoing.iter().map(|out| out.to));
            self.check(&waits_for.collect::<Vec<_>>())?;
            waited += (now - looked).min(MOMENT);
            looked = now;
            if waited >= self.limit {
                return Err(self.timed_out(call, &incoming, &outgoing));
            }
            self.wire.rest(moments);
            moments += 1;
        }
    }

    fn head(&self, call: Call, bytes: usize) -> [u8; HEAD] {
        let mut head = [0; HEAD];
        let numbers = [self.calls, call as u64, bytes as u64];
        head.chunks_exact_mut(8).zip(numbers).for_each(|(to, n)| to.copy_from_slice(&n.to_le_bytes()));
        head
    }

    /// Sends what there is room for.
    fn push(&mut self, out: &mut Outgoing<'_>) -> Result<bool> {
        let mut progress = false;
        while (out.head.is_some() || !out.body.is_empty()) && self.wire.has_room(out.to)? {
            let mut message = self.wire.buffer();
            message.extend(out.head.take().iter().flatten());
            let (now, later) = out.body.split_at(out.body.len().min(MESSAGE - message.len()));
            message.extend_from_slice(now);
            out.body = later;
            self.wire.send(out.to, message)?;
            progress = true;
        }
        Ok(progress)
    }

    /// Takes what is here of this call.
    fn pull(&mut self, call: Call, inc: &mut Incoming<'_>) -> Result<bool> {
        let mut progress = false;
        while !inc.is_whole() {
            let Some(message) = self.wire.take(inc.from)? else { break };
            let mut body = &message[..];
            if !inc.begun {
                body = self.begin(call, inc, body)?;
            }
            let filled = inc.filled;
            inc.bytes()[filled..][..body.len()].copy_from_slice(body);
            inc.filled += body.len();
            self.wire.give_back(message);
            progress = true;
        }
        Ok(progress)
    }

    /// Reads a head, and gives what follows it.
    fn begin<'m>(&self, call: Call, inc: &mut Incoming<'_>, message: &'m [u8]) -> Result<&'m [u8]> {
        let (head, body) = message.split_at(HEAD);
        let number = |i: usize| u64::from_le_bytes(std::array::from_fn(|byte| head[8 * i + byte]));
        let [calls, other, bytes] = [0, 1, 2].map(number);
        if let Room::Any(room) = &mut inc.room {
            room.resize(bytes as usize, 0);
        }
        let expected = inc.bytes().len() as u64;
        if (calls, other, bytes) != (self.calls, call as u64, expected) {
            return Err(Error::new(format!(
                "rank {} is at {} {calls} of {bytes} bytes, and rank {} at {} {} of {expected}: they do not do the same",
                inc.from,
                Call::name(other),
                self.wire.rank(),
                Call::name(call as u64),
                self.calls
            )));
        }
        inc.begun = true;
        Ok(body)
    }

    /// Reads what others tell.
    fn hear(&mut self) {
        while let Some((of, notice)) = self.wire.notice() {
            self.notices[of] = Some(notice);
        }
    }

    /// # Errors
    /// Something went wrong on another rank, or one that is waited for had ended before it was last asked.
    fn check(&mut self, waits_for: &[usize]) -> Result<()> {
        for notice in self.notices.iter().flatten() {
            if let Notice::Failed { rank, why, missing } = notice {
                self.missing.clone_from(missing);
                return Err(Error::new(format!("rank {rank}: {why}")));
            }
        }
        for rank in waits_for {
            if self.notices[*rank] == Some(Notice::Ended) {
                return Err(Error::new(format!("rank {rank} has ended, while others wait for it")));
            }
            if self.wire.is_lost(*rank) {
                self.missing = vec![*rank];
                return Err(Error::new(format!(
                    "rank {rank} is gone without a word: it was killed, or its machine is gone"
                )));
            }
        }
        Ok(())
    }

    fn timed_out(&mut self, call: Call, incoming: &[Incoming<'_>], outgoing: &[Outgoing<'_>]) -> Error {
        let seconds = self.limit.as_secs_f64();
        let of = format!("{} {}", Call::name(call as u64), self.calls);
        let list = |ranks: &[usize]| {
            let names: Vec<_> = ranks.iter().map(usize::to_string).collect();
            format!("rank{} {}", if ranks.len() == 1 { "" } else { "s" }, names.join(", "))
        };
        let late =
            |begun: bool| incoming.iter().filter(|inc| inc.begun == begun).map(|inc| inc.from).collect();
        let (absent, stuck): (Vec<_>, Vec<_>) = (late(false), late(true));
        let (ranks, did) = match (&absent[..], &stuck[..]) {
            ([], []) => (outgoing.iter().map(|out| out.to).collect(), "did not take what was sent"),
            ([], _) => (stuck, "stopped in the middle"),
            _ => (absent, "did not come"),
        };
        let named = if ranks.is_empty() { "a rank".into() } else { list(&ranks) };
        self.missing = ranks;
        Error::new(format!(
            "{named} {did} in {seconds} s ({of}): it hangs, or its machine is gone; ddp_timeout is longer"
        ))
    }

    fn fail(&mut self, why: &str) {
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        self.hear();
        let heard = self.notices.iter().flatten().find(|n| matches!(n, Notice::Failed { .. })).cloned();
        let rank = self.wire.rank();
        let own = || Notice::Failed { rank, why: why.into(), missing: self.missing.clone() };
        let notice = heard.unwrap_or_else(own);
        self.wire.notify(&notice);
        self.broken.get_or_insert_with(|| Error::new(why));
    }

    /// Whether this rank is the lowest that is there; waits until that one ends too.
    fn speaks(&mut self) -> bool {
        let begun = Instant::now();
        let mut moments = 0;
        while begun.elapsed() < FAREWELL {
            self.hear();
            let is_gone = |r: &usize| self.notices[*r].is_none() && self.wire.is_lost(*r);
            let lower = (0..self.wire.rank()).find(|r| !self.missing.contains(r) && !is_gone(r));
            let Some(speaker) = lower else { return true };
            match &self.notices[speaker] {
                Some(Notice::Failed { .. }) => return false,
                Some(Notice::Ended) => return true,
                None => self.wire.rest(moments),
            }
            moments += 1;
        }
        true
    }
}

/// A rank that is joined to the others by wires.
pub(crate) struct Joined<W: Wire> {
    state: RefCell<State<W>>,
}

impl<W: Wire> Joined<W> {
    pub(crate) fn new(wire: W) -> Self {
        let notices = vec![None; wire.size()];
        Joined {
            state: RefCell::new(State {
                wire,
                limit: TIMEOUT,
                calls: 0,
                broken: None,
                notices,
                told: false,
                missing: Vec::new(),
            }),
        }
    }

    /// # Errors
    /// Something went wrong on any rank, or one of them is no more.
    #[cfg(feature = "nccl")]
    pub(crate) fn look(&self) -> Result<()> {
        let mut state = self.state.borrow_mut();
        state.hear();
        let others: Vec<_> = (0..state.wire.size()).filter(|rank| *rank != state.wire.rank()).collect();
        state.check(&others)
    }

    /// Waits a moment, and says how long others may be waited for in all.
    #[cfg(feature = "nccl")]
    pub(crate) fn rest(&self, moments: u32) -> Duration {
        let mut state = self.state.borrow_mut();
        state.wire.rest(moments);
        state.limit
    }

    /// No further call is made, for this reason.
    #[cfg(feature = "nccl")]
    pub(crate) fn give_up(&self, error: &Error) {
        self.state.borrow_mut().broken.get_or_insert_with(|| error.clone());
    }

    /// Waits until all ranks are about to end, in which nothing went wrong.
    #[cfg(any(feature = "mpi", feature = "nccl"))]
    pub(crate) fn end(&self) -> Result<()> {
        let mut state = self.state.borrow_mut();
        state.call_any(Call::End, &[])?;
        state.told = true;
        Ok(())
    }
}

impl<W: Wire> Comm for Joined<W> {
    fn rank(&self) -> usize {
        self.state.borrow().wire.rank()
    }

    fn size(&self) -> usize {
        self.state.borrow().wire.size()
    }

    fn gather(&self, mine: &[u8]) -> Result<Vec<Vec<u8>>> {
        let mut all = self.state.borrow_mut().call_any(Call::Gather, mine)?;
        all[self.rank()] = mine.to_vec();
        Ok(all)
    }

    fn exchange(&self, send: &[&[u8]], recv: &mut [&mut [u8]]) -> Result<()> {
        let (rank, size) = (self.rank(), self.size());
        assert!(send.len() == size && recv.len() == size, "a message to and from each of {size} ranks");
        recv[rank].copy_from_slice(send[rank]);
        let rooms = recv.iter_mut().map(|room| Room::Fixed(room)).collect();
        self.state.borrow_mut().call(Call::Exchange, send, rooms)
    }

    fn fail(&self, why: &str) {
        self.state.borrow_mut().fail(why);
    }

    fn speaks(&self) -> bool {
        self.state.borrow_mut().speaks()
    }

    fn set_timeout(&self, limit: Duration) {
        self.state.borrow_mut().limit = limit;
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
        let state = self.state.get_mut();
        if std::thread::panicking() {
            state.fail("duel itself failed");
        }
        if !state.told {
            state.wire.notify(&Notice::Ended);
        }
    }
}
