// Matrix products of linear.cu for sm_90a in bf16. Verbs: gemm, gemm_dx, gemm_dw, where the launch code chooses so.
//
// The products, their results and their parts are those of linear.cu; both operands must have rows of a whole number
// of 16 bytes, which is what TMA asks.
//
// Grid: as many blocks as the device has multiprocessors, each taking every gridDim.x-th tile of 128 x 256, the parts
// of a weight gradient one after the other. 384 threads: a warpgroup of which one thread loads, by TMA into a ring of
// four stages, and two that multiply 64 x 256 each by wgmma, with sums in registers. Loading runs ahead into the next
// tile while the sums of one are written.
//
// Bound by arithmetic: 2 · rows · columns · depth operations. A tile has 171 operations for each element that it
// loads.
//
// An element is summed along the depth in one order, 16 values an instruction, that no other row or column can
// change.
#include "linear.cuh"

#ifdef DUEL_SM90A
constexpr unsigned TILE_ROWS = LINEAR_SM90_ROWS;
constexpr unsigned TILE_COLUMNS = LINEAR_SM90_COLUMNS;
constexpr unsigned DEPTH = SM90_BOX; // of a stage: one swizzled row of 128 bytes
constexpr unsigned STAGES = LINEAR_SM90_STAGES;
constexpr unsigned BOX = DEPTH * 64; // elements of a box of 64 x 64
constexpr unsigned LEFT_ELEMENTS = TILE_ROWS * DEPTH;
constexpr unsigned STAGE_ELEMENTS = LEFT_ELEMENTS + TILE_COLUMNS * DEPTH;
constexpr unsigned STAGE_BYTES = STAGE_ELEMENTS * sizeof(bf16);
static_assert(STAGES * (STAGE_BYTES + 2 * sizeof(unsigned long long)) == LINEAR_SM90_BYTES,
              "the launch has room for the stages and their barriers");
constexpr unsigned WARPGROUP = SM90_WARPGROUP;
constexpr unsigned CONSUMERS = LINEAR_SM90_THREADS / WARPGROUP - 1; // warpgroups
constexpr unsigned ROWS = TILE_ROWS / CONSUMERS; // of a warpgroup
constexpr unsigned SUMS = TILE_COLUMNS / 2;      // of a thread

// The ring of stages: a barrier tells that a stage is loaded, another that every warp has read it.
struct Ring {
    bf16 *stages;
    unsigned long long *full;
    unsigned long long *empty;
};

// What a block does next, the same for those who load and those who multiply.
struct Work {
    Corner corner;
    Depths depths;
    unsigned part;
};

DEVICE unsigned tiles_of(const LinearParams &p) {
    return (p.rows + TILE_ROWS - 1) / TILE_ROWS * ((p.columns + TILE_COLUMNS - 1) / TILE_COLUMNS);
}

DEVICE Work work_of(const LinearParams &p, unsigned index) {
    const unsigned part = index / tiles_of(p);
    return {corner_of<TILE_ROWS, TILE_COLUMNS>(p, index % tiles_of(p)), depths_of(p, part), part};
}

// The tile of an operand whose result rows (or columns) begin at `first` and whose depth begins at `depth`: one box
// of all of them where memory runs along the depth, else a box for each 64.
template <bool along_depth, unsigned count>
DEVICE void load_tile(bf16 *tile, const TensorMap &map, unsigned long long *full, unsigned first, unsigned depth) {
    if constexpr (along_depth) {
        tma_load_2d(tile, &map, full, depth, first);
    } else {
#pragma unroll
        for (unsigned i = 0; i < count; i += 64) {
            tma_load_2d(tile + i * DEPTH, &map, full, first + i, depth);
        }
    }
}

template <Product product>
DEVICE void load_tiles(const LinearParams &p, const Ring &ring, const TensorMap &left, const TensorMap &right) {
    unsigned step = 0; // over all tiles
    for (unsigned index = blockIdx.x; index < tiles_of(p) * p.parts; index += gridDim.x) {
        const Work work = work_of(p, index);
        for (unsigned depth = work.depths.begin; depth < work.depths.end; depth += DEPTH, step++) {
            const unsigned stage = step % STAGES;
            mbar_wait(&ring.empty[stage], (step / STAGES + 1) % 2); // the first round finds every stage free
            mbar_expect_tx(&ring.full[stage], STAGE_BYTES);
            bf16 *tile = ring.stages + stage * STAGE_ELEMENTS;
            load_tile<LEFT_ALONG_DEPTH<product>, TILE_ROWS>(tile, left, &ring.full[stage], work.corner.row, depth);
            load_tile<RIGHT_ALONG_DEPTH<product>, TILE_COLUMNS>(tile + LEFT_ELEMENTS, right, &ring.full[stage],
                                                                work.corner.column, depth);
        }
    }
}

