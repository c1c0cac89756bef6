//! Memory that plays the device's, and pinned memory of the host.

use std::alloc::{Layout, alloc, dealloc};
use std::collections::{BTreeMap, VecDeque};

/// Alignment of every block.
const ALIGNMENT: usize = 256;
/// Bytes before and after a block that nobody may write.
const GUARD: usize = 256;
const GUARD_BYTE: u8 = 0xa5;
/// Fresh memory and freed memory are full of it: NaN as a float and as a bf16, and no row number.
const JUNK: u8 = 0xff;
/// Freed bytes and blocks that are kept, so that a late access is found.
const KEPT: usize = 64 << 20;
const KEPT_BLOCKS: usize = 1024;

/// One allocation.
struct Block {
    address: u64,
    bytes: usize,
    /// It was freed in the order of a stream that has not come so far: only work before that may use it.
    leaving: bool,
}

impl Block {
    fn layout(bytes: usize) -> Option<Layout> {
        Layout::from_size_align(bytes.checked_add(2 * GUARD)?, ALIGNMENT).ok()
    }

    fn new(bytes: usize) -> Option<Self> {
        // SAFETY: the size is not zero.
        let start = unsafe { alloc(Self::layout(bytes)?) };
        if start.is_null() {
            return None;
        }
        let mut block = Block { address: start as u64 + GUARD as u64, bytes, leaving: false };
        block.whole().fill(GUARD_BYTE);
        block.whole()[GUARD..GUARD + bytes].fill(JUNK);
        Some(block)
    }

    /// With its guards.
    fn whole(&mut self) -> &mut [u8] {
        // SAFETY: the block owns this memory and initialised all of it when it was made; work on it happens under the
        // lock of the world, as does this.
        unsafe {
            std::slice::from_raw_parts_mut((self.address - GUARD as u64) as *mut u8, self.bytes + 2 * GUARD)
        }
    }

    fn guards_hold(&mut self) -> bool {
        let bytes = self.bytes;
        let whole = self.whole();
        whole[..GUARD].iter().chain(&whole[GUARD + bytes..]).all(|&byte| byte == GUARD_BYTE)
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let layout = Self::layout(self.bytes).expect("it was one when the block was made");
        // SAFETY: allocated by `new` with this layout.
        unsafe { dealloc((self.address - GUARD as u64) as *mut u8, layout) };
    }
}

/// Blocks by address.
#[derive(Default)]
pub(crate) struct Memory {
    blocks: BTreeMap<u64, Block>,
    used: usize,
    /// Freed blocks, oldest first.
    freed: VecDeque<Block>,
    freed_bytes: usize,
}

impl Memory {
    /// Bytes of all blocks.
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    /// A block full of junk.
    pub(crate) fn alloc(&mut self, bytes: usize) -> Option<u64> {
        let block = Block::new(bytes)?;
        let address = block.address;
        self.used += bytes;
        self.blocks.insert(address, block);
        Some(address)
    }

    /// Frees a block; what was written into freed memory comes to light some time after that.
    ///
    /// # Errors
    /// When there is no such block, or somebody wrote where nobody may.
    pub(crate) fn free(&mut self, address: u64) -> Result<(), String> {
        let mut block =
            self.blocks.remove(&address).ok_or_else(|| format!("no block begins at {address:#x}"))?;
        self.used -= block.bytes;
        let held = block.guards_hold();
        block.whole().fill(JUNK);
        self.freed_bytes += block.bytes;
        self.freed.push_back(block);
        while self.freed_bytes > KEPT || self.freed.len() > KEPT_BLOCKS {
            let mut oldest = self.freed.pop_front().expect("something is kept");
            self.freed_bytes -= oldest.bytes;
            if oldest.whole().iter().any(|&byte| byte != JUNK) {
                return Err(format!("a block at {:#x} was written after it was freed", oldest.address));
            }
        }
        if held { Ok(()) } else { Err(format!("something was written outside the block at {address:#x}")) }
    }

    /// Marks a block that a stream will free.
    ///
    /// # Errors
    /// When there is none, or it is being freed already.
    pub(crate) fn leave(&mut self, address: u64) -> Result<(), String> {
        match self.blocks.get_mut(&address) {
            Some(block) if !block.leaving => {
                block.leaving = true;
                Ok(())
            }
            Some(_) => Err(format!("the block at {address:#x} is freed a second time")),
            None => Err(format!("no block begins at {address:#x}")),
        }
    }

