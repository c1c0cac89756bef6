// Matrix products of the linear layers and of the head. Verbs: gemm, gemm_dx, gemm_dw.
//
//   gemm     y[m, n]  = x[m, k] · w[n, k]ᵀ + bias[n] + residual[m, n]
//   gemm_dx  dx[m, k] = dy[m, n] · w[n, k]
//   gemm_dw  dw[n, k] += dy[m, n]ᵀ · x[m, k]
//
// Grid: 256 threads for a tile of 128 x 128 of the result; x counts the tiles in the order of `corner_of`. gemm_dw,
// whose result is small beside what it sums, has parts of the rows m along z where there are few tiles; their sums go
// to scratch memory and gemm_dw_sum adds them up in order. The parts are chosen from the shape alone.
//
// Bound by arithmetic: 2 m n k operations on tensor cores (bf16) or on the FMA units (f32). A tile has 128 operations
// for each element that it loads.
//
// Every element is summed along the depth in one order that no other row or column can change. bf16: in float, 16
// values of the depth an instruction. f32: blocks of 256 values, each summed in order.
//
// Widths that are no whole number of 16 bytes are loaded one element at a time. Outside the operands a tile is 0.
#include "linear.cuh"

constexpr unsigned TILE = LINEAR_TILE; // rows and columns of the result that a block computes

// ---- bf16 ----------------------------------------------------------------------------------------------------------

constexpr unsigned DEPTH = LINEAR_STEP; // of a stage
constexpr unsigned STAGES = LINEAR_STAGES;

// A stage's tile of one operand in shared memory, in rows as they are in memory.
template <bool along_depth> struct Staged {
    static constexpr unsigned columns = along_depth ? DEPTH : TILE;
    static constexpr unsigned stride = columns + LINEAR_PADDING; // so that ldmatrix finds eight rows in eight banks
    static constexpr unsigned elements = (along_depth ? TILE : DEPTH) * stride;
    static constexpr unsigned packs_a_row = columns / LANES<bf16>;
    static constexpr unsigned packs_a_thread = TILE * DEPTH / LANES<bf16> / LINEAR_THREADS;
    static constexpr unsigned rows_a_sweep = LINEAR_THREADS / packs_a_row;
};

// Shared memory of a product's launch.
template <Product product>
constexpr unsigned SHARED_BYTES = product == Product::forward          ? LINEAR_BYTES
                                  : product == Product::input_gradient ? LINEAR_DX_BYTES
                                                                       : LINEAR_DW_BYTES;

// An operand as a matrix in memory.
struct Matrix {
    const bf16 *data;
    unsigned rows;
    unsigned columns;
    unsigned stride;
};

// Eight elements of a matrix to shared memory, zeros outside it. With `wide` the copy is asynchronous.
template <bool wide> DEVICE void copy_pack(bf16 *to, const Matrix &from, unsigned row, unsigned column) {
    const bool inside = row < from.rows && column < from.columns;
    const bf16 *at = from.data + (inside ? static_cast<size_t>(row) * from.stride + column : 0);
    if constexpr (wide) {
        cp_async_16(to, at, inside);
    } else {
        unsigned words[4] = {};
#pragma unroll
        for (unsigned i = 0; i < LANES<bf16>; i++) {
            const unsigned bits = inside && column + i < from.columns ? at[i].bits : 0;
            words[i / 2] |= bits << (i % 2 * 16);
        }
        store_16(to, make_uint4(words[0], words[1], words[2], words[3]));
    }
}

