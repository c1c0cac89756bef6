//! A Hugging Face folder: its config, and where each of the model's tensors lies.

use crate::advice;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::families::inside::text_name;
use crate::family::Output;
use crate::file_dtype::FileDtype;
use crate::json;
use crate::leftover;
use crate::lora::{Lora, LoraSettings, in_file};
use crate::missing::missing;
use crate::peft::{self, Peft};
use crate::quantised;
use crate::score::{self, SCORE};
use crate::shards::{FLOATS, Shards, Tensor};
use crate::weights::{Model, Shape};
use serde_json::{Map, Value};
use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// A model folder whose config and weights fit together; the weights are mapped, not read yet.
pub struct Folder {
    path: PathBuf,
    config: Config,
    notes: Vec<String>,
    shards: Shards,
    /// Name in the files of every tensor of the manifest.
    names: HashMap<String, String>,
    /// Seed of a scalar head that the files do not have.
    fresh: Option<u64>,
    adapter: Option<Attached>,
    /// It is the text model inside another.
    inside: bool,
}

/// An adapter from another folder than that of the model.
struct Attached {
    /// The model with it.
    config: Config,
    shards: Shards,
}

impl Folder {
    /// Opens a folder as transformers and PEFT do: that of a model, or that of an adapter with the folder of the model
    /// that it is for. [`Folder::config`] and what loads weights take the two as one model, merged, unless they are
    /// asked for the adapter beside it ([`Folder::adapted`]).
    ///
    /// # Errors
    /// A file that is missing, truncated or lies about its content; a config that is not known; a tensor that is
    /// missing, or of another shape or type than `config.json` asks for; tensors without a place that would change
    /// what the model computes; an adapter that says or holds what is not known, or is for another model. Each names
    /// the file and the key or tensor.
    pub fn open(path: &Path) -> Result<Self> {
        match Peft::read(path)? {
            Some(peft) => Self::open_adapter(path, peft),
            None => Self::open_model(path),
        }
    }

    fn open_adapter(path: &Path, peft: Peft) -> Result<Self> {
        let said = path.join(peft::CONFIG);
        if Peft::read(&peft.base)?.is_some() {
            let what = format!("adapts {}, which is an adapter too; merge that first", peft.base.display());
            return Err(Error::file(&said, what));
        }
        let folder = Self::open_model(&peft.base)?;
        let folder = if peft.score { folder.with_score(0) } else { folder };
        let lora = Lora::of(peft.settings, &folder.config, folder.inside, false);
        let mut lora = lora.map_err(|what| Error::file(&said, what))?;
        lora.json = peft.json;
        let config = Config { lora: Some(lora), ..folder.config.clone() };
        let weights = path.join(peft::WEIGHTS);
        if !weights.exists() {
            return Err(Error::file(&weights, "is missing; copy the adapter's whole folder, as safetensors"));
        }
        let shards = Shards::of_file(weights)?;
        let mut left: HashSet<&str> = shards.names().collect();
        for shape in Model::manifest(&config).iter().into_iter().filter(|shape| config.trains(shape)) {
            for piece in &shape.pieces {
                let name = in_file(&config, &piece.name);
                let tensor = shards.get(&name).ok_or_else(|| {
                    Error::file(
                        &shards.listing,
                        format!("lacks tensor `{name}`, which {} asks for", peft::CONFIG),
                    )
                })?;
                check(&tensor, &name, shape, piece.rows)?;
                left.remove(&*name);
            }
        }
        if let Some(name) = left.into_iter().min() {
            let what = format!("tensor `{name}` has no place by {} in {}", peft::CONFIG, peft.base.display());
            return Err(Error::file(&shards.listing, what));
        }
        Ok(Folder { adapter: Some(Attached { config, shards }), ..folder })
    }

