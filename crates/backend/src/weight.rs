use crate::{Acc, Blocks, Real, Storage};

/// A matrix of weights that a verb reads: as the backend computes, or frozen in a narrower form.
///
/// Verbs take `impl Into<Weight>`, so a plain buffer is passed as it is.
pub enum Weight<'a, B: Storage> {
    /// In the precision of the computation.
    Real(&'a Real<B>),
    /// Weights that do not change any more.
    Narrow(&'a B::Buf<B::Narrow>),
    /// The same in blocks, on a backend that can ([`Products::READS_BLOCKS`](crate::Products::READS_BLOCKS)).
    Blocks(&'a Blocks<B>),
}

impl<'a, B: Storage> Weight<'a, B> {
    /// The buffer of a parameter that is never narrowed: a vector.
    ///
    /// # Panics
    /// When it is narrowed after all.
    pub fn real(self) -> &'a Real<B> {
        match self {
            Weight::Real(buf) => buf,
            Weight::Narrow(_) | Weight::Blocks(_) => {
                panic!("this parameter is read in the precision of the computation alone")
            }
        }
    }
}

impl<B: Storage> Clone for Weight<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<B: Storage> Copy for Weight<'_, B> {}

impl<'a, B: Storage> From<&'a Real<B>> for Weight<'a, B> {
    fn from(buf: &'a Real<B>) -> Self {
        Weight::Real(buf)
    }
}

/// The parameters of a linear map whose bias may be there: those of a head.
pub struct Map<'a, B: Storage> {
    /// `[outputs, inputs]`.
    pub weight: Weight<'a, B>,
    /// `[outputs]`.
    pub bias: Option<&'a Real<B>>,
}

impl<B: Storage> Clone for Map<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<B: Storage> Copy for Map<'_, B> {}

impl<'a, B: Storage> From<Weight<'a, B>> for Map<'a, B> {
    fn from(weight: Weight<'a, B>) -> Self {
        Map { weight, bias: None }
    }
}

impl<'a, B: Storage> From<&'a Real<B>> for Map<'a, B> {
    fn from(weight: &'a Real<B>) -> Self {
        Map { weight: weight.into(), bias: None }
    }
}

/// Gradients of a [`Map`], where they are wanted.
pub struct MapGradients<'a, B: Storage> {
    /// Of the weight.
    pub weight: Option<&'a mut Acc<B>>,
    /// Of the bias.
    pub bias: Option<&'a mut Acc<B>>,
}

impl<B: Storage> MapGradients<'_, B> {
    /// The same for a while.
    pub fn again(&mut self) -> MapGradients<'_, B> {
        MapGradients { weight: self.weight.as_deref_mut(), bias: self.bias.as_deref_mut() }
    }
}

impl<'a, B: Storage> From<&'a mut Acc<B>> for MapGradients<'a, B> {
    fn from(weight: &'a mut Acc<B>) -> Self {
        MapGradients { weight: Some(weight), bias: None }
    }
}

impl<'a, B: Storage> From<(Option<&'a mut Acc<B>>, Option<&'a mut Acc<B>>)> for MapGradients<'a, B> {
    fn from((weight, bias): (Option<&'a mut Acc<B>>, Option<&'a mut Acc<B>>)) -> Self {
        MapGradients { weight, bias }
    }
}

impl<'a, B: Storage> From<Option<&'a mut Acc<B>>> for MapGradients<'a, B> {
    fn from(weight: Option<&'a mut Acc<B>>) -> Self {
        MapGradients { weight, bias: None }
    }
}
