//! Who writes the samples: a model, or the policies of a mixture.

use duel_data::Tokenizer;
use duel_experiments::tournament::mixture::Mixture;
use duel_model::Folder;
use duel_model::decode::Sampling;
use duel_random::at;
use duel_train::Error;
use duel_train::reference::ModelId;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// One of them.
pub struct Writer {
    path: PathBuf,
    /// Its model.
    pub folder: Folder,
    /// Its tokens.
    pub tokenizer: Tokenizer,
}

/// All of them.
pub struct Writers {
    mixture: Option<Mixture>,
    /// In the order of the mixture.
    pub all: Vec<Writer>,
}

impl Writer {
    fn open(said: &Path) -> Result<Self, Error> {
        let path = &duel_train::folder(said)?;
        let folder = Folder::open(path)?.language_model()?;
        folder.notes().iter().for_each(|note| duel_train::say!("note: {note}"));
        Ok(Writer { path: path.to_owned(), folder, tokenizer: duel_train::tokenizer(path)? })
    }
}

impl Writers {
    /// The model in a folder.
    ///
    /// # Errors
    /// There is none that writes.
    pub fn model(path: &Path) -> Result<Self, Error> {
        Ok(Writers { mixture: None, all: vec![Writer::open(path)?] })
    }

    /// The policies of the file of a mixture.
    ///
    /// # Errors
    /// The file is none, or a folder that it names has no model that writes.
    pub fn mixture(path: &Path) -> Result<Self, Error> {
        let mixture = Mixture::read(path)?;
        let all = mixture.parts().iter().map(|part| Writer::open(&part.folder)).collect::<Result<_, _>>()?;
        Ok(Writers { mixture: Some(mixture), all })
    }

    /// What the samples depend on.
    pub fn identity(&self) -> Result<Value, Error> {
        let digest = |writer: &Writer| Ok::<_, Error>(ModelId::of(&writer.path)?.digest());
        let Some(mixture) = &self.mixture else { return Ok(json!(digest(&self.all[0])?)) };
        let parts = mixture.parts().iter().zip(&self.all);
        parts.map(|(part, writer)| Ok(json!([part.name, part.weight, digest(writer)?]))).collect()
    }

    /// The name of a policy of a mixture.
    pub fn name(&self, writer: usize) -> Option<&str> {
        self.mixture.as_ref().map(|mixture| &*mixture.parts()[writer].name)
    }

    /// Which of them writes a sample of a prompt.
    pub fn of(&self, seed: u64, prompt: u64, sample: usize) -> usize {
        self.mixture.as_ref().map_or(0, |mixture| mixture.pick(seed, prompt, sample as u64))
    }

    /// How one of them draws: policies of a mixture with numbers of their own each, so that their samples of a prompt
    /// are independent.
    pub fn sampling(&self, writer: usize, how: Sampling) -> Sampling {
        match self.mixture {
            Some(_) => Sampling { seed: at(&[how.seed, writer as u64]), ..how },
            None => how,
        }
    }
}
