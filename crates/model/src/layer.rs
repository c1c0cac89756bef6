//! One layer, forward and backward: the backward reads as the forward mirrored.

use crate::activations::{Flow, Saved, Scratch, up_width};
use crate::config::Config;
use crate::linear::{activate, activate_bw, expand, linear, linear_bw, norm, norm_bw};
use crate::weights::{Layer, Linear, Norm};
use duel_backend::{Acc, Backend, Gemm, Index, Layout, Norm as NormDims, Real, Storage, Weight};

/// A layer's cached keys and values.
pub(crate) type KeysValues<B> = (Real<B>, Real<B>);

/// Where each row writes and reads in the cache: a row number, and two runs of rows.
pub(crate) struct CacheRows<B: Storage> {
    pub slots: Index<B>,
    pub runs: Index<B>,
}

/// Where attention finds keys and values; `C` is a cache, or a layer's part of one.
pub(crate) enum Attend<C> {
    /// In the packed rows themselves.
    Packed,
    /// There too, and the cache receives them: all that such a pass is for.
    Stored(C),
    /// In the cache, which receives those of the rows before.
    Cached(C),
}

impl<C> Attend<C> {
    /// The same of a part of the cache.
    pub fn part<'a, P>(&'a mut self, part: impl FnOnce(&'a mut C) -> P) -> Attend<P> {
        match self {
            Attend::Packed => Attend::Packed,
            Attend::Stored(cache) => Attend::Stored(part(cache)),
            Attend::Cached(cache) => Attend::Cached(part(cache)),
        }
    }
}

/// The norms and the four products of a layer.
struct Dims {
    norm: NormDims,
    qkv: Gemm,
    out: Gemm,
    up: Gemm,
    down: Gemm,
}

pub(crate) fn norm_dims(c: &Config, rows: usize) -> NormDims {
    NormDims { rows, width: c.width, eps: c.eps }
}

fn dims(c: &Config, rows: usize) -> Dims {
    let gemm = |n, k| Gemm::dense(rows, n, k);
    Dims {
        norm: norm_dims(c, rows),
        qkv: gemm(c.heads.qkv_width(), c.width),
        out: gemm(c.width, c.heads.q_width()),
        up: gemm(up_width(c), c.width),
        down: gemm(c.width, c.mlp_width),
    }
}

/// From `x` to `y`; without `y` it stops when all that is read later is there: by the backward, or of a pass that fills
/// a cache in the cache.
pub(crate) fn layer_forward<B: Backend>(
    b: &B,
    c: &Config,
    w: &Layer<Weight<'_, B>>,
    x: &Real<B>,
    y: Option<&mut Real<B>>,
    s: &mut Saved<B>,
    Scratch { normed, act, rope }: &mut Scratch<B>,
    layout: &Layout<B>,
    mut attend: Attend<(&mut KeysValues<B>, &CacheRows<B>)>,
) {
    let rows = layout.rows;
    let d = dims(c, rows);
    norm(b, normed, &mut s.attn_stats, x, &w.attn_norm, d.norm);
    match (&mut s.raw, &w.qk_norm) {
        (Some((raw, rstd)), Some((wq, wk))) => {
            linear(b, raw, normed, &w.qkv, None, d.qkv);
            b.qk_norm(&mut s.qkv, rstd, raw, wq.real(), wk.real(), rows, c.eps, c.heads);
        }
        _ => linear(b, &mut s.qkv, normed, &w.qkv, None, d.qkv),
    }
    if c.rope.is_some() {
        b.rope(&mut s.qkv, rope, &layout.positions, rows, false, c.heads);
    }
    if let Attend::Stored(((keys, values), at)) | Attend::Cached(((keys, values), at)) = &mut attend {
        b.kv_store(keys, values, &s.qkv, &at.slots, rows, c.heads);
    }
    match attend {
        Attend::Stored(_) if y.is_none() => return,
        Attend::Packed | Attend::Stored(_) => {
            b.attention(&mut s.attended, &mut s.lse, &s.qkv, layout, c.heads)
        }
        Attend::Cached(((keys, values), at)) => {
            b.attention_cached(&mut s.attended, &s.qkv, keys, values, &at.runs, rows, c.heads);
        }
    }
    linear(b, &mut s.middle, &s.attended, &w.out, Some(x), d.out);
    norm(b, normed, &mut s.mlp_stats, &s.middle, &w.mlp_norm, d.norm);
    expand(b, c, act, &mut s.up, normed, &w.up, y.is_some(), d.up);
    if let Some(y) = y {
        linear(b, y, act, &w.down, Some(&s.middle), d.down);
    }
}

