//! The configuration: every option once, with its default, its help text and its checks.
//!
//! [`Options`] is what a user says (a TOML file, the command line, or both), [`Config`] what a run does. The two
//! structs come from one table, so that a key cannot exist in one and be forgotten in the other. Names are TRL's.
//! An option that would have no effect is an error: nothing a user asks for is silently ignored.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// How a key stands on a command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// With a value.
    Value,
    /// With a value, or alone for the value `true`.
    Optional,
    /// With true or false, or alone for true.
    Switch,
}

/// A value that can be written as text.
trait Text: FromStr<Err: fmt::Display> {
    const FORM: Form = Form::Value;
}

impl Text for PathBuf {}
impl Text for f64 {}
impl Text for i64 {}
impl Text for u64 {}
impl Text for usize {}
impl Text for bool {
    const FORM: Form = Form::Switch;
}

fn read_text<T: Text>(text: &str) -> Result<T, Error> {
    text.parse().map_err(|e: T::Err| Error::new(e.to_string()))
}

/// Defines an enum written as a word in TOML and on the command line. `later` lists the words that TRL knows and
/// duel does not have yet, which deserve a better answer than "unknown".
macro_rules! choices {
    ($(#[$meta:meta])* $name:ident = $key:literal, later $later:expr,
     $($(#[$vmeta:meta])* $variant:ident = $text:literal $(| $alias:literal)*),+ $(,)?) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$vmeta])* $variant),+ }

        impl $name {
            /// Every choice as it is written in TOML and on the command line.
            pub const WORDS: &[&str] = &[$($text),+];
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $text),+ })
            }
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(word: &str) -> Result<Self, Error> {
                match word {
                    $($text $(| $alias)* => Ok(Self::$variant),)+
                    _ => Err(wrong_choice($key, word, Self::WORDS, $later)),
                }
            }
        }

        impl Text for $name {}

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    };
}

fn wrong_choice(key: &str, word: &str, known: &[&str], later: &[&str]) -> Error {
    let all = known.join(", ");
    if later.contains(&word) {
        Error::new(format!("`{key} = {word}` is not supported yet; use one of {all}"))
    } else {
        let near = nearest(word, known.iter().copied());
        Error::new(format!("`{key} = {word}` is not known; did you mean `{near}`? It is one of {all}"))
    }
}

choices! {
    /// What is trained for.
    Method = "method", later &["kto", "orpo", "simpo", "cpo", "grpo", "ppo", "rloo", "reward"],
    /// Token-mean cross entropy of the response.
    Sft = "sft",
    /// Preference pairs against a reference model.
    Dpo = "dpo",
}

choices! {
    /// The pair loss of [`Method::Dpo`].
    LossType = "loss_type",
    later &["exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired", "apo_zero", "apo_down",
            "discopop", "sft", "sigmoid_norm"],
    /// `-ln sigmoid(beta h)`: DPO.
    Sigmoid = "sigmoid",
    /// `(h - 1/(2 beta))^2`: IPO.
    Ipo = "ipo",
    /// `max(0, 1 - beta h)`: SLiC.
    Hinge = "hinge",
}

choices! {
    /// How IPO turns a response's log-ratios into one number.
    IpoReduction = "ipo_reduction", later &[],
    /// Averaged per token, as TRL does.
    Mean = "mean",
    /// Summed, as the DPO authors' code does.
    Sum = "sum",
}

choices! {
    /// Which end of a too long row is kept.
    TruncationMode = "truncation_mode", later &[],
    /// Cut at the end of the response.
    KeepStart = "keep_start",
    /// Cut at the start of the prompt.
    KeepEnd = "keep_end",
}

choices! {
    /// The optimizer.
    Optim = "optim", later &["adamw_8bit", "paged_adamw_8bit", "adafactor", "sgd", "lion_32bit", "adagrad"],
    /// Adam with decoupled weight decay.
    Adamw = "adamw" | "adamw_torch" | "adamw_torch_fused" | "adamw_hf",
    /// RMSprop, the DPO paper's optimizer.
    Rmsprop = "rmsprop",
}

choices! {
    /// The learning rate over the steps, after warm-up.
    Scheduler = "lr_scheduler_type",
    later &["cosine_with_restarts", "polynomial", "inverse_sqrt", "reduce_lr_on_plateau", "cosine_with_min_lr",
            "warmup_stable_decay"],
    /// Down to 0 in a straight line.
    Linear = "linear",
    /// Down to 0 along half a cosine.
    Cosine = "cosine",
    /// Constant from the first step, no warm-up.
    Constant = "constant",
    /// Constant after the warm-up.
    ConstantWithWarmup = "constant_with_warmup",
}

/// Where the arithmetic is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// The first GPU where one can be used, else the processor.
    Auto,
    /// The processor.
    Cpu,
    /// The GPU of this number, as the NVIDIA driver counts.
    Cuda(usize),
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

impl FromStr for Device {
    type Err = Error;
    fn from_str(word: &str) -> Result<Self, Error> {
        let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?;
        match (word, word.strip_prefix("cuda:").and_then(number)) {
            ("auto", _) => Ok(Self::Auto),
            ("cpu", _) => Ok(Self::Cpu),
            ("cuda", _) => Ok(Self::Cuda(0)),
            (_, Some(number)) => Ok(Self::Cuda(number)),
            _ => Err(wrong_choice("device", word, &["auto", "cpu", "cuda", "cuda:0"], &["mps"])),
        }
    }
}

impl Text for Device {}

