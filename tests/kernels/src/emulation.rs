//! The host emulation as a driver.

use duel_backend::{Error, Result};
use duel_cuda::{Argument, Driver, Grid, Properties, sys};
use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};

// In kernels/host/simt.cpp; the structs are those of params.h.
unsafe extern "C" {
    fn duel_simt_launch(
        options: *const sys::SimtOptions,
        name: *const c_char,
        grid: *const c_uint,
        block: *const c_uint,
        shared: usize,
        arguments: *const *const c_void,
        error: *mut c_char,
        error_bytes: usize,
    ) -> c_int;
    fn duel_simt_tensor_map(
        map: *mut sys::TensorMap,
        spec: *const sys::TensorMapSpec,
        error: *mut c_char,
        error_bytes: usize,
    ) -> c_int;
    fn duel_simt_kernels(
        visit: extern "C" fn(context: *mut c_void, name: *const c_char, max_threads: c_uint),
        context: *mut c_void,
    );
    fn duel_simt_parameters(
        name: *const c_char,
        visit: extern "C" fn(context: *mut c_void, kind: *const c_char, bytes: usize, align: usize),
        context: *mut c_void,
    ) -> c_int;
}

/// Longest message of the emulation.
const ERROR_BYTES: usize = 4096;

/// The order in which the threads of a block take turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Upwards.
    Forward,
    /// Downwards, and blocks last to first.
    Reverse,
    /// At random, from this seed; blocks too, and copies complete in any order.
    Random(u64),
}

/// When an asynchronous copy or matrix instruction happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copies {
    /// As late as the programming model allows: a missing wait or an early release shows.
    Lazy,
    /// At once.
    Eager,
}

/// How a launch runs on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Whose turn it is.
    pub order: Order,
    /// When copies happen.
    pub copies: Copies,
    /// OS threads that share the blocks.
    pub os_threads: u32,
}

impl Schedule {
    /// One OS thread.
    pub const fn new(order: Order, copies: Copies) -> Self {
        Schedule { order, copies, os_threads: 1 }
    }

    /// The schedules that a conformance test runs: their results must not differ in a single bit.
    pub const ALL: [Schedule; 5] = [
        Schedule::new(Order::Forward, Copies::Lazy),
        Schedule::new(Order::Reverse, Copies::Lazy),
        Schedule::new(Order::Random(1), Copies::Lazy),
        Schedule { os_threads: 2, ..Schedule::new(Order::Random(2), Copies::Lazy) },
        Schedule::new(Order::Forward, Copies::Eager),
    ];

    fn options(self) -> sys::SimtOptions {
        let (order, seed) = match self.order {
            Order::Forward => (0, 0),
            Order::Reverse => (1, 0),
            Order::Random(seed) => (2, seed),
        };
        let eager_copies = u32::from(self.copies == Copies::Eager);
        sys::SimtOptions { seed, order, eager_copies, os_threads: self.os_threads }
    }
}

/// What a kernel takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Name of its struct in `params.h`.
    pub kind: String,
    /// Its size.
    pub bytes: usize,
    /// Its alignment.
    pub align: usize,
}

/// 256 aligned bytes, as device memory is.
#[derive(Clone, Copy)]
#[repr(align(256))]
struct Chunk(#[expect(dead_code, reason = "it is read and written as bytes of the whole")] [u8; 256]);

/// Host memory that plays device memory.
#[derive(Clone)]
pub struct Memory(Vec<Chunk>);

impl Memory {
    /// A copy of an argument, aligned as any is.
    ///
    /// # Safety
    /// It is there, as large as it says.
    unsafe fn of(argument: Argument) -> Self {
        let mut memory = Memory(vec![Chunk([0; 256]); argument.bytes.div_ceil(size_of::<Chunk>())]);
        // SAFETY: the caller's promise, and the memory is at least as large; padding is copied as what it is.
        unsafe {
            let to = memory.0.as_mut_ptr().cast::<u8>();
            std::ptr::copy_nonoverlapping(argument.address.cast::<u8>(), to, argument.bytes);
        }
        memory
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: a chunk is 256 initialised bytes without padding.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), size_of_val(self.0.as_slice())) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and any bytes are a chunk.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), size_of_val(self.0.as_slice())) }
    }
}

/// Runs kernels on the host, one fiber a CUDA thread. A launch is done when the call returns; its error is kept until
/// someone asks.
pub struct Emulation {
    schedule: Schedule,
    compute_capability: u32,
    variant: Option<&'static str>,
    error: RefCell<Option<String>>,
    /// Launches that are kept instead of run.
    recorded: RefCell<Vec<Launch>>,
    recording: Cell<bool>,
}

