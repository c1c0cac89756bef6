//! A reference that stays: the model that a run began with.

use duel_backend::Backend;
use duel_model::{Before, Held, View};

/// Where the weights are of the model that a run began with.
pub enum Stays<B: Backend> {
    /// Beside the policy's, all of which change.
    Apart(Held<B>),
    /// The policy's, but for what its adapters have become.
    Within(Before<B>),
}

impl<B: Backend> Stays<B> {
    /// That model; `policy` is what has become of it.
    pub fn beside<'a>(&'a self, policy: &'a Held<B>) -> View<'a, B> {
        match self {
            Stays::Apart(weights) => View::of(weights),
            Stays::Within(before) => before.within(policy),
        }
    }
}
