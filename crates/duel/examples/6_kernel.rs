//! A CUDA kernel inside another program: log-softmax, the DPO loss and its gradient by the logits, without the host
//! between them. Here the kernels' text runs on the host, so that no GPU is needed; with one, `duel_cuda::Device` takes
//! the place of the emulation, on a stream and on buffers of your own (`crates/cuda/examples/embed.rs`).
//!
//!     cargo run --package duel --example 6_kernel
//!
//! Needs `duel-backend` and `duel-cuda`, and `duel-kernel-tests` for the emulation; `duel-loss` has what is compared.

use duel_backend::{LogProbs, Logits, RowStats, Storage};
use duel_cuda::{Cuda, PairLoss, PreferenceObjective, PreferenceOut};
use duel_kernel_tests::{Emulation, Schedule};
use duel_loss::{Score, sigmoid};
use std::error::Error;

const VOCAB: usize = 1000;
/// Tokens of the chosen and of the rejected response.
const LENGTHS: [usize; 2] = [5, 3];
/// Log-probabilities of the two by the reference.
const REFERENCE: [f64; 2] = [-35.0, -20.0];
const BETA: f64 = 0.1;

fn main() -> Result<(), Box<dyn Error>> {
    let cuda = Cuda::<_, f32>::new(Emulation::new(Schedule::ALL[0]));
    let rows: usize = LENGTHS.iter().sum();
    let shape = Logits::dense(rows, VOCAB);
    let mut random = fastrand::Rng::with_seed(1);
    let host: Vec<f32> = (0..rows * VOCAB).map(|_| random.f32() * 4.0 - 2.0).collect();
    let tokens: Vec<u32> = (0..rows).map(|_| random.u32(..VOCAB as u32)).collect();
    let (mut logits, mut targets) = (cuda.alloc(host.len())?, cuda.alloc(rows)?);
    cuda.upload(&mut logits, 0, &host);
    cuda.upload(&mut targets, 0, &tokens);

    // Log-probability of each row's token, and what else one pass over the logits gives.
    let mut stats = (0..6).map(|_| cuda.alloc(rows)).collect::<Result<Vec<_>, _>>()?;
    let [logp, lse, entropy, mean_logit, hit, collision] = &mut stats[..] else {
        unreachable!("six were made")
    };
    let stats = RowStats { logp, lse, entropy, mean_logit, hit, collision };
    cuda.logprob(stats, &logits, &targets, shape);
    let mut of_rows = vec![0.0; rows];
    cuda.download(&mut of_rows, &*logp, 0)?;

    // Rows to responses to the loss of the pair, and back to a coefficient a row.
    let mut groups = cuda.response_groups(2, 1)?;
    cuda.set_response_groups(&mut groups, &[0, LENGTHS[0] as u32, rows as u32], &[0, 2]);
    let mut reference = cuda.alloc(2)?;
    cuda.upload(&mut reference, 0, &REFERENCE);
    let mut coef = cuda.alloc(rows)?;
    let (mut sums, mut loss, mut rewards) = (cuda.alloc(8)?, cuda.alloc(2)?, cuda.alloc(2)?);
    let out = PreferenceOut { coef: &mut coef, sums: &mut sums, loss: &mut loss, rewards: &mut rewards };
    let dpo = PairLoss::Sigmoid { label_smoothing: 0.0 };
    let objective = PreferenceObjective { loss: dpo, beta: BETA, weight: 1.0 };
    let stats = RowStats { logp, lse, entropy, mean_logit, hit, collision };
    cuda.preference(out, &stats, &reference, &groups, objective);
    // The logits become their gradient in place.
    cuda.logprob_bw(&mut logits, lse, &coef, &targets, shape);
    let (mut losses, mut gradient) = ([0.0f64; 2], vec![0.0f32; host.len()]);
    cuda.download(&mut losses, &loss, 0)?;
    cuda.download(&mut gradient, &logits, 0)?;

    // The same pair on the host.
    let sum = |rows: &[f32]| rows.iter().map(|&x| f64::from(x)).sum();
    let score = |i: usize, rows| Score {
        logp: sum(rows),
        reference: REFERENCE[i],
        tokens: LENGTHS[i],
        ..Score::default()
    };
    let (chosen, rejected) = of_rows.split_at(LENGTHS[0]);
    let pair = sigmoid(BETA, 0.0, score(0, chosen), score(1, rejected));
    println!("DPO loss: {:.6} by the kernel, {:.6} by `duel-loss`", losses.iter().sum::<f64>(), pair.value);
    assert!((losses.iter().sum::<f64>() - pair.value).abs() < 1e-12 * pair.value);
    let of_target = gradient[tokens[0] as usize];
    let wanted = pair.d_chosen * (1.0 - f64::from(of_rows[0]).exp());
    println!("gradient of the first token's logit: {of_target:.6} by the kernel, {wanted:.6} by hand");
    assert!((f64::from(of_target) - wanted).abs() < 1e-5 * wanted.abs());
    Ok(())
}
