//! What a run would take, found out without training: nothing is written.

use super::aim::{self, Aim};
use super::data::Data;
use super::fit;
use super::online;
use super::plan::Plan;
use super::start::{Start, learning};
use super::visits::{EpochOrder, Visits};
use crate::Error;
use crate::config::Config;
use crate::engine::Engine;
use crate::memory::Bytes;
use crate::objective::Objective;
use crate::ranks::{Ranks, check_shares};
use crate::signal;
use duel_backend::Backend;
use duel_comm::Alone;
use duel_data::Dataset;
use duel_loss::Known;
use duel_stats::{Estimate, mean};
use std::time::{Duration, Instant};

/// What a run would take.
#[derive(Clone, Debug, PartialEq)]
pub struct Forecast {
    /// The plan, as a run prints it: model, rows, steps, device.
    pub plan: String,
    /// Steps.
    pub steps: u64,
    /// What is allocated, by what it is for.
    pub bytes: Bytes,
    /// Bytes that are free.
    pub free: Option<u64>,
    /// Why it does not fit the memory, and what would; `None`: it does.
    pub too_large: Option<Error>,
    /// Tokens; `None` of what the policy has to draw first.
    pub tokens: Option<Tokens>,
    /// Seconds; `None`: nothing could be measured.
    pub time: Option<Time>,
}

/// Tokens of an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// That are computed: each prompt once for all its responses, and no padding.
    pub computed: u64,
    /// If each response had its prompt before it.
    pub repeated: u64,
    /// If all sequences of a batch were padded to its longest too.
    pub padded: u64,
    /// Groups in such a batch.
    pub batch: usize,
}

/// What a few steps took, and what follows for all; where a run goes on, for those that are left.
#[derive(Clone, Debug, PartialEq)]
pub struct Time {
    /// Seconds of each step that was measured.
    pub measured: Vec<f64>,
    /// Tokens a second, between those of the slowest step and of the fastest.
    pub tokens_per_second: Estimate,
    /// Seconds of all steps, between those at the rate of the fastest that was measured and of the slowest.
    pub steps: Estimate,
    /// Seconds in which the reference says what it says, unless that is kept from another run.
    pub reference: f64,
    /// Evaluations, and seconds of all of them; without those of samples.
    pub evaluations: (u64, f64),
}

impl Time {
    /// Seconds of all of it.
    pub fn total(&self) -> f64 {
        self.steps.value + self.reference + self.evaluations.1
    }
}

/// Steps that are measured, after one that is not.
const MEASURED: usize = 5;
/// No more are begun after this time, once there are two.
const ENOUGH: Duration = Duration::from_secs(60);

/// What the run that `config` says would take; by several processes, what the first of them would, which has most to
/// do. A few of its steps are made with a learning rate of 0, and forgotten: those of one process.
///
/// # Errors
/// As [`train`](crate::train) before its first step, but for too little memory, which is told.
pub fn forecast<B: Backend>(b: &B, config: &Config, processes: usize) -> Result<Forecast, Error> {
    check_shares(config, processes)?;
    let free = b.memory().free;
    let ranks = Ranks::new(&Alone);
    if config.method.is_online() {
        let online::Prepared { plan, bytes, text, too_large, .. } =
            online::prepare(b, &ranks, processes, config)?;
        let steps = plan.visits.total;
        return Ok(Forecast { plan: text, steps, bytes, free, too_large, tokens: None, time: None });
    }
    let (start, tokenizer) = Start::of::<B>(config)?;
    let data =
        Data::load(&ranks, &start.config, Objective::of(&start.config).needs(), &start.model, &tokenizer)?;
    let planned = |config: &Config, model: &_| aim::plan(b, config, processes, (&start.folder, model), &data);
    let (plan, aim, bytes, text) = planned(&start.config, &start.model)?;
    let too_large = fit::check(b, &start, (&bytes, plan.room.rows), |config, model| {
        let (plan, _, bytes, _) = planned(config, model)?;
        Ok((bytes, plan.room.rows))
    })
    .err();
    let tokens = Some(Tokens::of(&data.train, &plan.visits, start.config.per_device_train_batch_size));
    let total = plan.visits.total;
    let time = match too_large {
        Some(_) => None,
        None if processes > 1 => None,
        None => Time::of(steps(b, &start, &plan, &aim, &data)?, start.from(), &plan, &aim, &data),
    };
    Ok(Forecast { plan: text, steps: total, bytes, free, too_large, tokens, time })
}

impl Tokens {
    /// Those of an epoch of `ds` in the order of `visits`, and of batches of `batch` groups.
    fn of(ds: &Dataset, visits: &Visits, batch: usize) -> Self {
        let mut order = EpochOrder::default();
        let mut all = Tokens { batch, ..Tokens::default() };
        for step in 0..visits.per_epoch {
            for groups in order.batch(visits, step).chunks(batch) {
                let (mut sequences, mut longest) = (0, 0);
                for group in groups.iter().map(|&i| ds.group(i as usize)) {
                    all.computed += group.tokens() as u64;
                    for response in group.responses() {
                        let tokens = (group.prompt.len() + response.len()) as u64;
                        all.repeated += tokens;
                        sequences += 1;
                        longest = tokens.max(longest);
                    }
                }
                all.padded += sequences * longest;
            }
        }
        all
    }

    /// The share of what padded batches compute that is not computed here.
    pub fn saved(&self) -> f64 {
        1.0 - self.computed as f64 / self.padded.max(1) as f64
    }
}

/// What some steps took.
#[derive(Default)]
struct Steps {
    /// Seconds of each.
    seconds: Vec<f64>,
    /// Of each, seconds a token.
    rates: Vec<f64>,
    /// Of each, seconds a token in which it was scored alone.
    scoring: Vec<f64>,
}

