//! The micro-kernels that this machine runs.

#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};
use super::{kernel::Kernel, pairs, portable, tiles};
use crate::real::Scalar;
use crate::simd::{Isa, isa};

/// A scalar type that has micro-kernels.
pub trait HasKernel: Scalar {
    /// The best one for this machine.
    fn kernel() -> Kernel<Self>;
    /// The one for operands that are both bf16, for the type that sums of those are taken in.
    fn pairs() -> Option<Kernel<Self>>;
}

macro_rules! has_kernel {
    ($t:ty, $of_x86:ident, $pairs:expr) => {
        impl HasKernel for $t {
            fn kernel() -> Kernel<$t> {
                match isa() {
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx512 | Isa::Amx => avx512::$of_x86,
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx2 => avx2::$of_x86,
                    _ => portable::kernel(),
                }
            }
            fn pairs() -> Option<Kernel<$t>> {
                $pairs
            }
        }
    };
}
has_kernel!(f32, F32, tiles::kernel().or_else(|| Some(pairs::kernel())));
has_kernel!(f64, F64, None);

#[cfg(test)]
mod tests {
    use super::super::{kernel::Dest, soon::Soon};
    use super::*;

    fn value(i: usize) -> f64 {
        ((i * 2_654_435_761) % 1009) as f64 / 504.5 - 1.0
    }

    /// Every kernel that this machine can run, not only the one it would choose, against the plain sum, and its
    /// transposition.
    #[test]
    fn every_kernel_matches() {
        fn check<S: Scalar>(kernel: Kernel<S>) {
            let kc = 9;
            let (mr, nr) = (kernel.mr, kernel.nr);
            let a: Vec<S> = (0..mr * kc).map(|i| S::of(value(i))).collect();
            let b: Vec<S> = (0..nr * kc).map(|i| S::of(value(i + 1))).collect();
            let base: Vec<S> = (0..mr * nr).map(|i| S::of(value(i + 2))).collect();
            let bias: Vec<S> = (0..nr).map(|i| S::of(value(i + 3))).collect();
            let resumed: Vec<S> = (0..mr * nr).map(|i| S::of(value(i + 4))).collect();
            for (with_base, with_bias, resume) in
                (0..8).map(|bits| (bits & 1 > 0, bits & 2 > 0, bits & 4 > 0))
            {
                for (height, run) in (1..).zip(kernel.run) {
                    let mut tile = resumed.clone();
                    let dest = Dest {
                        out: tile.as_mut_ptr(),
                        ld: nr,
                        resume,
                        base: if with_base { base.as_ptr() } else { std::ptr::null() },
                        base_ld: nr,
                        bias: if with_bias { bias.as_ptr() } else { std::ptr::null() },
                        soon: Soon::NOTHING,
                    };
                    // SAFETY: whole panels of kc and whole tiles; the caller checked the CPU features.
                    unsafe { run(kc, a.as_ptr(), b.as_ptr(), dest) };
                    for (i, j) in (0..height).flat_map(|i| (0..nr).map(move |j| (i, j))) {
                        let mut want: f64 =
                            (0..kc).map(|p| a[p * mr + i].to_f64() * b[p * nr + j].to_f64()).sum();
                        want += if with_base { base[i * nr + j].to_f64() } else { 0.0 };
                        want += if with_bias { bias[j].to_f64() } else { 0.0 };
                        want += if resume { resumed[i * nr + j].to_f64() } else { 0.0 };
                        // Products of numbers below 1: kc + 3 roundings of sums below kc + 3.
                        let bound = ((kc + 3) * (kc + 3)) as f64 * S::EPSILON;
                        assert!((tile[i * nr + j].to_f64() - want).abs() < bound, "({i},{j})");
                    }
                    assert_eq!(tile[height * nr..], resumed[height * nr..], "a row too many");
                }
            }
            let side = kernel.transpose.side;
            let square: Vec<S> = (0..side * side).map(|i| S::of(i as f64)).collect();
            for (width, depth) in [(side, side), (1, side), (side, 1), (side - 3, side - 1)] {
                let mut out = vec![S::ZERO; side * side];
                // SAFETY: the square and the result hold side * side elements.
                unsafe {
                    (kernel.transpose.run)(square.as_ptr(), side, out.as_mut_ptr(), side, width, depth, 0)
                };
                for (q, i) in (0..depth).flat_map(|q| (0..width).map(move |i| (q, i))) {
                    assert_eq!(out[q * side + i], square[i * side + q], "column {q}, row {i}");
                }
                assert!(out[depth * side..].iter().all(|x| *x == S::ZERO), "a column too many");
            }
        }
        check(portable::kernel::<f64>());
        check(portable::kernel::<f32>());
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            check(avx2::F32);
            check(avx2::F64);
        }
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx512f") {
            check(avx512::F32);
            check(avx512::F64);
        }
    }
}
