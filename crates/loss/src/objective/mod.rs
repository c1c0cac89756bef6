//! What is learned: pure functions from the scores of responses to a loss and its derivatives, and the one table of
//! their names.
//!
//! `u` of a response is the policy's log-probability less the reference's, `h` of a pair the chosen response's `u` less
//! the rejected one's, `m` the margin that a row says, `ls(z) = ln sigmoid(z)`. Nothing here knows a device.

mod batch;
mod free;
mod margin;
mod ranking;
mod score;
mod sided;
mod sum;
#[cfg(test)]
mod tests;
mod unpaired;
mod word;

pub use margin::{hinge, ipo, sigmoid};
pub use score::{Divergence, Group, PairLoss, Score, Totals};
pub use sum::{Needs, Objective};
pub use word::{Settings, Word};

use word::Kind;

const SFT: Word = Word {
    name: "sft",
    formula: "-logp of the chosen response, the mean over tokens",
    source: "cross entropy",
    uses: &[],
    reference: false,
    per_token: true,
    kind: Kind::CrossEntropy { prompt: false },
};

const LM: Word = Word {
    name: "lm",
    formula: "-logp of the chosen response and its prompt, the mean over tokens",
    source: "cross entropy; beside the odds of ORPO: Hong et al., 2024",
    uses: &[],
    reference: false,
    per_token: true,
    kind: Kind::CrossEntropy { prompt: true },
};

const CENTER: Word = Word {
    name: "center",
    formula: "(u_w + u_l)^2: holds rewards around 0",
    source: "centred reward models: Eisenstein et al., 2023",
    uses: &[],
    reference: true,
    per_token: false,
    kind: Kind::Pair(|_, w, l, _| {
        let sum = w.log_ratio() + l.log_ratio();
        PairLoss { value: sum * sum, d_chosen: 2.0 * sum, d_rejected: 2.0 * sum }
    }),
};

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
    &SFT,
    &LM,
    &margin::SIGMOID_NORM,
    &ranking::PLACKETT_LUCE,
    &unpaired::KTO,
    &unpaired::BCO,
    &free::ORPO,
    &free::SIMPO,
    &free::ALPHAPO,
    &free::UNLIKELIHOOD,
    &CENTER,
];

/// The loss of this name.
pub fn word(name: &str) -> Option<&'static Word> {
    WORDS.iter().copied().find(|word| word.name == name)
}
