//! Rows of the hidden states that a head works on, and their way back.

use duel_backend::{Backend, Gemm, Index, Map, MapGradients, Real, Result, Storage};

/// Room for rows of the hidden states that a head works on, and for their gradients.
pub(super) struct Gathered<B: Storage> {
    rows: Index<B>,
    pub hidden: Real<B>,
    dhidden: Real<B>,
    pub width: usize,
}

impl<B: Storage> Gathered<B> {
    /// Room for `capacity` rows of `width`.
    pub fn new(b: &B, width: usize, capacity: usize) -> Result<Self> {
        let (hidden, dhidden) = (b.alloc(capacity * width)?, b.alloc(capacity * width)?);
        Ok(Gathered { rows: b.alloc(capacity)?, hidden, dhidden, width })
    }
}

impl<B: Backend> Gathered<B> {
    /// Takes the rows `rows` of `hidden`.
    pub fn take(&mut self, b: &B, hidden: &Real<B>, rows: &[u32]) {
        b.upload(&mut self.rows, 0, rows);
        b.gather(&mut self.hidden, hidden, &self.rows, rows.len(), self.width);
    }

    /// The backward of a product of them with `w`, given the gradient `dy` of what came out: `dw +=` where there are
    /// one, and added to `dhidden` in the places that they were taken from.
    pub fn give_back(
        &mut self,
        b: &B,
        w: Map<'_, B>,
        dw: MapGradients<'_, B>,
        dy: &Real<B>,
        dhidden: &mut Real<B>,
        dims: Gemm,
    ) {
        b.gemm_dx(&mut self.dhidden, dy, w.weight, dims);
        if let Some(db) = dw.bias {
            b.bias_dw(db, dy, dims);
        }
        if let Some(dw) = dw.weight {
            b.gemm_dw(dw, dy, &self.hidden, dims);
        }
        b.scatter_add(dhidden, &self.dhidden, &self.rows, dims.m, self.width);
    }
}
