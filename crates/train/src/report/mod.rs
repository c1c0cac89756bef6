//! What a run writes and says of itself.

pub mod metrics;
pub mod page;
pub mod plot;
pub mod progress;
pub mod trainer_state;
