use super::steps::Steps;
use super::*;
use crate::Error;
use duel_model::Modules;

fn find(name: &str) -> &'static Key {
    KEYS.iter().find(|key| key.name == name).unwrap()
}

fn resolve(toml: &str) -> Result<Config, Error> {
    Options::parse(&format!("model = \"m\"\ndataset = \"d.csv\"\n{toml}"))?.resolve()
}

fn error(toml: &str) -> String {
    resolve(toml).expect_err(toml).to_string()
}

#[test]
fn defaults_are_the_documented_ones() {
    let config = resolve("").unwrap().said().table().unwrap();
    for key in KEYS.iter().map(|key| key.name) {
        let help = find(key).help();
        if ["model", "dataset"].contains(&key) {
            assert!(help.contains("Required"), "{key}");
        } else if key != "cache_dir" {
            let (_, said) = help.rsplit_once("[default: ").unwrap_or_else(|| panic!("{key}: {help}"));
            // What other methods have stands behind it.
            let said = said.trim_end_matches(']').split([';', ',']).next().unwrap_or_default();
            let same = match &config[key] {
                toml::Value::Float(value) => said.parse() == Ok(*value),
                toml::Value::String(value) => said == value,
                value => said == value.to_string(),
            };
            assert!(same, "{key}: help says {said}, the default is {}", config[key]);
        }
    }
    let of = |method: &str| {
        let judge = if method.parse::<Method>().unwrap().is_online() { "\njudge = 'truth'" } else { "" };
        resolve(&format!("method = '{method}'{judge}")).unwrap()
    };
    assert_eq!((of("sft").learning_rate, of("reward").learning_rate), (2e-5, 1e-4));
    assert_eq!((of("dpo").beta, of("reward").beta), (0.1, 1.0));
    assert_eq!((of("rloo").beta, of("grpo").beta, of("sppo").beta, of("xpo").alpha), (0.05, 0.0, 1e-3, 1e-5));
    assert_eq!(
        (of("grpo").num_generations, of("sppo").num_generations, of("ppo").num_generations),
        (8, 5, 1)
    );
    assert_eq!((of("grpo").max_completion_length, of("ppo").max_completion_length), (512, 53));
    for (method, loss) in [
        ("dpo", "sigmoid"),
        ("kto", "kto"),
        ("orpo", "orpo"),
        ("reward", "sigmoid"),
        ("grpo", "dapo"),
        ("ppo", "ppo"),
        ("online_dpo", "sigmoid"),
        ("sppo", "sppo"),
    ] {
        assert_eq!(of(method).loss_type.0, [loss]);
    }
    let learned = resolve("method = 'ppo'\njudge = 'model:rm'").unwrap();
    assert!(learned.normalize_rewards && !of("ppo").normalize_rewards);
    assert!(!resolve("method = 'sppo'\njudge = 'model:rm'").unwrap().normalize_rewards);
}

#[test]
fn help_names_every_choice() {
    let choices: [(&str, &[&str]); 12] = [
        ("method", Method::WORDS),
        ("f_divergence_type", DivergenceType::WORDS),
        ("ipo_reduction", IpoReduction::WORDS),
        ("truncation_mode", TruncationMode::WORDS),
        ("optim", Optim::WORDS),
        ("lr_scheduler_type", Scheduler::WORDS),
        ("logging_strategy", LoggingStrategy::WORDS),
        ("eval_strategy", EvalStrategy::WORDS),
        ("save_strategy", SaveStrategy::WORDS),
        ("report_to", ReportTo::WORDS),
        ("scale_rewards", ScaleRewards::WORDS),
        ("kl_estimator", KlEstimator::WORDS),
    ];
    Losses::all().iter().for_each(|word| assert!(find("loss_type").help().contains(word), "{word}"));
    for (key, words) in choices {
        words.iter().for_each(|word| assert!(find(key).help().contains(word), "{key}: {word}"));
    }
}

