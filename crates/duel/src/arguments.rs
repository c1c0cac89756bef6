//! The command line: flags in one spelling, and the options of a run, which are those of the trainer's own table.

use clap::builder::{BoolishValueParser, NonEmptyStringValueParser, TypedValueParser, ValueParser};
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use duel_train::Error;
use duel_train::config::{Form, KEYS, Key, Maybe, Method, Options, Recipe, notes_of_value, read_flag, word};
use std::ffi::OsString;
use std::iter::Peekable;
use std::str::FromStr;

/// A command line as `clap` wants it.
#[derive(Debug, PartialEq)]
pub struct Normal {
    /// Flags in kebab case (`--learning_rate=1` to `--learning-rate=1`), those of a run by duel's names. Values, and
    /// everything after a lone `--`, stay as they are.
    pub args: Vec<OsString>,
    /// What is to be said of flags that change nothing.
    pub notes: Vec<String>,
}

/// Keys whose flags take several values in TRL's way, with spaces between.
const LISTS: [&str; 8] = [
    "data_files",
    "datasets",
    "eval_datasets",
    "loss_type",
    "loss_weights",
    "lora_target_modules",
    "modules_to_save",
    "report_to",
];

/// Commands whose flags are those of a run.
const OF_RUN: [&str; 4] = ["train", "plan", "inspect", "audit"];

/// Makes a command line as TRL's users write it one as `clap` wants it: `duel dpo` is `duel train --method dpo`,
/// `--config FILE` is FILE, and flags of a run may be in TRL's words.
///
/// # Errors
/// A flag of a run is one of TRL's that duel does not have.
pub fn normalize(args: impl IntoIterator<Item = OsString>) -> Result<Normal, Error> {
    let mut args = args.into_iter().peekable();
    let mut normal: Vec<OsString> = args.next().into_iter().collect();
    let command = args.peek().and_then(|arg| arg.to_str()).unwrap_or("--").to_owned();
    let method = command.replace('-', "_").parse::<Method>().ok();
    if let Some(method) = method {
        args.next();
        normal.extend(["train".into(), format!("--method={method}").into()]);
    }
    // Other commands have flags of their own by names that a run does not take.
    let of_run = method.is_some() || OF_RUN.contains(&&*command) || command.starts_with("--");
    let mut beside = Recipe::default();
    // Flags of theirs, each with the key and the flag that it became.
    let mut translated = Vec::new();
    // Files, which come before all flags: behind one that may be without a value they would be its value.
    let mut files: Vec<OsString> = Vec::new();
    while let Some(arg) = args.next() {
        if arg == "--" {
            normal.push(arg);
            normal.extend(args.by_ref());
            break;
        }
        let Some(flag) = arg.to_str().and_then(|text| text.strip_prefix("--")) else {
            normal.push(arg);
            continue;
        };
        let (name, value) = flag.split_at(flag.find('=').unwrap_or(flag.len()));
        let (mut key, mut value) = (name.replace('-', "_"), value.strip_prefix('=').map(str::to_owned));
        if of_run {
            let own = |key: &str| KEYS.iter().find(|known| known.name == key);
            let is_word = |key: &str| own(key).is_none() && word(key).is_some();
            let switched = key
                .strip_prefix("no_")
                .filter(|rest| own(rest).is_some_and(|known| known.form == Form::Switch) || is_word(rest));
            if let (None, Some(rest), false) = (&value, switched, is_word(&key)) {
                (key, value) = (rest.to_owned(), Some("false".into()));
            }
            let is_list = is_word(&key) || LISTS.contains(&key.as_str());
            if value.is_none() && (is_list || key == "config") {
                value = values(&mut args, key == "config");
            }
            if is_word(&key) {
                let (keys, said) = read_flag(&key, value.as_deref().unwrap_or("true"))?;
                beside = beside.or(said);
                for (own, value) in keys {
                    let flag = format!("--{}", own.replace('_', "-"));
                    normal.push(format!("{flag}={value}").into());
                    translated.push((key.clone(), own, flag));
                }
                continue;
            }
            if let ("config", Some(file)) = (key.as_str(), &value) {
                files.push(file.into());
                continue;
            }
            beside.idle.extend(value.iter().flat_map(|value| notes_of_value(&key, value)));
        }
        let value = value.map_or(String::new(), |value| format!("={value}"));
        normal.push(format!("--{}{value}", key.replace('_', "-")).into());
    }
    let command = normal.get(1).and_then(|arg| arg.to_str()).is_some_and(|arg| OF_RUN.contains(&arg));
    let at = normal.len().min(1 + usize::from(command));
    normal.splice(at..at, files);
    for (theirs, own, flag) in translated {
        let is_that = |arg: &&OsString| arg.to_str().is_some_and(|arg| arg.split('=').next() == Some(&flag));
        if normal.iter().filter(is_that).count() > 1 {
            return Err(Error::new(format!("`{theirs}` is `{own}`, which is given too; keep one")));
        }
    }
    Ok(Normal { args: normal, notes: beside.notes() })
}

/// The arguments up to the next flag or configuration's file, joined by commas; or the one that is such a `file`.
fn values(args: &mut Peekable<impl Iterator<Item = OsString>>, file: bool) -> Option<String> {
    let is_file = |text: &str| [".toml", ".yaml", ".yml"].iter().any(|ending| text.ends_with(ending));
    let is_value = |text: &str| !text.starts_with("--") && (file || !is_file(text));
    let mut all: Vec<String> = Vec::new();
    while let Some(value) = args.next_if(|arg| arg.to_str().is_some_and(is_value)) {
        all.push(value.to_string_lossy().into_owned());
        if file {
            break;
        }
    }
    (!all.is_empty()).then(|| all.join(","))
}

