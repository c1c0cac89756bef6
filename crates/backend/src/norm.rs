use crate::{Acc, Heads, Real, Storage};

/// Dimensions of a norm over the last axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Norm {
    /// Rows that are normalised on their own.
    pub rows: usize,
    /// Elements in a row.
    pub width: usize,
    /// Added to the mean square (or variance) before the root.
    pub eps: f64,
    /// Of an RMSNorm, whether `w` holds what its factors have above 1: `1 + w` are they (Gemma).
    pub plus_one: bool,
}

/// Dimensions of the norms of queries and keys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QkNorm {
    /// Rows.
    pub rows: usize,
    /// Heads of a row.
    pub heads: Heads,
    /// Added to the mean square before the root.
    pub eps: f64,
    /// As [`Norm::plus_one`].
    pub plus_one: bool,
    /// Whether all query heads are normalised at once, with a weight for every element, and so all key heads
    /// (OLMo 2); otherwise each head is alone, with weights that all share.
    pub whole: bool,
}

impl QkNorm {
    /// Of queries and of keys, how many parts of a row are normalised, and elements of each.
    pub fn parts(self) -> [(usize, usize); 2] {
        let Heads { heads, kv_heads, head_dim } = self.heads;
        match self.whole {
            true => [(1, self.heads.q_width()), (1, self.heads.kv_width())],
            false => [(heads, head_dim), (kv_heads, head_dim)],
        }
    }

    /// Statistics of a row.
    pub fn stats(self) -> usize {
        self.parts().map(|(count, _)| count).iter().sum()
    }
}

/// Norms of rows and of heads, and the sum where a norm ends a branch.
pub trait Norms: Storage {
    /// `y += x`, on `len` elements.
    fn add(&self, y: &mut Real<Self>, x: &Real<Self>, len: usize);
    /// RMSNorm (Zhang & Sennrich, 2019): `y = x · rstd · w`, `rstd = 1/sqrt(mean(x²) + eps)`; `rstd[rows]` is kept.
    fn rmsnorm(&self, y: &mut Real<Self>, rstd: &mut Acc<Self>, x: &Real<Self>, w: &Real<Self>, dims: Norm);
    /// Backward of [`Norms::rmsnorm`]: `dx +=` (the residual's gradient is already there), `dw +=` where it is wanted.
    fn rmsnorm_bw(
        &self,
        dx: &mut Real<Self>,
        dw: Option<&mut Acc<Self>>,
        dy: &Real<Self>,
        x: &Real<Self>,
        rstd: &Acc<Self>,
        w: &Real<Self>,
        dims: Norm,
    );
    /// LayerNorm (Ba et al., 2016): `y = (x - mean) · rstd · w + b`; `stats[2·rows]` keeps `mean, rstd` a row.
    fn layernorm(
        &self,
        y: &mut Real<Self>,
        stats: &mut Acc<Self>,
        x: &Real<Self>,
        w: &Real<Self>,
        b: &Real<Self>,
        dims: Norm,
    );
    /// Backward of [`Norms::layernorm`]: `dx +=`, `dw +=` and `db +=` where they are wanted.
    fn layernorm_bw(
        &self,
        dx: &mut Real<Self>,
        dw: Option<&mut Acc<Self>>,
        db: Option<&mut Acc<Self>>,
        dy: &Real<Self>,
        x: &Real<Self>,
        stats: &Acc<Self>,
        w: &Real<Self>,
        dims: Norm,
    );
    /// Whether [`QkNorm::whole`] may be of fewer keys than queries. A device without such kernels is not asked.
    const WHOLE_OF_FEWER_KEYS: bool = false;

    /// RMSNorm of the queries and keys of `x[rows, qkv]` with weights `wq`, `wk`, values copied (Qwen3);
    /// `rstd[rows, stats]` is kept.
    fn qk_norm(
        &self,
        y: &mut Real<Self>,
        rstd: &mut Acc<Self>,
        x: &Real<Self>,
        wq: &Real<Self>,
        wk: &Real<Self>,
        dims: QkNorm,
    );
    /// Backward of [`Norms::qk_norm`], in place: `dqkv` holds the gradient of `y` and receives that of `x`;
    /// `dwq +=` and `dwk +=` where they are wanted.
    fn qk_norm_bw(
        &self,
        dqkv: &mut Real<Self>,
        dwq: Option<&mut Acc<Self>>,
        dwk: Option<&mut Acc<Self>>,
        x: &Real<Self>,
        rstd: &Acc<Self>,
        wq: &Real<Self>,
        wk: &Real<Self>,
        dims: QkNorm,
    );
    /// Whether there are LayerNorms of query and key heads. Where there are none, calling one is a programmer's error.
    const LAYERNORMS_OF_HEADS: bool = false;

    /// LayerNorm of every query and key head of `x[rows, qkv]` alone, with weights `w` and offsets `b` of queries and
    /// of keys, values copied (Phi); `stats[rows, 2·(heads + kv_heads)]` keeps `mean, rstd` a head.
    fn qk_layernorm(
        &self,
        y: &mut Real<Self>,
        stats: &mut Acc<Self>,
        x: &Real<Self>,
        w: [&Real<Self>; 2],
        b: [&Real<Self>; 2],
        dims: QkNorm,
    );
    /// Backward of [`Norms::qk_layernorm`], in place as [`Norms::qk_norm_bw`]; `dw +=` and `db +=` of queries and of
    /// keys where they are wanted.
    fn qk_layernorm_bw(
        &self,
        dqkv: &mut Real<Self>,
        dw: [Option<&mut Acc<Self>>; 2],
        db: [Option<&mut Acc<Self>>; 2],
        x: &Real<Self>,
        stats: &Acc<Self>,
        w: [&Real<Self>; 2],
        dims: QkNorm,
    );
}
