//! Matrix products and the gradient of a bias.

use crate::Cpu;
use crate::gemm::{HasKernel, Init, Operand, Panels, Right, Shape, gemm};
use crate::real::Real;
use crate::reduce::add_columns;
use duel_backend::{Gemm, Products, Weight};

fn dense<T>(data: &[T], cols: usize) -> Operand<'_, T> {
    Operand { data, rs: cols, cs: 1 }
}

fn transposed<T>(data: &[T], cols: usize) -> Operand<'_, T> {
    Operand { data, rs: 1, cs: cols }
}

impl<R: Real> Products for Cpu<R>
where
    R::Acc: HasKernel,
{
    const READS_BLOCKS: bool = true;

    fn gemm<'w>(
        &self,
        y: &mut Vec<R>,
        x: &Vec<R>,
        w: impl Into<Weight<'w, Self>>,
        bias: Option<&Vec<R>>,
        residual: Option<&Vec<R>>,
        Gemm { m, n, k, stride }: Gemm,
    ) {
        let init = Init::Add(bias.map(Vec::as_slice), residual.map(Vec::as_slice));
        let shape = Shape { m, n, k, ldc: stride };
        match w.into() {
            Weight::Real(w) => gemm(&self.pool, shape, y, dense(x, k), dense(w, k), init),
            Weight::Narrow(w) => gemm(&self.pool, shape, y, dense(x, k), dense(w, k), init),
            Weight::Blocks(w) => {
                gemm(&self.pool, shape, y, dense(x, k), Right::<R>::Blocks(Panels::of(w)), init);
            }
        }
    }

    fn gemm_dx<'w>(
        &self,
        dx: &mut Vec<R>,
        dy: &Vec<R>,
        w: impl Into<Weight<'w, Self>>,
        Gemm { m, n, k, stride }: Gemm,
    ) {
        let shape = Shape { m, n: k, k: n, ldc: k };
        match w.into() {
            Weight::Real(w) => gemm(&self.pool, shape, dx, dense(dy, stride), transposed(w, k), Init::Zero),
            Weight::Narrow(w) => gemm(&self.pool, shape, dx, dense(dy, stride), transposed(w, k), Init::Zero),
            Weight::Blocks(w) => {
                gemm(&self.pool, shape, dx, dense(dy, stride), Right::<R>::Turned(Panels::of(w)), Init::Zero);
            }
        }
    }

    fn gemm_dw(&self, dw: &mut Vec<R::Acc>, dy: &Vec<R>, x: &Vec<R>, Gemm { m, n, k, stride }: Gemm) {
        let shape = Shape { m: n, n: k, k: m, ldc: k };
        gemm(&self.pool, shape, dw, transposed(dy, stride), transposed(x, k), Init::Keep);
    }

    fn bias_dw(&self, db: &mut Vec<R::Acc>, dy: &Vec<R>, d: Gemm) {
        d.assert_dense();
        add_columns(&self.pool, db, dy, d.m, d.n);
    }
}
