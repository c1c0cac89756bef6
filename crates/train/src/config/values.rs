//! What a value can be, as a word, a number or a path: how it is read and written.

use super::said::Said;
use crate::Error;
use duel_loss::{WORDS, Word, policy};
use duel_model::Modules;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

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
pub trait Text: FromStr<Err: fmt::Display> {
    /// How a key with such a value stands on a command line.
    const FORM: Form = Form::Value;
}

impl Text for PathBuf {}
impl Text for String {}
impl Text for f64 {}
impl Text for i64 {}
impl Text for u64 {}
impl Text for usize {}
impl Text for bool {
    const FORM: Form = Form::Switch;
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
            /// Every choice.
            pub const ALL: &[Self] = &[$(Self::$variant),+];
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

/// The candidate that looks most like `word`.
pub(super) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> &'a str {
    candidates
        .max_by(|a, b| strsim::jaro_winkler(word, a).total_cmp(&strsim::jaro_winkler(word, b)))
        .unwrap_or("")
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
    Method = "method", later &["gspo", "gkd", "prm"],
    /// Token-mean cross entropy of the response.
    Sft = "sft",
    /// Preference pairs against a reference model.
    Dpo = "dpo",
    /// Preference pairs without a reference, and cross entropy of the preferred responses.
    Cpo = "cpo",
    /// Preference pairs by their odds, without a reference, and cross entropy of prompts and preferred responses.
    Orpo = "orpo",
    /// Single responses that are desirable or not, against a reference model.
    Kto = "kto",
    /// A scalar head that gives preferred responses more than others.
    Reward = "reward",
    /// Its own samples, by what they earn beyond the mean of all before.
    Reinforce = "reinforce",
    /// Its own samples, each by what it earns beyond the others of its prompt.
    Rloo = "rloo",
    /// Its own samples, by what they earn relative to those of their prompt.
    Grpo = "grpo",
    /// Its own samples, by what they earn beyond what a value head expects.
    Ppo = "ppo",
    /// Pairs of its own samples.
    OnlineDpo = "online_dpo",
    /// Pairs of its own and of the reference's samples, with a bonus for exploring.
    Xpo = "xpo",
    /// Its own samples, by how they fare against a mixture with the reference.
    NashMd = "nash_md",
    /// Its own samples, by their win rates among themselves.
    Sppo = "sppo",
}

impl Method {
    /// Whether it compares responses with a reference model.
    pub fn has_reference(self) -> bool {
        matches!(self, Method::Dpo | Method::Kto | Method::OnlineDpo | Method::Xpo | Method::Sppo)
    }

    /// Whether it learns from samples that it draws in each step, of which a judge says what they are worth.
    pub fn is_online(self) -> bool {
        self.is_policy_gradient() || self.draws_pairs()
    }

    /// Whether it learns from its samples token by token.
    pub fn is_policy_gradient(self) -> bool {
        matches!(self, Method::Reinforce | Method::Rloo | Method::Grpo | Method::Ppo | Method::NashMd)
    }

    /// Whether it makes pairs of its samples.
    pub fn draws_pairs(self) -> bool {
        matches!(self, Method::OnlineDpo | Method::Xpo | Method::Sppo)
    }

    /// Whether `beta` says how it is held to the reference, beside any loss.
    pub(super) fn pulls_by_beta(self) -> bool {
        self.is_online() && self != Method::Ppo
    }

