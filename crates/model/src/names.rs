//! Names of the files that weights lie in.

/// What transformers looks for first.
pub(crate) const SINGLE: &str = "model.safetensors";
/// What it looks for next: names the files that hold the model together.
pub(crate) const INDEX: &str = "model.safetensors.index.json";
