//! What a call means in messages, and what becomes of one that cannot end.

use crate::wire::{Notice, Wire};
use crate::{Error, Exchange, Result, TIMEOUT};
use std::collections::VecDeque;
use std::mem::take;
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
pub(crate) enum Call {
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
struct Outgoing {
    to: usize,
    begun: bool,
    sent: usize,
}

/// Where a rank's bytes go.
pub(crate) enum Room<'a> {
    Fixed(&'a mut [u8]),
    /// As many as it says.
    Any(&'a mut Vec<u8>),
}

impl Room<'_> {
    fn bytes(&mut self) -> &mut [u8] {
        match self {
            Room::Fixed(bytes) => bytes,
            Room::Any(bytes) => bytes,
        }
    }
}

/// What is to come from a rank.
struct Incoming {
    from: usize,
    begun: bool,
    filled: usize,
}

/// A call, and what is still to do of it.
struct Course {
    number: u64,
    call: Call,
    outgoing: Vec<Outgoing>,
    incoming: Vec<Incoming>,
}

impl Course {
    /// Of a rank among so many.
    fn new(number: u64, call: Call, rank: usize, size: usize) -> Self {
        let others = (0..size).filter(|from| *from != rank);
        Course {
            number,
            call,
            // Each begins with the next one, so that not all send to one.
            outgoing: (rank + 1..rank + size)
                .map(|to| Outgoing { to: to % size, begun: false, sent: 0 })
                .collect(),
            incoming: others.map(|from| Incoming { from, begun: false, filled: 0 }).collect(),
        }
    }

    fn is_over(&self) -> bool {
        self.outgoing.is_empty() && self.incoming.is_empty()
    }

    fn waits_for(&self) -> Vec<usize> {
        self.incoming.iter().map(|inc| inc.from).chain(self.outgoing.iter().map(|out| out.to)).collect()
    }

    fn head(&self, bytes: usize) -> [u8; HEAD] {
        let mut head = [0; HEAD];
        let numbers = [self.number, self.call as u64, bytes as u64];
        head.chunks_exact_mut(8).zip(numbers).for_each(|(to, n)| to.copy_from_slice(&n.to_le_bytes()));
        head
    }
}

/// An exchange that goes on beside other things.
struct Begun {
    course: Course,
    exchange: Exchange,
}

impl Begun {
    /// The call, what it sends, and where what comes goes.
    fn split(&mut self) -> (&mut Course, Vec<&[u8]>, Vec<Room<'_>>) {
        let Exchange { send, recv } = &mut self.exchange;
        let rooms = recv.iter_mut().map(|room| Room::Fixed(room)).collect();
        (&mut self.course, send.iter().map(Vec::as_slice).collect(), rooms)
    }
}

/// Ranks to which, and from which, an earlier call's bytes are still under way: those of the next one come after them.
struct Busy {
    to: Vec<bool>,
    from: Vec<bool>,
}

impl Busy {
    fn none(size: usize) -> Self {
        Busy { to: vec![false; size], from: vec![false; size] }
    }
}

/// A wire, and what is under way on it.
pub(crate) struct State<W> {
    pub(crate) wire: W,
    /// How long others are waited for.
    pub(crate) limit: Duration,
    /// Calls so far.
    calls: u64,
    /// Why there are no more.
    pub(crate) broken: Option<Error>,
    /// What was told by each rank.
    notices: Vec<Option<Notice>>,
    /// This rank has told why it ends.
    pub(crate) told: bool,
    /// Ranks that did not come.
    missing: Vec<usize>,
    /// In the order in which they were begun.
    begun: VecDeque<Begun>,
    /// Nothing is begun any more.
    pub(crate) closing: bool,
}

impl<W: Wire> State<W> {
    pub(crate) fn new(wire: W) -> Self {
        State {
            limit: TIMEOUT,
            calls: 0,
            broken: None,
            notices: vec![None; wire.size()],
            told: false,
            missing: Vec::new(),
            begun: VecDeque::new(),
            closing: false,
            wire,
        }
    }

    /// Begins an exchange.
    ///
    /// # Errors
    /// Something went wrong before.
    pub(crate) fn begin(&mut self, exchange: Exchange) -> Result<()> {
        self.check_whole()?;
        let course = self.course(Call::Exchange);
        self.begun.push_back(Begun { course, exchange });
        Ok(())
    }

