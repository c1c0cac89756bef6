//! The table of kernels.

use crate::bytes::{cached_bytes, column_sums_bytes, logprob_bytes, norm_bytes};
use crate::sys::*;

/// The least device that a kernel runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Every device from compute capability 8.0 on.
    Sm80,
    /// Compute capability 9.0 alone, with its own instructions (wgmma).
    Sm90a,
}

/// One kernel, for those that compile, launch and check it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Name of the entry point.
    pub name: &'static str,
    /// The compilation unit that it is in.
    pub source: &'static str,
    /// What it runs on.
    pub target: Target,
    /// Threads in a block, at most.
    pub threads: u32,
    /// Dynamic shared memory of its usual launch, in bytes.
    pub shared: u32,
    /// Whether a step spends its time here: then it may not spill registers.
    pub hot: bool,
    /// Instructions that must be in its machine code, as the disassembler spells their beginning.
    pub instructions: &'static [&'static str],
}

impl Kernel {
    const fn new(name: &'static str, source: &'static str, threads: u32) -> Self {
        Kernel { name, source, target: Target::Sm80, threads, shared: 0, hot: false, instructions: &[] }
    }
    const fn hot(self) -> Self {
        Kernel { hot: true, ..self }
    }
    const fn sm90a(self) -> Self {
        Kernel { target: Target::Sm90a, ..self }
    }
    const fn shared(self, shared: u32) -> Self {
        Kernel { shared, ..self }
    }
    const fn instructions(self, instructions: &'static [&'static str]) -> Self {
        Kernel { instructions, ..self }
    }
}

const WIDE: &[&str] = &["LDG.E.128", "STG.E.128"];
/// A product on tensor cores that copies its operands ahead.
const TENSOR: &[&str] = &["HMMA.16816.F32.BF16", "LDSM", "LDGSTS.E", "STG.E.128"];

/// A product on tensor cores whose operands come straight from memory.
const CACHED: &[&str] = &["HMMA.16816.F32.BF16", "LDG.E.128"];

/// wgmma on tiles that TMA brings, under mbarriers and with registers moved between warpgroups.
const HOPPER: &[&str] = &["HGMMA.64x", "UTMALDG.2D", "SYNCS", "USETMAXREG", "STG.E.128"];

/// A product on tensor cores of sm_90a that the copy engine feeds.
const WGMMA: &[&str] = &["HGMMA.64x256x16.F32.BF16", "UTMALDG.2D", "SYNCS", "USETMAXREG"];

