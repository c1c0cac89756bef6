//! What computes models, of every type: in one program, since each would compile them anew.

mod blocks;
mod broken_files;
mod decoding;
mod folders;
mod golden;
mod golden_score;
mod gradients;
mod install;
mod invariants;
mod reward_folders;
mod trained;
