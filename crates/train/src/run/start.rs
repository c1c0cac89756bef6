//! How every run begins and comes to its first step.

use super::output::{self, Output};
use super::plan::Plan;
use super::steps::Run;
use crate::Error;
use crate::checkpoint::{Checkpoint, State, base_was};
use crate::config::{BaseDtype, Config, Method, SaveDtype};
use crate::critic::Critic;
use crate::engine::Engine;
use crate::follow::Following;
use crate::ranks::{Ranks, Updater, check_run};
use crate::reference::ModelId;
use crate::stays::Stays;
use duel_backend::{Acc, Backend, Dtype, Element};
use duel_data::Tokenizer;
use duel_disk::Lock;
use duel_model::{
    Before, Config as ModelConfig, FileDtype, Folder, Held, Model, Output as ModelOutput, Shape, Trained,
};
use duel_optim::Optimizer;
use std::path::Path;

/// A run before anything of it is on a device.
pub struct Start {
    /// What it does.
    pub config: Config,
    /// What it continues from.
    pub checkpoint: Option<Checkpoint>,
    /// The model that it begins with.
    pub folder: Folder,
    /// Tokens that end its texts.
    pub stops: Vec<u32>,
    /// Identity of that model.
    pub id: ModelId,
    /// The reference, where it is another model.
    other: Option<Other>,
    /// What is trained of it: that model, or the adapters beside it.
    pub model: ModelConfig,
    /// Its parameters.
    pub manifest: Model<Shape>,
}

/// A reference that is not the model that the run begins with.
struct Other {
    folder: Folder,
    id: ModelId,
}

impl Other {
    /// That in the folder `path`, for a policy of the model in `of`.
    fn open(path: &Path, of: &Folder, rounding: Option<&str>) -> Result<Self, Error> {
        let folder = Folder::open(path)?.language_model()?;
        if !folder.config().is_like(of.config()) {
            return Err(Error::new(format!(
                "{}: is a model of another shape than {}, which both run through the same passes; give a `ref_model` \
                 of the same",
                path.display(),
                of.path().display()
            )));
        }
        folder.notes().iter().for_each(|note| say!("note: {note}"));
        Ok(Other { folder, id: ModelId::of(path)?.held(rounding) })
    }
}

impl Start {
    /// Opens what `config` names; with the model's tokenizer.
    ///
    /// # Errors
    /// Something is missing or damaged, or the output folder is not for this run.
    pub fn of<B: Backend>(config: &Config) -> Result<(Self, Tokenizer), Error> {
        // What the backend computes in decides the bits, so the run's own configuration names it.
        let config = Config { bf16: Some(B::Real::DTYPE == Dtype::Bf16), ..config.clone() }.pinned()?;
        let checkpoint =
            output::to_resume(&config)?.map(|path| Checkpoint::open(&path, &config)).transpose()?;
        if !output::goes_on(&config) {
            output::check(&config)?;
        }
        let at = super::folder(&config.model)?;
        let folder = Folder::open(&at)?;
        let folder = match config.method {
            Method::Reward if folder.adapted().is_some_and(|model| model.output == ModelOutput::Logits) => {
                return Err(Error::new(format!(
                    "{}: is an adapter of a language model, which has no scalar head; merge it first (duel merge), and \
                     train the reward model on that",
                    config.model.display()
                )));
            }
            Method::Reward => folder.with_score(config.seed),
            _ => folder.language_model()?,
        };
        let model = model_of(&config, &folder)?;
        if model.lora.is_none() {
            check_nothing_is_frozen::<B>(&config)?;
        }
        if let Some(lora) = &model.lora {
            config.check_adapters(true, lora.settings.dropout)?;
            if config.save_dtype != SaveDtype::Source {
                return Err(Error::new(
                    "save_dtype has no effect on adapters, which are saved as they are trained; leave it out",
                ));
            }
            if !B::ADAPTS {
                return Err(Error::new(
                    "adapters are trained on the CPU alone: there are no kernels for them on a GPU yet; give \
                     --device cpu, or train all weights",
                ));
            }
        }
        folder.notes().iter().for_each(|note| say!("note: {note}"));
        let (was, is) = (base_was(&at), config.form().rounding());
        if folder.adapted().is_some() && was != is {
            let held =
                |rounding: Option<&str>| rounding.map_or("as it is".to_owned(), |what| format!("in {what}"));
            say!(
                "note: {} was trained beside its model {}, and goes on beside it {}",
                config.model.display(),
                held(was),
                held(is)
            );
        }
        let tokenizer = crate::tokenizer(&at)?;
        // They go along into the output folder: what is wrong with them is said before the first step.
        duel_model::companions(&duel_model::tokenizer_folder(&at)?)?;
        let manifest = Model::manifest(&model);
        let rounding = config.form().rounding();
        let id = ModelId::of(&at)?.held(rounding);
        let other = config
            .ref_model
            .as_deref()
            .map(|said| Other::open(&super::folder(said)?, &folder, rounding))
            .transpose()?;
        let stops = tokenizer.stops().to_vec();
        Ok((Start { config, checkpoint, folder, stops, id, other, model, manifest }, tokenizer))
    }

