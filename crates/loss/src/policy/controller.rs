//! How strongly the policy is pulled to its reference, as far as it has gone.

/// Ziegler et al. (2019): `beta *= 1 + clip(KL/target - 1, ±0.2) n/horizon` after a step of `n` responses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Controller {
    /// What rewards lose for each nat.
    pub beta: f64,
    /// The KL of responses that is aimed at, in nats.
    pub target: f64,
    /// Responses in which `beta` follows.
    pub horizon: f64,
}

impl Controller {
    /// After a step of `responses`, whose KL was this on average.
    pub fn observe(&mut self, kl: f64, responses: usize) {
        let error = (kl / self.target - 1.0).clamp(-0.2, 0.2);
        self.beta *= 1.0 + error * responses as f64 / self.horizon;
    }
}
