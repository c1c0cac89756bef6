//! Tensor maps for TMA.

use super::error::explain;
use cudarc::driver::sys;
use duel_kernels::sys::{TensorMap, TensorMapSpec};
use std::ffi::c_void;

/// A tensor map as the driver encodes it: elements beside each other, and zeros for those outside.
pub(super) fn encode(spec: &TensorMapSpec) -> std::result::Result<TensorMap, String> {
    use sys::{CUtensorMapDataType as Type, CUtensorMapSwizzle as Swizzle};
    if !(2..=3).contains(&spec.rank) {
        return Err(format!("rank {}, which is neither 2 nor 3", spec.rank));
    }
    let element = match spec.element_bytes {
        2 => Type::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
        4 => Type::CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
        other => return Err(format!("elements of {other} bytes")),
    };
    let swizzle = match spec.swizzle_bytes {
        0 => Swizzle::CU_TENSOR_MAP_SWIZZLE_NONE,
        32 => Swizzle::CU_TENSOR_MAP_SWIZZLE_32B,
        64 => Swizzle::CU_TENSOR_MAP_SWIZZLE_64B,
        128 => Swizzle::CU_TENSOR_MAP_SWIZZLE_128B,
        other => return Err(format!("a swizzle of {other} bytes")),
    };
    let mut map = sys::CUtensorMap { opaque: [0; 16] };
    // SAFETY: a device is open, so the library is present; everything lives through the call, and the lists are as long
    // as the rank asks for.
    unsafe {
        sys::cuTensorMapEncodeTiled(
            &mut map,
            element,
            spec.rank,
            spec.base as *mut c_void,
            spec.extents.as_ptr(),
            spec.strides.as_ptr(),
            spec.tile.as_ptr(),
            [1; 3].as_ptr(),
            sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
            swizzle,
            sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
            sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    }
    .result()
    .map_err(explain)?;
    Ok(TensorMap { opaque: map.opaque })
}
