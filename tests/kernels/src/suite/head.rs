//! Log-softmax of the head's logits.

use super::check_both;
use crate::{Bench, Devices, Operation};
use duel_backend::{Backend, RowStats};

struct Logprob {
    rows: usize,
    vocab: usize,
    scale: f64,
}

impl Operation for Logprob {
    fn name(&self) -> String {
        format!("logprob {} x {}, logits to {:e}", self.rows, self.vocab, self.scale)
    }

    fn run<B: Backend>(&self, b: &B, bench: &mut Bench) {
        let Logprob { rows, vocab, scale } = *self;
        let mut logits = bench.real(b, rows * vocab, scale);
        let targets = bench.index(b, rows, vocab);
        let coef = bench.acc(b, rows, 0.1);
        let [mut logp, mut lse, mut entropy, mut mean_logit, mut hit] =
            std::array::from_fn(|_| bench.output(b, rows));
        let out = RowStats {
            logp: &mut logp,
            lse: &mut lse,
            entropy: &mut entropy,
            mean_logit: &mut mean_logit,
            hit: &mut hit,
        };
        b.logprob(out, &logits, &targets, rows, vocab);
        b.logprob_bw(&mut logits, &lse, &coef, &targets, rows, vocab);
        bench.done(b, "logp", &logp, rows);
        bench.done(b, "lse", &lse, rows);
        bench.done(b, "entropy", &entropy, rows);
        bench.done(b, "mean_logit", &mean_logit, rows);
        bench.done(b, "hit", &hit, rows);
        bench.changed(b, "dlogits", &logits, vocab);
    }
}

/// `logprob` and `logprob_bw`.
pub fn logprob(devices: &impl Devices) {
    // A vocabulary of one, of fewer than the threads of a warp, of one element past the packs of a block and of several
    // sweeps; small primes of which no row but the first is aligned; softmaxes that are one-hot; and the largest bf16.
    for (rows, vocab, scale) in [
        (1, 1, 3.0),
        (3, 2, 3.0),
        (5, 7, 3.0),
        (4, 64, 10.0),
        (2, 512, 10.0),
        (2, 1009, 10.0),
        (1, 4099, 5.0),
        (2, 16384, 5.0),
        (1, 50257, 5.0),
        (3, 40, 1e4),
        (2, 96, 3e38),
    ] {
        check_both(devices, &Logprob { rows, vocab, scale });
    }
}

/// The same at random shapes.
pub fn logprob_random(devices: &impl Devices) {
    super::for_random(8, (1usize..5, 1usize..700, 0.1..20.0f64), |(rows, vocab, scale)| {
        check_both(devices, &Logprob { rows, vocab, scale });
    });
}
