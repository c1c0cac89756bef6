#![doc = include_str!("../README.md")]

mod config;
mod error;
mod generate;
mod graph;
mod io;
mod weights;

pub use config::{Config, Family, Mlp, NormKind, Rope, RopeScaling};
pub use error::{Error, Result};
pub use generate::{Generator, Sampling};
pub use graph::{Activations, Keep, backward, forward};
pub use io::{
    COMPANIONS, copy_companions, first_not_finite, load, load_flat, load_frozen, load_masters, save,
    save_flat, write_synced,
};
pub use weights::{Frozen, Layer, Linear, Model, Norm, Piece, Shape, Weights};
