//! Dynamic shared memory, in bytes, of kernels whose need depends on a launch. Of the others it is in the geometry of
//! params.h.

use crate::sys::*;

/// Shared memory of `attention_cached` for heads of this width: what each team knows.
pub const fn cached_bytes(head_dim: u32) -> u32 {
    ATTENTION_CACHED_TEAMS * (2 + head_dim) * 4
}

/// Shared memory of `column_sums` for 16 bytes of so many elements a thread.
pub const fn column_sums_bytes(lanes: u32) -> u32 {
    ROW_THREADS * lanes * 4
}

/// Shared memory of a norm's backward that sums over rows for so many arrays of weights; a thread has so many packs of
/// `lanes` elements of a row.
pub const fn norm_bytes(arrays: u32, packs: u32, lanes: u32) -> u32 {
    ROW_SUM_BYTES + norm_sums_bytes(arrays, packs, lanes)
}

/// The running sums in it, which are in global memory where they do not fit.
pub const fn norm_sums_bytes(arrays: u32, packs: u32, lanes: u32) -> u32 {
    arrays * packs * lanes * (ROW_THREADS + NORM_PADDING / lanes) * 4
}

/// Shared memory of `logprob` for a block of so many threads.
pub const fn logprob_bytes(threads: u32) -> u32 {
    threads / 32 * LOGPROB_WARP_BYTES
}
