//! The paper's controlled-sentiment experiment in small, on data that the project makes itself: SFT from scratch on
//! reviews of a grammar, then one method with the grammar's ground truth, and what it did.

use crate::world::World;
use crate::{grammar, recipe};
use duel_backend::Backend;
use duel_stats::{Estimate, mean};
use duel_train::Error;
use duel_train::config::{Method, Options};
use std::path::Path;
use std::time::Instant;

const SHOWN: usize = 4;

/// What the experiment found, over the held-out prefixes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Finding {
    /// Mean ground-truth reward of the SFT model's samples, in (0, 1).
    pub reward_before: f64,
    /// The same after the method.
    pub reward_after: f64,
    /// Mean sequence KL of the trained model from the SFT model, in nats.
    pub kl: f64,
    /// Share of the SFT model's samples that are reviews of the grammar, prefix and all.
    pub grammatical_before: f64,
    /// The same after the method.
    pub grammatical_after: f64,
}

/// Runs the experiment with `method` in `dir` and prints what it found; of a reward model there is no finding.
///
/// # Errors
/// The folder cannot be written, or Ctrl-C.
pub fn run<B: Backend>(b: &B, dir: &Path, seed: u64, method: Method) -> Result<Option<Finding>, Error> {
    let started = Instant::now();
    duel_train::say!(
        "Controlled sentiment in small: reviews of a known grammar, whose sentiment is known exactly.\n"
    );
    eprint!("1. ");
    let world = World::make(b, dir, seed)?;
    let preferences = match method.is_online() || method == Method::Sft {
        true => None,
        false => {
            eprint!("\n2. ");
            Some(world.preferences()?)
        }
    };
    if method != Method::Sft {
        let stage = if preferences.is_some() { 3 } else { 2 };
        let from = if method.is_online() { "its own samples, judged by the ground truth" } else { "them" };
        duel_train::say!("\n{stage}. {method} on {from}");
    }
    let name = method.to_string();
    let (trained, last) = recipe::run(&world, preferences.as_ref(), method, &name, None, shown)?;
    let wall =
        |started: Instant| format!("wall time                 {:.0} s", started.elapsed().as_secs_f64());
    if method == Method::Reward {
        let accuracy = last.iter().find(|(name, _)| name == "eval_accuracy").map_or(f64::NAN, |(_, a)| *a);
        println!(
            "\nheld-out accuracy         {accuracy:.3}\n{}\neverything is in          {}",
            wall(started),
            dir.display()
        );
        return Ok(None);
    }
    duel_train::say!("\n{} held-out prefixes, before and after", world.held_out().len());
    let (old, new) = (world.measure(&world.scene.model)?, world.measure(&trained)?);
    for (i, prefix) in world.held_out().iter().enumerate().take(SHOWN) {
        println!("\n{prefix} …");
        for (name, measured) in [("sft", &old), (&*name, &new)] {
            println!("  {name:>10}  {:.2}  {}", measured.rewards[i], measured.texts[i].trim_start());
        }
    }
    let value = |of: &[f64]| mean(of).map_or(f64::NAN, |Estimate { value, .. }| value);
    let finding = Finding {
        reward_before: value(&old.rewards),
        reward_after: value(&new.rewards),
        kl: value(&new.kls),
        grammatical_before: grammatical(world.held_out(), &old.texts),
        grammatical_after: grammatical(world.held_out(), &new.texts),
    };
    println!(
        "\nmean ground-truth reward  {:.3} before, {:.3} after (1 is certainly positive)\n\
         KL from the reference     {:.2} nats a sequence\n\
         reviews of the grammar    {:.1} % before, {:.1} % after\n\
         {}\n\
         everything is in          {}",
        finding.reward_before,
        finding.reward_after,
        finding.kl,
        100.0 * finding.grammatical_before,
        100.0 * finding.grammatical_after,
        wall(started),
        dir.display()
    );
    Ok(Some(finding))
}

/// The recipe of a method, but for DPO, which most readers see first: a pull of 1, which is the scale of the truth's
/// own log-odds, and twice over the data. It has more reward than the recipe's weaker pull, once over them, at nearly
/// the same KL.
fn shown(options: Options) -> Options {
    match options.method {
        Some(Method::Dpo) => {
            Options { beta: Some(1.0), learning_rate: Some(5e-4), num_train_epochs: Some(2.0), ..options }
        }
        _ => options,
    }
}

/// The share of texts that are reviews of the grammar, behind their prefixes.
fn grammatical(prefixes: &[String], texts: &[String]) -> f64 {
    let whole = prefixes.iter().zip(texts).map(|(prefix, text)| format!("{prefix}{text}"));
    let all = whole.clone().count().max(1);
    whole.filter(|review| grammar::grammatical(review)).count() as f64 / all as f64
}