    /// Makes one call, after all that were begun: sends a part to each other rank and fills a room from each; its own
    /// are left as they are.
    pub(crate) fn call(&mut self, call: Call, parts: &[&[u8]], rooms: &mut [Room<'_>]) -> Result<()> {
        self.check_whole()?;
        let done = self.each_begun(Self::end).and_then(|()| {
            let mut course = self.course(call);
            self.wait(&mut course, parts, rooms, true)
        });
        self.broken = done.clone().err();
        done
    }

    /// Makes one call that sends the same to each rank and takes any lengths; a rank's own is left empty.
    pub(crate) fn call_any(&mut self, call: Call, mine: &[u8]) -> Result<Vec<Vec<u8>>> {
        let size = self.wire.size();
        let mut all = vec![Vec::new(); size];
        let mut rooms: Vec<_> = all.iter_mut().map(Room::Any).collect();
        self.call(call, &vec![mine; size], &mut rooms)?;
        Ok(all)
    }

    fn check_whole(&self) -> Result<()> {
        self.broken.clone().map_or(Ok(()), Err)
    }

    /// The next call.
    fn course(&mut self, call: Call) -> Course {
        self.calls += 1;
        Course::new(self.calls - 1, call, self.wire.rank(), self.wire.size())
    }

    /// Goes on with what was begun, without waiting. Whether anything happened; `None`: nothing is under way, or
    /// nothing goes on any more.
    pub(crate) fn go_on(&mut self) -> Result<Option<bool>> {
        // What was sent may need this process until it has arrived.
        let is_over = |begun: &Begun| begun.course.is_over();
        if self.broken.is_some() || self.begun.iter().all(is_over) && self.wire.is_gone()? {
            return Ok(None);
        }
        let (mut progress, mut busy) = (false, Busy::none(self.wire.size()));
        self.each_begun(|state, begun| {
            let (course, parts, mut rooms) = begun.split();
            progress |= state.advance(course, &parts, &mut rooms, &mut busy)?;
            Ok(())
        })?;
        Ok(Some(progress))
    }

    /// Does something for each exchange that was begun, in order, as far as the first error.
    fn each_begun(&mut self, mut each: impl FnMut(&mut Self, &mut Begun) -> Result<()>) -> Result<()> {
        let mut all = take(&mut self.begun);
        let done = all.iter_mut().try_for_each(|begun| each(self, begun));
        self.begun = all;
        done
    }

    /// Waits for an exchange that was begun.
    fn end(&mut self, begun: &mut Begun) -> Result<()> {
        let (course, parts, mut rooms) = begun.split();
        self.wait(course, &parts, &mut rooms, false)
    }

    /// The oldest exchange that was begun, if it has ended or `waits`.
    pub(crate) fn ended(&mut self, waits: bool) -> Result<Option<Exchange>> {
        self.check_whole()?;
        if !waits && self.begun.front().is_some_and(|first| !first.course.is_over()) {
            return Ok(None);
        }
        let Some(mut first) = self.begun.pop_front() else { return Ok(None) };
        let done = self.end(&mut first);
        self.broken = done.clone().err();
        done.map(|()| Some(first.exchange))
    }

    /// Waits until a call is over; where that `empties` the wire, until no message needs this process any more.
    fn wait(
        &mut self,
        course: &mut Course,
        parts: &[&[u8]],
        rooms: &mut [Room<'_>],
        empties: bool,
    ) -> Result<()> {
        let (mut moments, mut waited, mut looked) = (0, Duration::ZERO, Instant::now());
        loop {
            // What a rank sent before it ended is then found below.
            self.hear();
            let progress = self.advance(course, parts, rooms, &mut Busy::none(parts.len()))?;
            let gone = self.wire.is_gone()?;
            if course.is_over() && (gone || !empties) {
                return Ok(());
            }
            let now = Instant::now();
            if progress {
                (moments, waited, looked) = (0, Duration::ZERO, now);
                continue;
            }
            self.check(&course.waits_for())?;
            waited += (now - looked).min(MOMENT);
            looked = now;
            if waited >= self.limit {
                return Err(self.timed_out(course));
            }
            self.wire.rest(moments);
            moments += 1;
        }
    }

    /// Sends what there is room for, and takes what is here. Whether that was anything.
    fn advance(
        &mut self,
        course: &mut Course,
        parts: &[&[u8]],
        rooms: &mut [Room<'_>],
        busy: &mut Busy,
    ) -> Result<bool> {
        let mut progress = false;
        for i in 0..course.outgoing.len() {
            if !busy.to[course.outgoing[i].to] {
                progress |= self.push(course, i, parts)?;
            }
        }
        for i in 0..course.incoming.len() {
            if !busy.from[course.incoming[i].from] {
                progress |= self.pull(course, i, &mut rooms[course.incoming[i].from])?;
            }
        }
        course.outgoing.retain(|out| !out.begun || out.sent < parts[out.to].len());
        course.incoming.retain(|inc| !inc.begun || inc.filled < rooms[inc.from].bytes().len());
        course.outgoing.iter().for_each(|out| busy.to[out.to] = true);
        course.incoming.iter().for_each(|inc| busy.from[inc.from] = true);
        Ok(progress)
    }

    /// Sends what there is room for to the rank at place `i`.
    fn push(&mut self, course: &mut Course, i: usize, parts: &[&[u8]]) -> Result<bool> {
        let mut progress = false;
        let to = course.outgoing[i].to;
        let head = course.head(parts[to].len());
        let out = &mut course.outgoing[i];
        while (!out.begun || out.sent < parts[to].len()) && self.wire.has_room(to)? {
            let mut message = self.wire.buffer();
            if !out.begun {
                message.extend(head);
                out.begun = true;
            }
            let rest = &parts[to][out.sent..];
            let now = &rest[..rest.len().min(MESSAGE - message.len())];
            message.extend_from_slice(now);
            out.sent += now.len();
            self.wire.send(to, message)?;
            progress = true;
        }
        Ok(progress)
    }

    /// Takes what is here of this call from the rank at place `i`.
    fn pull(&mut self, course: &mut Course, i: usize, room: &mut Room<'_>) -> Result<bool> {
        let mut progress = false;
        let from = course.incoming[i].from;
        while !course.incoming[i].begun || course.incoming[i].filled < room.bytes().len() {
            let Some(message) = self.wire.take(from)? else { break };
            let mut body = &message[..];
            if !course.incoming[i].begun {
                body = self.headed(course, from, room, body)?;
                course.incoming[i].begun = true;
            }
            let filled = course.incoming[i].filled;
            room.bytes()[filled..][..body.len()].copy_from_slice(body);
            course.incoming[i].filled += body.len();
            self.wire.give_back(message);
            progress = true;
        }
        Ok(progress)
    }

    /// Reads a head, and gives what follows it.
    fn headed<'m>(
        &self,
        course: &Course,
        from: usize,
        room: &mut Room<'_>,
        message: &'m [u8],
    ) -> Result<&'m [u8]> {
        let (head, body) = message.split_at(HEAD);
        let number = |i: usize| u64::from_le_bytes(std::array::from_fn(|byte| head[8 * i + byte]));
        let [calls, other, bytes] = [0, 1, 2].map(number);
        if let Room::Any(room) = room {
            room.resize(bytes as usize, 0);
        }
        let expected = room.bytes().len() as u64;
        if (calls, other, bytes) != (course.number, course.call as u64, expected) {
            return Err(Error::new(format!(
                "rank {from} is at {} {calls} of {bytes} bytes, and rank {} at {} {} of {expected}: they do not do the \
                 same",
                Call::name(other),
                self.wire.rank(),
                Call::name(course.call as u64),
                course.number
            )));
        }
        Ok(body)
    }

    /// Reads what others tell.
    pub(crate) fn hear(&mut self) {
        while let Some((of, notice)) = self.wire.notice() {
            self.notices[of] = Some(notice);
        }
    }

    /// # Errors
    /// Something went wrong on another rank, or one that is waited for had ended before it was last asked.
    pub(crate) fn check(&mut self, waits_for: &[usize]) -> Result<()> {
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

    fn timed_out(&mut self, course: &Course) -> Error {
        let Course { number, call, incoming, outgoing } = course;
        let seconds = self.limit.as_secs_f64();
        let of = format!("{} {number}", Call::name(*call as u64));
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

    pub(crate) fn fail(&mut self, why: &str) {
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
    pub(crate) fn speaks(&mut self) -> bool {
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