    /// The losses of samples that it takes.
    fn of_samples(self) -> &'static [&'static str] {
        match self {
            Method::Reinforce => &["reinforce"],
            Method::Rloo => &["rloo"],
            Method::Grpo => &["grpo", "dapo", "dr_grpo"],
            Method::Ppo => &["ppo"],
            Method::NashMd => &["nash_md"],
            Method::Sppo => &["sppo"],
            _ => &[],
        }
    }

    /// Whether it takes the loss of this name.
    pub(super) fn takes_loss(self, name: &str) -> bool {
        self.of_samples().contains(&name) || duel_loss::word(name).is_some_and(|word| self.takes(word))
    }

    /// Whether `word` is a loss of it.
    fn takes(self, word: &Word) -> bool {
        match self {
            Method::Sft => true,
            Method::Kto => word.is_unpaired(),
            Method::Dpo | Method::Cpo => !word.is_unpaired(),
            Method::Orpo => [word.name] == Losses::of(self).0[..],
            Method::Reward => word.compares_rewards(),
            Method::OnlineDpo | Method::Xpo => word.compares_pairs(),
            Method::Sppo => word.name == "sppo_hard",
            _ => false,
        }
    }
}

/// One loss or several, by the names of [`duel_loss::WORDS`] and [`policy::WORDS`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Losses(pub Vec<&'static str>);

impl Losses {
    /// The loss of a method that is told nothing else.
    pub(super) fn of(method: Method) -> Self {
        Losses(vec![match method {
            Method::Kto => "kto",
            Method::Orpo => "orpo",
            Method::Grpo => "dapo",
            Method::Reinforce | Method::Rloo | Method::Ppo | Method::NashMd | Method::Sppo => {
                method.of_samples()[0]
            }
            Method::Sft | Method::Dpo | Method::Cpo | Method::Reward | Method::OnlineDpo | Method::Xpo => {
                "sigmoid"
            }
        }])
    }

    /// Those of pairs, rankings, responses and batches.
    pub fn known(&self) -> impl Iterator<Item = &'static Word> + '_ {
        self.0.iter().filter_map(|name| duel_loss::word(name))
    }

    /// The names of the losses that are `wanted`.
    pub fn words(wanted: impl Fn(&Word) -> bool) -> Vec<&'static str> {
        WORDS.iter().filter(|word| wanted(word)).map(|word| word.name).collect()
    }

    /// All names.
    pub(super) fn all() -> Vec<&'static str> {
        WORDS.iter().map(|word| word.name).chain(policy::WORDS.iter().map(|word| word.name)).collect()
    }

    fn one(name: &str) -> Result<&'static str, Error> {
        let name = name.trim();
        let of_samples = || policy::word(name).map(|word| word.name);
        let found = duel_loss::word(name).map(|word| word.name).or_else(of_samples);
        found
            .ok_or_else(|| wrong_choice("loss_type", name, &Self::all(), &["bnpo", "sapo", "cispo", "vespo"]))
    }

    /// Whether one of them is changed by the setting `name`.
    pub fn use_setting(&self, name: &str) -> bool {
        self.known().any(|word| word.uses(name))
    }
}

impl FromStr for Losses {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        text.split(',').map(Self::one).collect::<Result<_, _>>().map(Self)
    }
}

impl Text for Losses {}

impl Serialize for Losses {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0[..] {
            [one] => serializer.serialize_str(one),
            all => all.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Losses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match toml::Value::deserialize(deserializer)? {
            toml::Value::String(text) => text.parse().map_err(D::Error::custom),
            value => {
                let names: Vec<String> =
                    value.try_into().map_err(|e: toml::de::Error| D::Error::custom(e.message()))?;
                let all = names.iter().map(|name| Self::one(name)).collect::<Result<Vec<_>, _>>();
                let all = all.map_err(D::Error::custom)?;
                if all.is_empty() { Err(D::Error::custom("an empty list of losses")) } else { Ok(Self(all)) }
            }
        }
    }
}

/// Numbers, as a list or with commas.
#[derive(Debug, Clone, PartialEq)]
pub struct Numbers(pub Vec<f64>);

impl FromStr for Numbers {
    type Err = std::num::ParseFloatError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split(',').map(|one| one.trim().parse()).collect::<Result<_, _>>().map(Self)
    }
}

impl Text for Numbers {}

impl Serialize for Numbers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self)
    }
}

/// Names, as a list or with commas; or one text that is more than a name.
#[derive(Debug, Clone, PartialEq)]
pub struct Names(pub Vec<String>);

