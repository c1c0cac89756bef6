// Log-softmax of the head's logits at a target, with statistics, its backward in place, a soft cap before it, and the
// divergence of two predictions. Verbs: logprob, logprob_bw, soft_cap, kl.
//
//   p = softmax(logits[row]),  lse = ln sum e^logit,  logp = logit[target] - lse
//   entropy = -sum p ln p,  mean_logit = sum logit / vocab,  hit = 1 where logit[target] is the largest,
//   collision = ln sum p^2
//   soft_cap: logits = cap tanh(logits / cap)
//   backward: logits = coef (onehot(target) - p) (1 - (logits / cap)^2)
//   kl = sum p (ln p - ln q) = sum p (e^d - 1 - d),  d = ln q - ln p,  p e^d = q   (Kullback & Leibler, 1951)
//
// The forward reads a row once. With t the largest logit so far it keeps S = sum e^(x - t),
// W = sum (x - t) e^(x - t) and Q = sum e^2(x - t) (online softmax: Milakov & Gimelshein, 2018); when t grows by d,
// W becomes e^-d (W - d S), S becomes e^-d S and Q becomes e^-2d Q.
// Then lse = t + ln S, entropy = ln S - W / S and collision = ln (Q / S^2): nothing large cancels, and with
// 1 <= Q <= S <= vocab nothing overflows or vanishes. Q costs one multiply-add an element.
//
// Grid: a block for each row, its threads (32 to 512, by the vocabulary) taking 16 bytes each in turn, and single
// elements of what is left at the end; where rows do not begin at whole 16 bytes, single elements that lie a block's
// width apart. Which thread has which element depends on vocabulary and stride alone. Bound by memory: forward one
// read of the logits, backward and soft_cap a read and a write, kl a read of both; one exponential each.
#include "common.cuh"


// e^x below this is nothing beside the largest term, which is 1; it keeps infinite distances out of the products.
constexpr float FARTHEST = -100.0f;
DEVICE float limit(float distance) { return distance < FARTHEST ? FARTHEST : distance; } // a NaN stays one

// The elements of a row that one thread has in a sweep of the block over it: LANES of them.
template <class Real, bool wide> struct Sweep {
    const unsigned first;
    const unsigned step;

    DEVICE explicit Sweep(unsigned sweep)
        : first(sweep * blockDim.x * LANES<Real> + threadIdx.x * (wide ? LANES<Real> : 1)),
          step(wide ? 1 : blockDim.x) {}

    DEVICE bool inside(unsigned i, unsigned vocab) const { return (wide ? first : first + i * step) < vocab; }

    DEVICE void load_from(float (&v)[LANES<Real>], const Real *row, unsigned vocab) const {
        if constexpr (wide) {
            if (first < vocab) {
                load(v, row + first);
            }
        } else {
#pragma unroll
            for (unsigned i = 0; i < LANES<Real>; i++) {
                if (inside(i, vocab)) {
                    v[i] = to_float(row[first + i * step]);
                }
            }
        }
    }

    DEVICE void store_to(Real *row, const float (&v)[LANES<Real>], unsigned vocab) const {
        if constexpr (wide) {
            if (first < vocab) {
                store(row + first, v);
            }
        } else {
#pragma unroll
            for (unsigned i = 0; i < LANES<Real>; i++) {
                if (inside(i, vocab)) {
                    row[first + i * step] = from_float<Real>(v[i]);
                }
            }
        }
    }
};

// At most one element of each thread: what whole 16 bytes leave of a row from `begin` on.
template <class Real> struct Rest {
    const unsigned at;
    const bool any;

    DEVICE Rest(unsigned begin, unsigned vocab) : at(begin + threadIdx.x), any(at < vocab) {}
    DEVICE bool inside(unsigned i, unsigned) const { return i == 0 && any; }
};

// Elements of a row that a sweep takes 16 bytes at a time, or all of them.
template <class Real, bool wide> DEVICE unsigned swept(unsigned vocab) {
    return wide ? vocab - vocab % LANES<Real> : vocab;
}

template <class Real> DEVICE unsigned sweeps_of(unsigned vocab) {
    return (vocab + blockDim.x * LANES<Real> - 1) / (blockDim.x * LANES<Real>);
}

// What is known of the logits seen so far.
struct Softmax {
    float top;
    float sum;      // S
    float weighted; // W
    float squares;  // Q
    float mean;     // their share in the mean

    // Measures from a larger `top` on.
    DEVICE void raise(float to) {
        const float distance = limit(top - to);
        const float factor = expf(distance);
        weighted = factor * (weighted + distance * sum);
        squares *= factor * factor;
        sum *= factor;
        top = to;
    }

    DEVICE void add(const Softmax &other) {
        Softmax more = other;
        const float highest = fmaxf(top, other.top);
        raise(highest);
        more.raise(highest);
        sum += more.sum;
        weighted += more.weighted;
        squares += more.squares;
        mean += more.mean;
    }
};

