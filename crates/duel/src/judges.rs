//! Judges by name on the command line: those of `duel-judge`, and those that this crate can make beside.

use clap::builder::NonEmptyStringValueParser;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use duel_backend::Backend;
use duel_experiments::cycle::Cycle;
use duel_experiments::truth::Truth;
use duel_judge::{KEYS, Maker, Settings, Stop, built_in};
use duel_train::reward::RewardModel;
use duel_train::signal;
use std::sync::Arc;

/// Everything that makes a judge; models are run on `b`.
pub fn makers<B: Backend>(b: &B) -> Vec<Maker<'_>> {
    let mut all = built_in();
    all.push(Truth::maker());
    all.push(RewardModel::maker(b));
    all.push(Cycle::maker());
    all
}

/// Whether the judge of this name is run on a device; others need none.
pub fn is_model(name: &str) -> bool {
    name.starts_with("model:")
}

/// Ends the waits of judges when Ctrl-C was pressed.
pub fn stop() -> Stop {
    Arc::new(signal::interrupted)
}

/// What the command line says of a judge's settings: a flag for each row of their table.
pub struct JudgeSettings(pub Settings);

impl Args for JudgeSettings {
    fn augment_args(command: Command) -> Command {
        command.args(KEYS.iter().map(|key| {
            Arg::new(key.name)
                .long(key.name.replace('_', "-"))
                .value_name(key.value)
                .help(format!("{} ({})", key.help, key.of.join(", ")))
                .help_heading("Judges")
                .allow_negative_numbers(true)
                .value_parser(NonEmptyStringValueParser::new())
        }))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for JudgeSettings {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let said =
            KEYS.iter().filter_map(|key| Some((key.name, matches.get_one::<String>(key.name)?.clone())));
        let settings = Settings::new(said);
        settings.map(Self).map_err(|e| clap::Error::raw(clap::error::ErrorKind::ValueValidation, e))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
