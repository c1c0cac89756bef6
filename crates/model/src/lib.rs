#![doc = include_str!("../README.md")]

mod activations;
mod adapter;
mod advice;
mod before;
mod config;
pub mod decode;
mod error;
mod families;
mod family;
mod file_dtype;
mod flat;
mod folder;
mod gradients;
mod graph;
mod held;
mod install;
mod json;
mod keys;
mod layer;
mod leftover;
mod lend;
mod linear;
mod load;
mod lora;
mod missing;
mod names;
mod peft;
mod plural;
mod quantised;
mod rope;
mod save;
mod score;
mod shards;
mod source;
mod tensors;
mod tree;
mod weights;
mod write;

pub use activations::{Activations, Keep};
pub use adapter::{Adapter, Part};
pub use before::Before;
pub use config::{Block, Config, EmbedScale, LayerKind, Mlp, NormKind, QkNorm, Turns};
pub use error::{Error, Result};
pub use family::{Family, Output};
pub use file_dtype::FileDtype;
pub use flat::{load_flat, save_flat};
pub use folder::Folder;
pub use gradients::{Gradients, Trained};
pub use graph::{backward, backward_pass, forward};
pub use held::{Form, Held, InBlocks, Numbers};
pub use install::{
    STAGED, companions, copy_companions, install, model_files, remove_model, remove_templates, stage,
    write_stops,
};
pub use load::{
    PolicyBytes, each_master, frozen_bytes, load, load_as, load_frozen, load_frozen_in, load_in_8bit,
    load_policy, policy_bytes,
};
pub use lora::{Lora, LoraSettings, Modules};
pub use peft::{base_folder, save_adapter, tokenizer_folder};
pub use rope::{Rope, RopeScaling};
pub use save::{first_not_finite, save, save_as};
pub use source::{Reader, Source};
pub use tensors::Names;
pub use weights::{Layer, Linear, Model, Norm, Piece, Shape, View, Weights};
pub use write::write_synced;
