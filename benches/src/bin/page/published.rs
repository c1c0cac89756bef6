//! Rates of others, as published for an H100: what is to be beaten.

use duel_backend::Heads;
use duel_benches::gpu::{Case, LENGTHS};
use duel_benches::verb::Verb;

/// A rate in TFLOP/s, and whose it is.
pub type Rate = (f64, &'static str);

/// Causal attention, forward, in bf16, at each of [`LENGTHS`]: FlashAttention-2, cuDNN, FlashAttention-3.
const FORWARD_64: [[f64; 3]; 6] = [
    [180.0, 225.0, 197.0],
    [229.0, 288.0, 265.0],
    [262.0, 334.0, 371.0],
    [284.0, 363.0, 420.0],
    [295.0, 379.0, 460.0],
    [299.0, 388.0, 473.0],
];
const FORWARD_128: [[f64; 3]; 6] = [
    [191.0, 315.0, 292.0],
    [260.0, 410.0, 423.0],
    [298.0, 484.0, 521.0],
    [319.0, 518.0, 579.0],
    [333.0, 529.0, 602.0],
    [335.0, 539.0, 616.0],
];
const NAMES: [&str; 3] = ["FA2", "cuDNN", "FA3"];
/// Backward with heads of 128, FlashAttention-3, at 1024 to 8192.
const BACKWARD_128: [(usize, f64); 4] = [(1024, 182.0), (2048, 316.0), (4096, 444.0), (8192, 539.0)];
/// Liger's fused linear cross-entropy in Triton, at this shape; on an H200.
const LIGER_HEAD: (&str, Rate) = ("4096x4096x128256", (92.0, "Liger"));

/// What there is for a case.
pub fn rates(case: &Case) -> Vec<Rate> {
    match case.verb {
        Verb::Attention { batch, heads } if batch.pair.responses() == 0 => {
            forward(heads, batch.positions()).map_or(Vec::new(), |r| r.into_iter().zip(NAMES).collect())
        }
        Verb::AttentionBw { batch, heads: Heads { head_dim: 128, .. } } if batch.pair.responses() == 0 => {
            let found = BACKWARD_128.iter().filter(|(length, _)| *length == batch.positions());
            found.map(|&(_, rate)| (rate, "FA3")).collect()
        }
        Verb::Head { .. } if case.shape() == LIGER_HEAD.0 => vec![LIGER_HEAD.1],
        _ => Vec::new(),
    }
}

fn forward(heads: Heads, length: usize) -> Option<[f64; 3]> {
    let table = match heads.head_dim {
        64 => FORWARD_64,
        128 => FORWARD_128,
        _ => return None,
    };
    LENGTHS.iter().position(|&l| l == length).map(|i| table[i])
}

/// Names and rates for a table.
pub fn cell(case: &Case) -> String {
    let rates = rates(case);
    let join = |texts: Vec<String>| texts.join(" / ");
    if rates.is_empty() {
        return "—".into();
    }
    let names = join(rates.iter().map(|(_, name)| (*name).to_owned()).collect());
    format!("{names} {}", join(rates.iter().map(|(rate, _)| format!("{rate:.0}")).collect()))
}