impl Serialize for Device {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Device {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

choices! {
    /// When checkpoints are written.
    SaveStrategy = "save_strategy", later &["epoch", "best"],
    /// Every `save_steps`, and at the end.
    Steps = "steps",
    /// Never, but on Ctrl-C. The trained model is written all the same.
    No = "no",
}

choices! {
    /// Where metrics go besides `metrics.jsonl`.
    ReportTo = "report_to",
    later &["all", "wandb", "tensorboard", "mlflow", "trackio", "comet_ml", "clearml", "neptune", "swanlab"],
    /// Nowhere else.
    None = "none",
    /// The same: `metrics.jsonl` is always written.
    Jsonl = "jsonl",
}

/// A value or the word "none".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maybe<T>(pub Option<T>);

impl<T: FromStr> FromStr for Maybe<T> {
    type Err = T::Err;
    fn from_str(text: &str) -> Result<Self, T::Err> {
        if text.eq_ignore_ascii_case("none") {
            Ok(Self(None))
        } else {
            text.parse().map(|value| Self(Some(value)))
        }
    }
}

impl<T: Text> Text for Maybe<T> {
    const FORM: Form = match T::FORM {
        Form::Value => Form::Value,
        Form::Optional | Form::Switch => Form::Optional,
    };
}

impl<T: Serialize> Serialize for Maybe<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Some(value) => value.serialize(serializer),
            None => serializer.serialize_str("none"),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Maybe<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match toml::Value::deserialize(deserializer)? {
            toml::Value::String(word) if word.eq_ignore_ascii_case("none") => Ok(Self(None)),
            value => T::deserialize(value).map(|v| Self(Some(v))).map_err(|e| D::Error::custom(e.message())),
        }
    }
}

/// Where to continue from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resume {
    /// Start anew.
    Off,
    /// The newest checkpoint in `output_dir`.
    Newest,
    /// This checkpoint.
    Path(PathBuf),
}

impl FromStr for Resume {
    type Err = std::convert::Infallible;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.to_ascii_lowercase().as_str() {
            "true" => Self::Newest,
            "false" | "none" => Self::Off,
            _ => Self::Path(text.into()),
        })
    }
}

impl Text for Resume {
    const FORM: Form = Form::Optional;
}

impl Serialize for Resume {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_bool(false),
            Self::Newest => serializer.serialize_bool(true),
            Self::Path(path) => path.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Resume {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match toml::Value::deserialize(deserializer)? {
            toml::Value::Boolean(newest) => Ok(if newest { Self::Newest } else { Self::Off }),
            toml::Value::String(text) => text.parse().map_err(D::Error::custom),
            _ => Err(D::Error::custom("expected true, false or the path of a checkpoint")),
        }
    }
}

/// A key of the configuration.
pub struct Key {
    /// Its name, in snake case.
    pub name: &'static str,
    /// The part of the help that it belongs to.
    pub heading: &'static str,
    /// How it stands on a command line.
    pub form: Form,
    doc: &'static str,
    read: fn(&str) -> Result<Options, Error>,
}

impl Key {
    /// Its name on a command line, without the dashes in front.
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    /// What it does and its default, in one line.
    pub fn help(&self) -> &'static str {
        self.doc.trim().trim_end_matches('.')
    }

    /// Options that say this key alone.
    ///
    /// # Errors
    /// Why `text` is no value of it. The message leaves it to the caller to name the key as the user wrote it.
    pub fn read(&self, text: &str) -> Result<Options, Error> {
        (self.read)(text)
    }
}