/// How far a layer's backward has to go: its parts in the order in which the backward comes to them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reach {
    Down,
    Up,
    MlpNorm,
    Out,
    QkNorm,
    Qkv,
    AttnNorm,
    /// All of it, for what is trained below the layer.
    Below,
}

impl Reach {
    /// To the last of a layer's parameters that is trained; `None` where none is.
    pub(crate) fn of<T>(g: &Layer<Option<T>>) -> Option<Self> {
        let norm = |n: &Norm<Option<T>>| n.weight.is_some() || matches!(n.bias, Some(Some(_)));
        let map = |l: &Linear<Option<T>>| l.weight.is_some() || matches!(l.bias, Some(Some(_)));
        let parts = [
            (Reach::AttnNorm, norm(&g.attn_norm)),
            (Reach::Qkv, map(&g.qkv)),
            (Reach::QkNorm, g.qk_norm.as_ref().is_some_and(|(q, k)| q.is_some() || k.is_some())),
            (Reach::Out, map(&g.out)),
            (Reach::MlpNorm, norm(&g.mlp_norm)),
            (Reach::Up, map(&g.up)),
            (Reach::Down, map(&g.down)),
        ];
        parts.into_iter().find_map(|(part, trained)| trained.then_some(part))
    }
}

/// Mirrors [`layer_forward`] as far as `reach`: `f.stream` holds the gradient of its output and receives that of its
/// input `x`. What only gradients that are not there would read is not computed.
pub(crate) fn layer_backward<B: Backend>(
    b: &B,
    c: &Config,
    w: &Layer<Weight<'_, B>>,
    g: Layer<Option<&mut Acc<B>>>,
    reach: Reach,
    x: &Real<B>,
    s: &mut Saved<B>,
    f: &mut Flow<B>,
    Scratch { normed, act, rope }: &mut Scratch<B>,
    layout: &Layout<B>,
) {
    let rows = layout.rows;
    let d = dims(c, rows);
    if g.down.weight.is_some() {
        activate(b, c, act, &s.up, rows);
    }
    linear_bw(b, None, g.down, &f.stream, act, w.down.weight, d.down);
    if reach < Reach::Up {
        return;
    }
    activate_bw(b, c, &mut f.up, act, &f.stream, &s.up, w.down.weight, d.down);
    if g.up.weight.is_some() {
        norm(b, normed, &mut s.mlp_stats, &s.middle, &w.mlp_norm, d.norm);
    }
    let dx = (reach >= Reach::MlpNorm).then_some(&mut f.normed);
    linear_bw(b, dx, g.up, &f.up, normed, w.up.weight, d.up);
    if reach < Reach::MlpNorm {
        return;
    }
    norm_bw(b, &mut f.stream, g.mlp_norm, &f.normed, &s.middle, &s.mlp_stats, &w.mlp_norm, d.norm);
    if reach < Reach::Out {
        return;
    }
    let dx = (reach >= Reach::QkNorm).then_some(&mut f.attended);
    linear_bw(b, dx, g.out, &f.stream, &s.attended, w.out.weight, d.out);
    if reach < Reach::QkNorm {
        return;
    }
    b.attention_bw(&mut f.qkv, &f.attended, &s.attended, &s.lse, &s.qkv, layout, c.heads);
    if c.rope.is_some() {
        b.rope(&mut f.qkv, rope, &layout.positions, rows, true, c.heads);
    }
    if let (Some((raw, rstd)), Some((wq, wk)), Some((dwq, dwk))) = (&s.raw, &w.qk_norm, g.qk_norm) {
        b.qk_norm_bw(&mut f.qkv, dwq, dwk, raw, rstd, wq.real(), wk.real(), rows, c.heads);
    }
    if reach < Reach::Qkv {
        return;
    }
    if g.qkv.weight.is_some() {
        norm(b, normed, &mut s.attn_stats, x, &w.attn_norm, d.norm);
    }
    let dx = (reach >= Reach::AttnNorm).then_some(&mut f.normed);
    linear_bw(b, dx, g.qkv, &f.qkv, normed, w.qkv.weight, d.qkv);
    if reach < Reach::AttnNorm {
        return;
    }
    norm_bw(b, &mut f.stream, g.attn_norm, &f.normed, x, &s.attn_stats, &w.attn_norm, d.norm);
}
