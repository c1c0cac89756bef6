//! The functions of libnccl that send messages from rank to rank: ranks are processes of this machine, and what they
//! send lies in a folder until it is received.

#![allow(non_snake_case)] // the names are NVIDIA's

use crate::ffi::{In, Out};
use crate::world::{Work, World, say, world};
use std::cell::RefCell;
use std::ffi::c_char;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

const SUCCESS: i32 = 0;
const UNHANDLED_CUDA_ERROR: i32 = 1;
const SYSTEM_ERROR: i32 = 2;
const INVALID_ARGUMENT: i32 = 4;
const INVALID_USAGE: i32 = 5;
const IN_PROGRESS: i32 = 7;
const VERSION: i32 = 22800;
const MAGIC: u32 = 0xcafe_beef;
/// `ncclUint8`.
const BYTES: i32 = 1;

type Answer<T = ()> = Result<T, i32>;

fn code(answer: Answer) -> i32 {
    answer.err().unwrap_or(SUCCESS)
}

fn because<T>(error: i32, reason: &str) -> Answer<T> {
    say(&format!("NCCL error {error}: {reason}"));
    Err(error)
}

/// A line of `DUEL_STANDIN_CALLS`.
fn called(line: &str) {
    let Some(path) = std::env::var_os("DUEL_STANDIN_CALLS") else { return };
    let file = fs::OpenOptions::new().create(true).append(true).open(&path);
    let said = file.and_then(|mut file| writeln!(file, "{line}"));
    said.unwrap_or_else(|e| panic!("DUEL_STANDIN_CALLS, {}: {e}", path.display()));
}

// ---- messages -------------------------------------------------------------------------------------------------------

/// A call in a group.
struct Call {
    communicator: usize,
    stream: usize,
    peer: usize,
    is_sent: bool,
    address: u64,
    bytes: usize,
}

/// A message that one rank sends and another receives.
struct Message {
    /// What it is called in the folder.
    file: PathBuf,
    is_sent: bool,
    address: u64,
    bytes: usize,
}

/// A group of calls as work of a stream.
pub(crate) struct Messages {
    all: Vec<Message>,
    /// Those that are not over yet.
    open: Mutex<Vec<usize>>,
    /// What this rank sends does not arrive.
    lost: bool,
}

impl Messages {
    /// What it uses of the device's memory.
    pub(crate) fn ranges(&self) -> Vec<(u64, usize, String)> {
        self.all.iter().map(|m| (m.address, m.bytes, "a message".to_string())).collect()
    }

    /// Does what can be done now; says whether that was the last of it.
    ///
    /// # Errors
    /// When the two sides do not speak of the same number of bytes.
    ///
    /// # Safety
    /// The ranges are memory that nobody refers to.
    pub(crate) unsafe fn go_on(&self) -> Result<bool, String> {
        let mut open = self.open.lock().expect("a panic in the stand-in ends the process");
        let mut failed = None;
        open.retain(|&message| {
            let Message { file, is_sent, address, bytes } = &self.all[message];
            if *is_sent {
                // SAFETY: the caller's promise.
                let memory = unsafe { std::slice::from_raw_parts(*address as *const u8, *bytes) };
                let part = file.with_extension("part");
                let sent =
                    self.lost || fs::write(&part, memory).and_then(|()| fs::rename(&part, file)).is_ok();
                if !sent {
                    failed = Some(format!("{} cannot be written", file.display()));
                }
                return false;
            }
            let Ok(got) = fs::read(file) else { return true };
            if got.len() != *bytes {
                failed = Some(format!("{} bytes were sent and {bytes} are received", got.len()));
                return false;
            }
            drop(fs::remove_file(file));
            // SAFETY: the caller's promise.
            unsafe { std::slice::from_raw_parts_mut(*address as *mut u8, *bytes) }.copy_from_slice(&got);
            false
        });
        failed.map_or(Ok(open.is_empty()), Err)
    }
}

/// A rank as one process has it.
pub(crate) struct Communicator {
    folder: PathBuf,
    rank: usize,
    size: usize,
    /// Messages so far, by peer.
    sent: Vec<u64>,
    received: Vec<u64>,
    /// A group that was ended, and is not on its stream before somebody has asked twice.
    starting: Option<(usize, Arc<Messages>)>,
    asked: bool,
    /// All ranks were there.
    joined: bool,
}

