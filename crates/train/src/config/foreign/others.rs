//! The words of alignment-handbook, LLaMA-Factory and axolotl, where they are not TRL's.

use super::Meaning::{Idle, Is, Only, Rows, Says};
use super::{Keys, Meaning, Word, key, yes};

const LOADING: &str = "rows are read in one way, as fast as the machine can";
const PYTORCH: &str = "it belongs to PyTorch";
const TEMPLATE: &str = "set the chat template in the files of the tokenizer, in the folder of the model";
const NO_COUNTERPART: &str = "it has no counterpart";
const TRACKED: &str = "metrics go to metrics.jsonl alone";
const PACKED: &str = "rows are packed without padding";

const fn word(names: &'static [&'static str], meaning: Meaning) -> Word {
    Word { names, meaning }
}

pub(super) const HANDBOOK: &[Word] = &[
    word(&["dataset_mixer", "dataset_mixture", "dataset_splits", "dataset_configs"], Rows),
    word(&["preprocessing_num_workers"], Idle(LOADING)),
    word(&["use_flash_attention_2", "model_code_revision"], Idle(PYTORCH)),
    word(
        &["tokenizer_name_or_path", "truncation_side"],
        Only(&[], "the tokenizer is that of the model's folder"),
    ),
    word(&["chat_template", "system_prompt"], Only(&["tokenizer_default"], TEMPLATE)),
    word(&["auto_insert_empty_system_msg"], Only(&["false"], "the template sees the messages as they are")),
    word(&["text_column"], Only(&["text"], "name the column `text`")),
    word(&["benchmarks", "callbacks"], Only(&[], NO_COUNTERPART)),
    word(&["wandb_*"], Idle(TRACKED)),
];

pub(super) const LLAMA_FACTORY: &[Word] = &[
    word(
        &["stage"],
        Says("`method`; rm is reward", |text| match text {
            "sft" | "dpo" | "kto" | "ppo" => key("method", text),
            "rm" => key("method", "reward"),
            _ => Err("give sft, dpo, rm, kto or ppo".into()),
        }),
    ),
    word(
        &["finetuning_type"],
        Says("`use_peft` where it is lora; full is nothing", |text| match text {
            "lora" => key("use_peft", "true"),
            "full" => key("use_peft", "false"),
            _ => Err("give lora or full".into()),
        }),
    ),
    word(&["lora_rank"], Is("lora_r")),
    word(
        &["lora_target"],
        Says("`lora_target_modules`; all is all-linear", |text| {
            key("lora_target_modules", if text == "all" { "all-linear" } else { text })
        }),
    ),
    word(&["additional_target"], Is("modules_to_save")),
    word(
        &[
            "adapter_name_or_path",
            "create_new_adapter",
            "loraplus_lr_ratio",
            "pissa_init",
            "use_galore",
            "use_badam",
        ],
        Only(&["false"], NO_COUNTERPART),
    ),
    word(
        &["quantization_bit"],
        Says("`load_in_8bit` or `load_in_4bit`", |text| match text {
            "none" => Ok(Vec::new()),
            "8" => key("load_in_8bit", "true"),
            "4" => key("load_in_4bit", "true"),
            _ => Err("give 4 or 8".into()),
        }),
    ),
    word(&["cutoff_len"], Is("max_length")),
    word(
        &["template"],
        Idle(
            "the chat template is the model's own, whose text may differ from that of LLaMA-Factory's template",
        ),
    ),
    word(&["dataset_dir", "max_samples"], Rows),
    word(&["val_size"], Says("`test_split_size`; 0 is none", held_out)),
    word(&["mix_strategy"], Only(&["concat"], "data sets are read one after the other; give each a weight")),
    word(&["interleave_probs"], Only(&[], "data sets are read one after the other; give each a weight")),
    word(&["media_dir"], Idle("the models trained here read text alone")),
    word(&["overwrite_cache", "tokenized_path", "preprocessing_batch_size"], Idle(LOADING)),
    word(&["plot_loss"], Idle("metrics.svg is always drawn")),
    word(&["flash_attn", "enable_liger_kernel", "use_unsloth", "use_unsloth_gc"], Idle(PYTORCH)),
    word(&["neat_packing"], Only(&["false"], "a batch counts rows, which are packed without padding")),
    word(
        &["train_on_prompt"],
        Says("`completion_only_loss`, the other way round", |text| {
            key("completion_only_loss", (!yes(text)?).to_string())
        }),
    ),
    word(
        &["mask_history"],
        Only(&["false"], "every turn of the assistant is learned; leave one out by a `weight` of 0"),
    ),
    word(&["pref_beta"], Is("beta")),
    word(
        &["dpo_loss_type"],
        Says("`loss_type`, or `method` of orpo and of simpo", |text| match text {
            "orpo" | "simpo" => loss(text),
            _ => key("loss_type", text),
        }),
    ),
    word(&["pref_loss"], Says("`loss_type`, or `method` of orpo and of simpo, which is a loss of cpo", loss)),
    word(&["dpo_loss_weights"], Is("loss_weights")),
    word(&["dpo_label_smoothing"], Is("label_smoothing")),
    word(
        &["pref_ftx", "dpo_ftx"],
        Only(&["0"], "give loss_type = [\"sigmoid\", \"sft\"] with loss_weights = [1, its value]"),
    ),
    word(&["kto_chosen_weight"], Is("desirable_weight")),
    word(&["kto_rejected_weight"], Is("undesirable_weight")),
    word(&["ref_model_adapters", "reward_model_adapters", "reward_model_type"], Only(&[], NO_COUNTERPART)),
    word(
        &["reward_model"],
        Says(
            "`judge = model:` that folder; axolotl's, true or false, is `method = reward`",
            |text| match yes(text) {
                Ok(true) => key("method", "reward"),
                Ok(false) => Ok(Vec::new()),
                Err(_) => key("judge", format!("model:{text}")),
            },
        ),
    ),
    word(&["swanlab_*", "use_swanlab"], Idle(TRACKED)),
];

