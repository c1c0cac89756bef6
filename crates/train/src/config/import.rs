//! A recipe of another trainer as a configuration of duel, with what is not taken over as comments.

use super::foreign::{self, Dialect};
use super::table::Options;
use super::values::{EvalStrategy, Maybe};
use super::yaml;
use crate::Error;

/// The configuration, in TOML.
///
/// # Errors
/// It is no YAML, or what it says contradicts itself.
pub fn import(text: &str) -> Result<String, Error> {
    let mut entries = yaml::parse(text)?;
    let dialect = Dialect::of(&entries);
    let mut options = Options::default();
    options.recipe.dialect = Some(dialect);
    let mut refused = Vec::new();
    // Each is added alone: in the order in which they are added together.
    entries.sort_by_key(foreign::weakness);
    for entry in &entries {
        if let Err(e) = foreign::add(&mut options, std::slice::from_ref(entry)) {
            refused.push(e.to_string());
        }
    }
    let mut said = format!("# From a recipe in the words of {dialect}, by duel import.\n");
    let mut rows = options.clone();
    if let Err(e) = rows.settle_rows(Some(dialect)) {
        said += &format!("# {e}.\n");
        options.recipe.forget_rows();
        options.dataset = Some("train.jsonl".into());
        if options.eval_strategy.is_some_and(|strategy| strategy != EvalStrategy::No) {
            options.eval_dataset = options.eval_dataset.or(Some(Maybe(Some("eval.jsonl".into()))));
        }
    }
    let options = options.settle()?;
    said += &options.to_toml()?;
    let mut comment = |head: &str, lines: &[String]| {
        if !lines.is_empty() {
            said += &format!("\n# {head}\n");
            lines.iter().for_each(|line| said += &format!("#   {}\n", line.replace('\n', " ")));
        }
    };
    comment("Not taken over; numbers may be others than the recipe's:", &refused);
    let env: Vec<String> = options.recipe.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    comment("Environment variables, to be set where duel is started:", &env);
    comment("Not taken over; no number depends on it:", &options.recipe.notes());
    if let Err(e) = options.resolve() {
        comment("It does not run yet:", &[e.to_string()]);
    }
    Ok(said)
}
