//! Sums over rows, each in an order that depends on the number of rows alone.

use crate::real::{Real, Scalar, take};
use crate::simd::simd;
use crate::sync::{Pool, Rows};
use std::ops::Range;

/// Rows that are summed in order at least, and so many such sums at most: enough for as many threads.
const ROWS: usize = 64;
const SUMS: usize = 64;

simd! {
    /// `sum += x`.
    pub fn add_sum<S: Scalar>(sum: &mut [S], x: &[S]) {
        for (sum, x) in sum.iter_mut().zip(x) {
            *sum += *x;
        }
    }

    /// `db += dy` for four rows of `db.len()`.
    pub fn bias_rows<R: Real>(db: &mut [R::Acc], dy: &[R]) {
        let n = db.len();
        let (a, b, c, d) = (&dy[..n], &dy[n..][..n], &dy[2 * n..][..n], &dy[3 * n..][..n]);
        for ((((db, a), b), c), d) in db.iter_mut().zip(a).zip(b).zip(c).zip(d) {
            *db += (a.up() + b.up()) + (c.up() + d.up());
        }
    }

    /// `db += dy` for one row.
    pub fn bias_row<R: Real>(db: &mut [R::Acc], dy: &[R]) {
        for (db, dy) in db.iter_mut().zip(dy) {
            *db += dy.up();
        }
    }
}

/// Adds to each of `outs`, vectors of `width`, its sum over `rows` rows. `f(rows, sums)` adds up a run of rows, in one
/// pass over all that it reads, for those of `outs` that are wanted.
pub fn over_rows<S: Scalar, const N: usize>(
    pool: &Pool,
    outs: [Option<&mut [S]>; N],
    width: usize,
    rows: usize,
    f: impl Fn(Range<usize>, [Option<&mut [S]>; N]) + Sync,
) {
    let run = rows.div_ceil(SUMS).next_multiple_of(4).max(ROWS);
    let count = rows.div_ceil(run);
    let wanted = outs.each_ref().map(Option::is_some);
    let row = wanted.iter().filter(|wanted| **wanted).count() * width;
    S::with_shared(|shared| {
        let [sums] = take(shared, &[count * row]).try_into().unwrap_or_else(|_| unreachable!());
        let each = Rows::new(sums, count, row);
        pool.split(count, 1, pool.parts_of(rows * N * width), |runs| {
            for t in runs {
                // SAFETY: a sum is in one range.
                let sums = unsafe { each.row(t) };
                sums.fill(S::ZERO);
                let mut sums = sums.chunks_exact_mut(width);
                let sums = wanted.map(|wanted| wanted.then(|| sums.next()).flatten());
                f(t * run..rows.min((t + 1) * run), sums);
            }
        });
        for (k, out) in outs.into_iter().flatten().enumerate() {
            let sums = &*sums;
            pool.parts(&mut out[..width], width, |from, out| {
                for sums in sums.chunks_exact(row) {
                    add_sum(out, &sums[k * width + from..][..out.len()]);
                }
            });
        }
    });
}

/// Column sums of `dy[rows, width]` added to `db`.
pub fn add_columns<R: Real>(pool: &Pool, db: &mut [R::Acc], dy: &[R], rows: usize, width: usize) {
    over_rows(pool, [Some(db)], width, rows, |run, [sums]| {
        if let Some(sums) = sums {
            let (fours, rest) = dy[run.start * width..run.end * width].split_at(run.len() / 4 * 4 * width);
            fours.chunks_exact(4 * width).for_each(|dy| bias_rows(sums, dy));
            rest.chunks_exact(width).for_each(|dy| bias_row(sums, dy));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Around the edges of a run, and with more rows than runs of the least length hold: every row once, what was there
    /// kept, and the same bits at any number of threads.
    #[test]
    fn columns_are_summed_once() {
        for rows in [0, 1, ROWS - 1, ROWS, ROWS + 1, 3 * ROWS + 2, SUMS * ROWS + 5] {
            for width in [1, 7, 130] {
                let whole: Vec<f64> = (0..rows * width).map(|i| ((i * 37) % 1013) as f64 - 500.0).collect();
                let thirds: Vec<f32> = whole.iter().map(|&x| (x / 3.0) as f32).collect();
                let run = |threads| {
                    let (pool, mut sums, mut rounded) =
                        (Pool::new(threads), vec![1.0; width], vec![0.0f32; width]);
                    add_columns(&pool, &mut sums, &whole, rows, width);
                    add_columns(&pool, &mut rounded, &thirds, rows, width);
                    (sums, rounded)
                };
                let (sums, rounded) = run(1);
                for (column, sum) in sums.iter().enumerate() {
                    let want: f64 = whole.iter().skip(column).step_by(width).sum();
                    assert_eq!(*sum, 1.0 + want, "{rows}x{width}, column {column}");
                }
                assert_eq!(run(3), (sums, rounded), "{rows}x{width}");
            }
        }
    }
}
