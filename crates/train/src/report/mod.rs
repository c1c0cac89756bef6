//! What a run writes and says of itself.

mod curve;
pub mod events;
pub mod metrics;
pub mod page;
pub mod plot;
pub mod progress;
pub mod trackers;
pub mod trainer_state;