    /// Opens the folder of a model: `model.safetensors` or the files of its index, tensors with or without the
    /// model's own name before theirs, a head that is the embedding under either name.
    ///
    /// # Errors
    /// A file that is missing, truncated or lies about its content; a config that is not known; a tensor that is
    /// missing, or of another shape or type than `config.json` asks for; tensors without a place that would change
    /// what the model computes. Each names the file and the key or tensor.
    fn open_model(path: &Path) -> Result<Self> {
        let (mut config, inside) = read_config(path)?;
        quantised::refuse_folder(path)?;
        let mut shards = Shards::open(path)?;
        quantised::refuse_weights(&shards)?;
        let mut notes = Vec::new();
        if let Some(whole) = &inside {
            shards.rename(text_name);
            notes.push(format!(
                "{}: the text model of a {whole} is read, without what sees pictures; what is saved is the text model \
                 alone",
                path.display()
            ));
        }
        let head = config.names.head();
        let embed = Model::manifest(&config).embed.pieces[0].name.clone();
        if config.output == Output::Logits && config.tied && is_untied(&shards, &config, &embed) {
            config.tied = false;
            notes.push(format!(
                "{}: config.json ties the head to the embedding, but `{head}` is another matrix; they stay two, and \
                 what is saved says so",
                shards.listing.display()
            ));
        }
        let mut names = HashMap::new();
        for shape in Model::manifest(&config).iter() {
            for piece in &shape.pieces {
                // A writer that keeps one of two names of one matrix may have kept the head's.
                let other = || shards.get(&head).filter(|_| config.tied && piece.name == embed);
                let (stored, tensor) = find(&shards, &config, &piece.name)
                    .or_else(|| other().map(|tensor| (head.as_str(), tensor)))
                    .ok_or_else(|| missing(&shards, &config, &piece.name))?;
                check(&tensor, stored, shape, piece.rows)?;
                names.insert(piece.name.clone(), stored.to_string());
            }
        }
        let adapter = path.join("adapter_config.json");
        if adapter.exists() {
            notes
                .push(format!("{}: the adapter is left out, the model beside it is read", adapter.display()));
        }
        notes.extend(leftover::note(&shards, &config, &names)?);
        Ok(Folder {
            path: path.to_path_buf(),
            config,
            notes,
            shards,
            names,
            fresh: None,
            adapter: None,
            inside: inside.is_some(),
        })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What `config.json` and the weights together say of the model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The model with the adapter of its folder beside it; `None`: it has none.
    pub fn adapted(&self) -> Option<&Config> {
        self.adapter.as_ref().map(|adapter| &adapter.config)
    }

    /// The model with new adapters.
    ///
    /// # Errors
    /// What is said of them does not fit the model; or it has adapters already.
    pub fn with_lora(&self, settings: LoraSettings) -> Result<Config> {
        if self.adapter.is_some() {
            return Err(Error::file(
                &self.path,
                "has an adapter, which is trained on as it is; leave out what lora_r and the like say, or merge it first \
                 (duel merge)",
            ));
        }
        let lora = Lora::of(settings, &self.config, self.inside, true);
        let lora = lora.map_err(|what| Error::file(&self.path, what))?;
        Ok(Config { lora: Some(lora), ..self.config.clone() })
    }

    /// The type of the numbers in the model's files, by its embedding.
    ///
    /// # Errors
    /// It is one that weights are never held in.
    pub fn dtype(&self) -> Result<FileDtype> {
        let embed = Model::manifest(&self.config).embed;
        let name = &embed.pieces[0].name;
        let dtype = self.tensor(name)?.dtype;
        FileDtype::from_file(dtype)
            .ok_or_else(|| Error::file(&self.path, format!("{name} is {dtype:?}, which holds no weights")))
    }

    /// What the user should hear about the folder, a line each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The folder as that of a language model: to write texts with, or to learn them.
    ///
    /// # Errors
    /// The model has a scalar head in the place of that for words.
    pub fn language_model(self) -> Result<Self> {
        match (self.config.output, score::class(&self.config.json)) {
            (Output::Score, class) => Err(Error::file(
                &self.path.join("config.json"),
                format!(
                    "the model is a {}, which scores texts and has no head for words; train it with --method reward, or \
                     take the language model that it was made from",
                    class.unwrap_or("reward model")
                ),
            )),
            (Output::Logits, _) => Ok(self),
        }
    }

    /// The folder as that of a reward model. A language model's head gives its place to a scalar head drawn from `seed`
    /// alone: normal with deviation 1/sqrt(width + 1). One that the files hold stays.
    pub fn with_score(mut self, seed: u64) -> Self {
        if self.config.output == Output::Logits {
            self.config = self.config.with_score();
            self.fresh = Some(seed);
        }
        self
    }

    /// Elements of a tensor of the manifest that no file holds.
    pub(crate) fn drawn(&self, shape: &Shape) -> Option<impl Iterator<Item = f64>> {
        let attached = || self.adapter.as_ref().is_some_and(|adapter| adapter.config.trains(shape));
        let seed = self.fresh.filter(|_| shape.pieces[0].name == SCORE && !attached())?;
        Some(score::fresh(shape.cols, seed).take(shape.len()))
    }

    /// A tensor of a parameter that the files of an adapter hold; `None`: there are none, or it is the model's own.
    pub(crate) fn attached(&self, shape: &Shape, name: &str) -> Option<Tensor<'_>> {
        let Attached { config, shards } = self.adapter.as_ref()?;
        shards.get(&in_file(config, name)).filter(|_| config.trains(shape))
    }

