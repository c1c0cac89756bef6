// A token of each row of logits, the penalty of those that were there before, and two models' logits blended. Verbs:
// sample, penalise, blend.
//
//   w = e^(factor (logit - largest)),  logp = factor (logit[token] - largest) - ln sum w
//   A token is kept where w reaches the largest v such that
//     top_k  at least top_k tokens have w >= v
//     top_p  those of them with w >= v have top_p of the sum of w, or more
//   and min_p; drawn is the first kept token at which the sum of kept w, in the order of ids, exceeds draw times the
//   sum of all of them.
//   penalise: logit / penalty where it is positive, else logit * penalty   (Keskar et al., 2019)
//   blend: (1 - m) logit + m other   (Munos et al., 2023)
//
// A v is found by the bits of a float, which for numbers that are not negative have the order of the numbers: each
// sweep over the row measures SAMPLE_PIVOTS numbers between the bounds, in sums whose order never changes, so that what
// a larger v keeps never weighs more. Nothing is sorted.
//
// Grid: sample: a block for each row. Two sweeps of the row, ten for each of top_k and top_p, and what the draw takes,
// an exponential an element each; all but the first from L2, bound by arithmetic. penalise: strides over the pairs.
// blend: a block for each row; two reads and a write.
#include "common.cuh"

// What a block knows of its row.
template <class Real> struct Logits {
    const Real *row;
    unsigned vocab;
    bool wide; // 16 bytes at a time
    float factor;
    float top;

    DEVICE float weight(float logit) const { return expf(factor * (logit - top)); }
    DEVICE float weight_at(unsigned token) const { return weight(to_float(row[token])); }

    // Calls f(logit, token) for every one, each on one thread of the block.
    template <class F> DEVICE void each(F f PLACE) const {
        const unsigned packed = wide ? vocab - vocab % LANES<Real> : 0;
        for (unsigned at = threadIdx.x * LANES<Real>; at < packed; at += SAMPLE_THREADS * LANES<Real>) {
            float x[LANES<Real>];
            load(x, row + at HERE);
#pragma unroll
            for (unsigned i = 0; i < LANES<Real>; i++) {
                f(x[i], at + i);
            }
        }
        for (unsigned at = packed + threadIdx.x; at < vocab; at += SAMPLE_THREADS) {
            f(to_float(row[at]), at);
        }
    }
};

// What the threads of the block have, joined element by element in an order that never changes; every thread gets it.
template <unsigned count, class T, class Join> DEVICE void join_block(T (&x)[count], T *shared, Join join PLACE) {
#pragma unroll
    for (unsigned i = 0; i < count; i++) {
#pragma unroll
        for (unsigned lanes = 16; lanes; lanes /= 2) {
            x[i] = join(x[i], __shfl_xor_sync(0xffffffffu, x[i], lanes HERE));
        }
    }
    block_sync(HERE_ONLY); // the last one's results are read
    if (threadIdx.x % 32 == 0) {
#pragma unroll
        for (unsigned i = 0; i < count; i++) {
            shared[threadIdx.x / 32 * count + i] = x[i];
        }
    }
    block_sync(HERE_ONLY);
#pragma unroll
    for (unsigned i = 0; i < count; i++) {
        x[i] = shared[i];
        for (unsigned warp = 1; warp < SAMPLE_WARPS; warp++) {
            x[i] = join(x[i], shared[warp * count + i]);
        }
    }
}

struct Add {
    DEVICE float operator()(float a, float b) const { return a + b; }
};

// The sum of measure(w) over the row.
template <class Real, class Measure>
DEVICE float measured(const Logits<Real> &logits, float *shared, Measure measure PLACE) {
    float sum[1] = {0.0f};
    logits.each([&](float logit, unsigned) { sum[0] += measure(logits.weight(logit)); } HERE);
    join_block(sum, shared, Add() HERE);
    return sum[0];
}

