//! What a product is made of.

use super::quantised::Panels;

/// An operand: element `(i, p)` is `data[i * rs + p * cs]`, `p` running along the summed axis.
pub struct Operand<'a, T> {
    pub data: &'a [T],
    pub rs: usize,
    pub cs: usize,
}

impl<T> Clone for Operand<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Operand<'_, T> {}

/// The right operand, in whatever form it is stored.
#[derive(Clone, Copy)]
pub enum Right<'a, T> {
    /// As the left one.
    Plain(Operand<'a, T>),
    /// In blocks along the summed axis.
    Blocks(Panels<'a>),
    /// The matrix of such blocks on its side: summed over their rows.
    Turned(Panels<'a>),
}

impl<'a, T> From<Operand<'a, T>> for Right<'a, T> {
    fn from(operand: Operand<'a, T>) -> Self {
        Right::Plain(operand)
    }
}

/// What the product is added to.
pub enum Init<'a, C> {
    /// Nothing.
    Zero,
    /// What the result buffer holds.
    Keep,
    /// A row of biases and a matrix of the result's shape, dense.
    Add(Option<&'a [C]>, Option<&'a [C]>),
}

impl<C> Clone for Init<'_, C> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<C> Copy for Init<'_, C> {}

/// Shape of the product: `c[m, n]` with row stride `ldc`, summed over `k`.
#[derive(Clone, Copy)]
pub struct Shape {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub ldc: usize,
}
