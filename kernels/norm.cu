// RMSNorm (Zhang & Sennrich, 2019), LayerNorm (Ba et al., 2016), the RMSNorm of query and key heads (Qwen3), and their
// backwards. Verbs: rmsnorm, rmsnorm_bw, layernorm, layernorm_bw, qk_norm, qk_norm_bw.
//
//   RMSNorm    rstd = 1 / sqrt(mean(x^2) + eps),  y = x rstd w,  `one` (0, or 1 in Gemma) added to w as it is read
//              dx += rstd (dy w - x rstd^2 mean(dy w x)),  dw += sum over rows of dy x rstd
//   LayerNorm  mean = mean(x),  rstd = 1 / sqrt(mean((x - mean)^2) + eps),  h = (x - mean) rstd,  y = h w + b
//              dx += rstd (dy w - mean(dy w) - h mean(dy w h)),  dw += sum over rows of dy h,  db += sum of dy
//   qk_norm    RMSNorm of each head_dim of the queries (wq) and keys (wk) of qkv[rows, heads | kv_heads | kv_heads],
//              values copied; the backward overwrites dy by dx.
//
// Grid: blocks of 256 threads; a team of blockDim.x threads (a power of two from 8 on) has a row or head at a time,
// blockDim.y teams share a block. The forwards have a team for each row. A block of the backwards has rows_a_block
// rows, which its teams take in turn: each thread adds what the row gives for dw to sums of its own, for the columns
// that it always has; the block then adds up its teams in order and writes a row of partial sums, which column_reduce
// (reduce.cu) adds up in order.
//
// Bound by memory: forward 2 elements of traffic for each of x; backward 4 (dy, x, dx twice; qk_norm 3), and 8 bytes of
// partial sums a column every rows_a_block rows. A thread holds what it has of a row (up to ROW_HELD packs of 16 bytes)
// in registers, so that a row is read once; what lies beyond is read again for the second pass.
#include "common.cuh"


// ---- a team's share of a row ---------------------------------------------------------------------------------------

// A pack of a thread: `count` elements from `column` on; the `index`-th of those that it has of a row, `held` below
// ROW_HELD where they are in registers.
struct Pack {
    unsigned held, index, column;
};

// Calls f(pack) for each pack that this thread has of a row of `width` elements.
template <unsigned count, class F> DEVICE void for_packs(unsigned width, F f) {
#pragma unroll
    for (unsigned k = 0; k < ROW_HELD; k++) {
        const unsigned column = (k * blockDim.x + threadIdx.x) * count;
        if (column < width) {
            f(Pack{k, k, column});
        }
    }
    for (unsigned k = ROW_HELD, column = (ROW_HELD * blockDim.x + threadIdx.x) * count; column < width;
         k++, column += blockDim.x * count) {
        f(Pack{ROW_HELD, k, column});
    }
}

// `count` elements as they lie in memory.
template <class Real, unsigned count> struct Raw {
    uint4 value;
    DEVICE void load(const Real *at PLACE) { value = load_16(at HERE); }
    DEVICE void get(float (&out)[count]) const { unpack(out, value); }
};
template <class Real> struct Raw<Real, 1> {
    Real value;
    DEVICE void load(const Real *at PLACE) { value = *at; }
    DEVICE void get(float (&out)[1]) const { out[0] = to_float(value); }
};

// What a thread has of a row, loaded when it is made.
template <class Real, unsigned count> class Share {
    const Real *row;
    Raw<Real, count> held[ROW_HELD];

  public:
    DEVICE Share(const Real *row, unsigned width PLACE) : row(row) {
#pragma unroll
        for (unsigned k = 0; k < ROW_HELD; k++) {
            const unsigned column = (k * blockDim.x + threadIdx.x) * count;
            if (column < width) {
                held[k].load(row + column HERE);
            }
        }
    }
    DEVICE void get(float (&out)[count], Pack pack PLACE) const {
        if (pack.held < ROW_HELD) {
            held[pack.held].get(out);
        } else {
            load(out, row + pack.column HERE);
        }
    }
};

// ---- sums over the rows of a block ---------------------------------------------------------------------------------

