use super::super::mixture::{Called, Entry};
use super::super::steps::Steps;
use super::super::table::{Config, KEYS, Options};
use super::super::values::{EvalStrategy, Maybe, Method, SaveStrategy};
use super::*;
use crate::config::import;
use duel_data::Form;
use duel_model::Modules;
use std::fmt::Write;

/// A recipe with the rows that it is to have.
fn options(yaml: &str) -> Result<Options, Error> {
    let rows = Options { dataset: Some("d.csv".into()), ..Options::default() };
    rows.or(Options::parse_recipe(yaml)?).settle()
}

fn resolve(yaml: &str) -> Config {
    options(yaml).and_then(Options::resolve).unwrap_or_else(|e| panic!("{yaml}: {e}"))
}

fn error(yaml: &str) -> String {
    options(yaml).and_then(Options::resolve).expect_err(yaml).to_string()
}

fn notes(yaml: &str) -> String {
    options(yaml).unwrap().recipe.notes().join("\n")
}

/// Every key of TRL's is exactly one of ours, another name, something, rows, a note or an error; and so is every other
/// in the table.
#[test]
fn every_key_of_trl_is_known_once() {
    let names = include_str!("fields.txt").lines().filter(|line| !line.starts_with('#'));
    let names: Vec<&str> = names.flat_map(|line| line.split(' ').skip(1)).collect();
    assert!(names.len() > 250, "{}", names.len());
    let listed: Vec<&str> =
        WORDS.iter().flat_map(|(_, words)| *words).flat_map(|word| word.names).copied().collect();
    for name in &names {
        let known = usize::from(own(name).is_some()) + listed.iter().filter(|other| other == &name).count();
        assert!(known == 1 || known == 0 && word(name).is_some(), "{name}: {known} meanings");
    }
    for (i, name) in listed.iter().enumerate() {
        assert!(own(name).is_none(), "{name} is a key of duel");
        assert!(!listed[..i].contains(name), "{name} is there twice");
    }
    for word in WORDS.iter().flat_map(|(_, words)| *words) {
        if let Meaning::Is(name) = word.meaning {
            assert!(own(name).is_some(), "there is no key {name}");
        }
    }
}

/// The structure of a recipe of alignment-handbook: what such recipes say, with other values.
const HANDBOOK: &str = "
# Model
model_name_or_path: models/some-sft
torch_dtype: bfloat16
attn_implementation: flash_attention_2

# Data
dataset_mixture:
  datasets:
    - id: org/preferences
      config: default
      split: train
      columns: [chosen, rejected]
      weight: 1.0
  test_split_size: 1000
dataset_num_proc: 12

# Trainer
bf16: true
beta: 0.01
do_eval: true
eval_strategy: 'no'
gradient_accumulation_steps: 4
gradient_checkpointing: true
gradient_checkpointing_kwargs:
  use_reentrant: False
hub_model_id: some-dpo
learning_rate: 5e-7
log_level: info
logging_steps: 10
lr_scheduler_type: cosine_with_min_lr
lr_scheduler_kwargs:
  min_lr_rate: 0.1
max_length: 1024
num_train_epochs: 1
optim: adamw_torch
output_dir: data/some-dpo
overwrite_output_dir: true
per_device_train_batch_size: 8
per_device_eval_batch_size: 4
push_to_hub: false
report_to:
- wandb
save_strategy: steps
save_steps: 0.25
save_total_limit: null
seed: 42
warmup_ratio: 0.1
";