// The tile of an operand whose result rows (or columns) begin at `first` and whose depth begins at `depth`.
template <bool along_depth, bool wide>
DEVICE void load_tile(bf16 *tile, const Matrix &from, unsigned first, unsigned depth) {
    using Shape = Staged<along_depth>;
    const unsigned column = threadIdx.x % Shape::packs_a_row * LANES<bf16>;
#pragma unroll
    for (unsigned i = 0; i < Shape::packs_a_thread; i++) {
        const unsigned row = threadIdx.x / Shape::packs_a_row + i * Shape::rows_a_sweep;
        bf16 *to = tile + row * Shape::stride + column;
        if constexpr (along_depth) {
            copy_pack<wide>(to, from, first + row, depth + column);
        } else {
            copy_pack<wide>(to, from, depth + row, first + column);
        }
    }
}

// A fragment of 16 rows of the result (`right`: 16 columns) and 16 values of the depth, as mma_m16n8k16_bf16 has its
// operands: the four registers of the left one, or twice the two of the right one.
template <bool along_depth, bool right>
DEVICE void load_fragment(unsigned (&fragment)[4], const bf16 *tile, unsigned first, unsigned depth) {
    constexpr unsigned stride = Staged<along_depth>::stride;
    const unsigned lane = threadIdx.x % 32;
    const unsigned matrix = lane / 8;
    first += (right ? matrix / 2 : matrix % 2) * 8;
    depth += (right ? matrix % 2 : matrix / 2) * 8;
    if constexpr (along_depth) {
        ldmatrix_x4(fragment, tile + (first + lane % 8) * stride + depth);
    } else {
        ldmatrix_x4_trans(fragment, tile + (depth + lane % 8) * stride + first);
    }
}

// Eight warps, two down and four across; a warp's part is 64 x 32.
constexpr unsigned WARPS_ACROSS = 4;
constexpr unsigned WARP_ROWS = 64;
constexpr unsigned WARP_COLUMNS = 32;
constexpr unsigned DOWN = WARP_ROWS / 16;     // mma tiles
constexpr unsigned ACROSS = WARP_COLUMNS / 8; // likewise

