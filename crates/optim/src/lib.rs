#![doc = include_str!("../README.md")]

mod schedule;

use duel_backend::{Acc, AdamW, Backend, Real, Result, Rmsprop};
pub use schedule::{Ramp, Schedule, ScheduleKind};

/// Which update rule, with what stays the same over a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Algorithm {
    /// AdamW (Loshchilov & Hutter, 2019).
    AdamW {
        /// Decay of the first moment.
        beta1: f64,
        /// Decay of the second moment.
        beta2: f64,
        /// Added to the root of the second moment.
        eps: f64,
        /// Decoupled weight decay, on the parameters that decay.
        weight_decay: f64,
    },
    /// RMSprop (Tieleman & Hinton, 2012), as the DPO authors train.
    Rmsprop {
        /// Decay of the mean square.
        alpha: f64,
        /// Added to the root of the mean square.
        eps: f64,
        /// L2 penalty, on the parameters that decay.
        weight_decay: f64,
    },
}

impl Algorithm {
    /// Buffers of moments for each parameter.
    pub fn moments(&self) -> usize {
        match self {
            Algorithm::AdamW { .. } => 2,
            Algorithm::Rmsprop { .. } => 1,
        }
    }
}

/// A parameter's moments and master, and whether weight decay is for it.
struct State<B: Backend> {
    moments: Vec<Acc<B>>,
    master: Option<Acc<B>>,
    decays: bool,
}

/// Optimizer state over a list of parameters; every call passes the parameters in the same order.
pub struct Optimizer<B: Backend> {
    algorithm: Algorithm,
    steps: u64,
    states: Vec<State<B>>,
}

impl<B: Backend> Optimizer<B> {
    /// Zeroed state for parameters of the given lengths; `true` marks those that weight decay is for.
    pub fn new(
        b: &B,
        algorithm: Algorithm,
        parameters: impl IntoIterator<Item = (usize, bool)>,
    ) -> Result<Self> {
        let state = |(len, decays)| -> Result<State<B>> {
            let moments = (0..algorithm.moments()).map(|_| b.alloc(len)).collect::<Result<_>>()?;
            Ok(State { moments, master: None, decays })
        };
        let states = parameters.into_iter().map(state).collect::<Result<_>>()?;
        Ok(Optimizer { algorithm, steps: 0, states })
    }

    /// Whether weights are stored with fewer digits than sums: an update of less than their last digit would be lost
    /// without masters.
    pub fn needs_masters() -> bool {
        size_of::<B::Real>() < size_of::<B::Acc>()
    }

