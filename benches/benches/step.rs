//! Whole optimizer steps, of the whole models and along the growth series. Elements are the floating-point operations
//! of [`Case::flops`].
#![allow(missing_docs)] // criterion's macros make public items

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use duel_backend::{Storage, Update};
use duel_benches::step::{Case, cases};
use duel_benches::{cores, indices, values};
use duel_cpu::Cpu;
use duel_data::{Builder, Dataset, Options, Task, Truncation, Whole};
use duel_model::{Keep, Model};
use duel_optim::{Algorithm, Optimizer, clip_scale};
use duel_train::engine::{Engine, Room};
use std::time::Duration;

/// Derivative of the loss by a response's log-probability. A loss computes it in a handful of operations a pair; a
/// constant stands for it, so that a shared prompt and a prompt a response do the same.
const COEFFICIENT: f64 = 0.01;

fn dataset(case: &Case) -> Dataset {
    let tokens = |n, seed| indices(n, case.config.vocab, seed);
    let prompt = tokens(case.pair.prompt, 1);
    let (chosen, rejected) = (tokens(case.pair.chosen, 2), tokens(case.pair.rejected, 3));
    let task = if case.shared { Task::Preference } else { Task::Sft };
    let mut builder = Builder::new(&Options {
        task,
        whole: Whole::default(),
        max_length: None,
        truncation: Truncation::KeepStart,
    });
    if case.shared {
        builder.push(1, &prompt, &[&chosen, &rejected]).unwrap();
    } else {
        builder.push(1, &prompt, &[&chosen]).unwrap();
        builder.push(1, &prompt, &[&rejected]).unwrap();
    }
    builder.finish().unwrap()
}

/// Everything that a step of `case` works on, made once; calling the result makes a step.
fn prepare<'b>(cpu: &'b Cpu, case: &Case) -> Box<dyn FnMut() + 'b> {
    let manifest = Model::manifest(&case.config);
    let mut noise = values(1 << 20, 4).into_iter().cycle();
    let normal = || noise.next().map_or(0.0, f64::from);
    let mut weights = manifest.init(cpu, &case.config, normal).unwrap();
    let mut grads = manifest.alloc::<Cpu, f32>(cpu).unwrap();
    let adamw = Algorithm::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 };
    let parameters = manifest.iter().into_iter().map(|shape| (shape.len(), shape.decays()));
    let mut optimizer = Optimizer::new(cpu, adamw, parameters).unwrap();
    let data = dataset(case);
    let all: Vec<u32> = (0..data.len() as u32).collect();
    let room = Room::plan(cpu, &data, data.len(), 0, case.config.vocab);
    let mut engine = Engine::new(cpu, &case.config, room, Keep::All).unwrap();
    Box::new(move || {
        grads.iter_mut().into_iter().for_each(|g| cpu.zero(g));
        engine.accumulate(&weights, &mut grads, &data, &all, |_, _, coefs| coefs.fill(COEFFICIENT)).unwrap();
        let norm = cpu.square_sums(&grads.iter()).unwrap().iter().sum::<f64>().sqrt();
        optimizer.step(cpu, weights.iter_mut(), grads.iter(), 1e-7, clip_scale(norm, 1.0));
    })
}

fn steps(c: &mut Criterion) {
    for case in cases(cores()) {
        let mut group = c.benchmark_group(case.series.name());
        // The least that criterion takes: a step is long, and one iteration warms it up.
        group.sample_size(10).sampling_mode(SamplingMode::Flat).nresamples(2000);
        group.warm_up_time(Duration::from_millis(1)).measurement_time(Duration::from_secs(1));
        group.throughput(Throughput::Elements(case.flops() as u64));
        let cpu = Cpu::new(case.threads);
        let mut step = None;
        group.bench_function(BenchmarkId::new(case.variant(), case.pair), |b| {
            b.iter(step.get_or_insert_with(|| prepare(&cpu, &case)));
        });
        group.finish();
    }
}

criterion_group!(name = benches; config = Criterion::default().without_plots(); targets = steps);
criterion_main!(benches);