#[test]
fn a_recipe_of_the_handbook_is_read_as_it_is() {
    let config = resolve(HANDBOOK);
    assert_eq!(config.model.to_str(), Some("models/some-sft"));
    assert_eq!((config.learning_rate, config.beta, config.batch_size()), (5e-7, 0.01, 32));
    assert_eq!((config.warmup_steps, config.save_steps), (Steps::Share(0.1), Steps::Share(0.25)));
    assert_eq!(config.save_total_limit, None);
    assert_eq!(config.eval_strategy, EvalStrategy::No);
    let notes = notes(HANDBOOK);
    for key in ["attn_implementation", "hub_model_id", "do_eval", "report_to = wandb", "dataset_mixture"] {
        assert!(notes.contains(&format!("`{key}`")), "{key}: {notes}");
    }
    // What has no effect is noted, not refused, and what is written runs again.
    assert!(notes.contains("`dtype`: it has no effect where all weights are trained"), "{notes}");
    assert!(
        notes.contains("`per_device_eval_batch_size`: it has no effect without `eval_dataset`"),
        "{notes}"
    );
    assert_eq!(Options::parse(&config.to_toml().unwrap()).unwrap().resolve().unwrap(), config);
    let own = alone(HANDBOOK).unwrap();
    let entry = &own.datasets.as_ref().unwrap().0[0];
    assert_eq!(
        (entry.path.to_str(), entry.config.as_deref(), entry.weight),
        (Some("org/preferences"), Some("default"), Some(1.0))
    );
    assert_eq!(entry.columns, Some(Called::Only(vec!["chosen".into(), "rejected".into()])));
    assert_eq!((own.dataset.to_str(), own.test_split_size), (Some("org/preferences"), Some(1000.0)));
    assert_eq!(Options::parse(&own.to_toml().unwrap()).unwrap().resolve().unwrap(), own);
}

/// A recipe with the rows that it names itself.
fn alone(yaml: &str) -> Result<Config, Error> {
    Options::parse_recipe(yaml).and_then(Options::settle).and_then(Options::resolve)
}

