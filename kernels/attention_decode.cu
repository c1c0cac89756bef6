// Attention of one query a sequence over a cache of keys and values, and the way into the cache; there is no backward.
// Verbs: attention_cached, kv_store.
//
//   For one head: s = scale q k^T over the two runs of rows of the cache that row r sees,  o = softmax(s) v
//
// Shapes: qkv[rows, (heads + 2 kv_heads) head_dim] = [q | k | v], keys and values[capacity, kv_heads head_dim],
// o[rows, heads head_dim].
//
// Grid: attention_cached is one-dimensional, row * heads + head, and in bf16 with heads of 64 and 128, where the query
// heads of a group share a block, (row * kv_heads + kv_head) * strips + strip, a strip being 16 of them; kv_store as
// its kernel says. Bound by memory: the cache rows once a block.
#include "attention.cuh"

// ---- what a row sees -----------------------------------------------------------------------------------------------

// Number of rows of a run, all of which the cache has.
DEVICE unsigned check_run(const unsigned *run, unsigned cache_rows PLACE) {
    if (run[1] > 0) {
        check_row(run[0], cache_rows HERE);
        check_row(run[1] - 1, cache_rows - run[0] HERE);
    }
    return run[1];
}

// The keys of both runs of a row of queries, in order.
struct CachedKeys {
    const unsigned *runs;
    unsigned before, len;

    DEVICE CachedKeys(const AttentionCachedParams &p, unsigned row PLACE)
        : runs(p.runs + 4 * static_cast<size_t>(row)), before(check_run(runs, p.cache_rows HERE)),
          len(before + check_run(runs + 2, p.cache_rows HERE)) {
        check_row(0, len HERE); // a softmax over nothing
    }
    // The row of the cache that a key is in.
    DEVICE size_t row(unsigned key) const { return key < before ? runs[0] + key : runs[2] + (key - before); }
};

// ---- any precision and width on fused multiply-adds ----------------------------------------------------------------

// One query over a cache. A block has a row and a query head; its 16 teams take the keys in turn, each with a softmax
// of its own, and are joined in order at the end.
template <class Real, unsigned count> DEVICE void attention_cached_of(const AttentionCachedParams &p) {
    constexpr unsigned PARTS = ATTENTION_WIDEST / (ATTENTION_TEAM * count); // that a lane has of a row
    DYN_SMEM(shared);
    float *tops = reinterpret_cast<float *>(shared); // of each team
    float *sums = tops + ATTENTION_CACHED_TEAMS;
    float *outputs = sums + ATTENTION_CACHED_TEAMS; // [ATTENTION_CACHED_TEAMS, head_dim]
    shared_reaches(outputs + ATTENTION_CACHED_TEAMS * p.head_dim);

    const unsigned row = blockIdx.x / p.heads;
    const unsigned head = blockIdx.x % p.heads;
    const unsigned kv_head = head / (p.heads / p.kv_heads);
    const HeadColumns at(p.heads, p.kv_heads, p.head_dim, head, kv_head);
    const size_t kv_width = static_cast<size_t>(p.kv_heads) * p.head_dim;
    const Real *keys = static_cast<const Real *>(p.keys) + kv_head * p.head_dim;
    const Real *values = static_cast<const Real *>(p.values) + kv_head * p.head_dim;
    const CachedKeys seen(p, row);
    const unsigned len = seen.len;
    const unsigned team = threadIdx.x / ATTENTION_TEAM;
    const unsigned lane = threadIdx.x % ATTENTION_TEAM;
    const float scale_log2 = p.scale * LOG2_E;
    const auto column = [&](unsigned part) { return (part * ATTENTION_TEAM + lane) * count; };

    float q[PARTS][count], o[PARTS][count] = {};
#pragma unroll
    for (unsigned part = 0; part < PARTS; part++) {
        if (column(part) < p.head_dim) {
            load(q[part], static_cast<const Real *>(p.qkv) + row * static_cast<size_t>(at.width) + at.q + column(part));
        }
    }
    float top = -INFINITY, sum = 0.0f;
    for (unsigned first = 0; first < len; first += ATTENTION_CACHED_TEAMS) { // every lane takes part in the sums
        const unsigned key = first + team;
        float s = 0.0f;
#pragma unroll
        for (unsigned part = 0; part < PARTS; part++) {
            if (key < len && column(part) < p.head_dim) {
                float k[count];
                load(k, keys + seen.row(key) * kv_width + column(part));
#pragma unroll
                for (unsigned i = 0; i < count; i++) {
                    s += q[part][i] * k[i];
                }
            }
        }
        s = octet_sum(s);
        if (key < len) {
            const float highest = fmaxf(top, s);
            const float correction = exp2_approx((top - highest) * scale_log2);
            const float weight = exp2_approx((s - highest) * scale_log2);
            top = highest;
            sum = sum * correction + weight;
#pragma unroll
            for (unsigned part = 0; part < PARTS; part++) {
                if (column(part) < p.head_dim) {
                    float v[count];
                    load(v, values + seen.row(key) * kv_width + column(part));
#pragma unroll
                    for (unsigned i = 0; i < count; i++) {
                        o[part][i] = o[part][i] * correction + weight * v[i];
                    }
                }
            }
        }
    }
    if (lane == 0) {
        tops[team] = top;
        sums[team] = sum;
    }
#pragma unroll
    for (unsigned part = 0; part < PARTS; part++) {
#pragma unroll
        for (unsigned i = 0; i < count; i++) {
            if (column(part) < p.head_dim) {
                outputs[team * p.head_dim + column(part) + i] = o[part][i];
            }
        }
    }
    __syncthreads();
    float highest = -INFINITY;
    for (unsigned i = 0; i < ATTENTION_CACHED_TEAMS; i++) {
        highest = fmaxf(highest, tops[i]);
    }
    float total = 0.0f;
    for (unsigned i = 0; i < ATTENTION_CACHED_TEAMS; i++) {
        total += sums[i] * exp2_approx((tops[i] - highest) * scale_log2);
    }
    Real *out = static_cast<Real *>(p.o) + (static_cast<size_t>(row) * p.heads + head) * p.head_dim;
    for (unsigned c = threadIdx.x; c < p.head_dim; c += ATTENTION_CACHED_THREADS) {
        float x = 0.0f;
        for (unsigned i = 0; i < ATTENTION_CACHED_TEAMS; i++) {
            x += outputs[i * p.head_dim + c] * exp2_approx((tops[i] - highest) * scale_log2);
        }
        out[c] = from_float<Real>(x / total);
    }
}

