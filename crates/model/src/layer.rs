//! One layer, forward and backward: the backward reads as the forward mirrored.

use crate::activations::{Branch, Flow, Saved, Scratch};
use crate::adapter::Between;
use crate::config::{Block, Config, NormKind, QkNorm};
use crate::linear::{activate, activate_bw, expand, linear, linear_bw, norm, norm_bw, qk_norm, qk_norm_bw};
use crate::weights::{Layer, Linear, Norm};
use duel_backend::{
    Acc, Backend, Gemm, Index, Layout, Norm as NormDims, QkNorm as QkDims, Real, Storage, Weight,
};

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
    NormDims { rows, width: c.width, eps: c.eps, plus_one: c.norm == NormKind::RmsPlusOne }
}

fn qk_dims(c: &Config, NormDims { rows, eps, plus_one, .. }: NormDims) -> QkDims {
    QkDims { rows, heads: c.heads, eps, plus_one, whole: c.qk_norm == Some(QkNorm::Whole) }
}

fn dims(c: &Config, rows: usize) -> Dims {
    let gemm = |n, k| Gemm::dense(rows, n, k);
    Dims {
        norm: norm_dims(c, rows),
        qkv: gemm(c.heads.qkv_width(), c.width),
        out: gemm(c.width, c.heads.q_width()),
        up: gemm(c.up_width(), c.width),
        down: gemm(c.width, c.mlp_width),
    }
}

/// From `x` to `y`; without `y` it stops when all that is read later is there: by the backward, or of a pass that fills
/// a cache in the cache. `l` is the layer's number.
pub(crate) fn layer_forward<B: Backend>(
    b: &B,
    c: &Config,
    l: usize,
    w: &Layer<Weight<'_, B>>,
    x: &Real<B>,
    y: Option<&mut Real<B>>,
    s: &mut Saved<B>,
    scratch: &mut Scratch<B>,
    layout: &Layout<B>,
    mut attend: Attend<(&mut KeysValues<B>, &CacheRows<B>)>,
) {
    let rows = layout.rows;
    let d = dims(c, rows);
    let scores = c.scores(l, scratch.positions);
    let input = normed(b, &mut scratch.normed, &mut s.attn_stats, x, w.attn_norm.as_ref(), d.norm);
    match (&mut s.raw, &w.qk_norm) {
        (Some((raw, stats)), Some(norms)) => {
            linear(b, raw, input, &w.qkv, None, &mut scratch.between, d.qkv);
            qk_norm(b, &mut s.qkv, stats, raw, norms, qk_dims(c, d.norm));
        }
        _ => linear(b, &mut s.qkv, input, &w.qkv, None, &mut scratch.between, d.qkv),
    }
    if let Some(table) = scratch.rope(c.kind(l).turns) {
        b.rope(&mut s.qkv, table, scratch.places(layout), rows, false, c.heads);
    }
    if let Attend::Stored(((keys, values), at)) | Attend::Cached(((keys, values), at)) = &mut attend {
        b.kv_store(keys, values, &s.qkv, &at.slots, rows, c.heads);
    }
    match attend {
        Attend::Stored(_) if y.is_none() => return,
        Attend::Packed | Attend::Stored(_) => {
            b.attention(&mut s.attended, &mut s.lse, &s.qkv, layout, c.heads, scores)
        }
        Attend::Cached(((keys, values), at)) => {
            b.attention_cached(&mut s.attended, &s.qkv, keys, values, &at.runs, rows, c.heads, scores);
        }
    }
    let post = s.attn_branch.as_mut().zip(w.attn_post.as_ref());
    join(b, &mut s.middle, x, &s.attended, &w.out, post, &mut scratch.between, d.out, d.norm);
    let Scratch { normed: room, act, between, .. } = scratch;
    let input = match c.block {
        // What the attention has read is still there.
        Block::ParallelOneNorm => &*room,
        Block::Parallel => normed(b, room, &mut s.mlp_stats, x, w.mlp_norm.as_ref(), d.norm),
        _ => normed(b, room, &mut s.mlp_stats, &s.middle, w.mlp_norm.as_ref(), d.norm),
    };
    let post = s.mlp_branch.as_mut().zip(w.mlp_post.as_ref());
    expand(b, c.mlp, act, &mut s.up, input, &w.up, y.is_some() || post.is_some(), between, d.up);
    match (y, post) {
        (Some(y), post) => join(b, y, &s.middle, act, &w.down, post, between, d.down, d.norm),
        (None, Some((branch, w_post))) => {
            linear(b, &mut branch.raw, act, &w.down, None, between, d.down);
            norm(b, room, &mut branch.stats, &branch.raw, w_post, d.norm);
        }
        (None, None) => {}
    }
}

