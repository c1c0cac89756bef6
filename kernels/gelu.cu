// GELU in its tanh form (Hendrycks & Gimpel, 2016) and its backward. Verbs: gelu, gelu_bw.
//
//   z = 2 sqrt(2/pi) (x + 0.044715 x^3),  s = 1 / (1 + e^-z)     (1 + tanh(z/2) = 2 s)
//   y = x s
//   dx = dy (s + x s (1 - s) z'),  z' = 2 sqrt(2/pi) (1 + 3 · 0.044715 x^2)
//
// Grid: 256 threads a block stride over the elements, 16 bytes each; the elements left over at the end go to the first
// threads, one each. Bound by memory: forward 2 and backward 3 elements of traffic each, about 20 operations.
#include "common.cuh"

constexpr float GELU_SCALE = 1.5957691216057308f; // 2 sqrt(2/pi)
constexpr float GELU_CUBIC = 0.044715f;

DEVICE float gelu_sigmoid(float x) {
    return 1.0f / (1.0f + expf(-GELU_SCALE * (x + GELU_CUBIC * x * x * x)));
}

template <class Real, unsigned count> DEVICE void gelu_at(const GeluParams &p, unsigned long long at) {
    float x[count], y[count];
    load(x, static_cast<const Real *>(p.x) + at);
#pragma unroll
    for (unsigned i = 0; i < count; i++) {
        y[i] = x[i] * gelu_sigmoid(x[i]);
    }
    store(static_cast<Real *>(p.y) + at, y);
}

template <class Real, unsigned count> DEVICE void gelu_bw_at(const GeluBwParams &p, unsigned long long at) {
    float dy[count], x[count], dx[count];
    load(dy, static_cast<const Real *>(p.dy) + at);
    load(x, static_cast<const Real *>(p.x) + at);
#pragma unroll
    for (unsigned i = 0; i < count; i++) {
        const float s = gelu_sigmoid(x[i]);
        const float slope = GELU_SCALE * (1.0f + 3.0f * GELU_CUBIC * x[i] * x[i]);
        const float tail = s * (1.0f - s);
        dx[i] = dy[i] * (s + (tail > 0.0f ? x[i] * tail * slope : 0.0f)); // x^2 may be infinite where the tail is 0
    }
    store(static_cast<Real *>(p.dx) + at, dx);
}

template <class Real> DEVICE void gelu(const GeluParams &p) {
    for_each_pack<Real>(
        p.len, vectorised<Real>(0, p.x, p.y), [&](unsigned long long at) { gelu_at<Real, LANES<Real>>(p, at); },
        [&](unsigned long long at) { gelu_at<Real, 1>(p, at); });
}

template <class Real> DEVICE void gelu_bw(const GeluBwParams &p) {
    for_each_pack<Real>(
        p.len, vectorised<Real>(0, p.x, p.dy, p.dx), [&](unsigned long long at) { gelu_bw_at<Real, LANES<Real>>(p, at); },
        [&](unsigned long long at) { gelu_bw_at<Real, 1>(p, at); });
}

EXPORT_KERNEL(gelu_f32, (ROW_THREADS), GeluParams, gelu<float>);
EXPORT_KERNEL(gelu_bf16, (ROW_THREADS), GeluParams, gelu<bf16>);
EXPORT_KERNEL(gelu_bw_f32, (ROW_THREADS), GeluBwParams, gelu_bw<float>);
EXPORT_KERNEL(gelu_bw_bf16, (ROW_THREADS), GeluBwParams, gelu_bw<bf16>);
