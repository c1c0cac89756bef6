//! What the machine can do at most: arithmetic in registers, and copies between buffers.

use crate::values;
use duel_cpu::Isa;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Sixteen numbers that share a cache line, and nothing else is in it.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub struct Line([f32; 16]);

impl Line {
    /// `count` lines of reproducible numbers, in pages as large as those of the backend's buffers.
    ///
    /// # Panics
    /// When there is no memory for them.
    pub fn values(count: usize, seed: u64) -> Vec<Line> {
        let mut lines = duel_cpu::reserved(count).expect("memory for a buffer");
        lines.extend(values(16 * count, seed).as_chunks().0.iter().map(|numbers| Line(*numbers)));
        lines
    }
}

/// Independent multiply-add chains in registers, in single precision.
#[derive(Clone, Copy, Debug)]
pub struct Chains {
    run: fn(u64),
    /// Floating-point operations of one step: two for each lane of each chain.
    pub flops: u64,
}

impl Chains {
    /// With the vectors of `isa`. The baseline has a multiplication and an addition for each.
    ///
    /// # Panics
    /// When this machine does not have it.
    pub fn of(isa: Isa) -> Self {
        assert!(Isa::available().contains(&isa), "this machine has no {isa}");
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Amx => Chains {
                // SAFETY: the CPU has AVX-512 F (asserted).
                run: |steps| unsafe { x86::avx512(steps) },
                flops: x86::AVX512_FLOPS,
            },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the CPU has AVX2 and FMA (asserted).
            Isa::Avx2 => Chains { run: |steps| unsafe { x86::avx2(steps) }, flops: x86::AVX2_FLOPS },
            _ => Chains { run: baseline, flops: BASELINE_FLOPS },
        }
    }

    /// Makes `steps` steps on the calling thread.
    pub fn run(self, steps: u64) {
        (self.run)(steps);
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{_mm256_fmadd_ps, _mm256_set1_ps, _mm512_fmadd_ps, _mm512_set1_ps};
    use std::hint::black_box;

    /// Defines a function of `$count` chains. Each waits four or five cycles for its own last result, and the CPU
    /// starts two a cycle, so ten chains keep it busy; the registers hold no more than `$count` and the operands.
    macro_rules! chains {
        ($name:ident, $flops:ident, $feature:literal, $count:literal chains of $lanes:literal, $set:ident, $fma:ident) => {
            pub const $flops: u64 = 2 * $count * $lanes;

            #[target_feature(enable = $feature)]
            pub fn $name(steps: u64) {
                let mut sums = [$set(1.0); $count];
                let (factor, term) = (black_box($set(0.999)), black_box($set(0.001)));
                for _ in 0..steps {
                    for sum in &mut sums {
                        *sum = $fma(*sum, factor, term);
                    }
                }
                black_box(sums);
            }
        };
    }

    chains!(avx512, AVX512_FLOPS, "avx512f", 16 chains of 16, _mm512_set1_ps, _mm512_fmadd_ps);
    chains!(avx2, AVX2_FLOPS, "avx2,fma", 12 chains of 8, _mm256_set1_ps, _mm256_fmadd_ps);
}

const BASELINE_LANES: usize = 40;
const BASELINE_FLOPS: u64 = 2 * BASELINE_LANES as u64;

fn baseline(steps: u64) {
    let mut sums = [1.0f32; BASELINE_LANES];
    let (factor, term) = (black_box(0.999f32), black_box(0.001f32));
    for _ in 0..steps {
        for sum in &mut sums {
            *sum = *sum * factor + term;
        }
    }
    black_box(sums);
}

/// Runs `work` on each of `items` at once, a thread for each, and returns the time until the last has ended.
pub fn together<T: Send>(items: impl IntoIterator<Item = T>, work: impl Fn(T) + Sync) -> Duration {
    let start = Instant::now();
    std::thread::scope(|scope| {
        for item in items {
            let work = &work;
            scope.spawn(move || work(item));
        }
    });
    start.elapsed()
}

/// How a copy stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// Through the caches: the lines of the destination are read before they are written.
    Cached,
    /// Past the caches, where the architecture can: two thirds of the traffic, so the most that memory gives.
    Streaming,
}

/// Copies `src` to `dst` `times` times on `threads` threads, each a part of its own, and returns the time.
///
/// # Panics
/// When the lengths differ.
pub fn copy(dst: &mut [Line], src: &[Line], store: Store, threads: usize, times: u64) -> Duration {
    assert_eq!(dst.len(), src.len(), "a copy has the length of what it copies");
    let share = src.len().div_ceil(threads).max(1);
    together(dst.chunks_mut(share).zip(src.chunks(share)), |(dst, src)| {
        for _ in 0..times {
            match store {
                Store::Cached => dst.copy_from_slice(black_box(src)),
                Store::Streaming => stream(dst, black_box(src)),
            }
            black_box(&mut *dst);
        }
    })
}

#[cfg(target_arch = "x86_64")]
fn stream(dst: &mut [Line], src: &[Line]) {
    use std::arch::x86_64::{_mm_loadu_ps, _mm_sfence, _mm_stream_ps};
    for (dst, src) in dst.iter_mut().zip(src) {
        for (dst, src) in dst.0.as_chunks_mut::<4>().0.iter_mut().zip(src.0.as_chunks::<4>().0) {
            // SAFETY: both are four numbers; those of the line begin at multiples of 16 bytes, as the line does at one
            // of 64; and nothing reads them before the fence below.
            unsafe { _mm_stream_ps(dst.as_mut_ptr(), _mm_loadu_ps(src.as_ptr())) };
        }
    }
    // SAFETY: every x86-64 CPU has the instruction.
    unsafe { _mm_sfence() };
}

#[cfg(not(target_arch = "x86_64"))]
fn stream(dst: &mut [Line], src: &[Line]) {
    dst.copy_from_slice(src);
}

/// Bytes of the last-level cache that the first core sees, where the system says so.
pub fn cache_bytes() -> Option<usize> {
    let size = |index: usize| {
        let path = format!("/sys/devices/system/cpu/cpu0/cache/index{index}/size");
        let text = std::fs::read_to_string(path).ok()?;
        let kib: usize = text.trim().strip_suffix('K')?.parse().ok()?;
        Some(kib * 1024)
    };
    (0..8).filter_map(size).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Over several threads, the last part shorter than the others, every number arrives.
    #[test]
    fn copies_are_whole() {
        let src = Line::values(101, 1);
        for store in [Store::Cached, Store::Streaming] {
            let mut dst = Line::values(101, 2);
            copy(&mut dst, &src, store, 3, 2);
            assert!(dst.iter().zip(&src).all(|(dst, src)| dst.0 == src.0), "{store:?}");
        }
    }
}
