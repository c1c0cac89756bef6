//! What processes with a GPU each send to each other: NCCL's point-to-point calls, between memory of hosts.
//!
//! cudarc has NCCL too, but looks for it as `libnccl.so` alone, which only packages for developers have; these are the
//! few functions that are called here, found under the name that drivers of the library are installed by.

use super::error::failed;
use super::libraries::{NCCL, nccl};
use crate::load_libraries;
use cudarc::driver::result::{memcpy_dtoh_async, memcpy_htod_async};
use cudarc::driver::sys::{CU_MEMHOSTALLOC_WRITECOMBINED, CUdeviceptr, CUstream};
use cudarc::driver::{
    CudaContext, CudaEvent, CudaSlice, CudaStream, DevicePtr, DriverError, PinnedHostSlice,
};
use duel_backend::{Error, Result};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::null_mut;
use std::sync::Arc;

/// Bytes that name a group of processes for NCCL.
pub const FABRIC_ID: usize = 128;
/// Bytes of each of the four places of a slot, at most: shared out among the other ranks.
const STAGING: usize = 32 << 20;
/// The least that a message has room for, and what rooms are multiples of.
const LEAST: usize = 64 << 10;
/// The first version with communicators that do not wait inside ("NCCL User Guide", fault tolerance).
const VERSION: c_int = 21400;
/// `ncclUint8`.
const BYTES: c_int = 1;

// ---- functions ------------------------------------------------------------------------------------------------------

#[repr(C)]
#[derive(Clone, Copy)]
struct Id([c_char; FABRIC_ID]);

/// `ncclConfig_t` as it was in [`VERSION`]: what later ones have more, they fill in.
#[repr(C)]
struct Config {
    size: usize,
    magic: u32,
    version: c_int,
    blocking: c_int,
    undefined: c_int,
}

type Communicator = *mut c_void;

macro_rules! functions {
    ($($name:ident: $symbol:ident($($arg:ty),*);)*) => {
        /// The functions of NCCL that are called here; all but `explain` give a code.
        struct Functions {
            $($name: unsafe extern "C" fn($($arg),*) -> c_int,)*
            explain: unsafe extern "C" fn(c_int) -> *const c_char,
        }

        impl Functions {
            /// # Errors
            /// NCCL is not here, or lacks one of them.
            fn load() -> Result<Self> {
                NCCL.load()?;
                // SAFETY: its initialisers ask nothing of who loads it.
                let library = unsafe { nccl() }.map_err(|e| Error::NoDevice(format!("libnccl.so.2: {e}")))?;
                let lacks = |name: &str, e| Error::NoDevice(format!("libnccl.so.2 has no {name}: {e}"));
                // SAFETY: these are the types that nccl.h gives them, and the library is never unloaded.
                let functions = unsafe {
                    Functions {
                        $($name: *library.get(stringify!($symbol)).map_err(|e| lacks(stringify!($symbol), e))?,)*
                        explain: *library.get("ncclGetErrorString").map_err(|e| lacks("ncclGetErrorString", e))?,
                    }
                };
                std::mem::forget(library);
                Ok(functions)
            }
        }
    };
}

functions! {
    version: ncclGetVersion(*mut c_int);
    id: ncclGetUniqueId(*mut Id);
    init: ncclCommInitRankConfig(*mut Communicator, c_int, Id, c_int, *mut Config);
    state: ncclCommGetAsyncError(Communicator, *mut c_int);
    abort: ncclCommAbort(Communicator);
    destroy: ncclCommDestroy(Communicator);
    group_start: ncclGroupStart();
    group_end: ncclGroupEnd();
    send: ncclSend(*const c_void, usize, c_int, c_int, Communicator, CUstream);
    receive: ncclRecv(*mut c_void, usize, c_int, c_int, Communicator, CUstream);
}

const SUCCESS: c_int = 0;
const IN_PROGRESS: c_int = 7;

