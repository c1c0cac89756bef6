use crate::{Acc, Real, Result, Storage};

/// Numbers of one AdamW step, already resolved by the caller.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate of this step.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// 1-based step, for the bias corrections.
    pub step: u64,
    /// Factor on the gradient before use: the clip.
    pub grad_scale: f64,
}

/// Numbers of one RMSprop step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rmsprop {
    /// Learning rate of this step.
    pub lr: f64,
    /// Decay of the mean square.
    pub alpha: f64,
    /// Added to the root of the mean square.
    pub eps: f64,
    /// L2 penalty, added to the gradient (as PyTorch's RMSprop does it).
    pub weight_decay: f64,
    /// Factor on the gradient before use: the clip.
    pub grad_scale: f64,
}

/// Steps of the optimizers.
pub trait Update: Storage {
    /// AdamW (Loshchilov & Hutter, 2019), one fused pass; `m`, `v` are the moments. Where there is a `master`, it is
    /// the weights that are updated, in the precision of sums, and `w` becomes its rounding.
    fn adamw(
        &self,
        w: &mut Real<Self>,
        master: Option<&mut Acc<Self>>,
        m: &mut Acc<Self>,
        v: &mut Acc<Self>,
        g: &Acc<Self>,
        hyper: AdamW,
    );
    /// RMSprop (Tieleman & Hinton, 2012), uncentred, without momentum; `v` is the mean square, `master` as in
    /// [`Update::adamw`].
    fn rmsprop(
        &self,
        w: &mut Real<Self>,
        master: Option<&mut Acc<Self>>,
        v: &mut Acc<Self>,
        g: &Acc<Self>,
        hyper: Rmsprop,
    );
    /// Sum of squares of each buffer, in `f64` and in a fixed order. Waits for the device.
    fn square_sums(&self, xs: &[&Acc<Self>]) -> Result<Vec<f64>>;
}
