//! Launches of matrix products.

use crate::library::{Epilogue, LibraryProduct, Product};
use crate::pointwise::narrow;
use crate::variants::{Linear, launch_of};
use crate::{Buf, Cuda, CudaReal, Driver, Grid};
use duel_backend::Gemm;
use duel_kernels::sys::{LinearParams, PartsSumParams, TensorMap, TensorMapSpec};
use std::ffi::c_void;

/// Parts of a weight gradient have a multiple of this many rows: f32 sums so many before it adds them to the rest.
const PART_ROWS: usize = 256;
/// Elements along the depth in a stage of the kernels for sm_90; a box of 64 bf16 is what its swizzle spans.
const SM90_DEPTH: u32 = 64;

impl Linear {
    fn tiles(&self, rows: usize, columns: usize) -> usize {
        rows.div_ceil(self.tile[0]) * columns.div_ceil(self.tile[1])
    }

    /// Depth of each part of a weight gradient.
    fn part(&self, rows: usize, columns: usize, depth: usize) -> usize {
        let parts = (self.blocks / self.tiles(rows, columns)).clamp(1, depth.div_ceil(PART_ROWS));
        depth.div_ceil(parts).next_multiple_of(PART_ROWS)
    }
}

/// Addresses of a product's operands and of what is added to it.
struct Operands {
    left: *const c_void,
    right: *const c_void,
    bias: *const c_void,
    residual: *const c_void,
}

impl Operands {
    fn new(left: *const c_void, right: *const c_void) -> Self {
        Operands { left, right, bias: std::ptr::null(), residual: std::ptr::null() }
    }
}

impl<D: Driver, R: CudaReal> Cuda<D, R> {
    /// Tensor map of an operand whose tile has `tile` rows (or columns) of the result.
    fn operand_map(
        &self,
        data: *const c_void,
        along_depth: bool,
        result: usize,
        depth: usize,
        stride: usize,
        tile: usize,
    ) -> TensorMap {
        let (width, height) = if along_depth { (depth, result) } else { (result, depth) };
        self.driver.tensor_map(&TensorMapSpec {
            base: data as u64,
            extents: [width as u64, height as u64, 1],
            strides: [(stride * size_of::<R>()) as u64, 0],
            tile: [SM90_DEPTH, if along_depth { narrow(tile) } else { SM90_DEPTH }, 1],
            rank: 2,
            element_bytes: size_of::<R>() as u32,
            swizzle_bytes: 128,
        })
    }

    /// Starts the kernel of a product in parts of the depth `part`.
    ///
    /// # Safety
    /// `out` and the operands are live buffers as large as the product's shapes say; `out` has a result for each part.
    unsafe fn launch_product(
        &self,
        product: Product,
        variant: &Linear,
        out: *mut c_void,
        operands: &Operands,
        part: usize,
        dims: Gemm,
    ) {
        let [rows, columns, depth] = product.shape(dims);
        let [of_out, of_left, of_right] = product.strides(dims);
        let parts = if depth == 0 { 1 } else { depth.div_ceil(part) };
        let params = LinearParams {
            out,
            left: operands.left,
            right: operands.right,
            bias: operands.bias,
            residual: operands.residual,
            rows: narrow(rows),
            columns: narrow(columns),
            depth: narrow(depth),
            part: narrow(part),
            parts: narrow(parts),
            out_stride: narrow(of_out),
            left_stride: narrow(of_left),
        };
        let tiles = variant.tiles(rows, columns);
        let (threads, shared) = launch_of(variant.kernel);
        if variant.tensor_maps {
            let [left_along, right_along] = product.along_depth();
            let left = self.operand_map(operands.left, left_along, rows, depth, of_left, variant.tile[0]);
            let right =
                self.operand_map(operands.right, right_along, columns, depth, of_right, variant.tile[1]);
            let blocks = (tiles * parts).min(self.properties.multiprocessors as usize);
            let grid = Grid::linear(blocks, threads).with_shared(shared);
            // SAFETY: these kernels take the maps of both operands and LinearParams; the rest is the caller's promise.
            unsafe { self.launch_with_maps(variant.kernel, grid, &[&left, &right], &params) };
        } else {
            let mut grid = Grid::linear(tiles, threads).with_shared(shared);
            grid.blocks[2] = narrow(parts);
            // SAFETY: these kernels take LinearParams; the rest is the caller's promise.
            unsafe { self.launch(variant.kernel, grid, &params) };
        }
    }

    /// Starts a product by the vendor's library, if that takes it.
    ///
    /// # Safety
    /// As for [`Cuda::launch_product`], without parts.
    unsafe fn by_library(
        &self,
        product: Product,
        epilogue: Epilogue,
        out: *mut c_void,
        operands: &Operands,
        dims: Gemm,
    ) -> bool {
        if product.shape(dims)[2] == 0 {
            return false; // a sum of nothing is no matrix product to a library
        }
        let product = LibraryProduct {
            product,
            dims,
            dtype: R::DTYPE,
            out,
            left: operands.left,
            right: operands.right,
            bias: operands.bias,
            residual: operands.residual,
            epilogue,
        };
        // SAFETY: the caller's promise.
        unsafe { self.driver.library_product(&product) }
    }