/// A launch that can be done again: what its arguments pointed to is kept with it.
#[derive(Clone)]
struct Launch {
    kernel: &'static str,
    grid: Grid,
    arguments: Vec<Memory>,
}

/// The launches of a [`Recorded`].
pub struct Launches(Vec<Launch>);

/// Work that repeats: done once, then recorded, then only repeated, as a GPU does it.
#[derive(Default)]
pub enum Recorded {
    /// It was not done yet.
    #[default]
    Nothing,
    /// It was done once.
    Seen,
    /// Its launches.
    Launches(Launches),
}

impl Emulation {
    /// With a schedule, as a device of compute capability 9.0.
    pub fn new(schedule: Schedule) -> Self {
        Emulation {
            schedule,
            compute_capability: 90,
            variant: None,
            error: RefCell::default(),
            recorded: RefCell::default(),
            recording: Cell::default(),
        }
    }

    /// The same as a device of another compute capability (80 for 8.0), so that launch code chooses other kernels.
    pub fn with_compute_capability(self, compute_capability: u32) -> Self {
        Emulation { compute_capability, ..self }
    }

    /// The same with a planted bug: kernels that the build compiled with it take the place of the right ones.
    pub fn with_plant(self, plant: &'static str) -> Self {
        Emulation { variant: Some(plant), ..self }
    }

    /// Name under which a kernel is registered: that of the planted variant if there is one.
    fn registered_name(&self, kernel: &str) -> String {
        let Some(variant) = self.variant else { return kernel.into() };
        let planted = format!("{kernel}@{variant}");
        if Self::kernels().iter().any(|(name, _)| *name == planted) { planted } else { kernel.into() }
    }

    /// Names and launch bounds of the kernels that are compiled in, sorted; those of the tests end in `@test`, those
    /// with a planted bug in its name after an `@`.
    pub fn kernels() -> Vec<(String, u32)> {
        extern "C" fn visit(context: *mut c_void, name: *const c_char, max_threads: c_uint) {
            // SAFETY: the context is the vector below, which nobody else uses during the call, and names are C
            // strings of the kernel text.
            let (all, name) = unsafe { (&mut *context.cast::<Vec<(String, u32)>>(), CStr::from_ptr(name)) };
            all.push((name.to_string_lossy().into_owned(), max_threads));
        }
        let mut all = Vec::new();
        // SAFETY: `visit` is called with the context during this call only.
        unsafe { duel_simt_kernels(visit, (&raw mut all).cast()) };
        all.sort();
        all
    }

    /// What a kernel that is compiled in takes, in order.
    pub fn parameters(kernel: &str) -> Option<Vec<Parameter>> {
        extern "C" fn visit(context: *mut c_void, kind: *const c_char, bytes: usize, align: usize) {
            // SAFETY: the context is the vector below, which nobody else uses during the call, and names of types are
            // C strings of the program.
            let (all, kind) = unsafe { (&mut *context.cast::<Vec<Parameter>>(), CStr::from_ptr(kind)) };
            all.push(Parameter { kind: kind.to_string_lossy().into_owned(), bytes, align });
        }
        let name = CString::new(kernel).ok()?;
        let mut all = Vec::new();
        // SAFETY: the name lives through the call, and `visit` is called with the context during it only.
        let missing = unsafe { duel_simt_parameters(name.as_ptr(), visit, (&raw mut all).cast()) };
        (missing == 0).then_some(all)
    }

    /// A tensor map as the emulation understands it: the specification is at its beginning.
    ///
    /// # Errors
    /// When a device would refuse it, with what is wrong.
    pub fn encode(spec: &sys::TensorMapSpec) -> std::result::Result<sys::TensorMap, String> {
        let mut map = sys::TensorMap { opaque: [0; 16] };
        // SAFETY: both structs and the room for a message live through the call.
        let refused =
            message_of(|error, bytes| unsafe { duel_simt_tensor_map(&mut map, spec, error, bytes) });
        refused.map_or(Ok(map), Err)
    }

    /// Runs a kernel and says what went wrong in it, if anything.
    ///
    /// # Safety
    /// As [`Driver::launch`], with the addresses of its arguments.
    pub unsafe fn run(&self, kernel: &str, grid: Grid, arguments: &[*const c_void]) -> Option<String> {
        let name = CString::new(self.registered_name(kernel)).expect("a kernel's name has no zero in it");
        let options = self.schedule.options();
        // SAFETY: the caller promises that the arguments are the kernel's; everything else lives through the call.
        message_of(|error, bytes| unsafe {
            duel_simt_launch(
                &options,
                name.as_ptr(),
                grid.blocks.as_ptr(),
                grid.threads.as_ptr(),
                grid.shared,
                arguments.as_ptr(),
                error,
                bytes,
            )
        })
    }

