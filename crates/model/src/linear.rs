//! The maps and norms of a layer with their parameters as a model holds them, forward and backward. A gradient is
//! computed where there is a buffer for it.

use crate::adapter::{Between, adapt, adapt_bw, adapt_dx};
use crate::config::Mlp;
use crate::weights::{Linear, Norm};
use duel_backend::{Acc, Backend, Gemm, Norm as NormDims, QkNorm as QkDims, Real, Weight};

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

/// Norms of queries and keys with their parameters.
pub(crate) fn qk_norm<B: Backend>(
    b: &B,
    y: &mut Real<B>,
    stats: &mut Acc<B>,
    x: &Real<B>,
    (q, k): &(Norm<Weight<'_, B>>, Norm<Weight<'_, B>>),
    d: QkDims,
) {
    let (wq, wk) = (q.weight.real(), k.weight.real());
    match q.bias.zip(k.bias) {
        None => b.qk_norm(y, stats, x, wq, wk, d),
        Some((bq, bk)) => b.qk_layernorm(y, stats, x, [wq, wk], [bq.real(), bk.real()], d),
    }
}

/// Backward of [`qk_norm`], in place.
pub(crate) fn qk_norm_bw<B: Backend>(
    b: &B,
    dqkv: &mut Real<B>,
    [gq, gk]: [Norm<Option<&mut Acc<B>>>; 2],
    x: &Real<B>,
    stats: &Acc<B>,
    (q, k): &(Norm<Weight<'_, B>>, Norm<Weight<'_, B>>),
    d: QkDims,
) {
    let (wq, wk) = (q.weight.real(), k.weight.real());
    match gq.bias.zip(gk.bias) {
        None => b.qk_norm_bw(dqkv, gq.weight, gk.weight, x, stats, wq, wk, d),
        Some((dbq, dbk)) => {
            b.qk_layernorm_bw(dqkv, [gq.weight, gk.weight], [dbq, dbk], x, stats, [wq, wk], d);
        }
    }
}

/// `y = x wᵀ + b (+ residual)`, and what adapters add.
pub(crate) fn linear<B: Backend>(
    b: &B,
    y: &mut Real<B>,
    x: &Real<B>,
    w: &Linear<Weight<'_, B>>,
    residual: Option<&Real<B>>,
    between: &mut Between<B>,
    d: Gemm,
) {
    b.gemm(y, x, w.weight, w.bias.map(Weight::real), residual, d);
    adapt(b, y, x, w, between, d);
}

/// Backward of [`linear`]: `dx =` of weights in whatever form, and the gradients `+=`. `x` is read for those that
/// [`Linear::reads_input`] is of.
pub(crate) fn linear_bw<B: Backend>(
    b: &B,
    mut dx: Option<&mut Real<B>>,
    g: Linear<Option<&mut Acc<B>>>,
    dy: &Real<B>,
    x: &Real<B>,
    w: &Linear<Weight<'_, B>>,
    between: &mut Between<B>,
    d: Gemm,
) {
    if let Some(dw) = g.weight {
        b.gemm_dw(dw, dy, x, d);
    }
    if let Some(db) = g.bias.flatten() {
        b.bias_dw(db, dy, d);
    }
    if let Some(dx) = dx.as_deref_mut() {
        b.gemm_dx(dx, dy, w.weight, d);
    }
    adapt_bw(b, dx, g.adapters, dy, x, w, between, d);
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
    between: &mut Between<B>,
    d: Gemm,
) {
    if !mlp.gated && w.adapters.is_empty() {
        // One verb whether the activation is wanted or not: a device may make the product by itself with other bits.
        return b.gemm_activate(act, up, x, w.weight, w.bias.map(Weight::real), mlp.activation, d);
    }
    linear(b, up, x, w, None, between, d);
    if activated {
        activate(b, mlp, act, up, d.m, if mlp.gated { d.n / 2 } else { d.n });
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
    w: &Linear<Weight<'_, B>>,
    between: &mut Between<B>,
    d: Gemm,
) {
    if !mlp.gated && w.adapters.is_empty() {
        return b.gemm_dx_activate(dup, dact, dy, w.weight, up, mlp.activation, d);
    }
    b.gemm_dx(dact, dy, w.weight, d);
    adapt_dx(b, dact, dy, w, between, d);
    match mlp.gated {
        true => b.glu_bw(dup, dact, up, d.m, d.k, mlp.activation),
        false => b.activate_bw(dup, dact, up, d.m * d.k, mlp.activation),
    }
}
