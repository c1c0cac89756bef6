//! Ranks that are processes of an MPI program: `mpirun` or `srun` started them, and MPI carries what they say.
//!
//! All memory that MPI reads and writes is of the wire itself, so that a call can give up at any time: what is then
//! still on its way is never freed. Messages are short ([`MESSAGE`]), so that their numbers fit MPI's, and copied while
//! a core's cache has them.

use crate::calls::MESSAGE;
use crate::joined::Joined;
use crate::wire::{Notice, Wire, pause};
use crate::{Comm, Error, Result};
use mpi_sys::{
    MPI_Abort, MPI_Comm, MPI_Comm_dup, MPI_Comm_rank, MPI_Comm_set_errhandler, MPI_Comm_size,
    MPI_Error_string, MPI_Finalize, MPI_Get_count, MPI_Improbe, MPI_Imrecv, MPI_Init_thread, MPI_Initialized,
    MPI_Isend, MPI_Message, MPI_Request, MPI_Status, MPI_Test, RSMPI_ANY_SOURCE, RSMPI_COMM_NULL,
    RSMPI_COMM_WORLD, RSMPI_ERRORS_RETURN, RSMPI_MESSAGE_NULL, RSMPI_REQUEST_NULL, RSMPI_STATUS_IGNORE,
    RSMPI_THREAD_SERIALIZED, RSMPI_UINT8_T,
};
use std::collections::VecDeque;
use std::ffi::c_int;
use std::mem::{MaybeUninit, forget, take};
use std::ptr::null_mut;
use std::thread;
use std::time::{Duration, Instant};

/// Tag of what ranks wait for, and of notices.
const DATA: c_int = 1;
const NOTICE: c_int = 2;
/// Messages to one rank that are on their way at most.
const WINDOW: usize = 4;
/// How long notices are given to leave, and the rank that speaks to end all.
const PARTING: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(10)];

/// # Errors
/// MPI says so.
fn ok(code: c_int, what: &str) -> Result<()> {
    if code == 0 {
        return Ok(());
    }
    // MPI_MAX_ERROR_STRING is 512 at most in Open MPI and MPICH.
    let mut text = [0u8; 1024];
    let mut len = 0;
    // SAFETY: there is room for more than any text of MPI, whose length it writes.
    unsafe { MPI_Error_string(code, text.as_mut_ptr().cast(), &mut len) };
    let text = String::from_utf8_lossy(&text[..usize::try_from(len).unwrap_or_default().min(text.len())]);
    Err(Error::new(format!("MPI, {what}: {text}")))
}

/// A message on its way, with the memory that MPI uses. It does not move while it is there.
struct Transfer {
    request: MPI_Request,
    message: Vec<u8>,
}

impl Transfer {
    /// Whether it is over.
    fn is_done(&mut self) -> Result<bool> {
        let mut done = 0;
        // SAFETY: the request was started by MPI, or is its null request, which is over.
        ok(unsafe { MPI_Test(&mut self.request, &mut done, RSMPI_STATUS_IGNORE) }, "a message")?;
        Ok(done != 0)
    }
}

struct Line {
    comm: MPI_Comm,
    rank: usize,
    size: usize,
    /// By rank, in order.
    sending: Vec<VecDeque<Transfer>>,
    receiving: Vec<Option<Transfer>>,
    notices: Vec<Transfer>,
    free: Vec<Vec<u8>>,
}

// SAFETY: MPI was started so that any thread may call it, one at a time (`Mpi::start`), and its handles are of the
// process. All calls are made with the line in hand, which one thread has at a time.
unsafe impl Send for Line {}

impl Line {
    fn start(&self, to: usize, tag: c_int, message: Vec<u8>) -> Result<Transfer> {
        // SAFETY: a null request is a constant of MPI.
        let mut transfer = Transfer { request: unsafe { RSMPI_REQUEST_NULL }, message };
        let Transfer { request, message } = &mut transfer;
        let (at, len) = (message.as_ptr().cast(), message.len() as c_int);
        // SAFETY: the bytes are the transfer's, which lives until MPI has done with them, or for ever (`Drop`).
        ok(unsafe { MPI_Isend(at, len, RSMPI_UINT8_T, to as c_int, tag, self.comm, request) }, "sending")?;
        Ok(transfer)
    }

