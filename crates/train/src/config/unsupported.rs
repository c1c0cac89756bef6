//! Keys that users of TRL type and duel does not have.

use crate::Error;

/// Each with what to do instead.
pub(super) const UNSUPPORTED: &[(&[&str], &str)] = &[
    (&["model_name_or_path"], "it is called `model` here"),
    (&["dataset_name"], "it is called `dataset` here and names a file"),
    (&["dataset_train_split", "dataset_test_split"], "give files as `dataset` and `eval_dataset`"),
    (&["shuffle_dataset"], "it is called `shuffle` here"),
    (&["max_prompt_length"], "use `max_length` with `truncation_mode`"),
    (&["response_length"], "it is called `max_completion_length` here"),
    (&["reward_funcs", "reward_model_path"], "name who judges as `judge`"),
    (&["use_vllm", "vllm_mode"], "samples are drawn by the trainer itself"),
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
        &["fp16", "tf32", "bf16_full_eval", "fp16_full_eval", "half_precision_backend"],
        "the arithmetic is in float32, or with `bf16` in bfloat16",
    ),
    (
        &["bnb_4bit_quant_type", "use_bnb_nested_quant", "bnb_4bit_compute_dtype", "bnb_4bit_quant_storage"],
        "4-bit weights are blocks with a scale and a minimum, by `load_in_4bit`",
    ),
    (&["ref_model_name_or_path"], "it is called `ref_model` here"),
    (&["torch_dtype"], "it is called `dtype` here"),
    (&["lora_modules_to_save"], "it is called `modules_to_save` here"),
    (&["lora_rank"], "it is called `lora_r` here"),
    (&["use_dora", "peft_use_dora"], "DoRA is not there; adapters are plain LoRA or rsLoRA"),
    (&["lora_target_parameters"], "adapters are beside whole maps, which `lora_target_modules` names"),
    (&["lora_task_type"], "the method says what kind of model it is"),
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
        Some((_, instead)) => {
            let way = if instead.starts_with("it is called") { "rename it" } else { "remove it" };
            Err(Error::new(format!("`{key}` is not supported: {instead}; {way}")))
        }
        None => Ok(()),
    }
}
