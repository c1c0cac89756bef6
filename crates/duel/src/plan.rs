//! `duel plan`: what a run would take, without a run.

use crate::inspect::{Format, print};
use crate::run::RunArguments;
use clap::Args;
use duel::device::{Chosen, Job};
use duel_backend::Backend;
use duel_train::config::Config;
use duel_train::memory::gigabytes;
use duel_train::report::progress::clock;
use duel_train::{Error, Forecast, Time, Tokens, forecast, signal};
use serde_json::{Map, Value, json};
use std::num::NonZeroUsize;

/// Its arguments.
#[derive(Args)]
pub struct Plan {
    /// What to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Of a run by so many processes, what the first of them takes, which has most to do
    #[arg(long, value_name = "N", default_value_t = NonZeroUsize::MIN)]
    processes: NonZeroUsize,
    #[command(flatten)]
    said: RunArguments,
}

struct Asked<'a>(&'a Config, usize);

impl Job for Asked<'_> {
    type Output = Forecast;
    fn run<B: Backend>(self, b: &B) -> Result<Forecast, Error> {
        forecast(b, self.0, self.1)
    }
}

impl Plan {
    /// Prints what the run would take.
    ///
    /// # Errors
    /// What the user must put right before there can be such a run, too little memory too.
    pub fn run(&self) -> Result<(), Error> {
        signal::listen();
        let (config, processes) = (self.said.config()?, self.processes.get());
        let found = Chosen::of(config.device, config.bf16, config.threads)?.run(Asked(&config, processes))?;
        match self.format {
            Format::Text => print(&text(&found, processes))?,
            Format::Json => print(&format!("{:#}\n", json(&found, processes)))?,
        }
        found.too_large.map_or(Ok(()), Err)
    }
}

fn text(found: &Forecast, processes: usize) -> String {
    let mut text = format!("{}memory\n", found.plan);
    for (name, bytes) in found.bytes.each() {
        text += &format!("      {name:<28}{:>12}\n", megabytes(*bytes));
    }
    let free = found.free.map_or(String::new(), |free| format!(", of {} that are free", gigabytes(free)));
    text += &format!("      {:<28}{:>12}{free}\n", "all", megabytes(found.bytes.total()));
    if let Some(tokens) = found.tokens {
        let Tokens { computed, repeated, padded, batch } = tokens;
        text += &format!(
            "tokens of an epoch\n      {computed:>12} are computed\n      {repeated:>12} with the prompt before each \
             response\n      {padded:>12} in padded batches of {batch} groups, of which {:.1} % are saved\n",
            100.0 * tokens.saved()
        );
    }
    match &found.time {
        Some(time) => text += &said(time, found.steps),
        None if found.too_large.is_some() => {}
        None if processes > 1 => text += "time  is measured of one process alone, without --processes\n",
        None => text += "time  is not measured: steps would ask the judge about samples\n",
    }
    text
}

fn megabytes(bytes: usize) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

fn said(time: &Time, steps: u64) -> String {
    let seconds = &time.measured;
    let least = seconds.iter().copied().fold(f64::INFINITY, f64::min);
    let most = seconds.iter().copied().fold(0.0, f64::max);
    let mean = seconds.iter().sum::<f64>() / seconds.len() as f64;
    let between = |(low, high): (f64, f64)| {
        format!(" ({} to {}, as the fastest and the slowest)", clock(low), clock(high))
    };
    let (evaluations, of_them) = time.evaluations;
    let mut text = format!(
        "time  {} steps were made, after one that was not measured: {mean:.3} s each ({least:.3} to {most:.3}), {:.0} \
         tokens/s\n      {:>10}  steps, of {steps} in all{}\n",
        seconds.len(),
        time.tokens_per_second.value,
        clock(time.steps.value),
        time.steps.interval.map_or(String::new(), between)
    );
    if time.reference > 0.0 {
        text +=
            &format!("      {:>10}  reference, unless it is kept from another run\n", clock(time.reference));
    }
    if evaluations > 0 {
        text += &format!("      {:>10}  evaluations, {evaluations}, without samples\n", clock(of_them));
    }
    text + &format!("      {:>10}  all\n", clock(time.total()))
}

fn json(found: &Forecast, processes: usize) -> Value {
    let tokens = found.tokens.map(|tokens| {
        let Tokens { computed, repeated, padded, batch } = tokens;
        json!({"computed": computed, "prompts_repeated": repeated, "padded": padded, "batch": batch})
    });
    let time = found.time.as_ref().map(|time| {
        json!({
            "measured_seconds": time.measured,
            "tokens_per_second": time.tokens_per_second.value,
            "steps_seconds": time.steps.value,
            "steps_seconds_interval": time.steps.interval.map(|(low, high)| [low, high]),
            "reference_seconds": time.reference,
            "evaluations": time.evaluations.0,
            "evaluations_seconds": time.evaluations.1,
            "seconds": time.total(),
        })
    });
    let bytes: Map<String, Value> =
        found.bytes.each().iter().map(|(name, bytes)| (name.to_string(), json!(bytes))).collect();
    json!({
        "steps": found.steps,
        "processes": processes,
        "bytes": bytes,
        "bytes_in_all": found.bytes.total(),
        "bytes_free": found.free,
        "too_large": found.too_large.as_ref().map(Error::to_string),
        "tokens_of_an_epoch": tokens,
        "time": time,
    })
}
