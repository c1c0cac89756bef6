//! The transformer, forward and backward: the backward reads as the forward mirrored.

use crate::config::{Config, Mlp};
use crate::weights::{Layer, Linear, Model, Norm, Weights};
use duel_backend::{Acc, Backend, Float, Gemm, Index, Layout, Norm as NormDims, Real, Result, Weight};

/// What a pass keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Nothing: forward passes only.
    Nothing,
    /// The residual stream between layers; the backward computes each layer again (activation checkpointing).
    Residuals,
    /// Everything that the backward reads.
    All,
}

/// What one layer's forward leaves for its backward.
struct Saved<B: Backend> {
    attn_stats: Acc<B>,
    /// Before the per-head norm, where there is one.
    raw: Option<(Real<B>, Acc<B>)>,
    qkv: Real<B>,
    attended: Real<B>,
    lse: Acc<B>,
    middle: Real<B>,
    mlp_stats: Acc<B>,
    up: Real<B>,
}

/// Buffers that only the backward needs.
struct Gradients<B: Backend> {
    stream: Real<B>,
    normed: Real<B>,
    qkv: Real<B>,
    attended: Real<B>,
    up: Real<B>,
    act: Real<B>,
}

/// Every buffer of a pass, allocated once for the largest micro-batch.
///
/// Layer `l` keeps its intermediate results in `saved[l % saved.len()]` and its input in
/// `residuals[l % residuals.len()]`: their lengths are the whole policy of what is kept.
pub struct Activations<B: Backend> {
    /// Final hidden states `[rows, width]`, normed: the input of the head.
    pub hidden: Real<B>,
    /// Gradient of [`Activations::hidden`], filled by the loss.
    pub dhidden: Real<B>,
    max_rows: usize,
    residuals: Vec<Real<B>>,
    saved: Vec<Saved<B>>,
    stats: Acc<B>,
    normed: Real<B>,
    act: Real<B>,
    rope: Acc<B>,
    gradients: Option<Gradients<B>>,
}

/// A layer's cached keys and values.
pub(crate) type KeysValues<B> = (Real<B>, Real<B>);

/// Where attention finds keys and values.
pub(crate) enum Attend<'a, B: Backend> {
    /// In the packed rows themselves.
    Packed,
    /// In a cache; see [`crate::generate`].
    Cached(&'a mut [KeysValues<B>], &'a CacheRows<B>),
}

/// Where each decoded row writes and reads in the cache.
pub(crate) struct CacheRows<B: Backend> {
    pub slots: Index<B>,
    pub bases: Index<B>,
    pub lens: Index<B>,
}

impl<B: Backend> Activations<B> {
    /// Buffers for up to `max_rows` rows whose positions stay below `max_positions`.
    pub fn new(b: &B, c: &Config, max_rows: usize, max_positions: usize, keep: Keep) -> Result<Self> {
        let (rows, h) = (max_rows, c.heads);
        let stats = |n: usize| b.alloc::<B::Acc>(2 * n);
        let up_width = up_width(c);
        let saved = |_| -> Result<Saved<B>> {
            Ok(Saved {
                attn_stats: stats(rows)?,
                raw: match c.qk_norm {
                    true => Some((b.alloc(rows * h.qkv_width())?, b.alloc(rows * (h.heads + h.kv_heads))?)),
                    false => None,
                },
                qkv: b.alloc(rows * h.qkv_width())?,
                attended: b.alloc(rows * h.q_width())?,
                lse: b.alloc(rows * h.heads)?,
                middle: b.alloc(rows * c.width)?,
                mlp_stats: stats(rows)?,
                up: b.alloc(rows * up_width)?,
            })
        };
        let table: Vec<B::Acc> = c.rope_table(max_positions).into_iter().map(B::Acc::from_f64).collect();
        let mut rope = b.alloc(table.len())?;
        b.upload(&mut rope, 0, &table);
        let residuals = if keep == Keep::Nothing { 2 } else { c.layers + 1 };
        let gradients = match keep {
            Keep::Nothing => None,
            _ => Some(Gradients {
                stream: b.alloc(rows * c.width)?,
                normed: b.alloc(rows * c.width)?,
                qkv: b.alloc(rows * h.qkv_width())?,
                attended: b.alloc(rows * h.q_width())?,
                up: b.alloc(rows * up_width)?,
                act: b.alloc(rows * c.mlp_width)?,
            }),
        };
        Ok(Activations {
            hidden: b.alloc(rows * c.width)?,
            dhidden: b.alloc(if gradients.is_some() { rows * c.width } else { 0 })?,
            max_rows,
            residuals: (0..residuals).map(|_| b.alloc(rows * c.width)).collect::<Result<_>>()?,
            saved: (0..if keep == Keep::All { c.layers } else { 1 }).map(saved).collect::<Result<_>>()?,
            stats: stats(rows)?,
            normed: b.alloc(rows * c.width)?,
            act: b.alloc(rows * c.mlp_width)?,
            rope,
            gradients,
        })
    }

