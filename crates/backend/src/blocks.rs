use crate::{Float, Result, Storage};
use half::bf16;

/// A matrix `w[rows, cols]` of 8-bit numbers with a scale for each [`Blocks::BLOCK`] consecutive columns of a row:
/// `w ≈ q s`.
///
/// `s` is the largest magnitude of the block over 127, rounded up to bf16, and `q` is `w / s` rounded to nearest, so
/// `|w - q s| <= s / 2`: at most 0.4 % of the largest magnitude in the block. A result of a product with `x` is off by
/// at most the sum over the blocks of `s / 2` times the sum of `|x|` there, beside the roundings that it has with any
/// weights. `q s` has 15 bits and is exact in float32 (below 2^127), so a product is, to the bit, that of the matrix
/// which [`Blocks::to_f32`] gives.
///
/// In memory [`Blocks::LANES`] rows lie side by side, filled up with zeros behind the last: value `(r, c)` is number
/// `(r / 16 · cols + c) · 16 + r % 16`, its scale number `(r / 16 · blocks + c / 32) · 16 + r % 16`, with
/// `blocks = ceil(cols / 32)`. The last block of a row may be shorter. That is 8.5 bits a weight.
pub struct Blocks<B: Storage> {
    values: B::Buf<i8>,
    scales: B::Buf<bf16>,
    rows: usize,
    cols: usize,
}

impl<B: Storage> Blocks<B> {
    /// Columns that share a scale.
    pub const BLOCK: usize = 32;
    /// Rows that lie side by side.
    pub const LANES: usize = 16;

    /// The blocks of a dense matrix.
    ///
    /// # Errors
    /// The device has no room for them.
    ///
    /// # Panics
    /// When the matrix has not `rows` rows of `cols` elements, or one that is not finite.
    pub fn of<R: Float>(b: &B, matrix: &[R], rows: usize, cols: usize) -> Result<Self> {
        assert_eq!(matrix.len(), rows * cols, "{rows} rows of {cols}");
        let mut values = vec![0; rows.next_multiple_of(Self::LANES) * cols];
        let mut scales = vec![bf16::ZERO; rows.next_multiple_of(Self::LANES) * Self::across(cols)];
        for r in 0..rows {
            let row = &matrix[r * cols..][..cols];
            for (block, weights) in row.chunks(Self::BLOCK).enumerate() {
                let scale = scale(weights);
                // Not the inverse of 0: all weights are 0 then.
                let inverse = 1.0 / scale.to_f64().max(f64::MIN_POSITIVE);
                scales[Self::scale_at(cols, r, block * Self::BLOCK)] = scale;
                for (c, weight) in (block * Self::BLOCK..).zip(weights) {
                    values[Self::value_at(cols, r, c)] = (weight.to_f64() * inverse).round() as i8;
                }
            }
        }
        let mut blocks =
            Blocks { values: b.alloc(values.len())?, scales: b.alloc(scales.len())?, rows, cols };
        b.upload(&mut blocks.values, 0, &values);
        b.upload(&mut blocks.scales, 0, &scales);
        Ok(blocks)
    }

    /// Outputs of the map, and its inputs.
    pub fn dims(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    /// The 8-bit numbers.
    pub fn values(&self) -> &B::Buf<i8> {
        &self.values
    }

    /// The scales.
    pub fn scales(&self) -> &B::Buf<bf16> {
        &self.scales
    }

    /// Bytes that such a matrix takes on the device.
    pub fn size(rows: usize, cols: usize) -> usize {
        rows.next_multiple_of(Self::LANES) * (cols + Self::across(cols) * size_of::<bf16>())
    }

    /// The matrix that these blocks are, exactly: dense, on the host.
    ///
    /// # Errors
    /// The device failed.
    pub fn to_f32(&self, b: &B) -> Result<Vec<f32>> {
        let mut values = vec![0; b.len(&self.values)];
        let mut scales = vec![bf16::ZERO; b.len(&self.scales)];
        b.download(&mut values, &self.values, 0)?;
        b.download(&mut scales, &self.scales, 0)?;
        let of = |r, c| {
            let scale = scales[Self::scale_at(self.cols, r, c)].to_f32();
            f32::from(values[Self::value_at(self.cols, r, c)]) * scale
        };
        Ok((0..self.rows).flat_map(|r| (0..self.cols).map(move |c| (r, c))).map(|(r, c)| of(r, c)).collect())
    }

    /// Blocks of a row.
    fn across(cols: usize) -> usize {
        cols.div_ceil(Self::BLOCK)
    }

    fn value_at(cols: usize, r: usize, c: usize) -> usize {
        (r / Self::LANES * cols + c) * Self::LANES + r % Self::LANES
    }

    fn scale_at(cols: usize, r: usize, c: usize) -> usize {
        (r / Self::LANES * Self::across(cols) + c / Self::BLOCK) * Self::LANES + r % Self::LANES
    }
}

/// The largest magnitude over 127, rounded up: no weight over it is above 127.
fn scale<R: Float>(weights: &[R]) -> bf16 {
    let most = weights.iter().fold(0.0f64, |most, w| {
        let size = w.to_f64().abs();
        assert!(size.is_finite(), "a weight is not a finite number");
        most.max(size)
    });
    let exact = most / 127.0;
    let below = bf16::from_bits(((exact as f32).to_bits() >> 16) as u16);
    if below.to_f64() < exact { bf16::from_bits(below.to_bits() + 1) } else { below }
}
