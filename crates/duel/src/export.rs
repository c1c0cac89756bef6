//! `duel export`: a model as a file of another program.

use clap::Args;
use duel_gguf::{Outtype, export};
use duel_model::Folder;
use duel_train::Error;
use std::path::PathBuf;
use std::time::Instant;

/// Its arguments.
#[derive(Args)]
pub struct Export {
    /// Folder of the model, or its name on the Hub; an adapter is merged
    #[arg(long)]
    model: PathBuf,
    /// The GGUF file that is written, for llama.cpp and what is built on it
    #[arg(long, value_name = "FILE")]
    gguf: PathBuf,
    /// Type of the matrices: f16, q8_0 (8.5 bits a weight), bf16 or f32
    #[arg(long, default_value_t)]
    outtype: Outtype,
}

impl Export {
    /// Writes the file.
    ///
    /// # Errors
    /// The model or its tokenizer cannot be read, or llama.cpp has no such one; or the file cannot be written.
    pub fn run(&self) -> Result<(), Error> {
        let begun = Instant::now();
        let path = duel_train::folder(&self.model)?;
        let folder = Folder::open(&path)?;
        folder.notes().iter().for_each(|note| duel_train::say!("note: {note}"));
        let tokenizer = duel_train::tokenizer(&path)?;
        let exported = export(&folder, &tokenizer, &self.gguf, self.outtype);
        let exported = exported.map_err(|e| Error::new(e.to_string()))?;
        exported.notes.iter().for_each(|note| duel_train::say!("note: {note}"));
        duel_train::say!(
            "{}: {} tensors, {:.1} MB in {}, after {:.1} s",
            self.gguf.display(),
            exported.tensors,
            exported.bytes as f64 / 1e6,
            self.outtype,
            begun.elapsed().as_secs_f64()
        );
        Ok(())
    }
}
