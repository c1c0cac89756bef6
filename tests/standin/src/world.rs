//! The device behind the functions of the driver: one context, its memory, and streams whose work is put off until
//! somebody waits for it.

use crate::kernels::Arguments;
use crate::matmul::Matmul;
use crate::memory::Memory;
use crate::nccl::{Communicator, Messages};
use cudarc::driver::sys::CUresult::{self, *};
use duel_cuda::Grid;
use duel_kernel_tests::{Copies, Emulation, Order, Schedule};
use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

pub(crate) type Done<T = ()> = Result<T, CUresult>;

/// Work that a stream holds at most before some of it is done.
const DEPTH: usize = 1024;
/// Between two looks at what others send.
const MOMENT: Duration = Duration::from_micros(100);
/// The stream of who names none: its work and that of others keep the order of the calls.
pub(crate) const LEGACY: usize = 0;
/// The stream that CUDA has for every thread; here one for all.
const PER_THREAD: usize = 2;

// ---- settings -------------------------------------------------------------------------------------------------------

/// What the environment chooses.
pub(crate) struct Settings {
    pub(crate) capability: u32,
    /// Memory of the device, in bytes.
    pub(crate) memory: usize,
    /// Work is done within the call that starts it.
    eager: bool,
    /// How kernels run.
    schedule: Schedule,
    /// Gets a line for every time that the host waits.
    waits: Option<PathBuf>,
}

impl Settings {
    fn from_env() -> Self {
        let number = |name: &str, otherwise: usize| match std::env::var(name) {
            Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text}")),
            Err(_) => otherwise,
        };
        let on = |name: &str| std::env::var(name).is_ok_and(|value| !value.is_empty() && value != "0");
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
        Settings {
            capability: number("DUEL_STANDIN_CAPABILITY", 90) as u32,
            memory: number("DUEL_STANDIN_MEMORY", 2 << 30),
            eager: on("DUEL_STANDIN_EAGER") || on("CUDA_LAUNCH_BLOCKING"),
            schedule: Schedule { os_threads: threads, ..Schedule::new(Order::Forward, Copies::Lazy) },
            waits: std::env::var_os("DUEL_STANDIN_WAITS").map(PathBuf::from),
        }
    }

    /// Shared memory that a block can ask for, in bytes ("CUDA C++ Programming Guide", compute capabilities).
    pub(crate) fn max_shared(&self) -> i32 {
        match self.capability {
            80 | 87 => 163 << 10,
            86 | 89 | 120 => 99 << 10,
            _ => 227 << 10,
        }
    }
}

// ---- work -----------------------------------------------------------------------------------------------------------

/// One end of a copy.
#[derive(Clone)]
pub(crate) enum End {
    Device(u64),
    /// Memory of the host that is used when the copy happens.
    Host(u64),
    /// What was in memory of the host when the copy was asked for.
    Taken(Arc<Vec<u8>>),
}

/// A kernel with its arguments.
pub(crate) struct Launch {
    pub(crate) kernel: String,
    pub(crate) module: usize,
    pub(crate) grid: Grid,
    pub(crate) arguments: Arguments,
}

/// What a stream does.
#[derive(Clone)]
pub(crate) enum Work {
    Copy {
        to: End,
        from: End,
        bytes: usize,
    },
    /// `count` times a value of `width` bytes.
    Fill {
        at: u64,
        value: u32,
        width: usize,
        count: usize,
    },
    Kernel(Arc<Launch>),
    Matmul(Arc<Matmul>),
    /// What other ranks may let wait.
    Messages(Arc<Messages>),
    Free(u64),
    Record {
        event: usize,
        generation: u64,
    },
    Wait {
        event: usize,
        generation: u64,
    },
    Graph(Arc<Vec<Work>>),
}

