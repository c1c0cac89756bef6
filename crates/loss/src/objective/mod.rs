//! What is learned: pure functions from the scores of responses to a loss and its derivatives, and the one table of
//! their names.
//!
//! `u` of a response is the policy's log-probability less the reference's, `h` of a pair the chosen response's `u` less
//! the rejected one's, `m` the margin that a row says, `ls(z) = ln sigmoid(z)`. Nothing here knows a device.

mod batch;
mod free;
mod margin;
mod plain;
mod ranking;
mod score;
mod sided;
mod sum;
#[cfg(test)]
mod tests;
mod unpaired;
mod word;

pub use margin::sigmoid;
pub use score::{Divergence, Group, PairLoss, Score, Totals, logistic, softplus};
pub use sum::{Needs, Objective};
pub use word::{Settings, Word};

/// Every loss.
pub const WORDS: &[&Word] = &[
    &margin::SIGMOID,
    &margin::HINGE,
    &margin::IPO,
    &margin::EXO_PAIR,
    &sided::NCA_PAIR,
    &margin::ROBUST,
    &sided::BCO_PAIR,
    &sided::SPPO_HARD,
    &batch::AOT,
    &batch::AOT_UNPAIRED,
    &sided::APO_ZERO,
    &sided::APO_DOWN,
    &margin::DISCOPOP,
    &plain::SFT,
    &plain::LM,
    &margin::SIGMOID_NORM,
    &ranking::PLACKETT_LUCE,
    &unpaired::KTO,
    &unpaired::BCO,
    &unpaired::APO_ZERO_UNPAIRED,
    &free::ORPO,
    &free::SIMPO,
    &free::ALPHAPO,
    &free::UNLIKELIHOOD,
];

/// The loss of this name.
pub fn word(name: &str) -> Option<&'static Word> {
    WORDS.iter().copied().find(|word| word.name == name)
}
