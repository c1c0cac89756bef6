use crate::{Acc, Index, Logits, Real, Storage};

/// How a token is drawn from a row of logits.
///
/// With `p = softmax(logits / temperature)` three filters follow each other, each on what the one before left: the
/// `top_k` likeliest tokens (Fan et al., 2018); the likeliest of those that together reach `top_p` of their probability
/// (Holtzman et al., 2020); of those the ones at least `min_p` times as likely as the likeliest (Nguyen et al., 2024).
/// Each keeps all tokens that are at least as likely as some threshold: of equals all or none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    /// Divides the logits. At 0 nothing is drawn: the token is the likeliest, of equals the one with the lowest id.
    pub temperature: f64,
    /// 0, or the vocabulary and more, keeps all.
    pub top_k: usize,
    /// 1 keeps all.
    pub top_p: f64,
    /// 0 keeps all.
    pub min_p: f64,
}

impl Draw {
    /// Where there is no token to draw, because a logit is not a number or infinite, or all are minus infinity.
    pub const NONE: u32 = u32::MAX;
    /// A token that is less likely than this, measured by the likeliest, is never drawn: `e^-80`, which a sum of `f32`
    /// does not see.
    pub const LEAST: f64 = 1.804_851_387_845_415e-35;

    /// Draws from all tokens by their probability.
    pub fn plain(temperature: f64) -> Self {
        Draw { temperature, top_k: 0, top_p: 1.0, min_p: 0.0 }
    }

    /// What logits are multiplied by before the softmax: the temperature's inverse, or 1 at temperature 0. A
    /// temperature below `1e-30` is that: only the likeliest are left there, and products stay finite.
    ///
    /// # Panics
    /// Where a number is out of its range: a program checks what a user says.
    pub fn factor(self) -> f64 {
        let Draw { temperature, top_p, min_p, .. } = self;
        assert!((0.0..=1e30).contains(&temperature), "temperature {temperature}");
        assert!(top_p > 0.0 && top_p <= 1.0 && (0.0..=1.0).contains(&min_p), "top_p {top_p}, min_p {min_p}");
        if temperature == 0.0 { 1.0 } else { 1.0 / temperature.max(1e-30) }
    }

    /// How many of `vocab` tokens the first filter keeps, if it removes any.
    pub fn kept_by_rank(self, vocab: usize) -> Option<usize> {
        (1..vocab).contains(&self.top_k).then_some(self.top_k)
    }
}

/// The next tokens, of the logits of the last.
pub trait Sample: Storage {
    /// The mixture that Nash-MD draws from (Munos et al., 2023), in place: `logits = (1 - m) logits + m other`, whose
    /// softmax is the geometric mean of both predictions by these weights, normalised. At 0 the logits stay what they
    /// are, at 1 they are `other`, of which `dims` are too.
    fn blend(&self, logits: &mut Real<Self>, other: &Real<Self>, m: f64, dims: Logits);
    /// The repetition penalty of Keskar et al. (2019): `seen[pairs, 2]` names elements of the logits by row and token,
    /// each at most once; a positive one is divided by `penalty`, another multiplied by it.
    fn penalise(&self, logits: &mut Real<Self>, seen: &Index<Self>, pairs: usize, penalty: f64, dims: Logits);
    /// Draws a token for each row by `rules`. `draws` has a number in `[0, 1)` for each row, uniform and independent:
    /// the token is the first at which the sum of the probabilities that the filters left, in the order of ids and
    /// divided by their sum, exceeds it. `logp` is the token's log-probability under `softmax(logits · factor)` over
    /// the whole vocabulary, before the filters ([`Draw::factor`]). Where there is none to draw, the token is
    /// [`Draw::NONE`] and its `logp` is not a number.
    fn sample(
        &self,
        tokens: &mut Index<Self>,
        logp: &mut Acc<Self>,
        logits: &Real<Self>,
        draws: &Acc<Self>,
        rules: Draw,
        dims: Logits,
    );
}