impl Names {
    /// What only regular expressions have.
    const OF_PATTERNS: &[char] = &['*', '+', '?', '(', ')', '[', ']', '{', '}', '|', '\\', '^', '$'];

    /// Each of them as it is, whatever it has of patterns.
    pub fn patterns(&self) -> impl Iterator<Item = String> {
        let names = self.0.iter().flat_map(|names| names.split(','));
        names.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty())
    }

    /// The modules that they name.
    pub fn modules(&self) -> Modules {
        match &self.0[..] {
            [all] if all == "all-linear" => Modules::All,
            [pattern] if pattern.contains(Self::OF_PATTERNS) => Modules::Pattern(pattern.clone()),
            names => Modules::Names(names.to_vec()),
        }
    }
}

impl FromStr for Names {
    type Err = std::convert::Infallible;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.contains(Self::OF_PATTERNS) {
            return Ok(Names(vec![text.to_owned()]));
        }
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        Ok(Names(names.map(str::to_owned).collect()))
    }
}

impl Text for Names {}

impl Serialize for Names {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Said {
            One(String),
            All(Vec<String>),
        }
        match Said::deserialize(deserializer)? {
            Said::One(text) => text.parse().map_err(D::Error::custom),
            Said::All(names) => Ok(Names(names)),
        }
    }
}

choices! {
    /// The divergence that holds the policy to the reference.
    DivergenceType = "f_divergence_type", later &[],
    /// DPO's own.
    ReverseKl = "reverse_kl",
    /// The other way round.
    ForwardKl = "forward_kl",
    /// Jensen-Shannon.
    Js = "js_divergence",
    /// Between the two, by `f_alpha_divergence_coef`.
    Alpha = "alpha_divergence",
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
    Optim = "optim", later &["adafactor", "sgd", "lion", "lion_32bit", "adagrad", "galore_adamw"],
    /// Adam with decoupled weight decay.
    Adamw = "adamw" | "adamw_torch" | "adamw_torch_fused" | "adamw_apex_fused" | "adamw_anyprecision" | "adamw_hf"
        | "paged_adamw" | "paged_adamw_32bit" | "adamw_8bit" | "adamw_bnb_8bit" | "paged_adamw_8bit"
        | "adamw_torch_8bit" | "adamw_torch_4bit",
    /// RMSprop, the DPO paper's optimizer.
    Rmsprop = "rmsprop",
}

/// Optimizers that keep their moments in fewer bits than duel's.
pub(super) const NARROW_MOMENTS: &[&str] =
    &["adamw_8bit", "adamw_bnb_8bit", "paged_adamw_8bit", "adamw_torch_8bit", "adamw_torch_4bit"];

choices! {
    /// The learning rate over the steps, after warm-up.
    Scheduler = "lr_scheduler_type", later &["reduce_lr_on_plateau", "cosine_warmup_with_min_lr", "greedy"],
    /// Down to 0 in a straight line.
    Linear = "linear",
    /// Down to 0 along half a cosine.
    Cosine = "cosine",
    /// The same several times over.
    CosineWithRestarts = "cosine_with_restarts",
    /// Along half a cosine to what is above 0.
    CosineWithMinLr = "cosine_with_min_lr",
    /// Along a power of what is left.
    Polynomial = "polynomial",
    /// With the root of the steps, wherever the run ends.
    InverseSqrt = "inverse_sqrt",
    /// Constant, and down at the end.
    WarmupStableDecay = "warmup_stable_decay",
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
    /// When the model is evaluated.
    EvalStrategy = "eval_strategy", later &[],
    /// Every `eval_steps`, and at the end.
    Steps = "steps",
    /// After each pass over the rows, and at the end.
    Epoch = "epoch",
    /// At the end.
    End = "end",
    /// Never. YAML makes false of a bare no.
    No = "no" | "false",
}

choices! {
    /// When metrics are logged.
    LoggingStrategy = "logging_strategy", later &[],
    /// Every `logging_steps`, and at the end.
    Steps = "steps",
    /// After each pass over the rows, and at the end.
    Epoch = "epoch",
    /// Never, but for evaluations.
    No = "no" | "false",
}

