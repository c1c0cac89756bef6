#![no_std]
#![doc = include_str!("../README.md")]

pub mod sys;

/// A file of this package, as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its name, as the others include it.
    pub name: &'static str,
    /// What is in it.
    pub text: &'static str,
}

macro_rules! sources {
    ($($name:literal),* $(,)?) => {
        &[$(Source { name: $name, text: include_str!(concat!("../", $name)) }),*]
    };
}

/// What the compilation units include.
pub const HEADERS: &[Source] = sources!["params.h", "ptx.cuh", "common.cuh", "linear.cuh", "attention.cuh"];

/// The compilation units.
pub const SOURCES: &[Source] = sources![
    "attention.cu",
    "attention_sm90.cu",
    "gather.cu",
    "gelu.cu",
    "linear.cu",
    "linear_sm90.cu",
    "logprob.cu",
    "norm.cu",
    "optimizer.cu",
    "preference.cu",
    "reduce.cu",
    "rope.cu",
    "swiglu.cu"
];

/// What the host emulation needs in addition.
pub const EMULATION: &[Source] = sources!["simt.h", "simt.cpp"];

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

/// wgmma on tiles that TMA brings, under mbarriers and with registers moved between warpgroups.
const HOPPER: &[&str] = &["HGMMA.64x", "UTMALDG.2D", "SYNCS", "USETMAXREG", "STG.E.128"];

/// A product on tensor cores of sm_90a that the copy engine feeds.
const WGMMA: &[&str] = &["HGMMA.64x256x16.F32.BF16", "UTMALDG.2D", "SYNCS", "USETMAXREG"];

