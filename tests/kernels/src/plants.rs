//! Bugs that are planted into kernels, so that the tests can be seen to catch them.

/// A change to one file that makes a kernel wrong. The build compiles `source` with it a second time, under names
/// with the suffix `@name`.
#[derive(Clone, Copy, Debug)]
pub struct Plant {
    /// What it is.
    pub name: &'static str,
    /// The kernel file that is compiled.
    pub source: &'static str,
    /// The file that is changed: the same, or a header.
    pub file: &'static str,
    /// The text that is there, once.
    pub right: &'static str,
    /// What takes its place.
    pub wrong: &'static str,
}

/// Every planted bug.
pub const PLANTS: &[Plant] = &[
    Plant {
        name: "dropped_barrier",
        source: "norm.cu",
        file: "common.cuh",
        right: "        part[threadIdx.x / 32] = x;\n    }\n    block_sync(HERE_ONLY);\n",
        wrong: "        part[threadIdx.x / 32] = x;\n    }\n",
    },
    Plant {
        name: "off_by_one_edge",
        source: "swiglu.cu",
        file: "swiglu.cu",
        right: "    if (column >= p.width) {\n        return;\n    }\n    for (unsigned row = blockIdx.y; row < p.rows; \
                row += gridDim.y) {\n        const Real *x",
        wrong: "    if (column > p.width) {\n        return;\n    }\n    for (unsigned row = blockIdx.y; row < p.rows; \
                row += gridDim.y) {\n        const Real *x",
    },
    Plant {
        name: "swapped_field",
        source: "swiglu.cu",
        file: "params.h",
        right: "    void *y;\n    const void *x;\n    unsigned rows;\n    unsigned width;\n    unsigned kind;",
        wrong: "    void *y;\n    const void *x;\n    unsigned width;\n    unsigned rows;\n    unsigned kind;",
    },
    Plant {
        name: "early_stage_release",
        source: "ring.cu",
        file: "ring.cu",
        right: "        wgmma_wait<0>();\n        mbar_arrive(&empty[stage]);\n",
        wrong: "        mbar_arrive(&empty[stage]);\n        wgmma_wait<0>();\n",
    },
    Plant {
        name: "early_value_release",
        source: "attention_sm90.cu",
        file: "attention_sm90.cu",
        right: "            wgmma_wait<0>();\n            values.release(step - 1);\n",
        wrong: "            values.release(step - 1);\n            wgmma_wait<0>();\n",
    },
];
