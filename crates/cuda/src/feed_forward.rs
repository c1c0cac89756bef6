//! Activations of the feed-forward layers, alone and after a product.

use crate::grid::narrow;
use crate::library::{Epilogue, Product};
use crate::product::{Operands, buffer_of};
use crate::{Buf, Cuda, CudaReal, Driver, kernel};
use duel_backend::{Activation, FeedForward, Gemm, Products, Weight};
use duel_kernels::sys;

/// As kernels have it.
fn kind(f: Activation) -> u32 {
    match f {
        Activation::Silu => sys::ACTIVATION_SILU,
        Activation::Gelu => sys::ACTIVATION_GELU,
        Activation::GeluTanh => sys::ACTIVATION_GELU_TANH,
        Activation::GeluSigmoid => sys::ACTIVATION_GELU_SIGMOID,
        Activation::Relu => sys::ACTIVATION_RELU,
    }
}

impl<D: Driver, R: CudaReal> FeedForward for Cuda<D, R> {
    fn glu(&self, y: &mut Buf<D, R>, x: &Buf<D, R>, rows: usize, width: usize, f: Activation) {
        if rows * width == 0 {
            return;
        }
        let params = sys::SwigluParams {
            y: self.write(y, rows * width),
            x: self.read(x, 2 * rows * width),
            rows: narrow(rows),
            width: narrow(width),
            kind: kind(f),
        };
        // SAFETY: the kernel takes SwigluParams; `write` and `read` checked the buffers against its shapes.
        unsafe { self.launch(kernel!(R, "swiglu"), self.rows_grid(rows, width), &params) };
    }

    fn glu_bw(
        &self,
        dx: &mut Buf<D, R>,
        dy: &Buf<D, R>,
        x: &Buf<D, R>,
        rows: usize,
        width: usize,
        f: Activation,
    ) {
        if rows * width == 0 {
            return;
        }
        let params = sys::SwigluBwParams {
            dx: self.write(dx, 2 * rows * width),
            dy: self.read(dy, rows * width),
            x: self.read(x, 2 * rows * width),
            rows: narrow(rows),
            width: narrow(width),
            kind: kind(f),
        };
        // SAFETY: the kernel takes SwigluBwParams; `write` and `read` checked the buffers against its shapes.
        unsafe { self.launch(kernel!(R, "swiglu_bw"), self.rows_grid(rows, width), &params) };
    }

    fn activate(&self, y: &mut Buf<D, R>, x: &Buf<D, R>, len: usize, f: Activation) {
        if len == 0 {
            return;
        }
        let params =
            sys::GeluParams { y: self.write(y, len), x: self.read(x, len), len: len as u64, kind: kind(f) };
        // SAFETY: the kernel takes GeluParams; `write` and `read` checked the buffers against its length.
        unsafe { self.launch(kernel!(R, "gelu"), self.flat_grid(len), &params) };
    }

    fn activate_bw(&self, dx: &mut Buf<D, R>, dy: &Buf<D, R>, x: &Buf<D, R>, len: usize, f: Activation) {
        if len == 0 {
            return;
        }
        let params = sys::GeluBwParams {
            dx: self.write(dx, len),
            dy: self.read(dy, len),
            x: self.read(x, len),
            len: len as u64,
            kind: kind(f),
        };
        // SAFETY: the kernel takes GeluBwParams; `write` and `read` checked the buffers against its length.
        unsafe { self.launch(kernel!(R, "gelu_bw"), self.flat_grid(len), &params) };
    }

    fn gemm_activate<'w>(
        &self,
        y: &mut Buf<D, R>,
        x: &mut Buf<D, R>,
        a: &Buf<D, R>,
        w: impl Into<Weight<'w, Self>>,
        bias: Option<&Buf<D, R>>,
        f: Activation,
        dims @ Gemm { m, n, .. }: Gemm,
    ) {
        if m * n == 0 {
            return;
        }
        dims.assert_dense();
        let w = buffer_of(w.into());
        let operands = self.operands_of_gemm(a, w, bias, None, dims);
        let epilogue = Epilogue::Gelu { input: self.write(x, m * n) };
        if f == Activation::GeluTanh
            // SAFETY: `write` and `read` checked the buffers against m, n and k.
            && unsafe { self.by_library(Product::Forward, epilogue, self.write(y, m * n), &operands, dims) }
        {
            return;
        }
        self.gemm(x, a, w, bias, None, dims);
        self.activate(y, x, m * n, f);
    }

    fn gemm_dx_activate<'w>(
        &self,
        dx: &mut Buf<D, R>,
        dact: &mut Buf<D, R>,
        dy: &Buf<D, R>,
        w: impl Into<Weight<'w, Self>>,
        x: &Buf<D, R>,
        f: Activation,
        dims @ Gemm { m, n, k, .. }: Gemm,
    ) {
        if m * k == 0 {
            return;
        }
        dims.assert_dense();
        let w = buffer_of(w.into());
        let operands = Operands::new(self.read(dy, m * n), self.read(w, n * k));
        let epilogue = Epilogue::GeluGradient { input: self.read(x, m * k) };
        if f == Activation::GeluTanh
            // SAFETY: `write` and `read` checked the buffers against m, n and k.
            && unsafe {
                self.by_library(Product::InputGradient, epilogue, self.write(dx, m * k), &operands, dims)
            }
        {
            return;
        }
        self.gemm_dx(dact, dy, w, dims);
        self.activate_bw(dx, dact, x, m * k, f);
    }
}
