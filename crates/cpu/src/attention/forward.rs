//! The output of attention, and the log-sum-exp of its scores.

use super::blocks::Plan;
use super::cap::{cap, factor_and_cap};
use super::kernel::{BLOCK, Kernel, STRIDE, State};
use super::order::{Turns, in_order};
use super::packed::{Columns, lines};
use crate::gemm::HasKernel;
use crate::real::{Real, Scalar, sum};
use crate::softmax::scaled;
use crate::sync::{Pool, SyncPtr};
use duel_backend::{Heads, Scores, Segment};

/// See [`duel_backend::Attention::attention`].
pub fn attention<R: Real>(
    pool: &Pool,
    kernel: &Kernel<R::Acc>,
    o: &mut [R],
    lse: &mut [R::Acc],
    qkv: &[R],
    segments: &[Segment],
    d: Heads,
    scores: Scores,
) where
    R::Acc: HasKernel,
{
    let (hd, heads, kv_heads) = (d.head_dim, d.heads, d.kv_heads);
    let width = kernel.width(hd);
    let (scale, capped) = factor_and_cap(scores);
    let plan = Plan::new(segments, scores.window);
    let rows = plan.rows;
    assert!(o.len() >= rows * d.q_width() && lse.len() >= rows * heads, "output shorter than the rows");
    let x = Columns { data: qkv, width: d.qkv_width(), head_dim: hd };
    let (o, lse) = (SyncPtr::new(o), SyncPtr::new(lse));
    let serial = Pool::new(1);
    let pool = if plan.is_small(d) { &serial } else { pool };
    R::Acc::with_shared(|shared| {
        let (deep, wide) = (kv_heads * plan.packed * hd, kv_heads * plan.packed * width);
        let [keys, values] = lines(shared, [deep, wide]);
        plan.transpose(pool, kernel, keys, x, heads, kv_heads);
        plan.panels(pool, kernel, values, x, heads + kv_heads, kv_heads);
        let (keys, values) = (&*keys, &*values);
        let tasks = plan.tasks(d, pool.threads());
        in_order(pool, &Turns::new(0), tasks.len(), |task| {
            let (b, h) = plan.task(tasks[task]);
            let kv = h / d.ratio();
            let values = &values[kv * plan.packed * width..][..plan.packed * width];
            let tall = b.rows.next_multiple_of(kernel.rows) * width;
            R::Acc::with_scratch(|scratch| {
                let [q, s, out, top, total] = lines(scratch, [tall, BLOCK * STRIDE, tall, BLOCK, 16 * BLOCK]);
                x.copy(q, width, h, b.row, b.rows);
                out.fill(R::Acc::ZERO);
                top.fill(R::Acc::LOWEST);
                total.fill(R::Acc::ZERO);
                let (total, _) = total.as_chunks_mut();
                for t in b.tiles() {
                    let keys = &keys[(kv * plan.packed + t.at) * hd..];
                    kernel.scores(s, q, width, keys, hd, b.rows, t.mask);
                    if let Some(of) = capped {
                        cap(s, b.rows, t.mask, of);
                    }
                    kernel.softmax(s, out, width, State { top, total }, scale, b.rows, t.mask);
                    kernel.weighted(out, width, s, values, t.at, b.rows, t.mask);
                }
                for i in 0..b.rows {
                    let total = sum([&total[i]], |[x]| x);
                    // SAFETY: row and head belong to this task only, inside o and lse as asserted.
                    let dst = unsafe {
                        *lse.at((b.row + i) * heads + h) = top[i] * scale + total.ln();
                        std::slice::from_raw_parts_mut(o.at((b.row + i) * d.q_width() + h * hd), hd)
                    };
                    scaled(dst, &out[i * width..][..hd], R::Acc::ONE / total);
                }
            });
        });
    });
}
