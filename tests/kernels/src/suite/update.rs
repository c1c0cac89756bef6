//! Optimizer steps.

use super::check_both;
use crate::{Bench, Devices, Operation};
use duel_backend::{AdamW, Backend, Rmsprop, Storage, Update};
use duel_cuda::{Buffer, Cuda, CudaReal, Driver, Rounding};
use duel_tests::host;
use half::bf16;

const ADAMW: AdamW =
    AdamW { lr: 1e-2, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1, step: 1, grad_scale: 0.3 };
const RMSPROP: Rmsprop = Rmsprop { lr: 1e-2, alpha: 0.99, eps: 1e-8, weight_decay: 0.1, grad_scale: 0.3 };

/// Both rules for three steps from zero moments, each with another gradient.
struct Steps {
    len: usize,
    scale: f64,
    /// Whether the weights have masters.
    masters: bool,
}

impl Operation for Steps {
    fn name(&self) -> String {
        let Steps { len, scale, masters } = self;
        format!("three optimizer steps of {len} weights, gradients to {scale:e}, masters: {masters}")
    }

    fn run<B: Backend>(&self, b: &B, bench: &mut Bench) {
        let Steps { len, scale, masters } = *self;
        let zeros = || b.alloc::<B::Acc>(len).expect("room for a test");
        let (mut w, mut m, mut v) = (bench.real(b, len, 1.0), zeros(), zeros());
        let (mut rms_w, mut rms_v) = (bench.real(b, len, 1.0), zeros());
        // Masters that the weights are no rounding of: only they may be updated.
        let mut master = masters.then(|| [bench.acc(b, len, 1.0), bench.acc(b, len, 1.0)]);
        for step in 1..=3 {
            let g = bench.acc(b, len, scale);
            let [adam_master, rms_master] = match &mut master {
                Some([adam, rms]) => [Some(adam), Some(rms)],
                None => [None, None],
            };
            b.adamw(&mut w, adam_master, &mut m, &mut v, &g, AdamW { step, ..ADAMW });
            b.rmsprop(&mut rms_w, rms_master, &mut rms_v, &g, RMSPROP);
        }
        bench.changed(b, "adamw w", &w, len);
        bench.changed(b, "adamw m", &m, len);
        bench.changed(b, "adamw v", &v, len);
        bench.changed(b, "rmsprop w", &rms_w, len);
        bench.changed(b, "rmsprop v", &rms_v, len);
        for (name, master) in ["adamw master", "rmsprop master"].into_iter().zip(master.iter().flatten()) {
            bench.changed(b, name, master, len);
        }
    }
}

/// `adamw` and `rmsprop`.
pub fn optimizers(devices: &impl Devices) {
    // One weight, the rest after whole packs, more than the grid takes at once, gradients tiny and huge.
    for (len, scale) in [(1, 1.0), (7, 1.0), (8, 1.0), (1037, 1.0), (40_003, 1.0), (100, 1e-12), (100, 1e15)]
    {
        for masters in [false, true] {
            check_both(devices, &Steps { len, scale, masters });
        }
    }
}

/// A buffer with these values.
fn upload<D: Driver, R: CudaReal, T: duel_backend::Element>(
    b: &Cuda<D, R>,
    values: &[T],
) -> Buffer<D::Memory, T> {
    let mut buf = b.alloc(values.len()).expect("room for a test");
    b.upload(&mut buf, 0, values);
    buf
}

/// Steps whose clip stays on the device are those of the clip that the host computes.
pub fn clipped_steps(devices: &impl Devices) {
    fn check<R: CudaReal>(devices: &impl Devices, max_norm: f64) {
        let len = 1037;
        for driver in devices.devices() {
            let b = Cuda::<_, R>::new(driver);
            let mut bench = Bench::new::<R>();
            let w = bench.real(&b, len, 1.0);
            let grads = [bench.acc(&b, len, 1.0), bench.acc(&b, 5, 1.0)];
            let squares = b.square_sums(&grads.each_ref()).expect("nothing went wrong");
            let norm = squares.iter().sum::<f64>().sqrt();
            let expected = if max_norm > 0.0 { (max_norm / (norm + 1e-6)).min(1.0) } else { 1.0 };

            let mut sums = upload(&b, &[f64::NAN; 2]);
            let mut clip = upload(&b, &[f32::NAN]);
            for (i, g) in grads.iter().enumerate() {
                b.square_sum(&mut sums, i, g);
            }
            b.clip_scale(&mut clip, &sums, 2, max_norm);
            let mut got = [0.0f32];
            b.download(&mut got, &clip, 0).expect("nothing went wrong");
            assert_eq!(got[0], expected as f32, "clip of a norm of {norm} to {max_norm} on {}", b.describe());

            let run = |on_device: bool| {
                let [mut m, mut v, mut rms_v] = [(); 3].map(|()| upload(&b, &vec![0.0f32; len]));
                let [mut adam, mut rms] = [(); 2].map(|()| upload(&b, &vec![R::default(); len]));
                b.copy(&mut adam, &w, len);
                b.copy(&mut rms, &w, len);
                let g = &grads[0];
                if on_device {
                    let (a, r) = (AdamW { grad_scale: 1.0, ..ADAMW }, Rmsprop { grad_scale: 1.0, ..RMSPROP });
                    b.adamw_clipped(&mut adam, None, &mut m, &mut v, g, &clip, a);
                    b.rmsprop_clipped(&mut rms, None, &mut rms_v, g, &clip, r);
                } else {
                    let grad_scale = f64::from(got[0]);
                    b.adamw(&mut adam, None, &mut m, &mut v, g, AdamW { grad_scale, ..ADAMW });
                    b.rmsprop(&mut rms, None, &mut rms_v, g, Rmsprop { grad_scale, ..RMSPROP });
                }
                [host(&b, &adam), host(&b, &rms), host(&b, &m), host(&b, &v), host(&b, &rms_v)]
            };
            assert!(run(true) == run(false), "clipped steps on {}", b.describe());
        }
    }
    for max_norm in [0.5, 1e9, 0.0] {
        check::<f32>(devices, max_norm);
    }
    check::<bf16>(devices, 0.5);
}