/// What a stream records in place of doing it.
pub(crate) struct Capture {
    pub(crate) mode: CaptureMode,
    pub(crate) thread: ThreadId,
    pub(crate) work: Vec<Work>,
    pub(crate) invalid: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum CaptureMode {
    Global,
    ThreadLocal,
    Relaxed,
}

#[derive(Default)]
pub(crate) struct Stream {
    queue: VecDeque<Work>,
    pub(crate) capture: Option<Capture>,
    /// It keeps no order with the legacy stream.
    independent: bool,
}

impl Stream {
    pub(crate) fn new(independent: bool) -> Self {
        Stream { independent, ..Stream::default() }
    }
}

#[derive(Default)]
pub(crate) struct Event {
    timing: bool,
    /// How often it was recorded, and how many of these records were reached.
    generation: u64,
    reached: u64,
    stream: usize,
    time: Option<Instant>,
    /// Its last record is part of a graph.
    captured: bool,
    /// The record for which the answer "not yet" was given.
    asked: u64,
}

impl Event {
    pub(crate) fn new(timing: bool) -> Self {
        Event { timing, ..Event::default() }
    }
}

pub(crate) struct Function {
    pub(crate) module: usize,
    pub(crate) kernel: String,
    /// Dynamic shared memory that a block may have, in bytes.
    pub(crate) shared: i32,
}

pub(crate) struct Module {
    pub(crate) kernels: Vec<String>,
}

// ---- the world ------------------------------------------------------------------------------------------------------

pub(crate) struct World {
    pub(crate) settings: Settings,
    pub(crate) initialised: bool,
    /// How often the context was retained, and its handle while it is there.
    pub(crate) retained: usize,
    pub(crate) context: usize,
    handles: usize,
    pub(crate) device: Memory,
    pub(crate) pinned: Memory,
    pub(crate) streams: HashMap<usize, Stream>,
    pub(crate) events: HashMap<usize, Event>,
    pub(crate) modules: HashMap<usize, Module>,
    pub(crate) functions: HashMap<usize, Function>,
    pub(crate) graphs: HashMap<usize, Arc<Vec<Work>>>,
    pub(crate) executables: HashMap<usize, Arc<Vec<Work>>>,
    pub(crate) communicators: HashMap<usize, Communicator>,
    /// An error in work: from then on the context is of no use.
    broken: Option<CUresult>,
}

static WORLD: LazyLock<Mutex<World>> = LazyLock::new(|| {
    Mutex::new(World {
        settings: Settings::from_env(),
        initialised: false,
        retained: 0,
        context: 0,
        handles: 0x1000,
        device: Memory::default(),
        pinned: Memory::default(),
        streams: HashMap::new(),
        events: HashMap::new(),
        modules: HashMap::new(),
        functions: HashMap::new(),
        graphs: HashMap::new(),
        executables: HashMap::new(),
        communicators: HashMap::new(),
        broken: None,
    })
});

thread_local! {
    /// The context that is current on this thread; 0 is none.
    pub(crate) static CURRENT: Cell<usize> = const { Cell::new(0) };
}

/// The device, for one caller at a time.
pub(crate) fn world() -> MutexGuard<'static, World> {
    WORLD.lock().expect("a panic in the stand-in ends the process")
}

/// Says on standard error what the number of an error cannot.
pub(crate) fn say(message: &str) {
    eprintln!("duel stand-in: {message}");
}

/// An error, with its reason on standard error.
pub(crate) fn because<T>(error: CUresult, reason: &str) -> Done<T> {
    say(&format!("{error:?}: {reason}"));
    Err(error)
}

impl World {
    /// A handle that nothing had before.
    pub(crate) fn handle(&mut self) -> usize {
        self.handles += 0x10;
        self.handles
    }

    /// The context comes into being.
    pub(crate) fn start(&mut self) {
        self.context = self.handle();
        for stream in [LEGACY, PER_THREAD] {
            self.streams.insert(stream, Stream::default());
        }
    }

    /// The context goes, and all that is in it.
    pub(crate) fn stop(&mut self) -> Done {
        let done = self.wait_for_all();
        self.context = 0;
        self.device = Memory::default();
        self.pinned = Memory::default();
        self.streams.clear();
        self.events.clear();
        self.modules.clear();
        self.functions.clear();
        self.graphs.clear();
        self.executables.clear();
        done
    }