    /// Most rows of a micro-batch.
    pub fn max_rows(&self) -> usize {
        self.max_rows
    }

    /// Bytes that [`Activations::new`] allocates with the same arguments.
    pub fn bytes(c: &Config, max_rows: usize, keep: Keep, real: usize, acc: usize) -> usize {
        let h = c.heads;
        let (qkv, up) = (h.qkv_width(), up_width(c));
        let raw = if c.qk_norm { qkv * real + (h.heads + h.kv_heads) * acc } else { 0 };
        let saved = raw + (qkv + h.q_width() + c.width + up) * real + (4 + h.heads) * acc;
        let (layers, residuals) = match keep {
            Keep::Nothing => (1, 2),
            Keep::Residuals => (1, c.layers + 1),
            Keep::All => (c.layers, c.layers + 1),
        };
        let gradients = match keep {
            Keep::Nothing => 0,
            _ => 3 * c.width + qkv + h.q_width() + up + c.mlp_width,
        };
        max_rows * (layers * saved + ((residuals + 2) * c.width + c.mlp_width + gradients) * real + 2 * acc)
    }
}

fn up_width(c: &Config) -> usize {
    match c.mlp {
        Mlp::SwiGlu => 2 * c.mlp_width,
        Mlp::Gelu => c.mlp_width,
    }
}

fn norm<B: Backend>(
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

fn norm_bw<B: Backend>(
    b: &B,
    dx: &mut Real<B>,
    g: &mut Norm<Acc<B>>,
    dy: &Real<B>,
    x: &Real<B>,
    stats: &Acc<B>,
    w: &Norm<Weight<'_, B>>,
    d: NormDims,
) {
    match &mut g.bias {
        None => b.rmsnorm_bw(dx, &mut g.weight, dy, x, stats, w.weight.real(), d),
        Some(db) => b.layernorm_bw(dx, &mut g.weight, db, dy, x, stats, w.weight.real(), d),
    }
}

fn linear<B: Backend>(
    b: &B,
    y: &mut Real<B>,
    x: &Real<B>,
    w: &Linear<Weight<'_, B>>,
    residual: Option<&Real<B>>,
    d: Gemm,
) {
    b.gemm(y, x, w.weight, w.bias.map(Weight::real), residual, d);
}

/// Gradients of the weights only; the caller asks for `dx` where it needs it.
fn linear_dw<B: Backend>(b: &B, g: &mut Linear<Acc<B>>, dy: &Real<B>, x: &Real<B>, d: Gemm) {
    b.gemm_dw(&mut g.weight, dy, x, d);
    if let Some(db) = &mut g.bias {
        b.bias_dw(db, dy, d);
    }
}

/// The first half of the feed-forward: `up`, and its activation where that is wanted too (`activated`).
fn expand<B: Backend>(
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
                b.swiglu(act, up, d.m, c.mlp_width);
            }
        }
    }
}

/// The four products of a layer.
struct Dims {
    norm: NormDims,
    qkv: Gemm,
    out: Gemm,
    up: Gemm,
    down: Gemm,
}