    /// A tensor of the manifest that the files of the model hold.
    pub(crate) fn tensor(&self, name: &str) -> Result<Tensor<'_>> {
        let stored = self.names.get(name).and_then(|stored| self.shards.get(stored));
        stored.ok_or_else(|| missing(&self.shards, &self.config, name))
    }
}

/// The config of a folder; and the type of the whole model, where it is that of a text model inside one.
fn read_config(dir: &Path) -> Result<(Config, Option<String>)> {
    let path = dir.join("config.json");
    let bytes = std::fs::read(&path).map_err(|e| match e.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => advice::no_config(dir),
        _ => Error::file(&path, format!("cannot be read ({e}); --model needs a Hugging Face folder")),
    })?;
    let json: Map<String, Value> =
        serde_json::from_slice(&bytes).map_err(|e| json::broken(&path, &bytes, &e))?;
    let model_type = json.get("model_type").cloned();
    let config = Config::from_json(json).map_err(|what| Error::file(&path, what))?;
    // Saved without it, and of another type, a text model is one alone.
    let whole = model_type.filter(|said| config.json.get("model_type") != Some(said));
    Ok((config, whole.and_then(|whole| whole.as_str().map(str::to_owned))))
}

/// A tensor under its full name or, as base models are saved, without the model's own.
fn find<'a>(shards: &'a Shards, config: &Config, name: &'a str) -> Option<(&'a str, Tensor<'a>)> {
    [name, config.names.without_root(name)].into_iter().find_map(|name| Some((name, shards.get(name)?)))
}

/// Whether the files hold a head beside the embedding, and another one.
fn is_untied(shards: &Shards, config: &Config, embed: &str) -> bool {
    match (find(shards, config, embed), shards.get(&config.names.head())) {
        (Some((_, embed)), Some(head)) => !embed.equals(&head),
        _ => false,
    }
}

/// A tensor must be what the config says before anything of that size is allocated.
fn check(tensor: &Tensor, name: &str, shape: &Shape, rows: usize) -> Result<()> {
    let fail = |what: String| Err(Error::file(tensor.path, format!("tensor `{name}` {what}")));
    if !tensor.is_float() {
        return fail(format!("is {:?}; weights must be {FLOATS}", tensor.dtype));
    }
    let want = shape.stored(rows);
    if let (SCORE, [scores, _]) = (name, tensor.shape)
        && *scores != 1
    {
        return fail(format!("gives {scores} scores a text; duel knows models of one, with `num_labels` 1"));
    }
    if tensor.shape != want {
        return fail(format!("has shape {:?}, config.json asks for {want:?}", tensor.shape));
    }
    Ok(())
}
