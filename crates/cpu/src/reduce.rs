//! Sums over rows, each in the order of the rows whatever the threads.

use crate::real::{Real, Scalar};
use crate::simd::simd;
use crate::sync::Pool;

/// Columns that one task sums at a time when rows are reduced.
const SLAB: usize = 64;

simd! {
    /// `db += dy` for one row of a slab of columns.
    pub fn bias_row<R: Real>(db: &mut [R::Acc], dy: &[R]) {
        for (db, dy) in db.iter_mut().zip(dy) {
            *db += dy.up();
        }
    }
}

/// Calls `f(first column, slab of dw)`; rows are summed inside `f`, in order, so threads cannot change the sum.
pub fn slabs<S: Scalar>(pool: &Pool, dw: &mut [S], width: usize, f: impl Fn(usize, &mut [S]) + Sync) {
    pool.parts(dw, width, |from, part| {
        for (i, slab) in part.chunks_mut(SLAB).enumerate() {
            f(from + i * SLAB, slab);
        }
    });
}

/// Column sums of `dy[rows, width]` added to `db`.
pub fn add_columns<R: Real>(pool: &Pool, db: &mut [R::Acc], dy: &[R], rows: usize, width: usize) {
    slabs(pool, db, width, |col, db| {
        for r in 0..rows {
            bias_row(db, &dy[r * width + col..][..db.len()]);
        }
    });
}
