//! What may not change when a run is resumed.

use super::steps::Steps;
use super::table::{Config, KEYS, Key};
use super::values::Scheduler;
use crate::Error;
use std::fmt;

/// A key that two configurations set differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The key.
    pub key: String,
    /// Its value in the checkpoint.
    pub saved: String,
    /// Its value now.
    pub now: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} was {} and is now {}", self.key, self.saved, self.now)
    }
}

impl Config {
    /// The keys that decide which weights come out (data, model, loss, optimizer, schedule, seed, batches) and that
    /// differ from the configuration `saved` in a checkpoint: with any, a resumed run would not continue the curve.
    ///
    /// # Errors
    /// A path is not UTF-8.
    pub fn differences(&self, saved: &Config) -> Result<Vec<Difference>, Error> {
        // Where the learning rate does not depend on where the run ends, a longer run begins with the shorter one's
        // steps.
        let constant = matches!(self.lr_scheduler_type, Scheduler::Constant | Scheduler::ConstantWithWarmup);
        let fixed = constant && matches!(self.warmup_steps, Steps::Of(_));
        let grows = fixed && (1..self.max_steps).contains(&saved.max_steps);
        let (now, saved) = (self.said().table()?, saved.said().table()?);
        // What decides the samples that steps learn from decides the weights.
        let drawing = ["temperature", "top_k", "top_p", "min_p", "repetition_penalty"];
        let decides = |key: &Key| self.method.is_online() && drawing.contains(&key.name);
        let free = |key: &Key| key.may_change && !decides(key) || key.name == "max_steps" && grows;
        let changed = |key: &&Key| !free(key) && !same(key.name, saved.get(key.name), now.get(key.name));
        let show = |value: Option<&toml::Value>| value.map_or("not set".into(), toml::Value::to_string);
        let difference = |key: &Key| Difference {
            key: key.name.into(),
            saved: show(saved.get(key.name)),
            now: show(now.get(key.name)),
        };
        Ok(KEYS.iter().filter(changed).map(difference).collect())
    }
}

/// Whether two values of a key mean the same; two spellings of one existing path do.
fn same(key: &str, a: Option<&toml::Value>, b: Option<&toml::Value>) -> bool {
    let real = |value: Option<&toml::Value>| std::fs::canonicalize(value?.as_str()?).ok();
    a == b || (matches!(key, "model" | "ref_model" | "dataset") && real(a).is_some() && real(a) == real(b))
}
