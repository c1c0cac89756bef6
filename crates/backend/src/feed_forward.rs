use crate::{Gemm, Products, Real, Weight};

/// A function of one number between the two halves of a feed-forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x · sigmoid(x)` (Elfwing et al., 2018).
    Silu,
    /// `x · Φ(x)`, `Φ` the distribution function of the normal distribution (Hendrycks & Gimpel, 2016).
    Gelu,
    /// The same in its tanh form.
    GeluTanh,
    /// `x · sigmoid(1.702 x)`, its sigmoid form.
    GeluSigmoid,
    /// `max(x, 0)`; its slope at 0 is 0.
    Relu,
}

/// Activations of the feed-forward layers, alone and in one with a product.
pub trait FeedForward: Products {
    /// A gated activation (Shazeer, 2020): `y = f(g) · u` for `x[rows, 2·width] = [g | u]`.
    fn glu(&self, y: &mut Real<Self>, x: &Real<Self>, rows: usize, width: usize, f: Activation);
    /// Backward of [`FeedForward::glu`].
    fn glu_bw(
        &self,
        dx: &mut Real<Self>,
        dy: &Real<Self>,
        x: &Real<Self>,
        rows: usize,
        width: usize,
        f: Activation,
    );
    /// `y = f(x)`, on `len` elements.
    fn activate(&self, y: &mut Real<Self>, x: &Real<Self>, len: usize, f: Activation);
    /// Backward of [`FeedForward::activate`].
    fn activate_bw(&self, dx: &mut Real<Self>, dy: &Real<Self>, x: &Real<Self>, len: usize, f: Activation);
    /// A product and the activation of it: `x[m,n] = a[m,k] · w[n,k]ᵀ + bias[n]` and `y = f(x)`. One verb, because a
    /// device may apply the activation before the product leaves its registers.
    fn gemm_activate<'w>(
        &self,
        y: &mut Real<Self>,
        x: &mut Real<Self>,
        a: &Real<Self>,
        w: impl Into<Weight<'w, Self>>,
        bias: Option<&Real<Self>>,
        f: Activation,
        dims: Gemm,
    ) {
        self.gemm(x, a, w, bias, None, dims);
        self.activate(y, x, dims.m * dims.n, f);
    }
    /// Backward of a product whose input was an activation: `dx = f_bw(dy[m,n] · w[n,k], x[m,k])`. `dact[m,k]` is room
    /// for the gradient between the two; what it holds afterwards is not said.
    fn gemm_dx_activate<'w>(
        &self,
        dx: &mut Real<Self>,
        dact: &mut Real<Self>,
        dy: &Real<Self>,
        w: impl Into<Weight<'w, Self>>,
        x: &Real<Self>,
        f: Activation,
        dims: Gemm,
    ) {
        self.gemm_dx(dact, dy, w, dims);
        self.activate_bw(dx, dact, x, dims.m * dims.k, f);
    }
}
