use crate::{Acc, Index, Layout, Real, Storage, Weight};

/// Rows by their numbers: the embedding, and the rows that the head scores.
pub trait Gather: Storage {
    /// `y[r] = table[ids[r]] (+ pos_table[positions[r]])`, for the layout's rows; `width` columns.
    fn embed<'w>(
        &self,
        y: &mut Real<Self>,
        table: impl Into<Weight<'w, Self>>,
        pos_table: Option<&Real<Self>>,
        layout: &Layout<Self>,
        width: usize,
    );
    /// `dtable[ids[r]] += dy[r]`, and the same for the position table, rows in order; each where it is wanted.
    fn embed_bw(
        &self,
        dtable: Option<&mut Acc<Self>>,
        dpos_table: Option<&mut Acc<Self>>,
        dy: &Real<Self>,
        layout: &Layout<Self>,
        width: usize,
    );
    /// `y = factor · y`, on `len` elements, with the factor in the precision of sums; its own backward.
    fn scale(&self, y: &mut Real<Self>, factor: f64, len: usize);
    /// `y[i] = x[index[i]]` for `rows` rows of `width` columns; an index may repeat.
    fn gather(&self, y: &mut Real<Self>, x: &Real<Self>, index: &Index<Self>, rows: usize, width: usize);
    /// `dx[index[i]] += dy[i]`, `i` in order: the backward of [`Gather::gather`].
    fn scatter_add(
        &self,
        dx: &mut Real<Self>,
        dy: &Real<Self>,
        index: &Index<Self>,
        rows: usize,
        width: usize,
    );
}
