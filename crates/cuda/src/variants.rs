//! Which kernels a device runs: the one place where its compute capability decides anything.

use crate::library::Product;
use duel_backend::{Dtype, Gemm};
use duel_kernels::{KERNELS, sys};

/// What a device must be for a variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Needs {
    /// Compute capability 8.0 or more.
    Any,
    /// Compute capability 9.0, with its own instructions.
    Hopper,
}

impl Needs {
    fn met(self, compute_capability: u32) -> bool {
        self == Needs::Any || compute_capability == 90
    }
}

/// An attention kernel that takes one tile of a list at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tiled {
    pub kernel: &'static str,
    /// Rows of a tile.
    pub rows: usize,
}

const fn tiled(kernel: &'static str, rows: u32) -> Tiled {
    Tiled { kernel, rows: rows as usize }
}

/// The attention kernels for one width of heads.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Attention {
    dtype: Dtype,
    needs: Needs,
    /// Widths of heads that it takes: multiples of the first number from that on up to the second.
    widths: [usize; 2],
    /// Whether its kernels read through tensor maps.
    pub tensor_maps: bool,
    pub forward: Tiled,
    /// Gradients of queries, by tiles of queries.
    pub queries: Tiled,
    /// Gradients of keys and values, by tiles of keys.
    pub keys: Tiled,
}

/// A kernel of a matrix product.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Linear {
    dtype: Dtype,
    needs: Needs,
    pub product: Product,
    /// Fewest columns of a result that it is worth it for.
    least_columns: usize,
    pub kernel: &'static str,
    /// Rows and columns of the result that a block computes at a time.
    pub tile: [usize; 2],
    /// Blocks that keep a large device busy. A constant, since the parts of a weight gradient follow from it, and with
    /// them the order of its sum.
    pub blocks: usize,
    /// Whether it reads its operands through tensor maps.
    pub tensor_maps: bool,
    /// Whether as many blocks as there are multiprocessors take the tiles in turn.
    pub persistent: bool,
}

/// A kernel for queries over a cache, whose block has the query heads of a group, `ATTENTION_CACHED_HEADS` at a time.
#[derive(Debug, PartialEq, Eq)]
struct Grouped {
    dtype: Dtype,
    head_dim: usize,
    kernel: &'static str,
}

/// Every such kernel. All run on compute capability 8.0; other widths have a kernel of a query head a block.
const GROUPED: &[Grouped] = &[
    Grouped { dtype: Dtype::Bf16, head_dim: 64, kernel: "attention_cached_bf16_hd64" },
    Grouped { dtype: Dtype::Bf16, head_dim: 128, kernel: "attention_cached_bf16_hd128" },
];

/// The kernel that has all query heads of a group over a cache in a block, if there is one.
pub(crate) fn grouped(dtype: Dtype, head_dim: usize) -> Option<&'static str> {
    GROUPED.iter().find(|g| (g.dtype, g.head_dim) == (dtype, head_dim)).map(|g| g.kernel)
}

