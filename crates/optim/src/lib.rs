//! AdamW, RMSprop, gradient clipping and learning-rate schedules
