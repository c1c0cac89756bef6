use crate::{Gemm, Products, Real, Weight};

/// Activations of the feed-forward layers, alone and in one with a product.
pub trait FeedForward: Products {
    /// SwiGLU (Shazeer, 2020): `y = silu(g) · u` for `x[rows, 2·width] = [g | u]`.
    fn swiglu(&self, y: &mut Real<Self>, x: &Real<Self>, rows: usize, width: usize);
    /// Backward of [`FeedForward::swiglu`].
    fn swiglu_bw(&self, dx: &mut Real<Self>, dy: &Real<Self>, x: &Real<Self>, rows: usize, width: usize);
    /// GELU in its tanh form (Hendrycks & Gimpel, 2016), on `len` elements.
    fn gelu(&self, y: &mut Real<Self>, x: &Real<Self>, len: usize);
    /// Backward of [`FeedForward::gelu`].
    fn gelu_bw(&self, dx: &mut Real<Self>, dy: &Real<Self>, x: &Real<Self>, len: usize);
    /// A product and the GELU of it: `x[m,n] = a[m,k] · w[n,k]ᵀ + bias[n]` and `y = gelu(x)`. One verb, because a
    /// device may apply the activation before the product leaves its registers.
    fn gemm_gelu<'w>(
        &self,
        y: &mut Real<Self>,
        x: &mut Real<Self>,
        a: &Real<Self>,
        w: impl Into<Weight<'w, Self>>,
        bias: Option<&Real<Self>>,
        dims: Gemm,
    ) {
        self.gemm(x, a, w, bias, None, dims);
        self.gelu(y, x, dims.m * dims.n);
    }
    /// Backward of a product whose input was a GELU: `dx = gelu_bw(dy[m,n] · w[n,k], x[m,k])`. `dact[m,k]` is room for
    /// the gradient between the two; what it holds afterwards is not said.
    fn gemm_dx_gelu<'w>(
        &self,
        dx: &mut Real<Self>,
        dact: &mut Real<Self>,
        dy: &Real<Self>,
        w: impl Into<Weight<'w, Self>>,
        x: &Real<Self>,
        dims: Gemm,
    ) {
        self.gemm_dx(dact, dy, w, dims);
        self.gelu_bw(dx, dact, x, dims.m * dims.k);
    }
}