impl Communicator {
    /// The messages of a group, in the order of its calls.
    fn messages(&mut self, calls: &[Call]) -> Messages {
        let mut message = |call: &Call| {
            let (from, to, count) = match call.is_sent {
                true => (self.rank, call.peer, &mut self.sent[call.peer]),
                false => (call.peer, self.rank, &mut self.received[call.peer]),
            };
            *count += 1;
            let file = self.folder.join(format!("{from}-{to}-{count}"));
            Message { file, is_sent: call.is_sent, address: call.address, bytes: call.bytes }
        };
        let all: Vec<_> = calls.iter().map(&mut message).collect();
        let lost = std::env::var("DUEL_STANDIN_LOST").is_ok_and(|rank| rank == self.rank.to_string());
        Messages { open: Mutex::new((0..all.len()).collect()), all, lost }
    }
}

thread_local! {
    /// Calls of the group that is open on this thread.
    static GROUP: RefCell<Option<Vec<Call>>> = const { RefCell::new(None) };
}

fn known(world: &mut World, communicator: usize) -> Answer<&mut Communicator> {
    match world.communicators.get_mut(&communicator) {
        Some(known) => Ok(known),
        None => because(INVALID_ARGUMENT, "there is no such communicator"),
    }
}

/// A call that needs one with nothing under way inside.
fn settled(world: &mut World, communicator: usize) -> Answer<&mut Communicator> {
    let known = known(world, communicator)?;
    if !known.joined || known.starting.is_some() {
        return because(INVALID_USAGE, "a call while the last one is in progress");
    }
    Ok(known)
}

// ---- functions ------------------------------------------------------------------------------------------------------

#[unsafe(no_mangle)]
extern "C" fn ncclGetVersion(out: Out<i32>) -> i32 {
    if out.put(VERSION) { SUCCESS } else { INVALID_ARGUMENT }
}

#[unsafe(no_mangle)]
extern "C" fn ncclGetErrorString(error: i32) -> *const c_char {
    let text = match error {
        SUCCESS => c"no error",
        UNHANDLED_CUDA_ERROR => c"unhandled cuda error",
        SYSTEM_ERROR => c"unhandled system error",
        INVALID_ARGUMENT => c"invalid argument",
        INVALID_USAGE => c"invalid usage",
        IN_PROGRESS => c"NCCL operation in progress",
        _ => c"unknown result code",
    };
    text.as_ptr()
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Id([u8; 128]);

/// The name is where the folder is.
#[unsafe(no_mangle)]
extern "C" fn ncclGetUniqueId(out: Out<Id>) -> i32 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("duel-nccl-{}-{count}", std::process::id()));
    let mut id = [0; 128];
    let name = folder.as_os_str().as_encoded_bytes();
    if name.len() > id.len() || fs::create_dir_all(&folder).is_err() {
        return SYSTEM_ERROR;
    }
    id[..name.len()].copy_from_slice(name);
    if out.put(Id(id)) { SUCCESS } else { INVALID_ARGUMENT }
}

/// The fields that it had first.
#[repr(C)]
#[derive(Clone, Copy)]
struct Config {
    size: usize,
    magic: u32,
    version: u32,
    blocking: i32,
}

#[unsafe(no_mangle)]
extern "C" fn ncclCommInitRankConfig(
    out: Out<usize>,
    size: i32,
    id: Id,
    rank: i32,
    config: In<Config>,
) -> i32 {
    let mut world = world();
    let mut start = || {
        if world.in_context().is_err() {
            return because(UNHANDLED_CUDA_ERROR, "no context is current on this thread");
        }
        if size < 1 || !(0..size).contains(&rank) {
            return because(INVALID_ARGUMENT, &format!("rank {rank} of {size}"));
        }
        match config.get(0) {
            Some(Config { size: 20.., magic: MAGIC, version: 21400.., blocking: 0 }) => {}
            _ => return because(INVALID_ARGUMENT, "only communicators that do not block are here"),
        }
        let name = String::from_utf8_lossy(&id.0);
        let folder = Path::new(name.trim_end_matches('\0')).to_path_buf();
        if fs::write(folder.join(format!("rank-{rank}")), "").is_err() {
            return because(INVALID_ARGUMENT, "no ncclGetUniqueId gave this name");
        }
        let (rank, size) = (rank as usize, size as usize);
        let communicator = Communicator {
            folder,
            rank,
            size,
            sent: vec![0; size],
            received: vec![0; size],
            starting: None,
            asked: false,
            joined: false,
        };
        let handle = world.handle();
        world.communicators.insert(handle, communicator);
        called(&format!("ncclCommInitRankConfig {rank} of {size}"));
        if out.put(handle) { Err(IN_PROGRESS) } else { Err(INVALID_ARGUMENT) }
    };
    code(start())
}