impl Functions {
    /// # Errors
    /// NCCL says that it failed; that it goes on is none.
    fn ok(&self, code: c_int, what: &str) -> Result<()> {
        if code == SUCCESS || code == IN_PROGRESS {
            return Ok(());
        }
        // SAFETY: NCCL gives a text of its own for every number.
        let text = unsafe { CStr::from_ptr((self.explain)(code)) }.to_string_lossy();
        Err(Error::Device(format!("NCCL, {what}: {text} (NCCL_DEBUG=WARN says more)")))
    }
}

// ---- the fabric -----------------------------------------------------------------------------------------------------

/// A part of what is sent or received in a call: whose, where in its bytes, how many.
#[derive(Clone, Copy)]
struct Part {
    rank: usize,
    at: usize,
    len: usize,
}

/// Memory for a message to and from each other rank, on the host and on the device.
struct Slot {
    outgoing: PinnedHostSlice<u8>,
    incoming: PinnedHostSlice<u8>,
    sent: CudaSlice<u8>,
    received: CudaSlice<u8>,
    /// After the last copy to the host.
    done: CudaEvent,
    /// What is in `incoming` then.
    landing: Vec<Part>,
}

/// Ranks that have a GPU each, joined by NCCL, as one of them sees it.
///
/// Bytes of the host go through memory of the device, in pieces, on one stream of their own: copied there, sent and
/// received in one group of calls, copied back. While that goes on the next piece is put in place. Nothing waits inside
/// of NCCL: whoever waits is asked all the while whether to go on, and a fabric that is given up is aborted.
pub struct Fabric {
    nccl: Functions,
    communicator: Communicator,
    rank: usize,
    /// Bytes of a message.
    room: usize,
    slots: [Slot; 2],
    stream: Arc<CudaStream>,
}

impl Fabric {
    /// The name of a new group of processes, which all of them need.
    ///
    /// # Errors
    /// When libcuda, libnvrtc or NCCL is missing, or NCCL cannot make one.
    pub fn id() -> Result<[u8; FABRIC_ID]> {
        load_libraries()?;
        let nccl = Functions::load()?;
        let mut id = Id([0; FABRIC_ID]);
        // SAFETY: there is room for it.
        nccl.ok(unsafe { (nccl.id)(&mut id) }, "a name for the ranks")?;
        Ok(id.0.map(|byte| byte as u8))
    }

    /// Joins the ranks of this name, on a device as [`Device::open`](crate::Device::open) counts them. `waiting` is
    /// called until all are there; its error gives up.
    ///
    /// # Errors
    /// When a library is missing or too old, there is no such device, no memory for messages (128 MiB on the device at
    /// most), or NCCL cannot reach the others.
    ///
    /// # Panics
    /// When there are fewer than two ranks, or this is none of them.
    pub fn join(
        device: usize,
        id: &[u8; FABRIC_ID],
        [rank, size]: [usize; 2],
        mut waiting: impl FnMut() -> Result<()>,
    ) -> Result<Self> {
        assert!(size > 1 && rank < size, "a fabric joins two ranks or more");
        load_libraries()?;
        let nccl = Functions::load()?;
        let mut version = 0;
        // SAFETY: there is room for it.
        nccl.ok(unsafe { (nccl.version)(&mut version) }, "its version")?;
        if version < VERSION {
            return Err(Error::NoDevice(format!("libnccl.so.2 is of version {version}; 2.14 is needed")));
        }
        let about = |e: DriverError| failed(&format!("memory for messages on device {device}"), e);
        let context = CudaContext::new(device).map_err(about)?;
        // SAFETY: what is allocated here is used on the stream that follows alone.
        unsafe { context.disable_event_tracking() };
        let stream = context.new_stream().map_err(about)?;
        let room = (STAGING / (size - 1)).next_multiple_of(LEAST);
        let slot = || Slot::new(&stream, room * (size - 1));
        let slots = [slot().map_err(about)?, slot().map_err(about)?];
        context.bind_to_thread().map_err(about)?;
        let mut config = Config {
            size: size_of::<Config>(),
            magic: 0xcafe_beef,
            version: VERSION,
            blocking: 0,
            undefined: c_int::MIN,
        };
        let mut communicator = null_mut();
        let id = Id(id.map(|byte| byte as c_char));
        let (ranks, own) = (size as c_int, rank as c_int);
        // SAFETY: the context is current on this thread, and all that is pointed to lives through the call.
        let code = unsafe { (nccl.init)(&mut communicator, ranks, id, own, &mut config) };
        nccl.ok(code, "the start")?;
        let fabric = Fabric { nccl, communicator, rank, room, slots, stream };
        fabric.settle("the start", &mut waiting)?;
        Ok(fabric)
    }

