//! Policy gradients: pure functions from what sampled responses earned, and from what policy, sampler and reference say
//! of their tokens, to a coefficient a token.
//!
//! `l`, `o` and `f` are the log-probabilities of a token under the policy, the policy that drew it, and the reference;
//! `rho = exp(l - o)`. A coefficient is the derivative of the loss by `l`: what [`Head::loss`](crate::Head::loss) takes
//! of each row. Rewards, advantages, `o` and `f` are constants. Nothing here knows a device.

mod advantage;
mod controller;
mod kl;
mod surrogate;
#[cfg(test)]
mod tests;
mod value;
mod word;

pub use advantage::{Scale, deviation, generalised, leave_one_out, relative, whiten};
pub use controller::Controller;
pub use kl::Estimator;
pub use surrogate::{Clip, Clipped, Ratio, Said, Sampled, Surrogate};
pub use value::ValueLoss;
pub use word::{WORDS, Word, word};
