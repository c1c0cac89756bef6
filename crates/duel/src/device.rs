//! Where a command works: the one place where a device is chosen.

use crate::arguments::switch;
use crate::launch::speaks;
use clap::Args;
use duel_backend::Backend;
use duel_cpu::Cpu;
use duel_cuda::Cuda;
use duel_train::Error;
use duel_train::config::{Device, Maybe};
use half::bf16;

/// Where a command that has no other options of a run works.
#[derive(Args)]
pub struct Machine {
    /// Device: cpu, cuda (the first GPU), cuda:N, or auto: a GPU where there is one
    #[arg(long, default_value_t = Device::Auto)]
    pub device: Device,
    /// Compute in bfloat16. none: on a GPU, yes; on the CPU, where it is made for AMX or AVX512-BF16 and slow without,
    /// no
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value = "none", value_parser = switch)]
    pub bf16: Maybe<bool>,
    /// Threads on the CPU; 0: one per core
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=256))]
    pub threads: u16,
}

impl Machine {
    /// Whether anything is said but the defaults.
    pub fn is_said(&self) -> bool {
        (self.device, &self.bf16, self.threads) != (Device::Auto, &Maybe(None), 0)
    }
}

/// Work that any backend can do.
pub trait Job {
    /// What comes of it.
    type Output;
    /// Does it.
    ///
    /// # Errors
    /// What the user must put right.
    fn run<B: Backend>(self, b: &B) -> Result<Self::Output, Error>;
}

/// A device that is there, and what it computes in.
pub enum Chosen {
    /// The processor.
    Cpu {
        /// So many; 0: one a core.
        threads: usize,
        /// Computes in bfloat16.
        bf16: bool,
    },
    /// A GPU.
    Gpu {
        /// As the driver counts.
        number: usize,
        /// Opened.
        gpu: Box<duel_cuda::Device>,
        /// Computes in bfloat16.
        bf16: bool,
    },
}

impl Chosen {
    /// The one place where a device is chosen. `auto` says why it is the CPU where it is.
    ///
    /// # Errors
    /// The device that was asked for cannot be used, or `DUEL_ISA` is wrong.
    pub fn of(device: Device, bf16: Option<bool>, threads: usize) -> Result<Self, Error> {
        let number = match device {
            Device::Cpu => None,
            // The common case: without a driver nothing else is looked for.
            Device::Auto => duel_cuda::has_driver().then_some(0),
            Device::Cuda(number) => Some(number),
        };
        let why = match number.map(|number| (number, duel_cuda::Device::open(number))) {
            Some((number, Ok(gpu))) => {
                if threads > 0 && speaks() {
                    duel_train::say!("threads has no effect: the GPU is used");
                }
                return Ok(Chosen::Gpu { number, gpu: Box::new(gpu), bf16: bf16.unwrap_or(true) });
            }
            Some((_, Err(e))) if device != Device::Auto => {
                return Err(Error::new(format!("device {device}: {e}; give --device cpu to do without")));
            }
            Some((_, Err(e))) => format!("no GPU can be used: {e}"),
            None if device == Device::Auto => "there is no NVIDIA driver".into(),
            None => String::new(),
        };
        if !why.is_empty() && speaks() {
            duel_train::say!("device auto: the CPU, since {why}");
        }
        duel_cpu::instruction_set()?;
        Ok(Chosen::Cpu { threads, bf16: bf16.unwrap_or(false) })
    }

    /// Does the work there.
    ///
    /// # Errors
    /// Those of the work.
    pub fn run<J: Job>(self, job: J) -> Result<J::Output, Error> {
        match self {
            Chosen::Cpu { threads, bf16: true } => job.run(&Cpu::<bf16>::new(threads)),
            Chosen::Cpu { threads, bf16: false } => job.run(&Cpu::<f32>::new(threads)),
            Chosen::Gpu { gpu, bf16: true, .. } => job.run(&Cuda::<_, bf16>::new(*gpu)),
            Chosen::Gpu { gpu, bf16: false, .. } => job.run(&Cuda::<_, f32>::new(*gpu)),
        }
    }
}
