use crate::{Float, Result, Storage};
use half::bf16;

/// Bits of a number in [`Blocks`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bits {
    /// From 0 to 15, above a minimum.
    Four,
    /// From -127 to 127.
    Eight,
}

impl Bits {
    /// Numbers that a byte holds.
    pub const fn per_byte(self) -> usize {
        match self {
            Bits::Four => 2,
            Bits::Eight => 1,
        }
    }

    /// Numbers in bf16 that a block has beside these.
    pub const fn factors(self) -> usize {
        match self {
            Bits::Four => 2,
            Bits::Eight => 1,
        }
    }
}

/// A matrix `w[rows, cols]` of numbers of 8 or of 4 bits, with factors for each [`Blocks::BLOCK`] consecutive columns
/// of a row.
///
/// Of 8 bits `w ≈ q s`: `s` is the largest magnitude of the block over 127, rounded up to bf16, and `q` is `w / s`
/// rounded to nearest, so `|w - q s| <= s / 2`: at most 0.4 % of the largest magnitude in the block. `q s` has 15 bits
/// and is exact in float32 (below 2^127).
///
/// Of 4 bits `w ≈ q s + m`: `m` is the least weight of the block, rounded down to bf16 (by at most `2^-7 |m|`), `s` is
/// the distance from `m` to the largest over 15, rounded up to bf16 (by at most `2^-7 s`), and `q` is `(w - m) / s`
/// rounded to nearest, so `|w - (q s + m)| <= s / 2`: about a thirtieth of the distance from the least weight to the
/// largest. `q s` is exact in float32, and the matrix is `q s + m` rounded to float32 once, whether or not a device
/// adds in the same instruction as it multiplies.
///
/// A result of a product with `x` is off by at most the sum over the blocks of `s / 2` times the sum of `|x|` there,
/// beside the roundings that it has with any weights: a product is, to the bit, that of the matrix which
/// [`Blocks::to_f32`] gives.
///
/// In memory [`Blocks::LANES`] rows lie side by side, filled up with zeros behind the last. Of 8 bits value `(r, c)` is
/// byte `(r / 16 · cols + c) · 16 + r % 16`; of 4 bits values `c` and `c + 1`, of an even `c`, are the lower and the
/// upper half of byte `(r / 16 · ceil(cols / 2) + c / 2) · 16 + r % 16`. Scales are number `(r / 16 · blocks + c / 32)
/// · 16 n + r % 16` with `blocks = ceil(cols / 32)`, `n = 1` of 8 bits; of 4 bits `n = 2`, and minima lie 16 behind
/// their scales. The last block of a row may be shorter. That is 8.5 or 5 bits a weight.
pub struct Blocks<B: Storage> {
    bits: Bits,
    values: B::Buf<i8>,
    factors: B::Buf<bf16>,
    rows: usize,
    cols: usize,
}

impl<B: Storage> Blocks<B> {
    /// Columns that share factors.
    pub const BLOCK: usize = 32;
    /// Rows that lie side by side.
    pub const LANES: usize = 16;

    /// A matrix of zeros.
    ///
    /// # Errors
    /// The device has no room for it.
    pub fn new(b: &B, bits: Bits, rows: usize, cols: usize) -> Result<Self> {
        let values = b.alloc(Self::values_len(bits, rows, cols))?;
        Ok(Blocks { bits, values, factors: b.alloc(Self::factors_len(bits, rows, cols))?, rows, cols })
    }

    /// The blocks of a dense matrix.
    ///
    /// # Errors
    /// The device has no room for them.
    ///
    /// # Panics
    /// When the matrix has not `rows` rows of `cols` elements, or one that is not finite.
    pub fn of<R: Float>(b: &B, bits: Bits, matrix: &[R], rows: usize, cols: usize) -> Result<Self> {
        assert_eq!(matrix.len(), rows * cols, "{rows} rows of {cols}");
        let mut blocks = Self::new(b, bits, rows, cols)?;
        blocks.fill(b, 0, matrix);
        Ok(blocks)
    }

    /// Puts rows of a dense matrix in the place of those from `first` on.
    ///
    /// # Panics
    /// When they begin or end within [`Blocks::LANES`] rows that lie side by side, and not with the last; or when one
    /// has an element that is not finite.
    pub fn fill<R: Float>(&mut self, b: &B, first: usize, rows: &[R]) {
        let (bits, cols) = (self.bits, self.cols);
        let n = rows.len() / cols.max(1);
        let whole = n.is_multiple_of(Self::LANES) || first + n == self.rows;
        assert!(first.is_multiple_of(Self::LANES) && whole, "{n} rows from row {first} on are cut");
        let mut values = vec![0i8; Self::values_len(bits, n, cols)];
        let mut factors = vec![bf16::ZERO; Self::factors_len(bits, n, cols)];
        for (r, row) in rows.chunks(cols.max(1)).enumerate() {
            for (block, weights) in row.chunks(Self::BLOCK).enumerate() {
                let at = Self::factor_at(bits, cols, r, block * Self::BLOCK);
                let (scale, least) = match bits {
                    Bits::Eight => (up(largest(weights) / 127.0), bf16::ZERO),
                    Bits::Four => {
                        let (least, most) = range(weights);
                        let least = down(least);
                        factors[at + Self::LANES] = least;
                        (up((most - least.to_f64()) / 15.0), least)
                    }
                };
                factors[at] = scale;
                // Not the inverse of 0: all weights are the least then.
                let (inverse, least) = (1.0 / scale.to_f64().max(f64::MIN_POSITIVE), least.to_f64());
                for (c, weight) in (block * Self::BLOCK..).zip(weights) {
                    let q = nearest((weight.to_f64() - least) * inverse);
                    values[Self::byte_at(bits, cols, r, c)] |= match bits {
                        Bits::Eight => q,
                        Bits::Four => q << (c % 2 * 4),
                    };
                }
            }
        }
        b.upload(&mut self.values, Self::values_len(bits, first, cols), &values);
        b.upload(&mut self.factors, Self::factors_len(bits, first, cols), &factors);
    }