    /// # Errors
    /// When no context is current on this thread, or an error in work has ended its use.
    pub(crate) fn in_context(&self) -> Done {
        if !self.initialised {
            return Err(CUDA_ERROR_NOT_INITIALIZED);
        }
        match CURRENT.get() {
            0 => Err(CUDA_ERROR_INVALID_CONTEXT),
            context if context != self.context => Err(CUDA_ERROR_CONTEXT_IS_DESTROYED),
            _ => self.broken.map_or(Ok(()), Err),
        }
    }

    /// From now on the context is of no use.
    fn break_down(&mut self, error: CUresult, reason: &str) {
        if self.broken.is_none() {
            say(&format!("{error:?}: {reason}"));
            self.broken = Some(error);
        }
    }
}

// ---- capture --------------------------------------------------------------------------------------------------------

impl World {
    /// A call that could disturb a capture of this thread, or a global one of any thread, ends that capture.
    ///
    /// # Errors
    /// When there is one.
    pub(crate) fn undisturbed(&mut self, call: &str) -> Done {
        let thread = std::thread::current().id();
        let mut disturbed = false;
        for stream in self.streams.values_mut() {
            let Some(capture) = &mut stream.capture else { continue };
            let own = capture.thread == thread && capture.mode != CaptureMode::Relaxed;
            if own || capture.mode == CaptureMode::Global {
                capture.invalid = true;
                disturbed = true;
            }
        }
        if disturbed {
            return because(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, &format!("{call} during a capture"));
        }
        Ok(())
    }

    /// A call that a capturing stream cannot take ends the capture.
    ///
    /// # Errors
    /// When the stream is capturing.
    pub(crate) fn not_capturing(&mut self, stream: usize, call: &str) -> Done {
        if let Some(capture) = &mut self.stream(stream)?.capture {
            capture.invalid = true;
            return because(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, &format!("{call} on a stream in capture"));
        }
        Ok(())
    }
}

// ---- streams --------------------------------------------------------------------------------------------------------

impl World {
    /// The stream of a handle. The legacy stream has two names.
    pub(crate) fn stream(&mut self, stream: usize) -> Done<&mut Stream> {
        let stream = if stream == 1 { LEGACY } else { stream };
        self.streams.get_mut(&stream).ok_or(CUDA_ERROR_INVALID_HANDLE)
    }

    /// Whether work on the stream is recorded and not done.
    pub(crate) fn is_capturing(&mut self, stream: usize) -> Done<bool> {
        Ok(self.stream(stream)?.capture.is_some())
    }

