//! Tensor maps, through which kernels for sm_90 read matrices.

use crate::{Cuda, CudaReal, Driver};
use duel_kernels::sys::{SM90_BOX, TensorMap, TensorMapSpec};
use std::ffi::c_void;

/// A matrix on the device, in rows that may be apart.
#[derive(Clone, Copy)]
pub(crate) struct Rows {
    pub data: *const c_void,
    pub rows: usize,
    pub width: usize,
    /// Elements from one row to the next.
    pub stride: usize,
}

impl Rows {
    /// Rows that follow each other.
    pub(crate) fn dense(data: *const c_void, rows: usize, width: usize) -> Self {
        Rows { data, rows, width, stride: width }
    }
}

impl<D: Driver, R: CudaReal> Cuda<D, R> {
    /// The tensor maps that a kernel takes, of these matrices in copies of so many rows each, as many columns as the
    /// 128-byte swizzle spans; none where it reads without.
    pub(crate) fn maps_of(&self, reads_through_maps: bool, copied: &[(Rows, u32)]) -> Vec<TensorMap> {
        let bytes = size_of::<R>();
        let map = |&(of, rows): &(Rows, u32)| {
            self.driver.tensor_map(&TensorMapSpec {
                base: of.data as u64,
                extents: [of.width as u64, of.rows as u64, 1],
                strides: [(of.stride * bytes) as u64, 0],
                tile: [SM90_BOX, rows, 1],
                rank: 2,
                element_bytes: bytes as u32,
                swizzle_bytes: 128,
            })
        };
        if reads_through_maps { copied.iter().map(map).collect() } else { Vec::new() }
    }
}
