//! Memory of large buffers, in huge pages.
//!
//! A processor looks up where a page lies before it reads it, and stops asking for what comes next at a page's end.
//! With pages of 4 KB memory then gives less than half of what it has (on virtual machines above all, where a look-up
//! is two). Linux makes huge pages of 2 MB where a program asks for them.

use std::collections::TryReserveError;

/// An empty vector with room for `len` elements, in huge pages where it is large and the system has them.
///
/// # Errors
/// There is no such room.
pub fn reserved<T>(len: usize) -> Result<Vec<T>, TryReserveError> {
    let mut buf = Vec::new();
    buf.try_reserve_exact(len)?;
    advise(buf.as_ptr(), len, Advice::Huge);
    Ok(buf)
}

/// Makes huge pages of those that a buffer, which was just written, shares with the buffers beside it: a weight of 1 MB
/// has none of its own.
pub fn join<T>(buf: &[T]) {
    advise(buf.as_ptr(), buf.len(), Advice::Join);
}

/// Makes `buf` `len` elements long where it is shorter; what it then holds is undefined.
pub fn grow<T: Copy>(buf: &mut Vec<T>, len: usize, with: T) {
    if buf.capacity() < len {
        // What was there is not copied.
        *buf = reserved(len).unwrap_or_else(|_| panic!("no memory for {len} numbers of scratch"));
    }
    if buf.len() < len {
        buf.resize(len, with);
    }
}

/// As `madvise` of Linux has them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Advice {
    /// Pages that are not there yet are made huge.
    Huge = 14,
    /// Pages that are there become huge ones, at once; since Linux 6.1.
    Join = 25,
}

/// What the system is asked to do with the pages of `len` elements from `at` on, where these are many.
#[cfg(target_os = "linux")]
fn advise<T>(at: *const T, len: usize, advice: Advice) {
    use std::ffi::{c_int, c_void};
    unsafe extern "C" {
        fn madvise(at: *mut c_void, bytes: usize, advice: c_int) -> c_int;
    }
    // From here on the C library maps memory for a buffer alone, mostly beside that of the one before.
    const LARGE: usize = 128 << 10;
    let bytes = len * size_of::<T>();
    if bytes < LARGE {
        return;
    }
    // From a page's beginning: an allocator's own bytes stand before the first element, and a huge page that misses
    // them is none. To a page's end, so that what is beside it is no other kind of memory. (The smallest page: where
    // others are larger the system refuses, and nothing is lost.)
    let unit = match advice {
        Advice::Huge => 4 << 10,
        Advice::Join => 2 << 20,
    };
    let before = at.addr() % unit;
    let all = (before + bytes).next_multiple_of(unit);
    // SAFETY: a hint that changes nothing that is in the pages, whoever they belong to; none that is not there is
    // touched. Whether it is taken (there may be no huge pages, or not enough) is the system's business.
    unsafe { madvise(at.wrapping_byte_sub(before).cast_mut().cast(), all, advice as c_int) };
}

#[cfg(not(target_os = "linux"))]
fn advise<T>(_: *const T, _: usize, _: Advice) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_what_was_asked_for() {
        for len in [0, 1, 1000, 5 << 20] {
            let mut buf = reserved::<u8>(len).unwrap();
            assert!(buf.is_empty() && buf.capacity() >= len);
            grow(&mut buf, len, 1);
            join(&buf);
            assert_eq!((buf.len(), buf.iter().all(|&x| x == 1)), (len, true));
            let at = buf.as_ptr();
            grow(&mut buf, len / 2, 2);
            assert_eq!((buf.len(), buf.as_ptr()), (len, at), "nothing shrinks, nothing moves");
        }
        assert!(reserved::<u64>(usize::MAX / 8).is_err());
    }

    /// That the advice reaches the pages, where the system says so.
    #[cfg(target_os = "linux")]
    #[test]
    fn large_buffers_are_advised() {
        let mut buf = reserved::<u8>(16 << 20).unwrap();
        buf.resize(16 << 20, 1);
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
        let middle = buf.as_ptr().addr() + (8 << 20);
        let mut inside = false;
        for line in maps.lines() {
            let range = line.split_once(' ').and_then(|(range, _)| range.split_once('-'));
            let range = range.map(|(a, b)| (usize::from_str_radix(a, 16), usize::from_str_radix(b, 16)));
            if let Some((Ok(from), Ok(to))) = range {
                inside = (from..to).contains(&middle);
            } else if let Some(flags) = line.strip_prefix("VmFlags:").filter(|_| inside) {
                assert!(flags.split_whitespace().any(|flag| flag == "hg"), "{flags}");
                return;
            }
        }
        eprintln!("SKIPPED: the system does not say how a buffer's pages are advised");
    }
}
