//! What a run allocates, by what it is for.

use duel_backend::{Backend, Measure};
use duel_model::{Config, Keep, Model, Shape};
use duel_optim::{Algorithm, Optimizer};
use std::fmt;

/// Bytes by what they are for, in the order in which they are allocated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bytes(Vec<(&'static str, usize)>);

impl Bytes {
    /// What the parameters of `manifest` take in training: weights, gradients where they have memory of their own,
    /// moments and masters, and the reference's weights where those are kept.
    pub fn of_parameters<B: Backend>(
        manifest: &Model<Shape>,
        keep: Keep,
        algorithm: Algorithm,
        keep_reference: bool,
    ) -> Self {
        let parameters = manifest.parameters();
        let (real, sums) = (size_of::<B::Real>() * parameters, size_of::<B::Acc>() * parameters);
        let where_kept = |kept: bool, bytes: usize| if kept { bytes } else { 0 };
        Bytes::default()
            .and("weights", real)
            .and("the reference's weights", where_kept(keep_reference, real))
            .and("gradients", Measure::<B>::bytes(|b| manifest.gradients(b, keep)))
            .and("moments", sums * algorithm.moments())
            .and("masters", where_kept(Optimizer::<B>::needs_masters(), sums))
    }

    /// What the parameters of a model take in training, by [`Bytes::of_parameters`]; or, where it has adapters, those
    /// that are frozen and those that are trained.
    pub fn of_model<B: Backend>(
        config: &Config,
        keep: Keep,
        algorithm: Algorithm,
        keep_reference: bool,
    ) -> Self {
        let manifest = Model::manifest(config);
        if config.lora.is_none() {
            return Self::of_parameters::<B>(&manifest, keep, algorithm, keep_reference);
        }
        let shapes = manifest.iter().into_iter();
        let trained: usize = shapes.filter(|shape| config.trains(shape)).map(Shape::len).sum();
        let (real, sums) = (size_of::<B::Real>(), size_of::<B::Acc>() * trained);
        let where_kept = |kept: bool, bytes: usize| if kept { bytes } else { 0 };
        Bytes::default()
            .and("frozen weights", real * (manifest.parameters() - trained))
            .and("adapters", real * trained)
            .and("the reference's weights", where_kept(keep_reference, real * manifest.parameters()))
            .and("the adapters' gradients", sums)
            .and("their moments", sums * algorithm.moments())
            .and("their masters", where_kept(Optimizer::<B>::needs_masters(), sums))
    }

    /// With `bytes` more for `name`; without a word where there are none.
    pub fn and(mut self, name: &'static str, bytes: usize) -> Self {
        self.0.extend((bytes > 0).then_some((name, bytes)));
        self
    }

    /// With all of `other`.
    pub fn with(mut self, other: Bytes) -> Self {
        self.0.extend(other.0);
        self
    }

    /// All together.
    pub fn total(&self) -> usize {
        self.0.iter().map(|(_, bytes)| bytes).sum()
    }
}

/// In GB, the sum first: `2.67 GB: weights 0.54, gradients 0.54, ...`.
impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} GB", self.total() as f64 / 1e9)?;
        self.0.iter().enumerate().try_for_each(|(i, (name, bytes))| {
            write!(f, "{}{name} {:.2}", if i == 0 { ": " } else { ", " }, *bytes as f64 / 1e9)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use duel_backend::Storage;
    use duel_cpu::Cpu;
    use duel_model::Config;

    const RMSPROP: Algorithm = Algorithm::Rmsprop { alpha: 0.99, eps: 1e-8, weight_decay: 0.0 };
    const ADAMW: Algorithm = Algorithm::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 };

    #[test]
    fn parameters_are_named_and_summed() {
        // An embedding of 0.4 billion parameters, two layers of 0.3.
        let json = serde_json::json!({
            "model_type": "llama", "vocab_size": 400_000, "hidden_size": 1000, "intermediate_size": 100_000,
            "num_hidden_layers": 2, "num_attention_heads": 1, "head_dim": 2, "max_position_embeddings": 512,
            "tie_word_embeddings": true
        });
        let config = Config::from_json(json.as_object().unwrap().clone()).unwrap();
        let manifest = Model::manifest(&config);
        let bytes = |keep| Bytes::of_parameters::<Cpu<f32>>(&manifest, keep, ADAMW, false).to_string();
        assert_eq!(bytes(Keep::All), "16.00 GB: weights 4.00, gradients 4.00, moments 8.00");
        assert_eq!(bytes(Keep::Lend), "14.80 GB: weights 4.00, gradients 2.80, moments 8.00");
        type Narrow = Cpu<<Cpu as Storage>::Narrow>;
        let bytes = Bytes::of_parameters::<Narrow>(&manifest, Keep::All, RMSPROP, true);
        assert_eq!(
            bytes.and("logits", 250_000_000).to_string(),
            "16.25 GB: weights 2.00, the reference's weights 2.00, gradients 4.00, moments 4.00, masters 4.00, logits 0.25"
        );
    }
}
