//! A model's parameters on a device, each in a form of its own.

use crate::gradients::Trained;
use crate::weights::{Model, Weights};
use duel_backend::{Backend, Bits, Blocks, Real, Weight};

/// In what numbers weights are held that do not change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Form {
    /// Of matrices that are not in blocks.
    pub numbers: Numbers,
    /// Matrices that are in [`Blocks`].
    pub blocks: InBlocks,
}

/// The numbers of a matrix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Numbers {
    /// In bf16 where that holds every element of it (most published weights), with results of the same bits.
    #[default]
    AsStored,
    /// As the backend computes.
    Real,
    /// In bf16, to which they are rounded.
    Narrow,
}

/// What is in [`Blocks`]: neither vectors, which are too short to matter, nor the table of positions, which is added to
/// rows, nor adapters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InBlocks {
    /// Nothing.
    #[default]
    Nothing,
    /// The maps of the layers.
    Maps(Bits),
    /// Those, the embedding and the head.
    Matrices(Bits),
}

impl Form {
    /// What it rounds to, for people and as a part of identities; nothing: every weight is what the file says.
    pub fn rounding(self) -> Option<&'static str> {
        match (self.blocks, self.numbers) {
            (InBlocks::Nothing, Numbers::Narrow) => Some("bfloat16"),
            (InBlocks::Nothing, _) => None,
            (InBlocks::Maps(Bits::Eight) | InBlocks::Matrices(Bits::Eight), Numbers::Narrow) => {
                Some("8-bit blocks and bfloat16")
            }
            (InBlocks::Maps(Bits::Four) | InBlocks::Matrices(Bits::Four), Numbers::Narrow) => {
                Some("4-bit blocks and bfloat16")
            }
            (InBlocks::Maps(Bits::Eight) | InBlocks::Matrices(Bits::Eight), _) => Some("8-bit blocks"),
            (InBlocks::Maps(Bits::Four) | InBlocks::Matrices(Bits::Four), _) => Some("4-bit blocks"),
        }
    }
}

/// A parameter as it is held.
pub(crate) enum Stored<B: Backend> {
    Real(Real<B>),
    Narrow(B::Buf<B::Narrow>),
    Blocks(Blocks<B>),
}

/// A model whose parameters are each held in a form of their own: those that are trained as the backend computes, those
/// that do not change by their [`Form`].
pub struct Held<B: Backend> {
    pub(crate) parameters: Model<Stored<B>>,
}

impl<B: Backend> Held<B> {
    /// Bytes that the parameters take on the device.
    pub fn bytes(&self, b: &B) -> usize {
        let bytes = |p: &Stored<B>| match p {
            Stored::Real(buf) => b.len(buf) * size_of::<B::Real>(),
            Stored::Narrow(buf) => b.len(buf) * size_of::<B::Narrow>(),
            Stored::Blocks(blocks) => {
                let (rows, cols) = blocks.dims();
                Blocks::<B>::size(blocks.bits(), rows, cols)
            }
        };
        self.parameters.iter().into_iter().map(bytes).sum()
    }

    /// The parameters that have gradients in `trained`, in their order: what an optimizer changes.
    ///
    /// # Panics
    /// When one is not held as the backend computes.
    pub fn trained_mut(&mut self, trained: &Trained<B>) -> Vec<&mut Real<B>> {
        let all = trained.of(self.parameters.as_mut()).into_iter();
        all.map(|stored| match stored {
            Stored::Real(buf) => buf,
            Stored::Narrow(_) | Stored::Blocks(_) => panic!("what is trained is in the precision of the run"),
        })
        .collect()
    }
}

impl<B: Backend> Weights<B> for Held<B> {
    fn view(&self) -> Model<Weight<'_, B>> {
        self.parameters.as_ref().map(|p| match p {
            Stored::Real(buf) => Weight::Real(buf),
            Stored::Narrow(buf) => Weight::Narrow(buf),
            Stored::Blocks(blocks) => Weight::Blocks(blocks),
        })
    }
}

/// All as the backend computes.
impl<B: Backend> From<Model<Real<B>>> for Held<B> {
    fn from(model: Model<Real<B>>) -> Self {
        Held { parameters: model.map(Stored::Real) }
    }
}
