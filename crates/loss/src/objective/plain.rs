//! Terms that look at no difference between responses.

use super::score::PairLoss;
use super::word::{Kind, Word};

pub(super) const SFT: Word = Word {
    name: "sft",
    formula: "-logp of the chosen response, the mean over tokens",
    source: "cross entropy",
    uses: &[],
    reference: false,
    per_token: true,
    kind: Kind::CrossEntropy { prompt: false },
};

pub(super) const LM: Word = Word {
    name: "lm",
    formula: "-logp of the chosen response and its prompt, the mean over tokens",
    source: "cross entropy; beside the odds of ORPO: Hong et al., 2024",
    uses: &[],
    reference: false,
    per_token: true,
    kind: Kind::CrossEntropy { prompt: true },
};

/// No loss by itself: a term that [`Objective::and_centring`](super::Objective::and_centring) adds.
pub(super) const CENTER: Word = Word {
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
