//! Norms.

use super::check_both;
use crate::{Bench, Devices, Operation, check};
use duel_backend::{Backend, Heads, Norm};

const EPS: f64 = 1e-5;

/// Rows and widths where norms go wrong: one row and one column; odd widths; rows that share a block and one more; rows
/// of several warps; longer than the registers of a block hold, in 16-byte accesses (8200) and in single ones (1031);
/// so many rows that a block sums more than the fewest; numbers whose squares are near the end of the range.
const SHAPES: [(usize, usize, f64); 11] = [
    (1, 1, 1.0),
    (3, 10, 2.0),
    (9, 64, 2.0),
    (33, 64, 2.0),
    (17, 576, 2.0),
    (18, 768, 2.0),
    (3, 1031, 2.0),
    (3, 4096, 2.0),
    (2, 8200, 2.0),
    (2100, 8, 2.0),
    (2, 96, 1e15),
];

struct Rmsnorm {
    dims: Norm,
    scale: f64,
}

impl Operation for Rmsnorm {
    fn name(&self) -> String {
        format!("rmsnorm {} x {}, inputs to {:e}", self.dims.rows, self.dims.width, self.scale)
    }

    fn run<B: Backend>(&self, b: &B, bench: &mut Bench) {
        let Norm { rows, width, .. } = self.dims;
        let x = bench.real(b, rows * width, self.scale);
        let w = bench.real(b, width, 1.0);
        let dy = bench.real(b, rows * width, 1.0);
        let mut dx = bench.real(b, rows * width, 1.0 / self.scale);
        let mut dw = bench.acc(b, width, 1.0);
        let mut y = bench.output(b, rows * width);
        let mut rstd = bench.output(b, rows);
        b.rmsnorm(&mut y, &mut rstd, &x, &w, self.dims);
        b.rmsnorm_bw(&mut dx, Some(&mut dw), &dy, &x, &rstd, &w, self.dims);
        bench.done(b, "y", &y, width);
        bench.done(b, "rstd", &rstd, 1);
        bench.changed(b, "dx", &dx, width);
        bench.changed(b, "dw", &dw, width);
        let mut dx = bench.real(b, rows * width, 1.0 / self.scale);
        b.rmsnorm_bw(&mut dx, None, &dy, &x, &rstd, &w, self.dims);
        bench.changed(b, "dx without dw", &dx, width);
    }
}

/// `rmsnorm` and its backward.
pub fn rmsnorm(devices: &impl Devices) {
    for (rows, width, scale) in SHAPES {
        for plus_one in [false, true] {
            check_both(devices, &Rmsnorm { dims: Norm { rows, width, eps: EPS, plus_one }, scale });
        }
    }
}

struct Layernorm {
    dims: Norm,
    scale: f64,
    /// Added to every input: the mean.
    offset: f64,
}

impl Operation for Layernorm {
    fn name(&self) -> String {
        let Layernorm { dims: Norm { rows, width, .. }, scale, offset } = *self;
        format!("layernorm {rows} x {width}, inputs {offset} to {scale:e}")
    }

    fn run<B: Backend>(&self, b: &B, bench: &mut Bench) {
        let Norm { rows, width, .. } = self.dims;
        let values = bench.random().vec(rows * width);
        let x = bench.real_of(b, values.into_iter().map(|x| x * self.scale + self.offset).collect());
        let w = bench.real(b, width, 1.0);
        let bias = bench.real(b, width, 1.0);
        let dy = bench.real(b, rows * width, 1.0);
        let mut dx = bench.real(b, rows * width, 1.0 / self.scale);
        let mut dw = bench.acc(b, width, 1.0);
        let mut db = bench.acc(b, width, 1.0);
        let mut y = bench.output(b, rows * width);
        let mut stats = bench.output(b, 2 * rows);
        b.layernorm(&mut y, &mut stats, &x, &w, &bias, self.dims);
        b.layernorm_bw(&mut dx, Some(&mut dw), Some(&mut db), &dy, &x, &stats, &w, self.dims);
        bench.done(b, "y", &y, width);
        bench.done(b, "stats", &stats, 2);
        bench.changed(b, "dx", &dx, width);
        bench.changed(b, "dw", &dw, width);
        bench.changed(b, "db", &db, width);
        let mut dx = bench.real(b, rows * width, 1.0 / self.scale);
        let mut db = bench.acc(b, width, 1.0);
        b.layernorm_bw(&mut dx, None, Some(&mut db), &dy, &x, &stats, &w, self.dims);
        bench.changed(b, "dx without dw", &dx, width);
        bench.changed(b, "db without dw", &db, width);
    }
}