template <bool left_along_depth, bool right_along_depth>
DEVICE void multiply_stage(float (&sum)[DOWN][ACROSS][4], const bf16 *left, const bf16 *right, unsigned warp_row,
                           unsigned warp_column) {
#pragma unroll
    for (unsigned depth = 0; depth < DEPTH; depth += 16) {
        unsigned a[DOWN][4], b[ACROSS / 2][4];
#pragma unroll
        for (unsigned i = 0; i < DOWN; i++) {
            load_fragment<left_along_depth, false>(a[i], left, warp_row + i * 16, depth);
        }
#pragma unroll
        for (unsigned j = 0; j < ACROSS / 2; j++) {
            load_fragment<right_along_depth, true>(b[j], right, warp_column + j * 16, depth);
        }
#pragma unroll
        for (unsigned i = 0; i < DOWN; i++) {
#pragma unroll
            for (unsigned j = 0; j < ACROSS; j++) {
                mma_m16n8k16_bf16(sum[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
            }
        }
    }
}

template <Product product, bool wide> DEVICE void multiply_bf16(const LinearParams &p) {
    constexpr bool left_along_depth = LEFT_ALONG_DEPTH<product>;
    constexpr bool right_along_depth = RIGHT_ALONG_DEPTH<product>;
    constexpr unsigned left_elements = Staged<left_along_depth>::elements;
    constexpr unsigned stage_elements = left_elements + Staged<right_along_depth>::elements;
    static_assert(STAGES * stage_elements * sizeof(bf16) == SHARED_BYTES<product>, "the launch has room for the stages");
    DYN_SMEM(shared);
    bf16 *stages = reinterpret_cast<bf16 *>(shared);

    const Corner corner = corner_of<TILE, TILE>(p, blockIdx.x);
    const Depths depths = depths_of(p, blockIdx.z);
    const Matrix left = left_along_depth
                            ? Matrix{static_cast<const bf16 *>(p.left), p.rows, depths.end, p.left_stride}
                            : Matrix{static_cast<const bf16 *>(p.left), depths.end, p.rows, p.left_stride};
    const Matrix right = right_along_depth
                             ? Matrix{static_cast<const bf16 *>(p.right), p.columns, depths.end, p.depth}
                             : Matrix{static_cast<const bf16 *>(p.right), depths.end, p.columns, p.columns};
    const unsigned steps = (depths.end - depths.begin + DEPTH - 1) / DEPTH;
    const auto load_stage = [&](unsigned step) {
        if (step < steps) {
            bf16 *stage = stages + step % STAGES * stage_elements;
            const unsigned depth = depths.begin + step * DEPTH;
            load_tile<left_along_depth, wide>(stage, left, corner.row, depth);
            load_tile<right_along_depth, wide>(stage + left_elements, right, corner.column, depth);
        }
        cp_async_commit(); // a group a step, empty ones at the end, so that the count of the wait stays
    };

    const unsigned warp = threadIdx.x / 32;
    const unsigned warp_row = warp / WARPS_ACROSS * WARP_ROWS;
    const unsigned warp_column = warp % WARPS_ACROSS * WARP_COLUMNS;
    float sum[DOWN][ACROSS][4] = {};
    for (unsigned step = 0; step < STAGES - 1; step++) {
        load_stage(step);
    }
    for (unsigned step = 0; step < steps; step++) {
        cp_async_wait<STAGES - 2>();
        __syncthreads(); // the stage is there, and the one before it has been read by all: it is loaded next
        load_stage(step + STAGES - 1);
        const bf16 *stage = stages + step % STAGES * stage_elements;
        multiply_stage<left_along_depth, right_along_depth>(sum, stage, stage + left_elements, warp_row, warp_column);
    }
    cp_async_wait<0>();

    const unsigned lane = threadIdx.x % 32;
#pragma unroll
    for (unsigned i = 0; i < DOWN; i++) {
#pragma unroll
        for (unsigned half = 0; half < 2; half++) {
            float quad[ACROSS][2], pack[8];
#pragma unroll
            for (unsigned j = 0; j < ACROSS; j++) {
                quad[j][0] = sum[i][j][2 * half];
                quad[j][1] = sum[i][j][2 * half + 1];
            }
            gather_quad(pack, quad);
            const unsigned row = corner.row + warp_row + i * 16 + half * 8 + lane / 4;
            finish<bf16, product>(p, blockIdx.z, row, corner.column + warp_column + lane % 4 * 8, pack);
        }
    }
}

// ---- f32 -----------------------------------------------------------------------------------------------------------

constexpr unsigned DEPTH_F32 = LINEAR_F32_STEP;    // of a stage; there are two
constexpr unsigned STRIDE_F32 = TILE + LINEAR_F32_PADDING; // of a stage's tile [DEPTH_F32, TILE], 16-byte aligned
constexpr unsigned TILE_F32 = DEPTH_F32 * STRIDE_F32;
constexpr unsigned PACKS_F32 = TILE * DEPTH_F32 / 4 / LINEAR_THREADS; // of an operand's tile, for each thread
static_assert(2 * 2 * TILE_F32 * sizeof(float) == LINEAR_F32_BYTES, "the launch has room for two stages");

// A thread's share of the next tile of an operand, on its way from memory to shared memory.
template <bool along_depth, bool wide> struct Share {
    static constexpr unsigned packs_a_row = (along_depth ? DEPTH_F32 : TILE) / 4;
    static constexpr unsigned rows_a_sweep = LINEAR_THREADS / packs_a_row;
    float values[PACKS_F32][4];

    // `stride` is that of the matrix in memory, which has `end` rows (or columns) of the result.
    DEVICE void fetch(const float *data, size_t stride, unsigned first, unsigned end, unsigned depth,
                      unsigned depth_end) {
        const unsigned column = threadIdx.x % packs_a_row * 4 + (along_depth ? depth : first);
        const unsigned columns = along_depth ? depth_end : end;
        const unsigned rows = along_depth ? end : depth_end;
#pragma unroll
        for (unsigned i = 0; i < PACKS_F32; i++) {
            const unsigned row = threadIdx.x / packs_a_row + i * rows_a_sweep + (along_depth ? first : depth);
            const float *at = data + row * stride + column;
#pragma unroll
            for (unsigned j = 0; j < 4; j++) {
                values[i][j] = 0.0f;
            }
            if (wide && row < rows && column < columns) {
                load(values[i], at);
            }
#pragma unroll
            for (unsigned j = 0; !wide && j < 4; j++) {
                if (row < rows && column + j < columns) {
                    values[i][j] = at[j];
                }
            }
        }
    }

    DEVICE void put(float *tile) const {
        const unsigned column = threadIdx.x % packs_a_row * 4;
#pragma unroll
        for (unsigned i = 0; i < PACKS_F32; i++) {
            const unsigned row = threadIdx.x / packs_a_row + i * rows_a_sweep;
            if constexpr (along_depth) {
#pragma unroll
                for (unsigned j = 0; j < 4; j++) {
                    tile[(column + j) * STRIDE_F32 + row] = values[i][j];
                }
            } else {
                store(tile + row * STRIDE_F32 + column, values[i]);
            }
        }
    }
};

// A thread has rows 4y .. 4y + 3 and 64 more of a tile, and columns 4x .. 4x + 3 and 64 more.
DEVICE void load_eight(float (&out)[8], const float *row_of_tile, unsigned four) {
    float low[4], high[4];
    load(low, row_of_tile + four);
    load(high, row_of_tile + TILE / 2 + four);
#pragma unroll
    for (unsigned i = 0; i < 4; i++) {
        out[i] = low[i];
        out[4 + i] = high[i];
    }
}

DEVICE void multiply_stage_f32(float (&sum)[8][8], const float *left, const float *right, unsigned x, unsigned y) {
#pragma unroll
    for (unsigned d = 0; d < DEPTH_F32; d++) {
        float a[8], b[8];
        load_eight(a, left + d * STRIDE_F32, y);
        load_eight(b, right + d * STRIDE_F32, x);
#pragma unroll
        for (unsigned i = 0; i < 8; i++) {
#pragma unroll
            for (unsigned j = 0; j < 8; j++) {
                sum[i][j] = fmaf(a[i], b[j], sum[i][j]);
            }
        }
    }
}

template <Product product, bool wide> DEVICE void multiply_f32(const LinearParams &p) {
    DYN_SMEM(shared);
    float *stages = reinterpret_cast<float *>(shared);
    const Corner corner = corner_of<TILE, TILE>(p, blockIdx.x);
    const Depths depths = depths_of(p, blockIdx.z);
    const unsigned steps = (depths.end - depths.begin + DEPTH_F32 - 1) / DEPTH_F32;
    Share<LEFT_ALONG_DEPTH<product>, wide> left;
    Share<RIGHT_ALONG_DEPTH<product>, wide> right;
    const auto fetch = [&](unsigned step) {
        const unsigned depth = depths.begin + step * DEPTH_F32;
        left.fetch(static_cast<const float *>(p.left), p.left_stride, corner.row, p.rows, depth, depths.end);
        right.fetch(static_cast<const float *>(p.right), RIGHT_ALONG_DEPTH<product> ? p.depth : p.columns,
                    corner.column, p.columns, depth, depths.end);
    };
    const auto put = [&](unsigned step) {
        float *stage = stages + step % 2 * 2 * TILE_F32;
        left.put(stage);
        right.put(stage + TILE_F32);
    };

    const unsigned x = threadIdx.x % 16 * 4;
    const unsigned y = threadIdx.x / 16 * 4;
    float total[8][8] = {}, sum[8][8] = {};
    if (steps) {
        fetch(0);
        put(0);
    }
    for (unsigned step = 0; step < steps; step++) {
        __syncthreads(); // the stage is there, and the other one has been read by all
        if (step + 1 < steps) {
            fetch(step + 1);
        }
        const float *stage = stages + step % 2 * 2 * TILE_F32;
        multiply_stage_f32(sum, stage, stage + TILE_F32, x, y);
        if (step + 1 < steps) {
            put(step + 1);
        }
        if ((step + 1) % (LINEAR_SUM_BLOCK / DEPTH_F32) == 0 || step + 1 == steps) {
#pragma unroll
            for (unsigned i = 0; i < 8; i++) {
#pragma unroll
                for (unsigned j = 0; j < 8; j++) {
                    total[i][j] += sum[i][j];
                    sum[i][j] = 0.0f;
                }
            }
        }
    }

#pragma unroll
    for (unsigned i = 0; i < 8; i++) {
#pragma unroll
        for (unsigned half = 0; half < 2; half++) {
            float pack[4];
#pragma unroll
            for (unsigned j = 0; j < 4; j++) {
                pack[j] = total[i][4 * half + j];
            }
            const unsigned row = corner.row + i / 4 * (TILE / 2) + y + i % 4;
            finish<float, product>(p, blockIdx.z, row, corner.column + half * (TILE / 2) + x, pack);
        }
    }
}

// ---- kernels -------------------------------------------------------------------------------------------------------

// Whether both operands can be loaded 16 bytes at a time: rows begin and end at whole ones.
template <class Real, Product product> DEVICE bool wide_operands(const LinearParams &p) {
    return vectorised<Real>(LEFT_ALONG_DEPTH<product> ? p.depth : p.rows, p.left) &&
           p.left_stride % LANES<Real> == 0 &&
           vectorised<Real>(RIGHT_ALONG_DEPTH<product> ? p.depth : p.columns, p.right);
}

template <Product product> DEVICE void linear_bf16(const LinearParams &p) {
    if (wide_operands<bf16, product>(p)) {
        multiply_bf16<product, true>(p);
    } else {
        multiply_bf16<product, false>(p);
    }
}

template <Product product> DEVICE void linear_f32(const LinearParams &p) {
    if (wide_operands<float, product>(p)) {
        multiply_f32<product, true>(p);
    } else {
        multiply_f32<product, false>(p);
    }
}

template <unsigned count> DEVICE void add_parts(const PartsSumParams &p, unsigned long long at) {
    float total[count];
    load(total, p.out + at);
#pragma unroll 2
    for (unsigned part = 0; part < p.count; part++) {
        add_from(total, p.parts + part * p.len + at, count > 1, count);
    }
    store(p.out + at, total);
}

DEVICE void sum_parts(const PartsSumParams &p) {
    for_each_pack<float>(
        p.len, vectorised<float>(p.len, p.out, p.parts), [&](unsigned long long at) { add_parts<4>(p, at); },
        [&](unsigned long long at) { add_parts<1>(p, at); });
}

EXPORT_KERNEL(gemm_f32, (LINEAR_THREADS, 1), LinearParams, linear_f32<Product::forward>);
EXPORT_KERNEL(gemm_bf16, (LINEAR_THREADS, 2), LinearParams, linear_bf16<Product::forward>);
EXPORT_KERNEL(gemm_dx_f32, (LINEAR_THREADS, 1), LinearParams, linear_f32<Product::input_gradient>);
EXPORT_KERNEL(gemm_dx_bf16, (LINEAR_THREADS, 2), LinearParams, linear_bf16<Product::input_gradient>);
EXPORT_KERNEL(gemm_dw_f32, (LINEAR_THREADS, 1), LinearParams, linear_f32<Product::weight_gradient>);
EXPORT_KERNEL(gemm_dw_bf16, (LINEAR_THREADS, 2), LinearParams, linear_bf16<Product::weight_gradient>);
EXPORT_KERNEL(gemm_dw_sum, (LINEAR_THREADS), PartsSumParams, sum_parts);
