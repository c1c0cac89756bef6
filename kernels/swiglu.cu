// SwiGLU (Shazeer, 2020) and its backward. Verbs: swiglu, swiglu_bw.
//
//   x[rows, 2 width] = [g | u],  s = 1 / (1 + e^-g)
//   y[rows, width] = g s u
//   dg = dy u s (1 + g (1 - s)),  du = dy g s
//
// Grid: x covers the columns, 256 threads of 16 bytes each (one element each where a row is not a whole number of 16
// bytes); y strides over the rows. Bound by memory: forward 3 and backward 5 elements of traffic for each of y, about
// 20 operations.
#include "common.cuh"


DEVICE float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

template <class Real, unsigned count> DEVICE void swiglu_columns(const SwigluParams &p) {
    const unsigned column = (blockIdx.x * ROW_THREADS + threadIdx.x) * count;
    if (column >= p.width) {
        return;
    }
    for (unsigned row = blockIdx.y; row < p.rows; row += gridDim.y) {
        const Real *x = static_cast<const Real *>(p.x) + static_cast<size_t>(row) * 2 * p.width + column;
        float g[count], u[count], y[count];
        load(g, x);
        load(u, x + p.width);
#pragma unroll
        for (unsigned i = 0; i < count; i++) {
            y[i] = g[i] * sigmoid(g[i]) * u[i];
        }
        store(static_cast<Real *>(p.y) + static_cast<size_t>(row) * p.width + column, y);
    }
}

template <class Real> DEVICE void swiglu(const SwigluParams &p) {
    if (vectorised<Real>(p.width, p.x, p.y)) {
        swiglu_columns<Real, LANES<Real>>(p);
    } else {
        swiglu_columns<Real, 1>(p);
    }
}

template <class Real, unsigned count> DEVICE void swiglu_bw_columns(const SwigluBwParams &p) {
    const unsigned column = (blockIdx.x * ROW_THREADS + threadIdx.x) * count;
    if (column >= p.width) {
        return;
    }
    for (unsigned row = blockIdx.y; row < p.rows; row += gridDim.y) {
        const size_t at = static_cast<size_t>(row) * p.width + column;
        const size_t pair = static_cast<size_t>(row) * 2 * p.width + column;
        const Real *x = static_cast<const Real *>(p.x) + pair;
        float dy[count], g[count], u[count], dg[count], du[count];
        load(dy, static_cast<const Real *>(p.dy) + at);
        load(g, x);
        load(u, x + p.width);
#pragma unroll
        for (unsigned i = 0; i < count; i++) {
            const float s = sigmoid(g[i]);
            // In this order what is too large for a float on the way is too large at the end.
            dg[i] = dy[i] * (u[i] * (s * (1.0f + g[i] * (1.0f - s))));
            du[i] = dy[i] * (g[i] * s);
        }
        Real *dx = static_cast<Real *>(p.dx) + pair;
        store(dx, dg);
        store(dx + p.width, du);
    }
}

template <class Real> DEVICE void swiglu_bw(const SwigluBwParams &p) {
    if (vectorised<Real>(p.width, p.x, p.dy, p.dx)) {
        swiglu_bw_columns<Real, LANES<Real>>(p);
    } else {
        swiglu_bw_columns<Real, 1>(p);
    }
}

EXPORT_KERNEL(swiglu_f32, (ROW_THREADS), SwigluParams, swiglu<float>);
EXPORT_KERNEL(swiglu_bf16, (ROW_THREADS), SwigluParams, swiglu<bf16>);
EXPORT_KERNEL(swiglu_bw_f32, (ROW_THREADS), SwigluBwParams, swiglu_bw<float>);
EXPORT_KERNEL(swiglu_bw_bf16, (ROW_THREADS), SwigluBwParams, swiglu_bw<bf16>);