template <class Real> DEVICE void attention_cached(const AttentionCachedParams &p) {
    if (vectorised<Real>(p.head_dim, p.qkv, p.keys, p.values)) {
        attention_cached_of<Real, LANES<Real>>(p);
    } else {
        attention_cached_of<Real, 1>(p);
    }
}

EXPORT_KERNEL(attention_cached_f32, (ATTENTION_CACHED_THREADS, 3), AttentionCachedParams, attention_cached<float>);
EXPORT_KERNEL(attention_cached_bf16, (ATTENTION_CACHED_THREADS, 3), AttentionCachedParams, attention_cached<bf16>);

// ---- bf16 on mma, heads of 64 and 128 ------------------------------------------------------------------------------
// A warp takes STEP keys at a time, from global memory straight into the operands of its products: the sum of a score
// and the columns of a result have no order, so that every lane has the 16 bytes that it reads.

constexpr unsigned CACHED_WARPS = ATTENTION_CACHED_THREADS / 32;

// Sixteen bytes of a row that is there, else zeros.
DEVICE uint4 load_16_if(bool there, const bf16 *at PLACE) {
    return there ? load_16(at HERE) : make_uint4(0, 0, 0, 0);
}

// The words of 16 bytes.
DEVICE unsigned word_of(const uint4 &x, unsigned i) { return i == 0 ? x.x : i == 1 ? x.y : i == 2 ? x.z : x.w; }