#[test]
fn mixtures_are_data_sets() {
    let mixer = "model_name_or_path: m\ndataset_mixer:\n  org/a: 0.5\n  b.jsonl: 1.0\ndataset_splits: [test_prefs, train_prefs]";
    let config = alone(mixer).unwrap();
    let of = |entry: &Entry| (entry.path.to_string_lossy().into_owned(), entry.split.clone(), entry.weight);
    let all: Vec<_> = config.datasets.unwrap().0.iter().map(of).collect();
    let split = Some("train_prefs".to_owned());
    assert_eq!(all, [("org/a".into(), split.clone(), Some(0.5)), ("b.jsonl".into(), split, None)]);
    let noted = |more: &str| {
        let options = Options::parse_recipe(&format!("{mixer}{more}")).unwrap();
        options.settle().unwrap().recipe.notes().join("\n")
    };
    assert_eq!(noted(""), "`dataset_splits = test_prefs`: there are no evaluations");
    let beside = noted("\neval_strategy: epoch\neval_dataset: e.jsonl");
    assert_eq!(beside, "`dataset_splits = test_prefs`: rows to evaluate on are named beside it");
    let several = alone(&format!("{mixer}\neval_strategy: epoch")).unwrap().eval_datasets.unwrap();
    let split = Some("test_prefs".to_owned());
    let want = [("org/a".into(), split.clone(), None), ("b.jsonl".into(), split, None)];
    assert_eq!(several.0.iter().map(of).collect::<Vec<_>>(), want);
    let trl = "model_name_or_path: m\ndatasets:\n  - {path: a.jsonl, fraction: 0.25}\n  - {path: b.csv, fraction: 0.75}\ntest_split_size: 0.1";
    let config = alone(trl).unwrap();
    assert_eq!(
        (config.datasets.unwrap().name(), config.test_split_size),
        ("a.jsonl + b.csv".into(), Some(0.1))
    );
    let wrong = |rows: &str, part: &str| {
        let e = alone(&format!("model_name_or_path: m\ndatasets:\n  - {rows}")).expect_err(rows).to_string();
        assert!(e.contains(part), "{rows}: {e}");
    };
    wrong("{path: a, frction: 1}", "unknown field `frction`");
    wrong("{split: train}", "a data set has no `path`");
    wrong("{path: a, weight: 2}", "a `weight` is above 0 and at most 1");
    wrong("{path: a, fraction: -1}", "a `fraction` is a number above 0");
    wrong("{path: a, weight: 0.5, first: 3}", "keep one of");
    wrong("{path: a, fraction: 0.5}\n  - {path: b}", "some data sets have a `fraction`");
    wrong("{path: a, columns: {prompt: q, chosen: q}}", "`q` is to be");
    wrong("{path: a, type: zephyr.nectar}", "`type = zephyr.nectar` is not read");
    wrong("{path: a, type: chatml.intel, columns: {prompt: q}}", "`type` and `columns`");
    wrong("{path: a, type: chatml.intel, field_chosen: c}", "does not read `field_chosen`");
    wrong("{path: a, field_chosen: c}", "`field_chosen` goes with a `type`");
    wrong("{path: a}\ndataset_config: c", "`dataset_config` says nothing of `datasets`");
    let axolotl = "base_model: m\nrl: dpo\nval_set_size: 0.05\ndatasets:\n  - {path: a.jsonl, ds_type: json, type: chatml.intel}\n\
         \x20 - {path: b.jsonl, type: chat_template.default, field_messages: talk, field_chosen: good}";
    let config = alone(axolotl).unwrap();
    assert_eq!(config.test_split_size, Some(0.05));
    let forms: Vec<_> = config.datasets.unwrap().0.iter().map(|entry| entry.form().unwrap()).collect();
    assert_eq!(forms[0], Form::Axolotl(duel_data::Axolotl::named("chatml.intel").unwrap()));
    assert_eq!(forms[1], Form::Named("messages=talk,chosen=good,rejected=rejected".parse().unwrap()));
    let tests = "test_datasets:\n  - {path: t.jsonl, ds_type: json, split: train, type: chatml.intel}";
    let config = alone(&axolotl.replace("val_set_size: 0.05", tests)).unwrap();
    let evaluated = &config.eval_datasets.as_ref().unwrap().0[0];
    assert_eq!((evaluated.split.as_deref(), evaluated.form().unwrap()), (Some("train"), forms[0].clone()));
    assert_eq!(config.eval_dataset.as_deref(), Some("t.jsonl".as_ref()));
    let both = alone(&format!("{axolotl}\n{tests}")).unwrap_err().to_string();
    assert!(both.contains("both say what is evaluated on"), "{both}");
}

/// All train splits are learned from, and that of one data set whose name has test in it is evaluated on.
#[test]
fn splits_of_a_mixer_are_all_taken() {
    let of = |splits: &str, more: &str| {
        alone(&format!(
            "model_name_or_path: m\ndataset_mixer: {{org/a: 0.5}}\ndataset_splits: [{splits}]\n{more}"
        ))
    };
    let config = of("train, test_prefs, train_gen", "eval_strategy: epoch").unwrap();
    let entries = &config.datasets.as_ref().unwrap().0;
    let split = |entry: &Entry| (entry.path.clone(), entry.split.clone().unwrap(), entry.weight);
    assert_eq!(
        entries.iter().map(split).collect::<Vec<_>>(),
        ["train", "train_gen"].map(|name| ("org/a".into(), name.into(), Some(0.5)))
    );
    let evaluated: Vec<_> = config.eval_datasets.as_ref().unwrap().0.iter().map(split).collect();
    assert_eq!(evaluated, [("org/a".into(), "test_prefs".into(), None)]);
    assert_eq!(Options::parse(&config.to_toml().unwrap()).unwrap().resolve().unwrap(), config);
    let wrong = |splits: &str, more: &str, part: &str| {
        let e = of(splits, more).expect_err(splits).to_string();
        assert!(e.contains(part), "{splits}: {e}");
    };
    wrong("train, dev", "", "`dataset_splits` has `dev`");
    wrong("test", "", "no split to learn from");
    wrong("train", "eval_strategy: epoch", "there are no rows for it");
    let several = of("train, test_a, test_b", "eval_strategy: epoch\ndataset_configs: [c]").unwrap();
    let evaluated = several.eval_datasets.unwrap().0;
    let of = |entry: &Entry| (entry.config.clone(), entry.split.clone());
    let want = ["test_a", "test_b"].map(|name| (Some("c".to_owned()), Some(name.to_owned())));
    assert_eq!(evaluated.iter().map(of).collect::<Vec<_>>(), want);
}

