//! The command line: flags in one spelling, and the options of a run, which are those of the trainer's own table.

use clap::builder::{BoolishValueParser, NonEmptyStringValueParser, TypedValueParser, ValueParser};
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use duel_train::Error;
use duel_train::config::{Form, KEYS, Key, Options, check_supported};
use std::ffi::OsString;
use std::str::FromStr;

/// Arguments as `clap` wants them: flags in kebab case (`--learning_rate=1` to `--learning-rate=1`). Values, and
/// everything after a lone `--`, stay as they are.
///
/// # Errors
/// A flag of a run is one of TRL's that duel does not have.
pub fn normalize(args: impl IntoIterator<Item = OsString>) -> Result<Vec<OsString>, Error> {
    let mut flags_ended = false;
    let mut args = args.into_iter().peekable();
    let program = args.next();
    // Other commands have flags of their own by names that a run does not take.
    let others = [
        "eval",
        "generate",
        "sample",
        "label",
        "table",
        "frontier",
        "theorem",
        "tournament",
        "cycle",
        "report",
        "losses",
    ];
    let of_run = args.peek().is_none_or(|command| !others.iter().any(|other| command == other));
    let mut normalize = |arg: OsString| {
        flags_ended |= arg == "--";
        let Some(flag) = arg.to_str().and_then(|text| text.strip_prefix("--")).filter(|_| !flags_ended)
        else {
            return Ok(arg);
        };
        let (key, value) = flag.split_at(flag.find('=').unwrap_or(flag.len()));
        if of_run {
            check_supported(&key.replace('-', "_"))?;
        }
        Ok(format!("--{}{value}", key.replace('_', "-")).into())
    };
    program.map(Ok).into_iter().chain(args.map(&mut normalize)).collect()
}

/// What the command line says: of a run, or of scoring rows without one.
pub struct Flags<const OF_SCORING: bool>(pub Options);

/// All keys.
pub type RunOptions = Flags<false>;

/// Those that say how rows are read and scored.
pub type ScoringOptions = Flags<true>;

/// The keys of [`ScoringOptions`].
const SCORING: [&str; 9] = [
    "beta",
    "max_length",
    "truncation_mode",
    "per_device_eval_batch_size",
    "micro_batch_tokens",
    "cache_dir",
    "device",
    "bf16",
    "threads",
];

impl<const OF_SCORING: bool> Flags<OF_SCORING> {
    fn keys() -> impl Iterator<Item = &'static Key> {
        KEYS.iter().filter(|key| !OF_SCORING || SCORING.contains(&key.name))
    }
}