    /// Adds work to a stream, or to what it captures.
    pub(crate) fn start_work(&mut self, stream: usize, work: Work) -> Done {
        let independent = self.stream(stream)?.independent;
        if let Some(capture) = &mut self.stream(stream)?.capture {
            if capture.invalid {
                return Err(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
            }
            if let Work::Record { event, .. } = work {
                self.events.get_mut(&event).ok_or(CUDA_ERROR_INVALID_HANDLE)?.captured = true;
            } else {
                capture.work.push(work);
            }
            return Ok(());
        }
        // The legacy stream and those that keep order with it take turns.
        if !independent {
            let others: Vec<usize> =
                self.streams.iter().filter(|(_, s)| !s.independent).map(|(&handle, _)| handle).collect();
            let legacy = stream <= 1;
            for other in others.into_iter().filter(|&other| (other == LEGACY) != legacy) {
                self.drain(other);
            }
        }
        self.stream(stream)?.queue.push_back(work);
        if self.settings.eager || self.stream(stream)?.queue.len() > DEPTH {
            self.drain(stream);
        }
        self.broken.map_or(Ok(()), Err)
    }

    /// Does all work of a stream. What goes wrong ends the use of the context.
    fn drain(&mut self, stream: usize) {
        while let Some(work) = self.next(stream, true) {
            self.run(&work);
        }
    }

    /// The next work of a stream; messages are done by then. `patient`: who waits for them waits for other ranks.
    fn next(&mut self, stream: usize, patient: bool) -> Option<Work> {
        while let Some(Work::Messages(messages)) = self.streams.get(&stream)?.queue.front() {
            let messages = messages.clone();
            if self.broken.is_some() {
                break;
            }
            if let Err(reason) = self.check(&Work::Messages(messages.clone()), false) {
                self.break_down(CUDA_ERROR_ILLEGAL_ADDRESS, &reason);
                break;
            }
            // SAFETY: the check above found all of them in blocks, of which nobody has a reference.
            match unsafe { messages.go_on() } {
                Ok(true) => break,
                Ok(false) if patient => std::thread::sleep(MOMENT),
                Ok(false) => return None,
                Err(reason) => self.break_down(CUDA_ERROR_LAUNCH_FAILED, &reason),
            }
        }
        self.streams.get_mut(&stream)?.queue.pop_front()
    }

    /// No rank is waited for any more.
    pub(crate) fn give_up_messages(&mut self) {
        for stream in self.streams.values_mut() {
            stream.queue.retain(|work| !matches!(work, Work::Messages(_)));
        }
    }

    /// Says that the host waits for work.
    fn host_waits(&self, what: &str) {
        let Some(path) = &self.settings.waits else { return };
        let file = OpenOptions::new().create(true).append(true).open(path);
        let said = file.and_then(|mut file| writeln!(file, "{what}"));
        said.unwrap_or_else(|e| panic!("DUEL_STANDIN_WAITS, {}: {e}", path.display()));
    }

    /// Does all work of a stream, and reports what went wrong so far.
    pub(crate) fn wait_for_stream(&mut self, stream: usize) -> Done {
        if !self.stream(stream)?.queue.is_empty() {
            self.host_waits("stream");
        }
        self.drain(stream);
        self.broken.map_or(Ok(()), Err)
    }

    /// Does all work.
    pub(crate) fn wait_for_all(&mut self) -> Done {
        if self.streams.values().any(|s| !s.queue.is_empty()) {
            self.host_waits("all streams");
        }
        let mut streams: Vec<usize> = self.streams.keys().copied().collect();
        streams.sort_unstable();
        for stream in streams {
            self.drain(stream);
        }
        self.broken.map_or(Ok(()), Err)
    }

    /// Whether the stream has work to do.
    pub(crate) fn is_busy(&mut self, stream: usize) -> Done<bool> {
        Ok(!self.stream(stream)?.queue.is_empty())
    }
}

// ---- events ---------------------------------------------------------------------------------------------------------

impl World {
    fn event(&mut self, event: usize) -> Done<&mut Event> {
        self.events.get_mut(&event).ok_or(CUDA_ERROR_INVALID_HANDLE)
    }

    pub(crate) fn record(&mut self, event: usize, stream: usize) -> Done {
        self.stream(stream)?;
        let capturing = self.is_capturing(stream)?;
        let known = self.event(event)?;
        if !capturing {
            known.captured = false;
            known.generation += 1;
            known.stream = stream;
        }
        let generation = known.generation;
        self.start_work(stream, Work::Record { event, generation })
    }

    /// The stream waits for what the event stands for now.
    pub(crate) fn wait_for_event_on(&mut self, stream: usize, event: usize) -> Done {
        let capturing = self.is_capturing(stream)?;
        let known = self.event(event)?;
        let (generation, captured, of) = (known.generation, known.captured, known.stream);
        if capturing != captured && (captured || generation > 0) {
            if let Some(capture) = &mut self.stream(stream)?.capture {
                capture.invalid = true;
            }
            return because(
                CUDA_ERROR_STREAM_CAPTURE_ISOLATION,
                "a wait between work in a capture and work outside it",
            );
        }
        if captured || of == stream || generation == 0 {
            return Ok(()); // in order anyway
        }
        self.start_work(stream, Work::Wait { event, generation })
    }

