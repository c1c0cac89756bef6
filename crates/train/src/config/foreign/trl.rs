//! The words of TRL 1.16 and transformers 5.23, and of earlier ones that recipes still have.

use super::Meaning::{Idle, Is, Keys, Only, Says};
use super::{Word, key, yes};

const PYTORCH: &str = "it belongs to PyTorch";
const LOADING: &str = "rows are read in one way, as fast as the machine can";
const LOGS: &str = "what is printed is the same for everyone";
const ONE: &str = "what joins the processes of a run needs no setting";
const UPLOADS: &str = "nothing is uploaded";
const EVALUATING: &str = "an evaluation says the same, however it is gathered";
const PADDING: &str = "there is no padding";
const ONLY_FLOAT16: &str = "float16 is not computed in; say bf16 = true, or nothing for float32";
const DEAD: &str = "nothing depends on it any more";
const SHOWN: &str = "samples of steps are not printed; duel sample draws some of the model that is left";
const ENGINE: &str = "samples are drawn by the trainer itself";
const ABSENT: &str = "it belongs to a loss or a method that is not asked for";
const NO_SCALE: &str = "the arithmetic is float32 or bfloat16, without a scale";

const fn word(names: &'static [&'static str], meaning: super::Meaning) -> Word {
    Word { names, meaning }
}