/// Weights of 1 after one step of `1 + update` each, then a NaN and two infinities.
fn rounded_updates<D: Driver>(b: &Cuda<D, bf16>, len: usize, update: f64, rounding: Rounding) -> Vec<f64> {
    let mut values = vec![bf16::ONE; len];
    values.extend([bf16::NAN, bf16::INFINITY, bf16::NEG_INFINITY]);
    let n = values.len();
    let [mut w, mut rms_w] = [(); 2].map(|()| upload(b, &values));
    let [mut m, mut v, mut rms_v] = [(); 3].map(|()| upload(b, &vec![0.0f32; n]));
    let g = upload(b, &vec![-1.0f32; n]);
    b.set_rounding(rounding);
    // Without memory the step of both rules is lr times the sign of the gradient.
    let adamw =
        AdamW { lr: update, beta1: 0.0, beta2: 0.0, eps: 0.0, weight_decay: 0.0, step: 1, grad_scale: 1.0 };
    b.adamw(&mut w, None, &mut m, &mut v, &g, adamw);
    let rmsprop = Rmsprop { lr: update, alpha: 0.0, eps: 0.0, weight_decay: 0.0, grad_scale: 1.0 };
    b.rmsprop(&mut rms_w, None, &mut rms_v, &g, rmsprop);
    let (w, rms_w): (Vec<f64>, Vec<f64>) = (host(b, &w), host(b, &rms_w));
    assert!(w[..len] == rms_w[..len], "both rules round alike on {}", b.describe());
    w
}

/// Stochastic rounding of bf16 weights: to one of the two neighbours, right in the mean, the same for the same seed,
/// step and place, another one for other ones; what is not finite stays.
pub fn stochastic_rounding(devices: &impl Devices) {
    let (len, share) = (4096, 0.3);
    let unit = f64::from(bf16::EPSILON.to_f32());
    let first = Rounding::Stochastic { seed: 5, step: 1 };
    for driver in devices.devices() {
        let b = Cuda::<_, bf16>::new(driver);
        let run = |rounding| rounded_updates(&b, len, share * unit, rounding);
        let all = run(first);
        let (weights, rest) = all.split_at(len);
        assert!(weights.iter().all(|&w| w == 1.0 || w == 1.0 + unit), "a neighbour on {}", b.describe());
        let up = weights.iter().filter(|&&w| w > 1.0).count() as f64;
        // Five standard deviations of a binomial distribution.
        let bound = 5.0 * (share * (1.0 - share) * len as f64).sqrt();
        assert!((up - share * len as f64).abs() < bound, "{up} of {len} rounded up on {}", b.describe());
        assert!(rest[0].is_nan() && rest[1..] == [f64::INFINITY, f64::NEG_INFINITY], "{rest:?}");

        assert!(run(first)[..len] == *weights, "the same bits again");
        let shorter = rounded_updates(&b, 1037, share * unit, first);
        assert!(shorter[..1037] == weights[..1037], "whatever else is in the buffer");
        for other in [Rounding::Stochastic { seed: 5, step: 2 }, Rounding::Stochastic { seed: 6, step: 1 }] {
            // Independent draws agree in this many places, give or take.
            let same = run(other)[..len].iter().zip(weights).filter(|(a, b)| a == b).count() as f64;
            let agree = share * share + (1.0 - share) * (1.0 - share);
            let bound = 5.0 * (agree * (1.0 - agree) * len as f64).sqrt();
            assert!(
                (same - agree * len as f64).abs() < bound,
                "{same} of {len} bits alike on {}",
                b.describe()
            );
        }
        assert!(run(Rounding::Nearest)[..len].iter().all(|&w| w == 1.0), "to nearest on {}", b.describe());
    }
}
