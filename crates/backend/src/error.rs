use std::fmt;

/// What a device can refuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// No room for another buffer.
    OutOfMemory {
        /// What was asked for, in bytes.
        bytes: usize,
    },
    /// There is no such device, or it cannot be used; why, and what would help.
    NoDevice(String),
    /// The device failed; what it said.
    Device(String),
}

/// Result of a device call.
pub type Result<T> = std::result::Result<T, Error>;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::OutOfMemory { bytes } => write!(
                f,
                "out of memory: {:.2} GB more are needed; lower max_length, per_device_train_batch_size or \
                 micro_batch_tokens, or set gradient_checkpointing",
                *bytes as f64 / 1e9
            ),
            Error::NoDevice(why) => f.write_str(why),
            Error::Device(what) => write!(f, "the device failed: {what}"),
        }
    }
}

impl std::error::Error for Error {}
