//! Losses of single responses that are desirable or not. `r` is a response's reward `beta u`.

use super::score::{logistic, softplus};
use super::word::{Baseline, Kind, Word};

pub(super) const KTO: Word = Word {
    name: "kto",
    formula: "desirable_weight (1 - sigmoid(r - z)), or undesirable_weight (1 - sigmoid(z - r)), with z = beta max(0, \
              mean u of responses to prompts that are not theirs)",
    source: "KTO: Ethayarajh et al., 2024, equation 8",
    uses: &["beta", "desirable_weight", "undesirable_weight"],
    reference: true,
    per_token: false,
    kind: Kind::Unpaired {
        of: |s, reward, desirable, totals| {
            let z = reward - s.beta * totals.kl;
            let bell = logistic(z) * logistic(-z);
            match desirable {
                true => (s.desirable_weight * logistic(-z), -s.desirable_weight * bell),
                false => (s.undesirable_weight * logistic(z), s.undesirable_weight * bell),
            }
        },
        looks_at: Some(Baseline::Kl),
    },
};

pub(super) const BCO: Word = Word {
    name: "bco",
    formula: "-ls(r - d), or -ls(d - r) of an undesirable one, with d the mean of all rewards so far",
    source: "BCO: Jung et al., 2024",
    uses: &["beta"],
    reference: true,
    per_token: false,
    kind: Kind::Unpaired {
        of: |_, reward, desirable, totals| {
            let z = reward - totals.mean_reward;
            if desirable { (softplus(-z), -logistic(-z)) } else { (softplus(z), logistic(z)) }
        },
        looks_at: Some(Baseline::MeanReward),
    },
};

pub(super) const APO_ZERO_UNPAIRED: Word = Word {
    name: "apo_zero_unpaired",
    formula: "desirable_weight (1 - sigmoid(r)), or undesirable_weight sigmoid(r)",
    source: "APO: D'Oosterlinck et al., 2024, of each side by itself",
    uses: &["beta", "desirable_weight", "undesirable_weight"],
    reference: true,
    per_token: false,
    kind: Kind::Unpaired {
        of: |s, reward, desirable, _| {
            let bell = logistic(reward) * logistic(-reward);
            match desirable {
                true => (s.desirable_weight * logistic(-reward), -s.desirable_weight * bell),
                false => (s.undesirable_weight * logistic(reward), s.undesirable_weight * bell),
            }
        },
        looks_at: None,
    },
};
