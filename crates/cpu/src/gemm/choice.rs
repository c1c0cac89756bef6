//! The micro-kernels that this machine runs.

#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};
use super::{kernel::Kernel, portable};
use crate::real::Scalar;
use crate::simd::{Isa, isa};

/// A scalar type that has micro-kernels.
pub trait HasKernel: Scalar {
    /// The best one for this machine.
    fn kernel() -> Kernel<Self>;
}

macro_rules! has_kernel {
    ($t:ty, $of_x86:ident) => {
        impl HasKernel for $t {
            fn kernel() -> Kernel<$t> {
                match isa() {
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx512 => avx512::$of_x86,
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx2 => avx2::$of_x86,
                    _ => portable::kernel(),
                }
            }
        }
    };
}
has_kernel!(f32, F32);
has_kernel!(f64, F64);

#[cfg(test)]
mod tests {
    use super::super::kernel::Dest;
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
            for (with_base, with_bias) in [(false, false), (true, false), (false, true), (true, true)] {
                let mut tile = vec![S::ZERO; mr * nr];
                let dest = Dest {
                    out: tile.as_mut_ptr(),
                    ld: nr,
                    base: if with_base { base.as_ptr() } else { std::ptr::null() },
                    base_ld: nr,
                    bias: if with_bias { bias.as_ptr() } else { std::ptr::null() },
                };
                // SAFETY: whole panels of kc and whole tiles; the caller checked the CPU features.
                unsafe { (kernel.run)(kc, a.as_ptr(), b.as_ptr(), dest) };
                for i in 0..mr {
                    for j in 0..nr {
                        let mut want: f64 =
                            (0..kc).map(|p| a[p * mr + i].to_f64() * b[p * nr + j].to_f64()).sum();
                        want += if with_base { base[i * nr + j].to_f64() } else { 0.0 };
                        want += if with_bias { bias[j].to_f64() } else { 0.0 };
                        // Products of numbers below 1: kc + 2 roundings of sums below kc + 2.
                        let bound = ((kc + 2) * (kc + 2)) as f64 * S::EPSILON;
                        assert!((tile[i * nr + j].to_f64() - want).abs() < bound, "({i},{j})");
                    }
                }
            }
            let side = kernel.transpose.side;
            let square: Vec<S> = (0..side * side).map(|i| S::of(i as f64)).collect();
            let untouched = S::of(-1.0);
            for (width, depth) in [(side, side), (1, side), (side, 1), (side - 3, side - 1)] {
                let mut out = vec![untouched; side * side];
                // SAFETY: the square and the result hold side * side elements.
                unsafe { (kernel.transpose.run)(square.as_ptr(), out.as_mut_ptr(), side, width, depth) };
                for (at, &x) in out.iter().enumerate() {
                    let (q, i) = (at / side, at % side);
                    let inside = q < depth && i < width;
                    assert_eq!(
                        x,
                        if inside { square[i * side + q] } else { untouched },
                        "column {q}, row {i}"
                    );
                }
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
