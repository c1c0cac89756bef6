//! A head of one output: what a response is worth.

use super::gathered::Gathered;
use duel_backend::{Acc, Backend, Float, Gemm, Measure, Portions, Real, Result, Storage, Weight};

/// The buffers of a head of one output, `value = hidden · w`, on chosen rows of a packed batch: a product with `n = 1`.
pub struct ScalarHead<B: Storage> {
    capacity: usize,
    /// From one value to the next: devices want their rows aligned.
    stride: usize,
    taken: Gathered<B>,
    values: Real<B>,
    host: Vec<B::Real>,
}

impl<B: Storage> ScalarHead<B> {
    fn on(b: &B, portions: Portions, width: usize, capacity: usize) -> Result<Self> {
        let stride = portions.logits_multiple;
        Ok(ScalarHead {
            capacity,
            stride,
            taken: Gathered::new(b, width, capacity)?,
            values: b.alloc(capacity * stride)?,
            host: vec![B::Real::default(); capacity * stride],
        })
    }

    /// Bytes that [`ScalarHead::new`] allocates on a device of such portions, and on the host.
    pub fn bytes(portions: Portions, width: usize, capacity: usize) -> usize {
        let host = size_of::<B::Real>() * capacity * portions.logits_multiple;
        host + Measure::<B>::bytes(|b| ScalarHead::on(b, portions, width, capacity))
    }
}

impl<B: Backend> ScalarHead<B> {
    /// A head over hidden states of `width`, with room for `capacity` rows at a time.
    ///
    /// # Errors
    /// The device has no room.
    pub fn new(b: &B, width: usize, capacity: usize) -> Result<Self> {
        Self::on(b, b.portions(), width, capacity)
    }

    fn dims(&self, rows: usize) -> Gemm {
        Gemm { m: rows, n: 1, k: self.taken.width, stride: self.stride }
    }

    /// The values of the rows `rows` of `hidden`, given the weight `w[1, width]`. Fails when the device did.
    pub fn values<'w>(
        &mut self,
        b: &B,
        w: impl Into<Weight<'w, B>>,
        hidden: &Real<B>,
        rows: &[u32],
    ) -> Result<Vec<f64>> {
        let w = w.into();
        let mut values = Vec::with_capacity(rows.len());
        for part in rows.chunks(self.capacity) {
            self.taken.take(b, hidden, part);
            let dims = self.dims(part.len());
            b.gemm(&mut self.values, &self.taken.hidden, w, None, None, dims);
            let host = &mut self.host[..part.len() * self.stride];
            b.download(host, &self.values, 0)?;
            values.extend(host.iter().step_by(self.stride).map(|v| v.to_f64()));
        }
        Ok(values)
    }

    /// Takes the gradients of the rows `rows`, given the derivative of the loss by the value of each: `dw +=` where
    /// there is one, and added to `dhidden`.
    pub fn backward<'w, 'g>(
        &mut self,
        b: &B,
        w: impl Into<Weight<'w, B>>,
        dw: impl Into<Option<&'g mut Acc<B>>>,
        hidden: &Real<B>,
        dhidden: &mut Real<B>,
        rows: &[u32],
        slopes: &[f64],
    ) {
        let (w, mut dw) = (w.into(), dw.into());
        for (part, slopes) in rows.chunks(self.capacity).zip(slopes.chunks(self.capacity)) {
            self.taken.take(b, hidden, part);
            for (value, slope) in self.host.iter_mut().step_by(self.stride).zip(slopes) {
                *value = B::Real::from_f64(*slope);
            }
            b.upload(&mut self.values, 0, &self.host[..part.len() * self.stride]);
            let dims = self.dims(part.len());
            self.taken.give_back(b, w.into(), dw.as_deref_mut().into(), &self.values, dhidden, dims);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use duel_cpu::Cpu;

    /// Values and gradients of `sum slope_i value_i`, whatever the room, added to what other heads left.
    #[test]
    fn values_and_gradients_of_a_product() {
        let (b, width) = (Cpu::<f64>::new(1), 3);
        let hidden: Vec<f64> = (0..4 * width).map(|i| (i as f64 * 0.7).sin()).collect();
        let w = vec![0.5, -1.0, 2.0];
        let (rows, slopes) = ([3, 1, 1], [1.0, 2.0, 0.25]);
        let row = |r: u32| &hidden[r as usize * width..][..width];
        let value = |r: u32| row(r).iter().zip(&w).map(|(h, w)| h * w).sum::<f64>();
        for capacity in [1, 2, 8] {
            let mut head = ScalarHead::new(&b, width, capacity).unwrap();
            let got = head.values(&b, &w, &hidden, &rows).unwrap();
            assert!(got.iter().zip(rows).all(|(got, r)| (got - value(r)).abs() < 1e-15));
            let (mut dw, mut dh) = (vec![0.0; width], vec![1.0; 4 * width]);
            head.backward(&b, &w, &mut dw, &hidden, &mut dh, &rows, &slopes);
            for k in 0..width {
                let want: f64 = rows.iter().zip(slopes).map(|(r, s)| s * row(*r)[k]).sum();
                assert!((dw[k] - want).abs() < 1e-15);
                let want = [1.0, 1.0 + 2.25 * w[k], 1.0, 1.0 + w[k]];
                assert!((0..4).all(|r| (dh[r * width + k] - want[r]).abs() < 1e-15));
            }
        }
    }
}
