//! Operations of one pass over memory.

use super::check_both;
use crate::{Bench, Devices, Operation};
use duel_backend::{Backend, Heads};

struct Swiglu {
    rows: usize,
    width: usize,
    scale: f64,
}

impl Operation for Swiglu {
    fn name(&self) -> String {
        format!("swiglu {} x {}, inputs to {:e}", self.rows, self.width, self.scale)
    }

    fn run<B: Backend>(&self, b: &B, bench: &mut Bench) {
        let Swiglu { rows, width, scale } = *self;
        let x = bench.real(b, 2 * rows * width, scale);
        let dy = bench.real(b, rows * width, 4.0);
        let mut y = bench.output(b, rows * width);
        let mut dx = bench.output(b, 2 * rows * width);
        b.swiglu(&mut y, &x, rows, width);
        b.swiglu_bw(&mut dx, &dy, &x, rows, width);
        bench.done(b, "y", &y, width);
        bench.done(b, "dx", &dx, width);
    }
}

/// `swiglu` and its backward.
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
        check_both(devices, &Swiglu { rows, width, scale });
    }
}

struct Gelu {
    len: usize,
    scale: f64,
}

impl Operation for Gelu {
    fn name(&self) -> String {
        format!("gelu {}, inputs to {:e}", self.len, self.scale)
    }

    fn run<B: Backend>(&self, b: &B, bench: &mut Bench) {
        let Gelu { len, scale } = *self;
        let x = bench.real(b, len, scale);
        let dy = bench.real(b, len, 1.0);
        let mut y = bench.output(b, len);
        let mut dx = bench.output(b, len);
        b.gelu(&mut y, &x, len);
        b.gelu_bw(&mut dx, &dy, &x, len);
        bench.done(b, "y", &y, len);
        bench.done(b, "dx", &dx, len);
    }
}

/// `gelu` and its backward.
pub fn gelu(devices: &impl Devices) {
    // One element, the rest after whole packs, more than the grid takes at once, inputs where s is 0 or 1, and
    // those near the largest bf16.
    for (len, scale) in [(1, 1.0), (7, 3.0), (8, 3.0), (1037, 3.0), (40_003, 3.0), (300, 60.0), (60, 3e38)] {
        check_both(devices, &Gelu { len, scale });
    }
}

struct Rope {
    rows: usize,
    heads: Heads,
    inverse: bool,
    scale: f64,
}

impl Operation for Rope {
    fn name(&self) -> String {
        let Rope { rows, heads, inverse, scale } = *self;
        format!("rope {rows} x {heads:?}, inverse {inverse}, inputs to {scale:e}")
    }

    fn run<B: Backend>(&self, b: &B, bench: &mut Bench) {
        let Rope { rows, heads, inverse, scale } = *self;
        let mut qkv = bench.real(b, rows * heads.qkv_width(), scale);
        let positions = bench.index(b, rows, 2 * rows);
        let table = bench.acc(b, 2 * rows * heads.head_dim, 1.0);
        b.rope(&mut qkv, &table, &positions, rows, inverse, heads);
        bench.changed(b, "qkv", &qkv, heads.head_dim);
    }
}

/// `rope`, both ways.
pub fn rope(devices: &impl Devices) {
    // One of everything, halves that are and are not whole numbers of 16 bytes, more heads than a team does at once,
    // and products that leave the range.
    for (rows, heads, kv_heads, head_dim, inverse, scale) in [
        (1, 1, 1, 2, false, 1.0),
        (3, 2, 1, 10, true, 1.0),
        (5, 3, 3, 24, false, 1.0),
        (33, 4, 2, 16, true, 1.0),
        (7, 9, 3, 64, false, 1.0),
        (7, 9, 3, 64, true, 1.0),
        (3, 32, 8, 128, false, 1.0),
        (2, 2, 1, 64, false, 3e38),
    ] {
        let heads = Heads { heads, kv_heads, head_dim };
        check_both(devices, &Rope { rows, heads, inverse, scale });
    }
}
