// Activations (GELU, Hendrycks & Gimpel, 2016, and others) and their backward. Verbs: activate, activate_bw.
//
//   y = f(x),  dx = dy f'(x)
//
// Grid: 256 threads a block stride over the elements, 16 bytes each; the elements left over at the end go to the first
// threads, one each. Bound by memory: forward 2 and backward 3 elements of traffic each, about 20 operations.
#include "activation.cuh"

template <class Real, unsigned count> DEVICE void gelu_at(const GeluParams &p, unsigned long long at) {
    float x[count], y[count];
    load(x, static_cast<const Real *>(p.x) + at);
#pragma unroll
    for (unsigned i = 0; i < count; i++) {
        y[i] = activation(p.kind, x[i]);
    }
    store(static_cast<Real *>(p.y) + at, y);
}

template <class Real, unsigned count> DEVICE void gelu_bw_at(const GeluBwParams &p, unsigned long long at) {
    float dy[count], x[count], dx[count];
    load(dy, static_cast<const Real *>(p.dy) + at);
    load(x, static_cast<const Real *>(p.x) + at);
#pragma unroll
    for (unsigned i = 0; i < count; i++) {
        dx[i] = dy[i] * slope(p.kind, x[i]);
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