fn tokens(ds: &Dataset, groups: &[u32]) -> u64 {
    groups.iter().map(|&i| ds.group(i as usize).tokens() as u64).sum()
}

/// Makes steps on the weights that the run begins with, which they leave as they are.
fn steps<B: Backend>(b: &B, start: &Start, plan: &Plan, aim: &Aim, data: &Data) -> Result<Steps, Error> {
    let (ds, visits, model) = (&data.train, &plan.visits, &start.model);
    let mut weights = start.weights(b)?;
    let mut engine = Engine::new(b, model, plan.room, plan.keep)?;
    engine.score_as(aim.scoring);
    let ranks = &Ranks::new(&Alone);
    let (mut grads, mut updater) = learning(b, ranks, plan, (&start.folder, model, &start.manifest), None)?;
    updater.begin(b, &weights.trained_mut(&grads))?;
    let needs = aim.objective.needs();
    // A loss of a batch, and a reference that follows the policy, have it scored beside its gradients.
    let beside = usize::from(needs.batch) + usize::from(aim.follow.is_some() && needs.reference);
    let mut order = EpochOrder::default();
    let mut made = Steps::default();
    let begun = Instant::now();
    for step in 0..=MEASURED as u64 {
        if made.seconds.len() >= 2 && begun.elapsed() > ENOUGH {
            break;
        }
        if signal::interrupted() {
            return Err(Error::new("stopped while steps were measured"));
        }
        // A run that has fewer makes them again.
        let batch = order.batch(visits, (start.from() + step) % visits.total);
        let scoring = Instant::now();
        engine.score(&weights, ds, &batch, |_| true)?;
        let scoring = scoring.elapsed().as_secs_f64();
        let learning = Instant::now();
        updater.clear(b);
        if let Some(mismatched) = &data.train_mismatched {
            engine.score(&weights, mismatched, &batch, |_| true)?;
        }
        let totals = aim.objective.totals(ds, &batch);
        let shares = (0..plan.cut.shares).map(|which| &batch[plan.cut.share(batch.len(), which)]);
        // The last step of an epoch may have fewer groups than shares.
        for share in shares.filter(|share| !share.is_empty()) {
            engine.take_back(&mut grads);
            grads.list_mut().into_iter().for_each(|g| b.zero(g));
            let pairs = aim.objective.on_device(totals).filter(|_| engine.takes_pairs(ds, share));
            updater.begin_round(vec![true]);
            let sending = &mut updater.sending(ranks, &mut grads);
            match pairs {
                Some(pairs) => {
                    engine.accumulate_pairs(&weights, sending, ds, share, &pairs, |_| Known::default())?
                }
                None => engine.accumulate(&weights, sending, ds, share, |_, _, slopes| slopes.fill(1.0))?,
            };
            updater.add(b, ranks, Some(&grads.list()))?;
        }
        updater.squares(b, ranks, &grads.list())?;
        updater.step(b, ranks, weights.trained_mut(&grads), grads.list(), (0.0, 1.0))?;
        engine.take_back(&mut grads);
        b.finish()?;
        let seconds = learning.elapsed().as_secs_f64() + beside as f64 * scoring;
        // The first does what has to be done once.
        if step > 0 {
            let tokens = tokens(ds, &batch).max(1) as f64;
            made.seconds.push(seconds);
            made.rates.push(seconds / tokens);
            made.scoring.push(scoring / tokens);
        }
    }
    Ok(made)
}

impl Time {
    /// Of the steps after step `from`, by what a few took.
    fn of(made: Steps, from: u64, plan: &Plan, aim: &Aim, data: &Data) -> Option<Self> {
        let (ds, visits) = (&data.train, &plan.visits);
        let scoring = mean(&made.scoring)?.value;
        // A few steps in a row say little of how a machine drifts: what bounds the rest are the two that differ most.
        let fastest = made.rates.iter().copied().fold(f64::INFINITY, f64::min);
        let slowest = made.rates.iter().copied().fold(0.0, f64::max);
        let rate = Estimate { value: mean(&made.rates)?.value, interval: Some((fastest, slowest)) };
        let scaled = |by: &dyn Fn(f64) -> f64| Estimate {
            value: by(rate.value),
            interval: rate.interval.map(|(low, high)| (by(low), by(high))),
        };
        let all: Vec<u32> = (0..ds.len() as u32).collect();
        let left = visits.total.saturating_sub(from) as f64 / visits.per_epoch as f64;
        let left = left * tokens(ds, &all) as f64;
        let eval = data.eval.as_ref().map_or(0, |eval| eval.groups().map(|g| g.tokens() as u64).sum());
        let due = |step: &u64| plan.evaluating.due(*step, visits, false);
        let evaluations = (from + 1..=visits.total).filter(due).count() as u64;
        let evaluations = evaluations + u64::from(plan.eval_on_start && from == 0);
        let evaluations = if eval > 0 { evaluations } else { 0 };
        let fixed = aim.follow.map_or(u64::MAX, |(every, _)| every);
        let asked = match aim.objective.needs().reference {
            true => tokens(ds, &visits.visited(from, fixed)) + if evaluations > 0 { eval } else { 0 },
            false => 0,
        };
        let fewest = rate.interval.map(|(low, high)| (1.0 / high, 1.0 / low.max(f64::MIN_POSITIVE)));
        Some(Time {
            measured: made.seconds,
            tokens_per_second: Estimate { value: 1.0 / rate.value, interval: fewest },
            steps: scaled(&|rate| rate * left),
            reference: scoring * asked as f64,
            evaluations: (evaluations, scoring * (evaluations * eval) as f64),
        })
    }
}
