//! Judges by name on the command line: those of `duel-judge`, and those that this crate can make beside.

use clap::builder::NonEmptyStringValueParser;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use duel_experiments::truth::Truth;
use duel_judge::{Error, KEYS, Maker, Settings, Stop, built_in};
use duel_train::signal;
use std::sync::Arc;

/// Everything that makes a judge.
pub fn makers<'a>() -> Vec<Maker<'a>> {
    let model = |folder: &str, _: &Settings, _: &Stop| {
        let what = format!("{folder}: a reward model is no judge here yet; serve it as program:COMMAND");
        Err(Error::Failed(what))
    };
    let mut all = built_in();
    all.push(Truth::maker());
    all.push(Maker::new("model", "FOLDER", "a reward model's folder", model));
    all
}

/// Ends the waits of judges when Ctrl-C was pressed.
pub fn stop() -> Stop {
    Arc::new(signal::interrupted)
}

/// A judge's error as this crate has them.
pub fn failed(e: Error) -> duel_train::Error {
    duel_train::Error::new(e.to_string())
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