/// Every attention; the first that fits is taken.
const ATTENTION: &[Attention] = &[
    Attention {
        dtype: Dtype::Bf16,
        needs: Needs::Hopper,
        widths: [64, 64],
        tensor_maps: true,
        forward: tiled("attention_bf16_hd64_sm90", sys::ATTENTION_SM90_HD64_TILE),
        queries: tiled("attention_bw_q_bf16_hd64_sm90", sys::ATTENTION_BW_SM90_TILE),
        keys: tiled("attention_bw_kv_bf16_hd64_sm90", sys::ATTENTION_BW_SM90_TILE),
    },
    Attention {
        dtype: Dtype::Bf16,
        needs: Needs::Hopper,
        widths: [128, 128],
        tensor_maps: true,
        forward: tiled("attention_bf16_hd128_sm90", sys::ATTENTION_SM90_HD128_TILE),
        queries: tiled("attention_bw_q_bf16_hd128_sm90", sys::ATTENTION_BW_SM90_TILE),
        keys: tiled("attention_bw_kv_bf16_hd128_sm90", sys::ATTENTION_BW_SM90_TILE),
    },
    Attention {
        dtype: Dtype::Bf16,
        needs: Needs::Any,
        widths: [8, 64],
        tensor_maps: false,
        forward: tiled("attention_bf16_hd64", sys::ATTENTION_BF16_HD64_TILE),
        queries: tiled("attention_bw_q_bf16_hd64", sys::ATTENTION_BW_BF16_HD64_TILE),
        keys: tiled("attention_bw_kv_bf16_hd64", sys::ATTENTION_BW_BF16_HD64_TILE),
    },
    Attention {
        dtype: Dtype::Bf16,
        needs: Needs::Any,
        widths: [8, 128],
        tensor_maps: false,
        forward: tiled("attention_bf16_hd128", sys::ATTENTION_BF16_HD128_TILE),
        queries: tiled("attention_bw_q_bf16_hd128", sys::ATTENTION_BW_BF16_HD128_TILE),
        keys: tiled("attention_bw_kv_bf16_hd128", sys::ATTENTION_BW_BF16_HD128_TILE),
    },
    Attention {
        dtype: Dtype::Bf16,
        needs: Needs::Any,
        widths: [1, WIDEST_HEAD],
        tensor_maps: false,
        forward: tiled("attention_bf16_hd256", sys::ATTENTION_PLAIN_HD256_TILE),
        queries: tiled("attention_bw_q_bf16_hd256", sys::ATTENTION_PLAIN_HD256_TILE),
        keys: tiled("attention_bw_kv_bf16_hd256", sys::ATTENTION_PLAIN_HD256_TILE),
    },
    Attention {
        dtype: Dtype::F32,
        needs: Needs::Any,
        widths: [1, 128],
        tensor_maps: false,
        forward: tiled("attention_f32_hd128", sys::ATTENTION_PLAIN_HD128_TILE),
        queries: tiled("attention_bw_q_f32_hd128", sys::ATTENTION_PLAIN_HD128_TILE),
        keys: tiled("attention_bw_kv_f32_hd128", sys::ATTENTION_PLAIN_HD128_TILE),
    },
    Attention {
        dtype: Dtype::F32,
        needs: Needs::Any,
        widths: [1, WIDEST_HEAD],
        tensor_maps: false,
        forward: tiled("attention_f32_hd256", sys::ATTENTION_PLAIN_HD256_TILE),
        queries: tiled("attention_bw_q_f32_hd256", sys::ATTENTION_PLAIN_HD256_TILE),
        keys: tiled("attention_bw_kv_f32_hd256", sys::ATTENTION_PLAIN_HD256_TILE),
    },
];

/// Widest head that a kernel takes.
const WIDEST_HEAD: usize = sys::ATTENTION_WIDEST as usize;

const fn hopper(product: Product, kernel: &'static str) -> Linear {
    Linear {
        dtype: Dtype::Bf16,
        needs: Needs::Hopper,
        product,
        least_columns: 512,
        kernel,
        tile: [sys::LINEAR_SM90_ROWS as usize, sys::LINEAR_SM90_COLUMNS as usize],
        blocks: 132,
        tensor_maps: true,
        persistent: true,
    }
}

const fn any(dtype: Dtype, product: Product, kernel: &'static str) -> Linear {
    Linear {
        dtype,
        needs: Needs::Any,
        product,
        least_columns: 0,
        kernel,
        tile: [sys::LINEAR_TILE as usize; 2],
        blocks: 264,
        tensor_maps: false,
        persistent: false,
    }
}

/// Every kernel of a matrix product, those of the layers and of the head alike; the first that fits is taken.
const LINEAR: &[Linear] = &[
    hopper(Product::Forward, "gemm_sm90"),
    hopper(Product::InputGradient, "gemm_dx_sm90"),
    hopper(Product::WeightGradient, "gemm_dw_sm90"),
    any(Dtype::Bf16, Product::Forward, "gemm_bf16"),
    any(Dtype::Bf16, Product::InputGradient, "gemm_dx_bf16"),
    any(Dtype::Bf16, Product::WeightGradient, "gemm_dw_bf16"),
    any(Dtype::F32, Product::Forward, "gemm_f32"),
    any(Dtype::F32, Product::InputGradient, "gemm_dx_f32"),
    any(Dtype::F32, Product::WeightGradient, "gemm_dw_f32"),
];

/// The variants that run on one device in one precision, chosen once.
pub(crate) struct Variants {
    attention: Vec<&'static Attention>,
    linear: Vec<&'static Linear>,
}

