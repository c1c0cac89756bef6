//! Rows of every kind, from files to tokens: in one program, since each would compile the readers anew.

mod candidates;
mod common;
mod conversations;
mod files;
mod formats;
mod golden;
mod labels;
mod mismatched;
mod packing;
mod prompts;
mod reference;
mod templates;
mod together;
mod tokenizers;
