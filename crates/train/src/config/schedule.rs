//! Schedules by their names and settings, which are transformers'.

use super::said::Said;
use super::table::Config;
use super::values::{Scheduler, Text};
use crate::Error;
use duel_optim::{Ramp, ScheduleKind};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Settings of a schedule by name. On one line `name=value` with commas, or JSON; in a file a table too.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SchedulerSettings(pub BTreeMap<String, String>);

impl fmt::Display for SchedulerSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said: Vec<String> = self.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        f.write_str(&said.join(","))
    }
}

impl FromStr for SchedulerSettings {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        if text.starts_with('{') {
            let table: serde_json::Map<String, serde_json::Value> =
                serde_json::from_str(text).map_err(|e| Error::new(format!("broken JSON: {e}")))?;
            let said = table.into_iter().filter(|(_, value)| !value.is_null());
            return Ok(SchedulerSettings(
                said.map(|(name, value)| (name, value.as_str().map_or(value.to_string(), str::to_owned)))
                    .collect(),
            ));
        }
        let one = |said: &str| {
            let (name, value) = said.split_once('=')?;
            Some((name.trim().to_owned(), value.trim().to_owned()))
        };
        let said = text.split(',').filter(|said| !said.trim().is_empty());
        said.map(one)
            .collect::<Option<_>>()
            .map(Self)
            .ok_or_else(|| Error::new("give NAME=VALUE, with commas between"))
    }
}

impl Text for SchedulerSettings {}

impl Serialize for SchedulerSettings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SchedulerSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Said::from(&toml::Value::deserialize(deserializer)?).text().parse().map_err(D::Error::custom)
    }
}

impl Scheduler {
    /// The settings that it has.
    fn settings(self) -> &'static [&'static str] {
        match self {
            Self::Linear | Self::Constant | Self::ConstantWithWarmup => &[],
            Self::Cosine | Self::CosineWithRestarts => &["num_cycles"],
            Self::CosineWithMinLr => &["min_lr", "min_lr_rate", "num_cycles"],
            Self::Polynomial => &["lr_end", "power"],
            Self::InverseSqrt => &["timescale"],
            Self::WarmupStableDecay => &[
                "num_decay_steps",
                "num_stable_steps",
                "warmup_type",
                "decay_type",
                "min_lr_ratio",
                "num_cycles",
            ],
        }
    }

    /// Every schedule with its settings, for people.
    pub(super) fn settings_of_all() -> String {
        let with = Self::ALL.iter().filter(|schedule| !schedule.settings().is_empty());
        let said: Vec<String> =
            with.map(|schedule| format!("{schedule} has {}", schedule.settings().join(", "))).collect();
        said.join("; ")
    }
}

/// The settings of one schedule, as they are asked for.
struct Asked<'a> {
    scheduler: Scheduler,
    said: &'a SchedulerSettings,
}

impl Asked<'_> {
    fn wrong(&self, what: impl std::fmt::Display) -> Error {
        Error::new(format!("`lr_scheduler_kwargs` of {}: {what}", self.scheduler))
    }

    fn get<T: FromStr>(
        &self,
        name: &str,
        holds: impl Fn(&T) -> bool,
        range: &str,
    ) -> Result<Option<T>, Error> {
        let Some(text) = self.said.0.get(name).filter(|text| !text.eq_ignore_ascii_case("none")) else {
            return Ok(None);
        };
        match text.parse().ok().filter(holds) {
            Some(value) => Ok(Some(value)),
            None => Err(self.wrong(format!("`{name} = {text}` must be {range}"))),
        }
    }

    fn number(&self, name: &str) -> Result<Option<f64>, Error> {
        self.get(name, |x: &f64| *x >= 0.0 && x.is_finite(), "0 or a number above")
    }

    fn steps(&self, name: &str) -> Result<Option<u64>, Error> {
        self.get(name, |_: &u64| true, "a number of steps")
    }

    fn ramp(&self, name: &str, usual: Ramp) -> Result<Ramp, Error> {
        match self.said.0.get(name).map(String::as_str) {
            None => Ok(usual),
            Some("linear") => Ok(Ramp::Linear),
            Some("cosine") => Ok(Ramp::Cosine),
            Some("1-sqrt") => Ok(Ramp::Root),
            Some(other) => Err(self.wrong(format!("`{name} = {other}` must be linear, cosine or 1-sqrt"))),
        }
    }
}