choices! {
    /// When checkpoints are written.
    SaveStrategy = "save_strategy", later &[],
    /// Every `save_steps`, and at the end.
    Steps = "steps",
    /// After each pass over the rows, and at the end.
    Epoch = "epoch",
    /// After an evaluation that is better than all before it.
    Best = "best",
    /// Never, but on Ctrl-C. The trained model is written all the same.
    No = "no" | "false",
}

choices! {
    /// The type of a trained model's numbers on the disk.
    SaveDtype = "save_dtype", later &[],
    /// That of the model it began with.
    Source = "source",
    /// Single precision.
    Float32 = "float32" | "fp32",
    /// Its upper half.
    Bfloat16 = "bfloat16" | "bf16",
    /// Half precision.
    Float16 = "float16" | "fp16",
}

choices! {
    /// The numbers of weights that are not trained.
    BaseDtype = "dtype", later &["float16", "fp16"],
    /// bfloat16 where it holds a matrix exactly, else float32.
    Auto = "auto",
    /// Single precision.
    Float32 = "float32" | "fp32",
    /// Its upper half.
    Bfloat16 = "bfloat16" | "bf16",
}

/// Trackers of others, which a script tells what is in `metrics.jsonl`, or nobody.
pub(super) const TRACKERS: &[&str] = &[
    "wandb",
    "mlflow",
    "trackio",
    "comet_ml",
    "clearml",
    "neptune",
    "swanlab",
    "codecarbon",
    "dvclive",
    "flyte",
    "azure_ml",
    "dagshub",
];

/// Where metrics go besides `metrics.jsonl`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReportTo {
    /// Event files of TensorBoard.
    pub tensorboard: bool,
    /// A table.
    pub csv: bool,
}

impl ReportTo {
    /// Every choice as it is written in TOML and on the command line.
    pub const WORDS: &[&str] = &["none", "jsonl", "tensorboard", "csv", "all"];
}

impl FromStr for ReportTo {
    type Err = Error;
    /// One or several with commas. Trackers of others are accepted: what they would be told is in `metrics.jsonl`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let all: Vec<&str> = text.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
        if let Some(odd) = all.iter().find(|word| !Self::WORDS.contains(word) && !TRACKERS.contains(word)) {
            return Err(wrong_choice("report_to", odd, Self::WORDS, &[]));
        }
        let said = |word: &str| all.contains(&word) || all.contains(&"all");
        Ok(ReportTo { tensorboard: said("tensorboard"), csv: said("csv") })
    }
}

impl Text for ReportTo {}

impl Serialize for ReportTo {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match (self.tensorboard, self.csv) {
            (false, false) => "none",
            (true, false) => "tensorboard",
            (false, true) => "csv",
            (true, true) => "all",
        })
    }
}

impl<'de> Deserialize<'de> for ReportTo {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Said::from(&toml::Value::deserialize(deserializer)?).text().parse().map_err(D::Error::custom)
    }
}

/// A value or the word "none", as a user says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maybe<T>(pub Option<T>);

impl<T> From<Maybe<T>> for Option<T> {
    fn from(said: Maybe<T>) -> Self {
        said.0
    }
}

impl<T> From<Option<T>> for Maybe<T> {
    fn from(used: Option<T>) -> Self {
        Self(used)
    }
}

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

choices! {
    /// What GRPO divides a group's rewards by.
    ScaleRewards = "scale_rewards", later &[],
    /// The deviation of the group.
    Group = "group" | "true",
    /// The deviation of the whole step.
    Batch = "batch",
    /// Nothing (Dr. GRPO).
    None = "none" | "false",
}

choices! {
    /// How PPO estimates the KL that a token costs.
    KlEstimator = "kl_estimator", later &[],
    /// The log-ratio.
    K1 = "k1",
    /// What is never below 0.
    K3 = "k3",
}
