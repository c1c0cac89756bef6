//! Matrix products and the gradient of a bias.

use crate::grid::{THREADS, elements_a_thread, narrow};
use crate::library::{Epilogue, LibraryProduct, Product};
use crate::maps::Rows;
use crate::reduce::rows_a_block;
use crate::variants::{Linear, launch_of};
use crate::{Buf, Cuda, CudaReal, Driver, Grid, kernel};
use duel_backend::{Gemm, Products, Weight};
use duel_kernels::column_sums_bytes;
use duel_kernels::sys::{
    ColumnSumsParams, LINEAR_SUM_BLOCK, LINEAR_THREADS, LinearParams, PartsSumParams, ROW_THREADS, SM90_BOX,
};
use std::ffi::c_void;

/// Parts of a weight gradient have a multiple of this many rows.
const PART_ROWS: usize = LINEAR_SUM_BLOCK as usize;

/// The buffer of weights, which have one type here, narrowed or not.
///
/// # Panics
/// Weights in 8-bit blocks: there is no kernel for them, which `READS_BLOCKS` says.
pub(crate) fn buffer_of<'w, D: Driver, R: CudaReal>(w: Weight<'w, Cuda<D, R>>) -> &'w Buf<D, R> {
    match w {
        Weight::Real(buf) | Weight::Narrow(buf) => buf,
        Weight::Blocks(_) => panic!("no kernel reads weights in 8-bit blocks"),
    }
}

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

/// Both operands as matrices in memory, with the rows that a copy brings of each for such a tile of the result.
fn copied(product: Product, operands: &Operands, dims: Gemm, tile: [usize; 2]) -> [(Rows, u32); 2] {
    let [rows, columns, depth] = product.shape(dims);
    let [_, of_left, of_right] = product.strides(dims);
    let of = |data, along_depth, result, stride, tile| match along_depth {
        true => (Rows { data, rows: result, width: depth, stride }, narrow(tile)),
        false => (Rows { data, rows: depth, width: result, stride }, SM90_BOX),
    };
    let [left_along, right_along] = product.along_depth();
    [
        of(operands.left, left_along, rows, of_left, tile[0]),
        of(operands.right, right_along, columns, of_right, tile[1]),
    ]
}

/// Addresses of a product's operands and of what is added to it.
pub(crate) struct Operands {
    left: *const c_void,
    right: *const c_void,
    bias: *const c_void,
    residual: *const c_void,
}

impl Operands {
    pub(crate) fn new(left: *const c_void, right: *const c_void) -> Self {
        Operands { left, right, bias: std::ptr::null(), residual: std::ptr::null() }
    }
}

impl<D: Driver, R: CudaReal> Cuda<D, R> {
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
        let [of_out, of_left, _] = product.strides(dims);
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
        let blocks = if variant.persistent {
            [narrow(tiles * parts).min(self.properties.multiprocessors), 1, 1]
        } else {
            [narrow(tiles), 1, narrow(parts)]
        };
        let grid = Grid { blocks, ..Grid::linear(tiles, threads).with_shared(shared) };
        let maps = self.maps_of(variant.tensor_maps, &copied(product, operands, dims, variant.tile));
        // SAFETY: the kernel takes LinearParams and, if any, the maps of both operands; the rest is the caller's
        // promise.
        unsafe { self.launch_with_maps(variant.kernel, grid, &maps, &params) };
    }

    /// Starts a product by the vendor's library, if that takes it.
    ///
    /// # Safety
    /// As for [`Cuda::launch_product`], without parts.
    pub(crate) unsafe fn by_library(
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
        // Widths that are not in eights, as the vocabulary of GPT-2, it does by kernels without TMA, whatever the
        // strides: 7 to 46 times as slow on an H100 with cuBLAS 13.1.
        let in_eights = dims.n.is_multiple_of(8) && dims.k.is_multiple_of(8);
        if !in_eights && self.variants.linear(product, dims).tensor_maps {
            return false;
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

    pub(crate) fn operands_of_gemm(
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
}

impl<D: Driver, R: CudaReal> Products for Cuda<D, R> {
    fn gemm<'w>(
        &self,
        y: &mut Buf<D, R>,
        x: &Buf<D, R>,
        w: impl Into<Weight<'w, Self>>,
        bias: Option<&Buf<D, R>>,
        residual: Option<&Buf<D, R>>,
        dims @ Gemm { m, n, k, .. }: Gemm,
    ) {
        if m * n == 0 {
            return;
        }
        let product = Product::Forward;
        let operands = self.operands_of_gemm(x, buffer_of(w.into()), bias, residual, dims);
        let y = self.write(y, dims.y_len());
        // SAFETY: `write` and `read` checked the buffers against m, n and k.
        unsafe {
            if !self.by_library(product, Epilogue::None, y, &operands, dims) {
                self.launch_product(product, self.variants.linear(product, dims), y, &operands, k, dims);
            }
        }
    }

    fn gemm_dx<'w>(
        &self,
        dx: &mut Buf<D, R>,
        dy: &Buf<D, R>,
        w: impl Into<Weight<'w, Self>>,
        dims @ Gemm { m, n, k, .. }: Gemm,
    ) {
        if m * k == 0 {
            return;
        }
        let product = Product::InputGradient;
        let w = buffer_of(w.into());
        let operands = Operands::new(self.read(dy, dims.y_len()), self.read(w, n * k));
        let dx = self.write(dx, m * k);
        // SAFETY: `write` and `read` checked the buffers against m, n and k.
        unsafe {
            if !self.by_library(product, Epilogue::None, dx, &operands, dims) {
                self.launch_product(product, self.variants.linear(product, dims), dx, &operands, n, dims);
            }
        }
    }

    fn gemm_dw(
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
            let work = (n * k).div_ceil(4 * LINEAR_THREADS as usize);
            let grid = Grid::linear(self.blocks_for(work), LINEAR_THREADS);
            // SAFETY: the scratch has room for the results of all parts; the rest as above. The sum takes
            // PartsSumParams.
            unsafe {
                self.launch_product(product, variant, scratch, &operands, part, dims);
                self.launch("gemm_dw_sum", grid, &sum);
            }
        });
    }

    fn bias_dw(&self, db: &mut Buf<D, f32>, dy: &Buf<D, R>, dims: Gemm) {
        let Gemm { m: rows, n: width, .. } = dims;
        dims.assert_dense();
        if rows * width == 0 {
            return;
        }
        let rows_a_block = rows_a_block(rows);
        let parts = rows.div_ceil(rows_a_block);
        let count = elements_a_thread::<R>(width);
        let packs = width.div_ceil(count);
        let team = packs.next_power_of_two().clamp(32, THREADS);
        let threads = [narrow(team), ROW_THREADS / narrow(team)];
        let grid =
            Grid::plane([parts, packs.div_ceil(team)], threads).with_shared(column_sums_bytes(narrow(count)));
        self.with_scratch(parts * width * size_of::<f32>(), |address| {
            let params = ColumnSumsParams {
                partials: address.cast(),
                dy: self.read(dy, rows * width),
                rows: narrow(rows),
                width: narrow(width),
                rows_a_block: narrow(rows_a_block),
            };
            // SAFETY: the kernel takes ColumnSumsParams; `read` checked its input, and the scratch is what it writes.
            unsafe { self.launch(kernel!(R, "column_sums"), grid, &params) };
            self.add_partials([Some(db)], address.cast(), parts, width);
        });
    }
}