#[test]
fn devices() {
    for (word, device) in
        [("auto", Device::Auto), ("cpu", Device::Cpu), ("cuda", Device::Cuda(0)), ("cuda:3", Device::Cuda(3))]
    {
        assert_eq!(resolve(&format!("device = '{word}'")).unwrap().device, device);
        assert_eq!(device.to_string().parse(), Ok(device));
    }
    for wrong in ["cuda:", "cuda:x", "cuda:-1", "cuda:+1", "gpu", "cuda0"] {
        assert!(error(&format!("device = '{wrong}'")).contains("did you mean"), "{wrong}");
    }
    assert!(error("device = 'mps'").contains("is not supported yet"));
    assert_eq!(resolve("bf16 = false").unwrap().bf16, Some(false));
    assert_eq!(resolve("bf16 = true\ndevice = 'cpu'").unwrap().bf16, Some(true));
    assert!(error("threads = 3\ndevice = 'cuda'").contains("`threads` has no effect on a GPU"));
}

#[test]
fn snake_and_kebab_are_the_same() {
    assert_eq!(resolve("learning-rate = 1e-4").unwrap(), resolve("learning_rate = 1e-4").unwrap());
    assert!(error("learning-rate = 1\nlearning_rate = 1").contains("given twice, in two spellings"));
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
        let read = find(key).read(text);
        assert_eq!(read, Options::parse(&format!("{key} = {toml}")), "{key}");
    }
}

#[test]
fn none_and_resume_have_their_words() {
    for (given, expected) in [("'none'", None), ("7", Some(7))] {
        assert_eq!(resolve(&format!("max_length = {given}")).unwrap().max_length, expected);
    }
    assert_eq!(resolve("eval_dataset = 'e'").unwrap().eval_dataset, Some("e".into()));
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
    assert_eq!(error("optimiser = 'adamw'"), "unknown key `optimiser`; did you mean `optimizer`?");
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
    for key in ["fp16", "use_dora", "lora_target_parameters", "max_prompt_length", "deepspeed"] {
        let expected = format!("`{key}` is not supported");
        assert!(error(&format!("{key} = true")).starts_with(&expected));
    }
    assert!(
        error("method = 'gkd'")
            .contains("`method = gkd` is not supported yet; use one of sft, dpo, cpo, orpo, kto")
    );
    assert!(error("loss_type = 'sigmod'").contains("did you mean `sigmoid`?"));
    assert!(error("report_to = 'wnadb'").contains("did you mean"));
    let noted = |toml: &str| Options::parse(toml).unwrap().recipe.notes();
    assert_eq!(
        noted("report_to = ['wandb']"),
        [
            "`report_to = wandb`: metrics go to metrics.jsonl, of which track.py (beside the program's archive, or in its repository) tells wandb or trackio"
        ]
    );
    let report_to = |toml: &str| resolve(toml).unwrap().report_to;
    let (tensorboard, csv) = (true, true);
    assert_eq!(report_to("report_to = ['tensorboard', 'wandb']"), ReportTo { tensorboard, csv: false });
    assert_eq!(report_to("report_to = 'all'"), ReportTo { tensorboard, csv });
    assert_eq!(report_to("report_to = 'none'"), ReportTo::default());
    assert!(noted("precompute_ref_log_probs = false")[0].contains("always computed once"));
    assert!(noted("optim = 'paged_adamw_8bit'")[0].contains("float32"));
    assert_eq!(noted("optim = 'paged_adamw_32bit'\nuse_cpu = false"), [""; 0]);
    // Their words that need the whole configuration are settled in TOML as well.
    assert_eq!(resolve("saves_per_epoch = 2").unwrap().save_steps, Steps::Share(1.0 / 6.0));
    let settled = |toml: &str| Options::parse(&format!("model = 'm'\n{toml}")).unwrap().settle();
    assert!(settled("dataset = 'd'\nmax_samples = 9").unwrap().recipe.notes()[0].contains("`max_samples`"));
    assert!(
        settled("dataset_mixture = ['a']").unwrap_err().to_string().contains("is a mapping with `datasets`")
    );
}