    /// What the run is made of, given its model and data: with the reference, where that is another model.
    pub fn content(&self, of_model_and_data: String) -> String {
        match &self.other {
            Some(other) => format!("{of_model_and_data}-{}", other.id.digest()),
            None => of_model_and_data,
        }
    }

    /// Identity of the reference.
    pub fn reference_id(&self) -> &ModelId {
        self.other.as_ref().map_or(&self.id, |other| &other.id)
    }

    /// Says what will be done, once all ranks are known to be about to do the same, and that a checkpoint continues
    /// only what it was made with: `content`.
    ///
    /// # Errors
    /// It was made with other content, the output folder cannot be read, or a rank has something else.
    pub fn announce<B: Backend>(
        &self,
        b: &B,
        ranks: &Ranks<'_>,
        text: &str,
        content: &str,
    ) -> Result<(), Error> {
        let reference = self.reference_id().digest();
        check_run(
            ranks,
            &[
                ("model", self.id.digest()),
                ("reference", reference),
                ("set of rows, or judge,", content.to_owned()),
                ("device to compute on", b.identity()),
                ("checkpoint to go on from", self.from().to_string()),
            ],
        )?;
        say!("{}", text.trim_end_matches('\n'));
        let Some(checkpoint) = &self.checkpoint else { return output::announce(&self.config) };
        if checkpoint.state.content == content {
            return Ok(());
        }
        let judge = self
            .config
            .judge
            .as_ref()
            .map_or(String::new(), |judge| format!(", or by another judge than {judge} is"));
        let reference = self.config.ref_model.as_ref();
        let reference = reference.map_or(String::new(), |path| format!(", of {}", path.display()));
        Err(Error::new(format!(
            "{} was made with other content of {}{reference} or {}{judge}; bring back what it was, or start anew in \
             another output_dir",
            checkpoint.path.display(),
            self.config.model.display(),
            self.config.dataset.display()
        )))
    }

    /// The step that it goes on after.
    pub fn from(&self) -> u64 {
        self.checkpoint.as_ref().map_or(0, |c| c.state.step)
    }

    /// Whether the evaluation after that step was stopped.
    pub fn is_unevaluated(&self) -> bool {
        self.checkpoint.as_ref().is_some_and(|c| c.state.unevaluated)
    }

    /// What would be trained with another configuration.
    ///
    /// # Errors
    /// It asks for what the model does not have.
    pub fn model_of(&self, config: &Config) -> Result<ModelConfig, Error> {
        model_of(config, &self.folder)
    }

    /// The weights that the run begins with.
    ///
    /// # Errors
    /// There is no room, or a file is damaged.
    pub fn weights<B: Backend>(&self, b: &B) -> Result<Held<B>, Error> {
        Ok(duel_model::load_policy(b, &self.folder, &self.model, self.config.form())?)
    }

