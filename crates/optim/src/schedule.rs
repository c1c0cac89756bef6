//! The learning rate by step, as transformers has it (`optimization.py` of 5.23).

use std::f64::consts::PI;

/// How a rate rises from 0 to 1, or falls the same way back, by what is done of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ramp {
    /// In a straight line.
    Linear,
    /// Along half a cosine.
    Cosine,
    /// 1 - sqrt(1 - done) up, 1 - sqrt(done) down.
    Root,
}

/// Shape of the learning rate after the warm-up, over what is done of the steps after it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ScheduleKind {
    /// Falls on a line to 0 at the last step.
    Linear,
    /// Falls on a cosine of so many cycles (half of one goes down to the end once) to this share of the highest rate.
    Cosine {
        /// Cycles.
        cycles: f64,
        /// Share.
        floor: f64,
    },
    /// Falls on half a cosine to 0 so many times, and begins at the top again.
    Restarts {
        /// Times.
        cycles: f64,
    },
    /// Falls by a power of what is left, to a rate at the last step.
    Polynomial {
        /// Power.
        power: f64,
        /// Rate, not a share.
        end: f64,
    },
    /// Falls with the root of the steps, whatever their number: `sqrt(t / (step + t - warmup))`.
    InverseSqrt {
        /// t; `None`: the warm-up, or 10,000 without one.
        timescale: Option<u64>,
    },
    /// Stays, and falls to a share of the highest rate over the last steps.
    StableDecay {
        /// How the warm-up rises from that share.
        warmup: Ramp,
        /// Steps before the decay; `None`: those that the other two leave.
        stable: Option<u64>,
        /// Steps of the decay.
        decay: u64,
        /// How it falls.
        shape: Ramp,
        /// Share.
        floor: f64,
        /// Cycles of a cosine's decay.
        cycles: f64,
    },
    /// Stays.
    Constant,
}

impl ScheduleKind {
    /// Half a cosine down to 0.
    pub const COSINE: Self = ScheduleKind::Cosine { cycles: 0.5, floor: 0.0 };
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
        let Schedule { kind, peak, warmup, total } = *self;
        if step < warmup {
            let done = step as f64 / warmup as f64;
            return peak
                * match kind {
                    ScheduleKind::StableDecay { warmup: ramp, floor, .. } => {
                        let risen = match ramp {
                            Ramp::Linear => done,
                            Ramp::Cosine => 0.5 * (1.0 - (PI * done).cos()),
                            Ramp::Root => 1.0 - (1.0 - done).sqrt(),
                        };
                        above(floor, risen)
                    }
                    _ => done,
                };
        }
        let after = step - warmup;
        let span = total.saturating_sub(warmup).max(1) as f64;
        let done = (after as f64 / span).min(1.0);
        peak * match kind {
            ScheduleKind::Linear => 1.0 - done,
            ScheduleKind::Cosine { cycles, floor } => above(floor, cosine(cycles, done)),
            ScheduleKind::Restarts { .. } if done >= 1.0 => 0.0,
            ScheduleKind::Restarts { cycles } => cosine(0.5, (cycles * done) % 1.0),
            ScheduleKind::Polynomial { power, end } => return (peak - end) * (1.0 - done).powf(power) + end,
            ScheduleKind::InverseSqrt { timescale } => {
                let t = timescale.unwrap_or(if warmup > 0 { warmup } else { 10_000 }) as f64;
                (t / (after as f64 + t)).sqrt()
            }
            ScheduleKind::StableDecay { stable, decay, shape, floor, cycles, .. } => {
                // Below 0 where warm-up and decay are more than all: the decay then begins part-way, as theirs does.
                let stable = stable.map_or(total as i64 - warmup as i64 - decay as i64, |steps| steps as i64);
                match after as i64 - stable {
                    ..0 => 1.0,
                    fallen if fallen < decay as i64 => {
                        let done = fallen as f64 / decay as f64;
                        let left = match shape {
                            Ramp::Linear => 1.0 - done,
                            Ramp::Cosine => cosine(cycles, done),
                            Ramp::Root => 1.0 - done.sqrt(),
                        };
                        above(floor, left)
                    }
                    _ => floor,
                }
            }
            ScheduleKind::Constant => 1.0,
        }
    }
}

/// From 1 down to 0 in half a cycle.
fn cosine(cycles: f64, done: f64) -> f64 {
    0.5 * (1.0 + (PI * cycles * 2.0 * done).cos())
}

