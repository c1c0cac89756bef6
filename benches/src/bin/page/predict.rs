//! What a call should take on an H100: its floor, over the share of the ceiling that its kernel should reach when the
//! device is full, and what its shape costs beside that.

use duel_backend::Gemm;
use duel_benches::gpu::Case;
use duel_benches::verb::{Verb, Work};

/// The most that a device does in a second.
pub struct Ceilings {
    /// Bytes copied, read and written.
    pub copy: f64,
    /// Operations of a large matrix product in bf16.
    pub matmul: f64,
}

/// An H100 SXM of 132 multiprocessors, a little under what one measured on 2026-11-13: a copy within the device at 3.0
/// TB/s, and a product of 8192³ by cuBLAS at 798 TFLOP/s.
pub const H100: Ceilings = Ceilings { copy: 3.0e12, matmul: 790e12 };

const MULTIPROCESSORS: usize = 132;
/// Seconds that a kernel takes to fill and to empty the device, during which little is done.
const RAMP: f64 = 3e-6;
/// Seconds that the device waits where the host has to see a result.
const ROUND_TRIP: f64 = 20e-6;
/// Operands of the tensor cores that a product waits for before it multiplies, and its store: in elements of depth.
const PIPELINE: usize = 256;

/// A kernel once the device is full: the share of its ceiling, and what holds it back.
struct Sustained {
    share: f64,
    reason: &'static str,
}

/// The table of expectations. Shares of attention are of the operations that it makes; see [`made_over_counted`].
fn sustained(verb: Verb, own: bool) -> Sustained {
    let of = |share, reason| Sustained { share, reason };
    match verb {
        Verb::Attention { heads, .. } if heads.head_dim < 128 => {
            of(0.50, "exponentials take as long as products; tiles on the diagonal")
        }
        Verb::Attention { .. } => of(0.60, "exponentials under the products; tiles on the diagonal"),
        Verb::AttentionBw { heads, .. } if heads.head_dim < 128 => {
            of(0.42, "14 operations made for 10 counted (no atomics); exponentials twice")
        }
        Verb::AttentionBw { .. } => of(0.50, "14 operations made for 10 counted (no atomics)"),
        Verb::Gemm { .. } | Verb::GemmBlocks { .. } | Verb::GemmDx(_) if own => {
            of(0.80, "no clusters: each block loads both operands itself")
        }
        Verb::Gemm { .. } | Verb::GemmBlocks { .. } | Verb::GemmDx(_) => {
            of(0.95, "last wave of tiles; start of the pipeline")
        }
        Verb::GemmDw(_) if own => of(0.75, "no clusters; float gradient read and written"),
        Verb::GemmDw(_) => of(0.90, "float gradient read and written"),
        Verb::Head { .. } if own => of(0.78, "no clusters; logits pass memory twice more"),
        Verb::Head { .. } => of(0.90, "logits pass memory twice more; float gradient read and written"),
        Verb::LogProb { .. } => of(0.75, "a dozen float operations for 2 bytes"),
        Verb::LogProbBw { .. } => of(0.85, "an exponential for 4 bytes"),
        Verb::SoftCap { .. } => of(0.85, "a hyperbolic tangent for 4 bytes"),
        Verb::Sample { .. } => of(0.05, "14 sweeps, all but the first in L2; an exponential an element each"),
        Verb::Kl { .. } => of(0.6, "two exponentials and a series for 4 bytes"),
        Verb::Blend { .. } => of(0.8, "a block a row"),
        Verb::Penalise { .. } => of(0.12, "4 bytes of each 32"),
        Verb::RmsNorm(_) | Verb::LayerNorm(_) => of(0.88, "one pass, 16 bytes a thread"),
        Verb::RmsNormBw(_) | Verb::LayerNormBw(_) => of(0.80, "partial sums, and a second kernel for them"),
        Verb::QkNorm { .. } | Verb::QkNormBw { .. } => of(0.75, "16 lanes a head"),
        Verb::Rope { .. } => of(0.80, "angles again for every head, from the cache"),
        Verb::SwiGlu { .. } | Verb::SwiGluBw { .. } => of(0.88, "one pass; an exponential an element"),
        Verb::Gelu { .. } | Verb::GeluBw { .. } => of(0.85, "20 operations for 4 bytes"),
        Verb::Scale { .. } => of(0.9, "one pass, 16 bytes a lane"),
        Verb::Embed { .. } | Verb::Gather { .. } => of(0.75, "rows of 4 KB in any order"),
        Verb::EmbedBw { .. } | Verb::ScatterAdd { .. } => {
            of(0.40, "row numbers sorted first, by comparing each with each")
        }
        Verb::BiasDw(_) => of(0.75, "reads alone, and a second kernel"),
        Verb::AdamW(_) | Verb::Rmsprop(_) => of(0.88, "seven streams at a time"),
        Verb::SumSq(_) => of(0.85, "waits for the host"),
        Verb::Zero(_) | Verb::Copy(_) => of(1.0, "the driver's own"),
        Verb::KvStore { .. } => of(0.80, "parts of rows"),
        Verb::AttentionCached { .. } => of(0.75, "cached rows once, 16 bytes a lane"),
    }
}

/// How many of the counted operations go into those that are made: the backward of attention computes scores and their
/// gradients in both of its kernels.
fn made_over_counted(verb: Verb) -> f64 {
    if matches!(verb, Verb::AttentionBw { .. }) { 14.0 / 10.0 } else { 1.0 }
}

