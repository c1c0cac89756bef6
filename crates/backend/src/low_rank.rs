use crate::{Acc, Gemm, Index, Products, Real};

/// Which elements [`LowRank::dropout`] keeps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub width: usize,
    /// Share that is dropped, below 1.
    pub rate: f64,
    /// Whose mask it is: maps that read the same rows draw numbers of their own.
    pub stream: u64,
}

/// Products of a narrow map beside a wide one, whose outputs are some columns of it: column `at` and those behind. Rows
/// of `y` and `dy` are [`Gemm::stride`] elements apart.
pub trait LowRank: Products {
    /// Whether there are such products. Where there are none, calling one is a programmer's error.
    const ADAPTS: bool = false;

    /// `y[m, at..at + n] += x[m,k] · w[n,k]ᵀ`.
    fn gemm_onto(&self, y: &mut Real<Self>, at: usize, x: &Real<Self>, w: &Real<Self>, dims: Gemm);
    /// `dx[m,k] = dy[m, at..at + n] · w[n,k]`.
    fn gemm_dx_of(&self, dx: &mut Real<Self>, dy: &Real<Self>, at: usize, w: &Real<Self>, dims: Gemm);
    /// `dx[m,k] += dy[m,n] · w[n,k]`.
    fn gemm_dx_onto(&self, dx: &mut Real<Self>, dy: &Real<Self>, w: &Real<Self>, dims: Gemm);
    /// `dw[n,k] += dy[m, at..at + n]ᵀ · x[m,k]`.
    fn gemm_dw_of(&self, dw: &mut Acc<Self>, dy: &Real<Self>, at: usize, x: &Real<Self>, dims: Gemm);
    /// `y = x / (1 - rate)` (`+=` with `onto`) where an element is kept, 0 where it is dropped (Srivastava et al.,
    /// 2014). Which are kept is decided by the row's key, two words of `keys`, the stream and the column alone.
    fn dropout(&self, y: &mut Real<Self>, x: &Real<Self>, keys: &Index<Self>, onto: bool, of: Dropout);
}
