//! One kernel text, compiled for several instruction sets, chosen once at run time.

use duel_backend::{Error, Result};
use std::fmt;
use std::sync::OnceLock;

/// The environment variable that holds a process to one instruction set, by its [`Isa::name`].
pub const VARIABLE: &str = "DUEL_ISA";

/// Instruction sets that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// What every CPU of the architecture has.
    Baseline,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
    /// The same, and the tiles of AMX for products of bf16.
    Amx,
}

impl Isa {
    /// Every one, best last.
    const ALL: [Isa; 4] = [Isa::Baseline, Isa::Avx2, Isa::Avx512, Isa::Amx];

    /// Those of this machine, best last: the first is always there.
    pub fn available() -> Vec<Isa> {
        Isa::ALL.into_iter().filter(|isa| isa.is_here()).collect()
    }

    /// As the environment variable `DUEL_ISA` has it.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Baseline => "baseline",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Amx => "amx",
        }
    }

    fn is_here(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let avx512 = avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            match self {
                Isa::Baseline => true,
                Isa::Avx2 => avx2,
                Isa::Avx512 => avx512,
                Isa::Amx => avx512 && crate::gemm::tiles_are_here(),
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            self == Isa::Baseline
        }
    }

    /// The one that `wanted` names, or the best of this machine.
    fn choose(wanted: Option<&str>) -> Result<Isa> {
        let available = Isa::available();
        let found = match wanted {
            None | Some("") => available.last(),
            Some(name) => available.iter().find(|isa| isa.name() == name),
        };
        found.copied().ok_or_else(|| {
            let here: Vec<&str> = available.iter().map(|isa| isa.name()).collect();
            Error::NoDevice(format!(
                "{VARIABLE}={}: this machine has {}; name one of these, or unset it",
                wanted.unwrap_or_default(),
                here.join(", ")
            ))
        })
    }
}

/// As reports have it.
impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Isa::Baseline => "baseline",
            Isa::Avx2 => "AVX2",
            Isa::Avx512 => "AVX-512",
            Isa::Amx => "AVX-512 and AMX",
        })
    }
}

/// The instruction set that the kernels of this process run on: the best of the machine, or the one that the
/// environment variable `DUEL_ISA` names when it is first asked for.
///
/// # Errors
/// The variable names none of this machine's.
pub fn instruction_set() -> Result<Isa> {
    static ISA: OnceLock<Result<Isa>> = OnceLock::new();
    ISA.get_or_init(|| {
        Isa::choose(std::env::var_os(VARIABLE).map(|name| name.to_string_lossy().into_owned()).as_deref())
    })
    .clone()
}

/// As [`instruction_set`], for the kernels.
///
/// # Panics
/// Where that fails: a program asks [`instruction_set`] first.
pub fn isa() -> Isa {
    instruction_set().unwrap_or_else(|e| panic!("{e}"))
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
                $crate::simd::Isa::Avx512 | $crate::simd::Isa::Amx => unsafe { avx512::<$g>($($a),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: `isa` found these features on this CPU.
                $crate::simd::Isa::Avx2 => unsafe { avx2::<$g>($($a),*) },
                _ => body::<$g>($($a),*),
            }
        }
    )*};
}
pub(crate) use simd;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_chooses_what_the_machine_has() {
        let available = Isa::available();
        assert_eq!(available[0], Isa::Baseline);
        for isa in &available {
            assert_eq!(Isa::choose(Some(isa.name())), Ok(*isa));
        }
        assert_eq!(Isa::choose(None), Isa::choose(available.last().map(|isa| isa.name())));
        let error = Isa::choose(Some("sse9")).unwrap_err().to_string();
        assert!(error.starts_with("DUEL_ISA=sse9: this machine has baseline"), "{error}");
    }
}
