//! A reference that follows the policy.

use crate::Error;
use duel_backend::{Backend, Float, Real};
use duel_model::{Model, Weights};

/// A reference that follows the policy: every so many steps it moves a share of the way to it (TR-DPO: Gorbatovski et
/// al., 2024, equation 4).
pub struct Following<B: Backend> {
    /// The reference as it is now.
    pub weights: Model<Real<B>>,
    /// Steps after which it moves.
    pub every: u64,
    /// The policy's share in what it moves to.
    pub share: f64,
}

impl<B: Backend> Following<B> {
    /// Whether it moves after this many steps.
    pub fn moves_after(&self, step: u64) -> bool {
        step.is_multiple_of(self.every)
    }

    /// Moves it: `reference = share policy + (1 - share) reference`, in double precision, rounded once.
    ///
    /// # Errors
    /// The device failed.
    pub fn follow(&mut self, b: &B, policy: &impl Weights<B>) -> Result<(), Error> {
        for (reference, policy) in self.weights.iter_mut().into_iter().zip(policy.view().into_vec()) {
            let host = |buf: &Real<B>| -> Result<Vec<B::Real>, Error> {
                let mut host = vec![B::Real::default(); b.len(buf)];
                b.download(&mut host, buf, 0)?;
                Ok(host)
            };
            let mixed: Vec<B::Real> = host(reference)?
                .into_iter()
                .zip(host(policy.real())?)
                .map(|(r, p)| B::Real::from_f64(self.share * p.to_f64() + (1.0 - self.share) * r.to_f64()))
                .collect();
            b.upload(reference, 0, &mixed);
        }
        Ok(())
    }
}