static_assert(sizeof(Softmax) == LOGPROB_WARP_BYTES, "the launch has room for one a warp");

template <unsigned count, class Where>
DEVICE void absorb(Softmax &s, const float (&x)[count], const Where &where, unsigned vocab, float share) {
    float highest = s.top;
#pragma unroll
    for (unsigned i = 0; i < count; i++) {
        if (where.inside(i, vocab)) {
            highest = fmaxf(highest, x[i]);
        }
    }
    if (highest > s.top) {
        s.raise(highest);
    }
#pragma unroll
    for (unsigned i = 0; i < count; i++) {
        if (where.inside(i, vocab)) {
            const float distance = limit(x[i] - s.top);
            const float e = expf(distance);
            s.sum += e;
            s.weighted = fmaf(e, distance, s.weighted);
            s.squares = fmaf(e, e, s.squares);
            s.mean = fmaf(x[i], share, s.mean); // not divided at the end: the sum of large logits may overflow
        }
    }
}

// The states of a block's threads joined, in an order that depends on their number alone. Right in thread 0.
DEVICE Softmax join(Softmax s, Softmax *scratch) {
#pragma unroll
    for (unsigned lanes = 16; lanes; lanes /= 2) {
        s.add({__shfl_xor_sync(0xffffffffu, s.top, lanes), __shfl_xor_sync(0xffffffffu, s.sum, lanes),
               __shfl_xor_sync(0xffffffffu, s.weighted, lanes), __shfl_xor_sync(0xffffffffu, s.squares, lanes),
               __shfl_xor_sync(0xffffffffu, s.mean, lanes)});
    }
    if (threadIdx.x % 32 == 0) {
        scratch[threadIdx.x / 32] = s;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        for (unsigned warp = 1; warp < blockDim.x / 32; warp++) {
            s.add(scratch[warp]);
        }
    }
    return s;
}

template <class Real, bool wide> DEVICE void logprob_row(const LogprobParams &p, Softmax *scratch) {
    const Real *row = static_cast<const Real *>(p.logits) + static_cast<size_t>(blockIdx.x) * p.stride;
    const float share = 1.0f / static_cast<float>(p.vocab);
    const unsigned end = swept<Real, wide>(p.vocab);
    Softmax s = {to_float(row[0]), 0.0f, 0.0f, 0.0f, 0.0f};
    for (unsigned i = 0; i < sweeps_of<Real>(end); i++) {
        const Sweep<Real, wide> sweep(i);
        float x[LANES<Real>];
        sweep.load_from(x, row, end);
        absorb(s, x, sweep, end, share);
    }
    const Rest<Real> rest(end, p.vocab);
    if (wide && rest.any) {
        const float x[1] = {to_float(row[rest.at])};
        absorb(s, x, rest, p.vocab, share);
    }
    s = join(s, scratch);
    if (threadIdx.x == 0) {
        check_row(p.targets[blockIdx.x], p.vocab);
        const float target = to_float(row[p.targets[blockIdx.x]]);
        const float above = logf(s.sum);
        const float lse = s.top + above;
        p.logp[blockIdx.x] = target - lse;
        p.lse[blockIdx.x] = lse;
        p.entropy[blockIdx.x] = above - s.weighted / s.sum;
        p.mean_logit[blockIdx.x] = s.mean;
        p.hit[blockIdx.x] = target >= s.top ? 1.0f : 0.0f;
        p.collision[blockIdx.x] = logf(s.squares / (s.sum * s.sum));
    }
}

template <class Real> DEVICE void logprob(const LogprobParams &p) {
    DYN_SMEM(shared);
    Softmax *scratch = reinterpret_cast<Softmax *>(shared);
    if (vectorised<Real>(p.stride, p.logits)) {
        logprob_row<Real, true>(p, scratch);
    } else {
        logprob_row<Real, false>(p, scratch);
    }
}

// Every element of a row, and where it is, to what `f` makes of them.
template <class Real, bool wide, class F> DEVICE void map_row(Real *row, unsigned vocab, const F &f) {
    const unsigned end = swept<Real, wide>(vocab);
    for (unsigned i = 0; i < sweeps_of<Real>(end); i++) {
        const Sweep<Real, wide> sweep(i);
        float x[LANES<Real>];
        sweep.load_from(x, row, end);
#pragma unroll
        for (unsigned j = 0; j < LANES<Real>; j++) {
            if (sweep.inside(j, end)) {
                x[j] = f(x[j], sweep.first + j * sweep.step);
            }
        }
        sweep.store_to(row, x, end);
    }
    const Rest<Real> rest(end, vocab);
    if (wide && rest.any) {
        row[rest.at] = from_float<Real>(f(to_float(row[rest.at]), rest.at));
    }
}

template <class Real> DEVICE void soft_cap(const SoftCapParams &p) {
    Real *row = static_cast<Real *>(p.logits) + static_cast<size_t>(blockIdx.x) * p.stride;
    const auto capped = [&](float logit, unsigned) { return p.cap * tanhf(logit * p.inverse); };
    if (vectorised<Real>(p.stride, p.logits)) {
        map_row<Real, true>(row, p.vocab, capped);
    } else {
        map_row<Real, false>(row, p.vocab, capped);
    }
}