/// Names as they are said, on a line or in a list; and what TRL's users say first.
#[test]
fn adapters_are_said_in_pefts_words() {
    let of = |toml: &str| resolve(toml).unwrap().lora();
    assert_eq!(of(""), None);
    let peft = of("use_peft = true").unwrap();
    assert_eq!((peft.r, peft.alpha, peft.dropout, peft.targets), (16, 32.0, 0.05, Modules::Usual));
    let names = Modules::Names(vec!["q_proj".into(), "v_proj".into()]);
    for said in ["'q_proj, v_proj'", "['q_proj', 'v_proj']"] {
        assert_eq!(of(&format!("lora_r = 4\nlora_target_modules = {said}")).unwrap().targets, names);
    }
    assert_eq!(of("lora_r = 4\nlora_target_modules = 'all-linear'").unwrap().targets, Modules::All);
    let pattern = Modules::Pattern(".*(q|v)_proj{1,2}".into());
    assert_eq!(of("lora_r = 4\nlora_target_modules = '.*(q|v)_proj{1,2}'").unwrap().targets, pattern);
    let written = resolve("lora_r = 4\nmodules_to_save = 'norm'").unwrap().to_toml().unwrap();
    assert!(written.contains("modules_to_save = [\"norm\"]"), "{written}");
    assert!(error("lora_r = 4\nmethod = 'sppo'\njudge = 'truth'").contains("`method = sppo`"));
    // What is written says the same again.
    let config = resolve("lora_r = 4").unwrap();
    assert_eq!(Options::parse(&config.to_toml().unwrap()).unwrap().resolve().unwrap(), config);
    for both in ["use_peft = false\nlora_r = 4", "use_peft = true\nlora_r = 'none'"] {
        assert!(error(both).contains("contradict each other"), "{both}");
    }
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
    let seed = find("seed").read("9223372036854775808").unwrap();
    assert!(seed.or(Options::parse("model = 'm'\ndataset = 'd'").unwrap()).resolve().is_err());
}

/// Several losses are a list, or a text with commas; both are written so that they read back.
#[test]
fn losses_are_lists() {
    for toml in [
        "loss_type = ['sigmoid', 'sft']\nloss_weights = [1.0, 0.5]",
        "loss_type = 'sigmoid, sft'\nloss_weights = [1.0, 0.5]",
    ] {
        let config = resolve(toml).unwrap();
        assert_eq!(config.loss_type.0, ["sigmoid", "sft"]);
        assert_eq!(config.loss_weights, Some(Numbers(vec![1.0, 0.5])));
        assert_eq!(Options::parse(&config.to_toml().unwrap()).unwrap().resolve().unwrap(), config);
    }
    let read = find("loss_weights").read("0.8,0.2, 1").unwrap().loss_weights;
    assert_eq!(read, Some(Maybe(Some(Numbers(vec![0.8, 0.2, 1.0])))));
    assert!(error("loss_type = []").contains("`loss_type`"));
    assert!(error("loss_type = ['sigmoid', 'sgimoid']").contains("did you mean `sigmoid`?"));
    let alphapo = resolve("method = 'cpo'\nloss_type = 'alphapo'").unwrap();
    assert_eq!((alphapo.cpo_alpha, resolve("method = 'cpo'").unwrap().cpo_alpha), (0.0, 1.0));
    assert_eq!(Options::parse(&alphapo.to_toml().unwrap()).unwrap().resolve().unwrap(), alphapo);
}

