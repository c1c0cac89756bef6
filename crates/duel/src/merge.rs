//! `duel merge`: an adapter and the model that it is for as one model.

use clap::Args;
use duel_backend::Backend;
use duel_cpu::Cpu;
use duel_model::{
    FileDtype, Folder, Model, base_folder, copy_companions, first_not_finite, install, load, model_files,
    remove_templates, save_as, stage, tokenizer_folder,
};
use duel_train::Error;
use duel_train::checkpoint::base_was;
use std::path::{Path, PathBuf};

/// Its arguments.
#[derive(Args)]
pub struct Merge {
    /// Folder of the adapter: adapter_config.json and adapter_model.safetensors, as duel train and PEFT write them; or
    /// its name on the Hub
    #[arg(long)]
    model: PathBuf,
    /// Folder for the merged model, with the names and the precision of the one that the adapter is for
    #[arg(long)]
    output_dir: PathBuf,
}

impl Merge {
    /// Merges.
    ///
    /// # Errors
    /// There is no adapter, it does not fit, or the output folder holds a model or cannot be written.
    pub fn run(self) -> Result<(), Error> {
        let Merge { model, output_dir } = self;
        let model = duel_train::folder(&model)?;
        let Some(base) = base_folder(&model)? else {
            return Err(Error::new(format!(
                "{}: has no adapter without a model beside it, so that there is nothing to merge; give the folder with \
                 adapter_config.json",
                model.display()
            )));
        };
        let old = model_files(&output_dir)?;
        if let Some(name) = old.first() {
            return Err(Error::new(format!(
                "{} holds a model already ({name}); give another --output-dir",
                output_dir.display()
            )));
        }
        let folder = Folder::open(&model)?;
        folder.notes().iter().for_each(|note| duel_train::say!("note: {note}"));
        if let Some(rounding) = base_was(&model) {
            duel_train::say!(
                "note: {} was trained beside {} in {rounding}, and is merged into that model as its files have it, beside \
                 which it says something else",
                model.display(),
                base.display()
            );
        }
        let staged = stage(&output_dir)?;
        match folder.dtype()? {
            dtype @ FileDtype::Float64 => write(&Cpu::<f64>::new(1), &folder, &staged, dtype)?,
            dtype => write(&Cpu::<f32>::new(1), &folder, &staged, dtype)?,
        }
        copy_companions(&base, &staged)?;
        let tokenizer = tokenizer_folder(&model)?;
        if tokenizer != base {
            // Its template may lie in its tokenizer_config.json, which files of the base would win over.
            remove_templates(&staged)?;
            copy_companions(&tokenizer, &staged)?;
        }
        install(&staged, &output_dir)?;
        duel_train::say!(
            "{} and {} are one model in {}",
            base.display(),
            model.display(),
            output_dir.display()
        );
        Ok(())
    }
}

fn write<B: Backend>(b: &B, folder: &Folder, dir: &Path, dtype: FileDtype) -> Result<(), Error> {
    let merged = load(b, folder)?;
    if let Some(name) = first_not_finite(b, &Model::manifest(folder.config()), &merged)? {
        return Err(Error::new(format!(
            "tensor `{name}` of the merged model would not be finite: the adapter's numbers are too large for it"
        )));
    }
    Ok(save_as(b, dir, folder.config(), &merged, dtype)?)
}