// Up to 16 query heads of a group over a cache. The warps take the keys in turn, each with a softmax of its own, and
// are joined in order at the end.
template <unsigned HD, unsigned BYTES> DEVICE void attention_cached_mma(const AttentionCachedParams &p) {
    constexpr unsigned STEP = 2048 / HD; // 16 loads of 16 bytes a lane
    constexpr unsigned HEADS = ATTENTION_CACHED_HEADS;
    static_assert(CACHED_WARPS * HEADS * (2 + HD) * sizeof(float) == BYTES, "the launch has room for all warps");
    DYN_SMEM(shared);
    float *tops = reinterpret_cast<float *>(shared); // [CACHED_WARPS, HEADS]
    float *sums = tops + CACHED_WARPS * HEADS;
    float *outputs = sums + CACHED_WARPS * HEADS; // [CACHED_WARPS, HEADS, HD]
    shared_reaches(outputs + CACHED_WARPS * HEADS * HD);

    const unsigned ratio = p.heads / p.kv_heads;
    const unsigned strips = (ratio + HEADS - 1) / HEADS;
    const unsigned strip = blockIdx.x % strips;
    const unsigned kv_head = blockIdx.x / strips % p.kv_heads;
    const unsigned row = blockIdx.x / strips / p.kv_heads;
    const unsigned first_head = kv_head * ratio + strip * HEADS;
    const unsigned heads = min(ratio - strip * HEADS, HEADS);
    const HeadColumns at(p.heads, p.kv_heads, HD, first_head, kv_head);
    const size_t kv_width = static_cast<size_t>(p.kv_heads) * HD;
    const bf16 *keys = static_cast<const bf16 *>(p.keys) + kv_head * HD;
    const bf16 *values = static_cast<const bf16 *>(p.values) + kv_head * HD;
    const CachedKeys seen(p, row);
    const unsigned warp = threadIdx.x / 32;
    const unsigned g = threadIdx.x % 32 / 4;
    const unsigned t = threadIdx.x % 4;

    // Columns 32 c + 8 t to 32 c + 8 t + 7 of a head are what a lane has of two products' depths.
    unsigned q[HD / 16][4];
#pragma unroll
    for (unsigned c = 0; c < HD / 32; c++) {
        const unsigned column = at.q + 32 * c + 8 * t;
        const bf16 *from = static_cast<const bf16 *>(p.qkv) + row * static_cast<size_t>(at.width) + column;
        const uint4 low = load_16_if(g < heads, from + g * HD);
        const uint4 high = load_16_if(g + 8 < heads, from + (g + 8) * HD);
#pragma unroll
        for (unsigned i = 0; i < 2; i++) {
            q[2 * c + i][0] = word_of(low, 2 * i);
            q[2 * c + i][1] = word_of(high, 2 * i);
            q[2 * c + i][2] = word_of(low, 2 * i + 1);
            q[2 * c + i][3] = word_of(high, 2 * i + 1);
        }
    }
    OnlineSoftmax softmax;
    float o[HD / 2] = {}; // of 64 h + 8 column + d in the accumulators of tile 8 h + d
    for (unsigned first = warp * STEP; first < seen.len; first += CACHED_WARPS * STEP) {
        uint4 k[STEP / 8][HD / 32], v[STEP / 16][4][HD / 64];
#pragma unroll
        for (unsigned i = 0; i < STEP / 8; i++) {
            const unsigned key = first + 8 * i + g;
            const bf16 *from = keys + seen.row(key) * kv_width + 8 * t;
#pragma unroll
            for (unsigned c = 0; c < HD / 32; c++) {
                k[i][c] = load_16_if(key < seen.len, from + 32 * c);
            }
        }
#pragma unroll
        for (unsigned i = 0; i < STEP / 16; i++) {
#pragma unroll
            for (unsigned j = 0; j < 4; j++) { // the keys 2 t, 2 t + 1, 2 t + 8 and 2 t + 9 of sixteen
                const unsigned key = first + 16 * i + 2 * t + j % 2 + j / 2 * 8;
                const bf16 *from = values + seen.row(key) * kv_width + 8 * g;
#pragma unroll
                for (unsigned h = 0; h < HD / 64; h++) {
                    v[i][j][h] = load_16_if(key < seen.len, from + 64 * h);
                }
            }
        }
        float s[STEP / 2] = {}, correction[2];
#pragma unroll
        for (unsigned i = 0; i < STEP / 8; i++) {
#pragma unroll
            for (unsigned c = 0; c < HD / 32; c++) {
                multiply_add(&s[4 * i], q[2 * c], k[i][c].x, k[i][c].y);
                multiply_add(&s[4 * i], q[2 * c + 1], k[i][c].z, k[i][c].w);
            }
        }
        if (first + STEP > seen.len) {
            hide_columns(s, first, seen.len, seen.len);
        }
        softmax.add(s, correction, p.scale * LOG2_E);
        scale_rows(o, correction);
#pragma unroll
        for (unsigned i = 0; i < STEP / 16; i++) {
            unsigned weights[4];
            left_operand(weights, s, i);
#pragma unroll
            for (unsigned h = 0; h < HD / 64; h++) {
#pragma unroll
                for (unsigned d = 0; d < 8; d++) {
                    unsigned b[2]; // column d of two keys each
#pragma unroll
                    for (unsigned j = 0; j < 2; j++) {
                        const unsigned one = word_of(v[i][2 * j][h], d / 2);
                        const unsigned next = word_of(v[i][2 * j + 1][h], d / 2);
                        b[j] = d % 2 ? one >> 16 | (next & 0xffff0000u) : (one & 0xffffu) | next << 16;
                    }
                    multiply_add(&o[4 * (8 * h + d)], weights, b[0], b[1]);
                }
            }
        }
    }
#pragma unroll
    for (unsigned half = 0; half < 2; half++) {
        const unsigned to = warp * HEADS + g + 8 * half;
        const float sum = quad_sum(softmax.sum[half]);
        if (t == 0) {
            tops[to] = softmax.top[half];
            sums[to] = sum;
        }
#pragma unroll
        for (unsigned tile = 0; tile < HD / 8; tile++) {
#pragma unroll
            for (unsigned i = 0; i < 2; i++) {
                outputs[to * HD + tile / 8 * 64 + 8 * (2 * t + i) + tile % 8] = o[4 * tile + 2 * half + i];
            }
        }
    }
    __syncthreads();
    bf16 *out = static_cast<bf16 *>(p.o) + (static_cast<size_t>(row) * p.heads + first_head) * HD;
    for (unsigned i = threadIdx.x; i < heads * HD; i += ATTENTION_CACHED_THREADS) {
        const unsigned head = i / HD;
        float highest = -INFINITY;
#pragma unroll
        for (unsigned w = 0; w < CACHED_WARPS; w++) {
            highest = fmaxf(highest, tops[w * HEADS + head]);
        }
        float x = 0.0f, total = 0.0f;
#pragma unroll
        for (unsigned w = 0; w < CACHED_WARPS; w++) {
            const float share = exp2_approx((tops[w * HEADS + head] - highest) * (p.scale * LOG2_E));
            total += sums[w * HEADS + head] * share;
            x += outputs[w * HEADS * HD + i] * share;
        }
        out[i] = from_float<bf16>(x / total);
    }
}

