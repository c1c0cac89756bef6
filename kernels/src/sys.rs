//! The structs of params.h, where each field is explained.
// Made from params.h: DUEL_BLESS=1 cargo test -p duel-kernels
#![allow(missing_docs)] // they are in params.h

pub const ACTIVATION_SILU: u32 = 0;
pub const ACTIVATION_GELU: u32 = 1;
pub const ACTIVATION_GELU_TANH: u32 = 2;
pub const ACTIVATION_GELU_SIGMOID: u32 = 3;
pub const ACTIVATION_RELU: u32 = 4;
pub const SAMPLE_NONE: u32 = 4294967295;
pub const PREFERENCE_SIGMOID: u32 = 0;
pub const PREFERENCE_IPO_SUM: u32 = 1;
pub const PREFERENCE_IPO_MEAN: u32 = 2;
pub const PREFERENCE_HINGE: u32 = 3;
pub const PREFERENCE_COLUMNS: u32 = 6;
pub const ROW_THREADS: Geometry = 256;
pub const ROW_TEAM: Geometry = 8;
pub const ROW_HELD: Geometry = 4;
pub const ROW_SUM_BYTES: Geometry = 32;
pub const BLOCK_SUM_BYTES: Geometry = 64;
pub const COLUMN_TILE: Geometry = 32;
pub const COLUMN_THREADS: Geometry = 1024;
pub const COLUMN_BYTES: Geometry = 4096;
pub const NORM_PADDING: Geometry = 32;
pub const LOGPROB_THREADS: Geometry = 512;
pub const LOGPROB_LEAST_THREADS: Geometry = 32;
pub const LOGPROB_WARP_BYTES: Geometry = 20;
pub const PREFERENCE_THREADS: Geometry = 256;
pub const SAMPLE_THREADS: Geometry = 512;
pub const SAMPLE_WARPS: Geometry = 16;
pub const SAMPLE_BITS: Geometry = 3;
pub const SAMPLE_PIVOTS: Geometry = 7;
pub const SAMPLE_BYTES: Geometry = 448;
pub const LINEAR_THREADS: Geometry = 256;
pub const LINEAR_TILE: Geometry = 128;
pub const LINEAR_STEP: Geometry = 32;
pub const LINEAR_STAGES: Geometry = 4;
pub const LINEAR_PADDING: Geometry = 8;
pub const LINEAR_ALONG_BYTES: Geometry = 10240;
pub const LINEAR_ACROSS_BYTES: Geometry = 8704;
pub const LINEAR_BYTES: Geometry = 81920;
pub const LINEAR_DX_BYTES: Geometry = 75776;
pub const LINEAR_DW_BYTES: Geometry = 69632;
pub const LINEAR_F32_STEP: Geometry = 16;
pub const LINEAR_F32_PADDING: Geometry = 4;
pub const LINEAR_F32_BYTES: Geometry = 33792;
pub const LINEAR_SUM_BLOCK: Geometry = 256;
pub const SM90_WARPGROUP: Geometry = 128;
pub const SM90_BOX: Geometry = 64;
pub const LINEAR_SM90_ROWS: Geometry = 128;
pub const LINEAR_SM90_COLUMNS: Geometry = 256;
pub const LINEAR_SM90_STAGES: Geometry = 4;
pub const LINEAR_SM90_THREADS: Geometry = 384;
pub const LINEAR_SM90_STAGE_BYTES: Geometry = 49152;
pub const LINEAR_SM90_BYTES: Geometry = 196672;
pub const ATTENTION_WIDEST: Geometry = 256;
pub const ATTENTION_TEAM: Geometry = 8;
pub const ATTENTION_STATS_THREADS: Geometry = 256;
pub const ATTENTION_CACHED_THREADS: Geometry = 128;
pub const ATTENTION_CACHED_TEAMS: Geometry = 16;
pub const ATTENTION_CACHED_HEADS: Geometry = 16;
pub const ATTENTION_CACHED_HD64_BYTES: Geometry = 16896;
pub const ATTENTION_CACHED_HD128_BYTES: Geometry = 33280;
pub const MMA_THREADS: Geometry = 128;
pub const ATTENTION_BF16_HD64_TILE: Geometry = 128;
pub const ATTENTION_BF16_HD64_STEP: Geometry = 64;
pub const ATTENTION_BF16_HD64_BYTES: Geometry = 49152;
pub const ATTENTION_BF16_HD128_TILE: Geometry = 128;
pub const ATTENTION_BF16_HD128_STEP: Geometry = 32;
pub const ATTENTION_BF16_HD128_BYTES: Geometry = 65536;
pub const ATTENTION_BW_BF16_HD64_TILE: Geometry = 128;
pub const ATTENTION_BW_BF16_HD64_STEP: Geometry = 32;
pub const ATTENTION_BW_Q_BF16_HD64_BYTES: Geometry = 49152;
pub const ATTENTION_BW_KV_BF16_HD64_BYTES: Geometry = 49664;
pub const ATTENTION_BW_BF16_HD128_TILE: Geometry = 64;
pub const ATTENTION_BW_BF16_HD128_STEP: Geometry = 32;
pub const ATTENTION_BW_Q_BF16_HD128_BYTES: Geometry = 65536;
pub const ATTENTION_BW_KV_BF16_HD128_BYTES: Geometry = 66048;
pub const PLAIN_THREADS: Geometry = 256;
pub const PLAIN_PADDING: Geometry = 4;
pub const ATTENTION_PLAIN_HD128_TILE: Geometry = 32;
pub const ATTENTION_PLAIN_HD128_BYTES: Geometry = 54912;
pub const ATTENTION_BW_Q_PLAIN_HD128_BYTES: Geometry = 71808;
pub const ATTENTION_BW_KV_PLAIN_HD128_BYTES: Geometry = 76032;
pub const ATTENTION_PLAIN_HD256_TILE: Geometry = 16;
pub const ATTENTION_PLAIN_HD256_BYTES: Geometry = 51008;
pub const ATTENTION_BW_Q_PLAIN_HD256_BYTES: Geometry = 67648;
pub const ATTENTION_BW_KV_PLAIN_HD256_BYTES: Geometry = 68736;
pub const SM90_BARRIER_BYTES: Geometry = 1024;
pub const SM90_GROUP_ROWS: Geometry = 64;
pub const ATTENTION_SM90_STAGES: Geometry = 2;
pub const ATTENTION_SM90_HD64_TILE: Geometry = 192;
pub const ATTENTION_SM90_HD64_STEP: Geometry = 128;
pub const ATTENTION_SM90_HD64_THREADS: Geometry = 512;
pub const ATTENTION_SM90_HD64_BYTES: Geometry = 91136;
pub const ATTENTION_SM90_HD128_TILE: Geometry = 128;
pub const ATTENTION_SM90_HD128_STEP: Geometry = 128;
pub const ATTENTION_SM90_HD128_THREADS: Geometry = 384;
pub const ATTENTION_SM90_HD128_BYTES: Geometry = 164864;
pub const ATTENTION_BW_SM90_STAGES: Geometry = 3;
pub const ATTENTION_BW_SM90_TILE: Geometry = 128;
pub const ATTENTION_BW_SM90_THREADS: Geometry = 384;
pub const ATTENTION_BW_Q_SM90_HD64_STEP: Geometry = 128;
pub const ATTENTION_BW_Q_SM90_HD64_BYTES: Geometry = 132096;
pub const ATTENTION_BW_Q_SM90_HD128_STEP: Geometry = 64;
pub const ATTENTION_BW_Q_SM90_HD128_BYTES: Geometry = 164864;
pub const ATTENTION_BW_KV_SM90_STEP: Geometry = 64;
pub const ATTENTION_BW_KV_SM90_HD64_BYTES: Geometry = 84480;
pub const ATTENTION_BW_KV_SM90_HD128_BYTES: Geometry = 166400;
pub type Geometry = core::ffi::c_uint;
#[repr(C)]
#[repr(align(64))]
#[derive(Debug, Copy, Clone)]
pub struct TensorMap {
    pub opaque: [core::ffi::c_ulonglong; 16usize],
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of TensorMap"][::core::mem::size_of::<TensorMap>() - 128usize];
    ["Alignment of TensorMap"][::core::mem::align_of::<TensorMap>() - 64usize];
    ["Offset of field: TensorMap::opaque"][::core::mem::offset_of!(TensorMap, opaque) - 0usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct TensorMapSpec {
    pub base: core::ffi::c_ulonglong,
    pub extents: [core::ffi::c_ulonglong; 3usize],
    pub strides: [core::ffi::c_ulonglong; 2usize],
    pub tile: [core::ffi::c_uint; 3usize],
    pub rank: core::ffi::c_uint,
    pub element_bytes: core::ffi::c_uint,
    pub swizzle_bytes: core::ffi::c_uint,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of TensorMapSpec"][::core::mem::size_of::<TensorMapSpec>() - 72usize];
    ["Alignment of TensorMapSpec"][::core::mem::align_of::<TensorMapSpec>() - 8usize];
    ["Offset of field: TensorMapSpec::base"][::core::mem::offset_of!(TensorMapSpec, base) - 0usize];
    ["Offset of field: TensorMapSpec::extents"][::core::mem::offset_of!(TensorMapSpec, extents) - 8usize];
    ["Offset of field: TensorMapSpec::strides"][::core::mem::offset_of!(TensorMapSpec, strides) - 32usize];
    ["Offset of field: TensorMapSpec::tile"][::core::mem::offset_of!(TensorMapSpec, tile) - 48usize];
    ["Offset of field: TensorMapSpec::rank"][::core::mem::offset_of!(TensorMapSpec, rank) - 60usize];
    ["Offset of field: TensorMapSpec::element_bytes"]
        [::core::mem::offset_of!(TensorMapSpec, element_bytes) - 64usize];
    ["Offset of field: TensorMapSpec::swizzle_bytes"]
        [::core::mem::offset_of!(TensorMapSpec, swizzle_bytes) - 68usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct SimtOptions {
    pub seed: core::ffi::c_ulonglong,
    pub order: core::ffi::c_uint,
    pub eager_copies: core::ffi::c_uint,
    pub os_threads: core::ffi::c_uint,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of SimtOptions"][::core::mem::size_of::<SimtOptions>() - 24usize];
    ["Alignment of SimtOptions"][::core::mem::align_of::<SimtOptions>() - 8usize];
    ["Offset of field: SimtOptions::seed"][::core::mem::offset_of!(SimtOptions, seed) - 0usize];
    ["Offset of field: SimtOptions::order"][::core::mem::offset_of!(SimtOptions, order) - 8usize];
    ["Offset of field: SimtOptions::eager_copies"]
        [::core::mem::offset_of!(SimtOptions, eager_copies) - 12usize];
    ["Offset of field: SimtOptions::os_threads"][::core::mem::offset_of!(SimtOptions, os_threads) - 16usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct AddParams {
    pub y: *mut core::ffi::c_void,
    pub x: *const core::ffi::c_void,
    pub len: core::ffi::c_ulonglong,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of AddParams"][::core::mem::size_of::<AddParams>() - 24usize];
    ["Alignment of AddParams"][::core::mem::align_of::<AddParams>() - 8usize];
    ["Offset of field: AddParams::y"][::core::mem::offset_of!(AddParams, y) - 0usize];
    ["Offset of field: AddParams::x"][::core::mem::offset_of!(AddParams, x) - 8usize];
    ["Offset of field: AddParams::len"][::core::mem::offset_of!(AddParams, len) - 16usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct SwigluParams {
    pub y: *mut core::ffi::c_void,
    pub x: *const core::ffi::c_void,
    pub rows: core::ffi::c_uint,
    pub width: core::ffi::c_uint,
    pub kind: core::ffi::c_uint,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of SwigluParams"][::core::mem::size_of::<SwigluParams>() - 32usize];
    ["Alignment of SwigluParams"][::core::mem::align_of::<SwigluParams>() - 8usize];
    ["Offset of field: SwigluParams::y"][::core::mem::offset_of!(SwigluParams, y) - 0usize];
    ["Offset of field: SwigluParams::x"][::core::mem::offset_of!(SwigluParams, x) - 8usize];
    ["Offset of field: SwigluParams::rows"][::core::mem::offset_of!(SwigluParams, rows) - 16usize];
    ["Offset of field: SwigluParams::width"][::core::mem::offset_of!(SwigluParams, width) - 20usize];
    ["Offset of field: SwigluParams::kind"][::core::mem::offset_of!(SwigluParams, kind) - 24usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct SwigluBwParams {
    pub dx: *mut core::ffi::c_void,
    pub dy: *const core::ffi::c_void,
    pub x: *const core::ffi::c_void,
    pub rows: core::ffi::c_uint,
    pub width: core::ffi::c_uint,
    pub kind: core::ffi::c_uint,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of SwigluBwParams"][::core::mem::size_of::<SwigluBwParams>() - 40usize];
    ["Alignment of SwigluBwParams"][::core::mem::align_of::<SwigluBwParams>() - 8usize];
    ["Offset of field: SwigluBwParams::dx"][::core::mem::offset_of!(SwigluBwParams, dx) - 0usize];
    ["Offset of field: SwigluBwParams::dy"][::core::mem::offset_of!(SwigluBwParams, dy) - 8usize];
    ["Offset of field: SwigluBwParams::x"][::core::mem::offset_of!(SwigluBwParams, x) - 16usize];
    ["Offset of field: SwigluBwParams::rows"][::core::mem::offset_of!(SwigluBwParams, rows) - 24usize];
    ["Offset of field: SwigluBwParams::width"][::core::mem::offset_of!(SwigluBwParams, width) - 28usize];
    ["Offset of field: SwigluBwParams::kind"][::core::mem::offset_of!(SwigluBwParams, kind) - 32usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct GeluParams {
    pub y: *mut core::ffi::c_void,
    pub x: *const core::ffi::c_void,
    pub len: core::ffi::c_ulonglong,
    pub kind: core::ffi::c_uint,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of GeluParams"][::core::mem::size_of::<GeluParams>() - 32usize];
    ["Alignment of GeluParams"][::core::mem::align_of::<GeluParams>() - 8usize];
    ["Offset of field: GeluParams::y"][::core::mem::offset_of!(GeluParams, y) - 0usize];
    ["Offset of field: GeluParams::x"][::core::mem::offset_of!(GeluParams, x) - 8usize];
    ["Offset of field: GeluParams::len"][::core::mem::offset_of!(GeluParams, len) - 16usize];
    ["Offset of field: GeluParams::kind"][::core::mem::offset_of!(GeluParams, kind) - 24usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct GeluBwParams {
    pub dx: *mut core::ffi::c_void,
    pub dy: *const core::ffi::c_void,
    pub x: *const core::ffi::c_void,
    pub len: core::ffi::c_ulonglong,
    pub kind: core::ffi::c_uint,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of GeluBwParams"][::core::mem::size_of::<GeluBwParams>() - 40usize];
    ["Alignment of GeluBwParams"][::core::mem::align_of::<GeluBwParams>() - 8usize];
    ["Offset of field: GeluBwParams::dx"][::core::mem::offset_of!(GeluBwParams, dx) - 0usize];
    ["Offset of field: GeluBwParams::dy"][::core::mem::offset_of!(GeluBwParams, dy) - 8usize];
    ["Offset of field: GeluBwParams::x"][::core::mem::offset_of!(GeluBwParams, x) - 16usize];
    ["Offset of field: GeluBwParams::len"][::core::mem::offset_of!(GeluBwParams, len) - 24usize];
    ["Offset of field: GeluBwParams::kind"][::core::mem::offset_of!(GeluBwParams, kind) - 32usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct RmsnormParams {
    pub y: *mut core::ffi::c_void,
    pub rstd: *mut f32,
    pub x: *const core::ffi::c_void,
    pub w: *const core::ffi::c_void,
    pub rows: core::ffi::c_uint,
    pub width: core::ffi::c_uint,
    pub eps: f32,
    pub one: f32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of RmsnormParams"][::core::mem::size_of::<RmsnormParams>() - 48usize];
    ["Alignment of RmsnormParams"][::core::mem::align_of::<RmsnormParams>() - 8usize];
    ["Offset of field: RmsnormParams::y"][::core::mem::offset_of!(RmsnormParams, y) - 0usize];
    ["Offset of field: RmsnormParams::rstd"][::core::mem::offset_of!(RmsnormParams, rstd) - 8usize];
    ["Offset of field: RmsnormParams::x"][::core::mem::offset_of!(RmsnormParams, x) - 16usize];
    ["Offset of field: RmsnormParams::w"][::core::mem::offset_of!(RmsnormParams, w) - 24usize];
    ["Offset of field: RmsnormParams::rows"][::core::mem::offset_of!(RmsnormParams, rows) - 32usize];
    ["Offset of field: RmsnormParams::width"][::core::mem::offset_of!(RmsnormParams, width) - 36usize];
    ["Offset of field: RmsnormParams::eps"][::core::mem::offset_of!(RmsnormParams, eps) - 40usize];
    ["Offset of field: RmsnormParams::one"][::core::mem::offset_of!(RmsnormParams, one) - 44usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct RmsnormBwParams {
    pub dx: *mut core::ffi::c_void,
    pub partials: *mut f32,
    pub sums: *mut f32,
    pub dy: *const core::ffi::c_void,
    pub x: *const core::ffi::c_void,
    pub rstd: *const f32,
    pub w: *const core::ffi::c_void,
    pub rows: core::ffi::c_uint,
    pub width: core::ffi::c_uint,
    pub rows_a_block: core::ffi::c_uint,
    pub one: f32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of RmsnormBwParams"][::core::mem::size_of::<RmsnormBwParams>() - 72usize];
    ["Alignment of RmsnormBwParams"][::core::mem::align_of::<RmsnormBwParams>() - 8usize];
    ["Offset of field: RmsnormBwParams::dx"][::core::mem::offset_of!(RmsnormBwParams, dx) - 0usize];
    ["Offset of field: RmsnormBwParams::partials"]
        [::core::mem::offset_of!(RmsnormBwParams, partials) - 8usize];
    ["Offset of field: RmsnormBwParams::sums"][::core::mem::offset_of!(RmsnormBwParams, sums) - 16usize];
    ["Offset of field: RmsnormBwParams::dy"][::core::mem::offset_of!(RmsnormBwParams, dy) - 24usize];
    ["Offset of field: RmsnormBwParams::x"][::core::mem::offset_of!(RmsnormBwParams, x) - 32usize];
    ["Offset of field: RmsnormBwParams::rstd"][::core::mem::offset_of!(RmsnormBwParams, rstd) - 40usize];
    ["Offset of field: RmsnormBwParams::w"][::core::mem::offset_of!(RmsnormBwParams, w) - 48usize];
    ["Offset of field: RmsnormBwParams::rows"][::core::mem::offset_of!(RmsnormBwParams, rows) - 56usize];
    ["Offset of field: RmsnormBwParams::width"][::core::mem::offset_of!(RmsnormBwParams, width) - 60usize];
    ["Offset of field: RmsnormBwParams::rows_a_block"]
        [::core::mem::offset_of!(RmsnormBwParams, rows_a_block) - 64usize];
    ["Offset of field: RmsnormBwParams::one"][::core::mem::offset_of!(RmsnormBwParams, one) - 68usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct LayernormParams {
    pub y: *mut core::ffi::c_void,
    pub stats: *mut f32,
    pub x: *const core::ffi::c_void,
    pub w: *const core::ffi::c_void,
    pub b: *const core::ffi::c_void,
    pub rows: core::ffi::c_uint,
    pub width: core::ffi::c_uint,
    pub eps: f32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of LayernormParams"][::core::mem::size_of::<LayernormParams>() - 56usize];
    ["Alignment of LayernormParams"][::core::mem::align_of::<LayernormParams>() - 8usize];
    ["Offset of field: LayernormParams::y"][::core::mem::offset_of!(LayernormParams, y) - 0usize];
    ["Offset of field: LayernormParams::stats"][::core::mem::offset_of!(LayernormParams, stats) - 8usize];
    ["Offset of field: LayernormParams::x"][::core::mem::offset_of!(LayernormParams, x) - 16usize];
    ["Offset of field: LayernormParams::w"][::core::mem::offset_of!(LayernormParams, w) - 24usize];
    ["Offset of field: LayernormParams::b"][::core::mem::offset_of!(LayernormParams, b) - 32usize];
    ["Offset of field: LayernormParams::rows"][::core::mem::offset_of!(LayernormParams, rows) - 40usize];
    ["Offset of field: LayernormParams::width"][::core::mem::offset_of!(LayernormParams, width) - 44usize];
    ["Offset of field: LayernormParams::eps"][::core::mem::offset_of!(LayernormParams, eps) - 48usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct LayernormBwParams {
    pub dx: *mut core::ffi::c_void,
    pub partials: *mut f32,
    pub sums: *mut f32,
    pub dy: *const core::ffi::c_void,
    pub x: *const core::ffi::c_void,
    pub stats: *const f32,
    pub w: *const core::ffi::c_void,
    pub rows: core::ffi::c_uint,
    pub width: core::ffi::c_uint,
    pub rows_a_block: core::ffi::c_uint,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of LayernormBwParams"][::core::mem::size_of::<LayernormBwParams>() - 72usize];
    ["Alignment of LayernormBwParams"][::core::mem::align_of::<LayernormBwParams>() - 8usize];
    ["Offset of field: LayernormBwParams::dx"][::core::mem::offset_of!(LayernormBwParams, dx) - 0usize];
    ["Offset of field: LayernormBwParams::partials"]
        [::core::mem::offset_of!(LayernormBwParams, partials) - 8usize];
    ["Offset of field: LayernormBwParams::sums"][::core::mem::offset_of!(LayernormBwParams, sums) - 16usize];
    ["Offset of field: LayernormBwParams::dy"][::core::mem::offset_of!(LayernormBwParams, dy) - 24usize];
    ["Offset of field: LayernormBwParams::x"][::core::mem::offset_of!(LayernormBwParams, x) - 32usize];
    ["Offset of field: LayernormBwParams::stats"]
        [::core::mem::offset_of!(LayernormBwParams, stats) - 40usize];
    ["Offset of field: LayernormBwParams::w"][::core::mem::offset_of!(LayernormBwParams, w) - 48usize];
    ["Offset of field: LayernormBwParams::rows"][::core::mem::offset_of!(LayernormBwParams, rows) - 56usize];
    ["Offset of field: LayernormBwParams::width"]
        [::core::mem::offset_of!(LayernormBwParams, width) - 60usize];
    ["Offset of field: LayernormBwParams::rows_a_block"]
        [::core::mem::offset_of!(LayernormBwParams, rows_a_block) - 64usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct QkNormParams {
    pub y: *mut core::ffi::c_void,
    pub rstd: *mut f32,
    pub x: *const core::ffi::c_void,
    pub wq: *const core::ffi::c_void,
    pub wk: *const core::ffi::c_void,
    pub rows: core::ffi::c_uint,
    pub heads: core::ffi::c_uint,
    pub kv_heads: core::ffi::c_uint,
    pub head_dim: core::ffi::c_uint,
    pub eps: f32,
    pub one: f32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of QkNormParams"][::core::mem::size_of::<QkNormParams>() - 64usize];
    ["Alignment of QkNormParams"][::core::mem::align_of::<QkNormParams>() - 8usize];
    ["Offset of field: QkNormParams::y"][::core::mem::offset_of!(QkNormParams, y) - 0usize];
    ["Offset of field: QkNormParams::rstd"][::core::mem::offset_of!(QkNormParams, rstd) - 8usize];
    ["Offset of field: QkNormParams::x"][::core::mem::offset_of!(QkNormParams, x) - 16usize];
    ["Offset of field: QkNormParams::wq"][::core::mem::offset_of!(QkNormParams, wq) - 24usize];
    ["Offset of field: QkNormParams::wk"][::core::mem::offset_of!(QkNormParams, wk) - 32usize];
    ["Offset of field: QkNormParams::rows"][::core::mem::offset_of!(QkNormParams, rows) - 40usize];
    ["Offset of field: QkNormParams::heads"][::core::mem::offset_of!(QkNormParams, heads) - 44usize];
    ["Offset of field: QkNormParams::kv_heads"][::core::mem::offset_of!(QkNormParams, kv_heads) - 48usize];
    ["Offset of field: QkNormParams::head_dim"][::core::mem::offset_of!(QkNormParams, head_dim) - 52usize];
    ["Offset of field: QkNormParams::eps"][::core::mem::offset_of!(QkNormParams, eps) - 56usize];
    ["Offset of field: QkNormParams::one"][::core::mem::offset_of!(QkNormParams, one) - 60usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct QkNormBwParams {
    pub dqkv: *mut core::ffi::c_void,
    pub partials: *mut f32,
    pub sums: *mut f32,
    pub x: *const core::ffi::c_void,
    pub rstd: *const f32,
    pub wq: *const core::ffi::c_void,
    pub wk: *const core::ffi::c_void,
    pub rows: core::ffi::c_uint,
    pub heads: core::ffi::c_uint,
    pub kv_heads: core::ffi::c_uint,
    pub head_dim: core::ffi::c_uint,
    pub rows_a_block: core::ffi::c_uint,
    pub one: f32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of QkNormBwParams"][::core::mem::size_of::<QkNormBwParams>() - 80usize];
    ["Alignment of QkNormBwParams"][::core::mem::align_of::<QkNormBwParams>() - 8usize];
    ["Offset of field: QkNormBwParams::dqkv"][::core::mem::offset_of!(QkNormBwParams, dqkv) - 0usize];
    ["Offset of field: QkNormBwParams::partials"][::core::mem::offset_of!(QkNormBwParams, partials) - 8usize];
    ["Offset of field: QkNormBwParams::sums"][::core::mem::offset_of!(QkNormBwParams, sums) - 16usize];
    ["Offset of field: QkNormBwParams::x"][::core::mem::offset_of!(QkNormBwParams, x) - 24usize];
    ["Offset of field: QkNormBwParams::rstd"][::core::mem::offset_of!(QkNormBwParams, rstd) - 32usize];
    ["Offset of field: QkNormBwParams::wq"][::core::mem::offset_of!(QkNormBwParams, wq) - 40usize];
    ["Offset of field: QkNormBwParams::wk"][::core::mem::offset_of!(QkNormBwParams, wk) - 48usize];
    ["Offset of field: QkNormBwParams::rows"][::core::mem::offset_of!(QkNormBwParams, rows) - 56usize];
    ["Offset of field: QkNormBwParams::heads"][::core::mem::offset_of!(QkNormBwParams, heads) - 60usize];
    ["Offset of field: QkNormBwParams::kv_heads"]
        [::core::mem::offset_of!(QkNormBwParams, kv_heads) - 64usize];
    ["Offset of field: QkNormBwParams::head_dim"]
        [::core::mem::offset_of!(QkNormBwParams, head_dim) - 68usize];
    ["Offset of field: QkNormBwParams::rows_a_block"]
        [::core::mem::offset_of!(QkNormBwParams, rows_a_block) - 72usize];
    ["Offset of field: QkNormBwParams::one"][::core::mem::offset_of!(QkNormBwParams, one) - 76usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct ScaleParams {
    pub y: *mut core::ffi::c_void,
    pub len: core::ffi::c_ulonglong,
    pub factor: f32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of ScaleParams"][::core::mem::size_of::<ScaleParams>() - 24usize];
    ["Alignment of ScaleParams"][::core::mem::align_of::<ScaleParams>() - 8usize];
    ["Offset of field: ScaleParams::y"][::core::mem::offset_of!(ScaleParams, y) - 0usize];
    ["Offset of field: ScaleParams::len"][::core::mem::offset_of!(ScaleParams, len) - 8usize];
    ["Offset of field: ScaleParams::factor"][::core::mem::offset_of!(ScaleParams, factor) - 16usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct GatherParams {
    pub y: *mut core::ffi::c_void,
    pub table: *const core::ffi::c_void,
    pub pos_table: *const core::ffi::c_void,
    pub index: *const core::ffi::c_uint,
    pub positions: *const core::ffi::c_uint,
    pub rows: core::ffi::c_uint,
    pub width: core::ffi::c_uint,
    pub table_rows: core::ffi::c_uint,
    pub pos_rows: core::ffi::c_uint,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of GatherParams"][::core::mem::size_of::<GatherParams>() - 56usize];
    ["Alignment of GatherParams"][::core::mem::align_of::<GatherParams>() - 8usize];
    ["Offset of field: GatherParams::y"][::core::mem::offset_of!(GatherParams, y) - 0usize];
    ["Offset of field: GatherParams::table"][::core::mem::offset_of!(GatherParams, table) - 8usize];
    ["Offset of field: GatherParams::pos_table"][::core::mem::offset_of!(GatherParams, pos_table) - 16usize];
    ["Offset of field: GatherParams::index"][::core::mem::offset_of!(GatherParams, index) - 24usize];
    ["Offset of field: GatherParams::positions"][::core::mem::offset_of!(GatherParams, positions) - 32usize];
    ["Offset of field: GatherParams::rows"][::core::mem::offset_of!(GatherParams, rows) - 40usize];
    ["Offset of field: GatherParams::width"][::core::mem::offset_of!(GatherParams, width) - 44usize];
    ["Offset of field: GatherParams::table_rows"]
        [::core::mem::offset_of!(GatherParams, table_rows) - 48usize];
    ["Offset of field: GatherParams::pos_rows"][::core::mem::offset_of!(GatherParams, pos_rows) - 52usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct SortRowsParams {
    pub order: *mut core::ffi::c_uint,
    pub keys: *mut core::ffi::c_uint,
    pub index: *const core::ffi::c_uint,
    pub rows: core::ffi::c_uint,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of SortRowsParams"][::core::mem::size_of::<SortRowsParams>() - 32usize];
    ["Alignment of SortRowsParams"][::core::mem::align_of::<SortRowsParams>() - 8usize];
    ["Offset of field: SortRowsParams::order"][::core::mem::offset_of!(SortRowsParams, order) - 0usize];
    ["Offset of field: SortRowsParams::keys"][::core::mem::offset_of!(SortRowsParams, keys) - 8usize];
    ["Offset of field: SortRowsParams::index"][::core::mem::offset_of!(SortRowsParams, index) - 16usize];
    ["Offset of field: SortRowsParams::rows"][::core::mem::offset_of!(SortRowsParams, rows) - 24usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct ScatterAddParams {
    pub table: *mut core::ffi::c_void,
    pub dy: *const core::ffi::c_void,
    pub order: *const core::ffi::c_uint,
    pub keys: *const core::ffi::c_uint,
    pub rows: core::ffi::c_uint,
    pub width: core::ffi::c_uint,
    pub table_rows: core::ffi::c_uint,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of ScatterAddParams"][::core::mem::size_of::<ScatterAddParams>() - 48usize];
    ["Alignment of ScatterAddParams"][::core::mem::align_of::<ScatterAddParams>() - 8usize];
    ["Offset of field: ScatterAddParams::table"][::core::mem::offset_of!(ScatterAddParams, table) - 0usize];
    ["Offset of field: ScatterAddParams::dy"][::core::mem::offset_of!(ScatterAddParams, dy) - 8usize];
    ["Offset of field: ScatterAddParams::order"][::core::mem::offset_of!(ScatterAddParams, order) - 16usize];
    ["Offset of field: ScatterAddParams::keys"][::core::mem::offset_of!(ScatterAddParams, keys) - 24usize];
    ["Offset of field: ScatterAddParams::rows"][::core::mem::offset_of!(ScatterAddParams, rows) - 32usize];
    ["Offset of field: ScatterAddParams::width"][::core::mem::offset_of!(ScatterAddParams, width) - 36usize];
    ["Offset of field: ScatterAddParams::table_rows"]
        [::core::mem::offset_of!(ScatterAddParams, table_rows) - 40usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct RopeParams {
    pub qkv: *mut core::ffi::c_void,
    pub table: *const f32,
    pub positions: *const core::ffi::c_uint,
    pub rows: core::ffi::c_uint,
    pub width: core::ffi::c_uint,
    pub heads: core::ffi::c_uint,
    pub head_dim: core::ffi::c_uint,
    pub table_rows: core::ffi::c_uint,
    pub sign: f32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of RopeParams"][::core::mem::size_of::<RopeParams>() - 48usize];
    ["Alignment of RopeParams"][::core::mem::align_of::<RopeParams>() - 8usize];
    ["Offset of field: RopeParams::qkv"][::core::mem::offset_of!(RopeParams, qkv) - 0usize];
    ["Offset of field: RopeParams::table"][::core::mem::offset_of!(RopeParams, table) - 8usize];
    ["Offset of field: RopeParams::positions"][::core::mem::offset_of!(RopeParams, positions) - 16usize];
    ["Offset of field: RopeParams::rows"][::core::mem::offset_of!(RopeParams, rows) - 24usize];
    ["Offset of field: RopeParams::width"][::core::mem::offset_of!(RopeParams, width) - 28usize];
    ["Offset of field: RopeParams::heads"][::core::mem::offset_of!(RopeParams, heads) - 32usize];
    ["Offset of field: RopeParams::head_dim"][::core::mem::offset_of!(RopeParams, head_dim) - 36usize];
    ["Offset of field: RopeParams::table_rows"][::core::mem::offset_of!(RopeParams, table_rows) - 40usize];
    ["Offset of field: RopeParams::sign"][::core::mem::offset_of!(RopeParams, sign) - 44usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct AdamwParams {
    pub w: *mut core::ffi::c_void,
    pub master: *mut f32,
    pub m: *mut f32,
    pub v: *mut f32,
    pub g: *const f32,
    pub clip: *const f32,
    pub len: core::ffi::c_ulonglong,
    pub random_key: core::ffi::c_ulonglong,
    pub grad_scale: f32,
    pub beta1: f32,
    pub beta2: f32,
    pub one_minus_beta1: f32,
    pub one_minus_beta2: f32,
    pub eps: f32,
    pub step_size: f32,
    pub inverse_root: f32,
    pub keep: f32,
    pub stochastic: core::ffi::c_uint,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of AdamwParams"][::core::mem::size_of::<AdamwParams>() - 104usize];
    ["Alignment of AdamwParams"][::core::mem::align_of::<AdamwParams>() - 8usize];
    ["Offset of field: AdamwParams::w"][::core::mem::offset_of!(AdamwParams, w) - 0usize];
    ["Offset of field: AdamwParams::master"][::core::mem::offset_of!(AdamwParams, master) - 8usize];
    ["Offset of field: AdamwParams::m"][::core::mem::offset_of!(AdamwParams, m) - 16usize];
    ["Offset of field: AdamwParams::v"][::core::mem::offset_of!(AdamwParams, v) - 24usize];
    ["Offset of field: AdamwParams::g"][::core::mem::offset_of!(AdamwParams, g) - 32usize];
    ["Offset of field: AdamwParams::clip"][::core::mem::offset_of!(AdamwParams, clip) - 40usize];
    ["Offset of field: AdamwParams::len"][::core::mem::offset_of!(AdamwParams, len) - 48usize];
    ["Offset of field: AdamwParams::random_key"][::core::mem::offset_of!(AdamwParams, random_key) - 56usize];
    ["Offset of field: AdamwParams::grad_scale"][::core::mem::offset_of!(AdamwParams, grad_scale) - 64usize];
    ["Offset of field: AdamwParams::beta1"][::core::mem::offset_of!(AdamwParams, beta1) - 68usize];
    ["Offset of field: AdamwParams::beta2"][::core::mem::offset_of!(AdamwParams, beta2) - 72usize];
    ["Offset of field: AdamwParams::one_minus_beta1"]
        [::core::mem::offset_of!(AdamwParams, one_minus_beta1) - 76usize];
    ["Offset of field: AdamwParams::one_minus_beta2"]
        [::core::mem::offset_of!(AdamwParams, one_minus_beta2) - 80usize];
    ["Offset of field: AdamwParams::eps"][::core::mem::offset_of!(AdamwParams, eps) - 84usize];
    ["Offset of field: AdamwParams::step_size"][::core::mem::offset_of!(AdamwParams, step_size) - 88usize];
    ["Offset of field: AdamwParams::inverse_root"]
        [::core::mem::offset_of!(AdamwParams, inverse_root) - 92usize];
    ["Offset of field: AdamwParams::keep"][::core::mem::offset_of!(AdamwParams, keep) - 96usize];
    ["Offset of field: AdamwParams::stochastic"][::core::mem::offset_of!(AdamwParams, stochastic) - 100usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct RmspropParams {
    pub w: *mut core::ffi::c_void,
    pub master: *mut f32,
    pub v: *mut f32,
    pub g: *const f32,
    pub clip: *const f32,
    pub len: core::ffi::c_ulonglong,
    pub random_key: core::ffi::c_ulonglong,
    pub grad_scale: f32,
    pub alpha: f32,
    pub one_minus_alpha: f32,
    pub eps: f32,
    pub lr: f32,
    pub weight_decay: f32,
    pub stochastic: core::ffi::c_uint,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of RmspropParams"][::core::mem::size_of::<RmspropParams>() - 88usize];
    ["Alignment of RmspropParams"][::core::mem::align_of::<RmspropParams>() - 8usize];
    ["Offset of field: RmspropParams::w"][::core::mem::offset_of!(RmspropParams, w) - 0usize];
    ["Offset of field: RmspropParams::master"][::core::mem::offset_of!(RmspropParams, master) - 8usize];
    ["Offset of field: RmspropParams::v"][::core::mem::offset_of!(RmspropParams, v) - 16usize];
    ["Offset of field: RmspropParams::g"][::core::mem::offset_of!(RmspropParams, g) - 24usize];
    ["Offset of field: RmspropParams::clip"][::core::mem::offset_of!(RmspropParams, clip) - 32usize];
    ["Offset of field: RmspropParams::len"][::core::mem::offset_of!(RmspropParams, len) - 40usize];
    ["Offset of field: RmspropParams::random_key"]
        [::core::mem::offset_of!(RmspropParams, random_key) - 48usize];
    ["Offset of field: RmspropParams::grad_scale"]
        [::core::mem::offset_of!(RmspropParams, grad_scale) - 56usize];
    ["Offset of field: RmspropParams::alpha"][::core::mem::offset_of!(RmspropParams, alpha) - 60usize];
    ["Offset of field: RmspropParams::one_minus_alpha"]
        [::core::mem::offset_of!(RmspropParams, one_minus_alpha) - 64usize];
    ["Offset of field: RmspropParams::eps"][::core::mem::offset_of!(RmspropParams, eps) - 68usize];
    ["Offset of field: RmspropParams::lr"][::core::mem::offset_of!(RmspropParams, lr) - 72usize];
    ["Offset of field: RmspropParams::weight_decay"]
        [::core::mem::offset_of!(RmspropParams, weight_decay) - 76usize];
    ["Offset of field: RmspropParams::stochastic"]
        [::core::mem::offset_of!(RmspropParams, stochastic) - 80usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct ColumnSumsParams {
    pub partials: *mut f32,
    pub dy: *const core::ffi::c_void,
    pub rows: core::ffi::c_uint,
    pub width: core::ffi::c_uint,
    pub rows_a_block: core::ffi::c_uint,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of ColumnSumsParams"][::core::mem::size_of::<ColumnSumsParams>() - 32usize];
    ["Alignment of ColumnSumsParams"][::core::mem::align_of::<ColumnSumsParams>() - 8usize];
    ["Offset of field: ColumnSumsParams::partials"]
        [::core::mem::offset_of!(ColumnSumsParams, partials) - 0usize];
    ["Offset of field: ColumnSumsParams::dy"][::core::mem::offset_of!(ColumnSumsParams, dy) - 8usize];
    ["Offset of field: ColumnSumsParams::rows"][::core::mem::offset_of!(ColumnSumsParams, rows) - 16usize];
    ["Offset of field: ColumnSumsParams::width"][::core::mem::offset_of!(ColumnSumsParams, width) - 20usize];
    ["Offset of field: ColumnSumsParams::rows_a_block"]
        [::core::mem::offset_of!(ColumnSumsParams, rows_a_block) - 24usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct ColumnReduceParams {
    pub out: [*mut f32; 2usize],
    pub partials: *const f32,
    pub parts: core::ffi::c_uint,
    pub width: core::ffi::c_uint,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of ColumnReduceParams"][::core::mem::size_of::<ColumnReduceParams>() - 32usize];
    ["Alignment of ColumnReduceParams"][::core::mem::align_of::<ColumnReduceParams>() - 8usize];
    ["Offset of field: ColumnReduceParams::out"][::core::mem::offset_of!(ColumnReduceParams, out) - 0usize];
    ["Offset of field: ColumnReduceParams::partials"]
        [::core::mem::offset_of!(ColumnReduceParams, partials) - 16usize];
    ["Offset of field: ColumnReduceParams::parts"]
        [::core::mem::offset_of!(ColumnReduceParams, parts) - 24usize];
    ["Offset of field: ColumnReduceParams::width"]
        [::core::mem::offset_of!(ColumnReduceParams, width) - 28usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct SumsqParams {
    pub partials: *mut f64,
    pub x: *const f32,
    pub len: core::ffi::c_ulonglong,
    pub block: core::ffi::c_uint,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of SumsqParams"][::core::mem::size_of::<SumsqParams>() - 32usize];
    ["Alignment of SumsqParams"][::core::mem::align_of::<SumsqParams>() - 8usize];
    ["Offset of field: SumsqParams::partials"][::core::mem::offset_of!(SumsqParams, partials) - 0usize];
    ["Offset of field: SumsqParams::x"][::core::mem::offset_of!(SumsqParams, x) - 8usize];
    ["Offset of field: SumsqParams::len"][::core::mem::offset_of!(SumsqParams, len) - 16usize];
    ["Offset of field: SumsqParams::block"][::core::mem::offset_of!(SumsqParams, block) - 24usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct SumDoublesParams {
    pub out: *mut f64,
    pub x: *const f64,
    pub len: core::ffi::c_uint,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of SumDoublesParams"][::core::mem::size_of::<SumDoublesParams>() - 24usize];
    ["Alignment of SumDoublesParams"][::core::mem::align_of::<SumDoublesParams>() - 8usize];
    ["Offset of field: SumDoublesParams::out"][::core::mem::offset_of!(SumDoublesParams, out) - 0usize];
    ["Offset of field: SumDoublesParams::x"][::core::mem::offset_of!(SumDoublesParams, x) - 8usize];
    ["Offset of field: SumDoublesParams::len"][::core::mem::offset_of!(SumDoublesParams, len) - 16usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct ClipScaleParams {
    pub scale: *mut f32,
    pub sums: *const f64,
    pub max_norm: f64,
    pub len: core::ffi::c_uint,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of ClipScaleParams"][::core::mem::size_of::<ClipScaleParams>() - 32usize];
    ["Alignment of ClipScaleParams"][::core::mem::align_of::<ClipScaleParams>() - 8usize];
    ["Offset of field: ClipScaleParams::scale"][::core::mem::offset_of!(ClipScaleParams, scale) - 0usize];
    ["Offset of field: ClipScaleParams::sums"][::core::mem::offset_of!(ClipScaleParams, sums) - 8usize];
    ["Offset of field: ClipScaleParams::max_norm"]
        [::core::mem::offset_of!(ClipScaleParams, max_norm) - 16usize];
    ["Offset of field: ClipScaleParams::len"][::core::mem::offset_of!(ClipScaleParams, len) - 24usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct LinearParams {
    pub out: *mut core::ffi::c_void,
    pub left: *const core::ffi::c_void,
    pub right: *const core::ffi::c_void,
    pub bias: *const core::ffi::c_void,
    pub residual: *const core::ffi::c_void,
    pub rows: core::ffi::c_uint,
    pub columns: core::ffi::c_uint,
    pub depth: core::ffi::c_uint,
    pub part: core::ffi::c_uint,
    pub parts: core::ffi::c_uint,
    pub out_stride: core::ffi::c_uint,
    pub left_stride: core::ffi::c_uint,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of LinearParams"][::core::mem::size_of::<LinearParams>() - 72usize];
    ["Alignment of LinearParams"][::core::mem::align_of::<LinearParams>() - 8usize];
    ["Offset of field: LinearParams::out"][::core::mem::offset_of!(LinearParams, out) - 0usize];
    ["Offset of field: LinearParams::left"][::core::mem::offset_of!(LinearParams, left) - 8usize];
    ["Offset of field: LinearParams::right"][::core::mem::offset_of!(LinearParams, right) - 16usize];
    ["Offset of field: LinearParams::bias"][::core::mem::offset_of!(LinearParams, bias) - 24usize];
    ["Offset of field: LinearParams::residual"][::core::mem::offset_of!(LinearParams, residual) - 32usize];
    ["Offset of field: LinearParams::rows"][::core::mem::offset_of!(LinearParams, rows) - 40usize];
    ["Offset of field: LinearParams::columns"][::core::mem::offset_of!(LinearParams, columns) - 44usize];
    ["Offset of field: LinearParams::depth"][::core::mem::offset_of!(LinearParams, depth) - 48usize];
    ["Offset of field: LinearParams::part"][::core::mem::offset_of!(LinearParams, part) - 52usize];
    ["Offset of field: LinearParams::parts"][::core::mem::offset_of!(LinearParams, parts) - 56usize];
    ["Offset of field: LinearParams::out_stride"]
        [::core::mem::offset_of!(LinearParams, out_stride) - 60usize];
    ["Offset of field: LinearParams::left_stride"]
        [::core::mem::offset_of!(LinearParams, left_stride) - 64usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct PartsSumParams {
    pub out: *mut f32,
    pub parts: *const f32,
    pub len: core::ffi::c_ulonglong,
    pub count: core::ffi::c_uint,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PartsSumParams"][::core::mem::size_of::<PartsSumParams>() - 32usize];
    ["Alignment of PartsSumParams"][::core::mem::align_of::<PartsSumParams>() - 8usize];
    ["Offset of field: PartsSumParams::out"][::core::mem::offset_of!(PartsSumParams, out) - 0usize];
    ["Offset of field: PartsSumParams::parts"][::core::mem::offset_of!(PartsSumParams, parts) - 8usize];
    ["Offset of field: PartsSumParams::len"][::core::mem::offset_of!(PartsSumParams, len) - 16usize];
    ["Offset of field: PartsSumParams::count"][::core::mem::offset_of!(PartsSumParams, count) - 24usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct LogprobParams {
    pub logits: *const core::ffi::c_void,
    pub targets: *const core::ffi::c_uint,
    pub logp: *mut f32,
    pub lse: *mut f32,
    pub entropy: *mut f32,
    pub mean_logit: *mut f32,
    pub hit: *mut f32,
    pub collision: *mut f32,
    pub vocab: core::ffi::c_uint,
    pub stride: core::ffi::c_uint,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of LogprobParams"][::core::mem::size_of::<LogprobParams>() - 72usize];
    ["Alignment of LogprobParams"][::core::mem::align_of::<LogprobParams>() - 8usize];
    ["Offset of field: LogprobParams::logits"][::core::mem::offset_of!(LogprobParams, logits) - 0usize];
    ["Offset of field: LogprobParams::targets"][::core::mem::offset_of!(LogprobParams, targets) - 8usize];
    ["Offset of field: LogprobParams::logp"][::core::mem::offset_of!(LogprobParams, logp) - 16usize];
    ["Offset of field: LogprobParams::lse"][::core::mem::offset_of!(LogprobParams, lse) - 24usize];
    ["Offset of field: LogprobParams::entropy"][::core::mem::offset_of!(LogprobParams, entropy) - 32usize];
    ["Offset of field: LogprobParams::mean_logit"]
        [::core::mem::offset_of!(LogprobParams, mean_logit) - 40usize];
    ["Offset of field: LogprobParams::hit"][::core::mem::offset_of!(LogprobParams, hit) - 48usize];
    ["Offset of field: LogprobParams::collision"]
        [::core::mem::offset_of!(LogprobParams, collision) - 56usize];
    ["Offset of field: LogprobParams::vocab"][::core::mem::offset_of!(LogprobParams, vocab) - 64usize];
    ["Offset of field: LogprobParams::stride"][::core::mem::offset_of!(LogprobParams, stride) - 68usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct SoftCapParams {
    pub logits: *mut core::ffi::c_void,
    pub vocab: core::ffi::c_uint,
    pub stride: core::ffi::c_uint,
    pub cap: f32,
    pub inverse: f32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of SoftCapParams"][::core::mem::size_of::<SoftCapParams>() - 24usize];
    ["Alignment of SoftCapParams"][::core::mem::align_of::<SoftCapParams>() - 8usize];
    ["Offset of field: SoftCapParams::logits"][::core::mem::offset_of!(SoftCapParams, logits) - 0usize];
    ["Offset of field: SoftCapParams::vocab"][::core::mem::offset_of!(SoftCapParams, vocab) - 8usize];
    ["Offset of field: SoftCapParams::stride"][::core::mem::offset_of!(SoftCapParams, stride) - 12usize];
    ["Offset of field: SoftCapParams::cap"][::core::mem::offset_of!(SoftCapParams, cap) - 16usize];
    ["Offset of field: SoftCapParams::inverse"][::core::mem::offset_of!(SoftCapParams, inverse) - 20usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct LogprobBwParams {
    pub logits: *mut core::ffi::c_void,
    pub lse: *const f32,
    pub coef: *const f32,
    pub targets: *const core::ffi::c_uint,
    pub vocab: core::ffi::c_uint,
    pub stride: core::ffi::c_uint,
    pub inverse: f32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of LogprobBwParams"][::core::mem::size_of::<LogprobBwParams>() - 48usize];
    ["Alignment of LogprobBwParams"][::core::mem::align_of::<LogprobBwParams>() - 8usize];
    ["Offset of field: LogprobBwParams::logits"][::core::mem::offset_of!(LogprobBwParams, logits) - 0usize];
    ["Offset of field: LogprobBwParams::lse"][::core::mem::offset_of!(LogprobBwParams, lse) - 8usize];
    ["Offset of field: LogprobBwParams::coef"][::core::mem::offset_of!(LogprobBwParams, coef) - 16usize];
    ["Offset of field: LogprobBwParams::targets"]
        [::core::mem::offset_of!(LogprobBwParams, targets) - 24usize];
    ["Offset of field: LogprobBwParams::vocab"][::core::mem::offset_of!(LogprobBwParams, vocab) - 32usize];
    ["Offset of field: LogprobBwParams::stride"][::core::mem::offset_of!(LogprobBwParams, stride) - 36usize];
    ["Offset of field: LogprobBwParams::inverse"]
        [::core::mem::offset_of!(LogprobBwParams, inverse) - 40usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct KlParams {
    pub kl: *mut f32,
    pub p: *const core::ffi::c_void,
    pub p_lse: *const f32,
    pub q: *const core::ffi::c_void,
    pub q_lse: *const f32,
    pub vocab: core::ffi::c_uint,
    pub stride: core::ffi::c_uint,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of KlParams"][::core::mem::size_of::<KlParams>() - 48usize];
    ["Alignment of KlParams"][::core::mem::align_of::<KlParams>() - 8usize];
    ["Offset of field: KlParams::kl"][::core::mem::offset_of!(KlParams, kl) - 0usize];
    ["Offset of field: KlParams::p"][::core::mem::offset_of!(KlParams, p) - 8usize];
    ["Offset of field: KlParams::p_lse"][::core::mem::offset_of!(KlParams, p_lse) - 16usize];
    ["Offset of field: KlParams::q"][::core::mem::offset_of!(KlParams, q) - 24usize];
    ["Offset of field: KlParams::q_lse"][::core::mem::offset_of!(KlParams, q_lse) - 32usize];
    ["Offset of field: KlParams::vocab"][::core::mem::offset_of!(KlParams, vocab) - 40usize];
    ["Offset of field: KlParams::stride"][::core::mem::offset_of!(KlParams, stride) - 44usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct SampleParams {
    pub tokens: *mut core::ffi::c_uint,
    pub logp: *mut f32,
    pub logits: *const core::ffi::c_void,
    pub draws: *const f32,
    pub vocab: core::ffi::c_uint,
    pub stride: core::ffi::c_uint,
    pub greedy: core::ffi::c_uint,
    pub top_k: core::ffi::c_uint,
    pub factor: f32,
    pub top_p: f32,
    pub least: f32,
    pub min_p: f32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of SampleParams"][::core::mem::size_of::<SampleParams>() - 64usize];
    ["Alignment of SampleParams"][::core::mem::align_of::<SampleParams>() - 8usize];
    ["Offset of field: SampleParams::tokens"][::core::mem::offset_of!(SampleParams, tokens) - 0usize];
    ["Offset of field: SampleParams::logp"][::core::mem::offset_of!(SampleParams, logp) - 8usize];
    ["Offset of field: SampleParams::logits"][::core::mem::offset_of!(SampleParams, logits) - 16usize];
    ["Offset of field: SampleParams::draws"][::core::mem::offset_of!(SampleParams, draws) - 24usize];
    ["Offset of field: SampleParams::vocab"][::core::mem::offset_of!(SampleParams, vocab) - 32usize];
    ["Offset of field: SampleParams::stride"][::core::mem::offset_of!(SampleParams, stride) - 36usize];
    ["Offset of field: SampleParams::greedy"][::core::mem::offset_of!(SampleParams, greedy) - 40usize];
    ["Offset of field: SampleParams::top_k"][::core::mem::offset_of!(SampleParams, top_k) - 44usize];
    ["Offset of field: SampleParams::factor"][::core::mem::offset_of!(SampleParams, factor) - 48usize];
    ["Offset of field: SampleParams::top_p"][::core::mem::offset_of!(SampleParams, top_p) - 52usize];
    ["Offset of field: SampleParams::least"][::core::mem::offset_of!(SampleParams, least) - 56usize];
    ["Offset of field: SampleParams::min_p"][::core::mem::offset_of!(SampleParams, min_p) - 60usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct PenaliseParams {
    pub logits: *mut core::ffi::c_void,
    pub seen: *const core::ffi::c_uint,
    pub pairs: core::ffi::c_uint,
    pub rows: core::ffi::c_uint,
    pub vocab: core::ffi::c_uint,
    pub stride: core::ffi::c_uint,
    pub penalty: f32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PenaliseParams"][::core::mem::size_of::<PenaliseParams>() - 40usize];
    ["Alignment of PenaliseParams"][::core::mem::align_of::<PenaliseParams>() - 8usize];
    ["Offset of field: PenaliseParams::logits"][::core::mem::offset_of!(PenaliseParams, logits) - 0usize];
    ["Offset of field: PenaliseParams::seen"][::core::mem::offset_of!(PenaliseParams, seen) - 8usize];
    ["Offset of field: PenaliseParams::pairs"][::core::mem::offset_of!(PenaliseParams, pairs) - 16usize];
    ["Offset of field: PenaliseParams::rows"][::core::mem::offset_of!(PenaliseParams, rows) - 20usize];
    ["Offset of field: PenaliseParams::vocab"][::core::mem::offset_of!(PenaliseParams, vocab) - 24usize];
    ["Offset of field: PenaliseParams::stride"][::core::mem::offset_of!(PenaliseParams, stride) - 28usize];
    ["Offset of field: PenaliseParams::penalty"][::core::mem::offset_of!(PenaliseParams, penalty) - 32usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct BlendParams {
    pub logits: *mut core::ffi::c_void,
    pub other: *const core::ffi::c_void,
    pub vocab: core::ffi::c_uint,
    pub stride: core::ffi::c_uint,
    pub m: f32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of BlendParams"][::core::mem::size_of::<BlendParams>() - 32usize];
    ["Alignment of BlendParams"][::core::mem::align_of::<BlendParams>() - 8usize];
    ["Offset of field: BlendParams::logits"][::core::mem::offset_of!(BlendParams, logits) - 0usize];
    ["Offset of field: BlendParams::other"][::core::mem::offset_of!(BlendParams, other) - 8usize];
    ["Offset of field: BlendParams::vocab"][::core::mem::offset_of!(BlendParams, vocab) - 16usize];
    ["Offset of field: BlendParams::stride"][::core::mem::offset_of!(BlendParams, stride) - 20usize];
    ["Offset of field: BlendParams::m"][::core::mem::offset_of!(BlendParams, m) - 24usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct PreferenceParams {
    pub coef: *mut f32,
    pub sums: *mut f64,
    pub logp: *const f32,
    pub entropy: *const f32,
    pub mean_logit: *const f32,
    pub hit: *const f32,
    pub collision: *const f32,
    pub weights: *const f64,
    pub reference: *const f64,
    pub margins: *const f64,
    pub responses: *const core::ffi::c_uint,
    pub groups: *const core::ffi::c_uint,
    pub beta: f64,
    pub label_smoothing: f64,
    pub share: f64,
    pub rule: core::ffi::c_uint,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PreferenceParams"][::core::mem::size_of::<PreferenceParams>() - 128usize];
    ["Alignment of PreferenceParams"][::core::mem::align_of::<PreferenceParams>() - 8usize];
    ["Offset of field: PreferenceParams::coef"][::core::mem::offset_of!(PreferenceParams, coef) - 0usize];
    ["Offset of field: PreferenceParams::sums"][::core::mem::offset_of!(PreferenceParams, sums) - 8usize];
    ["Offset of field: PreferenceParams::logp"][::core::mem::offset_of!(PreferenceParams, logp) - 16usize];
    ["Offset of field: PreferenceParams::entropy"]
        [::core::mem::offset_of!(PreferenceParams, entropy) - 24usize];
    ["Offset of field: PreferenceParams::mean_logit"]
        [::core::mem::offset_of!(PreferenceParams, mean_logit) - 32usize];
    ["Offset of field: PreferenceParams::hit"][::core::mem::offset_of!(PreferenceParams, hit) - 40usize];
    ["Offset of field: PreferenceParams::collision"]
        [::core::mem::offset_of!(PreferenceParams, collision) - 48usize];
    ["Offset of field: PreferenceParams::weights"]
        [::core::mem::offset_of!(PreferenceParams, weights) - 56usize];
    ["Offset of field: PreferenceParams::reference"]
        [::core::mem::offset_of!(PreferenceParams, reference) - 64usize];
    ["Offset of field: PreferenceParams::margins"]
        [::core::mem::offset_of!(PreferenceParams, margins) - 72usize];
    ["Offset of field: PreferenceParams::responses"]
        [::core::mem::offset_of!(PreferenceParams, responses) - 80usize];
    ["Offset of field: PreferenceParams::groups"]
        [::core::mem::offset_of!(PreferenceParams, groups) - 88usize];
    ["Offset of field: PreferenceParams::beta"][::core::mem::offset_of!(PreferenceParams, beta) - 96usize];
    ["Offset of field: PreferenceParams::label_smoothing"]
        [::core::mem::offset_of!(PreferenceParams, label_smoothing) - 104usize];
    ["Offset of field: PreferenceParams::share"][::core::mem::offset_of!(PreferenceParams, share) - 112usize];
    ["Offset of field: PreferenceParams::rule"][::core::mem::offset_of!(PreferenceParams, rule) - 120usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct QueryTile {
    pub first: core::ffi::c_uint,
    pub end: core::ffi::c_uint,
    pub segment: core::ffi::c_uint,
    pub prefix: core::ffi::c_uint,
    pub prefix_end: core::ffi::c_uint,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of QueryTile"][::core::mem::size_of::<QueryTile>() - 20usize];
    ["Alignment of QueryTile"][::core::mem::align_of::<QueryTile>() - 4usize];
    ["Offset of field: QueryTile::first"][::core::mem::offset_of!(QueryTile, first) - 0usize];
    ["Offset of field: QueryTile::end"][::core::mem::offset_of!(QueryTile, end) - 4usize];
    ["Offset of field: QueryTile::segment"][::core::mem::offset_of!(QueryTile, segment) - 8usize];
    ["Offset of field: QueryTile::prefix"][::core::mem::offset_of!(QueryTile, prefix) - 12usize];
    ["Offset of field: QueryTile::prefix_end"][::core::mem::offset_of!(QueryTile, prefix_end) - 16usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct KeyTile {
    pub first: core::ffi::c_uint,
    pub end: core::ffi::c_uint,
    pub query_end: core::ffi::c_uint,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of KeyTile"][::core::mem::size_of::<KeyTile>() - 12usize];
    ["Alignment of KeyTile"][::core::mem::align_of::<KeyTile>() - 4usize];
    ["Offset of field: KeyTile::first"][::core::mem::offset_of!(KeyTile, first) - 0usize];
    ["Offset of field: KeyTile::end"][::core::mem::offset_of!(KeyTile, end) - 4usize];
    ["Offset of field: KeyTile::query_end"][::core::mem::offset_of!(KeyTile, query_end) - 8usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct AttentionParams {
    pub o: *mut core::ffi::c_void,
    pub lse: *mut f32,
    pub qkv: *const core::ffi::c_void,
    pub tiles: *const QueryTile,
    pub heads: core::ffi::c_uint,
    pub kv_heads: core::ffi::c_uint,
    pub head_dim: core::ffi::c_uint,
    pub scale: f32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of AttentionParams"][::core::mem::size_of::<AttentionParams>() - 48usize];
    ["Alignment of AttentionParams"][::core::mem::align_of::<AttentionParams>() - 8usize];
    ["Offset of field: AttentionParams::o"][::core::mem::offset_of!(AttentionParams, o) - 0usize];
    ["Offset of field: AttentionParams::lse"][::core::mem::offset_of!(AttentionParams, lse) - 8usize];
    ["Offset of field: AttentionParams::qkv"][::core::mem::offset_of!(AttentionParams, qkv) - 16usize];
    ["Offset of field: AttentionParams::tiles"][::core::mem::offset_of!(AttentionParams, tiles) - 24usize];
    ["Offset of field: AttentionParams::heads"][::core::mem::offset_of!(AttentionParams, heads) - 32usize];
    ["Offset of field: AttentionParams::kv_heads"]
        [::core::mem::offset_of!(AttentionParams, kv_heads) - 36usize];
    ["Offset of field: AttentionParams::head_dim"]
        [::core::mem::offset_of!(AttentionParams, head_dim) - 40usize];
    ["Offset of field: AttentionParams::scale"][::core::mem::offset_of!(AttentionParams, scale) - 44usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct AttentionBwParams {
    pub dqkv: *mut core::ffi::c_void,
    pub stats: *mut f32,
    pub dout: *const core::ffi::c_void,
    pub o: *const core::ffi::c_void,
    pub lse: *const f32,
    pub qkv: *const core::ffi::c_void,
    pub query_tiles: *const QueryTile,
    pub key_tiles: *const KeyTile,
    pub rows: core::ffi::c_uint,
    pub heads: core::ffi::c_uint,
    pub kv_heads: core::ffi::c_uint,
    pub head_dim: core::ffi::c_uint,
    pub scale: f32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of AttentionBwParams"][::core::mem::size_of::<AttentionBwParams>() - 88usize];
    ["Alignment of AttentionBwParams"][::core::mem::align_of::<AttentionBwParams>() - 8usize];
    ["Offset of field: AttentionBwParams::dqkv"][::core::mem::offset_of!(AttentionBwParams, dqkv) - 0usize];
    ["Offset of field: AttentionBwParams::stats"][::core::mem::offset_of!(AttentionBwParams, stats) - 8usize];
    ["Offset of field: AttentionBwParams::dout"][::core::mem::offset_of!(AttentionBwParams, dout) - 16usize];
    ["Offset of field: AttentionBwParams::o"][::core::mem::offset_of!(AttentionBwParams, o) - 24usize];
    ["Offset of field: AttentionBwParams::lse"][::core::mem::offset_of!(AttentionBwParams, lse) - 32usize];
    ["Offset of field: AttentionBwParams::qkv"][::core::mem::offset_of!(AttentionBwParams, qkv) - 40usize];
    ["Offset of field: AttentionBwParams::query_tiles"]
        [::core::mem::offset_of!(AttentionBwParams, query_tiles) - 48usize];
    ["Offset of field: AttentionBwParams::key_tiles"]
        [::core::mem::offset_of!(AttentionBwParams, key_tiles) - 56usize];
    ["Offset of field: AttentionBwParams::rows"][::core::mem::offset_of!(AttentionBwParams, rows) - 64usize];
    ["Offset of field: AttentionBwParams::heads"]
        [::core::mem::offset_of!(AttentionBwParams, heads) - 68usize];
    ["Offset of field: AttentionBwParams::kv_heads"]
        [::core::mem::offset_of!(AttentionBwParams, kv_heads) - 72usize];
    ["Offset of field: AttentionBwParams::head_dim"]
        [::core::mem::offset_of!(AttentionBwParams, head_dim) - 76usize];
    ["Offset of field: AttentionBwParams::scale"]
        [::core::mem::offset_of!(AttentionBwParams, scale) - 80usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct AttentionCachedParams {
    pub o: *mut core::ffi::c_void,
    pub qkv: *const core::ffi::c_void,
    pub keys: *const core::ffi::c_void,
    pub values: *const core::ffi::c_void,
    pub runs: *const core::ffi::c_uint,
    pub heads: core::ffi::c_uint,
    pub kv_heads: core::ffi::c_uint,
    pub head_dim: core::ffi::c_uint,
    pub cache_rows: core::ffi::c_uint,
    pub scale: f32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of AttentionCachedParams"][::core::mem::size_of::<AttentionCachedParams>() - 64usize];
    ["Alignment of AttentionCachedParams"][::core::mem::align_of::<AttentionCachedParams>() - 8usize];
    ["Offset of field: AttentionCachedParams::o"][::core::mem::offset_of!(AttentionCachedParams, o) - 0usize];
    ["Offset of field: AttentionCachedParams::qkv"]
        [::core::mem::offset_of!(AttentionCachedParams, qkv) - 8usize];
    ["Offset of field: AttentionCachedParams::keys"]
        [::core::mem::offset_of!(AttentionCachedParams, keys) - 16usize];
    ["Offset of field: AttentionCachedParams::values"]
        [::core::mem::offset_of!(AttentionCachedParams, values) - 24usize];
    ["Offset of field: AttentionCachedParams::runs"]
        [::core::mem::offset_of!(AttentionCachedParams, runs) - 32usize];
    ["Offset of field: AttentionCachedParams::heads"]
        [::core::mem::offset_of!(AttentionCachedParams, heads) - 40usize];
    ["Offset of field: AttentionCachedParams::kv_heads"]
        [::core::mem::offset_of!(AttentionCachedParams, kv_heads) - 44usize];
    ["Offset of field: AttentionCachedParams::head_dim"]
        [::core::mem::offset_of!(AttentionCachedParams, head_dim) - 48usize];
    ["Offset of field: AttentionCachedParams::cache_rows"]
        [::core::mem::offset_of!(AttentionCachedParams, cache_rows) - 52usize];
    ["Offset of field: AttentionCachedParams::scale"]
        [::core::mem::offset_of!(AttentionCachedParams, scale) - 56usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct KvStoreParams {
    pub keys: *mut core::ffi::c_void,
    pub values: *mut core::ffi::c_void,
    pub qkv: *const core::ffi::c_void,
    pub slots: *const core::ffi::c_uint,
    pub rows: core::ffi::c_uint,
    pub q_width: core::ffi::c_uint,
    pub kv_width: core::ffi::c_uint,
    pub cache_rows: core::ffi::c_uint,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of KvStoreParams"][::core::mem::size_of::<KvStoreParams>() - 48usize];
    ["Alignment of KvStoreParams"][::core::mem::align_of::<KvStoreParams>() - 8usize];
    ["Offset of field: KvStoreParams::keys"][::core::mem::offset_of!(KvStoreParams, keys) - 0usize];
    ["Offset of field: KvStoreParams::values"][::core::mem::offset_of!(KvStoreParams, values) - 8usize];
    ["Offset of field: KvStoreParams::qkv"][::core::mem::offset_of!(KvStoreParams, qkv) - 16usize];
    ["Offset of field: KvStoreParams::slots"][::core::mem::offset_of!(KvStoreParams, slots) - 24usize];
    ["Offset of field: KvStoreParams::rows"][::core::mem::offset_of!(KvStoreParams, rows) - 32usize];
    ["Offset of field: KvStoreParams::q_width"][::core::mem::offset_of!(KvStoreParams, q_width) - 36usize];
    ["Offset of field: KvStoreParams::kv_width"][::core::mem::offset_of!(KvStoreParams, kv_width) - 40usize];
    ["Offset of field: KvStoreParams::cache_rows"]
        [::core::mem::offset_of!(KvStoreParams, cache_rows) - 44usize];
};
