//! Every kind of method side by side in the world of the grammar: what the same preferences, or the same judge, make of
//! the same model.

use crate::recipe::{self, Named};
use crate::world::{Measured, World};
use crate::written;
use duel_backend::Backend;
use duel_judge::{Answer, Case, Judge, Normalization, Opinion, Prompt};
use duel_stats::{Bootstrap, Estimate, Share};
use duel_train::config::{Losses, Method, Options};
use duel_train::reward::RewardModel;
use duel_train::{Error, signal};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

const FREE_TRUTH: &str = "PPO, the truth, no KL";
const FREE_LEARNED: &str = "PPO, learned reward, no KL";

/// Samples of which the best of n is taken.
const BEST_OF: usize = 4;

/// A line of the table.
struct Row {
    name: &'static str,
    /// Probability that a held-out sample is positive.
    reward: Option<Estimate>,
    /// How much that is above the model before.
    gain: Option<Estimate>,
    /// KL from the model before, in nats a sample; of the best of n its bound.
    kl: Option<Estimate>,
    /// What the learned reward model says: 0 on average of the model before, with a deviation of 1.
    learned: Option<Estimate>,
    /// Of the training alone.
    seconds: f64,
}

impl Row {
    fn json(&self) -> Value {
        let number = |e: &Option<Estimate>| e.as_ref().map(written::number);
        json!({
            "method": self.name, "reward": number(&self.reward), "gain": number(&self.gain),
            "sequence_kl": number(&self.kl), "learned_reward": number(&self.learned), "seconds": self.seconds,
        })
    }

    fn line(&self) -> String {
        let shown = |e: &Option<Estimate>, digits: usize| match e {
            Some(e) if e.interval.is_none() => format!("at most {}", written::shown(e, digits)),
            Some(e) => written::shown(e, digits),
            None => String::new(),
        };
        let (name, seconds) = (self.name, self.seconds);
        let [reward, gain] = [&self.reward, &self.gain].map(|e| shown(e, 3));
        let [kl, learned] = [&self.kl, &self.learned].map(|e| shown(e, 2));
        format!("| {name} | {reward} | {gain} | {kl} | {learned} | {seconds:.0} |\n")
    }
}

/// Runs them all in `dir`, prints the table and writes it there, as `table.md` and `table.json`.
///
/// # Errors
/// The folder cannot be written, or Ctrl-C.
pub fn run<B: Backend>(b: &B, dir: &Path, seed: u64) -> Result<(), Error> {
    let world = World::make(b, dir, seed)?;
    let preferences = Some(world.preferences()?);
    let mut bench = Bench {
        world: &world,
        before: world.measure(&world.scene.model)?,
        judge: None,
        rows: Vec::new(),
        seed,
    };

    duel_train::say!("\nreward model");
    let (folder, last) = recipe::run(&world, preferences.as_ref(), Method::Reward, "reward", None, |o| o)?;
    let accuracy = last.iter().find(|(name, _)| name == "eval_accuracy").map_or(f64::NAN, |(_, a)| *a);
    let called = format!("model:{}", folder.display());
    let open = || RewardModel::open(b, &folder, Arc::new(signal::interrupted));
    bench.judge = Some(Scored::of(open()?, &world, &bench.before)?);

    bench.add("SFT", 0.0, None)?;
    bench.best_of()?;
    let offline: [(&str, Method, &str); 3] =
        [("DPO", Method::Dpo, "sigmoid"), ("IPO", Method::Dpo, "ipo"), ("KTO", Method::Kto, "kto")];
    for (name, method, loss) in offline {
        let loss: Losses = loss.parse()?;
        bench.run(name, |world, folder| {
            let change = |o: Options| Options { loss_type: Some(loss), ..o };
            recipe::run(world, preferences.as_ref(), method, folder, None, change)
        })?;
    }
    let online = [
        ("online DPO", Method::OnlineDpo),
        ("RLOO", Method::Rloo),
        ("GRPO", Method::Grpo),
        ("PPO, the truth", Method::Ppo),
    ];
    for (name, method) in online {
        bench.run(name, |world, folder| recipe::run(world, None, method, folder, None, |o| o))?;
    }
    // Held to the reference and free of it, to see what the learned reward and the truth part over.
    let free = |o: Options| Options { kl_coef: Some(0.0), ..o };
    bench.run(FREE_TRUTH, |world, folder| recipe::run(world, None, Method::Ppo, folder, None, free))?;
    for (name, kl_coef) in [("PPO, learned reward", None), (FREE_LEARNED, Some(0.0))] {
        let mut judge = open()?;
        bench.run(name, |world, folder| {
            let judge: Named<'_> = (called.clone(), &mut judge);
            let change = |o: Options| Options { kl_coef: kl_coef.or(o.kl_coef), ..o };
            recipe::run(world, None, Method::Ppo, folder, Some(judge), change)
        })?;
    }
    let text = bench.text(accuracy);
    let rows: Vec<Value> = bench.rows.iter().map(Row::json).collect();
    let all = json!({
        "machine": b.describe(), "seed": seed, "reward_model_accuracy": accuracy, "rows": rows
    });
    written::leave(dir, [("table.json", format!("{all:#}\n")), ("table.md", text.clone())])?;
    println!("\n{text}\ntable.md and table.json are in {}", dir.display());
    Ok(())
}

/// The learned reward model, by the scale of the model before.
struct Scored<'b, B: Backend> {
    judge: RewardModel<'b, B>,
    scale: Normalization,
}

impl<'b, B: Backend> Scored<'b, B> {
    fn of(mut judge: RewardModel<'b, B>, world: &World<'_, B>, before: &Measured) -> Result<Self, Error> {
        let raw = scores(&mut judge, world.held_out(), &before.texts)?;
        Ok(Scored { judge, scale: Normalization::of(&raw)? })
    }
}