#[test]
fn contradictions_are_errors() {
    for (toml, part) in [
        (
            "warmup_steps = 1\nwarmup_ratio = 0.1",
            "`warmup_ratio` is `warmup_steps`, which is given too; keep one",
        ),
        ("warmup_ratio = 1.1", "from 0 to below 1"),
        ("eval_strategy = 'epoch'", "`eval_strategy = epoch` needs rows to evaluate on"),
        (
            "eval_dataset = 'e'\neval_strategy = 'no'",
            "`eval_dataset` has no effect with `eval_strategy = no`",
        ),
        ("eval_dataset = 'e'\neval_strategy = 'epoch'\neval_steps = 4", "`eval_steps` has no effect unless"),
        (
            "logging_strategy = 'epoch'\nlogging_steps = 4",
            "`logging_steps` has no effect unless `logging_strategy = steps`",
        ),
        (
            "save_strategy = 'epoch'\nsave_steps = 4",
            "`save_steps` has no effect unless `save_strategy = steps`",
        ),
        (
            "load_best_model_at_end = true",
            "`load_best_model_at_end` compares evaluations; give `eval_dataset`",
        ),
        ("metric_for_best_model = 'accuracy'", "`metric_for_best_model` has no effect without"),
        ("data_seed = 1\nshuffle = false", "`data_seed` has no effect with `shuffle = false`"),
        ("overwrite_output_dir = true\nresume_from_checkpoint = true", "keep one"),
        ("lora_r = 2\nload_in_8bit = true\nload_in_4bit = true", "keep one"),
        ("generate_during_eval = true", "give `eval_dataset`"),
        ("loss_type = 'ipo'\nlabel_smoothing = 0.1", "`label_smoothing` has no effect with this `loss_type`"),
        ("ipo_reduction = 'sum'", "`ipo_reduction` has no effect unless `loss_type = ipo`"),
        ("discopop_tau = 0.1", "`discopop_tau` has no effect unless `loss_type = discopop`"),
        ("f_alpha_divergence_coef = 0.3", "unless `f_divergence_type = alpha_divergence`"),
        (
            "loss_type = 'bco_pair'\nf_divergence_type = 'forward_kl'",
            "`f_divergence_type` has no effect with this",
        ),
        ("loss_type = 'sft'\nbeta = 0.5", "`beta` has no effect with this `loss_type`"),
        ("cpo_alpha = 0.5", "`cpo_alpha` has no effect unless `method = cpo`"),
        ("loss_weights = [1.0, 2.0]", "lists of different lengths"),
        ("loss_type = 'sigmoid,sft'\nloss_weights = [1.0, -2.0]", "a weight that is negative"),
        ("loss_type = 'exo_pair'", "needs `label_smoothing` above 0"),
        ("method = 'sft'\nld_alpha = 0.5", "`ld_alpha` has no effect with `method = sft`"),
        ("method = 'sft'\nbeta = 0.5", "`beta` has no effect with `method = sft`"),
        ("method = 'sft'\nloss_type = 'ipo'", "`loss_type` has no effect"),
        ("max_length = 'none'\ntruncation_mode = 'keep_end'", "`truncation_mode` has no effect"),
        ("rmsprop_alpha = 0.5", "`rmsprop_alpha` has no effect unless `optim = rmsprop`"),
        ("optim = 'rmsprop'\nadam_beta1 = 0.5", "`adam_beta1` has no effect"),
        ("lr_scheduler_type = 'constant'\nwarmup_steps = 5", "constant_with_warmup"),
        ("eval_steps = 10", "without `eval_dataset`"),
        ("temperature = 0.5", "without `generate_during_eval`"),
        ("method = 'rloo'", "`method = rloo` needs a judge of its samples; give `judge`"),
        ("judge = 'truth'", "`judge` has no effect but with methods that learn from their own samples"),
        ("judge_timeout = 3", "`judge_timeout` has no effect but with methods that have a judge"),
        ("method = 'rloo'\njudge = 'truth'\nnum_generations = 1", "too few for `method = rloo`"),
        ("method = 'xpo'\njudge = 'truth'\nnum_generations = 2", "does not go with `method = xpo`"),
        ("method = 'ppo'\njudge = 'truth'\ntemperature = 0.7", "do not go with `method = ppo`"),
        ("method = 'online_dpo'\njudge = 'truth'\ntemperature = 0", "the same sample again and again"),
        ("method = 'ppo'\njudge = 'truth'\nnum_mini_batches = 3", "does not divide the 8 prompts of a step"),
        ("method = 'ppo'\njudge = 'truth'\nbeta = 0.2", "`beta` has no effect with this `loss_type`"),
        (
            "method = 'ppo'\njudge = 'truth'\nreplay = 2",
            "`replay` has no effect unless `method = online_dpo`",
        ),
        ("method = 'grpo'\njudge = 'truth'\nloss_type = 'sigmoid'", "grpo takes grpo, dapo, dr_grpo"),
        ("method = 'grpo'\njudge = 'truth'\nloss_type = 'bnpo'", "`loss_type = bnpo` is not supported yet"),
        ("method = 'ppo'\njudge = 'truth'\nkl_coef = 0\ntarget_kl = 3", "`target_kl` moves `kl_coef`"),
        ("method = 'grpo'\njudge = 'truth'\nmax_length = 512", "leaves no room for a prompt"),
        ("method = 'grpo'\njudge = 'truth'\nsync_ref_model = true", "where no loss needs a reference"),
        ("method = 'xpo'\njudge = 'truth'\nreplay = 2\ntemperature = 0.7", "`replay` weighs pairs"),
        ("loss_type = 'rloo'", "`loss_type = rloo` does not go with `method = dpo` but with `method = rloo`"),
        ("method = 'online_dpo'\njudge = 'truth'\nreplay_clip = 2", "without `replay`"),
        (
            "method = 'grpo'\njudge = 'truth'\neval_dataset = 'e'\ngenerate_during_eval = true",
            "has no effect with a method",
        ),
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
    let now =
        resolve("beta = 0.5\nseed = 7\noutput_dir = 'x'\nthreads = 3\nlogging_steps = 1\neval_dataset = 'e'");
    let differences = now.unwrap().differences(&saved).unwrap();
    let shown: Vec<String> = differences.iter().map(Difference::to_string).collect();
    assert_eq!(shown, ["seed was 42 and is now 7", "beta was 0.1 and is now 0.5"]);
    assert_eq!(saved.differences(&saved).unwrap(), []);

    let here = Config { model: ".".into(), ..saved.clone() };
    let absolute = Config { model: std::env::current_dir().unwrap(), ..saved.clone() };
    assert_eq!(here.differences(&absolute).unwrap(), []);
    assert_eq!(here.differences(&saved).unwrap().len(), 1);
}

/// A run of a constant learning rate may go on for longer; any other would have had other rates from its first step.
#[test]
fn max_steps_may_grow() {
    let of = |toml: &str| resolve(toml).unwrap();
    let differ = |now: &str, saved: &str| !of(now).differences(&of(saved)).unwrap().is_empty();
    for schedule in ["constant", "constant_with_warmup"] {
        let of = |steps: u32| format!("lr_scheduler_type = '{schedule}'\nmax_steps = {steps}");
        assert!(!differ(&of(3), &of(2)) && differ(&of(2), &of(3)), "{schedule}");
        assert!(differ(&of(3), &format!("lr_scheduler_type = '{schedule}'")), "epochs are not steps");
    }
    assert!(differ("max_steps = 3", "max_steps = 2"));
    let warm = "lr_scheduler_type = 'constant_with_warmup'\nwarmup_ratio = 0.5\n";
    assert!(differ(&format!("{warm}max_steps = 3"), &format!("{warm}max_steps = 2")));
}

#[test]
fn batch_size_counts_accumulation() {
    let config = resolve("per_device_train_batch_size = 4\ngradient_accumulation_steps = 3").unwrap();
    assert_eq!(config.batch_size(), 12);
}
