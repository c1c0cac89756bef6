//! The maps and norms of a layer with their parameters as a model holds them, forward and backward. A gradient is
//! computed where there is a buffer for it.

use crate::config::Mlp;
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
    mlp: Mlp,
    act: &mut Real<B>,
    up: &mut Real<B>,
    x: &Real<B>,
    w: &Linear<Weight<'_, B>>,
    activated: bool,
    d: Gemm,
) {
    if !mlp.gated {
        // One verb whether the activation is wanted or not: a device may make the product by itself with other bits.
        b.gemm_activate(act, up, x, w.weight, w.bias.map(Weight::real), mlp.activation, d);
        return;
    }
    linear(b, up, x, w, None, d);
    if activated {
        activate(b, mlp, act, up, d.m, d.n / 2);
    }
}

/// The activation alone, of what [`expand`] left in `up`; it is `width` columns wide.
pub(crate) fn activate<B: Backend>(
    b: &B,
    mlp: Mlp,
    act: &mut Real<B>,
    up: &Real<B>,
    rows: usize,
    width: usize,
) {
    match mlp.gated {
        true => b.glu(act, up, rows, width, mlp.activation),
        false => b.activate(act, up, rows * width, mlp.activation),
    }
}

/// Gradient of `up` from that of the second half's result, through its weights `w` and the activation. `dact` is room
/// for what is between them.
pub(crate) fn activate_bw<B: Backend>(
    b: &B,
    mlp: Mlp,
    dup: &mut Real<B>,
    dact: &mut Real<B>,
    dy: &Real<B>,
    up: &Real<B>,
    w: Weight<'_, B>,
    d: Gemm,
) {
    if !mlp.gated {
        b.gemm_dx_activate(dup, dact, dy, w, up, mlp.activation, d);
        return;
    }
    b.gemm_dx(dact, dy, w, d);
    b.glu_bw(dup, dact, up, d.m, d.k, mlp.activation);
}