fn dims(c: &Config, rows: usize) -> Dims {
    let gemm = |n, k| Gemm::dense(rows, n, k);
    Dims {
        norm: NormDims { rows, width: c.width, eps: c.eps },
        qkv: gemm(c.heads.qkv_width(), c.width),
        out: gemm(c.width, c.heads.q_width()),
        up: gemm(up_width(c), c.width),
        down: gemm(c.width, c.mlp_width),
    }
}

/// One layer from `x` to `y`; without `y` it stops when all that the backward reads is there.
fn layer_forward<B: Backend>(
    b: &B,
    c: &Config,
    w: &Layer<Weight<'_, B>>,
    x: &Real<B>,
    y: Option<&mut Real<B>>,
    s: &mut Saved<B>,
    (normed, act, rope): (&mut Real<B>, &mut Real<B>, &Acc<B>),
    layout: &Layout<B>,
    cache: Option<(&mut KeysValues<B>, &CacheRows<B>)>,
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
    match cache {
        None => b.attention(&mut s.attended, &mut s.lse, &s.qkv, layout, c.heads),
        Some(((keys, values), at)) => {
            b.kv_store(keys, values, &s.qkv, &at.slots, rows, c.heads);
            b.attention_cached(&mut s.attended, &s.qkv, keys, values, &at.bases, &at.lens, rows, c.heads);
        }
    }
    linear(b, &mut s.middle, &s.attended, &w.out, Some(x), d.out);
    norm(b, normed, &mut s.mlp_stats, &s.middle, &w.mlp_norm, d.norm);
    expand(b, c, act, &mut s.up, normed, &w.up, y.is_some(), d.up);
    if let Some(y) = y {
        linear(b, y, act, &w.down, Some(&s.middle), d.down);
    }
}

/// Mirrors [`layer_forward`]: `g.stream` holds the gradient of its output and receives that of its input `x`.
fn layer_backward<B: Backend>(
    b: &B,
    c: &Config,
    w: &Layer<Weight<'_, B>>,
    grad: &mut Layer<Acc<B>>,
    x: &Real<B>,
    s: &mut Saved<B>,
    g: &mut Gradients<B>,
    (normed, act, rope): (&mut Real<B>, &mut Real<B>, &Acc<B>),
    layout: &Layout<B>,
) {
    let rows = layout.rows;
    let d = dims(c, rows);
    let down = w.down.weight.real();
    match c.mlp {
        Mlp::SwiGlu => {
            b.swiglu(act, &s.up, rows, c.mlp_width);
            b.gemm_dx(&mut g.act, &g.stream, down, d.down);
            b.swiglu_bw(&mut g.up, &g.act, &s.up, rows, c.mlp_width);
        }
        Mlp::Gelu => {
            b.gelu(act, &s.up, rows * c.mlp_width);
            b.gemm_dx_gelu(&mut g.up, &mut g.act, &g.stream, down, &s.up, d.down);
        }
    }
    linear_dw(b, &mut grad.down, &g.stream, act, d.down);
    norm(b, normed, &mut s.mlp_stats, &s.middle, &w.mlp_norm, d.norm);
    linear_dw(b, &mut grad.up, &g.up, normed, d.up);
    b.gemm_dx(&mut g.normed, &g.up, w.up.weight.real(), d.up);
    norm_bw(b, &mut g.stream, &mut grad.mlp_norm, &g.normed, &s.middle, &s.mlp_stats, &w.mlp_norm, d.norm);

    linear_dw(b, &mut grad.out, &g.stream, &s.attended, d.out);
    b.gemm_dx(&mut g.attended, &g.stream, w.out.weight.real(), d.out);
    b.attention_bw(&mut g.qkv, &g.attended, &s.attended, &s.lse, &s.qkv, layout, c.heads);
    if c.rope.is_some() {
        b.rope(&mut g.qkv, rope, &layout.positions, rows, true, c.heads);
    }
    if let (Some((raw, rstd)), Some((wq, wk)), Some((dwq, dwk))) = (&s.raw, &w.qk_norm, &mut grad.qk_norm) {
        b.qk_norm_bw(&mut g.qkv, dwq, dwk, raw, rstd, wq.real(), wk.real(), rows, c.heads);
    }
    norm(b, normed, &mut s.attn_stats, x, &w.attn_norm, d.norm);
    linear_dw(b, &mut grad.qkv, &g.qkv, normed, d.qkv);
    b.gemm_dx(&mut g.normed, &g.qkv, w.qkv.weight.real(), d.qkv);
    norm_bw(b, &mut g.stream, &mut grad.attn_norm, &g.normed, x, &s.attn_stats, &w.attn_norm, d.norm);
}

