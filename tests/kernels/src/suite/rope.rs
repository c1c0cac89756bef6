//! Rotary positions.

use super::check_both;
use crate::{Bench, Devices, Operation};
use duel_backend::{Backend, Heads};

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