pub(super) const WORDS: &[Word] = &[
    // What is trained, on what.
    word(&["model_name_or_path"], Is("model")),
    word(&["dataset_name"], Is("dataset")),
    word(&["dataset_streaming", "streaming"], Idle(LOADING)),
    word(&["model_init_kwargs"], Keys),
    word(&["torch_dtype"], Is("dtype")),
    word(&["attn_implementation", "trust_remote_code", "use_cache", "ignore_bias_buffers"], Idle(PYTORCH)),
    word(
        &["bnb_4bit_*", "use_bnb_nested_quant"],
        Idle("4-bit weights are blocks with a scale and a minimum, whatever it says"),
    ),
    word(&["lora_modules_to_save"], Is("modules_to_save")),
    word(
        &["lora_target_parameters"],
        Only(&[], "adapters are beside whole maps, which lora_target_modules names"),
    ),
    word(&["lora_task_type"], Only(&["CAUSAL_LM", "SEQ_CLS"], "the method says what kind of model it is")),
    word(&["use_dora"], Only(&["false"], "DoRA is not there; adapters are LoRA or rsLoRA")),
    word(&["ref_model_name_or_path"], Is("ref_model")),
    word(&["ref_model_init_kwargs"], Only(&[], "the reference is read as the model is")),
    word(
        &["model_adapter_name", "ref_adapter_name"],
        Only(&[], "the reference of an adapter is the model without it, or the adapter as it was"),
    ),
    word(
        &["force_use_ref_model", "reference_free"],
        Only(&["false"], "a loss without a reference has a method of its own"),
    ),
    word(&["router_aux_loss_coef"], Only(&["0"], "there are no mixtures of experts")),
    word(&["disable_dropout"], Only(&["true"], "there is no dropout but that of adapters, lora_dropout")),
    // How rows become tokens.
    word(&["max_seq_length"], Is("max_length")),
    word(&["response_length"], Is("max_completion_length")),
    word(
        &["max_prompt_length", "max_prompt_len"],
        Only(
            &[],
            "it kept the end of a prompt, which max_length with truncation_mode = keep_end does of rows",
        ),
    ),
    word(&["max_target_length"], Only(&[], "max_length is of prompt and response")),
    word(&["is_encoder_decoder"], Only(&["false"], "models are decoders")),
    word(&["dataset_text_field"], Only(&["text"], "name the column `text`")),
    word(
        &["chat_template_path", "chat_template_kwargs", "eos_token"],
        Only(&[], "set it in the files of the tokenizer, in the folder of the model"),
    ),
    word(&["tools"], Only(&[], "give tools in the rows, as a column")),
    word(&["dataset_kwargs"], Only(&[], "rows are prepared in one way")),
    word(
        &["packing", "eval_packing"],
        Only(&["false"], "a batch counts rows, which are packed without padding"),
    ),
    word(&["packing_strategy"], Idle("rows are packed without padding in any case")),
    word(
        &["padding_free", "pad_to_multiple_of", "pad_token", "padding_value", "label_pad_token_id"],
        Idle(PADDING),
    ),
    word(&["dataset_num_proc", "dataset_batch_size", "chars_per_token", "num_of_sequences"], Idle(LOADING)),
    word(&["dataloader_drop_last"], Only(&["false"], "the last batch of an epoch may be short, and counts")),
    word(&["dataloader_*", "remove_unused_columns", "label_names", "length_column_name"], Idle(LOADING)),
    word(&["shuffle_dataset"], Only(&["true"], "say shuffle = false for rows in the order of the file")),
    word(
        &["train_sampling_strategy"],
        Says("`shuffle`; group_by_length is as random, since there is no padding", |text| match text {
            "random" | "group_by_length" => key("shuffle", "true"),
            "sequential" => key("shuffle", "false"),
            _ => Err("give random or sequential".into()),
        }),
    ),
    word(&["group_by_length"], Idle(PADDING)),
    // The loss.
    word(
        &["precompute_ref_log_probs", "precompute_ref_batch_size"],
        Idle("the reference is always computed once, before the first step, with the same numbers"),
    ),
    word(&["label_smoothing_factor"], Only(&["0"], "label_smoothing is that of preferences")),
    word(
        &["rpo_alpha"],
        Only(&[], "give loss_type = [\"sigmoid\", \"sft\"] with loss_weights = [1, its value]"),
    ),
    word(&["neftune_noise_alpha"], Only(&["0"], "embeddings have no noise")),
    word(&["average_tokens_across_devices"], Idle("a loss is of the whole batch, whoever computes it")),
    word(&["use_logits_to_keep", "use_num_logits_to_keep"], Idle("the head runs only where a loss is")),
    // Steps.
    word(
        &["warmup_ratio"],
        Says("`warmup_steps`, as a share of all steps; 0 is nothing", |text| match text.parse::<f64>() {
            Ok(0.0) => Ok(Vec::new()),
            Ok(share) if (0.0..1.0).contains(&share) => key("warmup_steps", text),
            _ => Err("it is from 0 to below 1".into()),
        }),
    ),
    word(&["optim_args", "optim_target_modules"], Only(&[], "adam_beta1 and its like are keys of their own")),
    word(&["adafactor"], Only(&["false"], "optim is adamw or rmsprop")),
    word(&["auto_find_batch_size"], Idle("micro_batch_tokens says what is computed at once")),
    word(&["activation_checkpointing"], Is("gradient_checkpointing")),
    word(
        &["gradient_checkpointing_kwargs", "activation_checkpointing_kwargs", "activation_offloading"],
        Idle("gradient_checkpointing alone says what is kept"),
    ),
    word(&["fp16", "fp16_full_eval", "bf16_full_eval"], Only(&["false"], ONLY_FLOAT16)),
    word(&["half_precision_backend", "fp16_backend", "fp16_opt_level"], Idle(NO_SCALE)),
    word(
        &[
            "tf32",
            "torch_compile",
            "torch_compile_*",
            "torchdynamo",
            "torch_empty_cache_steps",
            "use_liger_kernel",
            "use_liger_loss",
            "liger_kernel_config",
            "jit_mode_eval",
            "use_ipex",
            "cast_lm_head_to_fp32",
        ],
        Idle(PYTORCH),
    ),
    // Logs, evaluations, checkpoints.
    word(&["evaluation_strategy"], Is("eval_strategy")),
    word(&["eval_delay"], Only(&["0"], "evaluations begin at once")),
    word(
        &[
            "batch_eval_metrics",
            "eval_accumulation_steps",
            "eval_do_concat_batches",
            "eval_use_gather_object",
            "include_for_metrics",
            "include_inputs_for_metrics",
            "prediction_loss_only",
        ],
        Idle(EVALUATING),
    ),
    word(
        &[
            "disable_tqdm",
            "include_num_input_tokens_seen",
            "include_tokens_per_second",
            "log_level",
            "log_level_replica",
            "log_on_each_node",
            "logging_dir",
            "logging_nan_inf_filter",
            "project",
            "run_name",
            "skip_memory_metrics",
            "trackio_*",
            "debug",
        ],
        Idle(LOGS),
    ),
    word(
        &["save_safetensors", "save_only_model", "save_on_each_node", "enable_jit_checkpoint"],
        Idle("checkpoints are whole, in safetensors"),
    ),
    word(
        &["restore_callback_states_from_checkpoint"],
        Idle("a checkpoint has all that a run needs to go on"),
    ),
    word(&["ignore_data_skip"], Only(&["false"], "a run that goes on sees the rows that it would have seen")),
    word(&["push_to_hub"], Only(&["false"], UPLOADS)),
    word(&["hub_*", "push_to_hub_*", "log_completions_hub_repo"], Idle(UPLOADS)),
    // The machine.
    word(
        &["use_cpu", "no_cuda"],
        Says("`device = cpu` where it is true", |text| match yes(text)? {
            true => key("device", "cpu"),
            false => Ok(Vec::new()),
        }),
    ),
    word(&["use_mps_device"], Only(&["false"], "devices are cpu and cuda")),
    word(&["full_determinism"], Idle("runs repeat bit for bit in any case")),
    word(&["ddp_*", "local_rank", "ray_scope", "tpu_*", "mp_parameters"], Idle(ONE)),
    word(
        &[
            "deepspeed",
            "fsdp",
            "fsdp_config",
            "fsdp_*",
            "parallelism_config",
            "accelerator_config",
            "split_batches",
        ],
        Only(&["false"], ONE),
    ),
    word(
        &["do_train", "do_eval", "do_predict"],
        Idle("duel train trains, and evaluates where there is an eval_dataset"),
    ),
    word(&["past_index", "dispatch_batches", "base_model_attribute_name"], Idle(DEAD)),
    // Samples.
    word(
        &["reward_model_path"],
        Says("`judge = model:` that folder", |text| key("judge", format!("model:{text}"))),
    ),
    word(&["reward_funcs", "reward_model_name_or_path"], Only(&[], "name who judges as judge")),
    word(
        &["reward_weights", "reward_clip_range", "generation_kwargs", "num_generations_eval"],
        Only(&[], "it has no counterpart"),
    ),
    word(&["generation_batch_size", "steps_per_generation"], Only(&["1"], "a step draws its own samples")),
    word(&["use_vllm", "vllm_*", "cache_implementation", "ds3_gather_for_generation"], Idle(ENGINE)),
    word(&["use_transformers_*", "transformers_continuous_batching_config"], Idle(ENGINE)),
    word(
        &["log_completions", "log_multimodal", "log_unique_prompts", "num_completions_to_print"],
        Idle(SHOWN),
    ),
    word(&["importance_sampling_level"], Only(&["token"], "ratios are of tokens")),
    word(
        &["delta", "off_policy_mask_threshold", "max_tool_calling_iterations"],
        Only(&[], "it has no counterpart"),
    ),
    word(&["top_entropy_quantile"], Only(&["1"], "every token counts")),
    word(&["entropy_coef"], Only(&["0"], "entropy has no reward")),
    word(
        &["use_adaptive_entropy", "normalize_advantages", "use_bias_correction_kl"],
        Only(&["false"], "it has no counterpart"),
    ),
    word(&["multi_objective_aggregation"], Idle("there is one judge")),
    word(
        &[
            "sapo_*",
            "vespo_*",
            "entropy_coef_min",
            "entropy_coef_max",
            "entropy_coef_delta",
            "entropy_target",
        ],
        Idle(ABSENT),
    ),
];