    /// Sends `send[r]` to rank r and gets `recv[r]` from it, in lengths that both know; its own are left as they are.
    /// `waiting` is called until all is done; its error gives up.
    ///
    /// # Errors
    /// When the device or NCCL fails, and those of `waiting`. Nothing can be exchanged after that.
    ///
    /// # Panics
    /// When there are not as many of them as ranks.
    pub fn exchange(
        &mut self,
        send: &[&[u8]],
        recv: &mut [&mut [u8]],
        mut waiting: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        let lens = |all: &mut dyn Iterator<Item = usize>| all.collect::<Vec<_>>();
        let (out, back) = (lens(&mut send.iter().map(|s| s.len())), lens(&mut recv.iter().map(|r| r.len())));
        let about = |e| failed("an exchange with other ranks", e);
        self.stream.context().bind_to_thread().map_err(about)?;
        for round in 0.. {
            let (leaving, landing) = (self.parts(&out, round), self.parts(&back, round));
            if leaving.is_empty() && landing.is_empty() {
                break;
            }
            self.land(round % 2, recv, &mut waiting)?;
            self.begin(round % 2, send, &leaving, landing, &mut waiting)?;
        }
        // The older one first.
        (0..2).try_for_each(|slot| self.land(slot, recv, &mut waiting))
    }

    /// Parts of a round, of messages of these lengths.
    fn parts(&self, lens: &[usize], round: usize) -> Vec<Part> {
        let at = round * self.room;
        let others = lens.iter().enumerate().filter(|(rank, len)| *rank != self.rank && **len > at);
        others.map(|(rank, len)| Part { rank, at, len: (len - at).min(self.room) }).collect()
    }

    /// Where in a slot a rank's message is.
    fn place(&self, rank: usize) -> usize {
        (rank - usize::from(rank > self.rank)) * self.room
    }