// Sums for every column of `arrays` arrays, each thread's apart from the others': element j of its k-th pack of array i
// is at ((i packs + k) count + j) LINE + thread. A line is 32 / count words longer than the threads, so that neither
// the threads nor the columns collide in a bank.
template <unsigned count> class ColumnSums {
    static constexpr unsigned LINE = ROW_THREADS + NORM_PADDING / count;
    float *at;
    unsigned packs;

    DEVICE float &element(unsigned array, unsigned index, unsigned j, unsigned thread) const {
        return at[(array * packs + index) * count * LINE + j * LINE + thread];
    }

  public:
    // All zero, in `room`, of which each block has a part if it is `global`.
    DEVICE ColumnSums(unsigned arrays, unsigned width, float *room, bool global) {
        packs = (width + blockDim.x * count - 1) / (blockDim.x * count);
        const unsigned lines = arrays * packs * count;
        at = room + (global ? static_cast<size_t>(blockIdx.x) * lines * LINE : 0);
        for (unsigned i = 0; i < lines; i++) {
            at[i * LINE + thread()] = 0.0f;
        }
    }

    DEVICE static unsigned thread() { return threadIdx.y * blockDim.x + threadIdx.x; }

    DEVICE void add(unsigned array, Pack pack, const float (&v)[count]) const {
#pragma unroll
        for (unsigned j = 0; j < count; j++) {
            element(array, pack.index, j, thread()) += v[j];
        }
    }

    // The block's row of partials[arrays, parts = gridDim.x, width]: the sums of its teams, in order.
    DEVICE void write(float *partials, unsigned arrays, unsigned width PLACE) const {
        block_sync(HERE_ONLY);
        for (unsigned array = 0; array < arrays; array++) {
            float *out = partials + (static_cast<size_t>(array) * gridDim.x + blockIdx.x) * width;
            for (unsigned column = thread(); column < width; column += ROW_THREADS) {
                const unsigned pack = column / count;
                float sum = 0.0f;
                for (unsigned team = 0; team < blockDim.y; team++) {
                    sum += element(array, pack / blockDim.x, column % count,
                                   team * blockDim.x + pack % blockDim.x);
                }
                out[column] = sum;
            }
        }
    }
};

// Calls f(sums) with ColumnSums in `global`, or in shared memory (after the scratch of row_sum) if that is null: two
// calls, so that the compiler knows which memory it is.
template <unsigned count, class F>
DEVICE void with_sums(unsigned arrays, unsigned width, float *scratch, float *global, F f) {
    if (global) {
        f(ColumnSums<count>(arrays, width, global, true));
    } else {
        f(ColumnSums<count>(arrays, width, scratch + ROW_THREADS / 32, false));
    }
}

// Calls f(row) for the rows of this block, each by one team; a row of `rows` stands for none, so that all threads meet
// at the barriers inside.
template <class F> DEVICE void for_rows_of_block(unsigned rows, unsigned rows_a_block, F f) {
    const unsigned begin = blockIdx.x * rows_a_block;
    const unsigned end = min(begin + rows_a_block, rows);
    for (unsigned first = begin; first < end; first += blockDim.y) {
        const unsigned row = first + threadIdx.y;
        f(row < end ? row : rows);
    }
}

// ---- RMSNorm -------------------------------------------------------------------------------------------------------

// One row; `end` is its width, or 0 for a team without a row. Gives rstd.
template <class Real, unsigned count>
DEVICE float rms_row(Real *y, const Real *x_row, const Real *w_row, unsigned width, unsigned end, float eps, float one,
                     float *scratch PLACE) {
    const Share<Real, count> x(x_row, end HERE);
    float squares = 0.0f;
    for_packs<count>(end, [&](Pack pack) {
        float v[count];
        x.get(v, pack);
#pragma unroll
        for (unsigned j = 0; j < count; j++) {
            squares += v[j] * v[j];
        }
    });
    const float mean = row_sum(squares, scratch HERE) / static_cast<float>(width);
    const float rstd = 1.0f / sqrtf(mean + eps);
    for_packs<count>(end, [&](Pack pack) {
        float v[count], w[count];
        x.get(v, pack);
        load(w, w_row + pack.column);
#pragma unroll
        for (unsigned j = 0; j < count; j++) {
            v[j] = v[j] * rstd * (one + w[j]);
        }
        store(y + pack.column, v);
    });
    return rstd;
}