// Descriptor of 16 values of the depth, from `depth` on, of a tile of an operand.
template <bool along_depth> DEVICE unsigned long long operand(const bf16 *tile, unsigned depth) {
    return along_depth ? smem_descriptor(tile + depth, 0, 8 * DEPTH * sizeof(bf16))
                       : smem_descriptor(tile + depth * 64, BOX * sizeof(bf16), 8 * 64 * sizeof(bf16));
}

template <Product product>
DEVICE void multiply_stage(float (&sum)[SUMS], const bf16 *stage, unsigned consumer, bool accumulate) {
    constexpr bool left_along = LEFT_ALONG_DEPTH<product>;
    constexpr bool right_along = RIGHT_ALONG_DEPTH<product>;
    const bf16 *left = stage + consumer * ROWS * DEPTH; // rows of the one box, or a box of its own
    const bf16 *right = stage + LEFT_ELEMENTS;
    wgmma_fence();
#pragma unroll
    for (unsigned depth = 0; depth < DEPTH; depth += 16) {
        wgmma_bf16<TILE_COLUMNS, !left_along, !right_along>(sum, operand<left_along>(left, depth),
                                                            operand<right_along>(right, depth),
                                                            accumulate || depth > 0);
    }
    wgmma_commit();
}

template <Product product>
DEVICE void write_tile(const LinearParams &p, const Work &work, const float (&sum)[SUMS], unsigned consumer) {
    const unsigned lane = threadIdx.x % 32;
    const unsigned warp = threadIdx.x / 32 % 4;
#pragma unroll
    for (unsigned half = 0; half < 2; half++) {
        const unsigned row = work.corner.row + consumer * ROWS + warp * 16 + half * 8 + lane / 4;
#pragma unroll
        for (unsigned column = 0; column < TILE_COLUMNS; column += 32) {
            float quad[4][2], pack[8];
#pragma unroll
            for (unsigned i = 0; i < 4; i++) {
                quad[i][0] = sum[column / 2 + i * 4 + half * 2];
                quad[i][1] = sum[column / 2 + i * 4 + half * 2 + 1];
            }
            gather_quad(pack, quad);
            finish<bf16, product>(p, work.part, row, work.corner.column + column + lane % 4 * 8, pack);
        }
    }
}

template <Product product> DEVICE void multiply_tiles(const LinearParams &p, const Ring &ring) {
    const unsigned consumer = threadIdx.x / WARPGROUP - 1;
    const auto release = [&](unsigned step) {
        if (threadIdx.x % 32 == 0) {
            mbar_arrive(&ring.empty[step % STAGES]);
        }
    };
    unsigned step = 0; // over all tiles
    for (unsigned index = blockIdx.x; index < tiles_of(p) * p.parts; index += gridDim.x) {
        const Work work = work_of(p, index);
        float sum[SUMS] = {};
        const unsigned first = step;
        for (unsigned depth = work.depths.begin; depth < work.depths.end; depth += DEPTH, step++) {
            mbar_wait(&ring.full[step % STAGES], step / STAGES % 2);
            multiply_stage<product>(sum, ring.stages + step % STAGES * STAGE_ELEMENTS, consumer, step > first);
            wgmma_wait<1>(); // the stage before this one has been read
            if (step > first) {
                release(step - 1);
            }
        }
        wgmma_wait<0>();
        wgmma_results(sum);
        if (step > first) {
            release(step - 1);
        }
        write_tile<product>(p, work, sum, consumer);
    }
}

template <Product product>
DEVICE void linear_sm90(const LinearParams &p, const TensorMap &left, const TensorMap &right) {
    DYN_SMEM(shared);
    Ring ring;
    ring.stages = reinterpret_cast<bf16 *>(shared);
    ring.full = reinterpret_cast<unsigned long long *>(shared + STAGES * STAGE_BYTES);
    ring.empty = ring.full + STAGES;
    if (threadIdx.x == 0) {
        tma_prefetch(&left);
        tma_prefetch(&right);
        for (unsigned stage = 0; stage < STAGES; stage++) {
            mbar_init(&ring.full[stage], 1);
            mbar_init(&ring.empty[stage], CONSUMERS * 4); // one for each warp
        }
        mbar_init_fence();
    }
    __syncthreads();
    if (threadIdx.x < WARPGROUP) {
        decrease_registers<40>();
        if (threadIdx.x == 0) {
            load_tiles<product>(p, ring, left, right);
        }
    } else {
        increase_registers<232>();
        multiply_tiles<product>(p, ring);
    }
}

#define LINEAR_SM90(name, product)                                                                                    \
    KERNEL void __launch_bounds__(LINEAR_SM90_THREADS, 1)                                                             \
        name(const __grid_constant__ TensorMap left, const __grid_constant__ TensorMap right,                         \
             const __grid_constant__ LinearParams p) {                                                                \
        linear_sm90<Product::product>(p, left, right);                                                                \
    }                                                                                                                 \
    REGISTER_KERNEL(name, LINEAR_SM90_THREADS)

LINEAR_SM90(gemm_sm90, forward);
LINEAR_SM90(gemm_dx_sm90, input_gradient);
LINEAR_SM90(gemm_dw_sm90, weight_gradient);
#endif