    /// Starts to receive the next message with this tag, if it has come, and whose it is.
    fn probe(&mut self, from: c_int, tag: c_int) -> Result<Option<(usize, Transfer)>> {
        let mut found = 0;
        // SAFETY: a null message is a constant of MPI.
        let mut handle: MPI_Message = unsafe { RSMPI_MESSAGE_NULL };
        let mut status = MaybeUninit::<MPI_Status>::uninit();
        // SAFETY: MPI writes the status where it finds a message, and does not read it.
        let code = unsafe { MPI_Improbe(from, tag, self.comm, &mut found, &mut handle, status.as_mut_ptr()) };
        ok(code, "looking for a message")?;
        if found == 0 {
            return Ok(None);
        }
        // SAFETY: a message was found, so the status is written.
        let status = unsafe { status.assume_init() };
        let mut bytes = 0;
        // SAFETY: the status is of a message of bytes.
        ok(unsafe { MPI_Get_count(&status, RSMPI_UINT8_T, &mut bytes) }, "the length of a message")?;
        let mut message = self.buffer();
        message.resize(bytes as usize, 0);
        // SAFETY: as in `start`.
        let mut transfer = Transfer { request: unsafe { RSMPI_REQUEST_NULL }, message };
        let Transfer { request, message } = &mut transfer;
        // SAFETY: there is room for as many bytes as MPI has said, and they are the transfer's, which lives until MPI
        // has done with them, or for ever (`Drop`).
        let code =
            unsafe { MPI_Imrecv(message.as_mut_ptr().cast(), bytes, RSMPI_UINT8_T, &mut handle, request) };
        ok(code, "receiving")?;
        Ok(Some((status.MPI_SOURCE as usize, transfer)))
    }

    /// Lets go of what has arrived.
    fn sweep(&mut self, to: usize) -> Result<()> {
        while let Some(first) = self.sending[to].front_mut() {
            if !first.is_done()? {
                break;
            }
            let message = self.sending[to].pop_front().map(|transfer| transfer.message);
            self.give_back(message.unwrap_or_default());
        }
        Ok(())
    }
}

impl Wire for Line {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn buffer(&mut self) -> Vec<u8> {
        self.free.pop().unwrap_or_else(|| Vec::with_capacity(MESSAGE))
    }

    fn has_room(&mut self, to: usize) -> Result<bool> {
        self.sweep(to)?;
        Ok(self.sending[to].len() < WINDOW)
    }

    fn send(&mut self, to: usize, message: Vec<u8>) -> Result<()> {
        let transfer = self.start(to, DATA, message)?;
        self.sending[to].push_back(transfer);
        Ok(())
    }

    fn take(&mut self, from: usize) -> Result<Option<Vec<u8>>> {
        if self.receiving[from].is_none() {
            self.receiving[from] = self.probe(from as c_int, DATA)?.map(|(_, transfer)| transfer);
        }
        let Some(transfer) = &mut self.receiving[from] else { return Ok(None) };
        let done = transfer.is_done()?;
        Ok(self.receiving[from].take_if(|_| done).map(|transfer| transfer.message))
    }

    fn give_back(&mut self, mut message: Vec<u8>) {
        message.clear();
        if self.free.len() < 2 * WINDOW {
            self.free.push(message);
        }
    }

    fn is_gone(&mut self) -> Result<bool> {
        (0..self.size).try_for_each(|to| self.sweep(to))?;
        Ok(self.sending.iter().all(VecDeque::is_empty))
    }

    fn notify(&mut self, notice: &Notice) {
        for to in (0..self.size).filter(|to| *to != self.rank) {
            let started = self.start(to, NOTICE, notice.encode());
            self.notices.extend(started);
        }
        let begun = Instant::now();
        while begun.elapsed() < PARTING[0] {
            self.notices.retain_mut(|transfer| !transfer.is_done().unwrap_or(true));
            if self.notices.is_empty() {
                return;
            }
            thread::yield_now();
        }
    }