    /// Bits of a number.
    pub fn bits(&self) -> Bits {
        self.bits
    }

    /// Outputs of the map, and its inputs.
    pub fn dims(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    /// The numbers, by the byte.
    pub fn values(&self) -> &B::Buf<i8> {
        &self.values
    }

    /// Scales and minima.
    pub fn factors(&self) -> &B::Buf<bf16> {
        &self.factors
    }

    /// Bytes that such a matrix takes on the device.
    pub fn size(bits: Bits, rows: usize, cols: usize) -> usize {
        Self::values_len(bits, rows, cols) + Self::factors_len(bits, rows, cols) * size_of::<bf16>()
    }

    /// The matrix that these blocks are, exactly: dense, on the host.
    ///
    /// # Errors
    /// The device failed.
    pub fn to_f32(&self, b: &B) -> Result<Vec<f32>> {
        let (bits, cols) = (self.bits, self.cols);
        let mut values = vec![0; b.len(&self.values)];
        let mut factors = vec![bf16::ZERO; b.len(&self.factors)];
        b.download(&mut values, &self.values, 0)?;
        b.download(&mut factors, &self.factors, 0)?;
        let of = |r, c| {
            let (byte, at) = (values[Self::byte_at(bits, cols, r, c)], Self::factor_at(bits, cols, r, c));
            let scale = factors[at].to_f32();
            match bits {
                Bits::Eight => f32::from(byte) * scale,
                Bits::Four => {
                    f32::from(byte.cast_unsigned() >> (c % 2 * 4) & 15) * scale
                        + factors[at + Self::LANES].to_f32()
                }
            }
        };
        Ok((0..self.rows).flat_map(|r| (0..cols).map(move |c| (r, c))).map(|(r, c)| of(r, c)).collect())
    }

    /// Bytes of the numbers of so many rows.
    fn values_len(bits: Bits, rows: usize, cols: usize) -> usize {
        rows.next_multiple_of(Self::LANES) * cols.div_ceil(bits.per_byte())
    }

    /// Factors of so many rows.
    fn factors_len(bits: Bits, rows: usize, cols: usize) -> usize {
        rows.next_multiple_of(Self::LANES) * cols.div_ceil(Self::BLOCK) * bits.factors()
    }

    fn byte_at(bits: Bits, cols: usize, r: usize, c: usize) -> usize {
        (r / Self::LANES * cols.div_ceil(bits.per_byte()) + c / bits.per_byte()) * Self::LANES
            + r % Self::LANES
    }

    fn factor_at(bits: Bits, cols: usize, r: usize, c: usize) -> usize {
        let block = r / Self::LANES * cols.div_ceil(Self::BLOCK) + c / Self::BLOCK;
        block * bits.factors() * Self::LANES + r % Self::LANES
    }
}

/// Of a block that is finite.
fn largest<R: Float>(weights: &[R]) -> f64 {
    let (least, most) = range(weights);
    most.max(-least)
}

/// The least and the largest of a block.
fn range<R: Float>(weights: &[R]) -> (f64, f64) {
    weights.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), w| {
        let w = w.to_f64();
        assert!(w.is_finite(), "a weight is not a finite number");
        (least.min(w), most.max(w))
    })
}

/// A number that is not negative, rounded up.
fn up(x: f64) -> bf16 {
    let below = bf16::from_bits(((x as f32).to_bits() >> 16) as u16);
    if below.to_f64() < x { bf16::from_bits(below.to_bits() + 1) } else { below }
}

/// Rounded down: no weight is below the least.
fn down(x: f64) -> bf16 {
    if x < 0.0 {
        return -up(-x);
    }
    let near = bf16::from_bits(((x as f32).to_bits() >> 16) as u16);
    if near.to_f64() > x { bf16::from_bits(near.to_bits() - 1) } else { near }
}

/// The nearest whole number to one of at most 127 in magnitude, without a branch or a call.
fn nearest(x: f64) -> i8 {
    // Added to it, a number has no bits left for a fraction.
    const WHOLE: f64 = 6_755_399_441_055_744.0;
    ((x + WHOLE) - WHOLE) as i8
}
