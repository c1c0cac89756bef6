//! Matrix products.

use super::check_both;
use crate::{Bench, Devices, Operation};
use duel_backend::{Activation, Backend, Gemm, Products};
use duel_cuda::{Cuda, CudaReal, Driver};
use duel_tests::host;
use half::bf16;

struct AllProducts {
    dims: Gemm,
    bias: bool,
    residual: bool,
    scale: f64,
}

impl Operation for AllProducts {
    fn name(&self) -> String {
        let AllProducts { dims: Gemm { m, n, k, stride }, bias, residual, scale } = *self;
        format!(
            "gemm {m} x {n} x {k}, rows of y every {stride}, bias {bias}, residual {residual}, inputs to {scale:e}"
        )
    }

    fn run<B: Backend>(&self, b: &B, bench: &mut Bench) {
        let dims @ Gemm { m, n, k, stride } = self.dims;
        let x = bench.real(b, m * k, self.scale);
        let w = bench.real(b, n * k, 1.0);
        // What lies between the rows is nobody's: NaNs that no sum may see, and that nobody may overwrite.
        let values = bench.random().vec(m * stride).into_iter().enumerate();
        let between = |i: usize| stride > 0 && i % stride >= n;
        let dy = bench.real_of(b, values.map(|(i, x)| if between(i) { f64::NAN } else { x }).collect());
        let bias = self.bias.then(|| bench.real(b, n, self.scale));
        let residual = self.residual.then(|| bench.real(b, m * n, self.scale));
        let mut y = bench.output(b, m * stride);
        let mut dx = bench.output(b, m * k);
        let mut dw = bench.acc(b, n * k, self.scale);
        b.gemm(&mut y, &x, &w, bias.as_ref(), residual.as_ref(), dims);
        b.gemm_dx(&mut dx, &dy, &w, dims);
        b.gemm_dw(&mut dw, &dy, &x, dims);
        bench.done(b, "y", &y, stride);
        bench.done(b, "dx", &dx, k);
        bench.summed(b, "dw", &dw, k, m);
    }
}

/// A product with its GELU, and the gradient through a GELU before a product.
struct WithGelu {
    dims: Gemm,
    bias: bool,
    scale: f64,
}

impl Operation for WithGelu {
    fn name(&self) -> String {
        let WithGelu { dims: Gemm { m, n, k, .. }, bias, scale } = *self;
        format!("gemm_gelu {m} x {n} x {k}, bias {bias}, inputs to {scale:e}")
    }

    fn run<B: Backend>(&self, b: &B, bench: &mut Bench) {
        let dims @ Gemm { m, n, k, .. } = self.dims;
        let (a, w) = (bench.real(b, m * k, self.scale), bench.real(b, n * k, 1.0));
        let bias = self.bias.then(|| bench.real(b, n, self.scale));
        let (mut y, mut x) = (bench.output(b, m * n), bench.output(b, m * n));
        b.gemm_activate(&mut y, &mut x, &a, &w, bias.as_ref(), Activation::GeluTanh, dims);
        bench.done(b, "x", &x, n);
        bench.done(b, "y", &y, n);
        let (dy, input) = (bench.real(b, m * n, 1.0), bench.real(b, m * k, 3.0));
        let (mut dx, mut dact) = (bench.output(b, m * k), bench.output::<B, B::Real>(b, m * k));
        b.gemm_dx_activate(&mut dx, &mut dact, &dy, &w, &input, Activation::GeluTanh, dims);
        bench.done(b, "dx", &dx, k);
    }
}

/// `gemm_activate` and `gemm_dx_activate`, of GELU.
pub fn gemm_gelu(devices: &impl Devices) {
    for ([m, n, k], bias, scale) in [
        ([1, 1, 1], true, 1.0),
        ([40, 136, 72], false, 1.0),
        ([130, 512, 64], true, 0.5),
        ([9, 7, 5], true, 2.0),
    ] {
        check_both(devices, &WithGelu { dims: Gemm::dense(m, n, k), bias, scale });
    }
}

fn products(devices: &impl Devices, [m, n, k]: [usize; 3], more: [bool; 2], scale: f64) {
    let [bias, residual] = more;
    check_both(devices, &AllProducts { dims: Gemm::dense(m, n, k), bias, residual, scale });
}

