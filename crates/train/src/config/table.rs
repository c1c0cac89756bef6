//! The option table: a key, its type, default, range, what it needs to have an effect, and whether it may change.

use super::foreign::Recipe;
use super::mixture::{Called, Mixture};
use super::range::{AT_LEAST_1, DECAY, NOT_NEGATIVE, POSITIVE, Range};
use super::schedule::SchedulerSettings;
use super::steps::Steps;
use super::values::{
    BaseDtype, Device, DivergenceType, EvalStrategy, Form, IpoReduction, KlEstimator, LoggingStrategy,
    Losses, Maybe, Method, Names, Numbers, Optim, ReportTo, Resume, SaveDtype, SaveStrategy, ScaleRewards,
    Scheduler, Text, TruncationMode,
};
use crate::Error;
use duel_backend::Bits;
use duel_model::{InBlocks, LoraSettings, Modules};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A key of the configuration.
pub struct Key {
    /// Its name, in snake case.
    pub name: &'static str,
    /// The part of the help that it belongs to.
    pub heading: &'static str,
    /// How it stands on a command line.
    pub form: Form,
    /// It may change when a run is resumed: it does not decide which weights come out.
    pub may_change: bool,
    /// Its value may be none.
    pub(super) may_be_none: bool,
    doc: &'static str,
    needs: &'static [Need],
    read: fn(&str) -> Result<Options, Error>,
    check: fn(&Config) -> Result<(), Error>,
}

impl Key {
    /// Its name on a command line, without the dashes in front.
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    /// What it does and its default, in one line.
    pub fn help(&self) -> String {
        self.doc
            .trim()
            .trim_end_matches('.')
            .replace("{schedules}", &Scheduler::settings_of_all())
            .replace("{words}", &Losses::all().join(", "))
            .replace("{smoothed}", &Losses::words(|word| word.uses("label_smoothing")).join(", "))
    }

    /// Options that say this key alone.
    ///
    /// # Errors
    /// Why `text` is no value of it. The message leaves it to the caller to name the key as the user wrote it.
    pub fn read(&self, text: &str) -> Result<Options, Error> {
        (self.read)(text)
    }

    /// # Errors
    /// The key's value is out of range.
    pub(super) fn check_range(&self, config: &Config) -> Result<(), Error> {
        (self.check)(config)
    }

    /// Why it has no effect with this configuration, if so.
    pub(super) fn no_effect(&self, config: &Config) -> Option<&'static str> {
        self.needs.iter().find(|Need(_, holds)| !holds(config)).map(|Need(reason, _)| *reason)
    }
}

