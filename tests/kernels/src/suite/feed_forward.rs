//! Activations of the feed-forward layers.

use super::check_both;
use crate::{Bench, Devices, Operation};
use duel_backend::{Activation, Backend};

struct Swiglu {
    rows: usize,
    width: usize,
    scale: f64,
    f: Activation,
}

impl Operation for Swiglu {
    fn name(&self) -> String {
        format!("glu of {:?} {} x {}, inputs to {:e}", self.f, self.rows, self.width, self.scale)
    }

    fn run<B: Backend>(&self, b: &B, bench: &mut Bench) {
        let Swiglu { rows, width, scale, f } = *self;
        let x = bench.real(b, 2 * rows * width, scale);
        let dy = bench.real(b, rows * width, 4.0);
        let mut y = bench.output(b, rows * width);
        let mut dx = bench.output(b, 2 * rows * width);
        b.glu(&mut y, &x, rows, width, f);
        b.glu_bw(&mut dx, &dy, &x, rows, width, f);
        bench.done(b, "y", &y, width);
        bench.done(b, "dx", &dx, width);
    }
}

/// Those that are not the usual ones.
const OTHERS: [Activation; 3] = [Activation::Gelu, Activation::GeluSigmoid, Activation::Relu];

/// `glu` and its backward.
pub fn swiglu(devices: &impl Devices) {
    // One row, odd widths, one past a block, gates where the sigmoid has run out, numbers near the largest bf16.
    for (rows, width, scale) in [
        (1, 1, 1.0),
        (3, 8, 4.0),
        (5, 10, 4.0),
        (2, 257, 4.0),
        (2, 2056, 4.0),
        (7, 64, 90.0),
        (1, 16, 1e19),
        (2, 40, 3e38),
    ] {
        check_both(devices, &Swiglu { rows, width, scale, f: Activation::Silu });
    }
    for f in OTHERS.into_iter().chain([Activation::GeluTanh]) {
        check_both(devices, &Swiglu { rows: 5, width: 138, scale: 4.0, f });
    }
}

struct Gelu {
    len: usize,
    scale: f64,
    f: Activation,
}

impl Operation for Gelu {
    fn name(&self) -> String {
        format!("{:?} {}, inputs to {:e}", self.f, self.len, self.scale)
    }

    fn run<B: Backend>(&self, b: &B, bench: &mut Bench) {
        let Gelu { len, scale, f } = *self;
        let x = bench.real(b, len, scale);
        let dy = bench.real(b, len, 1.0);
        let mut y = bench.output(b, len);
        let mut dx = bench.output(b, len);
        b.activate(&mut y, &x, len, f);
        b.activate_bw(&mut dx, &dy, &x, len, f);
        bench.done(b, "y", &y, len);
        bench.done(b, "dx", &dx, len);
    }
}

/// `activate` and its backward.
pub fn gelu(devices: &impl Devices) {
    // One element, the rest after whole packs, more than the grid takes at once, inputs where s is 0 or 1, and
    // those near the largest bf16.
    for (len, scale) in [(1, 1.0), (7, 3.0), (8, 3.0), (1037, 3.0), (40_003, 3.0), (300, 60.0), (60, 3e38)] {
        check_both(devices, &Gelu { len, scale, f: Activation::GeluTanh });
    }
    for f in OTHERS.into_iter().chain([Activation::Silu]) {
        check_both(devices, &Gelu { len: 1037, scale: 6.0, f });
    }
}