    /// Does work until the event is reached.
    pub(crate) fn wait_for_event(&mut self, event: usize) -> Done {
        let known = self.event(event)?;
        if known.captured {
            return Err(CUDA_ERROR_CAPTURED_EVENT);
        }
        let (generation, waits) = (known.generation, known.reached < known.generation);
        if waits {
            self.host_waits("event");
        }
        self.reach(event, generation, true);
        self.broken.map_or(Ok(()), Err)
    }

    /// Does work of an event's stream until the event is reached, or others are to be waited for without patience.
    fn reach(&mut self, event: usize, generation: u64, patient: bool) {
        loop {
            let Some(known) = self.events.get(&event) else { return };
            if known.reached >= generation {
                return;
            }
            let stream = known.stream;
            let Some(work) = self.next(stream, patient) else { return };
            self.run(&work);
        }
    }

    /// Whether the event is reached. Who asks a second time has waited long enough for it.
    pub(crate) fn query(&mut self, event: usize) -> Done {
        let known = self.event(event)?;
        if known.captured {
            return Err(CUDA_ERROR_CAPTURED_EVENT);
        }
        if known.reached < known.generation && known.asked != known.generation {
            known.asked = known.generation;
            return Err(CUDA_ERROR_NOT_READY);
        }
        let (generation, waits) = (known.generation, known.reached < known.generation);
        if waits {
            self.host_waits("event");
        }
        self.reach(event, generation, false);
        self.broken.map_or(Ok(()), Err)?;
        if self.event(event)?.reached < generation { Err(CUDA_ERROR_NOT_READY) } else { Ok(()) }
    }

    /// Milliseconds between two events.
    pub(crate) fn elapsed(&mut self, start: usize, end: usize) -> Done<f32> {
        let mut times = [None; 2];
        for (event, time) in [start, end].into_iter().zip(&mut times) {
            let known = self.event(event)?;
            if known.captured || !known.timing || known.generation == 0 {
                return Err(CUDA_ERROR_INVALID_HANDLE);
            }
            if known.reached < known.generation {
                return Err(CUDA_ERROR_NOT_READY);
            }
            *time = known.time;
        }
        let [Some(start), Some(end)] = times else { return Err(CUDA_ERROR_INVALID_HANDLE) };
        let seconds = if end >= start {
            end.duration_since(start).as_secs_f32()
        } else {
            -start.duration_since(end).as_secs_f32()
        };
        Ok(seconds * 1e3)
    }
}

// ---- running --------------------------------------------------------------------------------------------------------

/// What a piece of work uses of the device's memory.
fn ranges(work: &Work) -> Vec<(u64, usize, String)> {
    let end = |end: &End, bytes, name: &str| match end {
        End::Device(at) => vec![(*at, bytes, name.to_string())],
        End::Host(_) | End::Taken(_) => Vec::new(),
    };
    match work {
        Work::Copy { to, from, bytes } => {
            let mut all = end(to, *bytes, "the target of a copy");
            all.extend(end(from, *bytes, "the source of a copy"));
            all
        }
        Work::Fill { at, width, count, .. } => vec![(*at, width * count, "memory to fill".into())],
        Work::Kernel(launch) => {
            let of = |(at, bytes, name)| (at, bytes, format!("{name} of {}", launch.kernel));
            launch.arguments.addresses().into_iter().filter(|(at, ..)| *at != 0).map(of).collect()
        }
        Work::Matmul(matmul) => matmul.ranges(),
        Work::Messages(messages) => messages.ranges(),
        Work::Graph(all) => all.iter().flat_map(ranges).collect(),
        Work::Free(_) | Work::Record { .. } | Work::Wait { .. } => Vec::new(),
    }
}

impl World {
    /// # Errors
    /// When the work uses memory that is not there. `now`: for a new call.
    pub(crate) fn check(&self, work: &Work, now: bool) -> Result<(), String> {
        for (address, bytes, name) in ranges(work) {
            // Pinned memory has an address on the device too.
            if !self.device.holds(address, bytes, now) && !self.pinned.holds(address, bytes, now) {
                return Err(format!("{name}: {bytes} bytes at {address:#x} are not in one block of memory"));
            }
        }
        Ok(())
    }

