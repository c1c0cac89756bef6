//! Values that a number may have.

use crate::Error;
use std::fmt::Display;

/// What holds of a value that is in range, and how it is said.
pub(super) struct Range<T: 'static>(pub &'static str, pub fn(&T) -> bool);

pub(super) const AT_LEAST_1: Range<usize> = Range("at least 1", |&n| n >= 1);
pub(super) const POSITIVE: Range<f64> = Range("above 0", |&x| x > 0.0 && x.is_finite());
pub(super) const NOT_NEGATIVE: Range<f64> = Range("0 or a number above", |&x| x >= 0.0 && x.is_finite());
/// Of what is left of a mean after a step.
pub(super) const DECAY: Range<f64> = Range("at least 0 and below 1", |x| (0.0..1.0).contains(x));

impl<T: Display> Range<T> {
    /// # Errors
    /// One of the values of `key` is outside.
    pub fn check(&self, key: &str, values: &[T]) -> Result<(), Error> {
        let Self(range, holds) = self;
        match values.iter().find(|value| !holds(value)) {
            None => Ok(()),
            Some(value) => Err(out_of_range(key, value, range)),
        }
    }
}

/// The error of a value that is not as `range` says.
pub(super) fn out_of_range(key: &str, value: &dyn Display, range: &str) -> Error {
    Error::new(format!("`{key} = {value}` is out of range: it must be {range}"))
}