/// Makes [`Options`], [`Config`] and [`KEYS`] from one table of `key: type = default`. A default is evaluated only
/// where the key was not given, in table order, and sees the values of the keys above it.
macro_rules! options {
    ($($heading:literal {
        $($(#[doc = $doc:literal])+ $name:ident: $ty:ty = $default:expr;)+
    })+) => {
        /// What a user asked for: every key optional. Reads from TOML ([`Options::read`]) and, a key at a time, from
        /// text ([`Key::read`]); [`Options::or`] joins what was read.
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct Options {$($(
            $(#[doc = $doc])+
            #[serde(skip_serializing_if = "Option::is_none")]
            pub $name: Option<$ty>,
        )+)+}

        /// What a run does: every key with its value, checked. Written to the run folder by [`Config::to_toml`],
        /// which [`Options::read`] reads back.
        #[derive(Debug, Clone, PartialEq, Serialize)]
        pub struct Config {$($(
            $(#[doc = $doc])+
            pub $name: $ty,
        )+)+}

        /// Every key.
        pub const KEYS: &[Key] = &[$($(Key {
            name: stringify!($name),
            heading: $heading,
            form: <$ty as Text>::FORM,
            doc: concat!($($doc),+),
            read: |text| Ok(Options { $name: Some(read_text(text)?), ..Options::default() }),
        }),+),+];

        /// The names of all keys.
        fn names() -> impl Iterator<Item = &'static str> {
            KEYS.iter().map(|key| key.name)
        }

        impl Options {
            /// These options, and those of `other` where they say nothing.
            pub fn or(self, other: Self) -> Self {
                Self {$($($name: self.$name.or(other.$name),)+)+}
            }

            fn with_defaults(self) -> Result<Config, Error> {
                $($(let $name: $ty = match self.$name { Some(value) => value, None => $default };)+)+
                Ok(Config {$($($name),+),+})
            }
        }
    };
}

options! {
    "Run" {
        /// Folder of the model to train: config.json, *.safetensors, tokenizer.json. Required.
        model: PathBuf = return Err(missing("model"));
        /// File of training rows (.jsonl, .json). Required.
        dataset: PathBuf = return Err(missing("dataset"));
        /// File of evaluation rows, or none. [default: none]
        eval_dataset: Maybe<PathBuf> = Maybe(None);
        /// What to train for: sft or dpo. [default: dpo]
        method: Method = Method::Dpo;
        /// Folder for checkpoints, metrics and the trained model. [default: duel-output]
        output_dir: PathBuf = "duel-output".into();
        /// Allow an output folder that already holds a run, and start it anew. [default: false]
        overwrite_output_dir: bool = false;
        /// Continue from this checkpoint; true or no value: the newest one in output_dir. [default: false]
        resume_from_checkpoint: Resume = Resume::Off;
        /// Seed of all randomness: shuffling, sampling. [default: 42]
        seed: u64 = 42;
    }
    "Data" {
        /// Longest prompt + response in tokens, or none for no limit. [default: 1024]
        max_length: Maybe<usize> = Maybe(Some(1024));
        /// Which end of a longer row is kept: keep_start or keep_end. [default: keep_start]
        truncation_mode: TruncationMode = TruncationMode::KeepStart;
        /// Draw a new row order for every epoch. [default: true]
        shuffle: bool = true;
    }
    "Loss" {
        /// Strength of the pull towards the reference model. [default: 0.1]
        beta: f64 = 0.1;
        /// Pair loss: sigmoid, ipo or hinge. [default: sigmoid]
        loss_type: LossType = LossType::Sigmoid;
        /// Share of pairs assumed to be labelled the wrong way round, below 0.5; sigmoid only. [default: 0.0]
        label_smoothing: f64 = 0.0;
        /// Log-ratios in the ipo loss: mean over tokens (as TRL) or sum (as the paper's code). [default: mean]
        ipo_reduction: IpoReduction = IpoReduction::Mean;
        /// The reference model's log-probabilities are always computed once, before the first step: only true is
        /// accepted. [default: true]
        precompute_ref_log_probs: bool = true;
    }
    "Steps" {
        /// Groups (a prompt with its responses) in a batch. [default: 8]
        per_device_train_batch_size: usize = 8;
        /// Batches summed up before each optimizer step. [default: 1]
        gradient_accumulation_steps: usize = 1;
        /// Passes over the training rows; fractions allowed. [default: 3.0]
        num_train_epochs: f64 = 3.0;
        /// Optimizer steps, overriding num_train_epochs; -1: as many as the epochs give. [default: -1]
        max_steps: i64 = -1;
    }
    "Optimizer" {
        /// Optimizer: adamw or rmsprop. [default: adamw]
        optim: Optim = Optim::Adamw;
        /// Peak learning rate. [default: 1e-6 for dpo, 2e-5 for sft]
        learning_rate: f64 = match method { Method::Dpo => 1e-6, Method::Sft => 2e-5 };
        /// Schedule: linear, cosine, constant or constant_with_warmup. [default: linear]
        lr_scheduler_type: Scheduler = Scheduler::Linear;
        /// Steps over which the learning rate rises from 0. [default: 0]
        warmup_steps: u64 = 0;
        /// The same as a share of all steps; give one of the two. [default: 0.0]
        warmup_ratio: f64 = 0.0;
        /// Decay of the gradient mean (adamw). [default: 0.9]
        adam_beta1: f64 = 0.9;
        /// Decay of the squared-gradient mean (adamw). [default: 0.999]
        adam_beta2: f64 = 0.999;
        /// Added to the root of the squared-gradient mean (both optimizers). [default: 1e-8]
        adam_epsilon: f64 = 1e-8;
        /// Decay of the squared-gradient mean (rmsprop). [default: 0.99]
        rmsprop_alpha: f64 = 0.99;
        /// Weight decay. [default: 0.0]
        weight_decay: f64 = 0.0;
        /// Scale gradients down to this norm; 0: never. [default: 1.0]
        max_grad_norm: f64 = 1.0;
    }
    "Logging, evaluation, checkpoints" {
        /// Steps between logged metrics. [default: 10]
        logging_steps: u64 = 10;
        /// Steps between evaluations; 0: only at the end. [default: 0]
        eval_steps: u64 = 0;
        /// Write checkpoints: steps, or no, which leaves the trained model alone. [default: steps]
        save_strategy: SaveStrategy = SaveStrategy::Steps;
        /// Steps between checkpoints; 0: only at the end. [default: 500]
        save_steps: u64 = 500;
        /// Checkpoints kept, older ones are deleted; none: all. [default: 2]
        save_total_limit: Maybe<usize> = Maybe(Some(2));
        /// Groups in an evaluation batch. [default: 8]
        per_device_eval_batch_size: usize = 8;
        /// Write samples of the model at every evaluation. [default: false]
        generate_during_eval: bool = false;
        /// Evaluation prompts to sample for. [default: 4]
        num_eval_samples: usize = 4;
        /// Longest sample in tokens. [default: 64]
        max_new_tokens: usize = 64;
        /// Sampling temperature; 0: always the likeliest token. [default: 1.0]
        temperature: f64 = 1.0;
        /// Sample among this many likeliest tokens; 0: all. [default: 0]
        top_k: usize = 0;
        /// Sample among the likeliest tokens that together have this probability. [default: 1.0]
        top_p: f64 = 1.0;
        /// Trackers: none or jsonl, which mean the same (metrics.jsonl is always written). [default: none]
        report_to: ReportTo = ReportTo::None;
    }
    "Machine" {
        /// Device: cpu, cuda (the first GPU), cuda:N, or auto: a GPU where there is one. [default: auto]
        device: Device = Device::Auto;
        /// Compute in bfloat16, with weights, gradients and moments kept in float32 beside; GPU only. none: on a GPU,
        /// yes. [default: none]
        bf16: Maybe<bool> = Maybe(None);
        /// Threads; 0: one per core. [default: 0]
        threads: usize = 0;
        /// Keep only layer inputs for the backward pass and recompute the rest: less memory, more time. [default: false]
        gradient_checkpointing: bool = false;
        /// Tokens computed at once; 0: 768 on the CPU, 8192 on a GPU, or the longest group where that is longer.
        /// [default: 0]
        micro_batch_tokens: usize = 0;
        /// Folder for cached reference log-probabilities. [default: duel in $XDG_CACHE_HOME or ~/.cache]
        cache_dir: PathBuf = default_cache_dir();
    }
}

fn missing(key: &str) -> Error {
    let flag = key.replace('_', "-");
    Error::new(format!(
        "`{key}` is missing: give --{flag} PATH, or {key} = \"PATH\" in the configuration file"
    ))
}

/// `$XDG_CACHE_HOME/duel`, `~/.cache/duel`, or `.duel-cache` here where there is no home.
fn default_cache_dir() -> PathBuf {
    let folder = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    match (folder("XDG_CACHE_HOME"), folder("HOME")) {
        (Some(cache), _) => cache.join("duel"),
        (None, Some(home)) => home.join(".cache").join("duel"),
        (None, None) => ".duel-cache".into(),
    }
}

/// Keys that TRL users type and duel does not have, each with what to do instead.
const UNSUPPORTED: &[(&[&str], &str)] = &[
    (&["model_name_or_path"], "it is called `model` here"),
    (&["dataset_name"], "it is called `dataset` here and names a file"),
    (&["dataset_train_split", "dataset_test_split"], "give files as `dataset` and `eval_dataset`"),
    (&["shuffle_dataset"], "it is called `shuffle` here"),
    (&["max_prompt_length", "max_completion_length"], "use `max_length` with `truncation_mode`"),
    (&["logging_strategy"], "use `logging_steps`"),
    (&["eval_strategy", "do_eval"], "give `eval_dataset` and `eval_steps`"),
    (&["use_cpu", "no_cuda"], "use `device = cpu`"),
    (&["label_smoothing_factor"], "use `label_smoothing`"),
    (
        &["padding_free", "packing", "packing_strategy", "eval_packing"],
        "groups are always packed, without padding",
    ),
    (&["pad_to_multiple_of", "pad_token"], "there is no padding"),
    (&["precompute_ref_batch_size"], "`micro_batch_tokens` sets the size of every pass"),
    (&["disable_dropout"], "there is no dropout"),
    (
        &["fp16", "tf32", "dtype", "bf16_full_eval", "fp16_full_eval", "half_precision_backend"],
        "the arithmetic is in float32, or with `bf16` in bfloat16",
    ),
    (&["load_in_8bit", "load_in_4bit"], "weights are float32 or bfloat16"),
    (&["ref_model"], "the reference is the model before the first step"),
    (&["completion_only_loss", "assistant_only_loss"], "the loss always covers the responses only"),
    (
        &[
            "use_peft",
            "lora_r",
            "lora_alpha",
            "lora_dropout",
            "lora_target_modules",
            "use_rslora",
            "use_dora",
        ],
        "LoRA is not there yet; all weights are trained",
    ),
    (
        &[
            "loss_weights",
            "ld_alpha",
            "use_weighting",
            "discopop_tau",
            "f_divergence_type",
            "f_alpha_divergence_coef",
        ],
        "it is not there yet",
    ),
    (&["sync_ref_model", "ref_model_mixup_alpha", "ref_model_sync_steps"], "the reference is fixed"),
    (
        &["deepspeed", "fsdp", "fsdp_config", "parallelism_config", "accelerator_config", "ddp_backend"],
        "a run uses one machine",
    ),
    (
        &["push_to_hub", "hub_model_id", "hub_token", "hub_strategy", "hub_private_repo"],
        "nothing is uploaded",
    ),
    (
        &[
            "load_best_model_at_end",
            "metric_for_best_model",
            "greater_is_better",
            "save_only_model",
            "data_seed",
        ],
        "it is not there yet",
    ),
    (
        &[
            "torch_compile",
            "use_liger_kernel",
            "attn_implementation",
            "activation_offloading",
            "trust_remote_code",
        ],
        "it belongs to PyTorch",
    ),
    (
        &[
            "gradient_checkpointing_kwargs",
            "lr_scheduler_kwargs",
            "optim_args",
            "model_init_kwargs",
            "neftune_noise_alpha",
            "logging_first_step",
            "group_by_length",
            "dataloader_num_workers",
            "dataset_num_proc",
            "remove_unused_columns",
            "run_name",
        ],
        "it has no counterpart",
    ),
];

/// Whether `key` (in snake case) may be a key at all.
///
/// # Errors
/// It is one of TRL's that duel does not have; the message says what to do instead.
pub fn check_supported(key: &str) -> Result<(), Error> {
    match UNSUPPORTED.iter().find(|(keys, _)| keys.contains(&key)) {
        Some((_, instead)) => Err(Error::new(format!("`{key}` is not supported: {instead}; remove it"))),
        None => Ok(()),
    }
}

/// The candidate that looks most like `word`.
fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> &'a str {
    candidates
        .max_by(|a, b| strsim::jaro_winkler(word, a).total_cmp(&strsim::jaro_winkler(word, b)))
        .unwrap_or("")
}

impl Options {
    /// Reads a TOML file. Keys may be written in snake or kebab case; paths are relative to the working directory.
    ///
    /// # Errors
    /// The file cannot be read, is no TOML, or has an unknown, doubled or unsupported key or a wrong value; the
    /// message names file and key.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path)
            .map_err(|e| Error::new(format!("cannot read the configuration {}: {e}", path.display())))?;
        Self::parse(&text).map_err(|e| Error::new(format!("{}: {e}", path.display())))
    }

    /// Reads a file that [`Config::to_toml`] wrote, which has every key.
    ///
    /// # Errors
    /// As [`Options::read`]; or a key is missing, because the file is cut off or of another version.
    pub fn read_whole(path: &Path) -> Result<Self, Error> {
        let options = Self::read(path)?;
        let given = table(&options)?;
        match names().find(|key| !given.contains_key(*key)) {
            None => Ok(options),
            Some(key) => Err(Error::new(format!(
                "{}: `{key}` is missing: the file is damaged, or of another version of duel; use an earlier checkpoint",
                path.display()
            ))),
        }
    }

    /// Parses the text of a TOML file; the errors of [`Options::read`] without the file's name.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| {
            let line = e.span().map_or(0, |at| text[..at.start.min(text.len())].matches('\n').count()) + 1;
            Error::new(format!("line {line}: {}", e.message().trim().replace('\n', ", ")))
        })?;
        let mut seen = std::collections::BTreeSet::new();
        let mut options = Self::default();
        for (written, value) in table {
            let key = written.replace('-', "_");
            check_supported(&key)?;
            if !names().any(|name| name == key) {
                let near = nearest(&key, names());
                return Err(Error::new(format!("unknown key `{written}`; did you mean `{near}`?")));
            }
            if !seen.insert(key.clone()) {
                return Err(Error::new(format!(
                    "`{key}` is given twice, in snake and in kebab case; remove one"
                )));
            }
            let one = toml::Table::from_iter([(key, value)]);
            let parsed =
                Self::deserialize(one).map_err(|e| Error::new(format!("`{written}`: {}", e.message())))?;
            options = options.or(parsed);
        }
        Ok(options)
    }

    /// Fills in the defaults and checks everything.
    ///
    /// # Errors
    /// A required key is missing, a value is out of range, two keys contradict each other, or a key was set to
    /// something that would have no effect.
    pub fn resolve(self) -> Result<Config, Error> {
        let given = table(&self)?;
        // The defaults that these options would have met, had only the deciding keys been given.
        let basis = Self {
            model: self.model.clone(),
            dataset: self.dataset.clone(),
            method: self.method,
            ..Self::default()
        };
        let config = self.with_defaults()?;
        config.check_ranges()?;
        config.check_contradictions()?;
        let defaults = table(&basis.with_defaults()?)?;
        for (keys, reason) in config.unused() {
            // A value equal to the default may stand: a written configuration names every key.
            if let Some(key) =
                keys.iter().find(|&&key| given.get(key).is_some_and(|v| Some(v) != defaults.get(key)))
            {
                return Err(Error::new(format!("`{key}` has no effect {reason}; remove it")));
            }
        }
        Ok(config)
    }
}