/// `layernorm` and its backward.
pub fn layernorm(devices: &impl Devices) {
    for (rows, width, scale) in SHAPES {
        check_both(
            devices,
            &Layernorm { dims: Norm { rows, width, eps: EPS, plus_one: false }, scale, offset: 0.0 },
        );
    }
    let far = Layernorm {
        dims: Norm { rows: 3, width: 200, eps: EPS, plus_one: false },
        scale: 2.0,
        offset: 100.0,
    };
    check_both(devices, &far);
    // Running sums that shared memory has no room for.
    let wide = Layernorm {
        dims: Norm { rows: 2, width: 30_008, eps: EPS, plus_one: false },
        scale: 2.0,
        offset: 0.0,
    };
    check::<f32>(devices, &wide);
}

struct QkNorm {
    rows: usize,
    heads: Heads,
    plus_one: bool,
    /// All heads at once: as many keys as queries.
    whole: bool,
    scale: f64,
}

impl Operation for QkNorm {
    fn name(&self) -> String {
        format!(
            "qk_norm {} x {:?}, at once {}, inputs to {:e}",
            self.rows, self.heads, self.whole, self.scale
        )
    }

    fn run<B: Backend>(&self, b: &B, bench: &mut Bench) {
        let QkNorm { rows, heads, plus_one, whole, scale } = *self;
        let dims = duel_backend::QkNorm { rows, heads, eps: EPS, plus_one, whole };
        let (width, normed, [(_, part), _]) = (heads.qkv_width(), dims.stats(), dims.parts());
        let x = bench.real(b, rows * width, scale);
        let wq = bench.real(b, part, 1.0);
        let wk = bench.real(b, part, 1.0);
        let mut dqkv = bench.real(b, rows * width, 1.0);
        let mut dwq = bench.acc(b, part, 1.0);
        let mut dwk = bench.acc(b, part, 1.0);
        let mut y = bench.output(b, rows * width);
        let mut rstd = bench.output(b, rows * normed);
        b.qk_norm(&mut y, &mut rstd, &x, &wq, &wk, dims);
        b.qk_norm_bw(&mut dqkv, Some(&mut dwq), Some(&mut dwk), &x, &rstd, &wq, &wk, dims);
        bench.done(b, "y", &y, part);
        bench.done(b, "rstd", &rstd, 1);
        bench.changed(b, "dqkv", &dqkv, part);
        bench.changed(b, "dwq", &dwq, part);
        bench.changed(b, "dwk", &dwk, part);
        let mut dqkv = bench.real(b, rows * width, 1.0);
        let mut dwk = bench.acc(b, part, 1.0);
        b.qk_norm_bw(&mut dqkv, None, Some(&mut dwk), &x, &rstd, &wq, &wk, dims);
        bench.changed(b, "dwk without dwq", &dwk, part);
    }
}

/// `qk_norm` and its backward.
pub fn qk_norm(devices: &impl Devices) {
    // One of everything, as many keys as queries, odd head widths, the usual ones, more than a block of rows.
    for (rows, heads, kv_heads, head_dim, scale) in [
        (1, 1, 1, 1, 1.0),
        (3, 2, 2, 10, 2.0),
        (9, 3, 1, 40, 2.0),
        (5, 4, 2, 64, 2.0),
        (17, 8, 2, 128, 2.0),
        (2, 3, 1, 256, 2.0),
        (300, 2, 1, 8, 2.0),
        (2, 2, 1, 64, 1e15),
    ] {
        let heads = Heads { heads, kv_heads, head_dim };
        for plus_one in [false, true] {
            check_both(devices, &QkNorm { rows, heads, plus_one, whole: false, scale });
        }
        if heads.ratio() == 1 {
            check_both(devices, &QkNorm { rows, heads, plus_one: false, whole: true, scale });
        }
    }
}

/// All norms at random shapes.
pub fn norm_random(devices: &impl Devices) {
    super::for_random(6, (1usize..40, 1usize..600), |(rows, width)| {
        let dims = Norm { rows, width, eps: EPS, plus_one: false };
        check_both(devices, &Rmsnorm { dims, scale: 3.0 });
        check_both(devices, &Layernorm { dims, scale: 3.0, offset: 1.0 });
    });
    super::for_random(
        4,
        (1usize..30, 1usize..4, 1usize..4, 1usize..80),
        |(rows, ratio, kv_heads, head_dim)| {
            let heads = Heads { heads: ratio * kv_heads, kv_heads, head_dim };
            check_both(devices, &QkNorm { rows, heads, plus_one: false, whole: false, scale: 3.0 });
        },
    );
}

struct Sum {
    len: usize,
}

impl Operation for Sum {
    fn name(&self) -> String {
        format!("add {}", self.len)
    }

    fn run<B: Backend>(&self, b: &B, bench: &mut Bench) {
        let x = bench.real(b, self.len, 2.0);
        let mut y = bench.real(b, self.len, 2.0);
        b.add(&mut y, &x, self.len);
        bench.changed(b, "y", &y, self.len);
    }
}

/// `add`.
pub fn add(devices: &impl Devices) {
    // One element, the rest after whole packs, more than the grid takes at once.
    for len in [1, 7, 8, 1037, 40_003] {
        check_both(devices, &Sum { len });
    }
}