// The largest v from `least` to 1 such that the sum of measure(w) where w >= v reaches the goal, as it does at `least`.
template <class Real, class Measure>
DEVICE float threshold(const Logits<Real> &logits, float least, float goal, float *shared, Measure measure PLACE) {
    unsigned low = __float_as_uint(least);
    unsigned high = __float_as_uint(1.0f);
    while (low < high) {
        const unsigned part = (high - low) / (SAMPLE_PIVOTS + 1) + 1;
        unsigned pivots[SAMPLE_PIVOTS];
        float sums[SAMPLE_PIVOTS] = {};
#pragma unroll
        for (unsigned i = 0; i < SAMPLE_PIVOTS; i++) {
            pivots[i] = min(low + (i + 1) * part, high);
        }
        logits.each(
            [&](float logit, unsigned) {
                const float w = logits.weight(logit);
                const float more = measure(w);
#pragma unroll
                for (unsigned i = 0; i < SAMPLE_PIVOTS; i++) {
                    sums[i] += w >= __uint_as_float(pivots[i]) ? more : 0.0f;
                }
            } HERE);
        join_block(sums, shared, Add() HERE);
        // The sums fall from pivot to pivot.
#pragma unroll
        for (unsigned i = 0; i < SAMPLE_PIVOTS; i++) {
            if (sums[i] >= goal) {
                low = pivots[i];
            } else {
                high = min(high, pivots[i] - 1);
            }
        }
    }
    return __uint_as_float(low);
}

// The first token of those with w >= least at which their sum exceeds draw times the sum of all of them; the last of
// them where rounding lets none. Each round gives every warp a part of what is left, and takes the part that has it.
template <class Real>
DEVICE unsigned drawn(const Logits<Real> &logits, float least, float draw, float *shared PLACE) {
    unsigned first = 0;
    unsigned end = logits.vocab;
    float before = 0.0f;
    float goal = -1.0f;
    do {
        const unsigned span = (end - first + 32 * SAMPLE_WARPS - 1) / (32 * SAMPLE_WARPS) * 32;
        const unsigned begin = first + threadIdx.x / 32 * span;
        float sum = 0.0f;
        for (unsigned at = begin + threadIdx.x % 32; at < min(begin + span, end); at += 32) {
            const float w = logits.weight_at(at);
            sum += w >= least ? w : 0.0f;
        }
        sum = warp_sum(sum HERE);
        block_sync(HERE_ONLY); // the last round's sums are read
        if (threadIdx.x % 32 == 0) {
            shared[threadIdx.x / 32] = sum;
        }
        block_sync(HERE_ONLY);
        if (goal < 0.0f) {
            float total = 0.0f;
            for (unsigned warp = 0; warp < SAMPLE_WARPS; warp++) {
                total += shared[warp];
            }
            goal = draw * total;
        }
        unsigned chosen = 0;
        float passed = before; // by the parts up to `chosen`
        for (unsigned warp = 0; warp < SAMPLE_WARPS; warp++) {
            if (shared[warp] > 0.0f) {
                chosen = warp;
                before = passed;
                passed += shared[warp];
                if (passed > goal) {
                    break;
                }
            }
        }
        first += chosen * span;
        end = min(first + span, end);
    } while (end - first > 32);
    unsigned token = first;
    for (unsigned at = first; at < end; at++) {
        const float w = logits.weight_at(at);
        if (w >= least) {
            token = at;
            before += w;
            if (before > goal) {
                break;
            }
        }
    }
    return token;
}