    /// Runs a kernel and keeps what went wrong in it.
    ///
    /// # Safety
    /// As [`Driver::launch`], with the addresses of its arguments.
    unsafe fn run_and_keep(&self, kernel: &str, grid: Grid, arguments: &[*const c_void]) {
        // SAFETY: the caller's promise.
        if let Some(message) = unsafe { self.run(kernel, grid, arguments) } {
            self.error.borrow_mut().get_or_insert(message);
        }
    }

    fn run_again(&self, launches: &Launches) {
        for Launch { kernel, grid, arguments } in &launches.0 {
            let addresses: Vec<_> = arguments.iter().map(|memory| memory.0.as_ptr().cast()).collect();
            // SAFETY: the arguments are copies of those of a launch whose caller made the promise, and who repeats work
            // promises it again (`Repetition::repeat`).
            unsafe { self.run_and_keep(kernel, *grid, &addresses) };
        }
    }

    fn take_error(&self) -> Result<()> {
        self.error.borrow_mut().take().map_or(Ok(()), |e| Err(Error::Device(e)))
    }
}

/// Calls `f` with room for a message and gives the message when `f` says that there is one.
fn message_of(f: impl FnOnce(*mut c_char, usize) -> c_int) -> Option<String> {
    let mut text = [0u8; ERROR_BYTES];
    let failed = f(text.as_mut_ptr().cast(), ERROR_BYTES) != 0;
    let text = CStr::from_bytes_until_nul(&text).expect("a message ends with a zero");
    failed.then(|| text.to_string_lossy().into_owned())
}

impl Driver for Emulation {
    type Memory = Memory;

    fn describe(&self) -> String {
        format!("host emulation of compute capability {}, {:?}", self.compute_capability, self.schedule)
    }

    fn properties(&self) -> Properties {
        // Few multiprocessors: kernels that stride over their work do so for small sizes too.
        Properties { compute_capability: self.compute_capability, multiprocessors: 2, max_shared: 227 << 10 }
    }

    fn alloc(&self, bytes: usize) -> Result<Memory> {
        let chunks = bytes.div_ceil(size_of::<Chunk>());
        let mut memory = Vec::new();
        memory.try_reserve_exact(chunks).map_err(|_| Error::OutOfMemory { bytes })?;
        memory.resize(chunks, Chunk([0; 256]));
        Ok(Memory(memory))
    }

    fn address(&self, memory: &Memory) -> u64 {
        memory.0.as_ptr() as u64
    }

    fn upload(&self, dst: &mut Memory, offset: usize, src: &[u8]) {
        dst.bytes_mut()[offset..offset + src.len()].copy_from_slice(src);
    }

    fn download(&self, dst: &mut [u8], src: &Memory, offset: usize) -> Result<()> {
        dst.copy_from_slice(&src.bytes()[offset..offset + dst.len()]);
        self.take_error()
    }

    fn copy(&self, dst: &mut Memory, src: &Memory, bytes: usize) {
        dst.bytes_mut()[..bytes].copy_from_slice(&src.bytes()[..bytes]);
    }

    fn zero(&self, memory: &mut Memory, bytes: usize) {
        memory.bytes_mut()[..bytes].fill(0);
    }

    fn tensor_map(&self, spec: &sys::TensorMapSpec) -> sys::TensorMap {
        Self::encode(spec).unwrap_or_else(|message| panic!("{message}"))
    }

    unsafe fn launch(&self, kernel: &'static str, grid: Grid, arguments: &[Argument]) {
        if self.recording.get() {
            // SAFETY: the caller promises that each argument is there, as large as it says.
            let kept = arguments.iter().map(|&argument| unsafe { Memory::of(argument) }).collect();
            self.recorded.borrow_mut().push(Launch { kernel, grid, arguments: kept });
            return;
        }
        let addresses: Vec<_> = arguments.iter().map(|argument| argument.address).collect();
        // SAFETY: the caller's promise.
        unsafe { self.run_and_keep(kernel, grid, &addresses) };
    }

    type Recording = Recorded;

    fn repeat(&self, recording: &mut Recorded, mut work: impl FnMut()) {
        match recording {
            Recorded::Nothing => {
                work();
                *recording = Recorded::Seen;
            }
            Recorded::Seen => {
                self.recording.set(true);
                work();
                self.recording.set(false);
                let launches = Launches(self.recorded.take());
                self.run_again(&launches);
                *recording = Recorded::Launches(launches);
            }
            Recorded::Launches(launches) => self.run_again(launches),
        }
    }

    fn finish(&self) -> Result<()> {
        self.take_error()
    }
}