    fn notice(&mut self) -> Option<(usize, Notice)> {
        // SAFETY: a constant of MPI.
        let anyone = unsafe { RSMPI_ANY_SOURCE };
        let (of, mut transfer) = self.probe(anyone, NOTICE).ok()??;
        // It is here as a whole, short as it is.
        while !transfer.is_done().ok()? {
            thread::yield_now();
        }
        Some((of, Notice::decode(&transfer.message)))
    }

    fn rest(&mut self, moments: u32) {
        pause(moments);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // What MPI may still read or write is nobody else's, ever.
        forget((take(&mut self.sending), take(&mut self.receiving), take(&mut self.notices)));
    }
}

/// A rank that is a process. There is one in a process, once.
///
/// When it is dropped, it waits for all others and leaves MPI; after a failure it ends them all, and this process with
/// them (exit code 1), the rank that [speaks](Comm::speaks) at once and others after a while.
pub struct Mpi {
    comm: Joined<Line>,
}

impl Mpi {
    /// This process's rank.
    ///
    /// # Errors
    /// MPI cannot be started, here or by this process once more.
    pub fn start() -> Result<Self> {
        let (mut before, mut level, mut rank, mut size) = (0, 0, 0, 0);
        // SAFETY: may be asked at any time.
        ok(unsafe { MPI_Initialized(&mut before) }, "whether it is there")?;
        if before != 0 {
            return Err(Error::new("MPI was started in this process before; there is one rank in a process"));
        }
        // SAFETY: constants of MPI, which are there before it is started. What was begun is gone on with by a thread
        // of its own, never by two at once.
        let (world, serialized, null) =
            unsafe { (RSMPI_COMM_WORLD, RSMPI_THREAD_SERIALIZED, RSMPI_COMM_NULL) };
        // SAFETY: MPI was not started, and takes no arguments of the command line.
        ok(unsafe { MPI_Init_thread(null_mut(), null_mut(), serialized, &mut level) }, "its start")?;
        if level < serialized {
            return Err(Error::new("this MPI cannot be called from more than one thread, even in turns"));
        }
        let mut comm = null;
        // SAFETY: MPI is started, and all outputs live through the calls. Messages of other users of the world are
        // apart from those of the copy. Errors are this program's.
        unsafe {
            ok(MPI_Comm_dup(world, &mut comm), "a communicator")?;
            ok(MPI_Comm_set_errhandler(comm, RSMPI_ERRORS_RETURN), "its errors")?;
            ok(MPI_Comm_rank(comm, &mut rank), "the rank")?;
            ok(MPI_Comm_size(comm, &mut size), "the number of ranks")?;
        }
        let size = size as usize;
        let line = Line {
            comm,
            rank: rank as usize,
            size,
            sending: (0..size).map(|_| VecDeque::new()).collect(),
            receiving: (0..size).map(|_| None).collect(),
            notices: Vec::new(),
            free: Vec::new(),
        };
        Ok(Mpi { comm: Joined::new(line) })
    }
}

impl Drop for Mpi {
    fn drop(&mut self) {
        if thread::panicking() {
            self.comm.fail("duel itself failed");
        } else if let Err(error) = self.comm.end() {
            // Nobody leaves before all do: MPI's own end would wait for ever for one that hangs.
            self.comm.fail(&error.to_string());
        } else {
            // SAFETY: MPI is started, and nothing is on its way: every call has ended.
            unsafe { MPI_Finalize() };
            return;
        }
        if !self.comm.speaks() {
            thread::sleep(PARTING[1]);
        }
        // SAFETY: MPI is started, by `start`.
        unsafe { MPI_Abort(RSMPI_COMM_WORLD, 1) };
        std::process::exit(1);
    }
}

crate::joined::delegate!(Mpi, comm);