/// The same products with something between the rows of `y`: odd widths in rows of whole 16 bytes, as a head has them,
/// and in others.
pub fn gemm_strided(devices: &impl Devices) {
    for ([m, n, k], stride) in [
        ([5, 13, 8], 16),
        ([130, 521, 64], 576),
        ([9, 131, 67], 137),
        ([200, 520, 72], 528),
        ([1, 600, 40], 640),
    ] {
        let dims = Gemm { stride, ..Gemm::dense(m, n, k) };
        check_both(devices, &AllProducts { dims, bias: true, residual: false, scale: 1.0 });
    }
}

/// `gemm`, `gemm_dx` and `gemm_dw`.
pub fn gemm(devices: &impl Devices) {
    // One of everything; one row, one column, one value of the depth; nothing to sum.
    products(devices, [1, 1, 1], [true, true], 1.0);
    products(devices, [1, 136, 40], [false, true], 1.0);
    products(devices, [40, 1, 64], [true, false], 1.0);
    products(devices, [8, 9, 1], [false, false], 1.0);
    products(devices, [3, 5, 0], [true, true], 1.0);
    // Exactly a tile and one past it, whole numbers of 16 bytes and not.
    products(devices, [128, 128, 128], [false, false], 1.0);
    products(devices, [129, 129, 129], [true, true], 1.0);
    products(devices, [130, 136, 264], [true, true], 1.0);
    products(devices, [61, 131, 67], [true, false], 1.0);
    // Near the largest bf16.
    products(devices, [3, 16, 8], [false, false], 1e38);
}

/// Results that are wide enough for the kernels of sm_90: one tile, several and their edges, each product in turn.
pub fn gemm_wide(devices: &impl Devices) {
    products(devices, [1, 512, 8], [true, true], 1.0);
    products(devices, [130, 520, 72], [true, true], 1.0);
    products(devices, [70, 200, 584], [false, false], 1.0);
    products(devices, [264, 776, 520], [false, true], 1.0);
    products(devices, [600, 24, 520], [false, false], 1.0);
    // Nothing to sum, and more tiles than blocks walk over in one band.
    products(devices, [3, 512, 0], [false, false], 1.0);
    products(devices, [2100, 136, 8], [false, false], 1.0);
    products(devices, [2100, 520, 8], [false, false], 1.0);
}

/// Weight gradients whose rows are summed in several parts, and sums that are long in every direction.
pub fn gemm_parts(devices: &impl Devices) {
    products(devices, [600, 24, 40], [false, false], 1.0);
    products(devices, [513, 7, 13], [false, false], 1.0);
    products(devices, [9, 700, 610], [false, false], 1.0);
}

/// The same at random shapes.
pub fn gemm_random(devices: &impl Devices) {
    let shapes = [1usize..150, 1..150, 1..300];
    let more = [proptest::bool::ANY, proptest::bool::ANY];
    super::for_random(8, (shapes, more), |(shape, more)| products(devices, shape, more, 1.0));
}

/// The first `rows` of 150 rows times a fixed matrix of `n` rows.
fn forward<R: CudaReal, D: Driver>(b: &Cuda<D, R>, rows: usize, n: usize) -> Vec<f64> {
    let k = 200;
    let mut bench = Bench::new::<R>();
    let w = bench.real(b, n * k, 1.0);
    let x = bench.real(b, 150 * k, 1.0);
    let mut y = bench.output(b, rows * n);
    b.gemm(&mut y, &x, &w, None, None, Gemm::dense(rows, n, k));
    let y: Vec<f64> = host(b, &y);
    y[..rows * n].to_vec()
}

/// A row of a forward product is the same bits whatever rows come with it.
pub fn gemm_rows(devices: &impl Devices) {
    fn check<R: CudaReal>(devices: &impl Devices) {
        for driver in devices.devices().into_iter().take(1) {
            let b = Cuda::<_, R>::new(driver);
            for n in [72, 512] {
                let all = forward(&b, 150, n);
                for rows in [1, 17, 128, 129] {
                    let some = forward(&b, rows, n);
                    assert!(some == all[..some.len()], "{rows} of 150 rows on {}", b.describe());
                }
            }
        }
    }
    check::<f32>(devices);
    check::<bf16>(devices);
}
