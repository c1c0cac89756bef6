//! What a value head learns: to expect what a response returns.

/// `weight/2 max((V - G)², (clip(V, V_old ± range) - G)²)` of a token (PPO's clipped value loss), with the mean over
/// tokens left to the caller.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ValueLoss {
    /// How much it counts beside the policy's.
    pub weight: f64,
    /// How far a value may move from what it was when the response was drawn.
    pub range: f64,
}

impl ValueLoss {
    /// The loss of a token of value `v`, once `old`, and return `g`; its derivative by `v`; and whether it was clipped.
    pub fn of(&self, v: f64, old: f64, g: f64) -> (f64, f64, bool) {
        let near = v.clamp(old - self.range, old + self.range);
        let (free, held) = ((v - g).powi(2), (near - g).powi(2));
        match held > free {
            true => (self.weight / 2.0 * held, 0.0, true),
            false => (self.weight / 2.0 * free, self.weight * (v - g), false),
        }
    }
}
