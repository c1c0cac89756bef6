//! Writing past the caches, for buffers that no cache holds: a line that is written whole is not read first.

use duel_backend::Element;

/// Bytes from which on a buffer is not expected in any cache when it is read next.
pub const LARGE: usize = 16 << 20;

/// `dst = src`.
///
/// # Panics
/// When the lengths differ.
pub fn copy<T: Element>(dst: &mut [T], src: &[T]) {
    assert_eq!(dst.len(), src.len(), "a copy has the length of what it copies");
    // SAFETY: as many bytes of plain data at both, and a unique borrow does not overlap another.
    unsafe { write(dst, Some(src.as_ptr().cast())) };
}

/// Every byte of `dst` 0, which is the number 0.
pub fn zero<T: Element>(dst: &mut [T]) {
    // SAFETY: nothing is read.
    unsafe { write(dst, None) };
}

/// `dst` becomes the bytes at `src`, or zeros.
///
/// # Safety
/// `src` has `size_of_val(dst)` bytes, which do not overlap `dst`; zeros are a `T`.
unsafe fn write<T: Element>(dst: &mut [T], src: Option<*const u8>) {
    let (to, bytes) = (dst.as_mut_ptr().cast::<u8>(), size_of_val(dst));
    // SAFETY: within `bytes` of both (below); by the contract they do not overlap.
    let plain = |from: usize, to_end: usize| unsafe {
        match src {
            Some(src) => src.add(from).copy_to_nonoverlapping(to.add(from), to_end - from),
            None => to.add(from).write_bytes(0, to_end - from),
        }
    };
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_mm_loadu_si128, _mm_setzero_si128, _mm_sfence, _mm_stream_si128};
        const LINE: usize = 64;
        let start = to.align_offset(LINE).min(bytes);
        let end = start + (bytes - start) / LINE * LINE;
        plain(0, start);
        for at in (start..end).step_by(16) {
            // SAFETY: 16 bytes inside both; those of `dst` begin at a multiple of 16; every x86-64 CPU has SSE2.
            unsafe {
                let value = src.map_or(_mm_setzero_si128(), |src| _mm_loadu_si128(src.add(at).cast()));
                _mm_stream_si128(to.add(at).cast(), value);
            }
        }
        plain(end, bytes);
        // What follows, on any thread, finds these stores done.
        // SAFETY: every x86-64 CPU has the instruction.
        unsafe { _mm_sfence() };
    }
    #[cfg(not(target_arch = "x86_64"))]
    plain(0, bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;

    /// Whatever the alignment and the length; nothing beside it is touched.
    #[test]
    fn every_number_arrives() {
        let (zeros, ones) = (bf16::ZERO, bf16::ONE);
        let src: Vec<bf16> = (0..400).map(|i| bf16::from_bits(i + 1)).collect();
        for start in 0..70 {
            for len in [0, 1, 15, 63, 64, 65, 200, 300] {
                let (mut copied, mut zeroed) = (vec![ones; 400], vec![ones; 400]);
                copy(&mut copied[start..][..len], &src[..len]);
                zero(&mut zeroed[start..][..len]);
                for i in 0..400 {
                    let inside = (start..start + len).contains(&i);
                    assert_eq!(copied[i], if inside { src[i - start] } else { ones }, "{start}+{len} at {i}");
                    assert_eq!(zeroed[i], if inside { zeros } else { ones }, "{start}+{len} at {i}");
                }
            }
        }
    }
}