/// What a key needs to have an effect: how an error says that it is not so, and whether it is.
struct Need(&'static str, fn(&Config) -> bool);

const PAIRS: Need = Need("with `method = sft`", |c| c.method != Method::Sft);
const SFT: Need = Need("unless `method = sft`", |c| c.method == Method::Sft);
const BETA: Need =
    Need("with this `loss_type`", |c| c.loss_type.use_setting("beta") || c.method.pulls_by_beta());
const SMOOTHING: Need = Need("with this `loss_type`", |c| c.loss_type.use_setting("label_smoothing"));
const IPO: Need = Need("unless `loss_type = ipo`", |c| c.loss_type.use_setting("ipo_reduction"));
const DISCOPOP: Need = Need("unless `loss_type = discopop`", |c| c.loss_type.use_setting("discopop_tau"));
const DIVERGENCE: Need = Need("with this `loss_type`", |c| c.loss_type.use_setting("f_divergence_type"));
const COEFFICIENT: Need =
    Need("unless `f_divergence_type = alpha_divergence`", |c| c.f_divergence_type == DivergenceType::Alpha);
const GAMMA: Need =
    Need("unless `loss_type = simpo` or `alphapo`", |c| c.loss_type.use_setting("simpo_gamma"));
const ALPHA: Need = Need("unless `loss_type = alphapo` or `method = xpo`", |c| {
    c.loss_type.use_setting("alpha") || c.method == Method::Xpo
});
const UNLIKELIHOOD: Need =
    Need("unless `loss_type = unlikelihood`", |c| c.loss_type.use_setting("unlikelihood_alpha"));
const CPO: Need = Need("unless `method = cpo`", |c| c.method == Method::Cpo);
const LABELS: Need = Need("with this `loss_type`", |c| c.loss_type.use_setting("desirable_weight"));
const REWARD: Need = Need("unless `method = reward`", |c| c.method == Method::Reward);
const ONLINE: Need =
    Need("but with methods that learn from their own samples, as rloo", |c| c.method.is_online());
const OFFLINE: Need = Need("with a method that learns from its own samples", |c| !c.method.is_online());
const DRAWN_PAIRS: Need = Need("unless `method = online_dpo`, `xpo` or `sppo`", |c| c.method.draws_pairs());
const GRPO: Need = Need("unless `method = grpo`", |c| c.method == Method::Grpo);
const PPO: Need = Need("unless `method = ppo`", |c| c.method == Method::Ppo);
const ITERATED: Need =
    Need("unless `method = grpo` or `rloo`", |c| matches!(c.method, Method::Grpo | Method::Rloo));
const MIXTURE: Need = Need("unless `method = nash_md`", |c| c.method == Method::NashMd);
const TARGET: Need = Need("without `target_kl`", |c| c.target_kl.is_some());
const REPLAY: Need = Need("without `replay`", |c| c.replay > 0);
const SCORED: Need = Need("with `method = nash_md` or `sppo`, which are told who wins", |c| {
    !matches!(c.method, Method::NashMd | Method::Sppo)
});
const SCALED: Need = Need("with `method = nash_md`, `xpo` or `sppo`, which are told who wins", |c| {
    !matches!(c.method, Method::NashMd | Method::Xpo | Method::Sppo)
});
const LANGUAGE: Need = Need("with `method = reward`", |c| c.method != Method::Reward);
const WEIGHTING: Need = Need("with this `loss_type`", |c| c.loss_type.use_setting("use_weighting"));
const REFERENCE: Need = Need("where no loss needs a reference", Config::compares_with_reference);
const TAILS: Need =
    Need("with this `loss_type` or `cpo_alpha`, whose cross entropy is of whole responses", |c| {
        let crossed = c.method == Method::Orpo || c.method == Method::Cpo && c.cpo_alpha > 0.0;
        !crossed && c.loss_type.known().all(|word| word.uses("ld_alpha"))
    });
const FOLLOWED: Need =
    Need("where no loss needs a reference", |c| c.compares_with_reference() || c.holds_samples());
const SHUFFLED: Need = Need("with `shuffle = false`", |c| c.shuffle);
const SYNC: Need = Need("without `sync_ref_model`", |c| c.sync_ref_model);
const LORA: Need = Need("without `lora_r`", |c| c.lora_r.is_some());
const LIMIT: Need = Need("with `max_length = none`", |c| c.max_length.is_some());
const ADAMW: Need = Need("unless `optim = adamw`", |c| c.optim == Optim::Adamw);
const RMSPROP: Need = Need("unless `optim = rmsprop`", |c| c.optim == Optim::Rmsprop);
const WARMUP: Need = Need("with `lr_scheduler_type = constant` (there is constant_with_warmup)", |c| {
    c.lr_scheduler_type != Scheduler::Constant
});
const EVALUATION: Need = Need("without `eval_dataset`", |c| c.eval_dataset.is_some());
const EVALUATED: Need =
    Need("with `eval_strategy = no`", |c| c.eval_dataset.is_none() || c.eval_strategy != EvalStrategy::No);
const EVAL_STEPS: Need = Need("unless `eval_strategy = steps`", |c| c.eval_strategy == EvalStrategy::Steps);
const LOGGING_STEPS: Need =
    Need("unless `logging_strategy = steps`, or `eval_strategy = steps` without `eval_steps`", |c| {
        match (c.eval_strategy, c.eval_steps) {
            (EvalStrategy::Steps, None) => true,
            _ => c.logging_strategy == LoggingStrategy::Steps,
        }
    });
const SAVE_STEPS: Need = Need("unless `save_strategy = steps`", |c| c.save_strategy == SaveStrategy::Steps);
const CHOICE: Need = Need(
    "without `load_best_model_at_end`, `save_strategy = best` or `early_stopping_patience`",
    Config::chooses,
);
const STOPPING: Need = Need("without `early_stopping_patience`", |c| c.early_stopping_patience.is_some());
const SAMPLES: Need = Need("without `generate_during_eval`", |c| c.generate_during_eval);
const DRAWING: Need =
    Need("without `generate_during_eval`, or a method that learns from its own samples", |c| {
        c.generate_during_eval || c.method.is_online()
    });
const CHANCE: Need = Need("with `temperature = 0`", |c| c.temperature != 0.0);
const CPU: Need = Need("on a GPU", |c| !matches!(c.device, Device::Cuda(_)));
const CHECKPOINTS: Need = Need("with `save_strategy = no`", |c| c.save_strategy != SaveStrategy::No);

/// The type of a value as a user says it.
macro_rules! said {
    ($ty:ty) => { $ty };
    (none $ty:ty) => { Maybe<$ty> };
}

/// The type of a value as a run uses it.
macro_rules! used {
    ($ty:ty) => { $ty };
    (none $ty:ty) => { Option<$ty> };
}

/// A value, or the one that there may be, as a slice.
macro_rules! values {
    ($value:expr) => {
        std::slice::from_ref(&$value)
    };
    (none $value:expr) => {
        $value.as_slice()
    };
}

/// Whether a mark is there.
macro_rules! marked {
    () => {
        false
    };
    (change) => {
        true
    };
    (none) => {
        true
    };
}

/// Makes [`Options`], [`Config`] and [`KEYS`] from one table, a key a row:
///
/// `name: type | none = default, in range, needs [what, ...], may change;`
///
/// All after the default can be left out. With `| none` the value may be the word "none". A default is evaluated only
/// where the key was not given, in table order, and sees the values of the keys above it.
macro_rules! options {
    ($($heading:literal {$(
        $(#[doc = $doc:literal])+
        $name:ident: $ty:ty $(| $none:ident)? = $default:expr
            $(, in $range:expr)? $(, needs [$($need:expr),+])? $(, may $change:ident)?;
    )+})+) => {
        /// What a user asked for: every key optional. Reads from TOML ([`Options::read`]) and, a key at a time, from
        /// text ([`Key::read`]); [`Options::or`] joins what was read.
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct Options {$($(
            $(#[doc = $doc])+
            #[serde(skip_serializing_if = "Option::is_none")]
            pub $name: Option<said!($($none)? $ty)>,
        )+)+
            /// What is said of the judge: keys of a table of its own, [`duel_judge::KEYS`].
            #[serde(skip)]
            pub judging: duel_judge::Settings,
            /// What a recipe says beside keys.
            #[serde(skip)]
            pub recipe: Recipe,
        }

        /// What a run does: every key with its value, checked. Written to the run folder by [`Config::to_toml`],
        /// which [`Options::read`] reads back.
        #[derive(Debug, Clone, PartialEq)]
        pub struct Config {$($(
            $(#[doc = $doc])+
            pub $name: used!($($none)? $ty),
        )+)+
            /// What is said of the judge.
            pub judging: duel_judge::Settings,
        }

        /// Every key.
        pub const KEYS: &[Key] = &[$($(Key {
            name: stringify!($name),
            heading: $heading,
            form: <said!($($none)? $ty) as Text>::FORM,
            needs: &[$($($need),+)?],
            may_change: marked!($($change)?),
            may_be_none: marked!($($none)?),
            doc: concat!($($doc),+),
            read: |text| match text.parse() {
                Ok(value) => Ok(Options { $name: Some(value), ..Options::default() }),
                Err(e) => Err(Error::new(format!("{e}"))),
            },
            check: |config| {
                let _values = values!($($none)? config.$name);
                $(($range).check(stringify!($name), _values)?;)?
                Ok(())
            },
        }),+),+];

        impl Options {
            /// These options, and those of `other` where they say nothing.
            pub fn or(self, other: Self) -> Self {
                let other = other.beside(&self);
                let judging = self.judging.or_all(other.judging);
                let recipe = self.recipe.or(other.recipe);
                Self { $($($name: self.$name.or(other.$name),)+)+ judging, recipe }
            }

            pub(super) fn with_defaults(self) -> Result<Config, Error> {
                $($(
                    let $name: used!($($none)? $ty) =
                        match self.$name { Some(value) => value.into(), None => $default };
                )+)+
                Ok(Config { $($($name),+),+, judging: self.judging })
            }
        }

        impl Config {
            /// The options that ask for this.
            pub(super) fn said(&self) -> Options {
                let (judging, recipe) = (self.judging.clone(), Recipe::default());
                Options { $($($name: Some(self.$name.clone().into()),)+)+ judging, recipe }
            }
        }
    };
}

options! {
    "Run" {
        /// Folder of the model to train: config.json, *.safetensors, tokenizer.json; or its name on the Hugging Face
        /// Hub, org/name or org/name@revision. Required.
        model: PathBuf = return Err(missing("model"));
        /// Revision of a model that is named: a branch, a tag, refs/pr/N or a commit; none: main. [default: none]
        model_revision: String | none = None;
        /// Data sets that are learned from together, in the place of dataset: names with commas, or tables with path,
        /// config, split, data_files, columns and one of weight, fraction, samples and first. [default: none]
        datasets: Mixture | none = None;
        /// File of training rows (.jsonl, .json, .csv, .tsv, .parquet), or of prompts (.txt too) for methods that learn
        /// from their own samples; or a folder of such files, or a name on the Hub, as of a model. Required.
        dataset: PathBuf = match &datasets { Some(all) => all.name(), None => return Err(missing("dataset")) };
        /// What columns are called there and in eval_dataset: NAME=COLUMN with commas, as
        /// prompt=question,chosen=good,rejected=bad. [default: none]
        columns: Called | none = None;
        /// Rows of the dataset that are evaluated on, not learned from, drawn by the seed: below 1 a share, else so
        /// many; none: all are learned from. [default: none]
        test_split_size: f64 | none = None, in POSITIVE;
        /// Data sets that are evaluated on together, in the place of eval_dataset: as datasets; the split of a name is
        /// test where none is said. [default: none]
        eval_datasets: Mixture | none = None, needs [EVALUATED], may change;
        /// The same of evaluation rows, or none. [default: none; the dataset with dataset_test_split]
        eval_dataset: PathBuf | none = match &eval_datasets {
            Some(all) => Some(all.name()),
            None => test_split_size.map(|_| dataset.clone()),
        }, needs [EVALUATED], may change;
        /// Configuration of a dataset that has several; none: its default one. [default: none]
        dataset_config: String | none = None;
        /// Split of a dataset, where that is no file, which is learned from. [default: train]
        dataset_train_split: String = "train".into();
        /// The one that is evaluated on. [default: test]
        dataset_test_split: String = "test".into(), needs [EVALUATION], may change;
        /// Files of a dataset, as PATTERN of the split train or SPLIT=PATTERN, with commas; none: its README or their
        /// names say which they are. [default: none]
        data_files: Names | none = None;
        /// Revision of a dataset that is named; none: main. [default: none]
        dataset_revision: String | none = None;
        /// What to train for: sft, dpo, cpo, orpo, kto or reward; or from the policy's own samples, as a judge says:
        /// reinforce, rloo, grpo, ppo, online_dpo, xpo, nash_md or sppo. [default: dpo]
        method: Method = Method::Dpo;
        /// Folder for checkpoints, metrics and the trained model. [default: duel-output]
        output_dir: PathBuf = "duel-output".into(), may change;
        /// Allow an output folder that already holds a run, and start it anew. [default: false]
        overwrite_output_dir: bool = false, may change;
        /// Continue from this checkpoint; true or no value: the newest one in output_dir. [default: false]
        resume_from_checkpoint: Resume = Resume::Off, may change;
        /// Seed of all randomness: shuffling, sampling, fresh adapters. [default: 42]
        seed: u64 = 42, in Range("below 2^63", |&n| i64::try_from(n).is_ok());
    }
    "Adapters" {
        /// Train low-rank adapters beside frozen weights, as lora_r does. A model that is an adapter's folder is
        /// trained so in any case. [default: false, or true with lora_r]
        use_peft: bool = false;
        /// Rank of adapters (LoRA); none: all weights are trained. [default: none, or 16 with use_peft]
        lora_r: usize | none = use_peft.then_some(16), in Range("at least 1, or \"none\"", |&n| n >= 1);
        /// What an adapter is multiplied by, over its rank. [default: 32.0]
        lora_alpha: f64 = 32.0, in POSITIVE, needs [LORA];
        /// Share of an adapter's inputs that is dropped in training. [default: 0.0; 0.05 with use_peft, as TRL has it,
        /// where no samples are drawn]
        lora_dropout: f64 = if use_peft && !method.is_online() { 0.05 } else { 0.0 }, in Range("from 0 to below 1", |x| (0.0..1.0).contains(x)), needs [LORA];
        /// Maps that are adapted: names with commas, all-linear, or a regular expression of whole names. [default:
        /// none, which are those that PEFT adapts in such a model]
        lora_target_modules: Names | none = None, needs [LORA];
        /// Divide lora_alpha by the root of the rank (rsLoRA). [default: false]
        use_rslora: bool = false, needs [LORA];
        /// Modules that are trained as they are and saved with the adapters, with commas. [default: none]
        modules_to_save: Names | none = None, needs [LORA];
        /// Numbers of the matrices that adapters leave as they are: auto, bfloat16 where that holds every element
        /// exactly and else float32; float32; or bfloat16, to which they are rounded. [default: auto]
        dtype: BaseDtype = BaseDtype::Auto;
        /// Hold the maps of the layers that adapters leave as they are in blocks of 8-bit numbers, 8.5 bits a weight.
        /// [default: false]
        load_in_8bit: bool = false;
        /// The same in blocks of 4-bit numbers, 5 bits a weight. [default: false]
        load_in_4bit: bool = false;
    }
    "Data" {
        /// Longest prompt + response in tokens, or none for no limit. [default: 1024]
        max_length: usize | none = Some(1024), in Range("at least 2, or \"none\"", |&n| n >= 2);
        /// Which end of a longer row is kept: keep_start or keep_end. [default: keep_start]
        truncation_mode: TruncationMode = TruncationMode::KeepStart, needs [LIMIT];
        /// Draw a new row order for every epoch. [default: true]
        shuffle: bool = true;
        /// Seed of the row order alone; none: seed. [default: none]
        data_seed: u64 | none = None, in Range("below 2^63", |&n| i64::try_from(n).is_ok()), needs [SHUFFLED];
        /// Learn the completion of a row, not its prompt (sft). [default: true]
        completion_only_loss: bool = true, needs [SFT];
        /// Learn the assistant's turns of a conversation, not the others (sft). [default: true]
        assistant_only_loss: bool = true, needs [SFT];
    }
    "Loss" {
        /// Strength of the pull towards the reference model; of a reward model, what its rewards are multiplied by; of
        /// orpo, the weight of the odds. [default: 0.1; 1 for reward, 0.05 for reinforce and rloo, 0 for grpo, 1e-3 for
        /// sppo]
        beta: f64 = match method {
            Method::Reward => 1.0,
            Method::Reinforce | Method::Rloo => 0.05,
            Method::Grpo => 0.0,
            Method::Sppo => 1e-3,
            _ => 0.1,
        }, in NOT_NEGATIVE, needs [PAIRS, BETA];
        /// Losses, one or several with commas, each the mean over a step: {words}. [default: sigmoid, or that
        /// of the method]
        loss_type: Losses = Losses::of(method), needs [PAIRS];
        /// Weights of several losses, with commas; none: 1 each. [default: none]
        loss_weights: Numbers | none = None, needs [PAIRS];
        /// Share of pairs assumed to be labelled the wrong way round, below 0.5; for {smoothed}. [default: 0.0]
        label_smoothing: f64 = 0.0,
            in Range("at least 0 and below 0.5", |x| (0.0..0.5).contains(x)), needs [PAIRS, SMOOTHING];
        /// Log-ratios in the ipo loss: mean over tokens (as TRL) or sum (as the paper's code). [default: mean]
        ipo_reduction: IpoReduction = IpoReduction::Mean, needs [PAIRS, IPO];
        /// Temperature of the discopop loss. [default: 0.05]
        discopop_tau: f64 = 0.05, in POSITIVE, needs [PAIRS, DISCOPOP];
        /// Divergence from the reference: reverse_kl, forward_kl, js_divergence or alpha_divergence; for losses of the
        /// margin between two responses. [default: reverse_kl]
        f_divergence_type: DivergenceType = DivergenceType::ReverseKl, needs [PAIRS, DIVERGENCE, REFERENCE];
        /// Alpha of alpha_divergence, which 1 is none of. [default: 0.5]
        f_alpha_divergence_coef: f64 = 0.5,
            in Range("a number other than 1", |x: &f64| x.is_finite() && *x != 1.0), needs [PAIRS, COEFFICIENT];
        /// How much a token beyond the length of the shortest response to its prompt counts (LD-DPO); none: as any
        /// other. [default: none]
        ld_alpha: f64 | none = None, in Range("from 0 to 1", |x| (0.0..=1.0).contains(x)), needs [PAIRS, LANGUAGE, TAILS];
        /// Let a pair count by how likely the policy itself would draw its responses (WPO). [default: false]
        use_weighting: bool = false, needs [PAIRS, LANGUAGE, WEIGHTING];
        /// How much a desirable response counts (kto). [default: 1.0]
        desirable_weight: f64 = 1.0, in NOT_NEGATIVE, needs [LABELS];
        /// How much an undesirable response counts (kto). [default: 1.0]
        undesirable_weight: f64 = 1.0, in NOT_NEGATIVE, needs [LABELS];
        /// Weight of the squared sum of a pair's rewards, which holds them around 0. [default: 0.0]
        center_rewards_coefficient: f64 = 0.0, in NOT_NEGATIVE, needs [REWARD];
        /// Weight of the cross entropy of preferred responses beside the losses of cpo; 0 with simpo is SimPO itself,
        /// and what alphapo has unless this is given. [default: 1.0]
        cpo_alpha: f64 = if method == Method::Cpo && loss_type.0 == ["alphapo"] { 0.0 } else { 1.0 }, in NOT_NEGATIVE, needs [CPO];
        /// Margin between the rewards in the losses simpo and alphapo. [default: 0.5]
        simpo_gamma: f64 = 0.5, in NOT_NEGATIVE, needs [PAIRS, GAMMA];
        /// Exponent of the rewards in the loss alphapo, 0: simpo; of xpo, weight of the bonus for exploring. [default:
        /// 0.0, or 1e-5 for xpo]
        alpha: f64 = if method == Method::Xpo { 1e-5 } else { 0.0 }, in Range("a number", |x: &f64| x.is_finite()), needs [PAIRS, ALPHA];
        /// How much the loss unlikelihood pushes rejected responses down. [default: 1.0]
        unlikelihood_alpha: f64 = 1.0, in NOT_NEGATIVE, needs [PAIRS, UNLIKELIHOOD];
        /// Folder of the reference model, which has the shape of the one that is trained; none: that one before the
        /// first step. [default: none]
        ref_model: PathBuf | none = None, needs [FOLLOWED];
        /// Let the reference follow the policy (TR-DPO). [default: false, or true for sppo]
        sync_ref_model: bool = method == Method::Sppo, needs [FOLLOWED];
        /// The policy's share in the reference each time that it follows. [default: 0.6, or 1 for sppo]
        ref_model_mixup_alpha: f64 = if method == Method::Sppo { 1.0 } else { 0.6 }, in Range("from 0 to 1", |x| (0.0..=1.0).contains(x)), needs [SYNC];
        /// Steps after which the reference follows. [default: 512]
        ref_model_sync_steps: u64 = 512, in Range("at least 1", |&n| n >= 1), needs [SYNC];
    }
    "Samples" {
        /// Who says what samples are worth: lexicon:FILE, program:COMMAND, http:URL, truth or model:FOLDER. Needed by
        /// methods that learn from their own samples. [default: none]
        judge: String | none = None, needs [ONLINE];
        /// Samples of each prompt in a step. [default: 1; 2 for rloo and online_dpo, 8 for grpo, 5 for sppo]
        num_generations: usize = match method {
            Method::Rloo | Method::OnlineDpo => 2,
            Method::Grpo => 8,
            Method::Sppo => 5,
            _ => 1,
        }, in AT_LEAST_1, needs [ONLINE];
        /// Longest sample in a step, in tokens. [default: 64; 512 for rloo and grpo, 53 for ppo]
        max_completion_length: usize = match method {
            Method::Rloo | Method::Grpo => 512,
            Method::Ppo => 53,
            _ => 64,
        }, in AT_LEAST_1, needs [ONLINE];
        /// What a sample loses of its score that max_completion_length cut; none: nothing. [default: none]
        missing_eos_penalty: f64 | none = None, in NOT_NEGATIVE, needs [ONLINE, SCORED];
        /// Learn nothing from samples that max_completion_length cut. [default: false]
        mask_truncated_completions: bool = false, needs [ONLINE];
        /// Bring scores to a mean of 0 and a deviation of 1 over samples of the model before the first step. [default:
        /// false, or true with a judge model:FOLDER where a method is told more than who wins]
        normalize_rewards: bool = judge.as_deref().is_some_and(|name| name.starts_with("model:"))
            && !matches!(method, Method::NashMd | Method::Xpo | Method::Sppo),
            needs [ONLINE, SCALED];
        /// What grpo divides rewards by: the deviation of a group, of the batch, or none. [default: group]
        scale_rewards: ScaleRewards = ScaleRewards::Group, needs [GRPO];
        /// How often grpo and rloo learn from the samples of a step. [default: 1]
        num_iterations: usize = 1, in AT_LEAST_1, needs [ITERATED];
        /// How often ppo learns from the samples of a step. [default: 4]
        num_ppo_epochs: usize = 4, in AT_LEAST_1, needs [PPO];
        /// Updates in each of these times. [default: 1]
        num_mini_batches: usize = 1, in AT_LEAST_1, needs [PPO];
        /// How far below 1 a ratio has a gradient (grpo and rloo). [default: 0.2]
        epsilon: f64 = 0.2, in POSITIVE, needs [ITERATED];
        /// How far above 1; none: as far as below. [default: none]
        epsilon_high: f64 | none = None, in POSITIVE, needs [ITERATED];
        /// How far from 1 a ratio has a gradient (ppo). [default: 0.2]
        cliprange: f64 = 0.2, in POSITIVE, needs [PPO];
        /// How far from what it was a value has a gradient (ppo). [default: 0.2]
        cliprange_value: f64 = 0.2, in POSITIVE, needs [PPO];
        /// Weight of the value head's loss (ppo). [default: 0.1]
        vf_coef: f64 = 0.1, in NOT_NEGATIVE, needs [PPO];
        /// How much a later reward counts, a token (ppo). [default: 1.0]
        gamma: f64 = 1.0, in Range("from 0 to 1", |x| (0.0..=1.0).contains(x)), needs [PPO];
        /// How far advantages look before they trust the value head (ppo). [default: 0.95]
        lam: f64 = 0.95, in Range("from 0 to 1", |x| (0.0..=1.0).contains(x)), needs [PPO];
        /// Divide the rewards of a step's tokens by their deviation (ppo). [default: false]
        whiten_rewards: bool = false, needs [PPO];
        /// What a reward loses for each nat of KL from the reference (ppo). [default: 0.05]
        kl_coef: f64 = 0.05, in NOT_NEGATIVE, needs [PPO];
        /// How that KL is estimated of a token: k1 or k3 (ppo). [default: k1]
        kl_estimator: KlEstimator = KlEstimator::K1, needs [PPO];
        /// KL of a sample, in nats, that kl_coef is changed to keep to; none: it stays (ppo). [default: none]
        target_kl: f64 | none = None, in POSITIVE, needs [PPO];
        /// Samples in which kl_coef follows (ppo). [default: 10000]
        kl_horizon: f64 = 10000.0, in POSITIVE, needs [PPO, TARGET];
        /// The reference's share in what nash_md plays against. [default: 0.5]
        mixture_coef: f64 = 0.5, in Range("from 0 to 1", |x| (0.0..=1.0).contains(x)), needs [MIXTURE];
        /// Pairs of earlier steps that each step learns from beside its own. [default: 0]
        replay: usize = 0, needs [DRAWN_PAIRS];
        /// Steps after which a pair is not replayed any more. [default: 16]
        replay_max_age: u64 = 16, in Range("at least 1", |&n| n >= 1), needs [DRAWN_PAIRS, REPLAY];
        /// The most that a replayed pair counts, for being likelier now than when it was drawn. [default: 1.0]
        replay_clip: f64 = 1.0, in POSITIVE, needs [DRAWN_PAIRS, REPLAY];
    }
    "Steps" {
        /// Groups (a prompt with its responses) in a batch. [default: 8]
        per_device_train_batch_size: usize = 8, in AT_LEAST_1;
        /// Batches summed up before each optimizer step. [default: 1]
        gradient_accumulation_steps: usize = 1, in AT_LEAST_1;
        /// Parts of a step whose gradients are summed one after another, and into as many pieces the optimizer's state
        /// is cut: as many processes can share a run, and its numbers are the same with any of them. [default: 1]
        gradient_shares: usize = 1, in AT_LEAST_1;
        /// Passes over the training rows; fractions allowed. [default: 3.0]
        num_train_epochs: f64 = 3.0, in POSITIVE;
        /// Optimizer steps, overriding num_train_epochs; -1: as many as the epochs give. [default: -1]
        max_steps: i64 = -1, in Range("at least 1, or -1", |&n| n == -1 || n >= 1);
    }
    "Optimizer" {
        /// Optimizer: adamw or rmsprop. [default: adamw]
        optim: Optim = Optim::Adamw;
        /// Peak learning rate. [default: 1e-6; 2e-5 for sft, 1e-4 for reward, 3e-6 for ppo, 5e-7 for online_dpo, xpo,
        /// nash_md and sppo]
        learning_rate: f64 = match method {
            Method::Sft => 2e-5,
            Method::Reward => 1e-4,
            Method::Ppo => 3e-6,
            Method::OnlineDpo | Method::Xpo | Method::NashMd | Method::Sppo => 5e-7,
            _ => 1e-6,
        }, in NOT_NEGATIVE;
        /// Schedule: linear, cosine, cosine_with_restarts, cosine_with_min_lr, polynomial, inverse_sqrt,
        /// warmup_stable_decay, constant or constant_with_warmup. [default: linear]
        lr_scheduler_type: Scheduler = Scheduler::Linear;
        /// Settings of the schedule, as NAME=VALUE with commas: {schedules}. [default: none]
        lr_scheduler_kwargs: SchedulerSettings | none = None;
        /// Steps over which the learning rate rises from 0; below 1: a share of all steps. [default: 0]
        warmup_steps: Steps = Steps::Of(0), needs [WARMUP];
        /// Decay of the gradient mean (adamw). [default: 0.9]
        adam_beta1: f64 = 0.9, in DECAY, needs [ADAMW];
        /// Decay of the squared-gradient mean (adamw). [default: 0.999]
        adam_beta2: f64 = 0.999, in DECAY, needs [ADAMW];
        /// Added to the root of the squared-gradient mean (both optimizers). [default: 1e-8]
        adam_epsilon: f64 = 1e-8, in POSITIVE;
        /// Decay of the squared-gradient mean (rmsprop). [default: 0.99]
        rmsprop_alpha: f64 = 0.99, in DECAY, needs [RMSPROP];
        /// Weight decay. [default: 0.0]
        weight_decay: f64 = 0.0, in NOT_NEGATIVE;
        /// Scale gradients down to this norm; 0: never. [default: 1.0]
        max_grad_norm: f64 = 1.0, in NOT_NEGATIVE;
    }
    "Logging, evaluation, checkpoints" {
        /// Steps between logged metrics; below 1: a share of all steps. [default: 10]
        logging_steps: Steps = Steps::Of(10), in Range("above 0", |&n| n != Steps::Of(0)), needs [LOGGING_STEPS],
            may change;
        /// Log: every logging_steps (steps), after each epoch (epoch), both at the end too; or no, which leaves
        /// evaluations. [default: steps]
        logging_strategy: LoggingStrategy = LoggingStrategy::Steps, may change;
        /// Log the first step as well. [default: false]
        logging_first_step: bool = false, may change;
        /// Steps between evaluations; below 1: a share of all steps; 0: only at the end; none: as logging_steps.
        /// [default: none]
        eval_steps: Steps | none = None, needs [EVALUATION, EVAL_STEPS], may change;
        /// Evaluate: every eval_steps (steps), after each epoch (epoch), or at the end alone (end); all at the end too;
        /// or no. [default: no; with an eval_dataset end, or steps with eval_steps]
        eval_strategy: EvalStrategy = match (&eval_dataset, eval_steps) {
            (None, _) => EvalStrategy::No,
            (Some(_), Some(_)) => EvalStrategy::Steps,
            (Some(_), None) => EvalStrategy::End,
        }, may change;
        /// Evaluate before the first step as well, with samples where they are drawn. [default: false]
        eval_on_start: bool = false, needs [EVALUATION], may change;
        /// Write checkpoints: every save_steps (steps), after each epoch (epoch), both at the end too; after an
        /// evaluation that is better than all before (best); or no, which leaves the trained model alone. [default:
        /// steps]
        save_strategy: SaveStrategy = SaveStrategy::Steps, may change;
        /// Steps between checkpoints; below 1: a share of all steps; 0: only at the end. [default: 500]
        save_steps: Steps = Steps::Of(500), needs [SAVE_STEPS], may change;
        /// Leave the model of the checkpoint whose evaluation was the best, not that of the last step. [default: false]
        load_best_model_at_end: bool = false, may change;
        /// Stop after so many evaluations in a row that were not better than the best; none: never. [default: none]
        early_stopping_patience: u64 | none = None, in Range("at least 1, or \"none\"", |&n| n >= 1), may change;
        /// How much better an evaluation has to be, to count. [default: 0.0]
        early_stopping_threshold: f64 = 0.0, in NOT_NEGATIVE, needs [STOPPING], may change;
        /// What says which evaluation is the best: a metric of evaluations, with or without eval_ before it. [default:
        /// loss]
        metric_for_best_model: String = "loss".into(), needs [CHOICE], may change;
        /// Whether more of it is better. [default: false; true unless its name ends with loss]
        greater_is_better: bool = !metric_for_best_model.ends_with("loss"), needs [CHOICE], may change;
        /// Checkpoints kept, beside the best one; older ones are deleted; none: all. [default: 2]
        save_total_limit: usize | none = Some(2),
            in Range("at least 1, or \"none\"", |&n| n >= 1), needs [CHECKPOINTS], may change;
        /// Type of the trained model's numbers: source, that of the model it began with, float32, bfloat16 or float16.
        /// Checkpoints keep what is computed with. [default: source]
        save_dtype: SaveDtype = SaveDtype::Source, may change;
        /// Groups in an evaluation batch. [default: 8]
        per_device_eval_batch_size: usize = 8, in AT_LEAST_1, needs [EVALUATION], may change;
        /// Write samples of the model at every evaluation. [default: false]
        generate_during_eval: bool = false, needs [OFFLINE], may change;
        /// Evaluation prompts to sample for. [default: 4]
        num_eval_samples: usize = 4, in AT_LEAST_1, needs [SAMPLES], may change;
        /// Longest sample in tokens. [default: 64]
        max_new_tokens: usize = 64, in AT_LEAST_1, needs [SAMPLES], may change;
        /// Sampling temperature; 0: always the likeliest token. [default: 1.0]
        temperature: f64 = 1.0, in NOT_NEGATIVE, needs [DRAWING], may change;
        /// Sample among this many likeliest tokens; 0: all. [default: 0]
        top_k: usize = 0, needs [DRAWING, CHANCE], may change;
        /// Sample among the likeliest tokens that together have this probability. [default: 1.0]
        top_p: f64 = 1.0,
            in Range("above 0 and at most 1", |&x| x > 0.0 && x <= 1.0), needs [DRAWING, CHANCE], may change;
        /// Sample among tokens at least this times as likely as the likeliest; 0: all. [default: 0.0]
        min_p: f64 = 0.0,
            in Range("from 0 to 1", |x| (0.0..=1.0).contains(x)), needs [DRAWING, CHANCE], may change;
        /// Divides positive logits of tokens that the text has already, multiplies negative ones. [default: 1.0]
        repetition_penalty: f64 = 1.0, in POSITIVE, needs [DRAWING], may change;
        /// Where metrics go beside metrics.jsonl, one or several with commas: tensorboard (event files under runs), csv
        /// (metrics.csv), all; none or jsonl: nowhere. Others are noted. [default: none]
        report_to: ReportTo = ReportTo::default(), may change;
    }
    "Machine" {
        /// Device: cpu, cuda (the first GPU), cuda:N, or auto: a GPU where there is one. [default: auto]
        device: Device = Device::Auto, may change;
        /// Compute in bfloat16, with weights, gradients and moments kept in float32 beside. none: on a GPU, yes; on the
        /// CPU, where it is made for AMX or AVX512-BF16 and slow without, no. [default: none]
        bf16: bool | none = None;
        /// Threads; 0: one per core. [default: 0]
        threads: usize = 0, in Range("from 0 (one per core) to 256", |&n| n <= 256), needs [CPU], may change;
        /// Seconds that the processes of a run wait for one that does not come. [default: 1800]
        ddp_timeout: u64 = 1800, in Range("at least 1", |&n| n >= 1), may change;
        /// Keep only layer inputs for the backward pass and recompute the rest: less memory, more time. [default:
        /// false]
        gradient_checkpointing: bool = false, may change;
        /// Tokens computed at once; 0: 768 on the CPU, 8192 on a GPU, or the longest group where that is longer.
        /// [default: 0]
        micro_batch_tokens: usize = 0;
        /// Folder for what is computed once: the reference's log-probabilities, and the tokens of files. [default: duel
        /// in $XDG_CACHE_HOME or ~/.cache]
        cache_dir: PathBuf = default_cache_dir(), may change;
        /// Keep the tokens of files of 4 MB and more there, by content. [default: true]
        cache_tokens: bool = true, needs [OFFLINE], may change;
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

impl Config {
    /// Whether evaluations are compared with each other.
    pub fn chooses(&self) -> bool {
        let best = self.save_strategy == SaveStrategy::Best;
        self.load_best_model_at_end || best || self.early_stopping_patience.is_some()
    }

    /// How the reference follows the policy: after every so many steps, by what share; `None`: it stays.
    pub fn follows(&self) -> Option<(u64, f64)> {
        self.sync_ref_model.then_some((self.ref_model_sync_steps, self.ref_model_mixup_alpha))
    }

    /// The adapters that are trained; `None`: all weights are, or those of the model's folder.
    pub fn lora(&self) -> Option<LoraSettings> {
        let r = self.lora_r?;
        Some(LoraSettings {
            r,
            alpha: self.lora_alpha,
            rslora: self.use_rslora,
            dropout: self.lora_dropout,
            targets: self.lora_target_modules.as_ref().map_or(Modules::Usual, Names::modules),
            saved: self.modules_to_save.as_ref().map_or(Vec::new(), |names| names.0.clone()),
            seed: self.seed,
            ..LoraSettings::default()
        })
    }

    /// What weights are held in that are not trained.
    pub fn form(&self) -> duel_model::Form {
        duel_model::Form {
            numbers: match self.dtype {
                BaseDtype::Auto => duel_model::Numbers::AsStored,
                BaseDtype::Float32 => duel_model::Numbers::Real,
                BaseDtype::Bfloat16 => duel_model::Numbers::Narrow,
            },
            blocks: match (self.load_in_4bit, self.load_in_8bit) {
                (true, _) => InBlocks::Maps(Bits::Four),
                (false, true) => InBlocks::Maps(Bits::Eight),
                (false, false) => InBlocks::Nothing,
            },
        }
    }

    /// Groups in one optimizer step.
    pub fn batch_size(&self) -> usize {
        self.per_device_train_batch_size * self.gradient_accumulation_steps
    }
}