    /// Starts a round: to the device, to the others, back to the host.
    fn begin(
        &mut self,
        slot: usize,
        send: &[&[u8]],
        leaving: &[Part],
        landing: Vec<Part>,
        waiting: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        let about = |e| failed("an exchange with other ranks", e);
        let stream = self.stream.cu_stream();
        let address = |slice: &CudaSlice<u8>| slice.device_ptr(&self.stream).0;
        let (sent, received) = (address(&self.slots[slot].sent), address(&self.slots[slot].received));
        for part in leaving {
            let at = self.place(part.rank);
            let pinned = self.slots[slot].outgoing.as_mut_slice().map_err(about)?;
            let room = &mut pinned[at..][..part.len];
            room.copy_from_slice(&send[part.rank][part.at..][..part.len]);
            // SAFETY: the slot has as much room on the device as on the host, and is not written again before `done`.
            unsafe { memcpy_htod_async(sent + at as CUdeviceptr, room, stream) }.map_err(about)?;
        }
        // SAFETY: a group begins and ends on this thread, with nothing between that leaves it.
        self.nccl.ok(unsafe { (self.nccl.group_start)() }, "a group of messages")?;
        let mut all = Ok(());
        let both = leaving.iter().map(|part| (part, true)).chain(landing.iter().map(|part| (part, false)));
        for (part, is_sent) in both {
            let (at, len, rank) = (self.place(part.rank) as CUdeviceptr, part.len, part.rank as c_int);
            let nccl = &self.nccl;
            // SAFETY: the device has `room` bytes there, which nothing else uses before `done`; NCCL puts the work on
            // the stream that the copies are on.
            let code = unsafe {
                match is_sent {
                    true => (nccl.send)((sent + at) as *const _, len, BYTES, rank, self.communicator, stream),
                    false => {
                        (nccl.receive)((received + at) as *mut _, len, BYTES, rank, self.communicator, stream)
                    }
                }
            };
            all = all.and(self.nccl.ok(code, &format!("a message of rank {rank}")));
        }
        // SAFETY: as above; the group ends whether or not its calls were taken.
        let ended = self.nccl.ok(unsafe { (self.nccl.group_end)() }, "a group of messages");
        all.and(ended)?;
        // Before that the work need not be on the stream.
        self.settle("a group of messages", waiting)?;
        for part in &landing {
            let at = self.place(part.rank);
            let pinned = self.slots[slot].incoming.as_mut_slice().map_err(about)?;
            let room = &mut pinned[at..][..part.len];
            // SAFETY: as above, of the host's memory, which is read after `done`.
            unsafe { memcpy_dtoh_async(room, received + at as CUdeviceptr, stream) }.map_err(about)?;
        }
        self.slots[slot].done.record(&self.stream).map_err(about)?;
        self.slots[slot].landing = landing;
        Ok(())
    }

    /// Waits for what a slot receives, and puts it where it belongs.
    fn land(
        &mut self,
        slot: usize,
        recv: &mut [&mut [u8]],
        waiting: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        let about = |e| failed("an exchange with other ranks", e);
        while !self.slots[slot].done.try_is_complete().map_err(about)? {
            self.state("messages")?;
            waiting()?;
        }
        for part in std::mem::take(&mut self.slots[slot].landing) {
            let at = self.place(part.rank);
            let got = &self.slots[slot].incoming.as_slice().map_err(about)?[at..][..part.len];
            recv[part.rank][part.at..][..part.len].copy_from_slice(got);
        }
        Ok(())
    }

    /// Whether nothing of the last call is still to be done inside of NCCL.
    fn state(&self, what: &str) -> Result<bool> {
        let mut state = SUCCESS;
        // SAFETY: the communicator was made by `join`, and there is room for the number.
        self.nccl.ok(unsafe { (self.nccl.state)(self.communicator, &mut state) }, what)?;
        self.nccl.ok(state, what)?;
        Ok(state == SUCCESS)
    }

    /// Waits until nothing is.
    fn settle(&self, what: &str, waiting: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        while !self.state(what)? {
            waiting()?;
        }
        Ok(())
    }
}

impl Slot {
    fn new(stream: &Arc<CudaStream>, bytes: usize) -> std::result::Result<Self, DriverError> {
        let context = stream.context();
        // SAFETY: every byte is written before it is read, on the host and on the device.
        unsafe {
            Ok(Slot {
                outgoing: context.alloc_pinned_with_flags(bytes, CU_MEMHOSTALLOC_WRITECOMBINED)?,
                incoming: context.alloc_pinned_with_flags(bytes, 0)?,
                sent: stream.alloc(bytes)?,
                received: stream.alloc(bytes)?,
                done: context.new_event(None)?,
                landing: Vec::new(),
            })
        }
    }
}

impl Drop for Fabric {
    fn drop(&mut self) {
        let idle = self.slots.iter().all(|slot| slot.landing.is_empty() && slot.done.is_complete());
        let whole = idle && self.state("the end").unwrap_or(false);
        // SAFETY: the communicator was made by `join`, and this is its last use. What others do not answer any more is
        // taken off the stream before the memory goes.
        unsafe {
            match whole {
                true => (self.nccl.destroy)(self.communicator),
                false => (self.nccl.abort)(self.communicator),
            }
        };
    }
}