/// What was begun goes on when this is asked; the first answer is always "not yet".
#[unsafe(no_mangle)]
extern "C" fn ncclCommGetAsyncError(communicator: usize, out: Out<i32>) -> i32 {
    let mut world = world();
    let ask = |world: &mut World| {
        let known = known(world, communicator)?;
        let here = || (0..known.size).all(|rank| known.folder.join(format!("rank-{rank}")).exists());
        let is_ready = known.joined || here();
        if (known.joined && known.starting.is_none()) || (is_ready && known.asked) {
            known.joined = true;
            known.asked = false;
            let starting = known.starting.take();
            if let Some((stream, messages)) = starting
                && world.start_work(stream, Work::Messages(messages)).is_err()
            {
                return because(UNHANDLED_CUDA_ERROR, "the messages cannot be put on the stream");
            }
            return Ok(SUCCESS);
        }
        known.asked = true;
        Ok(IN_PROGRESS)
    };
    match ask(&mut world) {
        Ok(state) => code(if out.put(state) { Ok(()) } else { Err(INVALID_ARGUMENT) }),
        Err(error) => error,
    }
}

#[unsafe(no_mangle)]
extern "C" fn ncclGroupStart() -> i32 {
    called("ncclGroupStart");
    match GROUP.replace(Some(Vec::new())) {
        None => SUCCESS,
        Some(_) => code(because(INVALID_USAGE, "a group within a group")),
    }
}

fn call(call: Call, kind: i32, communicator: usize) -> Answer {
    let mut world = world();
    let known = settled(&mut world, communicator)?;
    if kind != BYTES || call.bytes == 0 || call.peer >= known.size || call.peer == known.rank {
        return because(
            INVALID_ARGUMENT,
            &format!("{} bytes of type {kind} for rank {}", call.bytes, call.peer),
        );
    }
    let verb = if call.is_sent { "ncclSend" } else { "ncclRecv" };
    called(&format!("{verb} {} {} on {:#x}", call.peer, call.bytes, call.stream));
    if !world.device.holds(call.address, call.bytes, true) {
        return because(INVALID_ARGUMENT, "a message that is not in one block of the device's memory");
    }
    GROUP.with_borrow_mut(|group| match group {
        Some(calls) => {
            calls.push(call);
            Ok(())
        }
        None => {
            because(INVALID_USAGE, "a message out of a group waits for the other rank, and that one for it")
        }
    })
}

#[unsafe(no_mangle)]
extern "C" fn ncclSend(
    address: u64,
    bytes: usize,
    kind: i32,
    peer: i32,
    communicator: usize,
    stream: usize,
) -> i32 {
    let peer = peer as usize;
    code(call(Call { communicator, stream, peer, is_sent: true, address, bytes }, kind, communicator))
}

#[unsafe(no_mangle)]
extern "C" fn ncclRecv(
    address: u64,
    bytes: usize,
    kind: i32,
    peer: i32,
    communicator: usize,
    stream: usize,
) -> i32 {
    let peer = peer as usize;
    code(call(Call { communicator, stream, peer, is_sent: false, address, bytes }, kind, communicator))
}

#[unsafe(no_mangle)]
extern "C" fn ncclGroupEnd() -> i32 {
    called("ncclGroupEnd");
    let Some(calls) = GROUP.take() else { return code(because(INVALID_USAGE, "no group is open")) };
    let Some(&Call { communicator, stream, .. }) = calls.first() else { return SUCCESS };
    if calls.iter().any(|c| (c.communicator, c.stream) != (communicator, stream)) {
        return code(because(INVALID_USAGE, "a group over several streams is not here"));
    }
    let mut world = world();
    if !world.is_capturing(stream).is_ok_and(|is| !is) {
        return code(because(INVALID_USAGE, "messages in a capture are not here"));
    }
    match settled(&mut world, communicator) {
        Ok(known) => {
            let messages = known.messages(&calls);
            known.starting = Some((stream, Arc::new(messages)));
            IN_PROGRESS
        }
        Err(error) => error,
    }
}

/// Takes what is not over off the streams.
#[unsafe(no_mangle)]
extern "C" fn ncclCommAbort(communicator: usize) -> i32 {
    called("ncclCommAbort");
    let mut world = world();
    match world.communicators.remove(&communicator) {
        Some(known) => {
            world.give_up_messages();
            drop(fs::remove_dir_all(known.folder));
            SUCCESS
        }
        None => code(because(INVALID_ARGUMENT, "there is no such communicator")),
    }
}

/// The last rank that is destroyed takes the folder with it.
#[unsafe(no_mangle)]
extern "C" fn ncclCommDestroy(communicator: usize) -> i32 {
    called("ncclCommDestroy");
    let mut world = world();
    if let Err(error) = settled(&mut world, communicator) {
        return error;
    }
    let known = world.communicators.remove(&communicator).expect("it was just seen");
    drop(fs::remove_file(known.folder.join(format!("rank-{}", known.rank))));
    drop(fs::remove_dir(known.folder)); // refused while anything is in it
    SUCCESS
}
