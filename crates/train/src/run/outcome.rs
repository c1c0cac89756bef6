//! How a run ends.

use std::path::PathBuf;

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// All steps are done; the model is in the output folder.
    Done {
        /// Metrics of the last evaluation, or of the last logged step where there is none.
        last: Vec<(String, f64)>,
        /// Seconds from the first step to the last.
        seconds: f64,
    },
    /// Ctrl-C; a checkpoint was written.
    Interrupted {
        /// The checkpoint.
        checkpoint: PathBuf,
    },
}