template <class Real, unsigned count> DEVICE void rmsnorm_rows(const RmsnormParams &p, float *scratch) {
    const unsigned row = blockIdx.x * blockDim.y + threadIdx.y;
    const bool inside = row < p.rows;
    const size_t start = static_cast<size_t>(inside ? row : 0) * p.width;
    const float rstd = rms_row<Real, count>(static_cast<Real *>(p.y) + start, static_cast<const Real *>(p.x) + start,
                                            static_cast<const Real *>(p.w), p.width, inside ? p.width : 0, p.eps,
                                            p.one, scratch);
    if (inside && threadIdx.x == 0) {
        p.rstd[row] = rstd;
    }
}

template <class Real> DEVICE void rmsnorm(const RmsnormParams &p) {
    DYN_SMEM(shared);
    float *scratch = reinterpret_cast<float *>(shared);
    if (vectorised<Real>(p.width, p.x, p.w, p.y)) {
        rmsnorm_rows<Real, LANES<Real>>(p, scratch);
    } else {
        rmsnorm_rows<Real, 1>(p, scratch);
    }
}

// The backward of one row: dx is added to what is there, or overwrites it (and may be dy).
template <class Real, unsigned count, bool add>
DEVICE void rms_row_bw(Real *dx_row, const Real *dy_row, const Real *x_row, const Real *w_row, float rstd,
                       float one, unsigned width, unsigned end, const ColumnSums<count> &sums, unsigned array,
                       float *scratch PLACE) {
    const Share<Real, count> dy(dy_row, end HERE), x(x_row, end HERE);
    const Share<Real, count> dx(dx_row, add ? end : 0 HERE);
    float dot = 0.0f;
    for_packs<count>(end, [&](Pack pack) {
        float g[count], v[count], w[count];
        dy.get(g, pack);
        x.get(v, pack);
        load(w, w_row + pack.column);
#pragma unroll
        for (unsigned j = 0; j < count; j++) {
            dot += g[j] * (one + w[j]) * v[j];
        }
    });
    dot = row_sum(dot, scratch HERE) * rstd * rstd / static_cast<float>(width);
    for_packs<count>(end, [&](Pack pack) {
        float g[count], v[count], w[count], out[count];
        dy.get(g, pack);
        x.get(v, pack);
        load(w, w_row + pack.column);
        if constexpr (add) {
            dx.get(out, pack);
        }
#pragma unroll
        for (unsigned j = 0; j < count; j++) {
            const float d = rstd * (g[j] * (one + w[j]) - v[j] * dot);
            out[j] = add ? out[j] + d : d;
            g[j] *= v[j] * rstd;
        }
        store(dx_row + pack.column, out);
        sums.add(array, pack, g);
    });
}

template <class Real, unsigned count> DEVICE void rmsnorm_bw_rows(const RmsnormBwParams &p, float *scratch) {
    with_sums<count>(1, p.width, scratch, p.sums, [&](const ColumnSums<count> &sums) {
        for_rows_of_block(p.rows, p.rows_a_block, [&](unsigned row) {
            const bool inside = row < p.rows;
            const size_t start = static_cast<size_t>(inside ? row : 0) * p.width;
            rms_row_bw<Real, count, true>(static_cast<Real *>(p.dx) + start, static_cast<const Real *>(p.dy) + start,
                                          static_cast<const Real *>(p.x) + start, static_cast<const Real *>(p.w),
                                          p.rstd[inside ? row : 0], p.one, p.width, inside ? p.width : 0, sums, 0, scratch);
        });
        sums.write(p.partials, 1, p.width);
    });
}

template <class Real> DEVICE void rmsnorm_bw(const RmsnormBwParams &p) {
    DYN_SMEM(shared);
    float *scratch = reinterpret_cast<float *>(shared);
    if (vectorised<Real>(p.width, p.dx, p.dy, p.x, p.w)) {
        rmsnorm_bw_rows<Real, LANES<Real>>(p, scratch);
    } else {
        rmsnorm_bw_rows<Real, 1>(p, scratch);
    }
}

