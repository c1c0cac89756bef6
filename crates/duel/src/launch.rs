//! Who started this process, how many of it, and what joins them.

use crate::device::Chosen;
use duel_comm::{Alone, Comm, Launch, Nccl, Result};
use duel_train::Error;
use duel_train::config::Device;
use std::io::{Write, stderr};
use std::time::Duration;

/// One process of several, where a launcher has started several.
///
/// # Errors
/// What the environment says is no launcher's.
pub fn launched() -> std::result::Result<Option<Launch>, Error> {
    let launch = Launch::of(|name| std::env::var(name).ok()).map_err(said)?;
    Ok(launch.filter(|launch| launch.size > 1))
}

fn said(error: duel_comm::Error) -> Error {
    Error::new(error.to_string())
}

/// # Errors
/// A launcher started several processes of a command that is one: each would do all of the work, in the same folder.
pub fn alone() -> std::result::Result<(), Error> {
    match launched()? {
        None => Ok(()),
        Some(Launch { by, size, .. }) => Err(Error::new(format!(
            "{by} started {size} processes of a command that is done by one, in which each would do the same: start it \
             once; `duel train` of a model and a data set shares its work out"
        ))),
    }
}

/// Which process of the launcher's this is; the first, where there is no launcher.
fn rank() -> usize {
    launched().ok().flatten().map_or(0, |launch| launch.rank)
}

/// Whether this process tells people what it does before it has met the others: the first does.
pub fn speaks() -> bool {
    rank() == 0
}

/// Tells people why this process ends before it has met the others. What is wrong with all of them the first one says,
/// and its launcher ends the others meanwhile; what is wrong with another one alone, that one says a little later.
pub fn tell_end(e: &Error) {
    match rank() {
        0 => drop(writeln!(stderr(), "error: {e}")),
        rank => {
            std::thread::sleep(AFTER_THE_FIRST);
            drop(writeln!(stderr(), "error: rank {rank}: {e}"));
        }
    }
}

/// mpirun ends the others in some milliseconds, torchrun within 0.1 s.
const AFTER_THE_FIRST: Duration = Duration::from_secs(1);

/// The GPU of a process: those of its machine take them in turn, from the one that is named on.
pub fn device(named: Device, local_rank: usize) -> Device {
    let first = match named {
        Device::Cpu => return named,
        Device::Auto if !duel_cuda::has_driver() => return named,
        Device::Auto => 0,
        Device::Cuda(number) => number,
    };
    // SLURM may show each process its own alone.
    let shown = duel_cuda::devices().unwrap_or(1).max(1);
    Device::Cuda((first + local_rank) % shown)
}

/// Meets the other processes of the run: over MPI where the processor computes, over NCCL where GPUs do.
///
/// # Errors
/// There is no engine for that, or it cannot be started.
pub fn join(launch: Option<&Launch>, chosen: &Chosen) -> std::result::Result<Box<dyn Comm>, Error> {
    let Some(launch) = launch else { return Ok(Box::new(Alone)) };
    match chosen {
        Chosen::Cpu { .. } => mpi(launch).map_err(said),
        Chosen::Gpu { number, .. } => match Nccl::start(launch, *number) {
            Ok(comm) => Ok(Box::new(comm)),
            Err(e) => Err(said(e)),
        },
    }
}

#[cfg(feature = "mpi")]
fn mpi(launch: &Launch) -> Result<Box<dyn Comm>> {
    let comm = duel_comm::Mpi::start()?;
    if comm.size() == launch.size {
        return Ok(Box::new(comm));
    }
    Err(duel_comm::Error::new(format!(
        "{} started {} processes, and MPI knows of {}: on processors duel runs under mpirun, or under srun with what its \
         MPI asks for (such as --mpi=pmix)",
        launch.by,
        launch.size,
        comm.size()
    )))
}

#[cfg(not(feature = "mpi"))]
fn mpi(launch: &Launch) -> Result<Box<dyn Comm>> {
    Err(duel_comm::Error::new(format!(
        "{} started {} processes, and this duel has no MPI, by which processors share a run out: build it with \
         --features mpi, or start it once",
        launch.by, launch.size
    )))
}

/// Threads for this process, where nobody has said how many: its cores are shared out among the processes that have
/// them too, all of the machine or those that a launcher has bound them to.
///
/// # Errors
/// A process is lost.
pub fn threads(comm: &dyn Comm) -> std::result::Result<usize, Error> {
    if comm.size() == 1 {
        return Ok(0);
    }
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let status = read("/proc/self/status");
    let cores = status.lines().find(|line| line.starts_with("Cpus_allowed_list")).unwrap_or_default();
    let mine = read("/proc/sys/kernel/hostname") + cores;
    let all = comm.gather(mine.as_bytes()).map_err(said)?;
    let together = all.iter().filter(|other| **other == mine.as_bytes()).count();
    Ok((std::thread::available_parallelism().map_or(1, usize::from) / together).max(1))
}