/// The part of what a kernel's tiles compute that is asked for.
fn filled(verb: Verb) -> f64 {
    match verb {
        Verb::Attention { batch, heads } => {
            visible_in_tiles(&batch, if heads.head_dim < 128 { 192 } else { 128 }, 128)
        }
        Verb::AttentionBw { batch, .. } => visible_in_tiles(&batch, 128, 64),
        Verb::Gemm { dims: Gemm { m, n, k, .. }, .. } => of_waves(m, n) * of_depth(k),
        Verb::GemmDx(Gemm { m, n, k, .. }) => of_waves(m, k) * of_depth(n),
        // A gradient of a weight is summed in so many parts as fill the device; the head is large.
        _ => 1.0,
    }
}

/// Visible pairs over those that tiles of `rows` queries and steps of `keys` keys compute; a tile takes a step more for
/// its own start and end.
fn visible_in_tiles(batch: &duel_benches::pair::Batch, rows: usize, keys: usize) -> f64 {
    let mut steps = 0;
    for s in batch.pair.segments() {
        for first in (0..s.len).step_by(rows) {
            let own = (first + rows).min(s.len);
            steps += s.prefix_len.div_ceil(keys) + own.div_ceil(keys) + 1;
        }
    }
    batch.pair.visible() as f64 / (steps * rows * keys) as f64
}

/// Tiles over the places for them in as many waves as they need; a library takes smaller tiles, at a tenth less, where
/// that leaves fewer places empty.
fn of_waves(rows: usize, columns: usize) -> f64 {
    let waves = |height: usize, width: usize| {
        let tiles = rows.div_ceil(height) * columns.div_ceil(width);
        tiles as f64 / (tiles.div_ceil(MULTIPROCESSORS) * MULTIPROCESSORS) as f64
    };
    waves(128, 256).max(0.9 * waves(128, 128))
}

fn of_depth(depth: usize) -> f64 {
    depth as f64 / (depth + PIPELINE) as f64
}

/// Bytes that a verb counted in operations moves while it multiplies nothing.
fn bytes_beside(verb: Verb) -> usize {
    match verb {
        Verb::GemmDw(Gemm { n, k, .. }) => 8 * n * k,
        // Statistics read the logits, their gradient is made in place; and the float gradient of the weight.
        Verb::Head { batch, width, vocab } => 6 * batch.responses() * vocab + 8 * width * vocab,
        _ => 0,
    }
}

/// Kernels of a call, and how often it waits for the host.
fn kernels_and_waits(verb: Verb) -> (f64, f64) {
    match verb {
        Verb::AttentionBw { .. } => (3.0, 0.0),
        Verb::RmsNormBw(_) | Verb::LayerNormBw(_) | Verb::QkNormBw { .. } | Verb::BiasDw(_) => (2.0, 0.0),
        Verb::EmbedBw { .. } | Verb::ScatterAdd { .. } => (2.0, 0.0),
        Verb::Head { .. } => (8.0, 1.0),
        Verb::SumSq(_) => (2.0, 1.0),
        _ => (1.0, 0.0),
    }
}

/// A call.
pub struct Prediction {
    /// Seconds that no kernel can go below: the work over its ceiling.
    pub floor: f64,
    /// Seconds that it should take.
    pub seconds: f64,
    /// What holds it back.
    pub reason: &'static str,
}

/// What a call should take on a device of these ceilings; `own` as in [`Case::own`].
pub fn predict(verb: Verb, own: bool, ceilings: &Ceilings) -> Prediction {
    let floor = match verb.work(Case::precision()) {
        Work::Flops(n) => n as f64 / ceilings.matmul,
        Work::Bytes(n) => n as f64 / ceilings.copy,
    };
    let Sustained { share, reason } = sustained(verb, own);
    let (kernels, waits) = kernels_and_waits(verb);
    let beside = bytes_beside(verb) as f64 / (0.85 * ceilings.copy);
    let busy = floor * made_over_counted(verb) / (share * filled(verb));
    Prediction { floor, seconds: busy + beside + kernels * RAMP + waits * ROUND_TRIP, reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use duel_benches::gpu::cases;
    use duel_benches::pair::{Batch, Pair};

    /// Nothing is expected to beat its floor, and nothing large to be ten times slower, but for what sweeps 14 times
    /// over what its floor counts once.
    #[test]
    fn predictions_are_above_their_floor() {
        for case in cases() {
            let Prediction { floor, seconds, .. } = predict(case.verb, case.own, &H100);
            let share = floor / seconds;
            let least = if matches!(case.verb, Verb::Sample { .. }) { 0.1 / 14.0 } else { 0.1 };
            assert!(share < 1.0 && share > least, "{} {}: {share}", case.kernel(), case.shape());
        }
    }

    #[test]
    fn tiles_by_hand() {
        // One tile of queries, three steps of keys of which a half of one is seen, and one for start and end.
        let batch = Batch::sequences(1, 128);
        assert_eq!(visible_in_tiles(&batch, 128, 64), (128.0 * 129.0 / 2.0) / (3.0 * 128.0 * 64.0));
        // Prompt: a tile of 1 + 1 steps; each response: a tile of 1 + 1 + 1.
        let pair = Pair::even(64, 64);
        let steps = 2.0 + 2.0 * 3.0;
        let visible = pair.visible() as f64;
        assert_eq!(visible_in_tiles(&pair.into(), 64, 64), visible / (steps * 64.0 * 64.0));
        // 64 tiles of 132 in the first wave, against 128 smaller ones.
        assert_eq!(of_waves(8192, 256), 0.9 * 128.0 / 132.0);
    }
}