    /// The reference, as it stays beside or within the model that becomes of `weights`: the one that the run began
    /// with, without the adapters that it begins to train, or another one.
    ///
    /// # Errors
    /// There is no room, or a file is damaged.
    pub fn stays<B: Backend>(&self, b: &B, weights: &Held<B>) -> Result<Stays<B>, Error> {
        Ok(match (&self.other, &self.model.lora) {
            (Some(other), _) => Stays::Apart(self.load_other(b, other)?),
            (None, Some(_)) => {
                Stays::Within(Before::of(b, &self.model, weights, self.folder.adapted().is_some())?)
            }
            (None, None) => Stays::Apart(duel_model::load_frozen(b, &self.folder)?),
        })
    }

    /// The reference, where it is not what the policy begins as.
    ///
    /// # Errors
    /// As [`Start::weights`].
    pub fn other_reference<B: Backend>(&self, b: &B) -> Result<Option<Held<B>>, Error> {
        self.other.as_ref().map(|other| self.load_other(b, other)).transpose()
    }

    /// In the form of the run: of the same model it is the same numbers.
    fn load_other<B: Backend>(&self, b: &B, other: &Other) -> Result<Held<B>, Error> {
        Ok(duel_model::load_frozen_in(b, &other.folder, self.config.form())?)
    }

    fn reference_folder(&self) -> &Folder {
        self.other.as_ref().map_or(&self.folder, |other| &other.folder)
    }

    /// A reference that follows the policy by `rule`: after every so many steps, by what share.
    ///
    /// # Errors
    /// There is no room, or the checkpoint that it goes on from is damaged.
    pub fn following<B: Backend>(&self, b: &B, rule: (u64, f64)) -> Result<Following<B>, Error> {
        let (every, share) = rule;
        let moved = self.checkpoint.as_ref().filter(|c| c.state.step >= every);
        let weights = match moved {
            Some(checkpoint) => duel_model::load(b, &checkpoint.reference_of(self.folder.config())?)?,
            None => duel_model::load(b, self.reference_folder())?,
        };
        Ok(Following { weights, every, share })
    }

    /// The run before its next step, given the `lock` of its folder where that is there already, `weights`, those that
    /// it began with, and what has been made for them. `rehearse` makes a pass of the largest batch.
    ///
    /// # Errors
    /// There is no room, the checkpoint is damaged, or the output folder cannot be written.
    pub fn run<'a, B: Backend>(
        self,
        b: &B,
        (ranks, lock): (&'a Ranks<'a>, Option<Lock>),
        plan: Plan,
        mut engine: Engine<'a, B>,
        mut weights: Held<B>,
        content: String,
        rehearse: impl FnOnce(&mut Engine<'a, B>, &Held<B>, &mut Trained<B>) -> Result<(), Error>,
    ) -> Result<Run<'a, B>, Error> {
        let Start { config, checkpoint, folder, stops, other, model, manifest, .. } = self;
        let mut critic =
            (config.method == Method::Ppo).then(|| Critic::new(b, engine.model.width)).transpose()?;
        let dtype = saved_dtype(config.save_dtype, &folder)?;
        let head = critic.as_ref().map(|critic| b.len(&critic.weight));
        let (mut grads, mut updater) = learning(b, ranks, &plan, (&folder, &model, &manifest), head)?;
        // Its files are mapped: what was read of them would stay in this process's memory beside all that follows.
        drop((folder, other));
        let mut state = State { content, ..State::default() };
        if let Some(c) = &checkpoint {
            drop(weights); // there may not be room for both
            weights = duel_model::load_policy(b, &c.model_of(&model)?, &model, config.form())?;
            c.restore(b, &mut updater, critic.as_mut())?;
            state = c.state.clone();
            say!("continuing after step {} of {}", state.step, c.path.display());
        }
        let mut trained = weights.trained_mut(&grads);
        trained.extend(critic.iter_mut().map(|critic| &mut critic.weight));
        updater.begin(b, &trained)?;
        b.rehearse(|| -> Result<(), Error> {
            rehearse(&mut engine, &weights, &mut grads)?;
            print_peak(b);
            Ok(())
        })?;
        let mut output = Output::of(&config, dtype, lock)?;
        let resumed = checkpoint.as_ref().map(|_| (state.step, state.unevaluated));
        let trackers = ranks.kept(|| {
            output.prepare(&config)?;
            output.trackers(config.report_to, resumed)
        })?;
        plan.choice.iter().for_each(|choice| choice.begin(&mut state.best));
        if let Some((step, _)) =
            state.best.checkpoint.filter(|(step, _)| !output.checkpoints.folder(*step).exists())
        {
            say!(
                "note: {} was the best checkpoint and is not here; one that is better than those that follow is left",
                output.checkpoints.folder(step).display()
            );
            state.best.checkpoint = None;
        }
        let saved = checkpoint.filter(|c| output.holds(c)).map(|c| c.state.step);
        Ok(Run {
            ranks,
            plan,
            output,
            stops,
            manifest,
            engine,
            weights,
            grads,
            critic,
            updater,
            trackers,
            state,
            saved,
        })
    }
}