// ---- LayerNorm -----------------------------------------------------------------------------------------------------

template <class Real, unsigned count> DEVICE void layernorm_rows(const LayernormParams &p, float *scratch) {
    const unsigned row = blockIdx.x * blockDim.y + threadIdx.y;
    const bool inside = row < p.rows;
    const size_t start = static_cast<size_t>(inside ? row : 0) * p.width;
    const unsigned end = inside ? p.width : 0;
    const float width = static_cast<float>(p.width);
    const Share<Real, count> x(static_cast<const Real *>(p.x) + start, end);
    float sum = 0.0f;
    for_packs<count>(end, [&](Pack pack) {
        float v[count];
        x.get(v, pack);
#pragma unroll
        for (unsigned j = 0; j < count; j++) {
            sum += v[j];
        }
    });
    const float mean = row_sum(sum, scratch) / width;
    float squares = 0.0f;
    for_packs<count>(end, [&](Pack pack) {
        float v[count];
        x.get(v, pack);
#pragma unroll
        for (unsigned j = 0; j < count; j++) {
            squares += (v[j] - mean) * (v[j] - mean);
        }
    });
    const float rstd = 1.0f / sqrtf(row_sum(squares, scratch) / width + p.eps);
    for_packs<count>(end, [&](Pack pack) {
        float v[count], w[count], b[count];
        x.get(v, pack);
        load(w, static_cast<const Real *>(p.w) + pack.column);
        load(b, static_cast<const Real *>(p.b) + pack.column);
#pragma unroll
        for (unsigned j = 0; j < count; j++) {
            v[j] = (v[j] - mean) * rstd * w[j] + b[j];
        }
        store(static_cast<Real *>(p.y) + start + pack.column, v);
    });
    if (inside && threadIdx.x == 0) {
        p.stats[2 * static_cast<size_t>(row)] = mean;
        p.stats[2 * static_cast<size_t>(row) + 1] = rstd;
    }
}

template <class Real> DEVICE void layernorm(const LayernormParams &p) {
    DYN_SMEM(shared);
    float *scratch = reinterpret_cast<float *>(shared);
    if (vectorised<Real>(p.width, p.x, p.w, p.b, p.y)) {
        layernorm_rows<Real, LANES<Real>>(p, scratch);
    } else {
        layernorm_rows<Real, 1>(p, scratch);
    }
}

// One row, or none where `row` is past the end.
template <class Real, unsigned count>
DEVICE void layernorm_bw_row(const LayernormBwParams &p, unsigned row, const ColumnSums<count> &sums,
                             float *scratch PLACE) {
    const bool inside = row < p.rows;
    const size_t start = static_cast<size_t>(inside ? row : 0) * p.width;
    const unsigned end = inside ? p.width : 0;
    const float mean = p.stats[inside ? 2 * static_cast<size_t>(row) : 0];
    const float rstd = p.stats[inside ? 2 * static_cast<size_t>(row) + 1 : 0];
    const Real *w_row = static_cast<const Real *>(p.w);
    Real *dx_row = static_cast<Real *>(p.dx) + start;
    const Share<Real, count> dy(static_cast<const Real *>(p.dy) + start, end HERE);
    const Share<Real, count> x(static_cast<const Real *>(p.x) + start, end HERE);
    const Share<Real, count> dx(dx_row, end HERE);
    float sum = 0.0f, dot = 0.0f;
    for_packs<count>(end, [&](Pack pack) {
        float g[count], v[count], w[count];
        dy.get(g, pack);
        x.get(v, pack);
        load(w, w_row + pack.column);
#pragma unroll
        for (unsigned j = 0; j < count; j++) {
            sum += g[j] * w[j];
            dot += g[j] * w[j] * (v[j] - mean);
        }
    });
    const float inverse = 1.0f / static_cast<float>(p.width);
    const float mean_g = row_sum(sum, scratch HERE) * inverse;
    const float mean_gh = row_sum(dot, scratch HERE) * rstd * inverse;
    for_packs<count>(end, [&](Pack pack) {
        float g[count], v[count], w[count], out[count];
        dy.get(g, pack);
        x.get(v, pack);
        dx.get(out, pack);
        load(w, w_row + pack.column);
        sums.add(1, pack, g);
#pragma unroll
        for (unsigned j = 0; j < count; j++) {
            const float h = (v[j] - mean) * rstd;
            // Rounded as in the mean: it must cancel where all are alike.
            out[j] += rstd * (multiply_rounded(g[j], w[j]) - mean_g - h * mean_gh);
            g[j] *= h;
        }
        store(dx_row + pack.column, out);
        sums.add(0, pack, g);
    });
}

