//! The ceilings that everything else is held against: multiply-adds in registers and copied bytes.
#![allow(missing_docs)] // criterion's macros make public items

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use duel_benches::ceiling::{Chains, Line, Store, cache_bytes, copy, together};
use duel_benches::cores;
use std::time::Duration;

/// Steps of an iteration: some tens of microseconds.
const STEPS: u64 = 1 << 14;

/// Bytes of each buffer of the copy that stays in the cache: 1024 rows of SmolLM2-135M, as a norm of the step reads and
/// writes them.
const CACHED_COPY: usize = 1024 * 576 * size_of::<f32>();

/// Bytes of each buffer of the copy that does not: eight times the last-level cache, and never less than 256 MiB.
fn memory_copy() -> usize {
    (8 * cache_bytes().unwrap_or(0)).max(256 << 20)
}

fn ceiling(c: &mut Criterion) {
    let mut group = c.benchmark_group("ceiling");
    group
        .sample_size(20)
        .sampling_mode(SamplingMode::Flat)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    let chains = Chains::of(duel_cpu::instruction_set().expect("DUEL_ISA names what this machine has"));
    let mut counts = vec![1, cores()];
    counts.dedup();
    for threads in counts {
        group.throughput(Throughput::Elements(threads as u64 * STEPS * chains.flops));
        group.bench_function(BenchmarkId::new("fma", threads), |b| {
            b.iter_custom(|times| together(0..threads, |_| chains.run(times * STEPS)));
        });
    }
    for (name, bytes, store) in
        [("copy", memory_copy(), Store::Streaming), ("copy in cache", CACHED_COPY, Store::Cached)]
    {
        let lines = bytes / size_of::<Line>();
        group.throughput(Throughput::BytesDecimal(2 * bytes as u64));
        let mut buffers = None;
        group.bench_function(BenchmarkId::new(name, cores()), |b| {
            let (dst, src) = buffers.get_or_insert_with(|| (Line::values(lines, 1), Line::values(lines, 2)));
            b.iter_custom(|times| copy(dst, src, store, cores(), times));
        });
    }
    group.finish();
}

criterion_group!(name = benches; config = Criterion::default().without_plots(); targets = ceiling);
criterion_main!(benches);