/// Every kernel.
pub const KERNELS: &[Kernel] = &[
    Kernel::new("attention_bf16_hd64", "attention.cu", MMA_THREADS)
        .hot()
        .shared(ATTENTION_BF16_HD64_BYTES)
        .instructions(TENSOR),
    Kernel::new("attention_bf16_hd128", "attention.cu", MMA_THREADS)
        .hot()
        .shared(ATTENTION_BF16_HD128_BYTES)
        .instructions(TENSOR),
    Kernel::new("attention_bw_q_bf16_hd64", "attention.cu", MMA_THREADS)
        .hot()
        .shared(ATTENTION_BW_Q_BF16_HD64_BYTES)
        .instructions(TENSOR),
    Kernel::new("attention_bw_q_bf16_hd128", "attention.cu", MMA_THREADS)
        .hot()
        .shared(ATTENTION_BW_Q_BF16_HD128_BYTES)
        .instructions(TENSOR),
    Kernel::new("attention_bw_kv_bf16_hd64", "attention.cu", MMA_THREADS)
        .hot()
        .shared(ATTENTION_BW_KV_BF16_HD64_BYTES)
        .instructions(TENSOR),
    Kernel::new("attention_bw_kv_bf16_hd128", "attention.cu", MMA_THREADS)
        .hot()
        .shared(ATTENTION_BW_KV_BF16_HD128_BYTES)
        .instructions(TENSOR),
    Kernel::new("attention_f32_hd128", "attention.cu", PLAIN_THREADS)
        .hot()
        .shared(ATTENTION_PLAIN_HD128_BYTES),
    Kernel::new("attention_bw_q_f32_hd128", "attention.cu", PLAIN_THREADS)
        .hot()
        .shared(ATTENTION_BW_Q_PLAIN_HD128_BYTES),
    Kernel::new("attention_bw_kv_f32_hd128", "attention.cu", PLAIN_THREADS)
        .hot()
        .shared(ATTENTION_BW_KV_PLAIN_HD128_BYTES),
    Kernel::new("attention_f32_hd256", "attention.cu", PLAIN_THREADS)
        .hot()
        .shared(ATTENTION_PLAIN_HD256_BYTES),
    Kernel::new("attention_bw_q_f32_hd256", "attention.cu", PLAIN_THREADS)
        .hot()
        .shared(ATTENTION_BW_Q_PLAIN_HD256_BYTES),
    Kernel::new("attention_bw_kv_f32_hd256", "attention.cu", PLAIN_THREADS)
        .hot()
        .shared(ATTENTION_BW_KV_PLAIN_HD256_BYTES),
    Kernel::new("attention_bf16_hd256", "attention.cu", PLAIN_THREADS)
        .hot()
        .shared(ATTENTION_PLAIN_HD256_BYTES),
    Kernel::new("attention_bw_q_bf16_hd256", "attention.cu", PLAIN_THREADS)
        .hot()
        .shared(ATTENTION_BW_Q_PLAIN_HD256_BYTES),
    Kernel::new("attention_bw_kv_bf16_hd256", "attention.cu", PLAIN_THREADS)
        .hot()
        .shared(ATTENTION_BW_KV_PLAIN_HD256_BYTES),
    Kernel::new("attention_bw_stats_f32", "attention.cu", ATTENTION_STATS_THREADS)
        .hot()
        .instructions(&["LDG.E.128"]),
    Kernel::new("attention_bw_stats_bf16", "attention.cu", ATTENTION_STATS_THREADS)
        .hot()
        .instructions(&["LDG.E.128"]),
    Kernel::new("attention_cached_f32", "attention_decode.cu", ATTENTION_CACHED_THREADS)
        .hot()
        .shared(cached_bytes(128))
        .instructions(&["LDG.E.128"]),
    Kernel::new("kv_store_f32", "attention_decode.cu", ROW_THREADS).instructions(WIDE),
    Kernel::new("attention_cached_bf16", "attention_decode.cu", ATTENTION_CACHED_THREADS)
        .hot()
        .shared(cached_bytes(128))
        .instructions(&["LDG.E.128"]),
    Kernel::new("attention_cached_bf16_hd64", "attention_decode.cu", ATTENTION_CACHED_THREADS)
        .hot()
        .shared(ATTENTION_CACHED_HD64_BYTES)
        .instructions(CACHED),
    Kernel::new("attention_cached_bf16_hd128", "attention_decode.cu", ATTENTION_CACHED_THREADS)
        .hot()
        .shared(ATTENTION_CACHED_HD128_BYTES)
        .instructions(CACHED),
    Kernel::new("kv_store_bf16", "attention_decode.cu", ROW_THREADS).instructions(WIDE),
    Kernel::new("attention_bf16_hd64_sm90", "attention_sm90.cu", ATTENTION_SM90_HD64_THREADS)
        .sm90a()
        .hot()
        .shared(ATTENTION_SM90_HD64_BYTES)
        .instructions(HOPPER),
    Kernel::new("attention_bf16_hd128_sm90", "attention_sm90.cu", ATTENTION_SM90_HD128_THREADS)
        .sm90a()
        .hot()
        .shared(ATTENTION_SM90_HD128_BYTES)
        .instructions(HOPPER),
    Kernel::new("attention_bw_q_bf16_hd64_sm90", "attention_sm90.cu", ATTENTION_BW_SM90_THREADS)
        .sm90a()
        .hot()
        .shared(ATTENTION_BW_Q_SM90_HD64_BYTES)
        .instructions(HOPPER),
    Kernel::new("attention_bw_q_bf16_hd128_sm90", "attention_sm90.cu", ATTENTION_BW_SM90_THREADS)
        .sm90a()
        .hot()
        .shared(ATTENTION_BW_Q_SM90_HD128_BYTES)
        .instructions(HOPPER),
    Kernel::new("attention_bw_kv_bf16_hd64_sm90", "attention_sm90.cu", ATTENTION_BW_SM90_THREADS)
        .sm90a()
        .hot()
        .shared(ATTENTION_BW_KV_SM90_HD64_BYTES)
        .instructions(HOPPER),
    Kernel::new("attention_bw_kv_bf16_hd128_sm90", "attention_sm90.cu", ATTENTION_BW_SM90_THREADS)
        .sm90a()
        .hot()
        .shared(ATTENTION_BW_KV_SM90_HD128_BYTES)
        .instructions(HOPPER),
    Kernel::new("gelu_f32", "gelu.cu", ROW_THREADS).instructions(WIDE),
    Kernel::new("gelu_bf16", "gelu.cu", ROW_THREADS).instructions(WIDE),
    Kernel::new("gelu_bw_f32", "gelu.cu", ROW_THREADS).instructions(WIDE),
    Kernel::new("gelu_bw_bf16", "gelu.cu", ROW_THREADS).instructions(WIDE),
    Kernel::new("gemm_f32", "linear.cu", LINEAR_THREADS).hot().shared(LINEAR_F32_BYTES).instructions(WIDE),
    Kernel::new("gemm_bf16", "linear.cu", LINEAR_THREADS).hot().shared(LINEAR_BYTES).instructions(TENSOR),
    Kernel::new("gemm_dx_f32", "linear.cu", LINEAR_THREADS).hot().shared(LINEAR_F32_BYTES).instructions(WIDE),
    Kernel::new("gemm_dx_bf16", "linear.cu", LINEAR_THREADS)
        .hot()
        .shared(LINEAR_DX_BYTES)
        .instructions(TENSOR),
    Kernel::new("gemm_dw_f32", "linear.cu", LINEAR_THREADS).hot().shared(LINEAR_F32_BYTES).instructions(WIDE),
    Kernel::new("gemm_dw_bf16", "linear.cu", LINEAR_THREADS)
        .hot()
        .shared(LINEAR_DW_BYTES)
        .instructions(TENSOR),
    Kernel::new("gemm_sm90", "linear_sm90.cu", LINEAR_SM90_THREADS)
        .hot()
        .sm90a()
        .shared(LINEAR_SM90_BYTES)
        .instructions(WGMMA),
    Kernel::new("gemm_dx_sm90", "linear_sm90.cu", LINEAR_SM90_THREADS)
        .hot()
        .sm90a()
        .shared(LINEAR_SM90_BYTES)
        .instructions(WGMMA),
    Kernel::new("gemm_dw_sm90", "linear_sm90.cu", LINEAR_SM90_THREADS)
        .hot()
        .sm90a()
        .shared(LINEAR_SM90_BYTES)
        .instructions(WGMMA),
    Kernel::new("gemm_dw_sum", "linear.cu", LINEAR_THREADS).instructions(WIDE),
    Kernel::new("logprob_f32", "logprob.cu", LOGPROB_THREADS)
        .hot()
        .shared(logprob_bytes(LOGPROB_THREADS))
        .instructions(&["LDG.E.128"]),
    Kernel::new("logprob_bf16", "logprob.cu", LOGPROB_THREADS)
        .hot()
        .shared(logprob_bytes(LOGPROB_THREADS))
        .instructions(&["LDG.E.128"]),
    Kernel::new("soft_cap_f32", "logprob.cu", LOGPROB_THREADS).instructions(WIDE),
    Kernel::new("soft_cap_bf16", "logprob.cu", LOGPROB_THREADS).instructions(WIDE),
    Kernel::new("logprob_bw_f32", "logprob.cu", LOGPROB_THREADS).hot().instructions(WIDE),
    Kernel::new("logprob_bw_bf16", "logprob.cu", LOGPROB_THREADS).hot().instructions(WIDE),
    Kernel::new("kl_f32", "logprob.cu", LOGPROB_THREADS)
        .shared(logprob_bytes(LOGPROB_THREADS))
        .instructions(&["LDG.E.128"]),
    Kernel::new("kl_bf16", "logprob.cu", LOGPROB_THREADS)
        .shared(logprob_bytes(LOGPROB_THREADS))
        .instructions(&["LDG.E.128"]),
    Kernel::new("preference", "preference.cu", PREFERENCE_THREADS),
    Kernel::new("add_f32", "norm.cu", ROW_THREADS).instructions(WIDE),
    Kernel::new("add_bf16", "norm.cu", ROW_THREADS).instructions(WIDE),
    Kernel::new("rmsnorm_f32", "norm.cu", ROW_THREADS).hot().shared(ROW_SUM_BYTES).instructions(WIDE),
    Kernel::new("rmsnorm_bf16", "norm.cu", ROW_THREADS).hot().shared(ROW_SUM_BYTES).instructions(WIDE),
    Kernel::new("rmsnorm_bw_f32", "norm.cu", ROW_THREADS)
        .hot()
        .shared(norm_bytes(1, 4, 4))
        .instructions(WIDE),
    Kernel::new("rmsnorm_bw_bf16", "norm.cu", ROW_THREADS)
        .hot()
        .shared(norm_bytes(1, 4, 8))
        .instructions(WIDE),
    Kernel::new("layernorm_f32", "norm.cu", ROW_THREADS).hot().shared(ROW_SUM_BYTES).instructions(WIDE),
    Kernel::new("layernorm_bf16", "norm.cu", ROW_THREADS).hot().shared(ROW_SUM_BYTES).instructions(WIDE),
    Kernel::new("layernorm_bw_f32", "norm.cu", ROW_THREADS)
        .hot()
        .shared(norm_bytes(2, 4, 4))
        .instructions(WIDE),
    Kernel::new("layernorm_bw_bf16", "norm.cu", ROW_THREADS)
        .hot()
        .shared(norm_bytes(2, 4, 8))
        .instructions(WIDE),
    Kernel::new("qk_norm_f32", "norm.cu", ROW_THREADS).hot().shared(ROW_SUM_BYTES).instructions(WIDE),
    Kernel::new("qk_norm_bf16", "norm.cu", ROW_THREADS).hot().shared(ROW_SUM_BYTES).instructions(WIDE),
    Kernel::new("qk_norm_bw_f32", "norm.cu", ROW_THREADS)
        .hot()
        .shared(norm_bytes(2, 4, 4))
        .instructions(WIDE),
    Kernel::new("qk_norm_bw_bf16", "norm.cu", ROW_THREADS)
        .hot()
        .shared(norm_bytes(2, 2, 8))
        .instructions(WIDE),
    Kernel::new("scale_f32", "gather.cu", ROW_THREADS).instructions(WIDE),
    Kernel::new("scale_bf16", "gather.cu", ROW_THREADS).instructions(WIDE),
    Kernel::new("gather_f32", "gather.cu", ROW_THREADS).hot().instructions(WIDE),
    Kernel::new("gather_bf16", "gather.cu", ROW_THREADS).hot().instructions(WIDE),
    Kernel::new("sort_rows", "gather.cu", ROW_THREADS),
    Kernel::new("scatter_add_f32", "gather.cu", ROW_THREADS).hot().instructions(WIDE),
    Kernel::new("scatter_add_bf16", "gather.cu", ROW_THREADS).hot().instructions(WIDE),
    Kernel::new("embed_bw_f32", "gather.cu", ROW_THREADS).hot().instructions(WIDE),
    Kernel::new("embed_bw_bf16", "gather.cu", ROW_THREADS).hot().instructions(WIDE),
    Kernel::new("adamw_f32", "optimizer.cu", ROW_THREADS).hot().instructions(WIDE),
    Kernel::new("adamw_bf16", "optimizer.cu", ROW_THREADS).hot().instructions(WIDE),
    Kernel::new("rmsprop_f32", "optimizer.cu", ROW_THREADS).hot().instructions(WIDE),
    Kernel::new("rmsprop_bf16", "optimizer.cu", ROW_THREADS).hot().instructions(WIDE),
    Kernel::new("rope_f32", "rope.cu", ROW_THREADS).hot().instructions(WIDE),
    Kernel::new("rope_bf16", "rope.cu", ROW_THREADS).hot().instructions(WIDE),
    Kernel::new("sample_f32", "sample.cu", SAMPLE_THREADS)
        .hot()
        .shared(SAMPLE_BYTES)
        .instructions(&["LDG.E.128"]),
    Kernel::new("sample_bf16", "sample.cu", SAMPLE_THREADS)
        .hot()
        .shared(SAMPLE_BYTES)
        .instructions(&["LDG.E.128"]),
    Kernel::new("penalise_f32", "sample.cu", ROW_THREADS),
    Kernel::new("penalise_bf16", "sample.cu", ROW_THREADS),
    Kernel::new("blend_f32", "sample.cu", SAMPLE_THREADS).instructions(WIDE),
    Kernel::new("blend_bf16", "sample.cu", SAMPLE_THREADS).instructions(WIDE),
    Kernel::new("column_sums_f32", "reduce.cu", ROW_THREADS)
        .hot()
        .shared(column_sums_bytes(4))
        .instructions(WIDE),
    Kernel::new("column_sums_bf16", "reduce.cu", ROW_THREADS)
        .hot()
        .shared(column_sums_bytes(8))
        .instructions(WIDE),
    Kernel::new("column_reduce", "reduce.cu", COLUMN_THREADS).hot().shared(COLUMN_BYTES),
    Kernel::new("sumsq", "reduce.cu", ROW_THREADS).hot().shared(BLOCK_SUM_BYTES).instructions(&["LDG.E.128"]),
    Kernel::new("sum_doubles", "reduce.cu", ROW_THREADS).shared(BLOCK_SUM_BYTES),
    Kernel::new("clip_scale", "reduce.cu", ROW_THREADS).shared(BLOCK_SUM_BYTES),
    Kernel::new("swiglu_f32", "swiglu.cu", ROW_THREADS).instructions(WIDE),
    Kernel::new("swiglu_bf16", "swiglu.cu", ROW_THREADS).instructions(WIDE),
    Kernel::new("swiglu_bw_f32", "swiglu.cu", ROW_THREADS).instructions(WIDE),
    Kernel::new("swiglu_bw_bf16", "swiglu.cu", ROW_THREADS).instructions(WIDE),
];
