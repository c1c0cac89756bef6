//! `trainer_state.json` as transformers' trainer writes it, for those who read that: where a run stands and what it
//! logged. Nothing here is read again.

use super::metrics::Record;
use serde_json::{Map, Value, json};

/// Where a run stands.
pub struct TrainerState {
    /// Steps done, and of the whole run.
    pub steps: (u64, u64),
    /// Passes over the rows: those steps as such, and of the whole run.
    pub epochs: (f64, f64),
    /// Steps between logs, evaluations and checkpoints.
    pub every: [u64; 3],
    /// Groups in a batch, accumulation left out.
    pub batch: usize,
    /// Tokens seen.
    pub tokens: u64,
    /// Operations on them: 6 for each parameter that is no embedding, as transformers counts.
    pub flos: f64,
    /// The best metric, its step, and the folder of the best checkpoint.
    pub best: (Option<f64>, Option<u64>, Option<String>),
}

impl TrainerState {
    /// The file, with what was logged.
    pub fn json(&self, history: Vec<Record>) -> Value {
        let [logging, eval, save] = self.every;
        let (metric, step, checkpoint) = &self.best;
        json!({
            "best_global_step": step,
            "best_metric": metric,
            "best_model_checkpoint": checkpoint,
            "epoch": self.epochs.0,
            "eval_steps": eval,
            "global_step": self.steps.0,
            "is_hyper_param_search": false,
            "is_local_process_zero": true,
            "is_world_process_zero": true,
            "log_history": history,
            "logging_steps": logging,
            "max_steps": self.steps.1,
            "num_input_tokens_seen": self.tokens,
            "num_train_epochs": self.epochs.1.ceil() as u64,
            "save_steps": save,
            "stateful_callbacks": Map::new(),
            "total_flos": self.flos,
            "train_batch_size": self.batch,
            "trial_name": null,
            "trial_params": null,
        })
    }
}
