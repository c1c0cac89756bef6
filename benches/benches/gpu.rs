//! The kernels on the first GPU, in bf16, timed by the device; see [`duel_benches::gpu`]. Where there is no GPU it says
//! why, and fails; as a test, which is how cargo calls it without `--bench`, it is skipped.
#![allow(missing_docs)] // criterion's macros make public items

use criterion::{BenchmarkId, Criterion, SamplingMode};
use duel_backend::{Backend, Result, Storage};
use duel_benches::gpu::{Case, Gpu, Group, cases};
use duel_benches::prepare::{Run, prepare};
use duel_cuda::{Device, Settings};
use std::process::ExitCode;
use std::time::Duration;

#[path = "common/throughput.rs"]
mod throughput;

fn open(cublaslt: bool) -> Result<Gpu> {
    Ok(Gpu::new(Device::open_with(0, Settings { cublaslt, ..Settings::default() })?))
}

/// A case on its sets of buffers, which are taken in turn.
struct Prepared<'b> {
    gpu: &'b Gpu,
    sets: Vec<Run<'b>>,
    next: usize,
}

impl<'b> Prepared<'b> {
    /// Allocates everything and makes every call once: kernels are compiled then, and scratch memory is there.
    fn new(gpu: &'b Gpu, case: &Case) -> Result<Self> {
        let mut sets =
            (0..case.sets()).map(|set| prepare(gpu, case.verb, set as u64)).collect::<Result<Vec<_>>>()?;
        sets.iter_mut().for_each(|run| run());
        gpu.finish()?;
        Ok(Prepared { gpu, sets, next: 0 })
    }

    fn run(&mut self, iterations: u64) -> Result<Duration> {
        let seconds = self.gpu.driver().seconds(|| {
            for _ in 0..iterations {
                self.sets[self.next]();
                self.next = (self.next + 1) % self.sets.len();
            }
        })?;
        Ok(Duration::from_secs_f64(seconds))
    }
}

fn kernels(c: &mut Criterion, library: &Gpu, own: &Gpu) {
    let mut cases = cases();
    if let Err(why) = library.driver().cublaslt() {
        // Under its name would stand what duel's own kernels do.
        eprintln!("products and head are measured with duel's own kernels alone: {why}");
        cases.retain(|case| case.own || !matches!(case.group, Group::Products | Group::Head));
    }
    for case in cases {
        let gpu = if case.own { own } else { library };
        let mut group = c.benchmark_group(case.group.name());
        group.sample_size(20).sampling_mode(SamplingMode::Flat).nresamples(2000);
        group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(400));
        group.throughput(throughput::of(case.work()));
        let mut prepared = None;
        group.bench_function(BenchmarkId::new(case.kernel(), case.shape()), |b| {
            let prepared = prepared.get_or_insert_with(|| {
                Prepared::new(gpu, &case)
                    .unwrap_or_else(|e| panic!("{} {}: {e}", case.kernel(), case.shape()))
            });
            b.iter_custom(|iterations| {
                let done = prepared.run(iterations);
                done.unwrap_or_else(|e| panic!("{} {}: {e}", case.kernel(), case.shape()))
            });
        });
        group.finish();
    }
}

fn main() -> ExitCode {
    let benchmark = std::env::args().any(|argument| argument == "--bench");
    let opened = open(true).and_then(|library| Ok((library, open(false)?)));
    let (library, own) = match opened {
        Ok(both) => both,
        Err(error) if benchmark => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
        Err(error) => {
            eprintln!("SKIPPED gpu: {error}");
            return ExitCode::SUCCESS;
        }
    };
    println!("{}", library.describe());
    let mut criterion = Criterion::default().without_plots().configure_from_args();
    kernels(&mut criterion, &library, &own);
    criterion.final_summary();
    ExitCode::SUCCESS
}
