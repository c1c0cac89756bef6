// Optimizer steps over a flat array of weights. Verbs: adamw, rmsprop.
//
//   AdamW (Loshchilov & Hutter, 2019):  m = beta1 m + (1 - beta1) g,  v = beta2 v + (1 - beta2) g^2
//       w = w (1 - lr decay) - lr / (1 - beta1^t) m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
//   RMSprop (Tieleman & Hinton, 2012):  g += decay w,  v = alpha v + (1 - alpha) g^2,  w -= lr g / (sqrt(v) + eps)
//
// g is multiplied by grad_scale first, and by *clip where that is not null: a factor that an earlier kernel left on the
// device (clip_scale in reduce.cu), so that clipping needs no way to the host and back.
//
// Stochastic rounding of bf16 weights: 16 random bits are added to the float before its lower half is cut off, so that
// it goes up with the probability that makes the mean right; nearest rounding would lose every update of less than half
// a step. The bits are a function of the key and of the element's number, whatever the launch: element i takes bits
// 16 (i mod 4) on of mix(key + (i / 4 + 1) GOLDEN), the generator SplitMix64 (Steele et al., 2014) at a counter.
//
// Where there is a master, it is the weight that is updated, and w becomes its rounding to nearest.
//
// Grid: 256 threads a block stride over the elements, 16 bytes of weights each. Bound by memory: AdamW reads 3 floats
// and a weight and writes 2 floats and a weight for each element (28 bytes in float, 24 in bf16, 30 in bf16 with a
// master, of which w itself is only written), RMSprop 20, 16 and 22.
#include "common.cuh"

constexpr unsigned long long GOLDEN = 0x9e3779b97f4a7c15ull;

DEVICE unsigned long long mix(unsigned long long x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

// x up or down to a bf16, by 16 random bits; an infinity or a NaN is itself.
DEVICE float round_at_random(float x, unsigned random) {
    const unsigned bits = __float_as_uint(x);
    const bool finite = (bits & 0x7f800000u) != 0x7f800000u;
    return finite ? __uint_as_float((bits + random) & 0xffff0000u) : x;
}

// The weights of the elements from `at` on: the master's where there is one.
template <unsigned count, class Real>
DEVICE void load_weights(float (&v)[count], const Real *w, const float *master, unsigned long long at) {
    if (master) {
        load(v, master + at);
    } else {
        load(v, w + at);
    }
}

// Writes the weights of the elements from `at` on.
template <unsigned count, class Real>
DEVICE void store_weights(Real *w, float *master, float (&v)[count], unsigned long long at, unsigned stochastic,
                          unsigned long long key) {
    if (master) {
        store(master + at, v);
        store(w + at, v);
        return;
    }
    if constexpr (sizeof(Real) == 2) {
        if (stochastic) {
            unsigned long long word = 0;
#pragma unroll
            for (unsigned i = 0; i < count; i++) {
                const unsigned long long element = at + i;
                if (i % 4 == 0) { // a pack begins at a multiple of 4
                    word = mix(key + (element / 4 + 1) * GOLDEN);
                }
                v[i] = round_at_random(v[i], static_cast<unsigned>(word >> (16 * (element % 4))) & 0xffffu);
            }
        }
    }
    store(w + at, v);
}

DEVICE float gradient_scale(float grad_scale, const float *clip) { return clip ? grad_scale * *clip : grad_scale; }

template <class Real, unsigned count>
DEVICE void adamw_at(const AdamwParams &p, unsigned long long at, float scale) {
    float w[count], m[count], v[count], g[count];
    load_weights(w, static_cast<const Real *>(p.w), p.master, at);
    load(m, p.m + at);
    load(v, p.v + at);
    load(g, p.g + at);
#pragma unroll
    for (unsigned i = 0; i < count; i++) {
        g[i] *= scale;
        m[i] = p.beta1 * m[i] + p.one_minus_beta1 * g[i];
        v[i] = p.beta2 * v[i] + p.one_minus_beta2 * g[i] * g[i];
        w[i] = w[i] * p.keep - p.step_size * m[i] / (sqrtf(v[i]) * p.inverse_root + p.eps);
    }
    store(p.m + at, m);
    store(p.v + at, v);
    store_weights(static_cast<Real *>(p.w), p.master, w, at, p.stochastic, p.random_key);
}

template <class Real> DEVICE void adamw(const AdamwParams &p) {
    const float scale = gradient_scale(p.grad_scale, p.clip);
    for_each_pack<Real>(
        p.len, vectorised<Real>(0, p.w, p.master, p.m, p.v, p.g),
        [&](unsigned long long at) { adamw_at<Real, LANES<Real>>(p, at, scale); },
        [&](unsigned long long at) { adamw_at<Real, 1>(p, at, scale); });
}

template <class Real, unsigned count>
DEVICE void rmsprop_at(const RmspropParams &p, unsigned long long at, float scale) {
    float w[count], v[count], g[count];
    load_weights(w, static_cast<const Real *>(p.w), p.master, at);
    load(v, p.v + at);
    load(g, p.g + at);
#pragma unroll
    for (unsigned i = 0; i < count; i++) {
        g[i] = g[i] * scale + p.weight_decay * w[i];
        v[i] = p.alpha * v[i] + p.one_minus_alpha * g[i] * g[i];
        w[i] -= p.lr * g[i] / (sqrtf(v[i]) + p.eps);
    }
    store(p.v + at, v);
    store_weights(static_cast<Real *>(p.w), p.master, w, at, p.stochastic, p.random_key);
}

template <class Real> DEVICE void rmsprop(const RmspropParams &p) {
    const float scale = gradient_scale(p.grad_scale, p.clip);
    for_each_pack<Real>(
        p.len, vectorised<Real>(0, p.w, p.master, p.v, p.g),
        [&](unsigned long long at) { rmsprop_at<Real, LANES<Real>>(p, at, scale); },
        [&](unsigned long long at) { rmsprop_at<Real, 1>(p, at, scale); });
}

EXPORT_KERNEL(adamw_f32, (ROW_THREADS), AdamwParams, adamw<float>);
EXPORT_KERNEL(adamw_bf16, (ROW_THREADS), AdamwParams, adamw<bf16>);
EXPORT_KERNEL(rmsprop_f32, (ROW_THREADS), RmspropParams, rmsprop<float>);
EXPORT_KERNEL(rmsprop_bf16, (ROW_THREADS), RmspropParams, rmsprop<bf16>);
