// Attention of one query a sequence over a cache of keys and values, and the way into the cache; there is no backward.
// Verbs: attention_cached, kv_store.
//
//   For one head: s = scale q k^T over the two runs of rows of the cache that row r sees,  o = softmax(s) v
//
// Shapes: qkv[rows, (heads + 2 kv_heads) head_dim] = [q | k | v], keys and values[capacity, kv_heads head_dim],
// o[rows, heads head_dim].
//
// Grid: attention_cached is one-dimensional, row * heads + head; kv_store as its kernel says. Bound by memory: the
// cache rows once a query head, from L2 for all but the first head of a group.
#include "attention.cuh"

// Number of rows of a run, all of which the cache has.
DEVICE unsigned check_run(const unsigned *run, unsigned cache_rows PLACE) {
    if (run[1] > 0) {
        check_row(run[0], cache_rows HERE);
        check_row(run[1] - 1, cache_rows - run[0] HERE);
    }
    return run[1];
}

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
    const unsigned *runs = p.runs + 4 * static_cast<size_t>(row);
    const unsigned before = check_run(runs, p.cache_rows);
    const unsigned len = before + check_run(runs + 2, p.cache_rows);
    check_row(0, len); // a softmax over nothing
    const auto cache_row = [&](unsigned key) { // where a key of the two runs lies
        return (key < before ? runs[0] + key : runs[2] + (key - before)) * kv_width;
    };
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
                load(k, keys + cache_row(key) + column(part));
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
                    load(v, values + cache_row(key) + column(part));
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
