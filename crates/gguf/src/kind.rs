//! The types of numbers that files hold.

use half::{bf16, f16};
use std::fmt;
use std::str::FromStr;

/// Type of the matrices of a file; vectors and learned positions are in single precision in all of them, as llama.cpp
/// has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outtype {
    /// Single precision.
    F32,
    /// Half precision, up to 65504.
    #[default]
    F16,
    /// The upper half of single precision.
    Bf16,
    /// Blocks of 32 numbers of 8 bits with a factor in half precision: 8.5 bits a weight.
    Q8_0,
}

impl Outtype {
    /// All of them.
    pub const ALL: [Self; 4] = [Outtype::F16, Outtype::Q8_0, Outtype::Bf16, Outtype::F32];

    /// As llama.cpp's own converter names it.
    pub fn name(self) -> &'static str {
        match self {
            Outtype::F32 => "f32",
            Outtype::F16 => "f16",
            Outtype::Bf16 => "bf16",
            Outtype::Q8_0 => "q8_0",
        }
    }

    /// llama.cpp's number of such files, `general.file_type`.
    pub(crate) fn file_type(self) -> u32 {
        match self {
            Outtype::F32 => 0,
            Outtype::F16 => 1,
            Outtype::Q8_0 => 7,
            Outtype::Bf16 => 32,
        }
    }

    /// That of a matrix with rows of `cols` numbers. What does not divide into blocks is in half precision.
    pub(crate) fn of_matrix(self, cols: usize) -> Kind {
        match self {
            Outtype::F32 => Kind::F32,
            Outtype::F16 => Kind::F16,
            Outtype::Bf16 => Kind::Bf16,
            Outtype::Q8_0 if cols.is_multiple_of(BLOCK) => Kind::Q8_0,
            Outtype::Q8_0 => Kind::F16,
        }
    }
}

impl fmt::Display for Outtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Outtype {
    type Err = String;
    fn from_str(name: &str) -> Result<Self, String> {
        let known = Self::ALL.map(Self::name);
        let found = Self::ALL.into_iter().find(|outtype| outtype.name() == name);
        found.ok_or_else(|| format!("`{name}` is none of {}", known.join(", ")))
    }
}

/// Type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    F32,
    F16,
    Bf16,
    Q8_0,
}

/// Numbers that have a factor in common.
pub(crate) const BLOCK: usize = 32;

impl Kind {
    /// As ggml counts.
    pub(crate) fn number(self) -> u32 {
        match self {
            Kind::F32 => 0,
            Kind::F16 => 1,
            Kind::Q8_0 => 8,
            Kind::Bf16 => 30,
        }
    }

    /// Bytes of so many numbers, whole blocks of them.
    pub(crate) fn bytes(self, numbers: usize) -> usize {
        match self {
            Kind::F32 => 4 * numbers,
            Kind::F16 | Kind::Bf16 => 2 * numbers,
            Kind::Q8_0 => numbers / BLOCK * (2 + BLOCK),
        }
    }

    /// Appends numbers, each rounded once. The error is the first that the type does not hold.
    pub(crate) fn write(self, numbers: &[f32], to: &mut Vec<u8>) -> Result<(), f32> {
        match self {
            Kind::F32 => numbers.iter().for_each(|x| to.extend(x.to_le_bytes())),
            Kind::Bf16 => numbers.iter().for_each(|x| to.extend(bf16::from_f32(*x).to_le_bytes())),
            Kind::F16 => {
                for &x in numbers {
                    to.extend(held(x)?.to_le_bytes());
                }
            }
            Kind::Q8_0 => {
                for block in numbers.as_chunks::<BLOCK>().0 {
                    write_block(block, to)?;
                }
            }
        }
        Ok(())
    }
}

/// A number in half precision, if it is one there.
fn held(x: f32) -> Result<f16, f32> {
    Some(f16::from_f32(x)).filter(|half| half.is_finite()).ok_or(x)
}

/// A block as ggml's quantize_row_q8_0_ref makes it: the factor is the largest magnitude over 127.
fn write_block(block: &[f32; BLOCK], to: &mut Vec<u8>) -> Result<(), f32> {
    let largest = block.iter().fold(0f32, |most, x| most.max(x.abs()));
    let factor = largest / 127.0;
    let inverse = if factor > 0.0 { 1.0 / factor } else { 0.0 };
    to.extend(held(factor)?.to_le_bytes());
    to.extend(block.iter().map(|x| (x * inverse).round() as i8 as u8));
    Ok(())
}