/// What a branch reads: the norm of `x`, made in `room`, or `x` itself.
fn normed<'a, B: Backend>(
    b: &B,
    room: &'a mut Real<B>,
    stats: &mut Acc<B>,
    x: &'a Real<B>,
    w: Option<&Norm<Weight<'_, B>>>,
    d: NormDims,
) -> &'a Real<B> {
    let Some(w) = w else { return x };
    norm(b, room, stats, x, w, d);
    room
}

/// Where a branch ends: `y = x + map(last)`, or the norm of what the map gives is added.
fn join<B: Backend>(
    b: &B,
    y: &mut Real<B>,
    x: &Real<B>,
    last: &Real<B>,
    map: &Linear<Weight<'_, B>>,
    post: Option<(&mut Branch<B>, &Norm<Weight<'_, B>>)>,
    between: &mut Between<B>,
    d: Gemm,
    of_norm: NormDims,
) {
    let Some((Branch { raw, stats }, w)) = post else {
        return linear(b, y, last, map, Some(x), between, d);
    };
    linear(b, raw, last, map, None, between, d);
    norm(b, y, stats, raw, w, of_norm);
    b.add(y, x, d.m * d.n);
}

/// How far a layer's backward has to go: its parts in the order in which the backward comes to them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reach {
    MlpPost,
    Down,
    Up,
    MlpNorm,
    AttnPost,
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
        let one = |n: &Norm<Option<T>>| n.weight.is_some() || matches!(n.bias, Some(Some(_)));
        let norm = |n: &Option<Norm<Option<T>>>| n.as_ref().is_some_and(one);
        let parts = [
            (Reach::AttnNorm, norm(&g.attn_norm)),
            (Reach::Qkv, g.qkv.is_trained()),
            (Reach::QkNorm, g.qk_norm.as_ref().is_some_and(|(q, k)| one(q) || one(k))),
            (Reach::Out, g.out.is_trained()),
            (Reach::AttnPost, norm(&g.attn_post)),
            (Reach::MlpNorm, norm(&g.mlp_norm)),
            (Reach::Up, g.up.is_trained()),
            (Reach::Down, g.down.is_trained()),
            (Reach::MlpPost, norm(&g.mlp_post)),
        ];
        parts.into_iter().find_map(|(part, trained)| trained.then_some(part))
    }
}

