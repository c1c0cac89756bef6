//! Gradients: of a whole model, or of the part of it that is trained.

use crate::activations::Keep;
use crate::config::Config;
use crate::weights::{Model, Shape};
use duel_backend::{Acc, Backend, Result, Storage};

/// Gradients that a backward pass adds to.
pub trait Gradients<B: Storage> {
    /// Every parameter's; `None` where it is not trained.
    fn view(&mut self) -> Model<Option<&mut Acc<B>>>;

    /// Hears that no pass adds anything any more to those of `layer`, nor to those of what comes after it.
    fn whole(&mut self, _b: &B, _layer: usize) {}
}

/// All of them.
impl<B: Backend> Gradients<B> for Model<Acc<B>> {
    fn view(&mut self) -> Model<Option<&mut Acc<B>>> {
        self.as_mut().map(Some)
    }
}

/// Gradients of the parameters that are trained; the others have none, and take no memory.
pub struct Trained<B: Storage> {
    parameters: Model<Option<Acc<B>>>,
    /// What [`Keep::Relay`] says of them.
    relayed: bool,
}

impl<B: Storage> Trained<B> {
    /// Zeroed gradients of the parameters that `is_trained` says so of.
    ///
    /// # Errors
    /// The device has no room.
    pub fn new(b: &B, manifest: &Model<Shape>, mut is_trained: impl FnMut(&Shape) -> bool) -> Result<Self> {
        let gradient = |s: &Shape| is_trained(s).then(|| b.alloc(s.len())).transpose();
        Ok(Trained { parameters: manifest.as_ref().try_map(gradient)?, relayed: false })
    }

    /// Zeroed gradients of what is trained of the model of `config`: of all of it without the memory that `keep` has a
    /// backward pass give them.
    ///
    /// # Errors
    /// The device has no room.
    pub fn of_model(b: &B, config: &Config, keep: Keep) -> Result<Self> {
        let manifest = Model::manifest(config);
        match config.lora {
            Some(_) => Trained::new(b, &manifest, |shape| config.trains(shape)),
            None => Ok(Trained {
                parameters: manifest.gradients(b, keep)?.map(Some),
                relayed: keep == Keep::Relay,
            }),
        }
    }

    /// Whether those of a layer are to be read when they are whole, since the next one's take their memory.
    pub fn are_relayed(&self) -> bool {
        self.relayed
    }

    /// The gradients that there are, to write to.
    pub fn list_mut(&mut self) -> Vec<&mut Acc<B>> {
        self.parameters.iter_mut().into_iter().flatten().collect()
    }

    /// The gradients that there are.
    pub fn list(&self) -> Vec<&Acc<B>> {
        self.parameters.iter().into_iter().flatten().collect()
    }

    /// The ends of groups in [`Trained::list`]: of what lies before the layers, of each layer, and of what comes after
    /// them.
    pub fn ends(&self) -> Vec<usize> {
        let Model { embed, positions, layers, .. } = &self.parameters;
        let count = |those: Vec<&Option<Acc<B>>>| those.into_iter().flatten().count();
        let mut ends = vec![count(std::iter::once(embed).chain(positions).collect())];
        for layer in layers {
            ends.push(ends[ends.len() - 1] + count(layer.as_ref().into_vec()));
        }
        ends.push(self.list().len());
        ends
    }

    /// Of one thing for every parameter, those of the parameters that are trained: in the order of [`Trained::list`],
    /// which is what an optimizer wants of weights and shapes.
    pub fn of<T>(&self, all: Model<T>) -> Vec<T> {
        let pairs = all.into_vec().into_iter().zip(self.parameters.iter());
        pairs.filter(|(_, gradient)| gradient.is_some()).map(|(x, _)| x).collect()
    }
}

impl<B: Storage> Gradients<B> for Trained<B> {
    fn view(&mut self) -> Model<Option<&mut Acc<B>>> {
        self.parameters.as_mut().map(Option::as_mut)
    }
}