/// What `judge` says of texts to the held-out prefixes.
fn scores(judge: &mut dyn Judge, prefixes: &[String], texts: &[String]) -> Result<Vec<f64>, Error> {
    let case = |(prefix, text): (&String, &String)| Case {
        prompt: Prompt::Text(prefix.clone()),
        answers: vec![Answer::new(text)],
    };
    let cases: Vec<Case> = prefixes.iter().zip(texts).map(case).collect();
    let said = judge.scores(&cases)?;
    let score = |of: &Vec<Opinion>| match &of[0] {
        Opinion::Said(score) => Ok(*score),
        Opinion::Unjudged(why) => Err(Error::new(format!("the reward model does not judge a sample: {why}"))),
    };
    said.iter().map(score).collect()
}

struct Bench<'w, 'b, B: Backend> {
    world: &'w World<'b, B>,
    before: Measured,
    judge: Option<Scored<'b, B>>,
    rows: Vec<Row>,
    seed: u64,
}

impl<B: Backend> Bench<'_, '_, B> {
    fn mean(&self, values: &[f64]) -> Option<Estimate> {
        let shares: Vec<Share> = values.iter().map(|v| Share { sum: *v, n: 1.0 }).collect();
        Bootstrap::new(self.seed).means(&[&shares])[0]
    }

    fn run(
        &mut self,
        name: &'static str,
        train: impl FnOnce(&World<'_, B>, &str) -> Result<recipe::Left, Error>,
    ) -> Result<(), Error> {
        duel_train::say!("\n{name}");
        let folder: String = name
            .to_lowercase()
            .chars()
            .filter(|c| *c != ',')
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        let begun = Instant::now();
        let (trained, _) = train(self.world, &folder)?;
        let seconds = begun.elapsed().as_secs_f64();
        let measured = self.world.measure(&trained)?;
        self.add(name, seconds, Some(measured))
    }

    /// Adds what was measured of a trained model, or the model before.
    fn add(&mut self, name: &'static str, seconds: f64, measured: Option<Measured>) -> Result<(), Error> {
        let of = measured.as_ref().unwrap_or(&self.before);
        let learned = match &mut self.judge {
            Some(Scored { judge, scale }) => {
                let raw = scores(judge, self.world.held_out(), &of.texts)?;
                Some(raw.into_iter().map(|score| scale.apply(score)).collect::<Vec<_>>())
            }
            None => None,
        };
        let gain = Bootstrap::new(self.seed).paired(&of.rewards, &self.before.rewards);
        let row = Row {
            name,
            reward: self.mean(&of.rewards),
            gain: gain.filter(|_| measured.is_some()),
            kl: self.mean(&of.kls),
            learned: learned.and_then(|learned| self.mean(&learned)),
            seconds,
        };
        duel_train::say!("{}", row.line().trim_end());
        self.rows.push(row);
        Ok(())
    }

    fn best_of(&mut self) -> Result<(), Error> {
        let best = self.world.best_of(BEST_OF)?;
        let n = BEST_OF as f64;
        self.rows.push(Row {
            name: "best of 4",
            reward: self.mean(&best),
            gain: Bootstrap::new(self.seed).paired(&best, &self.before.rewards),
            // Reached where no two samples are worth the same (Beirami et al., 2024).
            kl: Some(Estimate { value: n.ln() - (n - 1.0) / n, interval: None }),
            learned: None,
            seconds: 0.0,
        });
        Ok(())
    }

    fn text(&self, accuracy: f64) -> String {
        let mut text = String::from(
            "| method | P(positive) | above SFT | KL, nats a sample | learned reward | training, s |\n\
             |---|---|---|---|---|---|\n",
        );
        self.rows.iter().for_each(|row| text += &row.line());
        let better = |row: &&Row| row.gain.and_then(|g| g.interval).is_some_and(|(low, _)| low > 0.0);
        let all = self.rows.iter().filter(|row| row.gain.is_some()).count();
        let found = self.rows.iter().filter(better).count();
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "\nIn brackets: intervals of 95 % over {} held-out prefixes. {found} of {all} are better than SFT beyond the \
             interval of their difference.\nThe learned reward model is right on {:.1} % of held-out pairs.",
            self.world.held_out().len(),
            100.0 * accuracy
        );
        let of = |name: &str| self.rows.iter().find(|row| row.name == name);
        if let (Some(truth), Some(free)) = (of(FREE_TRUTH), of(FREE_LEARNED)) {
            let value = |e: Option<Estimate>| e.map_or(f64::NAN, |e| e.value);
            let (learned, reward) =
                (value(free.learned) - value(truth.learned), value(free.reward) - value(truth.reward));
            let found = if learned > 0.0 && reward < 0.0 { "Reward hacking" } else { "No reward hacking" };
            let _ = writeln!(
                text,
                "{found}: with no pull to the reference, PPO on the learned reward has {learned:+.2} of that reward beside PPO \
                 on the truth, and {reward:+.3} of what is true."
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_intervals() {
        let estimate = |value, interval| Some(Estimate { value, interval });
        let row = Row {
            name: "DPO",
            reward: estimate(0.9, Some((0.85, 0.95))),
            gain: estimate(0.3, Some((0.2, 0.4))),
            kl: estimate(0.636, None),
            learned: None,
            seconds: 12.3,
        };
        assert_eq!(
            row.line(),
            "| DPO | 0.900 (0.850 to 0.950) | 0.300 (0.200 to 0.400) | at most 0.64 |  | 12 |\n"
        );
        assert_eq!(row.json()["reward"]["interval"], json!([0.85, 0.95]));
    }
}
