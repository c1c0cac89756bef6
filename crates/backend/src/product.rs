use crate::{Acc, Real, Storage, Weight};

/// Dimensions of a matrix product `y[m,n] = x[m,k] · w[n,k]ᵀ` and of its two backward products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gemm {
    /// Rows of `x` and `y`: tokens.
    pub m: usize,
    /// Columns of `y`: outputs.
    pub n: usize,
    /// Columns of `x`: inputs.
    pub k: usize,
    /// Elements from one row of `y`, and of its gradient, to the next; `n` where they are dense. What lies between is
    /// not touched. Bias gradients, residuals and the products with a GELU want dense rows.
    pub stride: usize,
}

impl Gemm {
    /// The product of dense matrices.
    pub fn dense(m: usize, n: usize, k: usize) -> Self {
        Gemm { m, n, k, stride: n }
    }

    /// Elements from the first of `y` to the last.
    ///
    /// # Panics
    /// When its rows overlap.
    pub fn y_len(self) -> usize {
        assert!(self.stride >= self.n, "rows of {} columns every {} elements", self.n, self.stride);
        if self.m * self.n == 0 { 0 } else { (self.m - 1) * self.stride + self.n }
    }

    /// # Panics
    /// When there is anything between the rows of `y`.
    pub fn assert_dense(self) {
        assert_eq!(self.stride, self.n, "this verb wants dense rows");
    }
}

/// Matrix products, forward and backward: `y = x wᵀ`.
pub trait Products: Storage {
    /// Whether verbs read weights in [`Blocks`](crate::Blocks). Where they do not, such weights are a programmer's
    /// error.
    const READS_BLOCKS: bool = false;

    /// `y[m,n] = x[m,k] · w[n,k]ᵀ + bias[n] + residual[m,n]`.
    fn gemm<'w>(
        &self,
        y: &mut Real<Self>,
        x: &Real<Self>,
        w: impl Into<Weight<'w, Self>>,
        bias: Option<&Real<Self>>,
        residual: Option<&Real<Self>>,
        dims: Gemm,
    );
    /// `dx[m,k] = dy[m,n] · w[n,k]`.
    fn gemm_dx<'w>(&self, dx: &mut Real<Self>, dy: &Real<Self>, w: impl Into<Weight<'w, Self>>, dims: Gemm);
    /// `dw[n,k] += dy[m,n]ᵀ · x[m,k]`.
    fn gemm_dw(&self, dw: &mut Acc<Self>, dy: &Real<Self>, x: &Real<Self>, dims: Gemm);
    /// `db[n] += sum over rows of dy[m,n]`.
    fn bias_dw(&self, db: &mut Acc<Self>, dy: &Real<Self>, dims: Gemm);
}
