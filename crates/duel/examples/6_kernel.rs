//! CUDA kernels inside another program: log-softmax, the DPO loss and its gradient by the logits, without the host
//! between them. Here the kernels' text runs on the host, so that no GPU is needed; with one, `duel_cuda::Device` takes
//! the place of the emulation, on a stream and on buffers of your own (`crates/cuda/examples/embed.rs`).
//!
//!     cargo run --package duel --example 6_kernel
//!
//! Needs `duel-backend`, `duel-cuda` and `duel-loss`; `duel-kernel-tests` for the emulation, `duel-cpu` to compare
//! with.

use duel_backend::{
    Backend, Float, Grouped, Logits, PreferenceOut, ResponseGroups, ResponseSums, Result, RowStats,
};
use duel_cpu::Cpu;
use duel_cuda::Cuda;
use duel_kernel_tests::{Emulation, Schedule};
use duel_loss::{Objective, Settings, Totals, word};

const VOCAB: usize = 1000;
/// Tokens of the chosen response, and of both.
const CHOSEN: usize = 5;
const ROWS: usize = 8;

/// The loss of a pair, and its gradient by the logits, which takes their place.
fn pair<B: Backend>(b: &B, logits: &[f64], tokens: &[u32], dpo: &Objective) -> Result<(f64, Vec<f64>)> {
    let shape = Logits::dense(ROWS, VOCAB);
    let (mut x, mut targets) = (b.alloc::<B::Real>(logits.len())?, b.alloc(ROWS)?);
    let mut host: Vec<B::Real> = logits.iter().map(|&x| B::Real::from_f64(x)).collect();
    b.upload(&mut x, 0, &host);
    b.upload(&mut targets, 0, tokens);

    // Log-probability of each row's token, and what else one pass over the logits gives.
    let mut stats = (0..6).map(|_| b.alloc(ROWS)).collect::<Result<Vec<_>>>()?;
    let [logp, lse, entropy, mean_logit, hit, collision] = &mut stats[..] else {
        unreachable!("six were made")
    };
    b.logprob(RowStats { logp, lse, entropy, mean_logit, hit, collision }, &x, &targets, shape);

    // Rows to responses to the loss of the pair, and back to a coefficient a row.
    let mut groups = ResponseGroups::new(b, ROWS)?;
    let content = Grouped {
        first_rows: &[0, CHOSEN as u32, ROWS as u32],
        first_responses: &[0, 2],
        weights: &[1.0; ROWS],
        reference: &[-35.0, -20.0],
        margins: &[0.0],
    };
    groups.set(b, content)?;
    let mut totals = Totals::default();
    totals.add(2, CHOSEN, 0);
    let objective = dpo.on_device(totals).expect("kernels know the sigmoid");
    let (mut coef, mut sums) = (b.alloc(ROWS)?, b.alloc(2 * ResponseSums::COLUMNS)?);
    let stats = RowStats { logp, lse, entropy, mean_logit, hit, collision };
    b.preference(PreferenceOut { coef: &mut coef, sums: &mut sums, first: 0 }, &stats, &groups, &objective);
    b.logprob_bw(&mut x, stats.lse, &coef, &targets, None, shape);

    // Only now does anything wait.
    let mut chosen = [0.0; ResponseSums::COLUMNS];
    b.download(&mut chosen, &sums, 0)?;
    b.download(&mut host, &x, 0)?;
    Ok((ResponseSums::from(chosen).loss, host.iter().map(|x| x.to_f64()).collect()))
}

fn main() -> Result<()> {
    let mut random = fastrand::Rng::with_seed(1);
    let logits: Vec<f64> = (0..ROWS * VOCAB).map(|_| f64::from(random.f32() * 4.0 - 2.0)).collect();
    let tokens: Vec<u32> = (0..ROWS).map(|_| random.u32(..VOCAB as u32)).collect();
    let dpo = Objective::new(vec![(1.0, word("sigmoid").expect("a loss"))], Settings::default());

    let cuda = Cuda::<_, f32>::new(Emulation::new(Schedule::ALL[0]));
    let (loss, gradient) = pair(&cuda, &logits, &tokens, &dpo)?;
    let (right, exact) = pair(&Cpu::<f64>::new(1), &logits, &tokens, &dpo)?;
    println!("DPO loss: {loss:.6} by the kernels, {right:.6} on the CPU in double precision");
    let apart = gradient.iter().zip(&exact).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    println!(
        "gradients by the logits differ by {apart:.1e} at most, of {:.4}",
        exact[tokens[0] as usize].abs()
    );
    // Log-probabilities near -7 in single precision: eight of them, each off by a few times 7 / 2^24.
    assert!((loss - right).abs() < 1e-5 && apart < 1e-6);
    Ok(())
}
