/// Shape of the learning rate after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScheduleKind {
    /// Falls on a line to 0 at the last step.
    Linear,
    /// Falls on half a cosine to 0 at the last step.
    Cosine,
    /// Stays.
    Constant,
}

/// Learning rate by step: a linear warm-up, then [`ScheduleKind`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Shape after the warm-up.
    pub kind: ScheduleKind,
    /// Highest rate.
    pub peak: f64,
    /// Steps of the warm-up; step 0 then has the rate 0.
    pub warmup: u64,
    /// Steps of the whole run.
    pub total: u64,
}

impl Schedule {
    /// Rate of the update number `step`, counted from 0.
    pub fn rate(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.peak * step as f64 / self.warmup as f64;
        }
        let span = self.total.saturating_sub(self.warmup).max(1) as f64;
        let done = ((step - self.warmup) as f64 / span).min(1.0);
        self.peak
            * match self.kind {
                ScheduleKind::Linear => 1.0 - done,
                ScheduleKind::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
                ScheduleKind::Constant => 1.0,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        let rates = |kind| {
            let s = Schedule { kind, peak: 2.0, warmup: 2, total: 6 };
            [0, 1, 2, 4, 6, 9].map(|t| (s.rate(t) * 1e6).round() / 1e6)
        };
        assert_eq!(rates(ScheduleKind::Linear), [0.0, 1.0, 2.0, 1.0, 0.0, 0.0]);
        assert_eq!(rates(ScheduleKind::Cosine), [0.0, 1.0, 2.0, 1.0, 0.0, 0.0]);
        assert_eq!(rates(ScheduleKind::Constant), [0.0, 1.0, 2.0, 2.0, 2.0, 2.0]);
        let cold = Schedule { kind: ScheduleKind::Linear, peak: 1.0, warmup: 0, total: 4 };
        assert_eq!(cold.rate(0), 1.0);
        assert_eq!(cold.rate(3), 0.25);
    }
}
