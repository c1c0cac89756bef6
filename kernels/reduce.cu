// Sums in an order that only the lengths decide: the same bits on every device. Verbs: bias_dw, sumsq; the second half
// of the norms' backwards; the clip.
//
//   column_sums    partials[part, width] = the sum of dy[rows of the part, width]
//   column_reduce  out[i][width] += the sum over parts of partials[i, parts, width]
//   sumsq          partials[block] = the sum of squares of a block of x, in double
//   sum_doubles    out = the sum of x[len]
//   clip_scale     scale = min(1, max_norm / (sqrt(sum of sums) + 1e-6)), as PyTorch clips gradients
//
// Grid: column_sums: x has rows_a_block rows each, y covers the columns, 16 bytes a thread; blockDim.y teams take the
// rows in turn and are added up in order. column_reduce: 32 columns a block, its 32 warps take the parts in turn; y is
// the array. sumsq: a block of threads a block of x. sum_doubles and clip_scale: one block.
// Bound by memory: column_sums and sumsq read their input once; what they hand on is less than a tenth of it.
#include "common.cuh"


// ---- columns -------------------------------------------------------------------------------------------------------

template <class Real, unsigned count> DEVICE void column_sums_of(const ColumnSumsParams &p, float *shared) {
    const unsigned column = (blockIdx.y * blockDim.x + threadIdx.x) * count;
    const unsigned begin = blockIdx.x * p.rows_a_block;
    const unsigned end = column < p.width ? min(begin + p.rows_a_block, p.rows) : begin;
    float sum[count] = {};
    for (unsigned row = begin + threadIdx.y; row < end; row += blockDim.y) {
        float v[count];
        load(v, static_cast<const Real *>(p.dy) + static_cast<size_t>(row) * p.width + column);
#pragma unroll
        for (unsigned j = 0; j < count; j++) {
            sum[j] += v[j];
        }
    }
#pragma unroll
    for (unsigned j = 0; j < count; j++) {
        shared[(j * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x] = sum[j];
    }
    __syncthreads();
    if (threadIdx.y > 0 || column >= p.width) {
        return;
    }
#pragma unroll
    for (unsigned j = 0; j < count; j++) {
        sum[j] = 0.0f;
        for (unsigned team = 0; team < blockDim.y; team++) {
            sum[j] += shared[(j * blockDim.y + team) * blockDim.x + threadIdx.x];
        }
    }
    float *out = p.partials + static_cast<size_t>(blockIdx.x) * p.width + column;
    store(out, sum);
}

template <class Real> DEVICE void column_sums(const ColumnSumsParams &p) {
    DYN_SMEM(shared);
    float *sums = reinterpret_cast<float *>(shared);
    if (vectorised<Real>(p.width, p.dy, p.partials)) {
        column_sums_of<Real, LANES<Real>>(p, sums);
    } else {
        column_sums_of<Real, 1>(p, sums);
    }
}

DEVICE void reduce_columns(const ColumnReduceParams &p) {
    DYN_SMEM(shared);
    float *sums = reinterpret_cast<float *>(shared);
    if (p.out[blockIdx.y] == nullptr) {
        return;
    }
    const unsigned lane = threadIdx.x % COLUMN_TILE;
    const unsigned warp = threadIdx.x / COLUMN_TILE;
    const unsigned column = blockIdx.x * COLUMN_TILE + lane;
    float sum = 0.0f;
    if (column < p.width) {
        const float *x = p.partials + static_cast<size_t>(blockIdx.y) * p.parts * p.width + column;
#pragma unroll 4
        for (unsigned part = warp; part < p.parts; part += COLUMN_TILE) {
            sum += x[static_cast<size_t>(part) * p.width];
        }
    }
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (warp > 0 || column >= p.width) {
        return;
    }
    sum = 0.0f;
    for (unsigned i = 0; i < COLUMN_TILE; i++) {
        sum += sums[i * COLUMN_TILE + lane];
    }
    p.out[blockIdx.y][column] += sum;
}

// ---- squares -------------------------------------------------------------------------------------------------------

template <unsigned count> DEVICE double squares_at(const float *x) {
    float v[count];
    load(v, x);
    double sum = 0;
#pragma unroll
    for (unsigned i = 0; i < count; i++) {
        sum += static_cast<double>(v[i]) * v[i];
    }
    return sum;
}

DEVICE void block_squares(const SumsqParams &p) {
    DYN_SMEM(shared);
    const unsigned long long begin = static_cast<unsigned long long>(blockIdx.x) * p.block;
    const unsigned long long end = min(begin + p.block, p.len);
    const unsigned long long packed = vectorised<float>(0, p.x) ? end - (end - begin) % 4 : begin;
    double sum = 0;
    for (unsigned long long i = begin + 4 * threadIdx.x; i < packed; i += 4 * ROW_THREADS) {
        sum += squares_at<4>(p.x + i);
    }
    for (unsigned long long i = packed + threadIdx.x; i < end; i += ROW_THREADS) {
        sum += squares_at<1>(p.x + i);
    }
    sum = row_sum(sum, reinterpret_cast<double *>(shared));
    if (threadIdx.x == 0) {
        p.partials[blockIdx.x] = sum;
    }
}

// The sum of x[len], for every thread of the one block.
DEVICE double block_sum(const double *x, unsigned len, unsigned char *shared PLACE) {
    double sum = 0;
    for (unsigned i = threadIdx.x; i < len; i += ROW_THREADS) {
        sum += x[i];
    }
    return row_sum(sum, reinterpret_cast<double *>(shared) HERE);
}

DEVICE void sum_of_doubles(const SumDoublesParams &p) {
    DYN_SMEM(shared);
    const double sum = block_sum(p.x, p.len, shared);
    if (threadIdx.x == 0) {
        p.out[0] = sum;
    }
}

DEVICE void scale_of_norm(const ClipScaleParams &p) {
    DYN_SMEM(shared);
    const double norm = sqrt(block_sum(p.sums, p.len, shared));
    if (threadIdx.x == 0) {
        const double scale = p.max_norm > 0 ? fmin(p.max_norm / (norm + 1e-6), 1.0) : 1.0;
        p.scale[0] = static_cast<float>(scale);
    }
}

EXPORT_KERNEL(column_sums_f32, (ROW_THREADS), ColumnSumsParams, column_sums<float>);
EXPORT_KERNEL(column_sums_bf16, (ROW_THREADS), ColumnSumsParams, column_sums<bf16>);
EXPORT_KERNEL(column_reduce, (COLUMN_THREADS), ColumnReduceParams, reduce_columns);
EXPORT_KERNEL(sumsq, (ROW_THREADS), SumsqParams, block_squares);
EXPORT_KERNEL(sum_doubles, (ROW_THREADS), SumDoublesParams, sum_of_doubles);
EXPORT_KERNEL(clip_scale, (ROW_THREADS), ClipScaleParams, scale_of_norm);
