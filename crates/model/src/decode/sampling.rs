//! How the next token is chosen.

use crate::error::{Error, Result};
use duel_backend::Draw;

/// How the next token is chosen: penalty, temperature and filters in the order of transformers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Most tokens that are added to a prompt; at least 1.
    pub max_new_tokens: usize,
    /// Divides the logits; 0 takes the likeliest token.
    pub temperature: f64,
    /// Only the `top_k` likeliest tokens; 0 means all.
    pub top_k: usize,
    /// Only the likeliest tokens that together reach this probability; 1 means all.
    pub top_p: f64,
    /// Only tokens at least this times as likely as the likeliest; 0 means all.
    pub min_p: f64,
    /// Divides the positive logits of tokens that the prompt or its continuation has, and multiplies the negative ones
    /// (Keskar et al., 2019); 1 changes nothing.
    pub repetition_penalty: f64,
    /// Seed of all that is drawn.
    pub seed: u64,
}

impl Default for Sampling {
    /// From the model's own distribution.
    fn default() -> Self {
        Sampling {
            max_new_tokens: 64,
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            seed: 42,
        }
    }
}

impl Sampling {
    /// The likeliest token, each time.
    pub fn greedy(max_new_tokens: usize) -> Self {
        Sampling { max_new_tokens, temperature: 0.0, ..Self::default() }
    }

    /// # Errors
    /// A value is out of its range.
    pub fn check(&self) -> Result<()> {
        let checks = [
            ("max_new_tokens", self.max_new_tokens as f64, self.max_new_tokens >= 1, "at least 1"),
            (
                "temperature",
                self.temperature,
                (0.0..=1e30).contains(&self.temperature),
                "from 0 (the likeliest token) to 1e30",
            ),
            ("top_p", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "above 0 and at most 1"),
            ("min_p", self.min_p, (0.0..=1.0).contains(&self.min_p), "from 0 to 1"),
            (
                "repetition_penalty",
                self.repetition_penalty,
                self.repetition_penalty.is_finite() && self.repetition_penalty > 0.0,
                "above 0; 1 changes nothing",
            ),
        ];
        checks.into_iter().try_for_each(|(name, value, right, range)| in_range(name, value, right, range))
    }

    /// What the verb takes of it.
    pub(super) fn draw(&self) -> Draw {
        Draw { temperature: self.temperature, top_k: self.top_k, top_p: self.top_p, min_p: self.min_p }
    }
}

/// A second model that tokens are drawn with: of `softmax((1 - coef) z + coef z_reference)`, `z` the logits (Nash-MD:
/// Munos et al., 2023).
#[derive(Clone, Copy, Debug)]
pub struct Mixture<'a, W> {
    /// The weights of the second model, of the shape of the first.
    pub reference: &'a W,
    /// Its share, from 0, where nothing is drawn otherwise than without it, to 1, where the first model has no say.
    pub coef: f64,
}

impl<W> Mixture<'_, W> {
    /// # Errors
    /// The coefficient is out of its range.
    pub fn check(&self) -> Result<()> {
        in_range("mixture_coef", self.coef, (0.0..=1.0).contains(&self.coef), "from 0 to 1")
    }
}

fn in_range(name: &str, value: f64, right: bool, range: &str) -> Result<()> {
    let wrong = || Error::Decoding(format!("`{name}` is {value}; it must be {range}"));
    if right { Ok(()) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_range_is_named() {
        let good = Sampling::default();
        assert!(good.check().is_ok());
        assert!(Sampling { temperature: 0.0, min_p: 1.0, ..good }.check().is_ok());
        for nan in [f64::NAN, f64::INFINITY, -0.5] {
            for (name, bad) in [
                ("temperature", Sampling { temperature: nan, ..good }),
                ("top_p", Sampling { top_p: nan, ..good }),
                ("min_p", Sampling { min_p: nan, ..good }),
                ("repetition_penalty", Sampling { repetition_penalty: nan, ..good }),
            ] {
                let said = bad.check().unwrap_err().to_string();
                assert!(said.contains(name) && said.contains("must be"), "{said}");
            }
        }
        assert!(Sampling { top_p: 0.0, ..good }.check().is_err());
        assert!(Sampling { repetition_penalty: 0.0, ..good }.check().is_err());
        assert!(Sampling::greedy(0).check().unwrap_err().to_string().contains("max_new_tokens"));
    }
}