fn table(value: &impl Serialize) -> Result<toml::Table, Error> {
    toml::Table::try_from(value)
        .map_err(|e| Error::new(format!("the configuration cannot be written as TOML: {e}")))
}

/// Keys that may change on resuming: they do not decide which weights come out.
const FREE_ON_RESUME: &[&str] = &[
    "output_dir",
    "overwrite_output_dir",
    "resume_from_checkpoint",
    "eval_dataset",
    "eval_steps",
    "per_device_eval_batch_size",
    "generate_during_eval",
    "num_eval_samples",
    "max_new_tokens",
    "temperature",
    "top_k",
    "top_p",
    "logging_steps",
    "save_strategy",
    "save_steps",
    "save_total_limit",
    "report_to",
    "device",
    "threads",
    "gradient_checkpointing",
    "cache_dir",
];

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
    /// Groups in one optimizer step.
    pub fn batch_size(&self) -> usize {
        self.per_device_train_batch_size * self.gradient_accumulation_steps
    }

    /// The configuration as TOML, one line per key in the order of the help text.
    ///
    /// # Errors
    /// A path is not UTF-8.
    pub fn to_toml(&self) -> Result<String, Error> {
        toml::to_string(self)
            .map_err(|e| Error::new(format!("the configuration cannot be written as TOML: {e}")))
    }

    /// The keys that decide which weights come out (data, model, loss, optimizer, schedule, seed, batches) and that
    /// differ from the configuration `saved` in a checkpoint: with any, a resumed run would not continue the curve.
    ///
    /// # Errors
    /// A path is not UTF-8.
    pub fn differences(&self, saved: &Config) -> Result<Vec<Difference>, Error> {
        let (now, saved) = (table(self)?, table(saved)?);
        let decides =
            |key: &&str| !FREE_ON_RESUME.contains(key) && !same(key, saved.get(*key), now.get(*key));
        let show = |value: Option<&toml::Value>| value.map_or("not set".into(), toml::Value::to_string);
        let difference =
            |key: &str| Difference { key: key.into(), saved: show(saved.get(key)), now: show(now.get(key)) };
        Ok(names().filter(decides).map(difference).collect())
    }

    fn check_ranges(&self) -> Result<(), Error> {
        let check = |key: &str, value: &dyn fmt::Display, ok: bool, range: &str| {
            if ok {
                Ok(())
            } else {
                Err(Error::new(format!("`{key} = {value}` is out of range: it must be {range}")))
            }
        };
        let at_least_1 = |key, value: usize| check(key, &value, value >= 1, "at least 1");
        let not_negative =
            |key, value: f64| check(key, &value, value >= 0.0 && value.is_finite(), "0 or a number above");
        let positive = |key, value: f64| check(key, &value, value > 0.0 && value.is_finite(), "above 0");
        let decay =
            |key, value: f64| check(key, &value, (0.0..1.0).contains(&value), "at least 0 and below 1");

        // TOML integers are signed: a larger seed could not be written down.
        check("seed", &self.seed, i64::try_from(self.seed).is_ok(), "below 2^63")?;
        if let Some(tokens) = self.max_length.0 {
            check("max_length", &tokens, tokens >= 2, "at least 2, or \"none\"")?;
        }
        positive("beta", self.beta)?;
        let smoothing = self.label_smoothing;
        check("label_smoothing", &smoothing, (0.0..0.5).contains(&smoothing), "at least 0 and below 0.5")?;
        at_least_1("per_device_train_batch_size", self.per_device_train_batch_size)?;
        at_least_1("gradient_accumulation_steps", self.gradient_accumulation_steps)?;
        let product = self.per_device_train_batch_size.checked_mul(self.gradient_accumulation_steps);
        check(
            "gradient_accumulation_steps",
            &self.gradient_accumulation_steps,
            product.is_some(),
            "smaller",
        )?;
        positive("num_train_epochs", self.num_train_epochs)?;
        check(
            "max_steps",
            &self.max_steps,
            self.max_steps == -1 || self.max_steps >= 1,
            "at least 1, or -1",
        )?;
        not_negative("learning_rate", self.learning_rate)?;
        check("warmup_ratio", &self.warmup_ratio, (0.0..=1.0).contains(&self.warmup_ratio), "from 0 to 1")?;
        decay("adam_beta1", self.adam_beta1)?;
        decay("adam_beta2", self.adam_beta2)?;
        positive("adam_epsilon", self.adam_epsilon)?;
        decay("rmsprop_alpha", self.rmsprop_alpha)?;
        not_negative("weight_decay", self.weight_decay)?;
        not_negative("max_grad_norm", self.max_grad_norm)?;
        check("logging_steps", &self.logging_steps, self.logging_steps >= 1, "at least 1")?;
        if let Some(limit) = self.save_total_limit.0 {
            check("save_total_limit", &limit, limit >= 1, "at least 1, or \"none\"")?;
        }
        at_least_1("per_device_eval_batch_size", self.per_device_eval_batch_size)?;
        at_least_1("num_eval_samples", self.num_eval_samples)?;
        at_least_1("max_new_tokens", self.max_new_tokens)?;
        check("threads", &self.threads, self.threads <= 256, "from 0 (one per core) to 256")?;
        not_negative("temperature", self.temperature)?;
        check("top_p", &self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "above 0 and at most 1")
    }

    fn check_contradictions(&self) -> Result<(), Error> {
        let wrong = |message: &str| Err(Error::new(message));
        if !self.precompute_ref_log_probs {
            return wrong(
                "`precompute_ref_log_probs = false` is not supported: the reference log-probabilities are always \
                 computed once, before the first step; remove it",
            );
        }
        if self.device == Device::Cpu && self.bf16.0 == Some(true) {
            return wrong("`bf16 = true` needs a GPU: on the CPU the arithmetic is in float32; remove it");
        }
        if self.warmup_steps > 0 && self.warmup_ratio > 0.0 {
            return wrong("`warmup_steps` and `warmup_ratio` are both set; keep one");
        }
        if self.overwrite_output_dir && self.resume_from_checkpoint != Resume::Off {
            return wrong(
                "`overwrite_output_dir` starts anew and `resume_from_checkpoint` continues; keep one",
            );
        }
        if self.generate_during_eval && self.eval_dataset.0.is_none() {
            return wrong("`generate_during_eval` needs prompts; give `eval_dataset`");
        }
        Ok(())
    }

    /// Keys that this configuration makes meaningless, and why.
    fn unused(&self) -> impl Iterator<Item = (&'static [&'static str], &'static str)> {
        let rules: [(bool, &'static [&'static str], &'static str); 12] = [
            (
                self.method == Method::Sft,
                &["beta", "loss_type", "label_smoothing", "ipo_reduction"],
                "with `method = sft`",
            ),
            (self.loss_type != LossType::Sigmoid, &["label_smoothing"], "unless `loss_type = sigmoid`"),
            (self.loss_type != LossType::Ipo, &["ipo_reduction"], "unless `loss_type = ipo`"),
            (self.max_length.0.is_none(), &["truncation_mode"], "with `max_length = none`"),
            (self.optim != Optim::Adamw, &["adam_beta1", "adam_beta2"], "unless `optim = adamw`"),
            (self.optim != Optim::Rmsprop, &["rmsprop_alpha"], "unless `optim = rmsprop`"),
            (
                self.lr_scheduler_type == Scheduler::Constant,
                &["warmup_steps", "warmup_ratio"],
                "with `lr_scheduler_type = constant` (there is constant_with_warmup)",
            ),
            (
                self.eval_dataset.0.is_none(),
                &["eval_steps", "per_device_eval_batch_size"],
                "without `eval_dataset`",
            ),
            (
                !self.generate_during_eval,
                &["num_eval_samples", "max_new_tokens", "temperature", "top_k", "top_p"],
                "without `generate_during_eval`",
            ),
            (self.temperature == 0.0, &["top_k", "top_p"], "with `temperature = 0`"),
            (matches!(self.device, Device::Cuda(_)), &["threads"], "on a GPU"),
            (
                self.save_strategy == SaveStrategy::No,
                &["save_steps", "save_total_limit"],
                "with `save_strategy = no`",
            ),
        ];
        rules.into_iter().filter(|rule| rule.0).map(|(_, keys, reason)| (keys, reason))
    }
}