template <class Real, unsigned count> DEVICE void layernorm_bw_rows(const LayernormBwParams &p, float *scratch) {
    with_sums<count>(2, p.width, scratch, p.sums, [&](const ColumnSums<count> &sums) {
        for_rows_of_block(p.rows, p.rows_a_block,
                          [&](unsigned row) { layernorm_bw_row<Real, count>(p, row, sums, scratch); });
        sums.write(p.partials, 2, p.width);
    });
}

template <class Real> DEVICE void layernorm_bw(const LayernormBwParams &p) {
    DYN_SMEM(shared);
    float *scratch = reinterpret_cast<float *>(shared);
    if (vectorised<Real>(p.width, p.dx, p.dy, p.x, p.w)) {
        layernorm_bw_rows<Real, LANES<Real>>(p, scratch);
    } else {
        layernorm_bw_rows<Real, 1>(p, scratch);
    }
}

// ---- query and key heads -------------------------------------------------------------------------------------------

// A team has one head of one row, also of the values.
template <class Real, unsigned count> DEVICE void qk_norm_heads(const QkNormParams &p, float *scratch) {
    const unsigned normed = p.heads + p.kv_heads;
    const unsigned all = normed + p.kv_heads;
    const unsigned item = blockIdx.x * blockDim.y + threadIdx.y;
    const unsigned row = item / all;
    const unsigned head = item % all;
    const bool inside = row < p.rows;
    const size_t start = static_cast<size_t>(inside ? item : 0) * p.head_dim;
    const Real *x = static_cast<const Real *>(p.x) + start;
    Real *y = static_cast<Real *>(p.y) + start;
    const bool norm = inside && head < normed;
    const void *w = head < p.heads ? p.wq : p.wk;
    const float rstd = rms_row<Real, count>(y, x, static_cast<const Real *>(w), p.head_dim, norm ? p.head_dim : 0,
                                            p.eps, p.one, scratch);
    if (norm && threadIdx.x == 0) {
        p.rstd[static_cast<size_t>(row) * normed + head] = rstd;
    }
    if (inside && !norm) {
        for_packs<count>(p.head_dim, [&](Pack pack) {
            float v[count];
            load(v, x + pack.column);
            store(y + pack.column, v);
        });
    }
}

template <class Real> DEVICE void qk_norm(const QkNormParams &p) {
    DYN_SMEM(shared);
    float *scratch = reinterpret_cast<float *>(shared);
    if (vectorised<Real>(p.head_dim, p.x, p.wq, p.wk, p.y)) {
        qk_norm_heads<Real, LANES<Real>>(p, scratch);
    } else {
        qk_norm_heads<Real, 1>(p, scratch);
    }
}

// One query or key head of the rows, or none where `item` is past the last of them.
template <class Real, unsigned count>
DEVICE void qk_norm_bw_head(const QkNormBwParams &p, unsigned item, const ColumnSums<count> &sums,
                            float *scratch PLACE) {
    const unsigned normed = p.heads + p.kv_heads;
    const bool inside = item < p.rows * normed;
    const unsigned at = inside ? item : 0;
    const unsigned head = at % normed;
    const size_t start = (static_cast<size_t>(at / normed) * (normed + p.kv_heads) + head) * p.head_dim;
    Real *d = static_cast<Real *>(p.dqkv) + start;
    const unsigned key = head < p.heads ? 0 : 1;
    const void *w = key ? p.wk : p.wq;
    rms_row_bw<Real, count, false>(d, d, static_cast<const Real *>(p.x) + start, static_cast<const Real *>(w),
                                   p.rstd[at], p.one, p.head_dim, inside ? p.head_dim : 0, sums, key, scratch HERE);
}