/// Every kernel.
pub const KERNELS: &[Kernel] = &[
    Kernel::new("attention_bf16_hd64", "attention.cu", 128).hot().shared(49152).instructions(TENSOR),
    Kernel::new("attention_bf16_hd128", "attention.cu", 128).hot().shared(65536).instructions(TENSOR),
    Kernel::new("attention_bw_q_bf16_hd64", "attention.cu", 128).hot().shared(49152).instructions(TENSOR),
    Kernel::new("attention_bw_q_bf16_hd128", "attention.cu", 128).hot().shared(65536).instructions(TENSOR),
    Kernel::new("attention_bw_kv_bf16_hd64", "attention.cu", 128).hot().shared(49664).instructions(TENSOR),
    Kernel::new("attention_bw_kv_bf16_hd128", "attention.cu", 128).hot().shared(66048).instructions(TENSOR),
    Kernel::new("attention_f32_hd128", "attention.cu", 256).hot().shared(54912),
    Kernel::new("attention_bw_q_f32_hd128", "attention.cu", 256).hot().shared(71808),
    Kernel::new("attention_bw_kv_f32_hd128", "attention.cu", 256).hot().shared(76032),
    Kernel::new("attention_f32_hd256", "attention.cu", 256).hot().shared(51008),
    Kernel::new("attention_bw_q_f32_hd256", "attention.cu", 256).hot().shared(67648),
    Kernel::new("attention_bw_kv_f32_hd256", "attention.cu", 256).hot().shared(68736),
    Kernel::new("attention_bf16_hd256", "attention.cu", 256).hot().shared(51008),
    Kernel::new("attention_bw_q_bf16_hd256", "attention.cu", 256).hot().shared(67648),
    Kernel::new("attention_bw_kv_bf16_hd256", "attention.cu", 256).hot().shared(68736),
    Kernel::new("attention_bw_stats_f32", "attention.cu", 256).hot().instructions(&["LDG.E.128"]),
    Kernel::new("attention_cached_f32", "attention.cu", 128).hot().shared(8320).instructions(&["LDG.E.128"]),
    Kernel::new("kv_store_f32", "attention.cu", 256).instructions(WIDE),
    Kernel::new("attention_bw_stats_bf16", "attention.cu", 256).hot().instructions(&["LDG.E.128"]),
    Kernel::new("attention_cached_bf16", "attention.cu", 128).hot().shared(8320).instructions(&["LDG.E.128"]),
    Kernel::new("kv_store_bf16", "attention.cu", 256).instructions(WIDE),
    Kernel::new("attention_bf16_hd64_sm90", "attention_sm90.cu", 512)
        .sm90a()
        .hot()
        .shared(91136)
        .instructions(HOPPER),
    Kernel::new("attention_bf16_hd128_sm90", "attention_sm90.cu", 384)
        .sm90a()
        .hot()
        .shared(164864)
        .instructions(HOPPER),
    Kernel::new("attention_bw_q_bf16_hd64_sm90", "attention_sm90.cu", 384)
        .sm90a()
        .hot()
        .shared(132096)
        .instructions(HOPPER),
    Kernel::new("attention_bw_q_bf16_hd128_sm90", "attention_sm90.cu", 384)
        .sm90a()
        .hot()
        .shared(164864)
        .instructions(HOPPER),
    Kernel::new("attention_bw_kv_bf16_hd64_sm90", "attention_sm90.cu", 384)
        .sm90a()
        .hot()
        .shared(84480)
        .instructions(HOPPER),
    Kernel::new("attention_bw_kv_bf16_hd128_sm90", "attention_sm90.cu", 384)
        .sm90a()
        .hot()
        .shared(166400)
        .instructions(HOPPER),
    Kernel::new("gelu_f32", "gelu.cu", 256).instructions(WIDE),
    Kernel::new("gelu_bf16", "gelu.cu", 256).instructions(WIDE),
    Kernel::new("gelu_bw_f32", "gelu.cu", 256).instructions(WIDE),
    Kernel::new("gelu_bw_bf16", "gelu.cu", 256).instructions(WIDE),
    Kernel::new("gemm_f32", "linear.cu", 256).hot().shared(33792).instructions(WIDE),
    Kernel::new("gemm_bf16", "linear.cu", 256).hot().shared(81920).instructions(TENSOR),
    Kernel::new("gemm_dx_f32", "linear.cu", 256).hot().shared(33792).instructions(WIDE),
    Kernel::new("gemm_dx_bf16", "linear.cu", 256).hot().shared(75776).instructions(TENSOR),
    Kernel::new("gemm_dw_f32", "linear.cu", 256).hot().shared(33792).instructions(WIDE),
    Kernel::new("gemm_dw_bf16", "linear.cu", 256).hot().shared(69632).instructions(TENSOR),
    Kernel::new("gemm_sm90", "linear_sm90.cu", 384).hot().sm90a().shared(196672).instructions(WGMMA),
    Kernel::new("gemm_dx_sm90", "linear_sm90.cu", 384).hot().sm90a().shared(196672).instructions(WGMMA),
    Kernel::new("gemm_dw_sm90", "linear_sm90.cu", 384).hot().sm90a().shared(196672).instructions(WGMMA),
    Kernel::new("gemm_dw_sum", "linear.cu", 256).instructions(WIDE),
    Kernel::new("logprob_f32", "logprob.cu", 512).hot().shared(320).instructions(&["LDG.E.128"]),
    Kernel::new("logprob_bf16", "logprob.cu", 512).hot().shared(320).instructions(&["LDG.E.128"]),
    Kernel::new("logprob_bw_f32", "logprob.cu", 512).hot().instructions(WIDE),
    Kernel::new("logprob_bw_bf16", "logprob.cu", 512).hot().instructions(WIDE),
    Kernel::new("preference", "preference.cu", 256),
    Kernel::new("rmsnorm_f32", "norm.cu", 256).hot().shared(32).instructions(WIDE),
    Kernel::new("rmsnorm_bf16", "norm.cu", 256).hot().shared(32).instructions(WIDE),
    Kernel::new("rmsnorm_bw_f32", "norm.cu", 256).hot().shared(16928).instructions(WIDE),
    Kernel::new("rmsnorm_bw_bf16", "norm.cu", 256).hot().shared(33312).instructions(WIDE),
    Kernel::new("layernorm_f32", "norm.cu", 256).hot().shared(32).instructions(WIDE),
    Kernel::new("layernorm_bf16", "norm.cu", 256).hot().shared(32).instructions(WIDE),
    Kernel::new("layernorm_bw_f32", "norm.cu", 256).hot().shared(33824).instructions(WIDE),
    Kernel::new("layernorm_bw_bf16", "norm.cu", 256).hot().shared(66592).instructions(WIDE),
    Kernel::new("qk_norm_f32", "norm.cu", 256).hot().shared(32).instructions(WIDE),
    Kernel::new("qk_norm_bf16", "norm.cu", 256).hot().shared(32).instructions(WIDE),
    Kernel::new("qk_norm_bw_f32", "norm.cu", 256).hot().shared(33824).instructions(WIDE),
    Kernel::new("qk_norm_bw_bf16", "norm.cu", 256).hot().shared(33312).instructions(WIDE),
    Kernel::new("gather_f32", "gather.cu", 256).hot().instructions(WIDE),
    Kernel::new("gather_bf16", "gather.cu", 256).hot().instructions(WIDE),
    Kernel::new("sort_rows", "gather.cu", 256),
    Kernel::new("scatter_add_f32", "gather.cu", 256).hot().instructions(WIDE),
    Kernel::new("scatter_add_bf16", "gather.cu", 256).hot().instructions(WIDE),
    Kernel::new("embed_bw_f32", "gather.cu", 256).hot().instructions(WIDE),
    Kernel::new("embed_bw_bf16", "gather.cu", 256).hot().instructions(WIDE),
    Kernel::new("adamw_f32", "optimizer.cu", 256).hot().instructions(WIDE),
    Kernel::new("adamw_bf16", "optimizer.cu", 256).hot().instructions(WIDE),
    Kernel::new("rmsprop_f32", "optimizer.cu", 256).hot().instructions(WIDE),
    Kernel::new("rmsprop_bf16", "optimizer.cu", 256).hot().instructions(WIDE),
    Kernel::new("rope_f32", "rope.cu", 256).hot().instructions(WIDE),
    Kernel::new("rope_bf16", "rope.cu", 256).hot().instructions(WIDE),
    Kernel::new("column_sums_f32", "reduce.cu", 256).hot().shared(4096).instructions(WIDE),
    Kernel::new("column_sums_bf16", "reduce.cu", 256).hot().shared(8192).instructions(WIDE),
    Kernel::new("column_reduce", "reduce.cu", 1024).hot().shared(4096),
    Kernel::new("sumsq", "reduce.cu", 256).hot().shared(64).instructions(&["LDG.E.128"]),
    Kernel::new("sum_doubles", "reduce.cu", 256).shared(64),
    Kernel::new("clip_scale", "reduce.cu", 256).shared(64),
    Kernel::new("swiglu_f32", "swiglu.cu", 256).instructions(WIDE),
    Kernel::new("swiglu_bf16", "swiglu.cu", 256).instructions(WIDE),
    Kernel::new("swiglu_bw_f32", "swiglu.cu", 256).instructions(WIDE),
    Kernel::new("swiglu_bw_bf16", "swiglu.cu", 256).instructions(WIDE),
];