impl Config {
    /// The shape of the learning rate.
    ///
    /// # Errors
    /// `lr_scheduler_kwargs` has what the schedule has not, lacks what it needs, or is out of range.
    pub fn schedule_kind(&self) -> Result<ScheduleKind, Error> {
        let none = SchedulerSettings::default();
        let scheduler = self.lr_scheduler_type;
        let asked = Asked { scheduler, said: self.lr_scheduler_kwargs.as_ref().unwrap_or(&none) };
        let known = scheduler.settings();
        if let Some(odd) = asked.said.0.keys().find(|name| !known.contains(&name.as_str())) {
            let has = if known.is_empty() { "none".into() } else { known.join(", ") };
            return Err(asked.wrong(format!("there is no `{odd}`; it has {has}")));
        }
        Ok(match scheduler {
            Scheduler::Linear => ScheduleKind::Linear,
            Scheduler::Constant | Scheduler::ConstantWithWarmup => ScheduleKind::Constant,
            Scheduler::Cosine => {
                ScheduleKind::Cosine { cycles: asked.number("num_cycles")?.unwrap_or(0.5), floor: 0.0 }
            }
            Scheduler::CosineWithRestarts => {
                ScheduleKind::Restarts { cycles: asked.number("num_cycles")?.unwrap_or(1.0) }
            }
            Scheduler::CosineWithMinLr => {
                let cycles = asked.number("num_cycles")?.unwrap_or(0.5);
                let floor = match (asked.number("min_lr")?, asked.number("min_lr_rate")?) {
                    (Some(rate), None) if rate <= self.learning_rate && self.learning_rate > 0.0 => {
                        rate / self.learning_rate
                    }
                    (Some(rate), None) => {
                        return Err(asked.wrong(format!("`min_lr = {rate}` must be below learning_rate")));
                    }
                    (None, Some(share)) if share <= 1.0 => share,
                    (None, Some(share)) => {
                        return Err(asked.wrong(format!("`min_lr_rate = {share}` must be from 0 to 1")));
                    }
                    _ => return Err(asked.wrong("give `min_lr` or `min_lr_rate`, and not both")),
                };
                ScheduleKind::Cosine { cycles, floor }
            }
            Scheduler::Polynomial => {
                let end = asked.number("lr_end")?.unwrap_or(1e-7);
                if end >= self.learning_rate {
                    return Err(asked.wrong(format!("`lr_end = {end}` must be below learning_rate")));
                }
                ScheduleKind::Polynomial { power: asked.number("power")?.unwrap_or(1.0), end }
            }
            Scheduler::InverseSqrt => ScheduleKind::InverseSqrt {
                timescale: asked.get("timescale", |n: &u64| *n > 0, "at least 1")?,
            },
            Scheduler::WarmupStableDecay => ScheduleKind::StableDecay {
                warmup: asked.ramp("warmup_type", Ramp::Linear)?,
                stable: asked.steps("num_stable_steps")?,
                decay: match asked.steps("num_decay_steps")? {
                    Some(steps) => steps,
                    None => return Err(asked.wrong("give `num_decay_steps`, the steps of its decay")),
                },
                shape: asked.ramp("decay_type", Ramp::Cosine)?,
                floor: asked.get("min_lr_ratio", |x| (0.0..=1.0).contains(x), "from 0 to 1")?.unwrap_or(0.0),
                cycles: asked.number("num_cycles")?.unwrap_or(0.5),
            },
        })
    }
}
