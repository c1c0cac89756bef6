//! Softmax attention over groups with a shared prompt.
//!
//! Keys and values are packed once, for all query heads that read them. A task then takes one block of queries of one
//! head through the keys that it sees, a tile at a time, whose scores stay in the L1 cache: what a row has summed is
//! corrected when its largest score grows (Dao et al., 2022). Memory grows with the length, not with its square, and of
//! the scores only the log-sum-exp of each row is kept for the backward. Tiles that the windows of all of a block's
//! queries have passed are left out.
//!
//! A row's sums run over its keys in order, in tiles that begin with its prefix and with its segment: its bits depend
//! on nothing else in the batch. The gradient of a key sums over the queries in order, whichever thread computes them.

mod backward;
mod blocks;
mod cap;
mod forward;
mod kernel;
mod lanes;
mod order;
mod packed;
mod products;
#[cfg(test)]
mod tests;

use crate::Cpu;
use crate::gemm::HasKernel;
use crate::real::{Real, Scalar};
use crate::simd::simd;
pub use cap::{Cap, factor_and_cap};
use duel_backend::{Attention, Heads, Layout, Scores};
pub use kernel::HasLoops;

simd! {
    /// Rotates the pairs `(x[i], x[i + n/2])` of one head by the row's angles.
    pub fn rotate<R: Real>(head: &mut [R], cos_sin: &[R::Acc], sign: R::Acc) {
        let half = head.len() / 2;
        let (lo, hi) = head.split_at_mut(half);
        let (cos, sin) = cos_sin.split_at(half);
        for (((lo, hi), &c), &s) in lo.iter_mut().zip(hi).zip(cos).zip(sin) {
            let (a, b, s) = (lo.up(), hi.up(), s * sign);
            *lo = R::down(a * c - b * s);
            *hi = R::down(b * c + a * s);
        }
    }
}

impl<R: Real> Attention for Cpu<R>
where
    R::Acc: HasKernel,
{
    const WINDOWS_AND_CAPS: bool = true;

    fn rope(
        &self,
        qkv: &mut Vec<R>,
        table: &Vec<R::Acc>,
        positions: &Vec<u32>,
        rows: usize,
        inverse: bool,
        d: Heads,
    ) {
        let hd = d.head_dim;
        let sign = if inverse { -R::Acc::ONE } else { R::Acc::ONE };
        self.pool.rows(qkv, rows, d.qkv_width(), |r, row| {
            let cos_sin = &table[positions[r] as usize * hd..][..hd];
            for head in row.chunks_exact_mut(hd).take(d.heads + d.kv_heads) {
                rotate(head, cos_sin, sign);
            }
        });
    }

    fn attention(
        &self,
        o: &mut Vec<R>,
        lse: &mut Vec<R::Acc>,
        qkv: &Vec<R>,
        layout: &Layout<Self>,
        d: Heads,
        scores: Scores,
    ) {
        forward::attention(&self.pool, R::Acc::loops(), o, lse, qkv, &layout.segments, d, scores);
    }

    fn attention_bw(
        &self,
        dqkv: &mut Vec<R>,
        dout: &Vec<R>,
        o: &Vec<R>,
        lse: &Vec<R::Acc>,
        qkv: &Vec<R>,
        layout: &Layout<Self>,
        d: Heads,
        scores: Scores,
    ) {
        backward::attention_bw(
            &self.pool,
            R::Acc::loops(),
            dqkv,
            dout,
            o,
            lse,
            qkv,
            &layout.segments,
            d,
            scores,
        );
    }
}