template <class Real> DEVICE void sample(const SampleParams &p) {
    DYN_SMEM(memory);
    float *shared = reinterpret_cast<float *>(memory);
    const Real *row = static_cast<const Real *>(p.logits) + static_cast<size_t>(blockIdx.x) * p.stride;
    Logits<Real> logits = {row, p.vocab, vectorised<Real>(p.stride, p.logits), p.factor, 0.0f};
    const auto weight = [](float w) { return w; };
    const auto one = [](float) { return 1.0f; };

    float top[1] = {-INFINITY};
    logits.each([&](float logit, unsigned) { top[0] = fmaxf(top[0], logit); });
    join_block(top, shared, [](float a, float b) { return fmaxf(a, b); });
    logits.top = top[0];
    const float total = measured(logits, shared, weight);
    // Where a logit is no number or infinite, the sum is none. Otherwise the largest has 1 in it.
    if (!(total >= 1.0f)) {
        if (threadIdx.x == 0) {
            p.tokens[blockIdx.x] = SAMPLE_NONE;
            p.logp[blockIdx.x] = total;
        }
        return;
    }
    unsigned token[1] = {p.vocab};
    if (p.greedy) {
        logits.each([&](float logit, unsigned at) { token[0] = logit >= logits.top ? min(token[0], at) : token[0]; });
        join_block(token, reinterpret_cast<unsigned *>(shared), [](unsigned a, unsigned b) { return min(a, b); });
    } else {
        float least = p.least;
        if (p.top_k < p.vocab) {
            least = threshold(logits, least, static_cast<float>(p.top_k), shared, one);
        }
        if (p.top_p < 1.0f) {
            const float kept = measured(logits, shared, [&](float w) { return w >= least ? w : 0.0f; });
            least = threshold(logits, least, p.top_p * kept, shared, weight);
        }
        token[0] = drawn(logits, fmaxf(least, p.min_p), p.draws[blockIdx.x], shared);
    }
    if (threadIdx.x == 0) {
        p.tokens[blockIdx.x] = token[0];
        p.logp[blockIdx.x] = p.factor * (to_float(row[token[0]]) - logits.top) - logf(total);
    }
}

template <class Real> DEVICE void penalise(const PenaliseParams &p) {
    const unsigned threads = gridDim.x * ROW_THREADS;
    for (unsigned i = blockIdx.x * ROW_THREADS + threadIdx.x; i < p.pairs; i += threads) {
        const unsigned row = p.seen[2 * static_cast<size_t>(i)];
        const unsigned token = p.seen[2 * static_cast<size_t>(i) + 1];
        check_row(row, p.rows);
        check_row(token, p.vocab);
        Real *logit = static_cast<Real *>(p.logits) + row * static_cast<size_t>(p.stride) + token;
        const float x = to_float(*logit);
        *logit = from_float<Real>(x > 0.0f ? x / p.penalty : x * p.penalty);
    }
}

template <class Real, unsigned count> DEVICE void blend_at(const BlendParams &p, size_t at) {
    Real *logits = static_cast<Real *>(p.logits) + at;
    float x[count], y[count];
    load(x, logits);
    load(y, static_cast<const Real *>(p.other) + at);
#pragma unroll
    for (unsigned i = 0; i < count; i++) {
        x[i] = fmaf(p.m, y[i], (1.0f - p.m) * x[i]); // exactly one of them at 0 and at 1
    }
    store(logits, x);
}

template <class Real> DEVICE void blend(const BlendParams &p) {
    const size_t row = static_cast<size_t>(blockIdx.x) * p.stride;
    const unsigned packed = vectorised<Real>(p.stride, p.logits, p.other) ? p.vocab - p.vocab % LANES<Real> : 0;
    for (unsigned at = threadIdx.x * LANES<Real>; at < packed; at += SAMPLE_THREADS * LANES<Real>) {
        blend_at<Real, LANES<Real>>(p, row + at);
    }
    for (unsigned at = packed + threadIdx.x; at < p.vocab; at += SAMPLE_THREADS) {
        blend_at<Real, 1>(p, row + at);
    }
}

EXPORT_KERNEL(sample_f32, (SAMPLE_THREADS), SampleParams, sample<float>);
EXPORT_KERNEL(sample_bf16, (SAMPLE_THREADS), SampleParams, sample<bf16>);
EXPORT_KERNEL(penalise_f32, (ROW_THREADS), PenaliseParams, penalise<float>);
EXPORT_KERNEL(penalise_bf16, (ROW_THREADS), PenaliseParams, penalise<bf16>);
EXPORT_KERNEL(blend_f32, (SAMPLE_THREADS), BlendParams, blend<float>);
EXPORT_KERNEL(blend_bf16, (SAMPLE_THREADS), BlendParams, blend<bf16>);