template <class Real> DEVICE void logprob_bw(const LogprobBwParams &p) {
    Real *row = static_cast<Real *>(p.logits) + static_cast<size_t>(blockIdx.x) * p.stride;
    const float lse = p.lse[blockIdx.x];
    const float coef = p.coef[blockIdx.x];
    const unsigned target = p.targets[blockIdx.x];
    const auto gradient = [&](float logit, unsigned at) {
        const float probability = expf(logit - lse);
        const float share = logit * p.inverse;
        const float slope = p.inverse == 0.0f ? 1.0f : 1.0f - share * share;
        // From 1 - p and not from 1 and p apart: near 1 they would cancel twice.
        return (at == target ? coef * (1.0f - probability) : -coef * probability) * slope;
    };
    if (vectorised<Real>(p.stride, p.logits)) {
        map_row<Real, true>(row, p.vocab, gradient);
    } else {
        map_row<Real, false>(row, p.vocab, gradient);
    }
}

// p (e^d - 1 - d) of a pair of logits. No term is negative. Near 0 the bracket is d^2/2 (1 + d/3 (1 + d/4 (..))), to a
// term that a float does not see.
DEVICE float kl_term(float x, float y, float p_lse, float q_lse) {
    constexpr float LEAST = -80.0f; // below e^LEAST a probability is 0
    constexpr float NEAR = 0.5f;
    const float ln_p = x - p_lse;
    const float ln_q = y - q_lse;
    const float p = ln_p < LEAST ? 0.0f : expf(ln_p);
    const float q = ln_q < LEAST ? 0.0f : expf(ln_q);
    const float d = (y - x) - (q_lse - p_lse); // not ln_q - ln_p, which are rounded
    if (fabsf(d) <= NEAR) {
        float series = 1.0f;
#pragma unroll
        for (int power = 9; power >= 3; power--) {
            series = fmaf(series * d, 1.0f / static_cast<float>(power), 1.0f);
        }
        return p * (0.5f * d * d * series);
    }
    return p == 0.0f ? q : q - p - p * d;
}

template <class Real, bool wide> DEVICE void kl_row(const KlParams &p, float *scratch) {
    const size_t from = static_cast<size_t>(blockIdx.x) * p.stride;
    const Real *p_row = static_cast<const Real *>(p.p) + from;
    const Real *q_row = static_cast<const Real *>(p.q) + from;
    const float p_lse = p.p_lse[blockIdx.x];
    const float q_lse = p.q_lse[blockIdx.x];
    const unsigned end = swept<Real, wide>(p.vocab);
    float sum = 0.0f;
    for (unsigned i = 0; i < sweeps_of<Real>(end); i++) {
        const Sweep<Real, wide> sweep(i);
        float x[LANES<Real>], y[LANES<Real>];
        sweep.load_from(x, p_row, end);
        sweep.load_from(y, q_row, end);
#pragma unroll
        for (unsigned j = 0; j < LANES<Real>; j++) {
            if (sweep.inside(j, end)) {
                sum += kl_term(x[j], y[j], p_lse, q_lse);
            }
        }
    }
    const Rest<Real> rest(end, p.vocab);
    if (wide && rest.any) {
        sum += kl_term(to_float(p_row[rest.at]), to_float(q_row[rest.at]), p_lse, q_lse);
    }
    sum = row_sum(sum, scratch);
    if (threadIdx.x == 0) {
        p.kl[blockIdx.x] = sum;
    }
}

template <class Real> DEVICE void kl(const KlParams &p) {
    DYN_SMEM(shared);
    float *scratch = reinterpret_cast<float *>(shared);
    if (vectorised<Real>(p.stride, p.p, p.q)) {
        kl_row<Real, true>(p, scratch);
    } else {
        kl_row<Real, false>(p, scratch);
    }
}

EXPORT_KERNEL(logprob_f32, (LOGPROB_THREADS), LogprobParams, logprob<float>);
EXPORT_KERNEL(logprob_bf16, (LOGPROB_THREADS), LogprobParams, logprob<bf16>);
EXPORT_KERNEL(soft_cap_f32, (LOGPROB_THREADS), SoftCapParams, soft_cap<float>);
EXPORT_KERNEL(soft_cap_bf16, (LOGPROB_THREADS), SoftCapParams, soft_cap<bf16>);
EXPORT_KERNEL(logprob_bw_f32, (LOGPROB_THREADS), LogprobBwParams, logprob_bw<float>);
EXPORT_KERNEL(logprob_bw_bf16, (LOGPROB_THREADS), LogprobBwParams, logprob_bw<bf16>);
EXPORT_KERNEL(kl_f32, (LOGPROB_THREADS), KlParams, kl<float>);
EXPORT_KERNEL(kl_bf16, (LOGPROB_THREADS), KlParams, kl<bf16>);
