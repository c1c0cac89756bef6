#![doc = include_str!("../README.md")]

mod draft;
mod fault;
mod file;
mod lock;
mod operations;

pub use draft::Draft;
pub use file::File;
pub use lock::Lock;
pub use operations::{
    copy, create_dir_all, link, remove_dir, remove_dir_all, remove_file, rename, sync, write, write_synced,
};
