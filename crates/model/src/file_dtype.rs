//! The types that files hold a model's weights in.

use crate::shards::element;
use duel_backend::{Dtype, Float};
use half::{bf16, f16};
use safetensors::Dtype as InFile;
use std::borrow::Cow;

/// Type of a model's weights in its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileDtype {
    /// Half precision, up to 65504.
    Float16,
    /// The upper half of single precision.
    Bfloat16,
    /// Single precision.
    Float32,
    /// Double precision.
    Float64,
}

impl FileDtype {
    /// That of weights as a backend computes with them.
    pub fn of<T: Float>() -> Self {
        match T::DTYPE {
            Dtype::Bf16 => FileDtype::Bfloat16,
            Dtype::F64 => FileDtype::Float64,
            _ => FileDtype::Float32,
        }
    }

    /// Its name, as configs have it.
    pub fn name(self) -> &'static str {
        match self {
            FileDtype::Float16 => "float16",
            FileDtype::Bfloat16 => "bfloat16",
            FileDtype::Float32 => "float32",
            FileDtype::Float64 => "float64",
        }
    }

    /// As safetensors has it.
    pub(crate) fn in_file(self) -> InFile {
        match self {
            FileDtype::Float16 => InFile::F16,
            FileDtype::Bfloat16 => InFile::BF16,
            FileDtype::Float32 => InFile::F32,
            FileDtype::Float64 => InFile::F64,
        }
    }

    /// That of a tensor; `None` where weights are never held so.
    pub(crate) fn from_file(dtype: InFile) -> Option<Self> {
        [FileDtype::Float16, FileDtype::Bfloat16, FileDtype::Float32, FileDtype::Float64]
            .into_iter()
            .find(|own| own.in_file() == dtype)
    }

    /// Bytes of a number.
    pub(crate) fn size(self) -> usize {
        match self {
            FileDtype::Float16 | FileDtype::Bfloat16 => 2,
            FileDtype::Float32 => 4,
            FileDtype::Float64 => 8,
        }
    }

    /// The same numbers from this type in that of `to`, each rounded once to the nearest.
    ///
    /// # Errors
    /// A number that is finite here is not there: what is wrong, and what to do.
    pub(crate) fn convert(self, to: FileDtype, bytes: Cow<'_, [u8]>) -> Result<Cow<'_, [u8]>, String> {
        if self == to {
            return Ok(bytes);
        }
        let mut converted = Vec::with_capacity(bytes.len() / self.size() * to.size());
        for number in bytes.chunks_exact(self.size()) {
            let x = element(number, self.in_file());
            let written = to.write(x, &mut converted);
            if x.is_finite() && !written.is_finite() {
                return Err(format!(
                    "the weight {x} is beyond what {} holds; save in float32 (--save-dtype float32)",
                    to.name()
                ));
            }
        }
        Ok(converted.into())
    }

    /// Appends a number, and returns what it has become.
    fn write(self, x: f64, bytes: &mut Vec<u8>) -> f64 {
        match self {
            FileDtype::Float16 => {
                let x = f16::from_f32(for_less(x));
                bytes.extend(x.to_le_bytes());
                x.to_f64()
            }
            FileDtype::Bfloat16 => {
                let x = bf16::from_f32(for_less(x));
                bytes.extend(x.to_le_bytes());
                x.to_f64()
            }
            FileDtype::Float32 => {
                bytes.extend((x as f32).to_le_bytes());
                (x as f32).into()
            }
            FileDtype::Float64 => {
                bytes.extend(x.to_le_bytes());
                x
            }
        }
    }
}

/// A number from which one of fewer bits is rounded to as if from `x`: the nearest towards 0, whose last bit says that
/// something is behind it. (`half` drops the last bits of an f64, and what lies a little above the middle of two
/// neighbours goes down.)
fn for_less(x: f64) -> f32 {
    let near = x as f32;
    if f64::from(near) == x || !near.is_finite() {
        return near;
    }
    let towards_0 = near.to_bits() - u32::from(f64::from(near).abs() > x.abs());
    f32::from_bits(towards_0 | 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_once_to_the_nearest() {
        let bytes = |all: &[f32]| all.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        // In bfloat16 the neighbours of 1 are 1/128 apart: half-way goes to the even one, a little more goes up.
        let numbers = [1.0, -2.5, 1.0 + 1.0 / 256.0, 1.0 + 1.0 / 256.0 + 1e-6];
        let kept = FileDtype::Float32.convert(FileDtype::Bfloat16, bytes(&numbers).into()).unwrap();
        let back = FileDtype::Bfloat16.convert(FileDtype::Float32, kept).unwrap();
        assert_eq!(*back, bytes(&[1.0, -2.5, 1.0, 1.0 + 1.0 / 128.0]));
        // An f64 that rounds to an f32 half-way between two of them, but lies above it.
        let above = (1.0 + 1.0 / 256.0 + 1e-12f64).to_le_bytes().to_vec();
        let kept = FileDtype::Float64.convert(FileDtype::Bfloat16, above.into()).unwrap();
        assert_eq!(*kept, bf16::from_f32(1.0 + 1.0 / 128.0).to_le_bytes());
        let half =
            FileDtype::Float32.convert(FileDtype::Float16, bytes(&[65504.0, f32::NAN]).into()).unwrap();
        assert_eq!(half[..2], f16::MAX.to_le_bytes());
        let error = FileDtype::Float32.convert(FileDtype::Float16, bytes(&[1.0, 7e4]).into()).unwrap_err();
        assert!(error.contains("70000") && error.contains("float16"), "{error}");
    }
}
