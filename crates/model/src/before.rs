//! The model that a run of adapters began with, within the one that it trains: what is frozen is there once.

use crate::config::Config;
use crate::lora::is_adapter;
use crate::weights::{Model, Shape, View, Weights};
use duel_backend::{Backend, Real, Result, Weight};

/// What a run of adapters changes, as it was before: fresh adapters were not there.
pub struct Before<B: Backend> {
    /// In the order of [`Model::iter`]; `None` where nothing changes, or nothing was.
    kept: Vec<Option<Real<B>>>,
    adapted: bool,
}

/// Whether it has to be kept of a model that began with adapters, or without.
fn keeps(config: &Config, shape: &Shape, adapted: bool) -> bool {
    config.trains(shape) && (adapted || !is_adapter(shape))
}

impl<B: Backend> Before<B> {
    /// That of `weights`, which are those that the run begins with, of the model of `config`. `adapted`: its adapters
    /// are not fresh.
    ///
    /// # Errors
    /// The device has no room.
    pub fn of(b: &B, config: &Config, weights: &impl Weights<B>, adapted: bool) -> Result<Self> {
        let copy = |(shape, weight): (&Shape, Weight<'_, B>)| {
            let kept = keeps(config, shape, adapted).then(|| {
                let mut buf = b.alloc(shape.len())?;
                b.copy(&mut buf, weight.real(), shape.len());
                Ok(buf)
            });
            kept.transpose()
        };
        let manifest = Model::manifest(config);
        let kept =
            manifest.iter().into_iter().zip(weights.view().into_vec()).map(copy).collect::<Result<_>>()?;
        Ok(Before { kept, adapted })
    }

    /// Elements that it keeps.
    pub fn parameters(config: &Config, adapted: bool) -> usize {
        let manifest = Model::manifest(config);
        let kept = manifest.iter().into_iter().filter(|shape| keeps(config, shape, adapted));
        kept.map(Shape::len).sum()
    }

    /// The whole model as it was; `policy` is what has become of it.
    pub fn within<'a>(&'a self, policy: &'a impl Weights<B>) -> View<'a, B> {
        let mut kept = self.kept.iter();
        let mut model = policy.view().map(|now| match kept.next() {
            Some(Some(before)) => Weight::Real(before),
            _ => now,
        });
        if !self.adapted {
            model.layers.iter_mut().flat_map(|layer| layer.maps_mut()).for_each(|map| map.adapters.clear());
        }
        View(model)
    }
}
