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
    /// RMSNorm of every query and key head of `x[rows, qkv]` with weights `wq`, `wk` (`head_dim` each; see
    /// [`Norm::plus_one`]), values copied (Qwen3); `rstd[rows · (heads + kv_heads)]` is kept.
    fn qk_norm(
        &self,
        y: &mut Real<Self>,
        rstd: &mut Acc<Self>,
        x: &Real<Self>,
        wq: &Real<Self>,
        wk: &Real<Self>,
        rows: usize,
        eps: f64,
        plus_one: bool,
        dims: Heads,
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
        rows: usize,
        plus_one: bool,
        dims: Heads,
    );
}
