//! The maps and norms of a layer with their parameters as a model holds them, forward and backward. A gradient is
//! computed where there is a buffer for it.

use crate::config::{Config, Mlp};
use crate::weights::{Linear, Norm};
use duel_backend::{Acc, Backend, Gemm, Norm as NormDims, Real, Weight};

pub(crate) fn norm<B: Backend>(
    b: &B,
    y: &mut Real<B>,
    stats: &mut Acc<B>,
    x: &Real<B>,
    w: &Norm<Weight<'_, B>>,
    d: NormDims,
) {
    match w.bias {
        None => b.rmsnorm(y, stats, x, w.weight.real(), d),
        Some(bias) => b.layernorm(y, stats, x, w.weight.real(), bias.real(), d),
    }
}

/// Backward of [`norm`]: `dx +=`.
pub(crate) fn norm_bw<B: Backend>(
    b: &B,
    dx: &mut Real<B>,
    g: Norm<Option<&mut Acc<B>>>,
    dy: &Real<B>,
    x: &Real<B>,
    stats: &Acc<B>,
    w: &Norm<Weight<'_, B>>,
    d: NormDims,
) {
    match g.bias {
        None => b.rmsnorm_bw(dx, g.weight, dy, x, stats, w.weight.real(), d),
        Some(db) => b.layernorm_bw(dx, g.weight, db, dy, x, stats, w.weight.real(), d),
    }
}

/// `y = x wᵀ + b (+ residual)`.
pub(crate) fn linear<B: Backend>(
    b: &B,
    y: &mut Real<B>,
    x: &Real<B>,
    w: &Linear<Weight<'_, B>>,
    residual: Option<&Real<B>>,
    d: Gemm,
) {
    b.gemm(y, x, w.weight, w.bias.map(Weight::real), residual, d);
}

/// Backward of [`linear`]: `dx =` of weights in whatever form, and the gradients `+=`. `x` is read for the weight's
/// alone.
pub(crate) fn linear_bw<B: Backend>(
    b: &B,
    dx: Option<&mut Real<B>>,
    g: Linear<Option<&mut Acc<B>>>,
    dy: &Real<B>,
    x: &Real<B>,
    w: Weight<'_, B>,
    d: Gemm,
) {
    if let Some(dw) = g.weight {
        b.gemm_dw(dw, dy, x, d);
    }
    if let Some(db) = g.bias.flatten() {
        b.bias_dw(db, dy, d);
    }
    if let Some(dx) = dx {
        b.gemm_dx(dx, dy, w, d);
    }
}

/// The first half of the feed-forward: `up`, and its activation where that is wanted too (`activated`).
pub(crate) fn expand<B: Backend>(
    b: &B,
    c: &Config,
    act: &mut Real<B>,
    up: &mut Real<B>,
    x: &Real<B>,
    w: &Linear<Weight<'_, B>>,
    activated: bool,
    d: Gemm,
) {
    match c.mlp {
        // One verb whether the activation is wanted or not: a device may make the product by itself with other bits.
        Mlp::Gelu => b.gemm_gelu(act, up, x, w.weight, w.bias.map(Weight::real), d),
        Mlp::SwiGlu => {
            linear(b, up, x, w, None, d);
            if activated {
                activate(b, c, act, up, d.m);
            }
        }
    }
}

/// The activation alone, of what [`expand`] left in `up`.
pub(crate) fn activate<B: Backend>(b: &B, c: &Config, act: &mut Real<B>, up: &Real<B>, rows: usize) {
    match c.mlp {
        Mlp::SwiGlu => b.swiglu(act, up, rows, c.mlp_width),
        Mlp::Gelu => b.gelu(act, up, rows * c.mlp_width),
    }
}

/// Gradient of `up` from that of the second half's result, through its weights `w` and the activation. `dact` is room
/// for what is between them.
pub(crate) fn activate_bw<B: Backend>(
    b: &B,
    c: &Config,
    dup: &mut Real<B>,
    dact: &mut Real<B>,
    dy: &Real<B>,
    up: &Real<B>,
    w: Weight<'_, B>,
    d: Gemm,
) {
    match c.mlp {
        Mlp::SwiGlu => {
            b.gemm_dx(dact, dy, w, d);
            b.swiglu_bw(dup, dact, up, d.m, c.mlp_width);
        }
        Mlp::Gelu => b.gemm_dx_gelu(dup, dact, dy, w, up, d),
    }
}