EXPORT_KERNEL(attention_cached_bf16_hd64, (ATTENTION_CACHED_THREADS, 3), AttentionCachedParams,
              attention_cached_mma<64, ATTENTION_CACHED_HD64_BYTES>);
EXPORT_KERNEL(attention_cached_bf16_hd128, (ATTENTION_CACHED_THREADS, 3), AttentionCachedParams,
              attention_cached_mma<128, ATTENTION_CACHED_HD128_BYTES>);

// ---- cache ---------------------------------------------------------------------------------------------------------

// Grid: x strides over the columns of keys and values, y over the rows.
template <class Real, unsigned count> DEVICE void kv_store_columns(const KvStoreParams &p) {
    const size_t width = p.q_width + 2 * static_cast<size_t>(p.kv_width);
    for (unsigned row = blockIdx.y; row < p.rows; row += gridDim.y) {
        const Real *from = static_cast<const Real *>(p.qkv) + row * width + p.q_width;
        check_row(p.slots[row], p.cache_rows);
        const size_t to = p.slots[row] * static_cast<size_t>(p.kv_width);
        for (unsigned column = (blockIdx.x * ROW_THREADS + threadIdx.x) * count; column < 2 * p.kv_width;
             column += gridDim.x * ROW_THREADS * count) {
            float x[count];
            load(x, from + column);
            if (column < p.kv_width) {
                store(static_cast<Real *>(p.keys) + to + column, x);
            } else {
                store(static_cast<Real *>(p.values) + to + column - p.kv_width, x);
            }
        }
    }
}

template <class Real> DEVICE void kv_store(const KvStoreParams &p) {
    if (p.q_width % LANES<Real> == 0 && vectorised<Real>(p.kv_width, p.qkv, p.keys, p.values)) {
        kv_store_columns<Real, LANES<Real>>(p);
    } else {
        kv_store_columns<Real, 1>(p);
    }
}

EXPORT_KERNEL(kv_store_f32, (ROW_THREADS), KvStoreParams, kv_store<float>);
EXPORT_KERNEL(kv_store_bf16, (ROW_THREADS), KvStoreParams, kv_store<bf16>);
