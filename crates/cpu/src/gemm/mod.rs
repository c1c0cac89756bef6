//! Matrix product in packed panels (Goto & van de Geijn, 2008), for every layout of the operands.
//!
//! An element of the result is a sum over `k` in order (in blocks of one depth, where it is added to the result), with
//! fused multiply-adds where the CPU has them: its bits depend neither on blocks and the thread count nor on how many
//! other rows and columns there are.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod block;
mod choice;
mod few;
mod kernel;
mod narrow;
mod operand;
mod outer;
mod pack;
mod pairs;
mod portable;
mod quantised;
mod soon;
mod store;
mod tiles;
#[cfg(target_arch = "x86_64")]
mod x86;

use crate::real::{Lift, Real};
use crate::sync::{Pool, SyncPtr};
use block::Product;
pub use choice::HasKernel;
use half::bf16;
use kernel::Kernel;
pub use operand::{Init, Operand, Right, Shape};
pub use pack::pack;
pub use pairs::is_fast as pairs_are_fast;
pub use portable::transpose as plain_transpose;
pub use quantised::Panels;
use std::any::TypeId;
pub use tiles::are_here as tiles_are_here;

/// `c = init + a bᵀ`, split over the pool's threads.
pub fn gemm<'b, S, A, B, C>(
    pool: &Pool,
    shape: Shape,
    c: &mut [C],
    a: Operand<A>,
    b: impl Into<Right<'b, B>>,
    init: Init<C>,
) where
    S: HasKernel,
    A: Lift<S>,
    B: Lift<S>,
    C: Real<Acc = S>,
{
    let b = b.into();
    let plain = matches!(b, Right::Plain(_));
    let narrow = plain && TypeId::of::<(A, B)>() == TypeId::of::<(bf16, bf16)>();
    let pairs = if narrow { S::pairs() } else { None };
    gemm_by(pairs.unwrap_or_else(S::kernel), pool, shape, c, a, b, init);
}

/// [`gemm`] by a kernel that this machine has, for operands as it takes them.
fn gemm_by<S, A, B, C>(
    kernel: Kernel<S>,
    pool: &Pool,
    shape: Shape,
    c: &mut [C],
    a: Operand<A>,
    b: Right<B>,
    init: Init<C>,
) where
    S: HasKernel,
    A: Lift<S>,
    B: Lift<S>,
    C: Real<Acc = S>,
{
    let Shape { m, n, k, ldc } = shape;
    if m == 0 || n == 0 {
        return;
    }
    assert!(ldc >= n && c.len() >= (m - 1) * ldc + n, "result buffer too short");
    assert!(k == 0 || a.data.len() > (m - 1) * a.rs + (k - 1) * a.cs, "left operand too short");
    match b {
        Right::Plain(b) => {
            assert!(k == 0 || b.data.len() > (n - 1) * b.rs + (k - 1) * b.cs, "right operand too short");
        }
        Right::Blocks(b) => b.assert_holds(n, k),
        Right::Turned(b) => b.assert_holds(k, n),
    }
    if let Init::Add(bias, residual) = init {
        assert!(bias.is_none_or(|x| x.len() >= n), "bias too short");
        assert!(
            residual.is_none_or(|x| x.len() >= m * n && ldc == n),
            "residual too short, or rows not dense"
        );
    }
    let c = SyncPtr::new(c);
    // SAFETY: all that is written lies inside c, as asserted above.
    unsafe { Product { kernel, shape, c, a, b, init }.run(pool) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;

    /// Deeper than a block of any kernel.
    const KC: usize = 768;

    fn value(i: usize) -> f64 {
        ((i * 2_654_435_761) % 1009) as f64 / 504.5 - 1.0
    }

    /// Every layout and edge against the plain triple loop in f64, the error bounded by k + 3 roundings of the largest
    /// partial sum.
    fn check<R: Real>()
    where
        R::Acc: HasKernel,
    {
        for threads in [1, 3] {
            let pool = Pool::new(threads);
            for (m, n, k) in [
                (1, 1, 1),
                (1, 70, 33),
                (2, 5, 300),
                (13, 33, 7),
                (3, 70, 96),
                (11, 33, KC),
                (60, 130, KC + 1),
                (250, 40, 2 * KC + 9),
                (400, 60, KC + 1),
                (130, 3100, 20),
                (100, 14, 5),
                (9, 12, 40),
                (70, 16, KC + 1),
                (5, 9, 0),
            ] {
                for (ta, tb) in [(false, false), (true, false), (false, true), (true, true)] {
                    let a: Vec<R> = (0..m * k).map(|i| R::from_f64(value(i))).collect();
                    let b: Vec<R> = (0..n * k).map(|i| R::from_f64(value(i + 7))).collect();
                    let bias: Vec<R> = (0..n).map(|i| R::from_f64(value(i + 3))).collect();
                    let res: Vec<R> = (0..m * n).map(|i| R::from_f64(value(i + 5))).collect();
                    let (ars, acs) = if ta { (1, m) } else { (k, 1) };
                    let (brs, bcs) = if tb { (1, n) } else { (k, 1) };
                    let mut c = vec![R::default(); m * n];
                    gemm(
                        &pool,
                        Shape { m, n, k, ldc: n },
                        &mut c,
                        Operand { data: &a, rs: ars, cs: acs },
                        Operand { data: &b, rs: brs, cs: bcs },
                        Init::Add(Some(&bias), Some(&res)),
                    );
                    for i in 0..m {
                        for j in 0..n {
                            let mut want = bias[j].to_f64() + res[i * n + j].to_f64();
                            let mut size = bias[j].to_f64().abs() + res[i * n + j].to_f64().abs();
                            for p in 0..k {
                                let product = a[i * ars + p * acs].to_f64() * b[j * brs + p * bcs].to_f64();
                                want += product;
                                size += product.abs();
                            }
                            let bound = (k + 3) as f64 * size * <R::Acc as duel_backend::Float>::EPSILON
                                + want.abs() * R::EPSILON;
                            let got = c[i * n + j].to_f64();
                            assert!(
                                (got - want).abs() <= bound,
                                "({m},{n},{k}) at ({i},{j}): {got} not {want}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn matches_the_triple_loop() {
        check::<f64>();
        check::<f32>();
        check::<bf16>();
    }

    /// Whichever kernels make it: few rows have their own, where the depth is a multiple of a register.
    #[test]
    fn a_row_does_not_depend_on_the_other_rows() {
        fn check<A: Lift<f32>, B: Lift<f32>>(k: usize) {
            let n = 75;
            let a: Vec<A> = (0..200 * k).map(|i| A::from_f64(value(i))).collect();
            let b: Vec<B> = (0..n * k).map(|i| B::from_f64(value(i + 11))).collect();
            let run = |m: usize, threads| {
                let mut c = vec![0f32; m * n];
                let (a, b) = (Operand { data: &a, rs: k, cs: 1 }, Operand { data: &b, rs: k, cs: 1 });
                gemm(&Pool::new(threads), Shape { m, n, k, ldc: n }, &mut c, a, b, Init::Zero);
                c
            };
            let all = run(200, 1);
            for (m, threads) in [(1, 1), (2, 3), (3, 1), (7, 2), (9, 1), (17, 2), (39, 3), (64, 1), (129, 4)]
            {
                assert_eq!(run(m, threads), all[..m * n], "{m} rows on {threads} threads");
            }
        }
        for k in [2 * KC + 30, 2 * KC + 32] {
            check::<f32, f32>(k);
            check::<f32, bf16>(k);
            check::<bf16, bf16>(k);
        }
    }
}