/// Mirrors [`layer_forward`] as far as `reach`: `f.stream` holds the gradient of its output and receives that of its
/// input `x`. What only gradients that are not there would read is not computed.
pub(crate) fn layer_backward<B: Backend>(
    b: &B,
    c: &Config,
    l: usize,
    w: &Layer<Weight<'_, B>>,
    mut g: Layer<Option<&mut Acc<B>>>,
    reach: Reach,
    x: &Real<B>,
    s: &mut Saved<B>,
    f: &mut Flow<B>,
    scratch: &mut Scratch<B>,
    layout: &Layout<B>,
) {
    let rows = layout.rows;
    let d = dims(c, rows);
    let scores = c.scores(l, scratch.positions);
    let Scratch { normed: room, act, between, .. } = &mut *scratch;
    // What the feed-forward has read: a norm of it, or itself.
    let (read, stats, w_norm, g_norm) = match c.block {
        Block::ParallelOneNorm => (x, &mut s.attn_stats, w.attn_norm.as_ref(), &mut g.attn_norm),
        Block::Parallel => (x, &mut s.mlp_stats, w.mlp_norm.as_ref(), &mut g.mlp_norm),
        _ => (&s.middle, &mut s.mlp_stats, w.mlp_norm.as_ref(), &mut g.mlp_norm),
    };
    let post = s.mlp_branch.as_ref().zip(w.mlp_post.as_ref());
    let dy = join_bw(b, &mut f.normed, g.mlp_post, &f.stream, post, d.norm);
    if g.down.reads_input() {
        activate(b, c.mlp, act, &s.up, rows, c.mlp_width);
    }
    linear_bw(b, None, g.down, dy, act, &w.down, between, d.down);
    if reach < Reach::Up {
        return;
    }
    activate_bw(b, c.mlp, &mut f.up, act, dy, &s.up, &w.down, between, d.down);
    let input = match g.up.reads_input() {
        true => normed(b, room, stats, read, w_norm, d.norm),
        false => read,
    };
    let dx = (reach >= Reach::MlpNorm).then_some(&mut f.normed);
    linear_bw(b, dx, g.up, &f.up, input, &w.up, between, d.up);
    if reach < Reach::MlpNorm {
        return;
    }
    if !c.block.is_parallel() {
        normed_bw(b, &mut f.stream, g_norm, &f.normed, read, stats, w_norm, d.norm);
    }
    if reach >= Reach::AttnPost {
        let post = s.attn_branch.as_ref().zip(w.attn_post.as_ref());
        let dy = join_bw(b, &mut f.normed, g.attn_post, &f.stream, post, d.norm);
        let dx = (reach >= Reach::QkNorm).then_some(&mut f.attended);
        linear_bw(b, dx, g.out, dy, &s.attended, &w.out, between, d.out);
    }
    if c.block.is_parallel() {
        // Only now: the attention's branch ends where that of the feed-forward does, and had to read the same.
        normed_bw(b, &mut f.stream, g_norm, &f.normed, read, stats, w_norm, d.norm);
    }
    if reach < Reach::QkNorm {
        return;
    }
    b.attention_bw(&mut f.qkv, &f.attended, &s.attended, &s.lse, &s.qkv, layout, c.heads, scores);
    if let Some(table) = scratch.rope(c.kind(l).turns) {
        b.rope(&mut f.qkv, table, scratch.places(layout), rows, true, c.heads);
    }
    if let (Some((raw, stats)), Some(norms), Some((gq, gk))) = (&s.raw, &w.qk_norm, g.qk_norm) {
        qk_norm_bw(b, &mut f.qkv, [gq, gk], raw, stats, norms, qk_dims(c, d.norm));
    }
    if reach < Reach::Qkv {
        return;
    }
    let input = match g.qkv.reads_input() {
        true => normed(b, &mut scratch.normed, &mut s.attn_stats, x, w.attn_norm.as_ref(), d.norm),
        false => x,
    };
    let dx = (reach >= Reach::AttnNorm).then_some(&mut f.normed);
    linear_bw(b, dx, g.qkv, &f.qkv, input, &w.qkv, &mut scratch.between, d.qkv);
    if reach < Reach::AttnNorm {
        return;
    }
    normed_bw(b, &mut f.stream, &mut g.attn_norm, &f.normed, x, &s.attn_stats, w.attn_norm.as_ref(), d.norm);
}

/// Backward of [`join`], down to what the map gives: the gradient of the stream, or in `room` that through the norm.
fn join_bw<'a, B: Backend>(
    b: &B,
    room: &'a mut Real<B>,
    g: Option<Norm<Option<&mut Acc<B>>>>,
    stream: &'a Real<B>,
    post: Option<(&Branch<B>, &Norm<Weight<'_, B>>)>,
    d: NormDims,
) -> &'a Real<B> {
    let (Some((Branch { raw, stats }, w)), Some(g)) = (post, g) else { return stream };
    b.zero(room);
    norm_bw(b, room, g, stream, raw, stats, w, d);
    room
}

/// Backward of [`normed`]: `stream +=` the gradient of `x` by that of what the branch has read.
fn normed_bw<B: Backend>(
    b: &B,
    stream: &mut Real<B>,
    g: &mut Option<Norm<Option<&mut Acc<B>>>>,
    dy: &Real<B>,
    x: &Real<B>,
    stats: &Acc<B>,
    w: Option<&Norm<Weight<'_, B>>>,
    d: NormDims,
) {
    match (g, w) {
        (Some(g), Some(w)) => {
            // A norm that two branches read has both of their gradients.
            let g = Norm {
                weight: g.weight.as_deref_mut(),
                bias: g.bias.as_mut().map(|bias| bias.as_deref_mut()),
            };
            norm_bw(b, stream, g, dy, x, stats, w, d);
        }
        _ => b.add(stream, dy, d.rows * d.width),
    }
}
