//! Matrix products as they are asked of a vendor's library.

use duel_backend::{Dtype, Gemm};
use std::ffi::c_void;

/// The three products, as `out[rows, columns] = sum over depth of left(row, d) right(column, d)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Product {
    /// `y[m,n] = x[m,k] · w[n,k]ᵀ`: left is `x`, right `w`.
    Forward,
    /// `dx[m,k] = dy[m,n] · w[n,k]`: left is `dy`, right `w`.
    InputGradient,
    /// `dw[n,k] += dy[m,n]ᵀ · x[m,k]`: left is `dy`, right `x`.
    WeightGradient,
}

impl Product {
    /// Whether neighbours in memory are neighbours along the depth, of the left and of the right operand.
    pub(crate) fn along_depth(self) -> [bool; 2] {
        match self {
            Product::Forward => [true, true],
            Product::InputGradient => [true, false],
            Product::WeightGradient => [false, false],
        }
    }

    /// Rows, columns and depth.
    pub(crate) fn shape(self, Gemm { m, n, k, .. }: Gemm) -> [usize; 3] {
        match self {
            Product::Forward => [m, n, k],
            Product::InputGradient => [m, k, n],
            Product::WeightGradient => [n, k, m],
        }
    }

    /// Elements from one row in memory to the next, of the result, of the left and of the right operand.
    pub(crate) fn strides(self, Gemm { k, stride, .. }: Gemm) -> [usize; 3] {
        match self {
            Product::Forward => [stride, k, k],
            Product::InputGradient | Product::WeightGradient => [k, stride, k],
        }
    }
}

/// What is done to a product before it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Epilogue {
    /// Nothing.
    None,
    /// `out = gelu(product)`, and the product itself goes to `input`, of the shape of `out`.
    Gelu {
        /// Where to.
        input: *mut c_void,
    },
    /// `out = product · gelu'(input)`, `input` of the shape of `out`.
    GeluGradient {
        /// What the GELU was taken of.
        input: *const c_void,
    },
}

/// A matrix product that a vendor's library may make. Matrices are row-major, in `dtype`, but the result of a weight
/// gradient is `f32` and is added to.
#[derive(Clone, Copy, Debug)]
pub struct LibraryProduct {
    /// Which.
    pub product: Product,
    /// Its shape.
    pub dims: Gemm,
    /// Of the operands.
    pub dtype: Dtype,
    /// The result.
    pub out: *mut c_void,
    /// The left operand.
    pub left: *const c_void,
    /// The right operand.
    pub right: *const c_void,
    /// `[n]`, added to every row of a forward product; or null.
    pub bias: *const c_void,
    /// `[m, n]`, added to a forward product; or null.
    pub residual: *const c_void,
    /// What follows.
    pub epilogue: Epilogue,
}
