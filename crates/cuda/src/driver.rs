use crate::library::LibraryProduct;
use duel_backend::{Memory, Result};
use duel_kernels::sys::{TensorMap, TensorMapSpec};
use std::ffi::c_void;

/// What launch code needs to know about a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Properties {
    /// Compute capability, ten times the major number plus the minor one: 80, 90, 120.
    pub compute_capability: u32,
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Dynamic shared memory that one block can have, in bytes.
    pub max_shared: usize,
}

/// How many blocks run, and how many threads and how much shared memory each has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Blocks along x, y and z.
    pub blocks: [u32; 3],
    /// Threads of a block along x, y and z.
    pub threads: [u32; 3],
    /// Dynamic shared memory of a block, in bytes.
    pub shared: usize,
}

impl Grid {
    /// `blocks` along x of `threads` along x each, without shared memory.
    pub fn linear(blocks: usize, threads: u32) -> Self {
        Grid::plane([blocks, 1], [threads, 1])
    }

    /// `blocks` along x and y of `threads` along x and y each, without shared memory.
    ///
    /// # Panics
    /// When a number of blocks does not fit into 32 bits.
    pub fn plane(blocks: [usize; 2], threads: [u32; 2]) -> Self {
        let blocks = blocks.map(|n| u32::try_from(n).expect("the number of blocks fits into 32 bits"));
        Grid { blocks: [blocks[0], blocks[1], 1], threads: [threads[0], threads[1], 1], shared: 0 }
    }

    /// The same with so many bytes of shared memory a block.
    pub fn with_shared(self, shared: u32) -> Self {
        Grid { shared: shared as usize, ..self }
    }
}

/// One parameter of a kernel.
#[derive(Clone, Copy, Debug)]
pub struct Argument {
    /// Where its value is.
    pub address: *const c_void,
    /// How large it is.
    pub bytes: usize,
}

impl Argument {
    /// The parameter whose value this is.
    pub fn of<T>(value: &T) -> Self {
        Argument { address: std::ptr::from_ref(value).cast(), bytes: size_of::<T>() }
    }
}

/// A device that holds memory and runs kernels by name: a GPU, or its emulation.
///
/// Work is done in the order of the calls, but a call may return before its work is done. What goes wrong in
/// between is kept and reported by the next [`Driver::finish`] or [`Driver::download`].
pub trait Driver: 'static {
    /// Device memory. Freed when dropped, after the work that was started before.
    type Memory: 'static;

    /// One line for people: the name of the device.
    fn describe(&self) -> String;
    /// All that the bits of a result depend on besides the kernels and their inputs.
    fn identity(&self) -> String {
        self.describe()
    }
    /// What launch code needs to know.
    fn properties(&self) -> Properties;
    /// What is known about its memory.
    fn memory(&self) -> Memory {
        Memory::default()
    }
    /// Zeroed memory, aligned to 256 bytes. Fails when there is no room.
    fn alloc(&self, bytes: usize) -> Result<Self::Memory>;
    /// Device address of the first byte.
    fn address(&self, memory: &Self::Memory) -> u64;
    /// Copies `src` to `dst[offset..]`; offsets count bytes. The caller has checked the range.
    fn upload(&self, dst: &mut Self::Memory, offset: usize, src: &[u8]);
    /// Copies `src[offset..]` to `dst`, after all earlier work, and reports what went wrong in that.
    fn download(&self, dst: &mut [u8], src: &Self::Memory, offset: usize) -> Result<()>;
    /// Copies the first `bytes` bytes.
    fn copy(&self, dst: &mut Self::Memory, src: &Self::Memory, bytes: usize);
    /// Sets the first `bytes` bytes to zero.
    fn zero(&self, memory: &mut Self::Memory, bytes: usize);
    /// A tensor map for TMA.
    ///
    /// # Panics
    /// When the device would refuse it.
    fn tensor_map(&self, spec: &TensorMapSpec) -> TensorMap;
    /// Starts a kernel; `arguments` point to its parameters, which are read before this returns.
    ///
    /// # Safety
    /// The arguments are what the kernel of this name takes, in number, type and order, and the addresses in them lead
    /// to live memory as large as the kernel's own description says for their sizes.
    unsafe fn launch(&self, kernel: &'static str, grid: Grid, arguments: &[Argument]);
    /// Starts a matrix product by the vendor's library and returns `true`; or `false` where there is none, or where it
    /// does not take this product: then the same is answered every time.
    ///
    /// # Safety
    /// The addresses are of live buffers as large as [`LibraryProduct`] says.
    unsafe fn library_product(&self, _product: &LibraryProduct) -> bool {
        false
    }
    /// What it keeps of work that repeats; empty at first.
    type Recording: Default + 'static;
    /// Does `work`, which launches kernels, copies on the device and does nothing else here; with a recording that is
    /// not empty any more perhaps without asking `work`, which would do the same on the same addresses; and asking
    /// twice where what was recorded is not to be used.
    fn repeat(&self, recording: &mut Self::Recording, work: impl FnMut());
    /// Waits for all work and reports what went wrong in it.
    fn finish(&self) -> Result<()>;
}