    fn operands_of_gemm(
        &self,
        x: &Buf<D, R>,
        w: &Buf<D, R>,
        bias: Option<&Buf<D, R>>,
        residual: Option<&Buf<D, R>>,
        dims @ Gemm { m, n, k, .. }: Gemm,
    ) -> Operands {
        Operands {
            bias: bias.map_or(std::ptr::null(), |b| self.read(b, n)),
            residual: residual.map_or(std::ptr::null(), |r| {
                dims.assert_dense();
                self.read(r, m * n)
            }),
            ..Operands::new(self.read(x, m * k), self.read(w, n * k))
        }
    }

    pub(crate) fn launch_gemm(
        &self,
        y: &mut Buf<D, R>,
        x: &Buf<D, R>,
        w: &Buf<D, R>,
        bias: Option<&Buf<D, R>>,
        residual: Option<&Buf<D, R>>,
        dims @ Gemm { m, n, k, .. }: Gemm,
    ) {
        if m * n == 0 {
            return;
        }
        let product = Product::Forward;
        let operands = self.operands_of_gemm(x, w, bias, residual, dims);
        let y = self.write(y, dims.y_len());
        // SAFETY: `write` and `read` checked the buffers against m, n and k.
        unsafe {
            if !self.by_library(product, Epilogue::None, y, &operands, dims) {
                self.launch_product(product, self.variants.linear(product, dims), y, &operands, k, dims);
            }
        }
    }

    pub(crate) fn launch_gemm_gelu(
        &self,
        y: &mut Buf<D, R>,
        x: &mut Buf<D, R>,
        a: &Buf<D, R>,
        w: &Buf<D, R>,
        bias: Option<&Buf<D, R>>,
        dims @ Gemm { m, n, .. }: Gemm,
    ) {
        if m * n == 0 {
            return;
        }
        dims.assert_dense();
        let operands = self.operands_of_gemm(a, w, bias, None, dims);
        let epilogue = Epilogue::Gelu { input: self.write(x, m * n) };
        // SAFETY: `write` and `read` checked the buffers against m, n and k.
        if unsafe { self.by_library(Product::Forward, epilogue, self.write(y, m * n), &operands, dims) } {
            return;
        }
        self.launch_gemm(x, a, w, bias, None, dims);
        self.launch_gelu(y, x, m * n);
    }

    pub(crate) fn launch_gemm_dx(
        &self,
        dx: &mut Buf<D, R>,
        dy: &Buf<D, R>,
        w: &Buf<D, R>,
        dims @ Gemm { m, n, k, .. }: Gemm,
    ) {
        if m * k == 0 {
            return;
        }
        let product = Product::InputGradient;
        let operands = Operands::new(self.read(dy, dims.y_len()), self.read(w, n * k));
        let dx = self.write(dx, m * k);
        // SAFETY: `write` and `read` checked the buffers against m, n and k.
        unsafe {
            if !self.by_library(product, Epilogue::None, dx, &operands, dims) {
                self.launch_product(product, self.variants.linear(product, dims), dx, &operands, n, dims);
            }
        }
    }

    pub(crate) fn launch_gemm_dx_gelu(
        &self,
        dx: &mut Buf<D, R>,
        dact: &mut Buf<D, R>,
        dy: &Buf<D, R>,
        w: &Buf<D, R>,
        x: &Buf<D, R>,
        dims @ Gemm { m, n, k, .. }: Gemm,
    ) {
        if m * k == 0 {
            return;
        }
        dims.assert_dense();
        let operands = Operands::new(self.read(dy, m * n), self.read(w, n * k));
        let epilogue = Epilogue::GeluGradient { input: self.read(x, m * k) };
        // SAFETY: `write` and `read` checked the buffers against m, n and k.
        if unsafe {
            self.by_library(Product::InputGradient, epilogue, self.write(dx, m * k), &operands, dims)
        } {
            return;
        }
        self.launch_gemm_dx(dact, dy, w, dims);
        self.launch_gelu_bw(dx, dact, x, m * k);
    }

    pub(crate) fn launch_gemm_dw(
        &self,
        dw: &mut Buf<D, f32>,
        dy: &Buf<D, R>,
        x: &Buf<D, R>,
        dims @ Gemm { m, n, k, .. }: Gemm,
    ) {
        if m * n * k == 0 {
            return;
        }
        let product = Product::WeightGradient;
        let operands = Operands::new(self.read(dy, dims.y_len()), self.read(x, m * k));
        let dw = self.write(dw, n * k);
        // SAFETY: `write` and `read` checked the buffers against m, n and k.
        if unsafe { self.by_library(product, Epilogue::None, dw, &operands, dims) } {
            return;
        }
        let variant = self.variants.linear(product, dims);
        let part = variant.part(n, k, m);
        let parts = m.div_ceil(part);
        if parts == 1 {
            // SAFETY: `write` and `read` checked the buffers against m, n and k.
            unsafe { self.launch_product(product, variant, dw, &operands, part, dims) };
            return;
        }
        self.with_scratch(parts * n * k * size_of::<f32>(), |scratch| {
            let len = (n * k) as u64;
            let sum = PartsSumParams { out: dw.cast(), parts: scratch.cast(), len, count: narrow(parts) };
            let grid = Grid::linear(self.blocks_for((n * k).div_ceil(4 * 256)), 256);
            // SAFETY: the scratch has room for the results of all parts; the rest as above. The sum takes
            // PartsSumParams.
            unsafe {
                self.launch_product(product, variant, scratch, &operands, part, dims);
                self.launch("gemm_dw_sum", grid, &sum);
            }
        });
    }
}
