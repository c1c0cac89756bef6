//! What a run allocates, by what it is for.

use crate::Error;
use crate::config::Config as TrainConfig;
use crate::ranks::Cut;
use duel_backend::{Backend, Bits, Measure};
use duel_model::{Before, Config, Folder, Form, InBlocks, Keep, Model, PolicyBytes, Shape, policy_bytes};
use duel_optim::{Algorithm, Optimizer};
use std::fmt;

/// Bytes by what they are for, in the order in which they are allocated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bytes(Vec<(&'static str, usize)>);

/// What stays of a reference while a run trains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptReference {
    /// Nothing: it is of use before the first step alone.
    None,
    /// The model that the run began with, which shares what adapters do not change.
    Own,
    /// Another model.
    Another,
    /// One that follows the policy.
    Follower,
}

impl KeptReference {
    /// That of a run which is as `config` says, and keeps one or not.
    pub fn of(config: &TrainConfig, kept: bool) -> Self {
        match kept {
            false => KeptReference::None,
            true if config.follows().is_some() => KeptReference::Follower,
            true if config.ref_model.is_some() => KeptReference::Another,
            true => KeptReference::Own,
        }
    }
}

/// `bytes`, where they are there.
fn where_kept(kept: bool, bytes: usize) -> usize {
    if kept { bytes } else { 0 }
}

impl Bytes {
    /// What the parameters of `manifest`, and so many of a value head beside them, take in training: weights, gradients
    /// where they have memory of their own, moments and masters, and the reference's weights where those are kept.
    pub fn of_parameters<B: Backend>(
        manifest: &Model<Shape>,
        keep: Keep,
        (algorithm, cut, head): (Algorithm, Cut, usize),
        keep_reference: bool,
    ) -> Self {
        let parameters = manifest.parameters();
        let real = size_of::<B::Real>() * parameters;
        Bytes::default()
            .and("weights", real)
            .and("the reference's weights", where_kept(keep_reference, real))
            .and("gradients", Measure::<B>::bytes(|b| manifest.gradients(b, keep)))
            .with(Self::of_updates::<B>(["moments", "masters"], parameters + head, algorithm, cut))
    }

    /// What the first of the processes of `cut`, which has most of them, needs to update so many parameters: moments
    /// and masters by these names. Of pieces there are the sums of shares and a copy of the weights too.
    fn of_updates<B: Backend>(
        [moments, masters]: [&'static str; 2],
        parameters: usize,
        algorithm: Algorithm,
        cut: Cut,
    ) -> Self {
        let own = cut.owned(parameters, 0);
        let sums = size_of::<B::Acc>() * own;
        let in_pieces = cut.shares > 1;
        Bytes::default()
            .and(moments, sums * algorithm.moments())
            .and(masters, where_kept(Optimizer::<B>::needs_masters(), sums))
            .and("sums of shares", where_kept(in_pieces, sums))
            .and("weights in pieces", where_kept(in_pieces, size_of::<B::Real>() * own))
    }

    /// What the parameters of the model of `config`, from `folder`, take in training, by [`Bytes::of_parameters`]; or,
    /// where it has adapters, those that are frozen, in that form, and those that are trained.
    ///
    /// # Errors
    /// A file is damaged.
    pub fn of_model<B: Backend>(
        folder: &Folder,
        config: &Config,
        form: Form,
        keep: Keep,
        updates: (Algorithm, Cut, usize),
        kept: KeptReference,
    ) -> Result<Self, Error> {
        let has_adapters = config.lora.is_some();
        let (algorithm, cut, head) = updates;
        // Under adapters the model that the run began with is within the one that it trains.
        let apart = match kept {
            KeptReference::Own if has_adapters => 0,
            KeptReference::Own | KeptReference::Another => duel_model::frozen_bytes::<B>(folder, form)?,
            KeptReference::None | KeptReference::Follower => 0,
        };
        if !has_adapters {
            let follows = kept == KeptReference::Follower;
            let of = Self::of_parameters::<B>(&Model::manifest(config), keep, updates, follows);
            return Ok(of.and("the reference's weights", apart));
        }
        let PolicyBytes { trained, real, narrow, blocks } = policy_bytes::<B>(folder, config, form)?;
        let sums = trained / size_of::<B::Real>() * size_of::<B::Acc>();
        let before = match kept {
            KeptReference::Own => Before::<B>::parameters(config, folder.adapted().is_some()),
            _ => 0,
        };
        let in_blocks = match form.blocks {
            InBlocks::Maps(Bits::Four) | InBlocks::Matrices(Bits::Four) => "in 4-bit blocks",
            _ => "in 8-bit blocks",
        };
        Ok(Bytes::default()
            .and("frozen weights", real)
            .and("in bfloat16", narrow)
            .and(in_blocks, blocks)
            .and("adapters", trained)
            .and("what they were", before * size_of::<B::Real>())
            .and("the reference's weights", apart)
            .and("the adapters' gradients", sums)
            .with(Self::of_updates::<B>(
                ["their moments", "their masters"],
                trained / size_of::<B::Real>() + head,
                algorithm,
                cut,
            )))
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

    /// Each, by its name.
    pub fn each(&self) -> &[(&'static str, usize)] {
        &self.0
    }

    /// All together.
    pub fn total(&self) -> usize {
        self.0.iter().map(|(_, bytes)| bytes).sum()
    }
}

/// In GB, the sum first: `2.67 GB: weights 0.54, gradients 0.54, ...`.
impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", gigabytes(self.total() as u64))?;
        self.0.iter().enumerate().try_for_each(|(i, (name, bytes))| {
            write!(f, "{}{name} {:.2}", if i == 0 { ": " } else { ", " }, *bytes as f64 / 1e9)
        })
    }
}

/// For people.
pub fn gigabytes(bytes: u64) -> String {
    format!("{:.2} GB", bytes as f64 / 1e9)
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
        let bytes = |keep| {
            Bytes::of_parameters::<Cpu<f32>>(&manifest, keep, (ADAMW, Cut::NONE, 0), false).to_string()
        };
        assert_eq!(bytes(Keep::All), "16.00 GB: weights 4.00, gradients 4.00, moments 8.00");
        assert_eq!(bytes(Keep::Lend), "14.80 GB: weights 4.00, gradients 2.80, moments 8.00");
        // Of a step in shares every process has its pieces.
        let bytes = |processes| {
            let cut = Cut { shares: 4, processes };
            Bytes::of_parameters::<Cpu<f32>>(&manifest, Keep::All, (ADAMW, cut, 0), false).to_string()
        };
        let of_pieces = |said: &str| format!("weights 4.00, gradients 4.00, {said}");
        for (processes, said) in [
            (1, "moments 8.00, sums of shares 4.00, weights in pieces 4.00"),
            (2, "moments 4.00, sums of shares 2.00, weights in pieces 2.00"),
            (3, "moments 4.00, sums of shares 2.00, weights in pieces 2.00"),
            (4, "moments 2.00, sums of shares 1.00, weights in pieces 1.00"),
        ] {
            assert!(bytes(processes).ends_with(&of_pieces(said)), "{processes}: {}", bytes(processes));
        }
        type Narrow = Cpu<<Cpu as Storage>::Narrow>;
        let bytes = Bytes::of_parameters::<Narrow>(&manifest, Keep::All, (RMSPROP, Cut::NONE, 0), true);
        assert_eq!(
            bytes.and("logits", 250_000_000).to_string(),
            "16.25 GB: weights 2.00, the reference's weights 2.00, gradients 4.00, moments 4.00, masters 4.00, logits 0.25"
        );
    }
}
