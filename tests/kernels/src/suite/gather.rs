//! Embedding, gather and their backwards.

use super::check_both;
use crate::{Bench, Devices, Operation};
use duel_backend::{Backend, Layout, Segment};

struct Gather {
    rows: usize,
    width: usize,
    table_rows: usize,
    scale: f64,
}

impl Operation for Gather {
    fn name(&self) -> String {
        let Gather { rows, width, table_rows, scale } = *self;
        format!("gather {rows} of {table_rows} x {width}, inputs to {scale:e}")
    }

    fn run<B: Backend>(&self, b: &B, bench: &mut Bench) {
        let Gather { rows, width, table_rows, scale } = *self;
        let x = bench.real(b, table_rows * width, scale);
        let index = bench.index(b, rows, table_rows);
        let dy = bench.real(b, rows * width, scale);
        let mut dx = bench.real(b, table_rows * width, scale);
        let mut y = bench.output(b, rows * width);
        b.gather(&mut y, &x, &index, rows, width);
        b.scatter_add(&mut dx, &dy, &index, rows, width);
        bench.done(b, "y", &y, width);
        bench.changed(b, "dx", &dx, width);
    }
}

/// `gather` and `scatter_add`.
pub fn gather(devices: &impl Devices) {
    // One of everything; odd widths; every number the same, in fewer and in more rows than are loaded ahead; few
    // repeats; rows of several blocks of columns; numbers near the largest bf16.
    for (rows, width, table_rows, scale) in [
        (1, 1, 1, 1.0),
        (5, 3, 2, 1.0),
        (7, 16, 1, 1.0),
        (41, 24, 1, 1.0),
        (40, 576, 7, 1.0),
        (300, 8, 250, 1.0),
        (6, 257, 30, 1.0),
        (3, 2056, 2, 1.0),
        (3, 64, 50, 1e38),
    ] {
        check_both(devices, &Gather { rows, width, table_rows, scale });
    }
}

/// The same at random shapes.
pub fn gather_random(devices: &impl Devices) {
    super::for_random(10, (1usize..200, 1usize..100, 1usize..40), |(rows, width, table_rows)| {
        check_both(devices, &Gather { rows, width, table_rows, scale: 1.0 });
    });
}

struct Embed {
    /// Lengths of sequences.
    sequences: &'static [usize],
    width: usize,
    vocab: usize,
    positions: bool,
    scale: f64,
}

impl Operation for Embed {
    fn name(&self) -> String {
        let Embed { sequences, width, vocab, positions, scale } = *self;
        format!("embed {sequences:?} of {vocab} x {width}, positions {positions}, inputs to {scale:e}")
    }

    fn run<B: Backend>(&self, b: &B, bench: &mut Bench) {
        let Embed { sequences, width, vocab, scale, .. } = *self;
        let rows = sequences.iter().sum();
        let longest = sequences.iter().copied().max().unwrap_or(0);
        let mut layout = Layout::new(b, rows).expect("room for a test");
        let tokens = bench.random().tokens(rows, vocab);
        let segments = sequences.iter().scan(0, |start, &len| {
            *start += len;
            Some(Segment { start: *start - len, len, prefix_start: 0, prefix_len: 0 })
        });
        layout.set(b, &tokens, segments);
        let table = bench.real(b, vocab * width, scale);
        let dy = bench.real(b, rows * width, 1.0);
        let mut dtable = bench.acc(b, vocab * width, 1.0);
        let mut of_positions = self
            .positions
            .then(|| (bench.real(b, longest * width, scale), bench.acc(b, longest * width, 1.0)));
        let mut y = bench.output(b, rows * width);
        b.embed(&mut y, &table, of_positions.as_ref().map(|p| &p.0), &layout, width);
        b.embed_bw(Some(&mut dtable), of_positions.as_mut().map(|p| &mut p.1), &dy, &layout, width);
        bench.done(b, "y", &y, width);
        bench.changed(b, "dtable", &dtable, width);
        if let Some((_, dpos)) = &mut of_positions {
            bench.changed(b, "dpos", dpos, width);
            b.embed_bw(None, Some(dpos), &dy, &layout, width);
            bench.changed(b, "dpos without dtable", dpos, width);
        }
        let mut scaled = bench.real(b, rows * width, scale);
        b.scale(&mut scaled, 1.0 / 12f64.sqrt(), rows * width);
        bench.changed(b, "scaled", &scaled, width);
    }
}

/// `embed`, `scale` and `embed_bw`, with and without positions.
pub fn embed(devices: &impl Devices) {
    let plain = Embed { sequences: &[1], width: 1, vocab: 1, positions: false, scale: 1.0 };
    check_both(devices, &plain);
    check_both(devices, &Embed { sequences: &[5, 3], width: 12, vocab: 4, positions: true, ..plain });
    check_both(devices, &Embed { sequences: &[30, 1, 17], width: 576, vocab: 20, ..plain });
    check_both(devices, &Embed { sequences: &[9; 12], width: 64, vocab: 90, positions: true, ..plain });
    // Sums that are too large for the type.
    let large = Embed { sequences: &[4, 4], width: 40, vocab: 3, positions: true, scale: 3e38 };
    check_both(devices, &large);
}
