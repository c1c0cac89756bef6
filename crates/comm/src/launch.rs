//! What a launcher has told the processes that it started.

use crate::{Error, Result};

/// One process of many, as its environment says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// Who started it.
    pub by: &'static str,
    /// Its number, counted from 0.
    pub rank: usize,
    /// How many there are.
    pub size: usize,
    /// Its number among those of its machine.
    pub local_rank: usize,
}

/// Who says it, and in which variables: size, rank, number on the machine. The first that is there counts: a `torchrun`
/// on every machine may itself be started by `srun`, and so may `mpirun`.
const LAUNCHERS: [(&str, [&str; 3]); 5] = [
    ("torchrun", ["WORLD_SIZE", "RANK", "LOCAL_RANK"]),
    ("mpirun", ["OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"]),
    ("mpiexec", ["PMI_SIZE", "PMI_RANK", "MPI_LOCALRANKID"]),
    ("srun", ["SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID"]),
    ("srun", ["SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID"]),
];

impl Launch {
    /// What the environment says, which `variable` reads; none where no launcher has said anything. The script that
    /// `sbatch` runs is not one of the tasks that `srun` starts from it.
    ///
    /// # Errors
    /// What it says is no number, not all of it is there, or no rank is so large.
    pub fn of(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let is_step = variable("SLURM_STEP_ID").is_some();
        let said = LAUNCHERS
            .into_iter()
            .find(|(by, [size, ..])| variable(size).is_some() && (*by != "srun" || is_step));
        let Some((by, names)) = said else { return Ok(None) };
        let number = |name: &str| match variable(name) {
            Some(text) => text.trim().parse::<usize>().map_err(|_| {
                Error::new(format!("{name} is {text:?} where a number is expected: {by} has not set it"))
            }),
            None => Err(Error::new(format!(
                "{} is there and {name} is not: start duel with {by}, or without {0}",
                names[0]
            ))),
        };
        let (size, rank) = (number(names[0])?, number(names[1])?);
        // One process on a machine may do without.
        let local_rank = if variable(names[2]).is_some() { number(names[2])? } else { 0 };
        if rank >= size {
            return Err(Error::new(format!(
                "{} is {rank}, of {} {size}: no rank is so large",
                names[1], names[0]
            )));
        }
        Ok(Some(Launch { by, rank, size, local_rank }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(said: &[(&str, &str)]) -> std::result::Result<Option<(&'static str, [usize; 3])>, String> {
        let variable = |name: &str| said.iter().find(|(n, _)| *n == name).map(|(_, value)| value.to_string());
        let launch = Launch::of(variable).map_err(|e| e.to_string())?;
        Ok(launch.map(|l| (l.by, [l.rank, l.size, l.local_rank])))
    }

    #[test]
    fn each_launcher_says_it_in_its_words() {
        assert_eq!(of(&[]), Ok(None));
        let torchrun = [("WORLD_SIZE", "4"), ("RANK", "3"), ("LOCAL_RANK", "1")];
        assert_eq!(of(&torchrun), Ok(Some(("torchrun", [3, 4, 1]))));
        let within_srun = [("SLURM_STEP_ID", "0"), ("SLURM_STEP_NUM_TASKS", "2"), ("SLURM_PROCID", "1")];
        assert_eq!(of(&[&torchrun[..], &within_srun].concat()), Ok(Some(("torchrun", [3, 4, 1]))));
        assert_eq!(of(&within_srun), Ok(Some(("srun", [1, 2, 0]))));
        let mpirun = [("OMPI_COMM_WORLD_SIZE", "2"), ("OMPI_COMM_WORLD_RANK", "0")];
        assert_eq!(of(&mpirun), Ok(Some(("mpirun", [0, 2, 0]))));
        assert_eq!(of(&[("PMI_SIZE", "2"), ("PMI_RANK", "1")]), Ok(Some(("mpiexec", [1, 2, 0]))));
        let batch_script = [("SLURM_NTASKS", "8"), ("SLURM_PROCID", "0")];
        assert_eq!(of(&batch_script), Ok(None));
    }

    #[test]
    fn half_of_it_is_an_error() {
        let says = |said: &[(&str, &str)], text: &str| {
            let error = of(said).unwrap_err();
            assert!(error.contains(text), "{error}");
        };
        says(&[("WORLD_SIZE", "4")], "WORLD_SIZE is there and RANK is not");
        says(&[("WORLD_SIZE", "4"), ("RANK", "4")], "RANK is 4, of WORLD_SIZE 4");
        says(&[("WORLD_SIZE", "four"), ("RANK", "0")], "WORLD_SIZE is \"four\"");
    }
}
