//! Judges by name on the command line: those of `duel-judge`, and those that this crate can make beside.

use clap::builder::NonEmptyStringValueParser;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use duel_backend::Backend;
use duel_experiments::cycle::Cycle;
use duel_experiments::truth::Truth;
use duel_judge::{Judge, KEYS, Maker, Settings, Stop, built_in, open};
use duel_train::reward::RewardModel;
use duel_train::{Error, signal};
use std::path::{Path, PathBuf};
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

/// `settings`, with a file of the answers of the judge `name` where that is an endpoint and none is said: what was
/// asked once is not asked again, however the command ends.
///
/// # Errors
/// Those of `file`, which names it.
pub fn kept(
    settings: &Settings,
    name: &str,
    file: impl FnOnce() -> Result<PathBuf, Error>,
) -> Result<Settings, Error> {
    match name.starts_with("http") {
        true => Ok(settings.clone().or("judge_cache", file()?.display().to_string())),
        false => Ok(settings.clone()),
    }
}

/// The judge `name` of a study in the folder `dir`, which keeps an endpoint's answers.
///
/// # Errors
/// There is no such judge, or the folder cannot be made.
pub fn of_study<'b, B: Backend>(
    b: &'b B,
    name: &str,
    settings: &Settings,
    dir: &Path,
) -> Result<Box<dyn Judge + 'b>, Error> {
    let answers = || {
        let made = duel_disk::create_dir_all(dir).map(|()| dir.join("answers"));
        made.map_err(|e| Error::new(format!("{}: {e}", dir.display())))
    };
    Ok(open(name, &kept(settings, name, answers)?, &makers(b), &stop())?)
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
