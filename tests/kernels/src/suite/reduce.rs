//! Sums over rows and over whole arrays.

use super::check_both;
use crate::{Bench, Devices, Operation};
use duel_backend::{Backend, Gemm, Update};
use duel_cuda::Cuda;
use duel_tests::host;

struct BiasGradient {
    rows: usize,
    width: usize,
    scale: f64,
}

impl Operation for BiasGradient {
    fn name(&self) -> String {
        format!("bias_dw {} x {}, inputs to {:e}", self.rows, self.width, self.scale)
    }

    fn run<B: Backend>(&self, b: &B, bench: &mut Bench) {
        let BiasGradient { rows, width, scale } = *self;
        let dy = bench.real(b, rows * width, scale);
        let mut db = bench.acc(b, width, scale);
        b.bias_dw(&mut db, &dy, Gemm::dense(rows, width, 1));
        bench.changed(b, "db", &db, width);
    }
}

/// `bias_dw`.
pub fn bias_dw(devices: &impl Devices) {
    // One row and one column, odd widths, a block of rows and one more, several blocks of columns, so many rows that a
    // block sums more than the fewest, sums near the largest number.
    for (rows, width, scale) in [
        (1, 1, 1.0),
        (3, 10, 1.0),
        (8, 64, 1.0),
        (9, 33, 1.0),
        (70, 576, 1.0),
        (5, 4104, 1.0),
        (2100, 9, 1.0),
        (3, 24, 8e37),
    ] {
        check_both(devices, &BiasGradient { rows, width, scale });
    }
}

/// `square_sums` of one buffer: right to the last digits of a double, and the same bits on every device.
pub fn sumsq(devices: &impl Devices) {
    // Nothing, one number, the rest after whole packs, exactly a block, several blocks.
    for (len, scale) in [(0, 1.0), (1, 1.0), (7, 3.0), (1030, 1.0), (16384, 1.0), (50_001, 1e-3), (9, 1e30)] {
        let mut first = None;
        for driver in devices.devices() {
            let b = Cuda::<_, f32>::new(driver);
            let x = Bench::new::<f32>().acc(&b, len, scale);
            let sum = b.square_sums(&[&x]).expect("nothing went wrong")[0];
            let right: f64 = host(&b, &x).iter().map(|x: &f64| x * x).sum();
            // Both sums add up to n positive numbers one after the other: n roundings each, at most.
            let bound = 2.0 * len as f64 * f64::EPSILON / 2.0 * right;
            assert!(
                (sum - right).abs() <= bound,
                "{sum:e} of {len} numbers on {}, not {right:e}",
                b.describe()
            );
            assert!(*first.get_or_insert(sum) == sum, "{sum:e} in another schedule");
        }
    }
}
