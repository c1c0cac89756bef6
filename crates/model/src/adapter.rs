//! Low-rank adapters (LoRA: Hu et al., 2021) beside the maps of a layer: `y += c B A x` of some of a map's outputs,
//! with `A` of `[r, inputs]` and `B` of `[outputs, r]`. The weight may be frozen: its gradient is made where there is a
//! buffer for it, as everywhere.

use crate::weights::{Linear, Model, Shape};
use duel_backend::{Acc, Backend, Dropout, Gemm, Index, Real, Result, Storage, Weight};

/// An adapter's two maps, beside some outputs of a [`Linear`].
#[derive(Clone, Debug)]
pub struct Adapter<T> {
    /// Where it is, and how much it counts.
    pub part: Part,
    /// `[r, inputs]`.
    pub a: T,
    /// `[outputs of the part, r]`.
    pub b: T,
}

/// The outputs that an adapter is added to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Part {
    /// The first of them, in the map.
    pub at: usize,
    /// How many.
    pub rows: usize,
    /// Rank.
    pub r: usize,
    /// What `B A x` is multiplied by.
    pub scale: f64,
    /// Share of the inputs that is dropped in training.
    pub dropout: f64,
    /// Whose random numbers decide which.
    pub stream: u64,
}

impl Part {
    fn narrow(&self, d: Gemm) -> Gemm {
        Gemm::dense(d.m, self.r, d.k)
    }

    fn wide(&self, d: Gemm) -> Gemm {
        Gemm { m: d.m, n: self.rows, k: self.r, stride: d.stride }
    }
}

/// Room for what is between an adapter's two maps, and what decides which inputs are dropped.
pub(crate) struct Between<B: Storage> {
    narrow: Real<B>,
    dropped: Real<B>,
    /// Two words a row.
    keys: Index<B>,
    drops: bool,
}

impl<B: Storage> Between<B> {
    /// For the adapters of a model, passes of up to `rows` rows; `learns`: there are passes that drop.
    pub fn new(b: &B, manifest: &Model<Shape>, rows: usize, learns: bool) -> Result<Self> {
        let maps = manifest.layers.iter().flat_map(|layer| layer.maps());
        let all: Vec<_> = maps.flat_map(|map| &map.adapters).collect();
        let dropping = || all.iter().filter(|adapter| learns && adapter.part.dropout > 0.0);
        let widest = dropping().map(|adapter| adapter.a.cols).max().unwrap_or(0);
        Ok(Between {
            narrow: b.alloc(rows * all.iter().map(|adapter| adapter.part.r).max().unwrap_or(0))?,
            dropped: b.alloc(rows * widest)?,
            keys: b.alloc(if widest > 0 { 2 * rows } else { 0 })?,
            drops: false,
        })
    }

    /// Drops inputs from now on by the keys of the rows, two words each; `None`: none. Where no adapter drops any,
    /// there is no room for keys and nothing is done.
    pub fn drop_by(&mut self, b: &B, keys: Option<&[u32]>) {
        let keys = keys.filter(|_| b.len(&self.keys) > 0);
        self.drops = keys.is_some();
        if let Some(keys) = keys {
            b.upload(&mut self.keys, 0, keys);
        }
    }
}

impl<B: Backend> Between<B> {
    fn dropout(&self, part: &Part, d: Gemm) -> Option<Dropout> {
        let of = Dropout { rows: d.m, width: d.k, rate: part.dropout, stream: part.stream };
        (self.drops && part.dropout > 0.0).then_some(of)
    }

    /// `c A x` of what is kept of `x`, which is in `dropped` where anything is dropped.
    fn narrowed(&mut self, b: &B, adapter: &Adapter<Weight<'_, B>>, x: &Real<B>, d: Gemm) {
        let part = &adapter.part;
        let x = match self.dropout(part, d) {
            Some(of) => {
                b.dropout(&mut self.dropped, x, &self.keys, false, of);
                &self.dropped
            }
            None => x,
        };
        b.gemm(&mut self.narrow, x, adapter.a, None, None, part.narrow(d));
        b.scale(&mut self.narrow, part.scale, d.m * part.r);
    }

    /// `c Bᵀ dy`: the gradient between the maps.
    fn narrowed_bw(&mut self, b: &B, adapter: &Adapter<Weight<'_, B>>, dy: &Real<B>, d: Gemm) {
        let part = &adapter.part;
        b.gemm_dx_of(&mut self.narrow, dy, part.at, adapter.b.real(), part.wide(d));
        b.scale(&mut self.narrow, part.scale, d.m * part.r);
    }

    /// Adds `Aᵀ` of the gradient between the maps to `dx`, where the input was not dropped.
    fn widened(&mut self, b: &B, dx: &mut Real<B>, adapter: &Adapter<Weight<'_, B>>, d: Gemm) {
        let part = &adapter.part;
        match self.dropout(part, d) {
            Some(of) => {
                b.gemm_dx(&mut self.dropped, &self.narrow, adapter.a, part.narrow(d));
                b.dropout(dx, &self.dropped, &self.keys, true, of);
            }
            None => b.gemm_dx_onto(dx, &self.narrow, adapter.a.real(), part.narrow(d)),
        }
    }
}

/// Adds to `y`, of dims `d`, what the adapters of `w` make of `x`.
pub(crate) fn adapt<B: Backend>(
    b: &B,
    y: &mut Real<B>,
    x: &Real<B>,
    w: &Linear<Weight<'_, B>>,
    between: &mut Between<B>,
    d: Gemm,
) {
    for adapter in &w.adapters {
        between.narrowed(b, adapter, x, d);
        b.gemm_onto(y, adapter.part.at, &between.narrow, adapter.b.real(), adapter.part.wide(d));
    }
}

/// Backward of [`adapt`]: the gradients of the adapters that are trained, `+=`, `dB = dyᵀ (c A x)` and
/// `dA = (c Bᵀ dy)ᵀ x`; and added to `dx` what comes through them.
pub(crate) fn adapt_bw<B: Backend>(
    b: &B,
    mut dx: Option<&mut Real<B>>,
    g: Vec<Adapter<Option<&mut Acc<B>>>>,
    dy: &Real<B>,
    x: &Real<B>,
    w: &Linear<Weight<'_, B>>,
    between: &mut Between<B>,
    d: Gemm,
) {
    for (Adapter { part, a, b: db }, adapter) in g.into_iter().zip(&w.adapters) {
        let trained = a.zip(db).map(|(da, db)| {
            between.narrowed(b, adapter, x, d);
            b.gemm_dw_of(db, dy, part.at, &between.narrow, part.wide(d));
            da
        });
        if trained.is_none() && dx.is_none() {
            continue;
        }
        between.narrowed_bw(b, adapter, dy, d);
        if let Some(da) = trained {
            let x = if between.dropout(&part, d).is_some() { &between.dropped } else { x };
            b.gemm_dw(da, &between.narrow, x, part.narrow(d));
        }
        if let Some(dx) = dx.as_deref_mut() {
            between.widened(b, dx, adapter, d);
        }
    }
}

/// Adds to `dx` what comes through the adapters of `w`: `Aᵀ (c Bᵀ dy)` where it was not dropped.
pub(crate) fn adapt_dx<B: Backend>(
    b: &B,
    dx: &mut Real<B>,
    dy: &Real<B>,
    w: &Linear<Weight<'_, B>>,
    between: &mut Between<B>,
    d: Gemm,
) {
    for adapter in &w.adapters {
        between.narrowed_bw(b, adapter, dy, d);
        between.widened(b, dx, adapter, d);
    }
}
