#![doc = include_str!("../README.md")]

mod advice;
mod config;
mod error;
mod flat;
mod folder;
mod generate;
mod graph;
mod install;
mod json;
mod keys;
mod leftover;
mod load;
mod missing;
mod names;
mod plural;
mod quantised;
mod rope;
mod save;
mod score;
mod shards;
mod weights;
mod write;

pub use config::{Config, Family, Mlp, NormKind, Output};
pub use error::{Error, Result};
pub use flat::{load_flat, save_flat};
pub use folder::Folder;
pub use generate::{Generator, Sampling};
pub use graph::{Activations, Keep, backward, forward};
pub use install::{copy_companions, install, model_files, remove_model, write_stops};
pub use load::{load, load_frozen, load_masters};
pub use rope::{Rope, RopeScaling};
pub use save::{first_not_finite, save};
pub use weights::{Frozen, Layer, Linear, Model, Norm, Piece, Shape, Weights};
pub use write::write_synced;
