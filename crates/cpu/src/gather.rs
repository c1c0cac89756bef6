//! Rows by their numbers: embedding, gather and scatter.

use crate::Cpu;
use crate::gemm::Panels;
use crate::real::{Lift, Real, Scalar};
use crate::simd::simd;
use crate::sync::{Pool, SyncPtr};
use duel_backend::{Gather, Layout, Weight};
use half::bf16;

simd! {
    /// `y += x`.
    pub fn add<R: Real>(y: &mut [R], x: &[R]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = R::down(y.up() + x.up());
        }
    }

    /// `y = factor · y`.
    pub fn scale_part<R: Real>(y: &mut [R], factor: R::Acc) {
        for y in y {
            *y = R::down(y.up() * factor);
        }
    }

    /// `y += x`, a gradient collecting a row.
    pub fn add_up<R: Real>(y: &mut [R::Acc], x: &[R]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y += x.up();
        }
    }
}

/// `y[r] = x[index[r]]`.
fn gather<R: Real>(pool: &Pool, y: &mut [R], x: &[R], index: &[u32], rows: usize, width: usize) {
    pool.rows(y, rows, width, |r, y| y.copy_from_slice(&x[index[r] as usize * width..][..width]));
}

/// As [`gather`], from a table in bf16.
fn gather_up<R: Real>(pool: &Pool, y: &mut [R], x: &[bf16], index: &[u32], rows: usize, width: usize) {
    pool.rows(y, rows, width, |r, y| {
        for (y, x) in y.iter_mut().zip(&x[index[r] as usize * width..][..width]) {
            *y = R::down(x.lift());
        }
    });
}

/// `dst[index[r]] += src[r]`, rows in order; each task owns a slab of columns.
fn scatter<T: Send, R: Real>(
    pool: &Pool,
    dst: &mut [T],
    src: &[R],
    index: &[u32],
    rows: usize,
    width: usize,
    add_row: impl Fn(&mut [T], &[R]) + Sync,
) {
    let height = dst.len() / width;
    assert!(index[..rows].iter().all(|&i| (i as usize) < height), "row number outside the table");
    let dst = SyncPtr::new(dst);
    let parts = if rows * width < 1 << 13 { 1 } else { pool.threads() };
    pool.split(width, 16, parts, |cols| {
        for r in 0..rows {
            // SAFETY: the row is in the table (asserted) and no other task has these columns.
            let out = unsafe {
                std::slice::from_raw_parts_mut(dst.at(index[r] as usize * width + cols.start), cols.len())
            };
            add_row(out, &src[r * width + cols.start..][..cols.len()]);
        }
    });
}

/// `dtable[ids[r]] += dy[r]`.
fn scatter_up<R: Real>(pool: &Pool, dtable: &mut [R::Acc], dy: &[R], ids: &[u32], rows: usize, width: usize) {
    scatter(pool, dtable, dy, ids, rows, width, |y, x| add_up::<R>(y, x));
}

impl<R: Real> Gather for Cpu<R> {
    fn embed<'w>(
        &self,
        y: &mut Vec<R>,
        table: impl Into<Weight<'w, Self>>,
        pos_table: Option<&Vec<R>>,
        layout: &Layout<Self>,
        width: usize,
    ) {
        let (ids, rows) = (&layout.tokens, layout.rows);
        match table.into() {
            Weight::Real(table) => gather(&self.pool, y, table, ids, rows, width),
            Weight::Narrow(table) => gather_up(&self.pool, y, table, ids, rows, width),
            Weight::Blocks(table) => {
                let table = Panels::of(table);
                self.pool.rows(y, rows, width, |r, y| table.row(y, ids[r] as usize));
            }
        }
        if let Some(table) = pos_table {
            let at = &layout.positions;
            self.pool.rows(y, rows, width, |r, y| add(y, &table[at[r] as usize * width..][..width]));
        }
    }

    fn embed_bw(
        &self,
        dtable: Option<&mut Vec<R::Acc>>,
        dpos_table: Option<&mut Vec<R::Acc>>,
        dy: &Vec<R>,
        layout: &Layout<Self>,
        width: usize,
    ) {
        if let Some(dtable) = dtable {
            scatter_up(&self.pool, dtable, dy, &layout.tokens, layout.rows, width);
        }
        if let Some(dpos) = dpos_table {
            scatter_up(&self.pool, dpos, dy, &layout.positions, layout.rows, width);
        }
    }

    fn scale(&self, y: &mut Vec<R>, factor: f64, len: usize) {
        let factor = R::Acc::of(factor);
        self.pool.parts(y, len, |_, y| scale_part(y, factor));
    }

    fn gather(&self, y: &mut Vec<R>, x: &Vec<R>, index: &Vec<u32>, rows: usize, width: usize) {
        gather(&self.pool, y, x, index, rows, width);
    }

    fn scatter_add(&self, dx: &mut Vec<R>, dy: &Vec<R>, index: &Vec<u32>, rows: usize, width: usize) {
        scatter(&self.pool, dx, dy, index, rows, width, |y, x| add(y, x));
    }
}
