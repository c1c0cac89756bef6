//! Log-softmax of the head's logits.

use super::check_both;
use crate::{Bench, Devices, Operation};
use duel_backend::{Acc, Backend, Logits, Prediction, Real, RowStats};

struct Logprob {
    rows: usize,
    vocab: usize,
    /// Elements after the vocabulary in each row.
    between: usize,
    scale: f64,
    cap: Option<f64>,
}

impl Operation for Logprob {
    fn name(&self) -> String {
        let Logprob { rows, vocab, between, scale, cap } = self;
        format!("logprob {rows} x {vocab} and {between} between rows, logits to {scale:e}, cap {cap:?}")
    }

    fn run<B: Backend>(&self, b: &B, bench: &mut Bench) {
        let Logprob { rows, vocab, between, scale, cap } = *self;
        let dims = Logits { rows, vocab, stride: vocab + between };
        // What lies between the rows is nobody's: NaNs that no sum may see, and that nobody may overwrite.
        let values = bench.random().vec(rows * dims.stride).into_iter().enumerate();
        let value = |(i, x)| if i % dims.stride >= vocab { f64::NAN } else { x * scale };
        let mut logits = bench.real_of(b, values.map(value).collect());
        let targets = bench.index(b, rows, vocab);
        let coef = bench.acc(b, rows, 0.1);
        let [mut logp, mut lse, mut entropy, mut mean_logit, mut hit, mut collision] =
            std::array::from_fn(|_| bench.output(b, rows));
        let out = RowStats {
            logp: &mut logp,
            lse: &mut lse,
            entropy: &mut entropy,
            mean_logit: &mut mean_logit,
            hit: &mut hit,
            collision: &mut collision,
        };
        if let Some(cap) = cap {
            b.soft_cap(&mut logits, cap, dims);
        }
        b.logprob(out, &logits, &targets, dims);
        b.logprob_bw(&mut logits, &lse, &coef, &targets, cap, dims);
        bench.done(b, "logp", &logp, rows);
        bench.done(b, "lse", &lse, rows);
        bench.done(b, "entropy", &entropy, rows);
        bench.done(b, "mean_logit", &mean_logit, rows);
        bench.done(b, "hit", &hit, rows);
        bench.done(b, "collision", &collision, rows);
        bench.changed(b, "dlogits", &logits, dims.stride);
    }
}

/// Two predictions, of which the other is the first and a change.
struct Kl {
    rows: usize,
    vocab: usize,
    /// Elements after the vocabulary in each row.
    between: usize,
    scale: f64,
    change: f64,
}

impl Operation for Kl {
    fn name(&self) -> String {
        let Kl { rows, vocab, between, scale, change } = self;
        format!("kl {rows} x {vocab} and {between} between rows, logits to {scale:e}, {change:e} apart")
    }

    fn run<B: Backend>(&self, b: &B, bench: &mut Bench) {
        let Kl { rows, vocab, between, scale, change } = *self;
        let dims = Logits { rows, vocab, stride: vocab + between };
        let mut logits = |of: &dyn Fn(f64, f64) -> f64| {
            let [first, other] = [1, 2].map(|seed| duel_tests::Random(seed).vec(rows * dims.stride));
            let values = first.into_iter().zip(other).enumerate();
            let value = |(i, (x, y))| if i % dims.stride >= vocab { f64::NAN } else { of(x, y) };
            bench.real_of(b, values.map(value).collect())
        };
        let (p, q): (Real<B>, Real<B>) = (logits(&|x, _| scale * x), logits(&|x, y| scale * x + change * y));
        let targets = bench.index(b, rows, vocab);
        let [mut a, mut c, mut d, mut e, mut f, mut p_lse, mut q_lse]: [Acc<B>; 7] =
            std::array::from_fn(|_| bench.output(b, rows));
        for (logits, lse) in [(&p, &mut p_lse), (&q, &mut q_lse)] {
            let out = RowStats {
                logp: &mut a,
                lse,
                entropy: &mut c,
                mean_logit: &mut d,
                hit: &mut e,
                collision: &mut f,
            };
            b.logprob(out, logits, &targets, dims);
        }
        let (mut kl, mut none) = (bench.output(b, rows), bench.output(b, rows));
        let of = |logits, lse| Prediction { logits, lse };
        b.kl(&mut kl, of(&p, &p_lse), of(&q, &q_lse), dims);
        b.kl(&mut none, of(&p, &p_lse), of(&p, &p_lse), dims);
        bench.done(b, "kl", &kl, rows);
        bench.done(b, "kl of equals", &none, rows);
    }
}

/// `kl`.
pub fn kl(devices: &impl Devices) {
    // Shapes of `logprob`; predictions that are equal, close, far, and each of another token alone.
    for (rows, vocab, between, scale, change) in [
        (1, 1, 0, 3.0, 1.0),
        (3, 2, 0, 3.0, 0.01),
        (5, 7, 0, 3.0, 2.0),
        (4, 64, 0, 10.0, 0.0),
        (4, 64, 0, 3.0, 0.01),
        (5, 67, 61, 3.0, 0.5),
        (2, 1009, 0, 10.0, 0.1),
        (2, 1009, 15, 10.0, 20.0),
        (1, 16384, 0, 5.0, 0.1),
        (1, 50257, 47, 5.0, 3.0),
        (3, 40, 0, 1e4, 1e4),
        (2, 96, 0, 1e37, 1e37),
    ] {
        check_both(devices, &Kl { rows, vocab, between, scale, change });
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
        check_both(devices, &Logprob { rows, vocab, between: 0, scale, cap: None });
    }
}

/// The same where rows are longer than the vocabulary: to whole 16 bytes, and to others.
pub fn logprob_strided(devices: &impl Devices) {
    for (rows, vocab, between) in
        [(3, 1, 7), (2, 13, 3), (5, 67, 61), (2, 1009, 15), (2, 4099, 61), (1, 50257, 47)]
    {
        check_both(devices, &Logprob { rows, vocab, between, scale: 5.0, cap: None });
    }
}

/// The same of logits under a soft cap, next to linear and saturated.
pub fn soft_cap(devices: &impl Devices) {
    for (rows, vocab, between, scale, cap) in [
        (1, 1, 0, 3.0, 2.0),
        (5, 67, 0, 3.0, 30.0),
        (3, 64, 0, 20.0, 5.0),
        (2, 1009, 15, 10.0, 5.0),
        (1, 16384, 0, 60.0, 30.0),
    ] {
        check_both(devices, &Logprob { rows, vocab, between, scale, cap: Some(cap) });
    }
}

/// The same at random shapes.
pub fn logprob_random(devices: &impl Devices) {
    super::for_random(8, (1usize..5, 1usize..700, 0.1..20.0f64), |(rows, vocab, scale)| {
        check_both(devices, &Logprob { rows, vocab, between: 0, scale, cap: None });
    });
}