/// A share of what is above `floor`.
fn above(floor: f64, share: f64) -> f64 {
    share * (1.0 - floor) + floor
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::SQRT_2;

    fn stable(stable: Option<u64>, decay: u64, warmup: Ramp, shape: Ramp, floor: f64) -> ScheduleKind {
        ScheduleKind::StableDecay { warmup, stable, decay, shape, floor, cycles: 0.5 }
    }

    /// What `get_scheduler` of transformers 5.23 gives in 12 steps of a highest rate of 2e-3, after so many of warm-up,
    /// in 1e-3, to seven decimals.
    fn theirs() -> Vec<(ScheduleKind, u64, [f64; 12])> {
        vec![
            (
                ScheduleKind::Linear,
                3,
                [
                    0.0, 0.6666667, 1.3333333, 2.0, 1.7777778, 1.5555556, 1.3333333, 1.1111111, 0.8888889,
                    0.6666667, 0.4444444, 0.2222222,
                ],
            ),
            (
                ScheduleKind::COSINE,
                3,
                [
                    0.0, 0.6666667, 1.3333333, 2.0, 1.9396926, 1.7660444, 1.5, 1.1736482, 0.8263518, 0.5,
                    0.2339556, 0.0603074,
                ],
            ),
            (
                ScheduleKind::Cosine { cycles: 1.5, floor: 0.0 },
                3,
                [0.0, 0.6666667, 1.3333333, 2.0, 1.5, 0.5, 0.0, 0.5, 1.5, 2.0, 1.5, 0.5],
            ),
            (
                ScheduleKind::Cosine { cycles: 0.5, floor: 0.1 },
                3,
                [
                    0.0, 0.6666667, 1.3333333, 2.0, 1.9457234, 1.78944, 1.55, 1.2562834, 0.9437166, 0.65,
                    0.41056, 0.2542766,
                ],
            ),
            (
                ScheduleKind::Cosine { cycles: 1.0, floor: 0.25 },
                2,
                [
                    0.0, 1.0, 2.0, 1.8567627, 1.4817627, 1.0182373, 0.6432373, 0.5, 0.6432373, 1.0182373,
                    1.4817627, 1.8567627,
                ],
            ),
            (
                ScheduleKind::Restarts { cycles: 3.0 },
                3,
                [0.0, 0.6666667, 1.3333333, 2.0, 1.5, 0.5, 2.0, 1.5, 0.5, 2.0, 1.5, 0.5],
            ),
            (
                ScheduleKind::Polynomial { power: 1.0, end: 1e-7 },
                3,
                [
                    0.0, 0.6666667, 1.3333333, 2.0, 1.7777889, 1.5555778, 1.3333667, 1.1111556, 0.8889444,
                    0.6667333, 0.4445222, 0.2223111,
                ],
            ),
            (
                ScheduleKind::Polynomial { power: 2.0, end: 1e-4 },
                3,
                [
                    0.0, 0.6666667, 1.3333333, 2.0, 1.6012346, 1.2493827, 0.9444444, 0.6864198, 0.4753086,
                    0.3111111, 0.1938272, 0.1234568,
                ],
            ),
            (
                ScheduleKind::InverseSqrt { timescale: None },
                3,
                [
                    0.0, 0.6666667, 1.3333333, 2.0, 1.7320508, 1.5491933, SQRT_2, 1.3093073, 1.2247449,
                    1.1547005, 1.0954451, 1.0444659,
                ],
            ),
            (
                ScheduleKind::InverseSqrt { timescale: None },
                0,
                [
                    2.0, 1.9999, 1.9998, 1.9997001, 1.9996001, 1.9995002, 1.9994003, 1.9993004, 1.9992005,
                    1.9991006, 1.9990007, 1.9989009,
                ],
            ),
            (
                ScheduleKind::InverseSqrt { timescale: Some(50) },
                3,
                [
                    0.0, 0.6666667, 1.3333333, 2.0, 1.9802951, 1.9611614, 1.9425717, 1.9245009, 1.9069252,
                    1.8898224, 1.8731716, 1.8569534,
                ],
            ),
            (
                stable(None, 4, Ramp::Linear, Ramp::Cosine, 0.0),
                3,
                [0.0, 0.6666667, 1.3333333, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.7071068, 1.0, 0.2928932],
            ),
            (
                stable(Some(2), 4, Ramp::Cosine, Ramp::Root, 0.1),
                4,
                [0.2, 0.4636039, 1.1, 1.7363961, 2.0, 2.0, 2.0, 1.1, 0.7272078, 0.4411543, 0.2, 0.2],
            ),
            (
                stable(None, 5, Ramp::Root, Ramp::Linear, 0.1),
                4,
                [0.2, 0.4411543, 0.7272078, 1.1, 2.0, 2.0, 2.0, 2.0, 1.64, 1.28, 0.92, 0.56],
            ),
            (
                stable(None, 10, Ramp::Linear, Ramp::Linear, 0.0),
                4,
                [0.0, 0.5, 1.0, 1.5, 1.6, 1.4, 1.2, 1.0, 0.8, 0.6, 0.4, 0.2],
            ),
            (
                ScheduleKind::Constant,
                3,
                [0.0, 0.6666667, 1.3333333, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0],
            ),
        ]
    }

    #[test]
    fn rates_are_those_of_transformers() {
        for (kind, warmup, rates) in theirs() {
            let schedule = Schedule { kind, peak: 2e-3, warmup, total: 12 };
            for (step, rate) in (0..).zip(rates) {
                let ours = 1e3 * schedule.rate(step);
                assert!((ours - rate).abs() < 6e-8, "{kind:?} step {step}: {ours}, not {rate}");
            }
        }
    }

    #[test]
    fn after_the_last_step_there_is_nothing() {
        let at = |kind, step| Schedule { kind, peak: 2.0, warmup: 2, total: 6 }.rate(step);
        for kind in [ScheduleKind::Linear, ScheduleKind::COSINE, ScheduleKind::Restarts { cycles: 2.0 }] {
            assert_eq!([at(kind, 6), at(kind, 9)], [0.0, 0.0], "{kind:?}");
        }
        assert_eq!(at(ScheduleKind::Polynomial { power: 3.0, end: 0.5 }, 9), 0.5);
        assert_eq!(at(stable(None, 2, Ramp::Linear, Ramp::Linear, 0.25), 9), 0.5);
        let cold = Schedule { kind: ScheduleKind::Linear, peak: 1.0, warmup: 0, total: 4 };
        assert_eq!([cold.rate(0), cold.rate(3)], [1.0, 0.25]);
    }
}