/// Gradients of what is trained of `model`, and what updates it by them; with a value head of so many weights behind.
///
/// # Errors
/// There is no room.
pub fn learning<B: Backend>(
    b: &B,
    ranks: &Ranks<'_>,
    plan: &Plan,
    (folder, model, manifest): (&Folder, &ModelConfig, &Model<Shape>),
    head: Option<usize>,
) -> Result<(Trained<B>, Updater<B>), Error> {
    let grads = Trained::of_model(b, model, plan.keep)?;
    let shapes = grads.of(manifest.as_ref()).into_iter().map(|s| (s.len(), s.decays()));
    let shapes: Vec<(usize, bool)> = shapes.chain(head.map(|len| (len, true))).collect();
    // A value head begins with 0.
    let masters = |each: &mut dyn FnMut(Acc<B>) -> Result<(), Error>| {
        duel_model::each_master(b, folder, model, &mut *each)?;
        head.map_or(Ok(()), |len| each(b.alloc(len)?))
    };
    let masters = Optimizer::<B>::needs_masters().then_some(masters);
    let updater =
        Updater::new(b, (plan.cut, ranks.rank()), plan.algorithm, (&shapes, &grads.ends()), masters)?;
    Ok((grads, updater))
}

/// What is trained of the model of `folder` as `config` says.
fn model_of(config: &Config, folder: &Folder) -> Result<ModelConfig, Error> {
    Ok(match (config.lora(), folder.adapted()) {
        (Some(settings), _) => folder.with_lora(settings)?,
        (None, Some(adapted)) => adapted.clone(),
        (None, None) => folder.config().clone(),
    })
}

/// What is said of weights that are not trained has no effect where all are.
fn check_nothing_is_frozen<B: Backend>(config: &Config) -> Result<(), Error> {
    let bits = [("load_in_4bit", config.load_in_4bit), ("load_in_8bit", config.load_in_8bit)];
    if let Some((key, _)) = bits.iter().find(|(_, said)| *said) {
        return Err(Error::new(format!(
            "`{key}` is for weights that stay beside adapters, and here all of them are trained; give lora_r (or use_peft), \
             or remove it"
        )));
    }
    if config.dtype == BaseDtype::Bfloat16 && B::Real::DTYPE != Dtype::Bf16 {
        return Err(Error::new(
            "`dtype = bfloat16` is for weights that stay beside adapters, and here all of them are trained, in float32; \
             give lora_r (or use_peft), compute in bfloat16 by `bf16`, or remove it",
        ));
    }
    Ok(())
}

/// What the largest micro-batch needed.
fn print_peak<B: Backend>(b: &B) {
    if let Some(peak) = b.memory().peak {
        say!("      {:.2} GB were in use at most, the largest micro-batch included", peak as f64 / 1e9);
    }
}

/// The type of the trained model's numbers on the disk.
fn saved_dtype(asked: SaveDtype, source: &Folder) -> Result<FileDtype, Error> {
    Ok(match asked {
        SaveDtype::Source => source.dtype()?,
        SaveDtype::Float32 => FileDtype::Float32,
        SaveDtype::Bfloat16 => FileDtype::Bfloat16,
        SaveDtype::Float16 => FileDtype::Float16,
    })
}