pub(super) const AXOLOTL: &[Word] = &[
    word(&["base_model"], Is("model")),
    word(
        &["rl"],
        Says("`method`; ipo is a loss of dpo, simpo one of cpo", |text| match text {
            "dpo" | "kto" | "grpo" => key("method", text),
            "ipo" => Ok(vec![("method", "dpo".into()), ("loss_type", "ipo".into())]),
            "orpo" | "simpo" => loss(text),
            _ => Err("give dpo, ipo, orpo, simpo, kto or grpo".into()),
        }),
    ),
    word(&["rl_beta", "orpo_alpha"], Is("beta")),
    word(&["dpo_use_weighting"], Is("use_weighting")),
    word(&["kto_desirable_weight"], Is("desirable_weight")),
    word(&["kto_undesirable_weight"], Is("undesirable_weight")),
    word(&["micro_batch_size"], Is("per_device_train_batch_size")),
    word(&["eval_batch_size"], Is("per_device_eval_batch_size")),
    word(&["num_epochs"], Is("num_train_epochs")),
    word(&["optimizer"], Is("optim")),
    word(&["lr_scheduler"], Is("lr_scheduler_type")),
    word(&["sequence_len"], Is("max_length")),
    word(
        &["adapter"],
        Says("`use_peft`", |text| match text {
            "lora" | "qlora" => key("use_peft", "true"),
            _ => Err("give lora or qlora, or leave it out".into()),
        }),
    ),
    word(
        &["lora_target_linear"],
        Says("`lora_target_modules = all-linear`", |text| match yes(text)? {
            true => key("lora_target_modules", "all-linear"),
            false => Ok(Vec::new()),
        }),
    ),
    word(&["peft_use_rslora"], Is("use_rslora")),
    word(&["peft_use_dora"], Only(&["false"], "DoRA is not there; adapters are LoRA or rsLoRA")),
    word(&["lora_model_dir", "peft_layers_to_transform"], Only(&[], NO_COUNTERPART)),
    word(&["lora_fan_in_fan_out", "lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel"], Idle(PYTORCH)),
    word(&["test_datasets"], Is("eval_datasets")),
    word(&["val_set_size"], Says("`test_split_size`; 0 is none", held_out)),
    word(
        &["evals_per_epoch"],
        Says("`eval_steps`, a share of all steps", |text| key("evals_per_epoch", text)),
    ),
    word(
        &["saves_per_epoch"],
        Says("`save_steps`, a share of all steps", |text| key("saves_per_epoch", text)),
    ),
    word(
        &["train_on_inputs"],
        Says("`completion_only_loss`, the other way round", |text| {
            key("completion_only_loss", (!yes(text)?).to_string())
        }),
    ),
    word(
        &["sample_packing", "eval_sample_packing"],
        Only(&["false"], "a batch counts rows, which are packed without padding"),
    ),
    word(&["pad_to_sequence_len"], Idle(PACKED)),
    word(&["special_tokens", "tokens", "plugins", "trl", "noisy_embedding_alpha"], Only(&[], NO_COUNTERPART)),
    word(
        &["dataset_prepared_path", "dataset_processes", "skip_prepare_dataset", "shuffle_merged_datasets"],
        Idle(LOADING),
    ),
    word(
        &["model_type", "tokenizer_type", "is_llama_derived_model"],
        Idle("the folder says what the model is"),
    ),
    word(&["flash_attention", "xformers_attention", "sdp_attention", "eager_attention"], Idle(PYTORCH)),
    word(&["strict", "eval_table_size", "save_first_step"], Idle("what is learned does not depend on it")),
    word(&["mlflow_*", "comet_*", "use_wandb", "use_mlflow", "use_comet"], Idle(TRACKED)),
];

/// The rows that are held out.
fn held_out(text: &str) -> Result<Keys, String> {
    match text.parse::<f64>() {
        Ok(0.0) => Ok(Vec::new()),
        Ok(_) => key("test_split_size", text),
        Err(_) => Err("it is a share of the rows, or how many".into()),
    }
}

/// What the name of a loss of pairs says, where some are methods of their own.
fn loss(text: &str) -> Result<Keys, String> {
    match text {
        "sigmoid" | "hinge" | "ipo" => key("loss_type", text),
        "orpo" => key("method", "orpo"),
        // SimPO itself has no cross entropy.
        "simpo" => {
            Ok(vec![("method", "cpo".into()), ("loss_type", "simpo".into()), ("cpo_alpha", "0".into())])
        }
        _ => Err("duel losses lists what there is".into()),
    }
}
