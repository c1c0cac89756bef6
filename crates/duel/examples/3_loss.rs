//! The head and an objective: log-probabilities of two responses out, a loss of both, and the gradient back through the
//! log-softmax. Checked against differences.
//!
//!     cargo run --package duel --example 3_loss
//!
//! Needs `duel-backend`, `duel-cpu` and `duel-loss`.

use duel_backend::{Segment, Storage};
use duel_cpu::Cpu;
use duel_loss::{Group, Head, Objective, Score, Settings, Targets, Totals, word};
use std::error::Error;

const WIDTH: usize = 16;
const VOCAB: usize = 50;
const BETA: f64 = 0.5;
/// `[prompt | chosen | rejected]`
const TOKENS: [u32; 9] = [11, 42, 7, 3, 19, 1, 28, 4, 1];

fn main() -> Result<(), Box<dyn Error>> {
    // In double precision, so that differences say something. The hidden states are what a model gives (2_forward).
    let cpu = Cpu::<f64>::new(1);
    let mut random = fastrand::Rng::with_seed(1);
    let mut noise = |n: usize| (0..n).map(|_| random.f64() - 0.5).collect::<Vec<f64>>();
    let hidden = noise(TOKENS.len() * WIDTH);
    let (weight, of_reference) = (noise(VOCAB * WIDTH), noise(VOCAB * WIDTH));

    // The rows that predict a response's token, and no others.
    let response = |start| Segment { start, len: 3, prefix_start: 0, prefix_len: 3 };
    let mut targets = Targets::default();
    targets.push_group(&TOKENS, [response(3), response(6)], &[]);
    // Room for 4 rows of logits, of 6: what is larger than its room is done in parts.
    let mut head = Head::new(&cpu, WIDTH, VOCAB, 4)?;
    let reference = targets.sums(head.score(&cpu, &of_reference, &hidden, &targets)?);

    let terms = [("sigmoid", 1.0), ("sft", 0.1)].map(|(name, weight)| (weight, word(name).expect("a loss")));
    let objective = Objective::new(terms.into(), Settings { beta: BETA, ..Settings::default() });
    let mut totals = Totals::default();
    totals.add(2, 3, 0);

    // The loss of a head's weight, its gradient by the weight and by the hidden states.
    let mut loss =
        |weight: &Vec<f64>, show: bool| -> Result<(f64, Vec<f64>, Vec<f64>), duel_backend::Error> {
            let (mut value, mut dw, mut dhidden) = (0.0, cpu.alloc(weight.len())?, cpu.alloc(hidden.len())?);
            let of_responses = targets.by_response(|_, stats, slopes| {
                let scores: Vec<Score> = stats.iter().zip(&reference).map(|(s, r)| s.score(r.logp)).collect();
                value += objective.slopes(&[Group::ranked(&scores)], totals, slopes);
                for (what, (score, slope)) in ["chosen", "rejected"].iter().zip(scores.iter().zip(&*slopes)) {
                    if show {
                        println!(
                            "{what:8}  logp {:8.4}, reward {:7.4}, slope {slope:7.4}",
                            score.logp,
                            BETA * score.log_ratio()
                        );
                    }
                }
            });
            head.loss(&cpu, weight, &mut dw, &hidden, &mut dhidden, &targets, of_responses)?;
            Ok((value, dw, dhidden))
        };

    let (value, dw, _) = loss(&weight, true)?;
    println!("loss      {value:.6}");
    // Along a random direction, the gradient says how the loss changes.
    let direction = noise(weight.len());
    let step = 1e-5;
    let mut moved = |by: f64| loss(&weight.iter().zip(&direction).map(|(w, d)| w + by * d).collect(), false);
    let difference = (moved(step)?.0 - moved(-step)?.0) / (2.0 * step);
    let derivative: f64 = dw.iter().zip(&direction).map(|(g, d)| g * d).sum();
    println!("slope     {derivative:.8} by the gradient, {difference:.8} by differences");
    assert!((derivative - difference).abs() < 1e-8 * derivative.abs().max(1.0));
    Ok(())
}