    /// The block that an address lies in, or at the end of, where nothing begins that is not empty.
    fn block_at(&self, address: u64) -> Option<&Block> {
        let block = self.blocks.range(..=address).next_back()?.1;
        (address <= block.address + block.bytes as u64).then_some(block)
    }

    /// Whether `bytes` bytes from an address on lie in one block. `now`: for a new call, to which a block that a stream
    /// will free is gone.
    pub(crate) fn holds(&self, address: u64, bytes: usize, now: bool) -> bool {
        self.block_at(address).is_some_and(|block| {
            let left = block.address + block.bytes as u64 - address;
            bytes as u64 <= left && !(now && block.leaving)
        })
    }

    /// Whether any of these bytes lies in a block, or in one that was freed a short while ago.
    pub(crate) fn touches(&self, address: u64, bytes: usize) -> bool {
        let end = address.saturating_add(bytes.max(1) as u64);
        let meets = |block: &Block| block.address < end && address < block.address + block.bytes as u64;
        self.blocks.range(..end).next_back().is_some_and(|(_, block)| meets(block))
            || self.freed.iter().any(meets)
    }

    /// The first block around which somebody wrote.
    pub(crate) fn trespassed(&mut self) -> Option<String> {
        let block = self.blocks.values_mut().find_map(|block| (!block.guards_hold()).then_some(&*block))?;
        Some(format!(
            "something was written outside the block of {} bytes at {:#x}",
            block.bytes, block.address
        ))
    }

    /// Overwrites a block that is about to be freed while somebody may still want to read it.
    pub(crate) fn spoil(&mut self, address: u64) {
        if let Some(block) = self.blocks.get_mut(&address) {
            let bytes = block.bytes;
            block.whole()[GUARD..GUARD + bytes].fill(JUNK);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_into_freed_memory_is_found_in_the_end() {
        let mut memory = Memory::default();
        let at = memory.alloc(10).expect("room for a test");
        memory.free(at).expect("it is there");
        // SAFETY: the block is kept for a while, and nobody else uses it.
        unsafe { (at as *mut u8).write(0) };
        let mut free_another = || {
            let other = memory.alloc(10).expect("room for a test");
            memory.free(other)
        };
        let message = (0..KEPT_BLOCKS).find_map(|_| free_another().err()).expect("the block is looked at");
        assert!(message.contains("was written after it was freed"), "{message}");
    }

    #[test]
    fn a_range_must_lie_in_one_block() {
        let mut memory = Memory::default();
        let at = memory.alloc(1000).expect("room for a test");
        assert!(memory.holds(at, 1000, true) && memory.holds(at + 999, 1, true));
        assert!(
            !memory.holds(at, 1001, true)
                && !memory.holds(at + 1000, 1, true)
                && !memory.holds(at - 1, 1, true)
        );
        assert!(memory.holds(at + 1000, 0, true) && !memory.holds(at + 1001, 0, true));
        assert!(memory.touches(at - 10, 11) && !memory.touches(at - 10, 10));
        memory.leave(at).expect("it is there");
        assert!(memory.holds(at, 1000, false) && !memory.holds(at, 1000, true));
        assert!(memory.leave(at).is_err());
        memory.free(at).expect("it is there");
        assert!(!memory.holds(at, 1, false) && memory.touches(at, 1) && memory.free(at).is_err());
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn a_write_outside_a_block_is_found() {
        let mut memory = Memory::default();
        let at = memory.alloc(10).expect("room for a test");
        assert_eq!(memory.trespassed(), None);
        // SAFETY: the guard belongs to the block, and nobody else uses it.
        unsafe { ((at + 10) as *mut u8).write(0) };
        let message = memory.trespassed().expect("a byte after the block was written");
        assert!(message.contains("outside the block of 10 bytes"), "{message}");
        assert!(memory.free(at).is_err());
    }

    #[test]
    fn fresh_and_freed_memory_is_junk() {
        let mut memory = Memory::default();
        let at = memory.alloc(4).expect("room for a test");
        // SAFETY: the block has four bytes.
        let read = || unsafe { (at as *const f32).read() };
        assert!(read().is_nan());
        // SAFETY: as above.
        unsafe { (at as *mut f32).write(1.0) };
        memory.free(at).expect("it is there");
        // The block is kept for a while.
        assert!(read().is_nan());
    }
}
