//! Steps of the optimizers.

use crate::{Buf, Cuda, CudaReal, Driver, kernel};
use duel_backend::{AdamW, Result, Rmsprop, Update};
use duel_kernels::sys;

/// How an optimizer step rounds weights to bf16 that have no master.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rounding {
    /// To the nearest; an update of less than half a unit in the last place is lost.
    #[default]
    Nearest,
    /// Up or down at random, right in the mean. Equal seeds and steps give equal bits: each step needs its own number.
    /// An element's bits depend on its place in its buffer, so two buffers of one step share them.
    Stochastic {
        /// Of the run.
        seed: u64,
        /// Number of the step.
        step: u64,
    },
}

/// The finaliser of SplitMix64 (Steele et al., 2014).
fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl Rounding {
    /// Flag and key for the kernels.
    fn params(self) -> (u32, u64) {
        match self {
            Rounding::Nearest => (0, 0),
            Rounding::Stochastic { seed, step } => (1, mix(mix(seed).wrapping_add(step))),
        }
    }
}

impl<D: Driver, R: CudaReal> Cuda<D, R> {
    /// How the optimizer steps from here on round weights that are stored as bf16.
    pub fn set_rounding(&self, rounding: Rounding) {
        self.rounding.set(rounding);
    }

    /// `adamw` with one more factor on the gradient, `clip[0]`, that is read on the device when the step runs.
    ///
    /// # Panics
    /// When master, moments and gradient do not have the weights' length, or `clip` has none.
    pub fn adamw_clipped(
        &self,
        w: &mut Buf<D, R>,
        master: Option<&mut Buf<D, f32>>,
        m: &mut Buf<D, f32>,
        v: &mut Buf<D, f32>,
        g: &Buf<D, f32>,
        clip: &Buf<D, f32>,
        hyper: AdamW,
    ) {
        self.step_adamw(w, master, m, v, g, Some(clip), hyper);
    }

    /// `rmsprop` with one more factor on the gradient, `clip[0]`, that is read on the device when the step runs.
    ///
    /// # Panics
    /// When master, mean square and gradient do not have the weights' length, or `clip` has none.
    pub fn rmsprop_clipped(
        &self,
        w: &mut Buf<D, R>,
        master: Option<&mut Buf<D, f32>>,
        v: &mut Buf<D, f32>,
        g: &Buf<D, f32>,
        clip: &Buf<D, f32>,
        hyper: Rmsprop,
    ) {
        self.step_rmsprop(w, master, v, g, Some(clip), hyper);
    }

    fn address_of_master(&self, master: Option<&mut Buf<D, f32>>, n: usize) -> *mut f32 {
        master.map_or(std::ptr::null_mut(), |master| {
            assert_eq!(master.len(), n, "a master of every weight");
            self.write(master, n).cast()
        })
    }

    fn address_of_clip(&self, clip: Option<&Buf<D, f32>>) -> *const f32 {
        clip.map_or(std::ptr::null(), |clip| self.read(clip, 1).cast())
    }

    fn step_adamw(
        &self,
        w: &mut Buf<D, R>,
        master: Option<&mut Buf<D, f32>>,
        m: &mut Buf<D, f32>,
        v: &mut Buf<D, f32>,
        g: &Buf<D, f32>,
        clip: Option<&Buf<D, f32>>,
        hyper: AdamW,
    ) {
        let n = w.len();
        assert!(
            m.len() == n && v.len() == n && g.len() == n,
            "moments and gradient have the weights' length"
        );
        if n == 0 {
            return;
        }
        let AdamW { lr, beta1, beta2, eps, weight_decay, step, grad_scale } = hyper;
        let correction = |beta: f64| 1.0 - beta.powf(step as f64);
        let (stochastic, random_key) = self.rounding.get().params();
        let params = sys::AdamwParams {
            w: self.write(w, n),
            master: self.address_of_master(master, n),
            m: self.write(m, n).cast(),
            v: self.write(v, n).cast(),
            g: self.read(g, n).cast(),
            clip: self.address_of_clip(clip),
            len: n as u64,
            random_key,
            grad_scale: grad_scale as f32,
            beta1: beta1 as f32,
            beta2: beta2 as f32,
            one_minus_beta1: (1.0 - beta1) as f32,
            one_minus_beta2: (1.0 - beta2) as f32,
            eps: eps as f32,
            step_size: (lr / correction(beta1)) as f32,
            inverse_root: correction(beta2).sqrt().recip() as f32,
            keep: (1.0 - lr * weight_decay) as f32,
            stochastic,
        };
        // SAFETY: the kernel takes AdamwParams; `write` and `read` checked the buffers against its length.
        unsafe { self.launch(kernel!(R, "adamw"), self.flat_grid(n), &params) };
    }

    fn step_rmsprop(
        &self,
        w: &mut Buf<D, R>,
        master: Option<&mut Buf<D, f32>>,
        v: &mut Buf<D, f32>,
        g: &Buf<D, f32>,
        clip: Option<&Buf<D, f32>>,
        hyper: Rmsprop,
    ) {
        let n = w.len();
        assert!(v.len() == n && g.len() == n, "mean square and gradient have the weights' length");
        if n == 0 {
            return;
        }
        let Rmsprop { lr, alpha, eps, weight_decay, grad_scale } = hyper;
        let (stochastic, random_key) = self.rounding.get().params();
        let params = sys::RmspropParams {
            w: self.write(w, n),
            master: self.address_of_master(master, n),
            v: self.write(v, n).cast(),
            g: self.read(g, n).cast(),
            clip: self.address_of_clip(clip),
            len: n as u64,
            random_key,
            grad_scale: grad_scale as f32,
            alpha: alpha as f32,
            one_minus_alpha: (1.0 - alpha) as f32,
            eps: eps as f32,
            lr: lr as f32,
            weight_decay: weight_decay as f32,
            stochastic,
        };
        // SAFETY: the kernel takes RmspropParams; `write` and `read` checked the buffers against its length.
        unsafe { self.launch(kernel!(R, "rmsprop"), self.flat_grid(n), &params) };
    }
}

impl<D: Driver, R: CudaReal> Update for Cuda<D, R> {
    fn adamw(
        &self,
        w: &mut Buf<D, R>,
        master: Option<&mut Buf<D, f32>>,
        m: &mut Buf<D, f32>,
        v: &mut Buf<D, f32>,
        g: &Buf<D, f32>,
        hyper: AdamW,
    ) {
        self.step_adamw(w, master, m, v, g, None, hyper);
    }

    fn rmsprop(
        &self,
        w: &mut Buf<D, R>,
        master: Option<&mut Buf<D, f32>>,
        v: &mut Buf<D, f32>,
        g: &Buf<D, f32>,
        hyper: Rmsprop,
    ) {
        self.step_rmsprop(w, master, v, g, None, hyper);
    }

    fn square_sums(&self, xs: &[&Buf<D, f32>]) -> Result<Vec<f64>> {
        // The sums first, then what the longest needs: one wait serves them all.
        let longest = xs.iter().map(|x| Self::squares_bytes(x)).max().unwrap_or(0);
        let mut sums = vec![0.0; xs.len()];
        let bytes = size_of_val(sums.as_slice());
        self.with_scratch(bytes + longest, |address| {
            let (sums, partials) = (address.cast::<f64>(), address.wrapping_byte_add(bytes).cast());
            for (i, x) in xs.iter().enumerate() {
                self.sum_squares(sums.wrapping_add(i), x, partials);
            }
        });
        self.download_scratch(&mut sums)?;
        Ok(sums)
    }
}