impl Variants {
    pub(crate) fn of(dtype: Dtype, compute_capability: u32) -> Self {
        let runs = |d, needs: Needs| d == dtype && needs.met(compute_capability);
        Variants {
            attention: ATTENTION.iter().filter(|a| runs(a.dtype, a.needs)).collect(),
            linear: LINEAR.iter().filter(|l| runs(l.dtype, l.needs)).collect(),
        }
    }

    /// # Panics
    /// When heads are wider than any kernel takes.
    pub(crate) fn attention(&self, head_dim: usize) -> &'static Attention {
        let takes = |a: &&&Attention| {
            let [multiple, most] = a.widths;
            head_dim <= most && head_dim.is_multiple_of(multiple)
        };
        let found = self.attention.iter().find(takes);
        found.unwrap_or_else(|| panic!("attention with heads of width {head_dim}, over {WIDEST_HEAD}"))
    }

    /// The kernel for a product.
    ///
    /// The rows of `x` and `y` have no say in it: a row's forward result must not depend on the others, and kernels
    /// differ in how the hardware rounds.
    pub(crate) fn linear(&self, product: Product, dims: Gemm) -> &'static Linear {
        let [_, columns, depth] = product.shape(dims);
        let [_, of_left, of_right] = product.strides(dims);
        // A tensor map wants rows that begin at whole 16 bytes.
        let maps = depth > 0 && of_left % 8 == 0 && of_right % 8 == 0;
        let takes =
            |l: &&&Linear| l.product == product && columns >= l.least_columns && (maps || !l.tensor_maps);
        self.linear.iter().find(takes).expect("a kernel without conditions ends the table")
    }
}

/// Threads of a block and its shared memory, as the table of kernels has them.
pub(crate) fn launch_of(kernel: &str) -> (u32, u32) {
    let entry = KERNELS.iter().find(|k| k.name == kernel).expect("the kernel is in the table of kernels");
    (entry.threads, entry.shared)
}

#[cfg(test)]
mod tests {
    use super::*;
    use duel_kernels::Target;

    /// On every device each precision has an attention for every width of heads and a kernel for every product, and
    /// they are kernels that such a device runs.
    #[test]
    fn every_device_has_every_variant() {
        for dtype in [Dtype::F32, Dtype::Bf16] {
            for compute_capability in [80, 86, 90, 100, 120] {
                let variants = Variants::of(dtype, compute_capability);
                let check = |kernel: &str| {
                    let entry = KERNELS.iter().find(|k| k.name == kernel).expect("it is in the table");
                    assert!(entry.target == Target::Sm80 || compute_capability == 90, "{kernel}");
                };
                for head_dim in 1..=WIDEST_HEAD {
                    let a = variants.attention(head_dim);
                    [a.forward, a.queries, a.keys].iter().for_each(|tiled| check(tiled.kernel));
                }
                for product in [Product::Forward, Product::InputGradient, Product::WeightGradient] {
                    for dims in [Gemm::dense(7, 2048, 2048), Gemm::dense(64, 9, 13)] {
                        check(variants.linear(product, dims).kernel);
                    }
                }
            }
        }
    }

    #[test]
    fn hopper_has_its_own_kernels_where_tensor_maps_can_read() {
        let kernel = |capability, n, k| {
            Variants::of(Dtype::Bf16, capability).linear(Product::Forward, Gemm::dense(5, n, k)).kernel
        };
        assert_eq!(kernel(90, 512, 64), "gemm_sm90");
        assert_eq!(kernel(80, 512, 64), "gemm_bf16");
        assert_eq!(kernel(90, 504, 64), "gemm_bf16");
        assert_eq!(kernel(90, 512, 60), "gemm_bf16");
        let odd = Gemm { stride: 50_304, ..Gemm::dense(5, 50_257, 768) };
        for product in [Product::Forward, Product::InputGradient, Product::WeightGradient] {
            assert!(Variants::of(Dtype::Bf16, 90).linear(product, odd).tensor_maps, "{product:?}");
        }
        let attention =
            |capability, width| Variants::of(Dtype::Bf16, capability).attention(width).forward.kernel;
        assert_eq!(attention(90, 64), "attention_bf16_hd64_sm90");
        assert_eq!(attention(90, 72), "attention_bf16_hd128");
        assert_eq!(attention(100, 64), "attention_bf16_hd64");
        assert_eq!(attention(80, 100), "attention_bf16_hd256");
    }
}