/// Whether two values of a key mean the same; two spellings of one existing path do.
fn same(key: &str, a: Option<&toml::Value>, b: Option<&toml::Value>) -> bool {
    let real = |value: Option<&toml::Value>| std::fs::canonicalize(value?.as_str()?).ok();
    a == b || (matches!(key, "model" | "dataset") && real(a).is_some() && real(a) == real(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn help(key: &str) -> &'static str {
        KEYS.iter().find(|k| k.name == key).unwrap().help()
    }

    fn resolve(toml: &str) -> Result<Config, Error> {
        Options::parse(&format!("model = \"m\"\ndataset = \"d\"\n{toml}"))?.resolve()
    }

    fn error(toml: &str) -> String {
        resolve(toml).expect_err(toml).to_string()
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let config = table(&resolve("").unwrap()).unwrap();
        for key in names() {
            let help = help(key);
            if ["model", "dataset"].contains(&key) {
                assert!(help.contains("Required"), "{key}");
            } else if !["cache_dir", "learning_rate"].contains(&key) {
                let (_, said) = help.rsplit_once("[default: ").unwrap_or_else(|| panic!("{key}: {help}"));
                let said = said.trim_end_matches(']');
                let same = match &config[key] {
                    toml::Value::Float(value) => said.parse() == Ok(*value),
                    toml::Value::String(value) => said == value,
                    value => said == value.to_string(),
                };
                assert!(same, "{key}: help says {said}, the default is {}", config[key]);
            }
        }
        assert_eq!(resolve("").unwrap().learning_rate, 1e-6);
        assert_eq!(resolve("method = 'sft'").unwrap().learning_rate, 2e-5);
    }

    #[test]
    fn help_names_every_choice() {
        let choices: [(&str, &[&str]); 8] = [
            ("method", Method::WORDS),
            ("loss_type", LossType::WORDS),
            ("ipo_reduction", IpoReduction::WORDS),
            ("truncation_mode", TruncationMode::WORDS),
            ("optim", Optim::WORDS),
            ("lr_scheduler_type", Scheduler::WORDS),
            ("save_strategy", SaveStrategy::WORDS),
            ("report_to", ReportTo::WORDS),
        ];
        for (key, words) in choices {
            words.iter().for_each(|word| assert!(help(key).contains(word), "{key}: {word}"));
        }
    }

    #[test]
    fn devices() {
        for (word, device) in [
            ("auto", Device::Auto),
            ("cpu", Device::Cpu),
            ("cuda", Device::Cuda(0)),
            ("cuda:3", Device::Cuda(3)),
        ] {
            assert_eq!(resolve(&format!("device = '{word}'")).unwrap().device, device);
            assert_eq!(device.to_string().parse(), Ok(device));
        }
        for wrong in ["cuda:", "cuda:x", "cuda:-1", "cuda:+1", "gpu", "cuda0"] {
            assert!(error(&format!("device = '{wrong}'")).contains("did you mean"), "{wrong}");
        }
        assert!(error("device = 'mps'").contains("is not supported yet"));
        assert_eq!(resolve("bf16 = false").unwrap().bf16, Maybe(Some(false)));
        assert!(error("bf16 = true\ndevice = 'cpu'").contains("needs a GPU"));
        assert!(error("threads = 3\ndevice = 'cuda'").contains("`threads` has no effect on a GPU"));
    }

    #[test]
    fn tables_name_real_keys_only() {
        let config = resolve("").unwrap();
        for key in FREE_ON_RESUME.iter().chain(config.unused().flat_map(|(keys, _)| keys)) {
            assert!(names().any(|name| name == *key), "{key}");
        }
        for (keys, _) in UNSUPPORTED {
            keys.iter().for_each(|key| assert!(names().all(|name| name != *key), "{key} is supported"));
        }
    }

    #[test]
    fn snake_and_kebab_are_the_same() {
        assert_eq!(resolve("learning-rate = 1e-4").unwrap(), resolve("learning_rate = 1e-4").unwrap());
        assert!(error("learning-rate = 1\nlearning_rate = 1").contains("given twice"));
    }

    #[test]
    fn text_is_read_as_toml_is() {
        for (key, text, toml) in [
            ("beta", "1e-4", "1e-4"),
            ("shuffle", "false", "false"),
            ("max_length", "None", "'none'"),
            ("max_length", "7", "7"),
            ("bf16", "true", "true"),
            ("loss_type", "ipo", "'ipo'"),
            ("resume_from_checkpoint", "False", "false"),
            ("resume_from_checkpoint", "out/c-5", "'out/c-5'"),
        ] {
            let read = KEYS.iter().find(|k| k.name == key).unwrap().read(text);
            assert_eq!(read, Options::parse(&format!("{key} = {toml}")), "{key}");
        }
    }

    #[test]
    fn none_and_resume_have_their_words() {
        for (given, expected) in [("'none'", None), ("7", Some(7))] {
            assert_eq!(resolve(&format!("max_length = {given}")).unwrap().max_length.0, expected);
        }
        assert_eq!(resolve("eval_dataset = 'e'").unwrap().eval_dataset.0, Some("e".into()));
        for (toml, expected) in [
            ("true", Resume::Newest),
            ("'true'", Resume::Newest),
            ("false", Resume::Off),
            ("'out/c-5'", Resume::Path("out/c-5".into())),
        ] {
            let config = resolve(&format!("resume_from_checkpoint = {toml}")).unwrap();
            assert_eq!(config.resume_from_checkpoint, expected);
        }
        assert!(error("resume_from_checkpoint = 3").contains("the path of a checkpoint"));
    }

    #[test]
    fn trl_names_of_the_optimizer_are_accepted() {
        for name in ["adamw", "adamw_torch", "adamw_torch_fused"] {
            assert_eq!(resolve(&format!("optim = '{name}'")).unwrap().optim, Optim::Adamw);
        }
    }

    #[test]
    fn a_written_config_reads_back() {
        for toml in [
            "",
            "method = 'sft'\nlearning_rate = 3e-7\nnum_train_epochs = 1\nmax_length = 'none'\nsave_total_limit = 'none'",
            "loss_type = 'ipo'\nipo_reduction = 'sum'\noptim = 'rmsprop'\nresume_from_checkpoint = 'c'",
            "eval_dataset = 'e'\ngenerate_during_eval = true\ntop_p = 0.1\nseed = 9223372036854775807",
        ] {
            let config = resolve(toml).unwrap();
            let written = config.to_toml().unwrap();
            assert_eq!(Options::parse(&written).unwrap().resolve().unwrap(), config, "{written}");
        }
    }

    #[test]
    fn unknown_keys_name_the_nearest() {
        assert_eq!(error("learning_rat = 1"), "unknown key `learning_rat`; did you mean `learning_rate`?");
        assert_eq!(error("optimizer = 'adamw'"), "unknown key `optimizer`; did you mean `optim`?");
        assert!(error("save-step = 1").contains("`save_steps`"));
        let file = std::env::temp_dir().join(format!("duel-config-{}.toml", std::process::id()));
        std::fs::write(&file, "bta = 1").unwrap();
        let error = Options::read(&file).unwrap_err().to_string();
        assert_eq!(error, format!("{}: unknown key `bta`; did you mean `beta`?", file.display()));
        std::fs::remove_file(&file).unwrap();
        assert!(Options::read(&file).unwrap_err().to_string().contains("cannot read the configuration"));
    }

    #[test]
    fn unsupported_trl_keys_and_values_are_named() {
        for key in
            ["fp16", "use_peft", "lora_r", "sync_ref_model", "max_prompt_length", "deepspeed", "loss_weights"]
        {
            let expected = format!("`{key}` is not supported");
            assert!(error(&format!("{key} = true")).starts_with(&expected));
        }
        let expected = "`loss_type = apo_zero` is not supported yet; use one of sigmoid, ipo, hinge";
        assert!(error("loss_type = 'apo_zero'").contains(expected));
        assert!(error("loss_type = 'sigmod'").contains("did you mean `sigmoid`?"));
        assert!(error("report_to = 'wandb'").contains("not supported yet; use one of none, jsonl"));
        assert!(error("precompute_ref_log_probs = false").contains("always"));
        assert!(resolve("precompute_ref_log_probs = true").is_ok());
    }

    #[test]
    fn wrong_types_name_the_key() {
        for (toml, key) in
            [("beta = 'x'", "`beta`"), ("seed = -1", "`seed`"), ("max_length = 1.5", "`max_length`")]
        {
            assert!(error(toml).contains(key), "{}", error(toml));
        }
        assert!(error("beta = ").contains("line 3"), "{}", error("beta = "));
    }

    #[test]
    fn required_keys_are_asked_for() {
        let error = Options::default().resolve().unwrap_err().to_string();
        assert!(error.contains("`model` is missing: give --model PATH"), "{error}");
        let error = Options::parse("model = 'm'").unwrap().resolve().unwrap_err().to_string();
        assert!(error.contains("`dataset` is missing"), "{error}");
    }

    #[test]
    fn ranges_are_checked() {
        for toml in [
            "beta = 0",
            "beta = nan",
            "label_smoothing = 0.5",
            "label_smoothing = -0.1",
            "max_length = 1",
            "learning_rate = -1",
            "learning_rate = inf",
            "per_device_train_batch_size = 0",
            "gradient_accumulation_steps = 0",
            "num_train_epochs = 0",
            "max_steps = 0",
            "max_steps = -2",
            "adam_beta1 = 1",
            "adam_beta2 = -0.1",
            "adam_epsilon = 0",
            "rmsprop_alpha = 1",
            "weight_decay = -1",
            "max_grad_norm = -1",
            "warmup_ratio = 1.1",
            "logging_steps = 0",
            "save_total_limit = 0",
            "per_device_eval_batch_size = 0",
            "num_eval_samples = 0",
            "max_new_tokens = 0",
            "temperature = -1",
            "top_p = 0",
            "top_p = 1.1",
        ] {
            let (message, key) = (error(toml), toml.split(' ').next().unwrap());
            assert!(message.contains("out of range") && message.contains(key), "{message}");
        }
        let seed = KEYS.iter().find(|key| key.name == "seed").unwrap().read("9223372036854775808").unwrap();
        assert!(seed.or(Options::parse("model = 'm'\ndataset = 'd'").unwrap()).resolve().is_err());
    }

    #[test]
    fn contradictions_are_errors() {
        for (toml, part) in [
            ("warmup_steps = 1\nwarmup_ratio = 0.1", "keep one"),
            ("overwrite_output_dir = true\nresume_from_checkpoint = true", "keep one"),
            ("generate_during_eval = true", "give `eval_dataset`"),
            (
                "loss_type = 'ipo'\nlabel_smoothing = 0.1",
                "`label_smoothing` has no effect unless `loss_type = sigmoid`",
            ),
            ("ipo_reduction = 'sum'", "`ipo_reduction` has no effect unless `loss_type = ipo`"),
            ("method = 'sft'\nbeta = 0.5", "`beta` has no effect with `method = sft`"),
            ("method = 'sft'\nloss_type = 'ipo'", "`loss_type` has no effect"),
            ("max_length = 'none'\ntruncation_mode = 'keep_end'", "`truncation_mode` has no effect"),
            ("rmsprop_alpha = 0.5", "`rmsprop_alpha` has no effect unless `optim = rmsprop`"),
            ("optim = 'rmsprop'\nadam_beta1 = 0.5", "`adam_beta1` has no effect"),
            ("lr_scheduler_type = 'constant'\nwarmup_steps = 5", "constant_with_warmup"),
            ("eval_steps = 10", "without `eval_dataset`"),
            ("temperature = 0.5", "without `generate_during_eval`"),
            (
                "eval_dataset = 'e'\ngenerate_during_eval = true\ntemperature = 0\ntop_k = 5",
                "with `temperature = 0`",
            ),
        ] {
            assert!(error(toml).contains(part), "{toml}: {}", error(toml));
        }
    }

    #[test]
    fn differences_are_those_that_change_the_weights() {
        let saved = resolve("").unwrap();
        let now = resolve(
            "beta = 0.5\nseed = 7\noutput_dir = 'x'\nthreads = 3\nlogging_steps = 1\neval_dataset = 'e'",
        );
        let differences = now.unwrap().differences(&saved).unwrap();
        let shown: Vec<String> = differences.iter().map(Difference::to_string).collect();
        assert_eq!(shown, ["seed was 42 and is now 7", "beta was 0.1 and is now 0.5"]);
        assert_eq!(saved.differences(&saved).unwrap(), []);

        let here = Config { model: ".".into(), ..saved.clone() };
        let absolute = Config { model: std::env::current_dir().unwrap(), ..saved.clone() };
        assert_eq!(here.differences(&absolute).unwrap(), []);
        assert_eq!(here.differences(&saved).unwrap().len(), 1);
    }

    #[test]
    fn batch_size_counts_accumulation() {
        let config = resolve("per_device_train_batch_size = 4\ngradient_accumulation_steps = 3").unwrap();
        assert_eq!(config.batch_size(), 12);
    }
}