    fn run(&mut self, work: &Work) {
        match work {
            Work::Record { event, generation } => {
                if let Some(event) = self.events.get_mut(event) {
                    event.reached = event.reached.max(*generation);
                    event.time = Some(Instant::now());
                }
                return;
            }
            Work::Wait { event, generation } => return self.reach(*event, *generation, true),
            Work::Messages(_) => return, // done when it was given
            Work::Free(address) => {
                if let Err(reason) = self.device.free(*address) {
                    self.break_down(CUDA_ERROR_ILLEGAL_ADDRESS, &reason);
                }
                return;
            }
            Work::Graph(all) => return all.iter().for_each(|work| self.run(work)),
            Work::Copy { .. } | Work::Fill { .. } | Work::Kernel(_) | Work::Matmul(_) => {}
        }
        if self.broken.is_some() {
            return; // nothing happens any more, but for events and frees
        }
        if let Err(reason) = self.check(work, false) {
            return self.break_down(CUDA_ERROR_ILLEGAL_ADDRESS, &reason);
        }
        match work {
            Work::Copy { to, from, bytes } => copy(to, from, *bytes),
            Work::Fill { at, value, width, count } => {
                // SAFETY: the check above found the whole range in one block, of which nobody has a reference.
                let bytes = unsafe { std::slice::from_raw_parts_mut(*at as *mut u8, width * count) };
                fill(bytes, &value.to_le_bytes()[..*width]);
            }
            Work::Kernel(launch) => self.run_kernel(launch),
            Work::Matmul(matmul) => {
                // SAFETY: the check above found all its matrices in blocks.
                unsafe { matmul.run() };
                self.check_guards("a matrix product");
            }
            _ => unreachable!("done above"),
        }
    }

    fn run_kernel(&mut self, launch: &Launch) {
        if !self.modules.contains_key(&launch.module) {
            let reason = format!("the code of {} was unloaded before it ran", launch.kernel);
            return self.break_down(CUDA_ERROR_LAUNCH_FAILED, &reason);
        }
        let emulation = Emulation::new(self.settings.schedule);
        let pointers = launch.arguments.pointers();
        // SAFETY: the arguments are as many and as large as the kernel takes, and the addresses in them are of blocks;
        // that these are large enough is what the caller of the launch promised.
        if let Some(reason) = unsafe { emulation.run(&launch.kernel, launch.grid, &pointers) } {
            return self.break_down(CUDA_ERROR_LAUNCH_FAILED, &reason);
        }
        self.check_guards(&launch.kernel);
    }

    fn check_guards(&mut self, after: &str) {
        if let Some(reason) = self.device.trespassed().or_else(|| self.pinned.trespassed()) {
            self.break_down(CUDA_ERROR_ILLEGAL_ADDRESS, &format!("{after}: {reason}"));
        }
    }
}

/// Repeats a value in `bytes`, which is a multiple of it long.
fn fill(bytes: &mut [u8], value: &[u8]) {
    if value.iter().all(|&byte| byte == value[0]) {
        return bytes.fill(value[0]); // a device's memory is filled with zeros, and that byte by byte takes its time
    }
    bytes.chunks_exact_mut(value.len()).for_each(|chunk| chunk.copy_from_slice(value));
}

fn copy(to: &End, from: &End, bytes: usize) {
    let from = match from {
        End::Device(address) | End::Host(address) => *address,
        End::Taken(taken) => taken.as_ptr() as u64,
    };
    let (End::Device(to) | End::Host(to)) = to else { unreachable!("nothing is copied to what was taken") };
    // SAFETY: ends on the device lie in blocks; those on the host are the caller's, who promised that they are there
    // until the copy is done.
    unsafe { (*to as *mut u8).copy_from(from as *const u8, bytes) };
}