impl<const OF_SCORING: bool> Args for Flags<OF_SCORING> {
    fn augment_args(command: Command) -> Command {
        command.args(Self::keys().map(argument))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<const OF_SCORING: bool> FromArgMatches for Flags<OF_SCORING> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let said = Self::keys().filter_map(|key| matches.get_one::<Options>(key.name));
        Ok(Self(said.cloned().fold(Options::default(), Options::or)))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The flag of a key. Its value is read into options that say this key alone.
fn argument(key: &'static Key) -> Arg {
    let parser = match key.form {
        Form::Switch => ValueParser::new(BoolishValueParser::new().try_map(|on| key.read(&on.to_string()))),
        _ => ValueParser::new(NonEmptyStringValueParser::new().try_map(|text| key.read(&text))),
    };
    let arg = Arg::new(key.name)
        .long(key.flag())
        .value_name(key.name.to_uppercase())
        .help(key.help())
        .help_heading(key.heading)
        .allow_negative_numbers(true)
        .value_parser(parser);
    match key.form {
        Form::Value => arg,
        Form::Switch | Form::Optional => arg.num_args(0..=1).default_missing_value("true"),
    }
}

/// Seeds, each once: numbers with commas.
#[derive(Clone, Debug, PartialEq)]
pub struct Seeds(pub Vec<u64>);

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut all = Vec::new();
        for said in text.split(',').map(str::trim) {
            let seed = said
                .parse()
                .map_err(|_| format!("`{said}` is no seed: give numbers from 0 on with commas, as 1,2,3"))?;
            if all.contains(&seed) {
                return Err(format!(
                    "{seed} is there twice, which would count a run twice; name each seed once"
                ));
            }
            all.push(seed);
        }
        Ok(Seeds(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use duel_train::config::{Device, Maybe, Resume};

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        options: RunOptions,
    }

    fn cli(args: &[&str]) -> Options {
        let args = ["duel", "--model", "m", "--dataset", "d"].iter().chain(args).map(OsString::from);
        Cli::try_parse_from(normalize(args).unwrap()).unwrap_or_else(|e| panic!("{e}")).options.0
    }

    fn error(args: &[&str]) -> String {
        match normalize(["duel"].iter().chain(args).map(OsString::from)) {
            Err(error) => error.to_string(),
            Ok(args) => Cli::try_parse_from(args).err().expect("accepted").to_string(),
        }
    }

    #[test]
    fn snake_and_kebab_are_the_same() {
        for args in [["--learning_rate", "1e-4"], ["--learning-rate", "1e-4"]] {
            assert_eq!(cli(&args).learning_rate, Some(1e-4));
        }
        assert_eq!(cli(&["--learning_rate=1e-4", "--output_dir=my_out-dir"]).learning_rate, Some(1e-4));
        assert_eq!(cli(&["--output_dir=my_out-dir"]).output_dir, Some("my_out-dir".into()));

        let args = ["duel", "a_b", "--x_y", "a_b", "--", "--x_y"].map(OsString::from);
        assert_eq!(normalize(args).unwrap(), ["duel", "a_b", "--x-y", "a_b", "--", "--x_y"]);
    }

    #[test]
    fn booleans_take_an_optional_value() {
        for (args, expected) in [
            (&["--shuffle"][..], Some(true)),
            (&["--shuffle", "false"], Some(false)),
            (&["--shuffle=False"], Some(false)),
            (&["--shuffle", "True", "--seed", "1"], Some(true)),
            (&["--shuffle", "--seed", "1"], Some(true)),
            (&[], None),
        ] {
            assert_eq!(cli(args).shuffle, expected, "{args:?}");
        }
        let said = cli(&["--bf16", "--device=cuda"]);
        assert_eq!((said.bf16, said.device), (Some(Maybe(Some(true))), Some(Device::Cuda(0))));
    }

    #[test]
    fn the_command_line_wins() {
        let file = Options::parse("model = 'a'\nbeta = 0.5\nseed = 7").unwrap();
        let config = cli(&["--beta", "0.2", "--max-steps", "-1"]).or(file).resolve().unwrap();
        assert_eq!((config.beta, config.seed, config.model, config.max_steps), (0.2, 7, "m".into(), -1));
    }

    #[test]
    fn none_and_resume_have_their_words() {
        for (given, expected) in [("none", None), ("7", Some(7))] {
            assert_eq!(cli(&["--max-length", given]).max_length, Some(Maybe(expected)));
        }
        for (arg, expected) in [
            ("--resume-from-checkpoint", Resume::Newest),
            ("--resume_from_checkpoint=true", Resume::Newest),
            ("--resume-from-checkpoint=False", Resume::Off),
            ("--resume-from-checkpoint=out/c-5", Resume::Path("out/c-5".into())),
        ] {
            assert_eq!(cli(&[arg]).resume_from_checkpoint, Some(expected));
        }
    }

    #[test]
    fn wrong_flags_and_values_are_named() {
        assert!(error(&["--learning_rat", "1"]).contains("--learning-rate"));
        assert!(error(&["--beta", "much"]).contains("'much' for '--beta <BETA>': invalid float literal"));
        assert!(error(&["--shuffle=maybe"]).contains("'--shuffle [<SHUFFLE>]': value was not a boolean"));
        assert!(error(&["--model="]).contains("a value is required for '--model <MODEL>'"));
        let expected = "`method = gkd` is not supported yet; use one of sft, dpo, cpo, orpo, kto, reward";
        assert!(error(&["--method", "gkd"]).contains(expected));
        for key in ["fp16", "max_prompt_length", "deepspeed"] {
            let expected = format!("`{key}` is not supported");
            assert!(error(&[&format!("--{key}=true")]).starts_with(&expected));
            assert!(error(&[&format!("--{}", key.replace('_', "-"))]).starts_with(&expected));
        }
    }

    #[test]
    fn seeds_are_numbers_each_once() {
        assert_eq!("3, 1 ,2".parse(), Ok(Seeds(vec![3, 1, 2])));
        for (text, what) in
            [("", "`` is no seed"), ("1,,2", "`` is no seed"), ("1, 01", "1 is there twice"), ("-1", "`-1`")]
        {
            let error = text.parse::<Seeds>().unwrap_err();
            assert!(error.contains(what), "{text}: {error}");
        }
    }
}