/// What columns are called is written so that any name reads back.
#[test]
fn columns_of_any_name_are_read_back() {
    let text = "model = 'm'\ndataset = 'd.csv'\nmax_steps = 3\n[columns]\nprompt = 'a,b = c'\nchosen = '1'";
    let read = |text: &str| Options::parse(text).and_then(Options::resolve);
    let config = read(text).unwrap();
    let pairs = [("prompt", "a,b = c"), ("chosen", "1")].map(|(ours, theirs)| (ours.into(), theirs.into()));
    assert_eq!(config.columns, Some(Called::Pairs(pairs.into())));
    assert_eq!(read(&config.to_toml().unwrap()).unwrap(), config);
    let own = "model = 'm'\n[[datasets]]\npath = 'a.json'\nformatting = 'sharegpt'\n\
               columns = 'messages=talk'\ntags = 'role_tag=who,content_tag=a b'\n[[datasets]]\npath = 'b.json'";
    let config = read(own).unwrap();
    assert_eq!(read(&config.to_toml().unwrap()).unwrap(), config);
    let twice = own.replace("content_tag", "role_tag");
    assert!(read(&twice).unwrap_err().to_string().contains("has a name twice"));
}

#[test]
fn factory_names_are_those_of_its_file() {
    let dir = std::env::temp_dir().join(format!("duel-factory-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let info = r#"{
        "pairs": {"file_name": "p.json", "ranking": true, "formatting": "sharegpt", "num_samples": 7,
                  "columns": {"messages": "conversations", "chosen": "c", "rejected": "r"}},
        "hub": {"hf_hub_url": "org/name", "revision": "v1", "subset": "s", "split": "x"},
        "script": {"script_url": "x.py"}
    }"#;
    std::fs::write(dir.join("dataset_info.json"), info).unwrap();
    let recipe = |names: &str, more: &str| {
        let dir = dir.display();
        alone(&format!(
            "model_name_or_path: m\nstage: dpo\ndataset: {names}\ndataset_dir: {dir}\ncutoff_len: 64{more}"
        ))
    };
    let all = recipe("pairs, hub", "\nval_size: 0.2").unwrap();
    assert_eq!(all.test_split_size, Some(0.2));
    let entries = all.datasets.unwrap().0;
    assert_eq!((entries[0].path.clone(), entries[0].samples), (dir.join("p.json"), Some(7)));
    assert!(matches!(entries[0].form().unwrap(), Form::Factory(_)));
    assert_eq!((entries[1].path.to_str(), entries[1].config.as_deref()), (Some("org/name@v1"), Some("s")));
    assert_eq!(recipe("hub", "\nmax_samples: 10").unwrap().datasets.unwrap().0[0].first, Some(10));
    let evaluated = |rows: &str| recipe("hub", &format!("\neval_strategy: epoch\neval_dataset: {rows}"));
    assert_eq!(evaluated("e.jsonl").unwrap().eval_dataset, Some("e.jsonl".into()));
    let entries = evaluated("pairs").unwrap().eval_datasets.unwrap().0;
    assert_eq!((entries[0].path.clone(), entries[0].samples), (dir.join("p.json"), Some(7)));
    let most = evaluated("hub\nmax_samples: 3").unwrap();
    assert_eq!([most.datasets, most.eval_datasets].map(|all| all.unwrap().0[0].first), [Some(3); 2]);
    // Another file to learn from leaves what is evaluated on where it is.
    let other = Options { dataset: Some("rows.jsonl".into()), ..Options::default() };
    let text = format!(
        "model_name_or_path: m\nstage: dpo\ndataset: hub\ndataset_dir: {}\neval_dataset: pairs\ncutoff_len: 64",
        dir.display()
    );
    let other = other.or(Options::parse_recipe(&text).unwrap()).settle().unwrap().resolve().unwrap();
    assert_eq!(other.eval_datasets.unwrap().0[0].path, dir.join("p.json"));
    let e = evaluated("other").unwrap_err().to_string();
    assert!(e.contains("dataset_info.json: has no `other`; it has pairs, hub, script"), "{e}");
    let wrong = |names: &str, part: &str| {
        let e = recipe(names, "").expect_err(names).to_string();
        assert!(e.contains("dataset_info.json: ") && e.contains(part), "{e}");
    };
    wrong("other", "has no `other`; it has pairs, hub, script");
    wrong("script", "`script`: `script_url` is not read");
    std::fs::remove_dir_all(&dir).unwrap();
    wrong("pairs", "cannot be read, and says what the dataset pairs is");
}

#[test]
fn values_are_read_by_the_kind_of_their_key() {
    let config = resolve(
        "model: m\nlearning_rate: 5e-7\nmax_length: null\nloss_type: [sigmoid, sft]\nloss_weights:\n- 1.0\n- 0.5\n\
         shuffle: off\nbf16: auto\nnum_train_epochs: 2\nsave_strategy: no\nlr_scheduler_kwargs:\noutput_dir: no\n\
         beta: [0.2]\ngradient_checkpointing: 'True'",
    );
    assert_eq!((config.learning_rate, config.max_length, config.num_train_epochs), (5e-7, None, 2.0));
    assert_eq!((config.loss_type.0.as_slice(), config.beta), (&["sigmoid", "sft"][..], 0.2));
    assert_eq!((config.shuffle, config.bf16, config.gradient_checkpointing), (false, None, true));
    assert_eq!((config.save_strategy, config.lr_scheduler_kwargs.is_none()), (SaveStrategy::No, true));
    // TRL's defaults.
    let peft = resolve("model: m\nuse_peft: yes\nlora_target_modules: [q_proj]\nlora_alpha: 16");
    assert_eq!((peft.lora_r, peft.lora_alpha, peft.lora_dropout), (Some(16), 16.0, 0.05));
    assert_eq!(peft.lora().unwrap().targets, Modules::Names(vec!["q_proj".into()]));
    assert_eq!((peft.save_total_limit, peft.assistant_only_loss), (None, true));
    // As TRL: a rank that is left blank is the default one, and without use_peft nothing is adapted.
    assert_eq!(resolve("model: m\nuse_peft: true\nlora_r:").lora_r, Some(16));
    for not in ["", "\nuse_peft: false"] {
        let yaml = format!("model: m{not}\nlora_r: 8\nlora_alpha: 16\nuse_rslora: true");
        assert!(resolve(&yaml).lora().is_none() && !resolve(&yaml).use_peft);
        for key in ["lora_r", "lora_alpha", "use_rslora"] {
            assert!(notes(&yaml).contains(&format!("`{key}`")), "{key}: {}", notes(&yaml));
        }
    }
    // A key that only another without effect gave one is left out too.
    let chained = notes("model: m\nmethod: sft\nsync_ref_model: true\nref_model_sync_steps: 5");
    assert!(chained.contains("`sync_ref_model`") && chained.contains("`ref_model_sync_steps`"), "{chained}");
    // Samples are as long as they are asked to be there.
    let online = |text: &str| resolve(&format!("model: m\nmethod: online_dpo\njudge: truth\n{text}"));
    let pairs = online("max_new_tokens: 53");
    assert_eq!((pairs.max_completion_length, pairs.temperature), (53, 0.9));
    assert_eq!(online("temperature: 1.0").temperature, 1.0);
    assert_eq!(online("replay: 2").temperature, 1.0);
    // Of the two warm-ups, steps count where there are any; null is nothing.
    for (warmup, steps) in [
        ("warmup_steps: 0\nwarmup_ratio: 0.1", Steps::Share(0.1)),
        ("warmup_ratio: 0.1\nwarmup_steps: 0", Steps::Share(0.1)),
        ("warmup_ratio: 0.1\nwarmup_steps: 7", Steps::Of(7)),
        ("warmup_steps: null\nwarmup_ratio: 0.1", Steps::Share(0.1)),
    ] {
        assert_eq!(resolve(&format!("model: m\n{warmup}")).warmup_steps, steps, "{warmup}");
    }
    assert_eq!(resolve("model: m\nmax_seq_length:\nmax_length: 99").max_length, Some(99));
    let sft = resolve("model: m\nloss_type: nll");
    assert_eq!((sft.method, sft.assistant_only_loss), (Method::Sft, false));
    let evaluated = Options {
        eval_dataset: Some(Maybe(Some("e".into()))),
        ..options("model: m\neval_strategy: no").unwrap()
    };
    assert!(evaluated.resolve().is_err());
    let evaluated = Options {
        eval_dataset: Some(Maybe(Some("e".into()))),
        dataset: Some("d.csv".into()),
        ..Options::default()
    };
    let evaluated =
        evaluated.or(Options::parse_recipe("model: m\nevaluation_strategy: epoch\neval_steps: 5").unwrap());
    assert_eq!(evaluated.settle().unwrap().resolve().unwrap().eval_strategy, EvalStrategy::Epoch);
}

/// TRL's GRPO and RLOO count completions, duel prompts.
#[test]
fn batches_of_completions_become_batches_of_prompts() {
    let of = |method: &str, text: &str| {
        let config = resolve(&format!("model_name_or_path: m\nmethod: {method}\njudge: truth\n{text}"));
        (config.per_device_train_batch_size, config.gradient_accumulation_steps, config.num_generations)
    };
    assert_eq!(of("grpo", "per_device_train_batch_size: 32\ngradient_accumulation_steps: 3"), (4, 3, 8));
    assert_eq!(of("grpo", "per_device_train_batch_size: 4\ngradient_accumulation_steps: 6"), (1, 3, 8));
    assert_eq!(of("grpo", "num_generations: 4"), (2, 1, 4));
    assert_eq!(of("rloo", ""), (4, 1, 2));
    assert_eq!(of("online_dpo", "per_device_train_batch_size: 6"), (6, 1, 2));
    let uneven = error("model_name_or_path: m\nmethod: grpo\njudge: truth\nper_device_train_batch_size: 12");
    assert!(
        uneven.contains("a step has 12 completions") && uneven.contains("num_generations = 8"),
        "{uneven}"
    );
}

#[test]
fn mistakes_in_recipes_are_named() {
    for (yaml, part) in [
        ("model: m\nlearning_rat: 1", "line 2: unknown key `learning_rat`; did you mean `learning_rate`?"),
        ("model: m\nbeta: much", "line 2: `beta = much`: "),
        ("model: m\nfp16: true", "line 2: `fp16` is not supported: float16 is not computed in"),
        ("model: m\nfp16: false\nneftune_noise_alpha: 5", "line 3: `neftune_noise_alpha` is not supported"),
        (
            "model: m\nbeta: 0.1\nrl_beta: 0.2",
            "line 3: `rl_beta` says `beta`, which is given already; keep one",
        ),
        ("model: m\nmodel_name_or_path: n", "line 2: `model_name_or_path` says `model`"),
        ("model: m\nenv: [a]", "line 2: `env` is a mapping"),
        ("model: m\nmodel_init_kwargs:\n  dtype: bfloat16\n  quantum: 1", "unknown key `quantum`"),
        ("model: m\nlr_scheduler_kwargs: {power: 2}", "`lr_scheduler_kwargs` of linear: there is no `power`"),
        ("model: m\nlr_scheduler_type: cosine_with_min_lr", "give `min_lr` or `min_lr_rate`"),
        ("model: m\nlr_scheduler_type: greedy", "is not supported yet"),
        ("model: m\neval_strategy: steps", "there are no rows for it"),
        ("model: m\nsave_strategy: best", "compares evaluations"),
        ("model: m\nsave_steps: 1.5", "a whole number of steps"),
        (
            "base_model: m\nsaves_per_epoch: often",
            "line 2: `saves_per_epoch = often` is not supported: it is a number",
        ),
        ("model: m\ndeepspeed: zero3.json", "what joins the processes of a run needs no setting; remove it"),
    ] {
        assert!(error(yaml).contains(part), "{yaml}: {}", error(yaml));
    }
    let nothing = "model: m\nfp16: false\nneftune_noise_alpha: null\nlabel_smoothing_factor: 0.0\ndisable_dropout: true\n\
                   deepspeed: null\nrouter_aux_loss_coef: 0.0\ntools:\npush_to_hub: no";
    assert_eq!(notes(nothing), "");
}

#[test]
fn recipes_of_llama_factory_and_axolotl() {
    let lf = resolve(
        "model_name_or_path: m\nstage: dpo\ndo_train: true\nfinetuning_type: lora\nlora_rank: 16\nlora_target: all\n\
         pref_beta: 0.2\npref_loss: simpo\nsimpo_gamma: 1.0\ntemplate: llama3\ncutoff_len: 2048\nmax_samples: 1000\n\
         overwrite_cache: true\npreprocessing_num_workers: 16\noutput_dir: o\nplot_loss: true\n\
         learning_rate: 5.0e-6\nbf16: true\nddp_timeout: 180000000\nval_size: 0.1",
    );
    assert_eq!((lf.method, lf.loss_type.0.as_slice(), lf.cpo_alpha), (Method::Cpo, &["simpo"][..], 0.0));
    assert_eq!((lf.lora_r, lf.lora_alpha, lf.lora_dropout, lf.beta), (Some(16), 32.0, 0.0, 0.2));
    assert_eq!((lf.max_length, lf.lora().unwrap().targets), (Some(2048), Modules::All));
    let plain = resolve("model_name_or_path: m\ntemplate: llama3");
    assert_eq!(
        (plain.method, plain.lora_r, plain.lora_alpha, plain.learning_rate),
        (Method::Sft, Some(8), 16.0, 5e-5)
    );
    assert_eq!(resolve("model_name_or_path: m\nstage: dpo\nfinetuning_type: full").lora_r, None);

    let rows = Options {
        eval_dataset: Some(Maybe(Some("e".into()))),
        dataset: Some("d.csv".into()),
        ..Options::default()
    };
    let axolotl = "base_model: m\nrl: ipo\nrl_beta: 0.2\ndatasets:\n  - {path: org/name, split: train, type: chatml.intel}\n\
         sequence_len: 1024\nsample_packing: false\nadapter: lora\nlora_r: 8\nlora_alpha: 16\nlora_target_linear: true\n\
         gradient_accumulation_steps: 4\nmicro_batch_size: 2\nnum_epochs: 2\noptimizer: adamw_bnb_8bit\n\
         lr_scheduler: linear\nlearning_rate: 0.0002\ntrain_on_inputs: false\nbf16: auto\ntf32: true\n\
         flash_attention: true\nwarmup_steps: 10\nevals_per_epoch: 4\nsaves_per_epoch: 1\nwandb_project:\nweight_decay: 0.0";
    let axolotl = rows.or(Options::parse_recipe(axolotl).unwrap()).settle().unwrap().resolve().unwrap();
    assert_eq!((axolotl.loss_type.0.as_slice(), axolotl.beta, axolotl.batch_size()), (&["ipo"][..], 0.2, 8));
    assert_eq!((axolotl.eval_steps, axolotl.save_steps), (Some(Steps::Share(0.125)), Steps::Share(0.5)));
    assert_eq!((axolotl.num_train_epochs, axolotl.max_length), (2.0, Some(1024)));
    assert_eq!(resolve("model_name_or_path: m\nfinetuning_type: full\nlora_rank: 4").lora_r, None);
    let plain = resolve("base_model: m\nmicro_batch_size: 1\nlora_r: 4");
    assert_eq!((plain.method, plain.lora_r, plain.save_total_limit), (Method::Sft, None, Some(4)));
    assert_eq!(plain.save_strategy, SaveStrategy::Epoch);
}

#[test]
fn an_imported_recipe_is_a_configuration() {
    let toml = import(&format!("{HANDBOOK}deepspeed: zero3.json\nenv: {{A: b}}\n")).unwrap();
    for part in [
        "# From a recipe in the words of TRL, by duel import.\n",
        "[[datasets]]\npath = \"org/preferences\"",
        "lr_scheduler_kwargs = \"min_lr_rate=0.1\"",
        "\n# Not taken over; numbers may be others than the recipe's:\n#   line 49: `deepspeed` is not supported",
        "\n# Environment variables, to be set where duel is started:\n#   A=b\n",
        "`hub_model_id`: nothing is uploaded",
    ] {
        assert!(toml.contains(part), "{part}\n{toml}");
    }
    let config = Options::parse(&toml).unwrap().resolve().unwrap();
    let rows = Config {
        dataset: "d.csv".into(),
        datasets: None,
        test_split_size: None,
        eval_dataset: None,
        per_device_eval_batch_size: 8,
        ..config
    };
    assert_eq!(rows, resolve(HANDBOOK));
}

/// What a key of theirs means, in a cell of the document.
fn said(meaning: &Meaning) -> String {
    match meaning {
        Meaning::Is(name) => format!("`{name}`"),
        Meaning::Says(what, _) => (*what).into(),
        Meaning::Keys => "its keys are keys".into(),
        Meaning::Rows => "which rows are read: `dataset` or `datasets`".into(),
        Meaning::Idle(why) => format!("noted: {why}"),
        Meaning::Only(values, way) => match values.join(", ") {
            none if none.is_empty() => format!("refused: {way}"),
            values => format!("refused unless {values}: {way}"),
        },
    }
}

/// `docs/recipes.md` has the table below its last heading.
#[test]
fn the_document_is_made_of_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/recipes.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (prose, _) = text.split_once("\n## Keys\n").expect("the heading of the tables");
    let mut made = format!(
        "{prose}\n## Keys\n\nMade of the tables by `DUEL_BLESS=1 cargo test -p duel-train`. A name that ends in `*` is all \
         that begin so.\n"
    );
    for (whose, words) in WORDS {
        write!(made, "\n### {whose}\n\n| key | here |\n|---|---|\n").unwrap();
        for word in *words {
            let names: Vec<String> = word.names.iter().map(|name| format!("`{name}`")).collect();
            writeln!(made, "| {} | {} |", names.join(", "), said(&word.meaning)).unwrap();
        }
    }
    made += "\n### The same\n\n| keys |\n|---|\n";
    let theirs: Vec<&str> = include_str!("fields.txt").split_whitespace().collect();
    let same: Vec<_> =
        KEYS.iter().filter(|key| theirs.contains(&key.name)).map(|key| format!("`{}`", key.name)).collect();
    writeln!(made, "| {} |", same.join(", ")).unwrap();
    if std::env::var_os("DUEL_BLESS").is_some() {
        std::fs::write(path, &made).unwrap();
    }
    assert!(
        text == made || std::env::var_os("DUEL_BLESS").is_some(),
        "docs/recipes.md is not made of the table"
    );
}