// The teams of a block take the query and key heads of its rows in turn.
template <class Real, unsigned count> DEVICE void qk_norm_bw_heads(const QkNormBwParams &p, float *scratch) {
    const unsigned normed = p.heads + p.kv_heads;
    with_sums<count>(2, p.head_dim, scratch, p.sums, [&](const ColumnSums<count> &sums) {
        for_rows_of_block(p.rows * normed, p.rows_a_block * normed,
                          [&](unsigned item) { qk_norm_bw_head<Real, count>(p, item, sums, scratch); });
        sums.write(p.partials, 2, p.head_dim);
    });
}

template <class Real> DEVICE void qk_norm_bw(const QkNormBwParams &p) {
    DYN_SMEM(shared);
    float *scratch = reinterpret_cast<float *>(shared);
    if (vectorised<Real>(p.head_dim, p.dqkv, p.x, p.wq, p.wk)) {
        qk_norm_bw_heads<Real, LANES<Real>>(p, scratch);
    } else {
        qk_norm_bw_heads<Real, 1>(p, scratch);
    }
}

// y += x: 256 threads a block stride over the elements, 16 bytes each, and those left over at the end one each.
template <class Real, unsigned count> DEVICE void add_at(const AddParams &p, unsigned long long at) {
    float x[count], y[count];
    load(x, static_cast<const Real *>(p.x) + at);
    load(y, static_cast<const Real *>(p.y) + at);
#pragma unroll
    for (unsigned i = 0; i < count; i++) {
        y[i] += x[i];
    }
    store(static_cast<Real *>(p.y) + at, y);
}

template <class Real> DEVICE void add(const AddParams &p) {
    for_each_pack<Real>(
        p.len, vectorised<Real>(0, p.x, p.y), [&](unsigned long long at) { add_at<Real, LANES<Real>>(p, at); },
        [&](unsigned long long at) { add_at<Real, 1>(p, at); });
}

EXPORT_KERNEL(add_f32, (ROW_THREADS), AddParams, add<float>);
EXPORT_KERNEL(add_bf16, (ROW_THREADS), AddParams, add<bf16>);
EXPORT_KERNEL(rmsnorm_f32, (ROW_THREADS, 4), RmsnormParams, rmsnorm<float>);
EXPORT_KERNEL(rmsnorm_bf16, (ROW_THREADS, 4), RmsnormParams, rmsnorm<bf16>);
EXPORT_KERNEL(rmsnorm_bw_f32, (ROW_THREADS, 2), RmsnormBwParams, rmsnorm_bw<float>);
EXPORT_KERNEL(rmsnorm_bw_bf16, (ROW_THREADS, 2), RmsnormBwParams, rmsnorm_bw<bf16>);
EXPORT_KERNEL(layernorm_f32, (ROW_THREADS, 4), LayernormParams, layernorm<float>);
EXPORT_KERNEL(layernorm_bf16, (ROW_THREADS, 4), LayernormParams, layernorm<bf16>);
EXPORT_KERNEL(layernorm_bw_f32, (ROW_THREADS, 2), LayernormBwParams, layernorm_bw<float>);
EXPORT_KERNEL(layernorm_bw_bf16, (ROW_THREADS, 2), LayernormBwParams, layernorm_bw<bf16>);
EXPORT_KERNEL(qk_norm_f32, (ROW_THREADS, 4), QkNormParams, qk_norm<float>);
EXPORT_KERNEL(qk_norm_bf16, (ROW_THREADS, 4), QkNormParams, qk_norm<bf16>);
EXPORT_KERNEL(qk_norm_bw_f32, (ROW_THREADS, 2), QkNormBwParams, qk_norm_bw<float>);
EXPORT_KERNEL(qk_norm_bw_bf16, (ROW_THREADS, 2), QkNormBwParams, qk_norm_bw<bf16>);
