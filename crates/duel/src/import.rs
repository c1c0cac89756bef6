//! `duel import`: a recipe of another trainer as a configuration of duel.

use clap::Args;
use duel_train::Error;
use duel_train::config::import;
use std::path::PathBuf;

/// Its arguments.
#[derive(Args)]
pub struct Import {
    /// YAML file of TRL, alignment-handbook, LLaMA-Factory or axolotl
    recipe: PathBuf,
}

impl Import {
    /// Prints the configuration as TOML, and as comments what is not taken over.
    ///
    /// # Errors
    /// The file cannot be read or is no recipe.
    pub fn run(&self) -> Result<(), Error> {
        let named = |e: &dyn std::fmt::Display| Error::new(format!("{}: {e}", self.recipe.display()));
        let text = std::fs::read_to_string(&self.recipe).map_err(|e| named(&e))?;
        print!("{}", import(&text).map_err(|e| named(&e))?);
        Ok(())
    }
}
