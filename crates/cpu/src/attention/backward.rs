//! The gradient of attention.

use super::blocks::Plan;
use super::cap::{cap_and_slope, factor_and_cap};
use super::kernel::{BLOCK, Kernel, STRIDE};
use super::order::{Turns, in_order};
use super::packed::{Columns, lines};
use crate::gemm::HasKernel;
use crate::real::{Real, Scalar};
use crate::softmax::{dot, scaled};
use crate::sync::{Pool, SyncPtr};
use duel_backend::{Heads, Scores, Segment};

/// See [`duel_backend::Attention::attention_bw`]. A task owns the gradient of its queries, and adds to that of the keys
/// and values when it is its turn.
pub fn attention_bw<R: Real>(
    pool: &Pool,
    kernel: &Kernel<R::Acc>,
    dqkv: &mut [R],
    dout: &[R],
    o: &[R],
    lse: &[R::Acc],
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
    assert!(dqkv.len() >= plan.rows * d.qkv_width(), "output shorter than the rows");
    let x = Columns { data: qkv, width: d.qkv_width(), head_dim: hd };
    let (g, y) =
        (Columns { data: dout, width: d.q_width(), ..x }, Columns { data: o, width: d.q_width(), ..x });
    let dqkv = SyncPtr::new(dqkv);
    let place = |row: usize, head: usize| {
        // SAFETY: the row lies in dqkv (asserted), and each task below owns the rows and heads that it asks for.
        unsafe { std::slice::from_raw_parts_mut(dqkv.at(row * d.qkv_width() + head * hd), hd) }
    };
    let serial = Pool::new(1);
    let pool = if plan.is_small(d) { &serial } else { pool };
    R::Acc::with_shared(|shared| {
        let (deep, wide) = (kv_heads * plan.packed * hd, kv_heads * plan.packed * width);
        let [keys, values, key_rows, grads] = lines(shared, [deep, deep, wide, 2 * wide]);
        plan.transpose(pool, kernel, keys, x, heads, kv_heads);
        plan.transpose(pool, kernel, values, x, heads + kv_heads, kv_heads);
        plan.panels(pool, kernel, key_rows, x, heads, kv_heads);
        pool.parts(grads, 2 * wide, |_, part| part.fill(R::Acc::ZERO));
        let (keys, values, key_rows) = (&*keys, &*values, &*key_rows);
        let sums_at = SyncPtr::new(grads);
        let turns = Turns::new(plan.cuts.len() * kv_heads);
        let tasks = plan.tasks(d, pool.threads());
        in_order(pool, &turns, tasks.len(), |task| {
            let (b, h) = plan.task(tasks[task]);
            let kv = h / d.ratio();
            let key_rows = &key_rows[kv * plan.packed * width..][..plan.packed * width];
            let tall = b.rows.next_multiple_of(kernel.rows) * width;
            R::Acc::with_scratch(|scratch| {
                let scores = BLOCK * STRIDE;
                let [q, do_, dq, p, dp, row_lse, delta] =
                    lines(scratch, [tall, tall, tall, scores, scores, BLOCK, BLOCK]);
                x.copy(q, width, h, b.row, b.rows);
                g.copy(do_, width, h, b.row, b.rows);
                dq.fill(R::Acc::ZERO);
                for (i, row) in (b.row..b.row + b.rows).enumerate() {
                    row_lse[i] = lse[row * heads + h];
                    delta[i] = dot(g.vector(h, row), y.vector(h, row));
                }
                for (t, &turn) in b.tiles().zip(&plan.turns[b.turns..]) {
                    let at = (kv * plan.packed + t.at) * hd;
                    kernel.scores(p, q, width, &keys[at..], hd, b.rows, t.mask);
                    kernel.scores(dp, do_, width, &values[at..], hd, b.rows, t.mask);
                    match capped {
                        None => kernel.gradient(p, dp, row_lse, delta, scale, b.rows, t.mask),
                        Some(of) => {
                            cap_and_slope(p, dp, delta, b.rows, t.mask, of);
                            kernel.gradient(p, dp, row_lse, &[R::Acc::ZERO; BLOCK], scale, b.rows, t.mask);
                        }
                    }
                    kernel.weighted(dq, width, dp, key_rows, t.at, b.rows, t.mask);
                    let turn = turn as usize * d.ratio() + h % d.ratio();
                    turns.take(t.number * kv_heads + kv, turn, || {
                        let len = t.mask.len.next_multiple_of(kernel.rows) * width;
                        for (values, weights, vectors) in [(0, &*dp, &*q), (1, &*p, &*do_)] {
                            let at = ((values * kv_heads + kv) * plan.packed + t.at) * width;
                            // SAFETY: the rows of this tile, and room behind them for those of the kernel's last, are
                            // this task's while it is its turn.
                            let sums = unsafe { std::slice::from_raw_parts_mut(sums_at.at(at), len) };
                            kernel.collect(sums, width, weights, vectors, b.rows, t.mask);
                        }
                    });
                }
                for i in 0..b.rows {
                    scaled(place(b.row + i, h), &dq[i * width..][..hd], R::Acc::ONE);
                }
            });
        });
        let grads = &*grads;
        pool.tasks(plan.cuts.len(), |cut| {
            let cut = plan.cuts[cut];
            for (i, head) in (0..cut.len).flat_map(|i| (0..2 * kv_heads).map(move |head| (i, head))) {
                let sum = &grads[(head * plan.packed + cut.at + i) * width..][..hd];
                scaled(place(cut.row + i, heads + head), sum, R::Acc::ONE);
            }
        });
    });
}