/// What the command line says: of a run, or of scoring rows without one.
pub struct Flags<const OF_SCORING: bool>(pub Options);

/// All keys.
pub type RunOptions = Flags<false>;

/// Those that say how rows are read and scored.
pub type ScoringOptions = Flags<true>;

/// The keys of [`ScoringOptions`].
const SCORING: [&str; 15] = [
    "model_revision",
    "dataset_config",
    "dataset_test_split",
    "data_files",
    "dataset_revision",
    "columns",
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
        Form::Optional => {
            ValueParser::new(NonEmptyStringValueParser::new().try_map(|text| key.read(truth(&text))))
        }
        Form::Value => ValueParser::new(NonEmptyStringValueParser::new().try_map(|text| key.read(&text))),
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

/// Python's words for true and false as they are here.
fn truth(text: &str) -> &str {
    match text {
        "True" => "true",
        "False" => "false",
        other => other,
    }
}

/// What is true, false or the word "none", in Python's words too.
pub fn switch(text: &str) -> Result<Maybe<bool>, std::str::ParseBoolError> {
    truth(text).parse()
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
    use duel_train::config::{Device, Resume};
    use std::path::PathBuf;

    #[derive(Parser)]
    struct Cli {
        config: Option<PathBuf>,
        #[command(flatten)]
        options: RunOptions,
    }

    fn cli(args: &[&str]) -> Options {
        let args = ["duel", "--model", "m", "--dataset", "d"].iter().chain(args).map(OsString::from);
        Cli::try_parse_from(normalize(args).unwrap().args).unwrap_or_else(|e| panic!("{e}")).options.0
    }

    fn cli_alone(flag: &str) -> Options {
        let args = normalize(["duel", flag].map(OsString::from)).unwrap().args;
        Cli::try_parse_from(args).unwrap_or_else(|e| panic!("{e}")).options.0
    }

    fn error(args: &[&str]) -> String {
        match normalize(["duel"].iter().chain(args).map(OsString::from)) {
            Err(error) => error.to_string(),
            Ok(normal) => Cli::try_parse_from(normal.args).err().expect("accepted").to_string(),
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
        assert_eq!(normalize(args).unwrap().args, ["duel", "a_b", "--x-y", "a_b", "--", "--x_y"]);
    }

    /// Command lines of TRL's documentation, in structure.
    #[test]
    fn trls_command_lines_are_understood() {
        let line = |text: &str| normalize(text.split(' ').map(OsString::from)).unwrap();
        let Normal { args, notes } = line(
            "duel dpo --model_name_or_path m --warmup_ratio 0.1 --loss_type sigmoid sft --lora_target_modules q v \
             --use_cpu --no_remove_unused_columns --no_shuffle --report_to wandb --run_name a --bf16 --config r.yaml",
        );
        assert_eq!(
            args,
            [
                "duel",
                "train",
                "r.yaml",
                "--method=dpo",
                "--model=m",
                "--warmup-steps=0.1",
                "--loss-type=sigmoid,sft",
                "--lora-target-modules=q,v",
                "--device=cpu",
                "--shuffle=false",
                "--report-to=wandb",
                "--bf16"
            ]
        );
        assert_eq!(
            notes,
            [
                "`remove_unused_columns`: rows are read in one way, as fast as the machine can",
                "`report_to = wandb`: metrics go to metrics.jsonl, of which track.py (beside the program's archive, or in its repository) tells wandb or trackio",
                "`run_name`: what is printed is the same for everyone"
            ]
        );
        // What looks at a run has its flags.
        assert_eq!(
            line("duel audit --model_name_or_path m --format json --config r.yaml").args,
            ["duel", "audit", "r.yaml", "--model=m", "--format", "json"]
        );
        // Before a file, a flag that is a switch of theirs has no value.
        assert_eq!(
            line("duel train --disable_tqdm r.yaml --seed 1").args,
            ["duel", "train", "r.yaml", "--seed", "1"]
        );
        // Other commands have flags of their own.
        assert_eq!(
            line("duel sample --load_in_8bit --config x").args,
            ["duel", "sample", "--load-in-8bit", "--config", "x"]
        );
        let wrong = |text: &str| normalize(text.split(' ').map(OsString::from)).unwrap_err().to_string();
        assert!(wrong("duel dpo --dataset_mixer org/name").contains("is a mapping of names and weights"));
        assert!(
            wrong("duel dpo --warmup_ratio 0.1 --warmup-steps 3")
                .ends_with("is `warmup_steps`, which is given too; keep one")
        );
        assert!(wrong("duel dpo --evals_per_epoch 2").contains("eval_steps"));
    }

    /// A flag that may be without a value does not take the file behind it for one.
    #[test]
    fn a_file_is_no_flags_value() {
        for flag in ["--bf16", "--use_peft", "--resume_from_checkpoint", "--seed=1"] {
            for config in [&["--config", "r.yaml"][..], &["--config=r.yaml"]] {
                let args = [&["duel", flag], config].concat().into_iter().map(OsString::from);
                let cli =
                    Cli::try_parse_from(normalize(args).unwrap().args).unwrap_or_else(|e| panic!("{e}"));
                assert_eq!(cli.config, Some("r.yaml".into()), "{flag}");
                assert_eq!(cli.options.0, cli_alone(flag), "{flag}");
            }
        }
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
        for (value, on) in [("True", true), ("False", false), ("true", true), ("false", false)] {
            assert_eq!(cli(&["--bf16", value]).bf16, Some(Maybe(Some(on))), "{value}");
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
