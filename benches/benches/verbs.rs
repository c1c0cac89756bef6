//! Every verb of the CPU backend at the models' shapes. Elements are floating-point operations; see
//! [`duel_benches::verb`] for what is counted.
#![allow(missing_docs)] // criterion's macros make public items

use criterion::{BenchmarkId, Criterion, SamplingMode, criterion_group, criterion_main};
use duel_benches::prepare::prepare;
use duel_benches::verb::{Precision, calls};
use duel_cpu::Cpu;
use std::time::Duration;

#[path = "common/throughput.rs"]
mod throughput;

fn verbs(c: &mut Criterion) {
    let cpu: Cpu = Cpu::new(0);
    for call in calls() {
        let mut group = c.benchmark_group(call.model);
        group.sample_size(10).sampling_mode(SamplingMode::Flat).nresamples(2000);
        group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(700));
        group.throughput(throughput::of(call.verb.work(Precision::of::<Cpu>())));
        let mut run = None;
        group.bench_function(BenchmarkId::new(call.verb.name(), call.shape()), |b| {
            b.iter(run.get_or_insert_with(|| {
                let mut run = prepare(&cpu, call.verb, 0).expect("room for the verb");
                // The system gives a buffer its memory at the first touch, which is not the verb's work.
                run();
                run
            }));
        });
        group.finish();
    }
}

criterion_group!(name = benches; config = Criterion::default().without_plots(); targets = verbs);
criterion_main!(benches);
