use crate::{Blocks, Real, Storage};

/// A matrix of weights that a verb reads: as the backend computes, or frozen in a narrower form.
///
/// Verbs take `impl Into<Weight>`, so a plain buffer is passed as it is.
pub enum Weight<'a, B: Storage> {
    /// In the precision of the computation.
    Real(&'a Real<B>),
    /// Weights that do not change any more.
    Narrow(&'a B::Buf<B::Narrow>),
    /// Weights that only forward passes read, on a backend that can
    /// ([`Products::READS_BLOCKS`](crate::Products::READS_BLOCKS)).
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
