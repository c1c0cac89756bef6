//! What commands that train, or look at what would be trained, are told.

use crate::judges::JudgeSettings;
use clap::Args;
use duel::arguments::RunOptions;
use duel_train::Error;
use duel_train::config::{Config, Options};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::{env, process};

/// The arguments of a run.
#[derive(Args)]
pub struct RunArguments {
    /// TOML file with any of the keys below, or a YAML recipe of TRL, LLaMA-Factory or axolotl; the command line wins
    config: Option<PathBuf>,
    #[command(flatten)]
    options: RunOptions,
    #[command(flatten)]
    judging: JudgeSettings,
}

impl RunArguments {
    /// What the command line says, where it names no file.
    pub fn without_file(&self) -> Option<Options> {
        self.config.is_none().then(|| self.said())
    }

    fn said(&self) -> Options {
        Options { judging: self.judging.0.clone(), ..self.options.0.clone() }
    }

    /// What the run does; says what of a recipe is left out.
    ///
    /// # Errors
    /// The file cannot be read, or something in it or on the command line is wrong.
    pub fn config(&self) -> Result<Config, Error> {
        let file = self.config.as_deref().map(Options::read).transpose()?.unwrap_or_default();
        start_with(&file.recipe.env)?;
        // A mistake that only all of it together makes is the recipe's, as those are that a line makes.
        let recipe = self.config.as_deref().filter(|_| file.recipe.dialect.is_some());
        let named = |e: Error| match recipe {
            Some(path) => Error::new(format!("{}: {e}", path.display())),
            None => e,
        };
        let options = self.said().or(file).settle().map_err(named)?;
        options.recipe.notes().iter().for_each(|note| duel_train::say!("note: left out: {note}"));
        options.resolve().map_err(named)?.pinned()
    }
}

/// Starts this command again where a recipe asks for another environment than there is: what has been read of it, by
/// libraries too, is then as the recipe says.
fn start_with(variables: &BTreeMap<String, String>) -> Result<(), Error> {
    let wrong = |name: &str, e: &dyn Display| Error::new(format!("`env`: {name} cannot be set: {e}"));
    if let Some((name, _)) = variables
        .iter()
        .find(|(name, value)| name.is_empty() || name.contains(['=', '\0']) || value.contains('\0'))
    {
        return Err(wrong(name, &"it is no name of a variable"));
    }
    if variables.iter().all(|(name, value)| env::var_os(name).is_some_and(|there| there == **value)) {
        return Ok(());
    }
    let names = variables.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    let program = env::current_exe().map_err(|e| wrong(&names, &e))?;
    Err(wrong(&names, &process::Command::new(program).args(env::args_os().skip(1)).envs(variables).exec()))
}