/// Runs the model over a packed micro-batch: `a.hidden` receives the final hidden states of every row.
///
/// # Panics
/// When the layout has more rows than the activations have room for.
pub fn forward<B: Backend>(
    b: &B,
    c: &Config,
    w: &impl Weights<B>,
    layout: &Layout<B>,
    a: &mut Activations<B>,
) {
    run(b, c, &w.view(), layout, a, Attend::Packed);
}

pub(crate) fn run<B: Backend>(
    b: &B,
    c: &Config,
    w: &Model<Weight<'_, B>>,
    layout: &Layout<B>,
    a: &mut Activations<B>,
    mut attend: Attend<'_, B>,
) {
    assert!(layout.rows <= a.max_rows, "more rows than the activations have room for");
    b.embed(&mut a.residuals[0], w.embed, w.positions.map(Weight::real), layout, c.width);
    let streams = a.residuals.len();
    let kept = a.saved.len();
    for (l, layer) in w.layers.iter().enumerate() {
        let (x, y) = pair(&mut a.residuals, l % streams, (l + 1) % streams);
        let cache = match &mut attend {
            Attend::Packed => None,
            Attend::Cached(caches, rows) => Some((&mut caches[l], *rows)),
        };
        let scratch = (&mut a.normed, &mut a.act, &a.rope);
        layer_forward(b, c, layer, x, Some(y), &mut a.saved[l % kept], scratch, layout, cache);
    }
    let last = &a.residuals[w.layers.len() % streams];
    norm(b, &mut a.hidden, &mut a.stats, last, &w.norm, dims(c, layout.rows).norm);
}

/// Adds the gradients of a micro-batch, given `a.dhidden`, to `grads`. Follows a [`forward`] of the same layout.
///
/// # Panics
/// When the activations were made for forward passes only.
pub fn backward<B: Backend>(
    b: &B,
    c: &Config,
    w: &Model<Real<B>>,
    grads: &mut Model<Acc<B>>,
    layout: &Layout<B>,
    a: &mut Activations<B>,
) {
    let Some(g) = &mut a.gradients else {
        panic!("these activations were allocated for forward passes only")
    };
    let kept = a.saved.len();
    let w = w.view();
    b.zero(&mut g.stream);
    let last = &a.residuals[w.layers.len()];
    norm_bw(
        b,
        &mut g.stream,
        &mut grads.norm,
        &a.dhidden,
        last,
        &a.stats,
        &w.norm,
        dims(c, layout.rows).norm,
    );
    for (l, layer) in w.layers.iter().enumerate().rev() {
        let (x, saved) = (&a.residuals[l], &mut a.saved[l % kept]);
        if kept < w.layers.len() {
            let scratch = (&mut a.normed, &mut a.act, &a.rope);
            layer_forward(b, c, layer, x, None, saved, scratch, layout, None);
        }
        let scratch = (&mut a.normed, &mut a.act, &a.rope);
        layer_backward(b, c, layer, &mut grads.layers[l], x, saved, g, scratch, layout);
    }
    b.embed_bw(&mut grads.embed, grads.positions.as_mut(), &g.stream, layout, c.width);
}

/// Element `i` to read and element `j` to write.
fn pair<T>(all: &mut [T], i: usize, j: usize) -> (&T, &mut T) {
    assert_ne!(i, j);
    if i < j {
        let (a, b) = all.split_at_mut(j);
        (&a[i], &mut b[0])
    } else {
        let (a, b) = all.split_at_mut(i);
        (&b[0], &mut a[j])
    }
}
