//! One kernel text, compiled for several instruction sets, chosen once at run time.

use std::sync::OnceLock;

/// Instruction sets that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// What every CPU of the architecture has.
    Baseline,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
}

/// The best instruction set of this machine.
pub fn isa() -> Isa {
    static ISA: OnceLock<Isa> = OnceLock::new();
    *ISA.get_or_init(|| {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            if avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
            {
                return Isa::Avx512;
            }
            if avx2 {
                return Isa::Avx2;
            }
        }
        Isa::Baseline
    })
}

/// Defines functions whose bodies are compiled once per instruction set; the call picks the machine's.
///
/// The bodies may use wider registers but no fused multiply-add (Rust never contracts), so every instruction
/// set gives the same bits.
macro_rules! simd {
    ($($(#[$doc:meta])* pub fn $name:ident<$g:ident: $bound:ident>($($a:ident: $t:ty),* $(,)?) $(-> $r:ty)? $body:block)*) => {$(
        $(#[$doc])*
        pub fn $name<$g: $bound>($($a: $t),*) $(-> $r)? {
            #[inline(always)]
            fn body<$g: $bound>($($a: $t),*) $(-> $r)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
            fn avx512<$g: $bound>($($a: $t),*) $(-> $r)? {
                body::<$g>($($a),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2<$g: $bound>($($a: $t),*) $(-> $r)? {
                body::<$g>($($a),*)
            }
            match $crate::simd::isa() {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: `isa` found these features on this CPU.
                $crate::simd::Isa::Avx512 => unsafe { avx512::<$g>($($a),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: `isa` found these features on this CPU.
                $crate::simd::Isa::Avx2 => unsafe { avx2::<$g>($($a),*) },
                _ => body::<$g>($($a),*),
            }
        }
    )*};
}
pub(crate) use simd;