    /// The same with a master of every parameter: its weights in the precision of sums, which the updates go to from
    /// here on. The weights that [`Optimizer::step`] is given become their rounding.
    ///
    /// # Panics
    /// When there are not as many masters as parameters.
    pub fn with_masters(mut self, masters: Vec<Acc<B>>) -> Self {
        assert_eq!(masters.len(), self.states.len(), "one master a parameter");
        self.states.iter_mut().zip(masters).for_each(|(s, master)| s.master = Some(master));
        self
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// One update at the rate `lr`, with gradients multiplied by `grad_scale` first (the clip).
    ///
    /// # Panics
    /// When there are not as many weights and gradients as parameters.
    pub fn step(&mut self, b: &B, weights: Vec<&mut Real<B>>, grads: Vec<&Acc<B>>, lr: f64, grad_scale: f64) {
        assert!(
            weights.len() == self.states.len() && grads.len() == self.states.len(),
            "one of each a parameter"
        );
        self.steps += 1;
        for ((w, g), s) in weights.into_iter().zip(grads).zip(&mut self.states) {
            let decay = |d: f64| if s.decays { d } else { 0.0 };
            let master = s.master.as_mut();
            match (self.algorithm, s.moments.as_mut_slice()) {
                (Algorithm::AdamW { beta1, beta2, eps, weight_decay }, [m, v]) => {
                    let weight_decay = decay(weight_decay);
                    let hyper = AdamW { lr, beta1, beta2, eps, weight_decay, step: self.steps, grad_scale };
                    b.adamw(w, master, m, v, g, hyper);
                }
                (Algorithm::Rmsprop { alpha, eps, weight_decay }, [v]) => {
                    let weight_decay = decay(weight_decay);
                    b.rmsprop(w, master, v, g, Rmsprop { lr, alpha, eps, weight_decay, grad_scale });
                }
                _ => unreachable!("moments are allocated by the algorithm"),
            }
        }
    }

    /// Every buffer of the state by its name in a checkpoint, in a fixed order.
    pub fn state(&self) -> Vec<(String, &Acc<B>)> {
        let moments = self.states.iter().flat_map(|s| &s.moments);
        let masters = self.states.iter().filter_map(|s| s.master.as_ref());
        named("moment", moments).chain(named("master", masters)).collect()
    }

    /// Continues from a checkpoint: as [`Optimizer::state`], to write to, with the steps taken so far.
    pub fn restore(&mut self, steps: u64) -> Vec<(String, &mut Acc<B>)> {
        self.steps = steps;
        let (mut moments, mut masters) = (Vec::new(), Vec::new());
        for s in &mut self.states {
            moments.extend(&mut s.moments);
            masters.extend(&mut s.master);
        }
        named("moment", moments).chain(named("master", masters)).collect()
    }
}

fn named<T>(kind: &str, buffers: impl IntoIterator<Item = T>) -> impl Iterator<Item = (String, T)> {
    buffers.into_iter().enumerate().map(move |(i, buf)| (format!("{kind}.{i}"), buf))
}

/// Factor that clips a gradient of norm `norm` to `max_norm` (0: never), as PyTorch computes it.
pub fn clip_scale(norm: f64, max_norm: f64) -> f64 {
    if max_norm > 0.0 { (max_norm / (norm + 1e-6)).min(1.0) } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use duel_cpu::Cpu;
    use half::bf16;

    /// Both rules against their textbook form, ten steps on a parabola.
    #[test]
    fn updates_match_their_equations() {
        let b = Cpu::<f64>::new(1);
        let target = [3.0, -1.0, 0.5];
        let (lr, decay) = (0.1, 0.02);
        let adam = Algorithm::AdamW { beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: decay };
        let rms = Algorithm::Rmsprop { alpha: 0.9, eps: 1e-8, weight_decay: decay };
        for (algorithm, decays) in [(adam, true), (adam, false), (rms, true), (rms, false)] {
            let mut o = Optimizer::new(&b, algorithm, [(3, decays)]).unwrap();
            let mut w = vec![0.0; 3];
            let (mut want, mut m, mut v) = ([0.0f64; 3], [0.0f64; 3], [0.0f64; 3]);
            let wd = if decays { decay } else { 0.0 };
            for t in 1..=10 {
                let g: Vec<f64> = (0..3).map(|i| w[i] - target[i]).collect();
                o.step(&b, vec![&mut w], vec![&g], lr, 0.5);
                for i in 0..3 {
                    let mut g = (want[i] - target[i]) * 0.5;
                    if algorithm == adam {
                        want[i] -= lr * wd * want[i];
                        m[i] = 0.9 * m[i] + 0.1 * g;
                        v[i] = 0.99 * v[i] + 0.01 * g * g;
                        let (mh, vh) = (m[i] / (1.0 - 0.9f64.powi(t)), v[i] / (1.0 - 0.99f64.powi(t)));
                        want[i] -= lr * mh / (vh.sqrt() + 1e-8);
                    } else {
                        g += wd * want[i];
                        v[i] = 0.9 * v[i] + 0.1 * g * g;
                        want[i] -= lr * g / (v[i].sqrt() + 1e-8);
                    }
                    assert!((w[i] - want[i]).abs() < 1e-12, "{algorithm:?} step {t}: {} {}", w[i], want[i]);
                }
            }
        }
    }

    /// With masters, bf16 weights follow the f32 run to their own rounding; without, they do not move at all, since
    /// each update is less than half their last digit.
    #[test]
    fn masters_keep_what_bf16_would_lose() {
        let (narrow, wide) = (Cpu::<bf16>::new(1), Cpu::<f32>::new(1));
        let adam = Algorithm::AdamW { beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.0 };
        let rms = Algorithm::Rmsprop { alpha: 0.9, eps: 1e-8, weight_decay: 0.0 };
        for algorithm in [adam, rms] {
            let start = [1.0f32, -2.0, 0.5];
            let (mut exact, mut with) = (start.to_vec(), start.map(bf16::from_f32).to_vec());
            let mut without = with.clone();
            let parameters = [(3, false)];
            let mut o = Optimizer::new(&wide, algorithm, parameters).unwrap();
            let mut masters =
                Optimizer::new(&narrow, algorithm, parameters).unwrap().with_masters(vec![start.to_vec()]);
            let mut none = Optimizer::new(&narrow, algorithm, parameters).unwrap();
            for _ in 0..50 {
                let g = vec![1.0f32, -1.0, 1.0];
                o.step(&wide, vec![&mut exact], vec![&g], 1e-4, 1.0);
                masters.step(&narrow, vec![&mut with], vec![&g], 1e-4, 1.0);
                none.step(&narrow, vec![&mut without], vec![&g], 1e-4, 1.0);
            }
            assert_eq!(with, exact.iter().map(|&x| bf16::from_f32(x)).collect::<Vec<_>>());
            let (name, master) = masters.state().pop().unwrap();
            assert_eq!((name.as_str(), master), ("master.0", &exact));
            assert_ne!(with[0].to_f32(), 1.0);
            assert_eq!(without, start.map(bf16::from_f32));
        }
    }

    #[test]
    fn clip() {
        assert_eq!(clip_scale(0.5, 1.0), 1.0);
        assert_eq!(clip_scale(100.0, 0.0), 1.0);
        assert!((clip_scale(4.0, 1.0) - 0.25).abs() < 1e-6);
    }
}
