//! Normal numbers.

use fastrand::Rng;
use std::f64::consts::TAU;

/// A standard normal number (Box and Muller, 1958, of whose two the second is left).
pub fn gaussian(rng: &mut Rng) -> f64 {
    (-2.0 * (1.0 - rng.f64()).ln()).sqrt() * (TAU * rng.f64()).cos()
}
